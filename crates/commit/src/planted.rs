//! Bugs planted on purpose, behind the feature `planted-bugs`: a test turns one on and asserts that
//! the checkers then fail.

onelog_record::planted_bugs! {
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
