//! Bugs planted on purpose, behind the feature `planted-bugs`: a test turns one on and asserts
//! that the checkers then fail. Compiled out otherwise: every question is answered `false`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// None: the product as it is.
    None = 0,
    /// A checkpoint writes its position in an earlier transaction than its rows.
    PositionOutsideCheckpoint = 1,
    /// A checkpoint forgets the deletes.
    TombstoneLost = 2,
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
