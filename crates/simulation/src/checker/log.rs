//! The log itself: whole, in order, and nothing in it invented.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use onelog_record::{Op, Operation, Position, Record, TABLE_TABLES, TABLE_UNIQUE, TableId, TxnId};

use super::{Checker, Rule};
use crate::history::{Answer, CommitCall, Logged};

impl Checker<'_> {
    pub(super) fn check_log(&mut self) {
        let mut expected = Position::ZERO;
        let mut ids: HashSet<TxnId> = HashSet::new();
        let mut timestamp_ms = 0;
        for logged in self.model.log {
            if logged.timestamp_ms < timestamp_ms {
                let text = format!(
                    "transaction {} at offset {} has timestamp {}, and one before it {timestamp_ms}",
                    logged.id, logged.first_offset, logged.timestamp_ms
                );
                self.add(Rule::TimestampFell, text);
            }
            timestamp_ms = timestamp_ms.max(logged.timestamp_ms);
            self.check_place(logged, expected);
            expected = logged.end;
            if !ids.insert(logged.id) {
                let text = format!(
                    "transaction {} is in the log again at offset {}",
                    logged.id, logged.first_offset
                );
                self.add(Rule::AppliedTwice, text);
            }
            self.check_transaction(logged);
        }
    }

    fn check_place(&mut self, logged: &Logged, expected: Position) {
        let Logged {
            id,
            first_offset,
            end,
            records,
            ..
        } = logged;
        let consecutive = records
            .iter()
            .zip(first_offset.0..)
            .all(|(record, offset)| record.offset.0 == offset);
        let long = first_offset.0 + records.len() as u64 == end.0;
        if first_offset.0 != expected.0 || !consecutive || !long {
            let text = format!(
                "transaction {id} has offsets {first_offset} to {end} and {} records, but position {expected} comes next",
                records.len()
            );
            self.add(Rule::LogBroken, text);
        }
    }

    /// Whose is it, and is it what they requested?
    fn check_transaction(&mut self, logged: &Logged) {
        let id = logged.id;
        let Some(calls) = self.calls.get(&id).cloned() else {
            if !logged.records.iter().all(|r| r.table == TABLE_TABLES) {
                let text = format!(
                    "transaction {id} at offset {} was never sent",
                    logged.first_offset
                );
                self.add(Rule::Invented, text);
            }
            return;
        };
        if calls.iter().all(|call| is_final(&call.answer)) {
            let text = format!(
                "transaction {id} is in the log at offset {}, but every sender of it was answered that it did not happen: {:?}",
                logged.first_offset, calls[0].answer
            );
            self.add(Rule::RefusedButLogged, text);
        }
        let place = Position(logged.first_offset.0);
        let faults: Vec<Option<String>> = calls
            .iter()
            .map(|call| self.records_fault(call, logged))
            .collect();
        let Some(author) = faults.iter().position(Option::is_none) else {
            let text = faults.into_iter().flatten().next().unwrap_or_default();
            self.add(Rule::WrongRecords, text);
            return;
        };
        let request = &calls[author].request;
        self.check_declared(request, place, id);
        self.check_guards(request, place, id);
        for call in &calls {
            if let Some(position) = call.request.read_position {
                let who = format!("transaction {id}");
                self.check_seen(&call.seen, position, &who);
            }
        }
        let Some(begin) = calls.iter().map(|call| call.begin).min() else {
            return;
        };
        let lower = self.observed.before(begin);
        if place < lower {
            let text = format!(
                "transaction {id} is at offset {}, although position {lower} had been answered before it was sent",
                logged.first_offset
            );
            self.add(Rule::RealTime, text);
        }
    }

    /// How the records differ from what the request makes of the state before them.
    fn records_fault(&self, call: &CommitCall, logged: &Logged) -> Option<String> {
        let id = logged.id;
        let (own, unique): (Vec<&Record>, Vec<&Record>) = logged
            .records
            .iter()
            .partition(|record| record.table != TABLE_UNIQUE);
        let writes = &call.request.writes;
        let has_unique = self.tables.iter().any(|table| !table.unique.is_empty());
        if own.len() != writes.len() || (!unique.is_empty() && !has_unique) {
            return Some(format!(
                "transaction {id} has {} records for {} writes",
                logged.records.len(),
                writes.len()
            ));
        }
        let place = Position(logged.first_offset.0);
        let mut images: HashMap<(TableId, Bytes), Option<Bytes>> = HashMap::new();
        for (n, (write, record)) in writes.iter().zip(own).enumerate() {
            let key = (write.table, write.key.clone());
            let met = images.get(&key).cloned().unwrap_or_else(|| {
                let met = self.model.at(write.table, &write.key, place);
                met.map(|met| met.value)
            });
            let expected = super::json::after_image(&write.operation, met.as_ref());
            let names = record.table == write.table && record.key == write.key;
            let deletes = (record.op == Op::Delete) == (write.operation == Operation::Delete);
            let fits = expected
                .as_ref()
                .is_some_and(|value| super::json::same(value.as_ref(), record.value.as_ref()));
            if !names || !deletes || !fits || record.headers != write.headers {
                return Some(format!(
                    "record {} of transaction {id} is {:?}; write {n} makes {expected:?} of {met:?} under key {:?}",
                    record.offset, record, write.key
                ));
            }
            images.insert(key, record.value.clone());
        }
        None
    }
}

/// Whether the answer says for certain that this request had no effect.
pub(crate) fn is_final(answer: &Answer) -> bool {
    use onelog_record::Refusal;
    match answer {
        Answer::Refused(Refusal::NotLeader | Refusal::Stopped(_)) => false,
        Answer::Refused(_) => true,
        Answer::Committed(_) | Answer::Unknown => false,
    }
}
