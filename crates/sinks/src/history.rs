//! Whether the place that a store got to is one of the log as it is now.

use onelog::Position;

use crate::error::SinkFault;

/// What a place that a store holds is in this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum History {
    Ours,
    /// The log no longer reaches back to it.
    Cut,
    /// The log ends before it.
    Ahead {
        end: Position,
    },
    /// It was reached in another history, by the checksums of the two.
    Other {
        there: u32,
        here: u32,
    },
}

impl History {
    /// Why the sink stops where its store is at `position` of such a history.
    pub(crate) fn fault(self, position: Position) -> Option<SinkFault> {
        let what = match self {
            Self::Ours | Self::Cut => return None,
            Self::Ahead { end } => format!(
                "the store is at position {position}, but the log ends at {end}: one of them was restored from another time; rebuild the sink to make the store equal to the log"
            ),
            Self::Other { there, here } => format!(
                "the store is at position {position} of another history of this log: the checksum of its history is {there:08x} there, and that of this log is {here:08x}. The log was put back to an older copy and has gone another way since (or the store was); records that only the store has are in this log no longer. See what differs (onelog sinks verify, under the definition that the store was backfilled by), then rebuild the sink to make the store equal to this log"
            ),
        };
        Some(SinkFault::new(what))
    }
}
