//! Mistakes that can be switched on to prove that the tests find them.
//!
//! One bug at a time, per thread, so that tests that run side by side do not disturb each other.

use std::cell::Cell;

/// A planted mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Range reads are not checked at all.
    SkipRangeCheck,
    /// Transactions in flight are ignored.
    ValidateCommittedOnly,
    /// The window believes that it still knows the write that it forgot last.
    OffByOneFloor,
    /// A write at exactly the read position is taken as seen.
    OffByOneRead,
    /// The ids that the state remembers are ignored at the start.
    IdsInMemoryOnly,
    /// Refusals that rest on transactions in flight are told at once.
    RefusalToldTooEarly,
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a bug in validators that run on this thread, or takes it out again.
pub fn set(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted on this thread.
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
