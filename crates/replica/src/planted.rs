//! Bugs planted on purpose, behind the feature `planted-bugs`: a test turns one on and asserts that
//! the checkers then fail.

onelog_record::planted_bugs! {
    /// Entries count as durable as soon as they are staged: answers come before the flush.
    AnswerOnStage = 1,
    /// Retention drops what the state has not checkpointed.
    RetainPastCheckpoint = 2,
    /// Replay after a start skips the last entry.
    ReplayShort = 3,
    /// A start takes the tables from the checkpoint and not from the entries behind it.
    CatalogOfCheckpoint = 4,
    /// Requests are decided as if no table had ever been dropped.
    DropForgotten = 5,
    /// Retention does not look at followers.
    RetainPastFollowers = 6,
    /// The position moves over a definition before its table is known.
    CatalogLags = 7,
    /// A start among others takes everything that is durable for committed.
    DurableIsCommitted = 8,
    /// What is flushed is reported while a cut of it waits.
    StoredBeforeCut = 9,
    /// A start forgets what the checkpoint has beyond the saved commit.
    CommitBehindCheckpoint = 10,
    /// Checkpoints, and the snapshots made of them, do not say who the members are.
    MembersNotKept = 11,
    /// A start among others does not look for changes of the members that must be committed.
    ChangesNotLookedFor = 12,
    /// Node 3 takes nothing of what it applies into its state.
    AppliesOtherwise = 20,
    /// An installed snapshot leaves the tables that were known before.
    CatalogNotInstalled = 30,
}

/// The same place in the log without what was written there.
pub(crate) fn without_transactions(entry: &onelog_record::Entry) -> onelog_record::Entry {
    use onelog_record::{EntryHeader, EntryKind};
    onelog_record::Entry {
        header: EntryHeader {
            record_count: entry.header.record_count,
            ..EntryHeader::empty(EntryKind::NoOp, entry.header.base_offset)
        },
        body: bytes::Bytes::new(),
        ..entry.clone()
    }
}
