//! Records as rows of a table: keys and values are JSON, so that they can be read where other tables
//! are. tests/rules/rows.rs pins the bytes.
//!
//! A key is an array: group, kind, and what names the record in the group. Rows of one group are side
//! by side. Metadata and assignments are bytes of the clients, in base64.

use serde::{Deserialize, Serialize};

use crate::{Record, TopicPartition};

const GROUP: &str = "group";
const MEMBER: &str = "member";
const OFFSET: &str = "offset";

/// A row as it is to be: without a value it is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub enum RowError {
    #[error("the key of a row of groups is no array of a group, a kind and a name")]
    Key(#[source] serde_json::Error),
    #[error("rows of groups have no kind '{0}' with so many names")]
    Kind(String),
    #[error("the value of the row '{key}' of groups cannot be read")]
    Value {
        key: String,
        source: serde_json::Error,
    },
}

impl Record {
    pub fn row(&self) -> Row {
        let key = match self {
            Self::PutGroup { group, .. } | Self::DeleteGroup { group } => json(&(group, GROUP)),
            Self::PutMember { group, member, .. } | Self::DeleteMember { group, member } => {
                json(&(group, MEMBER, member))
            }
            Self::PutOffset { group, at, .. } | Self::DeleteOffset { group, at } => {
                json(&(group, OFFSET, &at.topic, at.partition))
            }
        };
        let value = match self {
            Self::PutGroup { record, .. } => Some(json(record)),
            Self::PutMember { record, .. } => Some(json(record)),
            Self::PutOffset { record, .. } => Some(json(record)),
            _ => None,
        };
        Row { key, value }
    }

    /// Reads a row that is stored.
    pub fn of_row(key: &[u8], value: &[u8]) -> Result<Self, RowError> {
        let names: Vec<serde_json::Value> = serde_json::from_slice(key).map_err(RowError::Key)?;
        let named: Vec<_> = names.iter().map(serde_json::Value::as_str).collect();
        match named[..] {
            [Some(group), Some(GROUP)] => Ok(Self::PutGroup {
                group: group.to_owned(),
                record: read(key, value)?,
            }),
            [Some(group), Some(MEMBER), Some(member)] => Ok(Self::PutMember {
                group: group.to_owned(),
                member: member.to_owned(),
                record: read(key, value)?,
            }),
            [Some(group), Some(OFFSET), Some(topic), None] => Ok(Self::PutOffset {
                group: group.to_owned(),
                at: TopicPartition {
                    topic: topic.to_owned(),
                    partition: partition(&names[3])?,
                },
                record: read(key, value)?,
            }),
            [_, Some(kind), ..] => Err(RowError::Kind(kind.to_owned())),
            _ => Err(RowError::Kind(String::new())),
        }
    }
}

fn partition(name: &serde_json::Value) -> Result<i32, RowError> {
    let number = name.as_i64().and_then(|number| i32::try_from(number).ok());
    number.ok_or_else(|| RowError::Kind(OFFSET.to_owned()))
}

#[expect(clippy::expect_used, reason = "the message is the proof")]
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, numbers and lists of them have a JSON form")
}

fn read<'a, T: Deserialize<'a>>(key: &[u8], value: &'a [u8]) -> Result<T, RowError> {
    serde_json::from_slice(value).map_err(|source| RowError::Value {
        key: String::from_utf8_lossy(key).into_owned(),
        source,
    })
}

/// How serde writes and reads bytes: in base64.
pub(crate) mod in_base64 {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use bytes::Bytes;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(D::Error::custom)?;
        Ok(bytes.into())
    }
}
