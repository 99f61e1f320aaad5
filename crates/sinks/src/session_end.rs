//! Why a sink's connection to its store is given up.

use onelog_store::StoreError;

use crate::error::SinkFault;

/// Why a session ended.
pub(crate) enum SessionEnd {
    /// The thread ends.
    Exit,
    /// Try again after a delay.
    Retry(SinkFault),
    /// Wait for people.
    Stop(SinkFault),
}

impl SessionEnd {
    pub(crate) fn of(error: &StoreError) -> Self {
        let fault = SinkFault::of(error);
        if error.is_retryable() {
            Self::Retry(fault)
        } else {
            Self::Stop(fault)
        }
    }
}

impl From<StoreError> for SessionEnd {
    fn from(error: StoreError) -> Self {
        Self::of(&error)
    }
}
