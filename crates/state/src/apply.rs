//! Applying a committed entry: its records go into the active memtable, then the position moves
//! over all of them at once.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use onelog_record::{
    BodyError, CompressionError, Entry, EntryKind, Index, Op, Position, Transaction, Transactions,
    raw_body,
};

use crate::drops::Drops;
use crate::filter::KeyHash;
use crate::ids::RememberedId;
use crate::key::VersionKey;
use crate::memtable::{Memtable, VERSION_OVERHEAD_BYTES};
use crate::state::{State, remember};
use crate::tree::Applied;

/// An entry could not be applied. Final: the state stays where it was and takes nothing more.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The entry is not the next one.
    #[error(
        "entry {index} with base offset {base_offset} does not follow: expected entry {expected_index} at offset {expected_offset}"
    )]
    NotNext {
        index: Index,
        base_offset: u64,
        /// The index that was expected.
        expected_index: Index,
        /// The offset that was expected.
        expected_offset: u64,
    },
    /// The body does not decompress.
    #[error("the body of entry {index} does not decompress: {source}")]
    Compression {
        index: Index,
        source: CompressionError,
    },
    /// The body is malformed.
    #[error("entry {index}: {source}")]
    Body { index: Index, source: BodyError },
    /// The body does not hold what the header says.
    #[error(
        "entry {index} holds {transactions} transactions and {records} records, its header says {header_transactions} and {header_records}"
    )]
    Count {
        index: Index,
        transactions: u32,
        records: u64,
        /// Transactions by the header.
        header_transactions: u32,
        header_records: u32,
    },
    /// An entry before this one could not be applied.
    #[error("an entry before {index} could not be applied; the state takes nothing more")]
    Broken { index: Index },
}

/// What only the applying thread touches.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) active: Arc<Memtable>,
    pub(crate) applied: Applied,
    pub(crate) ids: VecDeque<RememberedId>,
    pub(crate) drops: Drops,
    /// The members, where they were set since the last freeze.
    pub(crate) members: Option<Bytes>,
    /// While many entries are applied at once: their versions, to be put in sorted.
    gathered: Option<Vec<(VersionKey, KeyHash, Option<Bytes>)>>,
    /// Set while an entry is half in: what follows it must not be applied.
    pub(crate) is_broken: bool,
}

impl Writer {
    pub(crate) fn new(active: Arc<Memtable>, applied: Applied) -> Self {
        Self {
            active,
            applied,
            ids: VecDeque::new(),
            drops: Drops::default(),
            members: None,
            gathered: None,
            is_broken: false,
        }
    }

    fn check_next(&self, entry: &Entry) -> Result<(), ApplyError> {
        if self.is_broken {
            return Err(ApplyError::Broken { index: entry.index });
        }
        self.check_follows(entry)
    }

    fn check_follows(&self, entry: &Entry) -> Result<(), ApplyError> {
        let expected = self.applied.index.next();
        let position = self.applied.position;
        if entry.index != expected || entry.header.base_offset != position.next_offset() {
            return Err(ApplyError::NotNext {
                index: entry.index,
                base_offset: entry.header.base_offset.0,
                expected_index: expected,
                expected_offset: position.0,
            });
        }
        Ok(())
    }

    fn apply(&mut self, entry: &Entry, raw: &Bytes, ids_max: usize) -> Result<(), ApplyError> {
        let mut transactions = 0;
        let mut records = 0;
        let mut versions = 0;
        let body_error = |source| ApplyError::Body {
            index: entry.index,
            source,
        };
        for transaction in Transactions::new(raw.clone(), entry.header.base_offset) {
            let transaction = transaction.map_err(body_error)?;
            versions += self.insert(&transaction).map_err(body_error)?;
            transactions += 1;
            records += u64::from(transaction.record_count);
            let end = transaction.first_offset.0 + u64::from(transaction.record_count);
            let id = RememberedId {
                position: Position(end),
                id: transaction.id,
                fingerprint: transaction.fingerprint,
                first_offset: transaction.first_offset,
                records: transaction.record_count,
            };
            remember(&mut self.ids, id, ids_max);
        }
        let header = &entry.header;
        if transactions != header.transaction_count || records != u64::from(header.record_count) {
            return Err(ApplyError::Count {
                index: entry.index,
                transactions,
                records,
                header_transactions: header.transaction_count,
                header_records: header.record_count,
            });
        }
        // Values share the body's memory, so one of them keeps all of it.
        let body_bytes = if versions > 0 { raw.len() } else { 0 };
        let ids_bytes = transactions as usize * size_of::<RememberedId>();
        self.active
            .add_bytes(versions * VERSION_OVERHEAD_BYTES + body_bytes + ids_bytes);
        Ok(())
    }

