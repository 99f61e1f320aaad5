//! Newtypes for every number with a meaning. An offset names a record; a position lies *between*
//! records and is the offset of the next one; mixing them up is the classic off-by-one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Quoted;

macro_rules! number {
    ($(#[$meta:meta])* $name:ident, $inner:ty) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The smallest value, zero.
            pub const ZERO: Self = Self(0);

            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

number!(
    /// A record's place in the log: from 0, without gaps and without reuse.
    Offset,
    u64
);
number!(
    /// A point between records: the offset of the next one. Reading *at* a position sees exactly
    /// the records below it.
    Position,
    u64
);
number!(
    /// A term of Raft: at most one leader each.
    Term,
    u64
);
number!(
    /// The place of an entry (one frame, one batch of transactions) in the log, from 1.
    Index,
    u64
);
number!(
    /// The number of a node in its cluster, from 1. Never reused: a node that lost its disk comes back
    /// under a new one.
    NodeId,
    u64
);
number!(
    /// The number of a table. Records carry it instead of the name; it is never reused.
    TableId,
    u32
);

impl Offset {
    /// The position right behind the record at this offset.
    #[must_use]
    pub const fn after(self) -> Position {
        Position(self.0 + 1)
    }
}

impl Position {
    /// Whether a reader at this position sees the record at `offset`.
    #[must_use]
    pub const fn sees(self, offset: Offset) -> bool {
        offset.0 < self.0
    }

    /// The offset of the first record that a reader at this position does not see.
    #[must_use]
    pub const fn next_offset(self) -> Offset {
        Offset(self.0)
    }
}

impl Index {
    /// The index behind this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The id of a transaction, made by the client that requests it (a UUIDv7 by default). A retry under the
/// same id gets the original answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId(pub u128);

/// A text that is no transaction id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{}' is not a transaction id: expected 32 hexadecimal digits, with or without the hyphens of a UUID, not all zero",
    Quoted(text)
)]
pub struct TxnIdError {
    text: String,
}

impl TxnId {
    /// The sixteen bytes that are stored, big-endian.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id whose stored bytes these are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(
            f,
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}

impl fmt::Debug for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TxnId({self})")
    }
}

impl FromStr for TxnId {
    type Err = TxnIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let plain = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        match u128::from_str_radix(&digits, 16) {
            Ok(number) if plain && number != 0 => Ok(Self(number)),
            _ => Err(TxnIdError {
                text: text.chars().take(64).collect(),
            }),
        }
    }
}

impl Serialize for TxnId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TxnId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_from_what_it_prints() {
        let id = TxnId(0x0190_0000_0000_7000_8000_0000_0000_0001);
        assert_eq!(id.to_string(), "01900000-0000-7000-8000-000000000001");
        assert_eq!(id.to_string().parse::<TxnId>().unwrap(), id);
        assert_eq!(TxnId::from_bytes(id.to_bytes()), id);
    }

    #[test]
    fn a_text_that_is_no_id_is_named() {
        for bad in [
            "",
            "xyz",
            "0190",
            "+1900000000070008000000000000001x",
            "00000000-0000-0000-0000-000000000000",
        ] {
            let error = bad.parse::<TxnId>().unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    #[test]
    fn a_position_sees_what_lies_below_it() {
        assert!(Position(3).sees(Offset(2)));
        assert!(!Position(3).sees(Offset(3)));
        assert_eq!(Offset(2).after(), Position(3));
    }
}
