//! Bodies, compressed and back. Decompression never makes more than the header says.

use std::borrow::Cow;

use crate::{BODY_BYTES_MAX, Compression, Entry, Index};
use bytes::Bytes;

const ZSTD_LEVEL: i32 = 1;

/// A body cannot be compressed or brought back.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The body has not the length that its header says.
    #[error("the body of entry {index} has {is} bytes, its header says {expected}")]
    Length {
        index: Index,
        is: usize,
        expected: usize,
    },
    /// The compressed bytes are malformed.
    #[error("the compressed body of entry {index} is malformed: {what}")]
    Malformed { index: Index, what: String },
    /// Compressing failed.
    #[error("compressing {0} bytes failed: {1}")]
    Compress(usize, String),
}

/// The body as it was before compression. Shares the entry's memory where it was not compressed.
pub fn raw_body(entry: &Entry) -> Result<Bytes, CompressionError> {
    let expected = entry.header.raw_len as usize;
    let length = |is| CompressionError::Length {
        index: entry.index,
        is,
        expected,
    };
    if expected > BODY_BYTES_MAX {
        return Err(length(entry.body.len()));
    }
    let malformed = |what: String| CompressionError::Malformed {
        index: entry.index,
        what,
    };
    let raw = match entry.header.compression {
        Compression::None => entry.body.clone(),
        Compression::Lz4 => {
            let mut raw = vec![0; expected];
            let count = lz4_flex::block::decompress_into(&entry.body, &mut raw)
                .map_err(|error| malformed(error.to_string()))?;
            raw.truncate(count);
            raw.into()
        }
        Compression::Zstd => zstd::bulk::decompress(&entry.body, expected)
            .map_err(|error| malformed(error.to_string()))?
            .into(),
    };
    if raw.len() != expected {
        return Err(length(raw.len()));
    }
    Ok(raw)
}

/// Compresses a raw body. Answers how the body is stored and its bytes: as they were, where
/// compression does not make them fewer.
pub fn compress(
    raw: &[u8],
    compression: Compression,
) -> Result<(Compression, Cow<'_, [u8]>), CompressionError> {
    let packed = match compression {
        Compression::None => return Ok((Compression::None, Cow::Borrowed(raw))),
        Compression::Lz4 => lz4_flex::block::compress(raw),
        Compression::Zstd => zstd::bulk::compress(raw, ZSTD_LEVEL)
            .map_err(|error| CompressionError::Compress(raw.len(), error.to_string()))?,
    };
    if packed.len() < raw.len() {
        Ok((compression, Cow::Owned(packed)))
    } else {
        Ok((Compression::None, Cow::Borrowed(raw)))
    }
}

#[cfg(test)]
mod tests {
    use crate::{EntryHeader, EntryKind, Offset, Term};
    use proptest::prelude::*;

    use super::*;

    const ALL: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

    fn entry(compression: Compression, raw_len: usize, body: &[u8]) -> Entry {
        let mut header = EntryHeader::empty(EntryKind::Transactions, Offset(0));
        header.compression = compression;
        header.raw_len = raw_len as u32;
        Entry {
            term: Term(1),
            index: Index(1),
            header,
            body: Bytes::copy_from_slice(body),
        }
    }

    #[test]
    fn a_body_that_grows_beyond_its_header_is_refused() {
        for compression in ALL {
            let raw = vec![7; 10_000];
            let (stored, packed) = compress(&raw, compression).unwrap();
            for claimed in [0, 100, 9_999, 10_001] {
                assert!(raw_body(&entry(stored, claimed, &packed)).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn a_body_comes_back(
            raw in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..500),
                prop::collection::vec(0u8..3, 0..2000),
            ],
            which in 0usize..3,
        ) {
            let (stored, packed) = compress(&raw, ALL[which]).unwrap();
            prop_assert!(packed.len() <= raw.len());
            let entry = entry(stored, raw.len(), &packed);
            prop_assert_eq!(&raw_body(&entry).unwrap()[..], &raw[..]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300), claimed in 0usize..5000, which in 0usize..3,
        ) {
            if let Ok(raw) = raw_body(&entry(ALL[which], claimed, &bytes)) {
                prop_assert_eq!(raw.len(), claimed);
            }
        }
    }
}
