//! The guard: walks the bytes of a request before anything is made of them.
//!
//! Invariants of a request that passes: every length is at most what was left of the frame, and no list
//! has more elements than Kafka's own brokers take. The walk allocates nothing, and goes as deep as the
//! table of fields. What is behind the message is left alone, as Kafka's own brokers do it: librdkafka
//! 2.16 sends three bytes more than a request for the metadata of all topics has.

use crate::schema::{Field, Type};

/// The most elements of a list, as of Kafka 4.4.
const ELEMENTS_MAX: usize = 1_000_000;
/// The most tagged fields of one structure, as of Kafka 4.4.
const TAGGED_FIELDS_MAX: usize = 10_000;
/// A varint of 32 bits has at most so many bytes.
const VARINT_BYTES_MAX: u32 = 5;

/// A request that is not what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    #[error("{wanted} bytes are wanted where {left} are left")]
    Short { wanted: usize, left: usize },
    #[error("a length of {0} is none")]
    Length(i64),
    #[error("a list has {0} elements, the limit is {ELEMENTS_MAX}")]
    Elements(usize),
    #[error("a structure has {0} tagged fields, the limit is {TAGGED_FIELDS_MAX}")]
    TaggedFields(usize),
    #[error("a number is longer than 32 bits")]
    Varint,
    #[error("tagged field {tag} has {left} bytes more than its type")]
    Tagged { tag: u32, left: usize },
}

/// Walks the whole body of a request; how many bytes are behind it.
pub fn check(
    fields: &[Field],
    version: i16,
    flexible: bool,
    body: &[u8],
) -> Result<usize, GuardError> {
    let mut walk = Walk {
        bytes: body,
        version,
        flexible,
    };
    walk.structure(fields)?;
    Ok(walk.bytes.len())
}

/// Bytes that are read from the front.
pub struct Walk<'b> {
    pub bytes: &'b [u8],
    pub version: i16,
    pub flexible: bool,
}

