//! Bugs planted on purpose, behind the feature `planted-bugs`: a test turns one on and asserts that
//! the checkers then fail.

onelog_record::planted_bugs! {
    /// Requests behind a definition in flight are decided by the tables before it.
    DecideBehindDefinition = 1,
    /// Refusals, and transactions that write nothing, are answered without a barrier.
    RefusedUnconfirmed = 2,
    /// An only voter seeks the leadership while not all that it has is durable.
    CampaignsUnflushed = 3,
    /// A read barrier is answered with what is applied here: no other node confirms the leadership.
    BarrierUnconfirmed = 10,
    /// What was decided and never committed stays known when the leadership is lost.
    OverlayKept = 11,
    /// Answers go on waiting for their positions when the leadership is lost.
    RepliesKept = 12,
    /// A transaction is answered as soon as it is decided, before a majority has it.
    AnswerOnDecision = 13,
    /// A leader decides before it has applied what earlier leaders committed.
    AdmitsTooEarly = 14,
    /// An installed snapshot brings no ids.
    IdsNotInstalled = 15,
    /// Entries and votes are reported to other nodes before they are flushed.
    ReportedUnflushed = 20,
    /// The term is saved without the vote.
    VoteForgotten = 21,
    /// A read barrier rests on a lease, in place of an answer of a majority.
    BarrierByLease = 23,
}
