//! What a coordinator can be given. The bounds of memory are constants.

use crate::limits;

#[derive(Clone, Debug)]
pub struct Options {
    /// At most [`limits::MEMBERS_MAX`].
    pub members_max: usize,
    pub session_timeout_ms_min: u32,
    pub session_timeout_ms_max: u32,
    pub initial_rebalance_delay_ms: u64,
    pub offsets_retention_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            members_max: limits::MEMBERS_MAX,
            session_timeout_ms_min: limits::SESSION_TIMEOUT_MS_MIN,
            session_timeout_ms_max: limits::SESSION_TIMEOUT_MS_MAX,
            initial_rebalance_delay_ms: limits::INITIAL_REBALANCE_DELAY_MS,
            offsets_retention_ms: limits::OFFSETS_RETENTION_MS,
        }
    }
}
