//! What a client requests: one transaction, with everything its decision rests on.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits::{
    GUARDS_MAX, HEADERS_MAX, KEY_BYTES_MAX, READS_MAX, RECORDS_MAX, TRANSACTION_BYTES_MAX,
    TooLarge, VALUE_BYTES_MAX,
};
use crate::{
    FieldPath, Header, JsonText, Number, Offset, Position, Refusal, SYSTEM_TABLES, TableId, TxnId,
};

/// A key that the client read, found or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointRead {
    pub table: TableId,
    pub key: Bytes,
}

/// A range of keys that the client scanned: from `from` up to but without `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub table: TableId,
    pub from: Bytes,
    /// The first key behind the range; `None` is the table's end.
    pub to: Option<Bytes>,
}

/// How a guard compares a field with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// What a guard demands of a key, on the newest state.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    Exists,
    /// The key is not there.
    Absent,
    /// The key was last written by the record at this offset.
    Version(Offset),
    /// A field of the key's JSON value compares so. A missing key or field compares as `null`,
    /// which is equal to `null` alone and in no order with anything.
    Field {
        path: FieldPath,
        compare: Compare,
        value: JsonText,
    },
}

/// A condition at the commit point; the client need not have read anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    pub table: TableId,
    pub key: Bytes,
    pub predicate: Predicate,
}

/// What a write does. `Add`, `Min`, `Max` and `Append` read the newest value at the commit point,
/// so they never conflict; the log gets their after-image.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// The key has this value now (in a stream table: this happened).
    Put(Bytes),
    Delete,
    /// Adds to a number, exactly. Whole numbers stay whole and may not overflow 64 bits signed.
    Add(FieldPath, Number),
    /// Lowers a number to this one, if it is higher or missing.
    Min(FieldPath, Number),
    /// Raises a number to this one, if it is lower or missing.
    Max(FieldPath, Number),
    /// Appends an element to an array, which is made where it is missing.
    Append(FieldPath, JsonText),
    /// Appends bytes to the value of a table of bytes.
    AppendBytes(Bytes),
}

/// One write of a transaction. Writes happen in order, each seeing those before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    pub table: TableId,
    pub key: Bytes,
    pub operation: Operation,
    /// Headers for the readers of the log.
    pub headers: Vec<Header>,
}

/// One transaction as a client requests it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommitRequest {
    /// The client's id. A retry must carry the same one; without one, one is made.
    pub id: Option<TxnId>,
    /// The position that all reads were made at. Needed exactly when there are reads; with an id
    /// and no reads it says since when the id has been in use.
    pub read_position: Option<Position>,
    pub point_reads: Vec<PointRead>,
    pub range_reads: Vec<KeyRange>,
    /// Conditions at the commit point.
    pub guards: Vec<Guard>,
    /// The writes, in order.
    pub writes: Vec<Write>,
}

impl KeyRange {
    fn check_limits(&self, n: usize) -> Result<(), TooLarge> {
        key("range reads", n, &self.from)?;
        // The end of a prefix or of "right behind this key" is one byte longer than a key.
        match &self.to {
            Some(to) => bytes(
                || format!("end of range reads[{n}]"),
                "KEY_BYTES_MAX",
                to.len(),
                KEY_BYTES_MAX + 1,
            ),
            None => Ok(()),
        }
    }
}

impl Operation {
    fn size(&self) -> usize {
        match self {
            Self::Put(value) | Self::AppendBytes(value) => value.len(),
            Self::Delete => 0,
            Self::Add(_, by) | Self::Min(_, by) | Self::Max(_, by) => by.as_str().len(),
            Self::Append(_, value) => value.as_str().len(),
        }
    }
}

impl Write {
    /// The bytes of its headers.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        let headers = self.headers.iter();
        headers.map(|h| h.name.len() + h.value.len()).sum()
    }

    /// Checks the limits of the write with this number; answers its bytes in the transaction.
    fn check_limits(&self, n: usize) -> Result<usize, TooLarge> {
        key("writes", n, &self.key)?;
        let size = self.operation.size();
        bytes(
            || format!("value of writes[{n}]"),
            "VALUE_BYTES_MAX",
            size,
            VALUE_BYTES_MAX,
        )?;
        if self.headers.len() > HEADERS_MAX {
            return Err(too_large(
                format!("the number of headers of writes[{n}]"),
                "HEADERS_MAX",
                self.headers.len(),
                HEADERS_MAX,
                "headers",
            ));
        }
        let headers = self.header_bytes();
        bytes(
            || format!("headers of writes[{n}]"),
            "VALUE_BYTES_MAX",
            headers,
            VALUE_BYTES_MAX,
        )?;
        Ok(self.key.len() + size + headers)
    }
}

impl Guard {
    fn size(&self) -> usize {
        let field = match &self.predicate {
            Predicate::Field { path, value, .. } => path.as_str().len() + value.as_str().len(),
            _ => 0,
        };
        self.key.len() + field + 96
    }
}

