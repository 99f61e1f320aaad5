//! Bugs planted on purpose, behind the feature `planted-bugs`: a test turns one on and asserts that
//! the checkers then fail. Compiled out otherwise: every question is answered `false`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// None: the product as it is.
    None = 0,
    /// Recovery cuts a tail although entries in it were acknowledged.
    CutBelowWatermark = 1,
    /// A flush answers well without having flushed.
    AcknowledgeBeforeFlush = 2,
    /// Flushes count in the order in which they end, not in the order of the log.
    FlushOutOfOrder = 3,
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
