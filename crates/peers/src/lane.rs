//! Two lanes to each peer, each a connection of its own, so that large data never delays votes and
//! heartbeats.

use crate::limits::{
    BULK_BYTES_MAX, BULK_QUEUE_BYTES_MAX, BULK_QUEUE_FRAMES_MAX, CONTROL_BYTES_MAX,
    CONTROL_QUEUE_BYTES_MAX, CONTROL_QUEUE_FRAMES_MAX,
};

/// Which of the connections to a peer. What is sent on one arrives in order, or not at all; two lanes
/// have no order between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Lane {
    /// Votes, heartbeats, read barriers: small.
    Control = 1,
    /// Entries, transactions, pieces of snapshots.
    Bulk = 2,
}

impl Lane {
    pub const ALL: [Self; 2] = [Self::Control, Self::Bulk];

    pub(crate) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| *lane as u8 == number)
    }

    pub(crate) const fn at(self) -> usize {
        self as usize - 1
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Bulk => "bulk",
        }
    }

    /// The most bytes of one message, request or answer.
    #[must_use]
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Control => CONTROL_BYTES_MAX,
            Self::Bulk => BULK_BYTES_MAX,
        }
    }

    pub(crate) const fn queue_max(self) -> (usize, usize) {
        match self {
            Self::Control => (CONTROL_QUEUE_FRAMES_MAX, CONTROL_QUEUE_BYTES_MAX),
            Self::Bulk => (BULK_QUEUE_FRAMES_MAX, BULK_QUEUE_BYTES_MAX),
        }
    }
}
