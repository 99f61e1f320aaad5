//! Histories of concurrent clients and the checker that proves them strictly serializable;
//! workloads that try to break that proof; and a whole node in one thread on simulated disks,
//! crashed at every step.

mod checker;
pub mod cluster;
pub mod concurrent;
pub mod cycles;
mod history;
pub mod machine;
pub mod workloads;

pub use checker::{Report, Rule, VIOLATIONS_MAX, Violation, check};
pub use history::{
    Answer, Clock, CommitCall, Found, History, Logged, Moment, PointSeen, RangeSeen, ReadCall,
    Requested, Seen,
};

/// Whether a test does everything, not only what fits a quick run: `ONELOG_TEST_FULL=1`.
#[must_use]
pub fn is_full() -> bool {
    std::env::var("ONELOG_TEST_FULL").is_ok_and(|value| value == "1")
}
