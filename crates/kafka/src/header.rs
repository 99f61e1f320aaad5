//! The header of a request: what it is, and under which number its answer is awaited.
//!
//! ```text
//! 0 key i16 | 2 version i16 | 4 correlation i32 | client text with a length of two bytes
//! tagged fields, where the version is flexible
//! ```

use bytes::{Buf as _, Bytes};

use crate::apis::Api;
use crate::guard::{GuardError, Walk};

/// The bytes that every header has: the key, the version and the number.
pub const FIXED_BYTES: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub key: i16,
    pub version: i16,
    pub correlation: i32,
    /// What the client calls itself.
    pub client: Option<Bytes>,
}

/// Takes a frame apart into its header and its body. Of a request that is not known, or in a version
/// that is not, the header alone can be read, and the body is all that is behind it.
pub fn parse(mut frame: Bytes) -> Result<(Header, Bytes), GuardError> {
    let mut walk = Walk {
        bytes: &frame,
        version: 0,
        flexible: false,
    };
    let (key, version, correlation) = (walk.int16()?, walk.int16()?, walk.int32()?);
    let client = walk.short_text()?.map(|text| frame.slice_ref(text));
    let known = Api::of(key).filter(|api| api.serves(version));
    if known.is_some_and(|api| api.is_flexible(version)) {
        walk.tagged_fields(&[])?;
    }
    let left = walk.bytes.len();
    let header = Header {
        key,
        version,
        correlation,
        client,
    };
    frame.advance(frame.len() - left);
    Ok((header, frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_these_bytes() {
        let plain = b"\x00\x03\x00\x01\x00\x00\x00\x07\x00\x02me\xff\xff\xff\xff";
        let (header, body) = parse(Bytes::from_static(plain)).unwrap();
        assert_eq!((header.key, header.version, header.correlation), (3, 1, 7));
        assert_eq!(header.client.as_deref(), Some(&b"me"[..]));
        assert_eq!(&body[..], b"\xff\xff\xff\xff");

        let flexible = b"\x00\x03\x00\x0c\x00\x00\x00\x07\xff\xff\x01\x09\x01x\x00";
        let (header, body) = parse(Bytes::from_static(flexible)).unwrap();
        assert_eq!((header.version, header.client), (12, None));
        assert_eq!(&body[..], b"\x00", "the tagged field is skipped");
        assert!(parse(Bytes::from_static(b"\x00\x03\x00")).is_err());
    }
}
