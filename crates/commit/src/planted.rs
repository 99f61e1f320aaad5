//! Mistakes that can be switched on to prove that the tests find them.
//!
//! One bug at a time, for the whole process: tests that plant one run one after another.

use std::sync::atomic::{AtomicU8, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Range reads are not checked at all.
    SkipRangeCheck = 1,
    /// Transactions in flight are ignored.
    ValidateCommittedOnly = 2,
    /// The window believes that it still knows the write that it forgot last.
    OffByOneFloor = 3,
    /// A write at exactly the read position is taken as seen.
    OffByOneRead = 4,
    /// The ids that the state remembers are ignored at the start.
    IdsInMemoryOnly = 5,
    /// Refusals that rest on transactions in flight are answered at once.
    RefusalAnsweredTooEarly = 6,
}

static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Plants a bug, or takes it out again.
pub fn set(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as u8), Ordering::SeqCst);
}

/// Whether this bug is planted.
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.load(Ordering::Relaxed) == bug as u8
}