impl<'b> Walk<'b> {
    pub fn take(&mut self, wanted: usize) -> Result<&'b [u8], GuardError> {
        let left = self.bytes.len();
        let Some((taken, rest)) = self.bytes.split_at_checked(wanted) else {
            return Err(GuardError::Short { wanted, left });
        };
        self.bytes = rest;
        Ok(taken)
    }

    pub fn int16(&mut self) -> Result<i16, GuardError> {
        let bytes = self.take(2)?;
        Ok(i16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub fn int32(&mut self) -> Result<i32, GuardError> {
        let bytes = self.take(4)?;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub fn varint(&mut self) -> Result<u32, GuardError> {
        let mut value: u64 = 0;
        for place in 0..VARINT_BYTES_MAX {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| GuardError::Varint);
            }
        }
        Err(GuardError::Varint)
    }

    /// A length in its compact form; `None` is null.
    fn compact_length(&mut self) -> Result<Option<usize>, GuardError> {
        Ok(self.varint()?.checked_sub(1).map(|length| length as usize))
    }

    fn length(length: i32) -> Result<Option<usize>, GuardError> {
        match length {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| GuardError::Length(i64::from(length))),
        }
    }

    /// A text whose length has two bytes, as in headers of every version; `None` is null.
    pub fn short_text(&mut self) -> Result<Option<&'b [u8]>, GuardError> {
        let length = i32::from(self.int16()?);
        match Self::length(length)? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    /// A text of the version's form; `None` is null.
    pub fn text(&mut self) -> Result<Option<&'b [u8]>, GuardError> {
        if !self.flexible {
            return self.short_text();
        }
        match self.compact_length()? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    fn long_length(&mut self) -> Result<Option<usize>, GuardError> {
        match self.flexible {
            true => self.compact_length(),
            false => {
                let length = self.int32()?;
                Self::length(length)
            }
        }
    }

    fn value(&mut self, kind: &Type) -> Result<(), GuardError> {
        match kind {
            Type::Fixed(bytes) => self.take(*bytes).map(drop),
            Type::Bool => self.take(1).map(drop),
            Type::Text => self.text().map(drop),
            Type::Bytes => match self.long_length()? {
                Some(length) => self.take(length).map(drop),
                None => Ok(()),
            },
            Type::List(of) => self.list(of),
            Type::Struct(fields) => self.structure(fields),
        }
    }

    fn list(&mut self, of: &Type) -> Result<(), GuardError> {
        let Some(count) = self.long_length()? else {
            return Ok(());
        };
        if count > ELEMENTS_MAX {
            return Err(GuardError::Elements(count));
        }
        // Each element has a byte at least.
        let left = self.bytes.len();
        if count > left {
            return Err(GuardError::Short {
                wanted: count,
                left,
            });
        }
        for _ in 0..count {
            self.value(of)?;
        }
        Ok(())
    }

    fn structure(&mut self, fields: &[Field]) -> Result<(), GuardError> {
        let version = self.version;
        let present = fields.iter().filter(|field| field.is_in(version));
        for field in present.filter(|field| field.tag.is_none()) {
            self.value(&field.kind)?;
        }
        match self.flexible {
            true => self.tagged_fields(fields),
            false => Ok(()),
        }
    }

    /// The tagged fields at the end of a structure. The library reads those that it knows by their
    /// type, whatever size they claim: both must be the same.
    pub fn tagged_fields(&mut self, fields: &[Field]) -> Result<(), GuardError> {
        let count = self.varint()? as usize;
        if count > TAGGED_FIELDS_MAX {
            return Err(GuardError::TaggedFields(count));
        }
        for _ in 0..count {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let content = self.take(size)?;
            let known = |field: &&Field| field.tag == Some(tag) && field.is_in(self.version);
            let Some(field) = fields.iter().find(known) else {
                continue;
            };
            let mut inner = Walk {
                bytes: content,
                ..*self
            };
            inner.value(&field.kind)?;
            let left = inner.bytes.len();
            if left > 0 {
                return Err(GuardError::Tagged { tag, left });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::METADATA;

    #[test]
    fn a_list_that_claims_more_than_the_frame_is_refused_before_anything_is_made_of_it() {
        let frame = i32::MAX.to_be_bytes();
        assert_eq!(
            check(METADATA, 1, false, &frame),
            Err(GuardError::Elements(i32::MAX as usize))
        );
        let frame = 1_000_000_i32.to_be_bytes();
        let refused = GuardError::Short {
            wanted: 1_000_000,
            left: 0,
        };
        assert_eq!(check(METADATA, 1, false, &frame), Err(refused));
    }

    #[test]
    fn what_librdkafka_sends_behind_a_message_is_left_alone() {
        let all_topics = [0, 0, 0, 0, 1, 0, 0];
        assert_eq!(check(METADATA, 12, true, &all_topics), Ok(3));
    }

    #[test]
    fn a_known_tagged_field_has_the_size_of_its_type() {
        let fields = &[crate::schema::int32().tag(0)];
        let with_size = |size: u8, bytes: &[u8]| [&[1, 0, size][..], bytes].concat();
        let walk = |frame: &[u8]| check(fields, 0, true, frame);
        assert_eq!(walk(&with_size(4, &[0; 4])), Ok(0));
        assert_eq!(
            walk(&with_size(5, &[0; 5])),
            Err(GuardError::Tagged { tag: 0, left: 1 })
        );
        assert!(walk(&with_size(3, &[0; 3])).is_err());
    }

    #[test]
    fn a_number_of_more_than_32_bits_is_refused() {
        let mut walk = Walk {
            bytes: &[0xff, 0xff, 0xff, 0xff, 0x1f],
            version: 0,
            flexible: true,
        };
        assert_eq!(walk.varint(), Err(GuardError::Varint));
    }
}
