//! Answers that rest on what has been applied, and on nothing that is on its way: refusals, and
//! transactions that write nothing. Another leader may have gone on meanwhile, so where there are other
//! voters such an answer waits for a read barrier that begins behind the decision.
//!
//! One barrier at a time: what is decided meanwhile waits for the next one.

use onelog_record::{Committed, Position, Refusal};

use crate::consensus::Consensus;
use crate::engine::{Effect, Engine};

/// An answer, and the position that must be applied before it is given.
#[derive(Debug)]
pub(crate) struct Unconfirmed<T> {
    pub(crate) ticket: T,
    pub(crate) after: Position,
    pub(crate) answer: Result<Committed, Refusal>,
}

#[derive(Debug)]
pub(crate) struct Confirming<T> {
    collected: Vec<Unconfirmed<T>>,
    /// Those that wait for the barrier with this token.
    in_flight: Option<(u64, Vec<Unconfirmed<T>>)>,
}

impl<T> Default for Confirming<T> {
    fn default() -> Self {
        Self {
            collected: Vec::new(),
            in_flight: None,
        }
    }
}

impl<T> Confirming<T> {
    pub(crate) fn push(&mut self, answer: Unconfirmed<T>) {
        self.collected.push(answer);
    }

    /// Whether a barrier is to be requested now.
    pub(crate) fn is_due(&self) -> bool {
        self.in_flight.is_none() && !self.collected.is_empty()
    }

    /// The barrier with this token was requested for everything that is collected.
    pub(crate) fn begin(&mut self, token: u64) {
        assert!(self.is_due(), "one barrier at a time");
        self.in_flight = Some((token, std::mem::take(&mut self.collected)));
    }

    /// The answers that this barrier confirms.
    pub(crate) fn confirmed(&mut self, token: u64) -> Vec<Unconfirmed<T>> {
        let taken = self.in_flight.take_if(|(waits_for, _)| *waits_for == token);
        taken.map_or_else(Vec::new, |(_, answers)| answers)
    }

    pub(crate) fn len(&self) -> usize {
        let in_flight = self.in_flight.as_ref();
        self.collected.len() + in_flight.map_or(0, |(_, answers)| answers.len())
    }

    /// Takes every waiting ticket.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        let in_flight = self.in_flight.take().map(|(_, answers)| answers);
        let collected = std::mem::take(&mut self.collected);
        let all = in_flight.into_iter().flatten().chain(collected);
        all.map(|answer| answer.ticket).collect()
    }
}

impl<T, C: Consensus> Engine<T, C> {
    /// Answers once what it rests on is applied.
    pub(crate) fn answer(&mut self, answer: Unconfirmed<T>, out: &mut Vec<Effect<T>>) {
        let Unconfirmed {
            ticket,
            after,
            answer,
        } = answer;
        if after <= self.applied.position {
            out.push(Effect::Reply(ticket, answer));
        } else {
            self.replies.late(ticket, after, answer);
        }
    }

    /// Requests a barrier for what waits for one. Answers whether it did.
    pub(crate) fn confirm(&mut self) -> bool {
        let is_due = self.confirming.is_due();
        if is_due {
            self.next_read += 1;
            self.confirming.begin(self.next_read);
            self.consensus.read_barrier(self.next_read);
        }
        is_due
    }
}