    /// Puts a transaction's records in; answers how many there were of keyed tables.
    fn insert(&mut self, transaction: &Transaction) -> Result<usize, BodyError> {
        let mut versions = 0;
        for record in transaction.records() {
            let record = record?;
            // Records of stream tables happened; they leave no state.
            if record.op == Op::Event {
                continue;
            }
            let version = VersionKey::of_record(record.table, &record.key, record.offset);
            let hash = KeyHash::of(record.table, &record.key);
            match &mut self.gathered {
                Some(gathered) => gathered.push((version, hash, record.value)),
                None => self.active.insert(hash, version, record.value),
            }
            versions += 1;
        }
        Ok(versions)
    }
}

impl State {
    /// Applies a whole committed entry. Called by one thread, entry after entry.
    ///
    /// # Errors
    /// When the entry is not the next one or its body is malformed. Final.
    pub fn apply(&self, entry: &Entry) -> Result<(), ApplyError> {
        let raw = match entry.header.kind {
            EntryKind::Transactions => {
                raw_body(entry).map_err(|source| ApplyError::Compression {
                    index: entry.index,
                    source,
                })?
            }
            EntryKind::NoOp | EntryKind::Membership => Bytes::new(),
        };
        self.apply_raw(entry, &raw)
    }

    /// Applies a whole committed entry whose body is at hand, decompressed.
    ///
    /// # Errors
    /// When the entry is not the next one or its body is malformed. Final.
    pub fn apply_raw(&self, entry: &Entry, raw: &Bytes) -> Result<(), ApplyError> {
        let mut writer = self.writer();
        writer.check_next(entry)?;
        if entry.header.kind == EntryKind::Transactions {
            let ids_max = self.shared.options.ids_max;
            writer.is_broken = true;
            writer.apply(entry, raw, ids_max)?;
            writer.is_broken = false;
        }
        writer.applied = applied_by(entry, writer.applied);
        self.shared.advance(writer.applied);
        Ok(())
    }

    /// Says who the members are from here on: the next checkpoint keeps these bytes, unread, with the
    /// place that it reaches. Called by the applying thread right behind the entry that changes them,
    /// before it freezes what holds that entry.
    pub fn set_members(&self, members: Vec<u8>) {
        self.writer().members = Some(members.into());
    }

    /// Applies committed entries with their raw bodies; they become visible together. Several
    /// times faster than one after the other: sorted insertions meet a warm path in the memtable.
    ///
    /// # Errors
    /// When an entry is not the next one or its body is malformed. Final.
    pub fn apply_all(&self, entries: &[(Entry, Bytes)]) -> Result<(), ApplyError> {
        let mut guard = self.writer();
        let writer = &mut *guard;
        let ids_max = self.shared.options.ids_max;
        let Some((first, _)) = entries.first() else {
            return Ok(());
        };
        writer.check_next(first)?;
        // From here on a failure leaves something half in.
        writer.is_broken = true;
        writer.gathered = Some(Vec::new());
        for (entry, raw) in entries {
            writer.check_follows(entry)?;
            if entry.header.kind == EntryKind::Transactions {
                writer.apply(entry, raw, ids_max)?;
            }
            writer.applied = applied_by(entry, writer.applied);
        }
        let mut gathered = writer.gathered.take().unwrap_or_default();
        gathered.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (version, hash, value) in gathered {
            writer.active.insert(hash, version, value);
        }
        writer.is_broken = false;
        self.shared.advance(writer.applied);
        Ok(())
    }
}

fn applied_by(entry: &Entry, before: Applied) -> Applied {
    Applied {
        position: entry.header.end(),
        index: entry.index,
        term: entry.term,
        timestamp_ms: before.timestamp_ms.max(entry.header.timestamp_ms),
    }
}
