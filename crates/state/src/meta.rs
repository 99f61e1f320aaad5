//! What the B-tree says about itself: one small table, written in the transaction of the rows that
//! it is about.
//!
//! ```text
//! "applied"   → position u64 | index u64 | term u64
//! "timestamp" → u64; not in files of the first versions
//! "members"   → opaque bytes; not in a file that was given none
//! "digest"    → index u64 | two lanes, u64 each; not in files of the first versions
//! "installed" → index u64 | term u64 | end u64 | checksum u32; where the state came from a peer
//! ```
//! A version that does not know the last two leaves them as they are. They say which entry they belong
//! to, and count for nothing at another one.

use bytes::Bytes;
use onelog_record::{Index, Position, Term};
use redb::{AccessGuard, ReadableTable, TableDefinition, WriteTransaction};

use crate::digest::{DIGEST_BYTES, Digest};
use crate::tree::Applied;

pub(crate) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const APPLIED: &str = "applied";
const TIMESTAMP: &str = "timestamp";
const MEMBERS: &str = "members";
const DIGEST: &str = "digest";
const INSTALLED: &str = "installed";

const APPLIED_BYTES: usize = 24;
const INSTALLED_BYTES: usize = 28;

/// Where a state was installed that came from a peer: the log begins behind it, or has still to be
/// made to. Known until the next checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The last entry that the state has.
    pub index: Index,
    pub term: Term,
    /// The position behind it.
    pub end: Position,
    /// Its chain checksum (`frame_crc`): the next entry follows it.
    pub checksum: u32,
}

/// What a checkpoint says about itself.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) applied: Applied,
    /// The members at that place, as they were given.
    pub(crate) members: Option<Bytes>,
    /// The digest of the rows, where it is known.
    pub(crate) digest: Option<Digest>,
    pub(crate) installed: Option<Installed>,
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
        let digest = get(DIGEST)?.and_then(|bytes| digest_of(bytes.value(), applied.index));
        let installed = get(INSTALLED)?.and_then(|bytes| installed_of(bytes.value()));
        Ok(Self {
            applied,
            members,
            digest,
            installed: installed.filter(|installed| installed.index == applied.index),
        })
    }

    /// Writes what this transaction makes true.
    pub(crate) fn write(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        write_applied(transaction, self.applied)?;
        let mut meta = transaction.open_table(META)?;
        let digest = self.digest.map(|digest| {
            let index = self.applied.index.0.to_le_bytes();
            [&index[..], &digest.to_bytes()].concat()
        });
        let installed = self.installed.map(|installed| installed.to_bytes());
        for (name, bytes) in [
            (MEMBERS, self.members.as_deref()),
            (DIGEST, digest.as_deref()),
            (INSTALLED, installed.as_ref().map(|bytes| &bytes[..])),
        ] {
            match bytes {
                Some(bytes) => drop(meta.insert(name, bytes)?),
                None => drop(meta.remove(name)?),
            }
        }
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

/// Leaves a file as one of before there were digests.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) fn forget_digest(meta: &mut redb::Table<'_, &str, &[u8]>) {
    assert!(meta.remove(DIGEST).unwrap().is_some());
}

impl Installed {
    fn to_bytes(self) -> [u8; INSTALLED_BYTES] {
        let mut out = [0; INSTALLED_BYTES];
        out[..8].copy_from_slice(&self.index.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.term.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.end.0.to_le_bytes());
        out[24..].copy_from_slice(&self.checksum.to_le_bytes());
        out
    }
}

fn digest_of(bytes: &[u8], index: Index) -> Option<Digest> {
    let (of_index, digest) = bytes.split_first_chunk::<8>()?;
    let digest: &[u8; DIGEST_BYTES] = digest.try_into().ok()?;
    (u64::from_le_bytes(*of_index) == index.0).then(|| Digest::from_bytes(digest))
}

fn installed_of(bytes: &[u8]) -> Option<Installed> {
    let (words, rest) = bytes.as_chunks::<8>();
    let ([index, term, end], Ok(checksum)) = (words, rest.try_into()) else {
        return None;
    };
    Some(Installed {
        index: Index(u64::from_le_bytes(*index)),
        term: Term(u64::from_le_bytes(*term)),
        end: Position(u64::from_le_bytes(*end)),
        checksum: u32::from_le_bytes(checksum),
    })
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
            digest: Some(Digest::from_bytes(&[5; 16])),
            installed: Some(Installed {
                index: Index(2),
                term: Term(3),
                end: Position(1),
                checksum: 6,
            }),
        };
        let applied = b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0";
        let database = database();
        assert_eq!(
            written(&meta, &database),
            [
                row("applied", applied),
                row("digest", &[&applied[8..16], &[5; 16]].concat()),
                row(
                    "installed",
                    &[&applied[8..], &applied[..8], &[6, 0, 0, 0]].concat()
                ),
                row("members", b"AB"),
                row("timestamp", b"\x04\0\0\0\0\0\0\0"),
            ]
        );
        // What is not known any more is taken out.
        let meta = Meta {
            members: None,
            digest: None,
            installed: None,
            ..meta
        };
        let names = written(&meta, &database).into_iter().map(|row| row.0);
        assert!(names.eq(["applied", "timestamp"]));
    }

    #[test]
    fn a_digest_of_another_place_counts_for_nothing() {
        let database = database();
        let mut meta = Meta {
            applied: Applied::default(),
            members: None,
            digest: Some(Digest::default()),
            installed: Some(Installed {
                index: Index(0),
                term: Term(0),
                end: Position(0),
                checksum: 0,
            }),
        };
        written(&meta, &database);
        // Given a later checkpoint by a version that does not know digests,
        meta.applied.index = Index(1);
        let transaction = database.begin_write().unwrap();
        write_applied(&transaction, meta.applied).unwrap();
        // then none is found.
        let read = Meta::read(&transaction.open_table(META).unwrap()).unwrap();
        assert_eq!(read.applied.index, Index(1));
        assert_eq!((read.digest, read.installed), (None, None));
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
        assert_eq!((read.digest, read.installed), (None, None));
    }
}
