//! Each fault is logged once, not at each attempt; one that lasts is logged again after an hour.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::SEEN_MAX;

const AGAIN_AFTER: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<HashMap<String, Instant>>);

impl Seen {
    /// Whether `text` was not seen since the last [`Self::forget`].
    pub fn is_new(&self, text: &str) -> bool {
        let now = Instant::now();
        let mut seen = self.0.lock();
        if seen.get(text).is_some_and(|at| now - *at < AGAIN_AFTER) {
            return false;
        }
        if seen.len() == SEEN_MAX {
            seen.clear();
        }
        seen.insert(text.to_owned(), now);
        true
    }

    pub fn forget(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_new_once_until_it_is_forgotten_and_memory_is_bounded() {
        let seen = Seen::default();
        assert!(seen.is_new("a"));
        assert!(!seen.is_new("a"));
        seen.forget();
        assert!(seen.is_new("a"));
        for number in 0..3 * SEEN_MAX {
            assert!(seen.is_new(&number.to_string()));
        }
        assert!(seen.0.lock().len() <= SEEN_MAX);
    }
}
