//! The two clocks of a caller, and the name of a request.

/// When something happens. Deadlines follow the monotonic clock alone; the other one is stored with
/// offsets, and decides only whether what is kept very long is old enough to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub monotonic_ms: u64,
    /// Milliseconds since 1970 in UTC.
    pub unix_ms: i64,
}

impl Moment {
    pub(crate) fn after(self, milliseconds: u64) -> u64 {
        self.monotonic_ms.saturating_add(milliseconds)
    }
}

/// What the caller knows a request by. It means nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);
