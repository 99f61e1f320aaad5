//! Refusals: a client acts on them, so they must be as true as acknowledgements.

use bytes::Bytes;
use onelog_record::{CommitRequest, JsonText, Offset, Position, Refusal, Subject, TableId};

use super::{Checker, Rule, json, model, unique};
use crate::history::CommitCall;

impl Checker<'_> {
    pub(super) fn check_refusal(&mut self, call: &CommitCall, refusal: &Refusal) {
        match refusal {
            Refusal::Conflict {
                subject,
                table,
                key,
                version,
                retry_at,
            } => {
                self.check_named_position(call, *retry_at);
                let named = names(&call.request, subject, *table, key);
                self.check_conflict(call, refusal, named, (*table, key, *version, *retry_at));
            }
            Refusal::GuardFailed {
                index,
                met,
                version,
                retry_at,
            } => {
                self.check_named_position(call, *retry_at);
                self.check_guard_failed(call, refusal, (*index, met.as_ref(), *version, *retry_at));
            }
            Refusal::SnapshotTooOld {
                read_position,
                floor,
            } if call.request.read_position != Some(*read_position) || floor <= read_position => {
                let fault = "the read position is not below the floor";
                self.wrong_refusal(call.id, fault, refusal);
            }
            Refusal::IdExpired { floor, .. } if call.request.read_position >= Some(*floor) => {
                let fault = "the id is younger than the window";
                self.wrong_refusal(call.id, fault, refusal);
            }
            Refusal::SnapshotInFuture {
                read_position,
                latest,
            } => {
                let lower = self.observed.before(call.begin);
                if read_position <= latest || *latest < lower {
                    let text = format!("position {lower} had been answered before");
                    self.wrong_refusal(call.id, &text, refusal);
                }
            }
            Refusal::UnknownTable { table, .. } => {
                self.check_unknown_table(call, refusal, *table);
            }
            Refusal::NotUnique { index, owner, .. } => {
                self.check_not_unique(call, refusal, *index, owner);
            }
            Refusal::IdMismatch { position, .. } => {
                self.check_named_position(call, *position);
                let place = self.model.by_id.get(&call.id).map(|logged| logged.end);
                let twins = self
                    .calls
                    .get(&call.id)
                    .is_some_and(|calls| calls.iter().any(|other| other.request != call.request));
                if place != Some(*position) || !twins {
                    let text = format!("in the log the id ends at {place:?}");
                    self.wrong_refusal(call.id, &text, refusal);
                }
            }
            _ => {}
        }
    }

    fn check_conflict(
        &mut self,
        call: &CommitCall,
        refusal: &Refusal,
        named: bool,
        (table, key, version, retry_at): (TableId, &Bytes, Offset, Position),
    ) {
        let read_position = call.request.read_position.unwrap_or_default();
        let record = self.model.record(version);
        let real = record.is_some_and(|record| record.table == table && record.key == *key);
        let fault = if !named {
            "the request read no such key"
        } else if !real {
            "the log has no write of that key at that offset"
        } else if read_position.sees(version) {
            "the write lies below the read position"
        } else if !retry_at.sees(version) {
            "a reader at retry_at would not see the write"
        } else {
            return;
        };
        self.wrong_refusal(call.id, fault, refusal);
    }

    fn check_guard_failed(
        &mut self,
        call: &CommitCall,
        refusal: &Refusal,
        (index, met, version, retry_at): (usize, Option<&Bytes>, Option<Offset>, Position),
    ) {
        let Some(guard) = call.request.guards.get(index) else {
            self.wrong_refusal(call.id, "there is no such guard", refusal);
            return;
        };
        let truth = self.model.at(guard.table, &guard.key, retry_at);
        let answered = met.cloned().zip(version);
        let same = truth.as_ref().map(|t| (t.value.clone(), t.version)) == answered;
        if !same {
            let text = format!("at retry_at the key reads {truth:?}");
            self.wrong_refusal(call.id, &text, refusal);
        } else if json::holds(&guard.predicate, truth.as_ref()) {
            self.wrong_refusal(call.id, "the guard holds on what it met", refusal);
        }
        // What it met may not have been replaced by something that was answered before the request.
        // The position itself may be lower: where a leader's own disk is slow, others have applied what
        // it has only decided.
        let lower = self.observed.before(call.begin);
        if retry_at < lower && self.model.at(guard.table, &guard.key, lower) != truth {
            let text = format!(
                "the refusal of transaction {} rests on position {retry_at}, although {lower} had been answered before it was sent",
                call.id
            );
            self.add(Rule::RealTime, text);
        }
    }

    /// The owner had the value at some position that was not yet history when the request came.
    fn check_not_unique(
        &mut self,
        call: &CommitCall,
        refusal: &Refusal,
        index: usize,
        owner: &Bytes,
    ) {
        let Refusal::NotUnique { value, .. } = refusal else {
            return;
        };
        let Some(write) = call.request.writes.get(index) else {
            self.wrong_refusal(call.id, "there is no such write", refusal);
            return;
        };
        // Two keys of one transaction may also clash with each other.
        if call
            .request
            .writes
            .iter()
            .any(|other| other.key == *owner && other.table == write.table)
        {
            return;
        }
        let lower = self.observed.before(call.begin);
        let paths = self.tables.iter().find(|table| table.id == write.table);
        let versions = self.model.versions(write.table, owner);
        let had = versions.iter().enumerate().any(|(n, version)| {
            let replaced = versions.get(n + 1).map(|next| next.offset);
            let still = replaced.is_none_or(|next| next.0 >= lower.0);
            let has = |found: crate::history::Found| {
                paths.is_some_and(|table| {
                    table
                        .unique
                        .iter()
                        .filter_map(|path| unique::value_of(&found.value, path))
                        .any(|had| JsonText::from(had) == *value)
                })
            };
            still && model::found(version).is_some_and(has)
        });
        if !had {
            self.wrong_refusal(call.id, "the owner never had that value then", refusal);
        }
    }
}

/// Whether the request read that key, at the place that the refusal says.
fn names(request: &CommitRequest, subject: &Subject, table: TableId, key: &Bytes) -> bool {
    match subject {
        Subject::PointRead(index) => request
            .point_reads
            .get(*index)
            .is_some_and(|read| read.table == table && read.key == *key),
        Subject::RangeRead(index) => request.range_reads.get(*index).is_some_and(|range| {
            range.table == table
                && *key >= range.from
                && range.to.as_ref().is_none_or(|to| key < to)
        }),
        Subject::Guard(_) | Subject::Write(_) => false,
    }
}