impl CommitRequest {
    /// Whether the request declares reads.
    #[must_use]
    pub fn has_reads(&self) -> bool {
        !self.point_reads.is_empty() || !self.range_reads.is_empty()
    }

    /// About how many bytes of memory the request holds, for bounding queues.
    #[must_use]
    pub fn size(&self) -> usize {
        let keys = self
            .point_reads
            .iter()
            .map(|r| r.key.len() + 48)
            .sum::<usize>()
            + self
                .range_reads
                .iter()
                .map(|r| r.from.len() + 80)
                .sum::<usize>()
            + self.guards.iter().map(Guard::size).sum::<usize>();
        keys + self
            .writes
            .iter()
            .map(|w| w.key.len() + w.operation.size() + w.header_bytes() + 96)
            .sum::<usize>()
    }

    /// Checks that no write is for a table of onelog itself.
    pub fn check_tables(&self) -> Result<(), Refusal> {
        let reserved = |(index, write): (usize, &Write)| {
            let (_, table) = SYSTEM_TABLES.iter().find(|(id, _)| *id == write.table)?;
            Some(Refusal::ReservedTable {
                index,
                table: (*table).into(),
            })
        };
        match self.writes.iter().enumerate().find_map(reserved) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// Checks every limit that can be checked without the state.
    pub fn check_limits(&self) -> Result<(), TooLarge> {
        count(
            "the number of point reads",
            "READS_MAX",
            self.point_reads.len(),
            READS_MAX,
        )?;
        count(
            "the number of range reads",
            "READS_MAX",
            self.range_reads.len(),
            READS_MAX,
        )?;
        count(
            "the number of guards",
            "GUARDS_MAX",
            self.guards.len(),
            GUARDS_MAX,
        )?;
        count(
            "the number of writes",
            "RECORDS_MAX",
            self.writes.len(),
            RECORDS_MAX,
        )?;
        for (n, read) in self.point_reads.iter().enumerate() {
            key("reads", n, &read.key)?;
        }
        for (n, range) in self.range_reads.iter().enumerate() {
            range.check_limits(n)?;
        }
        for (n, guard) in self.guards.iter().enumerate() {
            key("guards", n, &guard.key)?;
        }
        let mut total = 0;
        for (n, write) in self.writes.iter().enumerate() {
            total += write.check_limits(n)?;
        }
        bytes(
            || "the transaction".into(),
            "TRANSACTION_BYTES_MAX",
            total,
            TRANSACTION_BYTES_MAX,
        )
    }
}

fn too_large(
    what: String,
    limit: &'static str,
    is: usize,
    max: usize,
    unit: &'static str,
) -> TooLarge {
    TooLarge {
        what,
        limit: limit.into(),
        is,
        max,
        unit: unit.into(),
    }
}

fn count(what: &str, limit: &'static str, is: usize, max: usize) -> Result<(), TooLarge> {
    if is <= max {
        return Ok(());
    }
    Err(too_large(what.to_owned(), limit, is, max, "of them"))
}

fn bytes(
    what: impl Fn() -> String,
    limit: &'static str,
    is: usize,
    max: usize,
) -> Result<(), TooLarge> {
    if is <= max {
        return Ok(());
    }
    Err(too_large(what(), limit, is, max, "bytes"))
}

fn key(list: &str, n: usize, key: &Bytes) -> Result<(), TooLarge> {
    bytes(
        || format!("key of {list}[{n}]"),
        "KEY_BYTES_MAX",
        key.len(),
        KEY_BYTES_MAX,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &[u8], value: &[u8]) -> Write {
        Write {
            table: TableId(1024),
            key: Bytes::copy_from_slice(key),
            operation: Operation::Put(Bytes::copy_from_slice(value)),
            headers: Vec::new(),
        }
    }

    #[test]
    fn each_limit_is_named() {
        let with = |writes: Vec<Write>| {
            CommitRequest {
                writes,
                ..CommitRequest::default()
            }
            .check_limits()
        };
        let big = vec![0; VALUE_BYTES_MAX];
        assert!(with(vec![put(&[0; KEY_BYTES_MAX], &big)]).is_ok());
        assert_eq!(
            with(vec![put(&[0; KEY_BYTES_MAX + 1], b"")])
                .unwrap_err()
                .limit,
            "KEY_BYTES_MAX"
        );
        assert_eq!(
            with(vec![put(b"", &vec![0; VALUE_BYTES_MAX + 1])])
                .unwrap_err()
                .limit,
            "VALUE_BYTES_MAX"
        );
        assert_eq!(
            with(vec![put(b"", b""); RECORDS_MAX + 1])
                .unwrap_err()
                .limit,
            "RECORDS_MAX"
        );
        assert!(with(vec![put(b"", &big); 8]).is_ok());
        assert_eq!(
            with(vec![put(b"1", &big); 8]).unwrap_err().limit,
            "TRANSACTION_BYTES_MAX"
        );
    }
}
