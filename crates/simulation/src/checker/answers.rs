//! Acknowledgements: every one of them is the log's own word.

use onelog_record::{Committed, Position, Refusal, TxnId};

use super::log::is_final;
use super::{Checker, Rule};
use crate::history::{Answer, CommitCall};

impl Checker<'_> {
    pub(super) fn check_answers(&mut self) {
        let history = self.history;
        for call in &history.commits {
            match &call.answer {
                Answer::Committed(committed) => {
                    self.report.acknowledged += 1;
                    if call.request.writes.is_empty() {
                        self.check_validated(call, committed);
                    } else {
                        self.check_acknowledged(call, committed);
                    }
                }
                Answer::Refused(refusal) => {
                    self.report.refused += 1;
                    self.check_refusal(call, refusal);
                }
                Answer::Unknown => {}
            }
        }
        let mut ids: Vec<TxnId> = self.calls.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.check_retries(id);
        }
    }

    fn check_acknowledged(&mut self, call: &CommitCall, committed: &Committed) {
        let id = call.id;
        let Some(logged) = self.model.by_id.get(&id) else {
            let text = format!(
                "transaction {id} was acknowledged at position {} and is not in the log, which ends at {}",
                committed.position,
                self.model.end()
            );
            self.add(Rule::AcknowledgedLost, text);
            return;
        };
        let truth = (logged.end, logged.first_offset, logged.records.len());
        let answered = (
            committed.position,
            committed.first_offset,
            committed.records as usize,
        );
        if truth != answered || committed.id != id {
            let text = format!(
                "transaction {id} was answered with (position, first offset, records) {answered:?}, in the log it is {truth:?}"
            );
            self.add(Rule::WrongAnswer, text);
        }
    }

    /// A transaction without writes: nothing is in the log, and all it rests on holds at the
    /// position that was answered.
    fn check_validated(&mut self, call: &CommitCall, committed: &Committed) {
        let (id, place) = (call.id, committed.position);
        let who = format!("transaction {id}");
        self.check_position(place, &who);
        if committed.records != 0 || self.model.by_id.contains_key(&id) {
            let text = format!("transaction {id} writes nothing but was answered {committed:?}");
            self.add(Rule::WrongAnswer, text);
        }
        self.check_declared(&call.request, place, id);
        self.check_guards(&call.request, place, id);
        if let Some(position) = call.request.read_position {
            self.check_seen(&call.seen, position, &who);
        }
        let lower = self.observed.before(call.begin);
        if place < lower {
            let text = format!(
                "transaction {id} was validated at position {place}, although {lower} had been answered before it was sent"
            );
            self.add(Rule::RealTime, text);
        }
    }

    /// One original answer, and after it no other.
    fn check_retries(&mut self, id: TxnId) {
        let Some(calls) = self.calls.get(&id).cloned() else {
            return;
        };
        let writes = |call: &&&CommitCall| !call.request.writes.is_empty();
        let mut originals = 0;
        let mut first_answered = None;
        for call in calls.iter().filter(writes) {
            if let (Answer::Committed(committed), Some(end)) = (&call.answer, call.end) {
                originals += usize::from(!committed.repeated);
                first_answered = Some(
                    first_answered
                        .map_or(end, |answered: crate::history::Moment| answered.min(end)),
                );
                let lonely = !calls
                    .iter()
                    .any(|c| !std::ptr::eq(*c, *call) && c.begin < end);
                if committed.repeated && lonely {
                    let text =
                        format!("transaction {id} was answered as repeated, but was sent once");
                    self.add(Rule::WrongAnswer, text);
                }
            }
        }
        if originals > 1 {
            let text = format!("transaction {id} was acknowledged {originals} times as new");
            self.add(Rule::IdForgotten, text);
        }
        for call in calls.iter().filter(writes) {
            let excused = matches!(
                call.answer,
                Answer::Refused(
                    Refusal::Overloaded { .. }
                        | Refusal::IdMismatch { .. }
                        | Refusal::IdExpired { .. }
                )
            );
            if is_final(&call.answer)
                && !excused
                && first_answered.is_some_and(|answered| answered < call.begin)
            {
                let text = format!(
                    "transaction {id} had been acknowledged, but a retry was answered {:?}",
                    call.answer
                );
                self.add(Rule::IdForgotten, text);
            }
        }
    }

    pub(super) fn wrong_refusal(&mut self, id: TxnId, text: &str, refusal: &Refusal) {
        let code = refusal.code();
        let text = format!("transaction {id}: {text}: {code}: {refusal:?}");
        self.add(Rule::WrongRefusal, text);
    }

    /// A position that a refusal names must be one that is in the log.
    pub(super) fn check_named_position(&mut self, call: &CommitCall, position: Position) {
        let who = format!("the refusal of transaction {}", call.id);
        self.check_position(position, &who);
    }
}
