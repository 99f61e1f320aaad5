//! Why a sink's connection to its store is given up.

use onelog_store::StoreError;

use crate::error::SinkFault;

pub(crate) enum SessionEnd {
    /// Try again after a delay.
    Retry(SinkFault),
    /// Wait for a command.
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

    pub(crate) const fn fault(&self) -> &SinkFault {
        let (Self::Retry(fault) | Self::Stop(fault)) = self;
        fault
    }
}

impl From<StoreError> for SessionEnd {
    fn from(error: StoreError) -> Self {
        Self::of(&error)
    }
}
