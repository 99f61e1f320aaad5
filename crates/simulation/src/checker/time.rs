//! Real time: what begins after something was answered must find it.

use onelog_record::{Position, Refusal};

use crate::history::{Answer, History, Moment};

/// Positions that were answered to any client, by the moment of the answer, each with the highest so
/// far.
#[derive(Debug)]
pub(super) struct Observed(Vec<(Moment, Position)>);

impl Observed {
    pub(super) fn new(history: &History) -> Self {
        let reads = history.reads.iter().map(|read| (read.end, read.position));
        let commits = history
            .commits
            .iter()
            .filter_map(|call| Some((call.end?, answered(&call.answer)?)));
        let mut all: Vec<_> = reads.chain(commits).collect();
        all.sort_unstable();
        let mut highest = Position::ZERO;
        for (_, position) in &mut all {
            highest = highest.max(*position);
            *position = highest;
        }
        Self(all)
    }

    /// The highest position that had been answered to any client before `moment`.
    pub(super) fn before(&self, moment: Moment) -> Position {
        let count = self.0.partition_point(|(end, _)| *end < moment);
        count
            .checked_sub(1)
            .and_then(|last| self.0.get(last))
            .map_or(Position::ZERO, |(_, position)| *position)
    }
}

/// The position that an answer says is readable.
fn answered(answer: &Answer) -> Option<Position> {
    match answer {
        Answer::Committed(committed) => Some(committed.position),
        Answer::Refused(
            Refusal::Conflict { retry_at, .. } | Refusal::GuardFailed { retry_at, .. },
        ) => Some(*retry_at),
        Answer::Refused(Refusal::IdMismatch { position, .. }) => Some(*position),
        Answer::Refused(_) | Answer::Unknown => None,
    }
}
