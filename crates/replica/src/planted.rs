//! Bugs planted on purpose, behind the feature `planted-bugs`: a test turns one on and asserts that
//! the checkers then fail. Compiled out otherwise: every question is answered `false`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// None: the product as it is.
    None = 0,
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
}

#[cfg(feature = "planted-bugs")]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Plants `bug` for the whole process, in place of the one planted before.
#[cfg(feature = "planted-bugs")]
pub fn set(bug: Bug) {
    PLANTED.store(bug as u8, std::sync::atomic::Ordering::SeqCst);
}

#[cfg(feature = "planted-bugs")]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::SeqCst) == bug as u8
}

#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn is(_bug: Bug) -> bool {
    false
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
