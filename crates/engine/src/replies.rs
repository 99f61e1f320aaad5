//! Answers that wait for a position to be applied.

use std::collections::{BTreeMap, VecDeque};

use onelog_record::{Committed, Position, Refusal};

type Answer = Result<Committed, Refusal>;

/// Accepted transactions wait in log order; everything else that rests on an in-flight record
/// waits for that record, so that no uncommitted fact ever leaks.
#[derive(Debug)]
pub(crate) struct Replies<T> {
    accepted: VecDeque<(T, Committed)>,
    late: BTreeMap<(Position, u64), (T, Answer)>,
    sequence: u64,
}

impl<T> Default for Replies<T> {
    fn default() -> Self {
        Self {
            accepted: VecDeque::new(),
            late: BTreeMap::new(),
            sequence: 0,
        }
    }
}

impl<T> Replies<T> {
    pub(crate) fn accepted(&mut self, ticket: T, committed: Committed) {
        if let Some((_, last)) = self.accepted.back() {
            assert!(
                last.position < committed.position,
                "transactions are accepted in log order"
            );
        }
        self.accepted.push_back((ticket, committed));
    }

    pub(crate) fn late(&mut self, ticket: T, after: Position, answer: Answer) {
        self.sequence += 1;
        self.late.insert((after, self.sequence), (ticket, answer));
    }

    /// How many answers wait that no record of their own is in flight for.
    pub(crate) fn late_len(&self) -> usize {
        self.late.len()
    }

    /// How many answers wait.
    pub(crate) fn len(&self) -> usize {
        self.accepted.len() + self.late.len()
    }

    /// Takes every answer that may be given once `applied` is reached.
    pub(crate) fn release(&mut self, applied: Position, mut answer_with: impl FnMut(T, Answer)) {
        while self
            .accepted
            .front()
            .is_some_and(|(_, committed)| committed.position <= applied)
        {
            if let Some((ticket, committed)) = self.accepted.pop_front() {
                answer_with(ticket, Ok(committed));
            }
        }
        while self
            .late
            .first_key_value()
            .is_some_and(|((after, _), _)| *after <= applied)
        {
            if let Some((_, (ticket, answer))) = self.late.pop_first() {
                answer_with(ticket, answer);
            }
        }
    }

    /// Takes every waiting ticket, whose outcome is not known.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        let accepted = std::mem::take(&mut self.accepted)
            .into_iter()
            .map(|(ticket, _)| ticket);
        let late = std::mem::take(&mut self.late)
            .into_values()
            .map(|(ticket, _)| ticket);
        accepted.chain(late)
    }
}
