//! Reading the log: whole transactions, only committed ones, from any position it still has.

use onelog_record::{
    BodyError, CompressionError, EntryKind, Offset, Position, Record, Transactions, TxnId, raw_body,
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
    entries: Vec<onelog_log::Chained>,
}

impl PackedLog {
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
            next: self.from,
        };
        for onelog_log::Chained { entry, chain } in self.entries {
            batch.next = batch.next.max(entry.header.end());
            if entry.header.kind != EntryKind::Transactions {
                continue;
            }
            for transaction in Transactions::new(raw_body(&entry)?, entry.header.base_offset) {
                let transaction = transaction?;
                let end =
                    Position(transaction.first_offset.0 + u64::from(transaction.record_count));
                if end <= self.from {
                    continue;
                }
                batch.transactions.push(LogTransaction {
                    id: transaction.id,
                    first_offset: transaction.first_offset,
                    end,
                    timestamp_ms: entry.header.timestamp_ms,
                    chain,
                    records: transaction.records().collect::<Result<_, _>>()?,
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
        if from == latest {
            // The position is read again: what was applied before the end is served.
            if self.shared.applied_position.is_stopped() && self.position() == latest {
                return Err(ReadLogError::Stopped {
                    end: latest,
                    reason: self.shared.stop_reason(),
                });
            }
            return Ok(PackedLog {
                from,
                entries: Vec::new(),
            });
        }
        let limit = self.shared.applied_index().next();
        let read = || self.shared.reader.chained_from(from, limit, max_bytes);
        let entries = read_mended(&self.shared, read).map_err(|cause| match cause {
            onelog_log::ReadError::Cut { start, .. } => ReadLogError::Cut {
                position: from,
                log_start: start,
            },
            other => other.into(),
        })?;
        Ok(PackedLog { from, entries })
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
