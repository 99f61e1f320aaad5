//! The whole log of a world, from offset 0, although retention cuts its start: what is about to be
//! cut is read first, and what two lives have read of the same place must be the same.

use onelog_log::LogReader;
use onelog_record::{EntryKind, Index, Position, Transactions, raw_body};

use super::world::Stopped;
use crate::checker::{Report, Rule};
use crate::history::Logged;

const READ_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, Default)]
pub(super) struct Archive {
    pub(super) log: Vec<Logged>,
}

/// Reads all transactions of the entries from `from` up to but without `to`.
pub(super) fn read(reader: &LogReader, from: Index, to: Index) -> Result<Vec<Logged>, Stopped> {
    let failed = |cause: &dyn std::fmt::Display| Stopped(format!("read the log: {cause}"));
    let mut all = Vec::new();
    let mut at = from;
    while at < to {
        let entries = reader
            .entries(at, to, READ_BYTES)
            .map_err(|cause| failed(&cause))?;
        if entries.is_empty() {
            return Err(Stopped(format!("read the log: entry {at} is missing")));
        }
        for entry in entries {
            at = entry.index.next();
            if entry.header.kind != EntryKind::Transactions {
                continue;
            }
            let raw = raw_body(&entry).map_err(|cause| failed(&cause))?;
            for transaction in Transactions::new(raw, entry.header.base_offset) {
                let transaction = transaction.map_err(|cause| failed(&cause))?;
                let logged = Logged::read(&transaction, entry.header.timestamp_ms);
                all.push(logged.map_err(|cause| failed(&cause))?);
            }
        }
    }
    Ok(all)
}

impl Archive {
    fn end(&self) -> Position {
        self.log.last().map_or(Position::ZERO, |last| last.end)
    }

    /// Adds what was read now; what overlaps must be the same as before.
    pub(super) fn extend(&mut self, read: Vec<Logged>, report: &mut Report) {
        for logged in read {
            if logged.end > self.end() {
                self.log.push(logged);
                continue;
            }
            let at = self
                .log
                .partition_point(|known| known.first_offset < logged.first_offset);
            if self.log.get(at) != Some(&logged) {
                let text = format!(
                    "transaction {} at offset {} was another one when the log was read before",
                    logged.id, logged.first_offset
                );
                report.add(Rule::LogBroken, text);
            }
        }
    }
}
