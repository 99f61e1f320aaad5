//! Reads: of snapshots, and of update transactions.

use onelog_record::{CommitRequest, Position, TxnId};

use super::{Checker, Rule};
use crate::history::{ReadCall, Requested, Seen};

impl Checker<'_> {
    pub(super) fn check_reads(&mut self) {
        let history = self.history;
        self.report.reads = history.reads.len();
        for read in &history.reads {
            let who = format!(
                "a read of client {} at moment {}",
                read.client, read.begin.0
            );
            self.check_position(read.position, &who);
            self.check_read_time(read, &who);
            self.check_seen(&read.seen, read.position, &who);
        }
    }

    fn check_read_time(&mut self, read: &ReadCall, who: &str) {
        let position = read.position;
        let lower = match read.requested {
            Requested::At(at) => {
                if at != position {
                    let text = format!("{who} requested position {at} and got {position}");
                    self.add(Rule::RealTime, text);
                }
                return;
            }
            Requested::After(after) => after.max(self.observed.before(read.begin)),
            Requested::Newest => self.observed.before(read.begin),
        };
        if position < lower {
            let text = format!(
                "{who} got position {position}, although position {lower} had been answered before it began"
            );
            self.add(Rule::RealTime, text);
        }
    }

    /// What was seen must be what the log says is there.
    pub(super) fn check_seen(&mut self, seen: &Seen, position: Position, who: &str) {
        for point in &seen.points {
            let expected = self.model.at(point.table, &point.key, position);
            if expected != point.found {
                let text = format!(
                    "{who} saw {:?} under key {:?} of table {} at position {position}; by the log it is {expected:?}",
                    point.found, point.key, point.table
                );
                self.add(Rule::WrongRead, text);
            }
        }
        for range in &seen.ranges {
            let expected = self.model.rows(&range.range, position);
            if expected == range.rows {
                continue;
            }
            let differs = expected
                .iter()
                .zip(&range.rows)
                .position(|(a, b)| a != b)
                .unwrap_or(expected.len().min(range.rows.len()));
            let text = format!(
                "{who} saw {} rows of {:?} at position {position}; by the log there are {}; the first difference is row {differs}: seen {:?}, in the log {:?}",
                range.rows.len(),
                range.range,
                expected.len(),
                range.rows.get(differs),
                expected.get(differs)
            );
            self.add(Rule::WrongRead, text);
        }
    }

    /// What a request declares as read may not have changed between its read position and `place`.
    pub(super) fn check_declared(&mut self, request: &CommitRequest, place: Position, id: TxnId) {
        let Some(from) = request.read_position else {
            return;
        };
        for read in &request.point_reads {
            let Some(version) = self
                .model
                .written_between(read.table, &read.key, from, place)
            else {
                continue;
            };
            let text = format!(
                "transaction {id} read key {:?} of table {} at position {from} and took effect at {place}, but the key was written at offset {version} in between",
                read.key, read.table
            );
            self.add(Rule::StaleRead, text);
        }
        for range in &request.range_reads {
            let Some((key, version)) = self.model.range_written_between(range, from, place) else {
                continue;
            };
            let text = format!(
                "transaction {id} read {range:?} at position {from} and took effect at {place}, but key {key:?} of it was written at offset {version} in between"
            );
            self.add(Rule::Phantom, text);
        }
    }

    pub(super) fn check_guards(&mut self, request: &CommitRequest, place: Position, id: TxnId) {
        for (index, guard) in request.guards.iter().enumerate() {
            let met = self.model.at(guard.table, &guard.key, place);
            if !super::json::holds(&guard.predicate, met.as_ref()) {
                let text = format!(
                    "guard {index} of transaction {id} ({:?} of key {:?}) does not hold at its place {place}: it meets {met:?}",
                    guard.predicate, guard.key
                );
                self.add(Rule::GuardBroken, text);
            }
        }
    }
}
