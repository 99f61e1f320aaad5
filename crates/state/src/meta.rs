//! What the B-tree says about itself: one small table, written in the transaction of the rows that
//! it is about.
//!
//! ```text
//! "applied"   → position u64 | index u64 | term u64
//! "timestamp" → u64; not in files of the first versions
//! "members"   → opaque bytes; not in a file that was given none
//! ```

use bytes::Bytes;
use onelog_record::{Index, Position, Term};
use redb::{AccessGuard, ReadableTable, TableDefinition, WriteTransaction};

use crate::tree::Applied;

pub(crate) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const APPLIED: &str = "applied";
const TIMESTAMP: &str = "timestamp";
const MEMBERS: &str = "members";

const APPLIED_BYTES: usize = 24;

/// What a checkpoint says about itself.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) applied: Applied,
    /// The members at that place, as they were given.
    pub(crate) members: Option<Bytes>,
}

impl Meta {
    pub(crate) fn read(
        meta: &impl ReadableTable<&'static str, &'static [u8]>,
    ) -> Result<Self, redb::Error> {
        let get = |name: &str| -> Result<Option<AccessGuard<'_, &[u8]>>, redb::Error> {
            Ok(meta.get(name)?)
        };
        let timestamp = match get(TIMESTAMP)? {
            None => Some(0),
            Some(bytes) => u64_of(bytes.value()),
        };
        let applied = match (get(APPLIED)?, timestamp) {
            (Some(bytes), Some(timestamp_ms)) => applied_of(bytes.value(), timestamp_ms),
            _ => None,
        };
        let applied = applied.ok_or_else(|| {
            redb::Error::Corrupted("the state file does not say how far it was applied".into())
        })?;
        let members = get(MEMBERS)?.map(|bytes| Bytes::copy_from_slice(bytes.value()));
        Ok(Self { applied, members })
    }

    /// Writes what this transaction makes true.
    pub(crate) fn write(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        write_applied(transaction, self.applied)?;
        let mut meta = transaction.open_table(META)?;
        match &self.members {
            Some(members) => meta.insert(MEMBERS, members.as_ref())?,
            None => meta.remove(MEMBERS)?,
        };
        Ok(())
    }
}

/// Writes how far the rows of a transaction reach.
pub(crate) fn write_applied(
    transaction: &WriteTransaction,
    applied: Applied,
) -> Result<(), redb::Error> {
    let mut bytes = [0; APPLIED_BYTES];
    bytes[..8].copy_from_slice(&applied.position.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&applied.index.0.to_le_bytes());
    bytes[16..].copy_from_slice(&applied.term.0.to_le_bytes());
    let mut meta = transaction.open_table(META)?;
    meta.insert(APPLIED, bytes.as_slice())?;
    let timestamp = applied.timestamp_ms.to_le_bytes();
    meta.insert(TIMESTAMP, timestamp.as_slice())?;
    Ok(())
}

fn u64_of(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

fn applied_of(bytes: &[u8], timestamp_ms: u64) -> Option<Applied> {
    let (words, rest) = bytes.as_chunks::<8>();
    match (words, rest) {
        ([position, index, term], []) => Some(Applied {
            position: Position(u64::from_le_bytes(*position)),
            index: Index(u64::from_le_bytes(*index)),
            term: Term(u64::from_le_bytes(*term)),
            timestamp_ms,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use redb::{Database, ReadableDatabase, backends::InMemoryBackend};

    use super::*;

    fn database() -> Database {
        Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .unwrap()
    }

    fn written(meta: &Meta, database: &Database) -> Vec<(String, Vec<u8>)> {
        let transaction = database.begin_write().unwrap();
        meta.write(&transaction).unwrap();
        transaction.commit().unwrap();
        let table = database.begin_read().unwrap().open_table(META).unwrap();
        let rows = table.range::<&str>(..).unwrap().map(Result::unwrap);
        rows.map(|(name, bytes)| (name.value().to_owned(), bytes.value().to_vec()))
            .collect()
    }

    fn row(name: &str, bytes: &[u8]) -> (String, Vec<u8>) {
        (name.to_owned(), bytes.to_vec())
    }

    #[test]
    fn a_checkpoint_says_these_bytes_about_itself() {
        let meta = Meta {
            applied: Applied {
                position: Position(1),
                index: Index(2),
                term: Term(3),
                timestamp_ms: 4,
            },
            members: Some(Bytes::from_static(b"AB")),
        };
        let applied = b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0";
        let database = database();
        assert_eq!(
            written(&meta, &database),
            [
                row("applied", applied),
                row("members", b"AB"),
                row("timestamp", b"\x04\0\0\0\0\0\0\0"),
            ]
        );
    }

    #[test]
    fn a_file_of_before_says_only_how_far_it_was_applied() {
        let database = database();
        let transaction = database.begin_write().unwrap();
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert(APPLIED, [7; 24].as_slice()).unwrap();
        let read = Meta::read(&meta).unwrap();
        assert_eq!(read.applied.timestamp_ms, 0);
        assert_eq!(read.members, None);
    }
}
