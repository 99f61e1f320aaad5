//! What several tests of a node share.

pub mod watched;

use std::thread;
use std::time::{Duration, Instant};

/// Nothing takes as long on a node that does it at all.
const FOR_EVER: Duration = Duration::from_secs(60);

#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < FOR_EVER, "{what}: never");
        thread::yield_now();
    }
}
