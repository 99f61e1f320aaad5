//! Reading the log: whole transactions, only committed ones, from any position it still has.

use onelog_record::{
    BodyError, CompressionError, EntryKind, Offset, Position, Record, TableId, Transactions, TxnId,
    raw_body,
};

use crate::Node;
use crate::cluster::read_mended;

/// A committed transaction as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTransaction {
    pub id: TxnId,
    /// The offset of its first record.
    pub first_offset: Offset,
    /// The position right behind it.
    pub end: Position,
    /// When it was ordered, in milliseconds since 1970 by the leader's clock.
    pub timestamp_ms: u64,
    /// What the log's chain of checksums says at [`Self::end`], see [`Node::chain_at`].
    pub chain: u32,
    /// Its records, in order; those of system tables included.
    pub records: Vec<Record>,
}

/// A piece of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogBatch {
    /// Whole transactions, in order. The first one may begin before the requested position, when
    /// that lies inside it.
    pub transactions: Vec<LogTransaction>,
    pub next: Position,
    /// What the log's chain of checksums says at `next`, where that is known.
    pub chain: Option<u32>,
}

/// The log could not be read there.
#[derive(Debug, thiserror::Error)]
pub enum ReadLogError {
    /// The log no longer reaches back so far.
    #[error(
        "position {position} has been cut from the log, which starts at {log_start} now; start from a snapshot"
    )]
    Cut {
        position: Position,
        /// The oldest position.
        log_start: Position,
    },
    /// The log does not reach so far yet.
    #[error("position {position} lies in the future; the log ends at {latest}")]
    InFuture {
        position: Position,
        latest: Position,
    },
    /// Everything was read, and no more will come.
    #[error("the node has stopped at position {end}: {reason}")]
    Stopped { end: Position, reason: String },
    /// The disk or what is on it is at fault.
    #[error(transparent)]
    Log(#[from] onelog_log::ReadError),
    /// An entry's body is malformed.
    #[error("an entry of the log is malformed: {0}")]
    Body(#[from] BodyError),
    /// An entry's body cannot be unpacked.
    #[error("an entry of the log cannot be unpacked: {0}")]
    Unpack(#[from] CompressionError),
}

/// A piece of the log as it is stored.
#[derive(Debug)]
pub struct PackedLog {
    from: Position,
    next: Position,
    entries: Vec<onelog_log::Chained>,
    /// Only transactions with records of these tables are wanted.
    tables: Option<Vec<TableId>>,
    /// What the chain says at `next`, where no entry shows it.
    chain: Option<u32>,
}

impl PackedLog {
    /// Nothing from a position on.
    const fn empty(from: Position) -> Self {
        Self {
            from,
            next: from,
            entries: Vec::new(),
            tables: None,
            chain: None,
        }
    }

    /// How many bytes of records it has when it is unpacked.
    #[must_use]
    pub fn unpacked_bytes(&self) -> usize {
        let bytes = self.entries.iter().map(|chained| &chained.entry);
        bytes
            .map(|entry| entry.body.len().max(entry.header.raw_len as usize))
            .sum()
    }

    pub fn unpack(self) -> Result<LogBatch, ReadLogError> {
        let mut batch = LogBatch {
            transactions: Vec::new(),
            next: self.next,
            chain: self.chain,
        };
        let is_wanted = |records: &[Record]| match &self.tables {
            Some(tables) => records.iter().any(|r| tables.contains(&r.table)),
            None => true,
        };
        for onelog_log::Chained { entry, chain } in self.entries {
            batch.next = batch.next.max(entry.header.end());
            if entry.header.kind != EntryKind::Transactions {
                continue;
            }
            if entry.header.end() == batch.next {
                batch.chain = Some(chain);
            }
            for transaction in Transactions::new(raw_body(&entry)?, entry.header.base_offset) {
                let transaction = transaction?;
                let end =
                    Position(transaction.first_offset.0 + u64::from(transaction.record_count));
                if end <= self.from {
                    continue;
                }
                let records = transaction.records().collect::<Result<Vec<_>, _>>()?;
                if !is_wanted(&records) {
                    continue;
                }
                batch.transactions.push(LogTransaction {
                    id: transaction.id,
                    first_offset: transaction.first_offset,
                    end,
                    timestamp_ms: entry.header.timestamp_ms,
                    chain,
                    records,
                });
            }
        }
        Ok(batch)
    }
}

impl Node {
    /// Reads whole committed transactions from `from` on, about `max_bytes` of them, unpacked, but at
    /// least one. Empty exactly when `from` is the applied position; when the node has stopped there,
    /// [`ReadLogError::Stopped`]. Reads files; blocks.
    pub fn read_log(&self, from: Position, max_bytes: usize) -> Result<LogBatch, ReadLogError> {
        self.read_packed_log(from, max_bytes)?.unpack()
    }

    /// [`Node::read_log`], without unpacking it: how much memory that will take is known before.
    pub fn read_packed_log(
        &self,
        from: Position,
        max_bytes: usize,
    ) -> Result<PackedLog, ReadLogError> {
        if self.is_log_end(from)? {
            return Ok(PackedLog::empty(from));
        }
        let limit = self.shared.applied_index().next();
        let read = || self.shared.reader.chained_from(from, limit, max_bytes);
        let entries = read_mended(&self.shared, read).map_err(|cause| cut_or(cause, from))?;
        Ok(PackedLog {
            entries,
            ..PackedLog::empty(from)
        })
    }

    /// [`Node::read_log`] of the transactions that have records of `tables`, with all their records.
    /// What has none is passed over without being read, where the log has an index: it may find
    /// nothing and still get on. Only where `next` is `from`, that is the applied position.
    pub fn read_log_of(
        &self,
        tables: &[TableId],
        from: Position,
        max_bytes: usize,
    ) -> Result<LogBatch, ReadLogError> {
        self.read_packed_log_of(tables, from, max_bytes)?.unpack()
    }

    /// [`Node::read_log_of`], without unpacking it.
    pub fn read_packed_log_of(
        &self,
        tables: &[TableId],
        from: Position,
        max_bytes: usize,
    ) -> Result<PackedLog, ReadLogError> {
        if self.is_log_end(from)? {
            return Ok(PackedLog::empty(from));
        }
        let limit = self.shared.applied_index().next();
        let read = || self.shared.reader.selected(tables, from, limit, max_bytes);
        let found = read_mended(&self.shared, read).map_err(|cause| cut_or(cause, from))?;
        let last = found.entries.last().map(|last| last.entry.header.end());
        let chain = match last == Some(found.next) {
            true => None,
            false => self.chain_at(found.next)?,
        };
        Ok(PackedLog {
            from,
            next: found.next,
            entries: found.entries,
            tables: Some(tables.to_vec()),
            chain,
        })
    }

    /// Whether there is nothing at a position yet.
    fn is_log_end(&self, from: Position) -> Result<bool, ReadLogError> {
        let latest = self.position();
        if from > latest {
            return Err(ReadLogError::InFuture {
                position: from,
                latest,
            });
        }
        if from < self.log_start() {
            return Err(ReadLogError::Cut {
                position: from,
                log_start: self.log_start(),
            });
        }
        // The position is read again: what was applied before the end is served.
        let is_end = from == latest;
        if is_end && self.shared.applied_position.is_stopped() && self.position() == latest {
            return Err(ReadLogError::Stopped {
                end: latest,
                reason: self.shared.stop_reason(),
            });
        }
        Ok(is_end)
    }

    /// The position in front of the first entry whose time is at or after `timestamp_ms`, or the applied
    /// position where there is none. Reads files; blocks.
    pub fn position_at_time(&self, timestamp_ms: u64) -> Result<Position, ReadLogError> {
        let read = || self.shared.reader.position_at_time(timestamp_ms);
        Ok(read_mended(&self.shared, read)?.min(self.position()))
    }

    /// About how many bytes of log, as stored, lie behind a position. Reads no file.
    #[must_use]
    pub fn log_bytes_from(&self, position: Position) -> u64 {
        self.shared.reader.bytes_from(position)
    }

    /// What the log's chain of checksums says at a position, see [`onelog_log::LogReader::chain_at`].
    /// `None` where the log no longer reaches back so far. Reads files; blocks.
    pub fn chain_at(&self, position: Position) -> Result<Option<u32>, ReadLogError> {
        let read = || self.shared.reader.chain_at(position);
        Ok(read_mended(&self.shared, read)?)
    }
}

fn cut_or(cause: onelog_log::ReadError, position: Position) -> ReadLogError {
    match cause {
        onelog_log::ReadError::Cut { start, .. } => ReadLogError::Cut {
            position,
            log_start: start,
        },
        other => other.into(),
    }
}
