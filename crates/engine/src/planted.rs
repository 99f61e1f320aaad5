//! Bugs planted on purpose, behind the feature `planted-bugs`: a test turns one on and asserts that
//! the checkers then fail.

onelog_record::planted_bugs! {
    /// Requests behind a definition in flight are decided by the tables before it.
    DecideBehindDefinition = 1,
    /// Refusals, and transactions that write nothing, are answered without a barrier.
    RefusedUnconfirmed = 2,
    /// An only voter seeks the leadership while not all that it has is durable.
    CampaignsUnflushed = 3,
}
