//! Each fault is logged once, not at each attempt.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::limits::SEEN_MAX;

#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<HashSet<String>>);

impl Seen {
    /// Whether `text` was not seen since the last [`Self::forget`].
    pub fn is_new(&self, text: &str) -> bool {
        let mut seen = self.0.lock();
        if seen.contains(text) {
            return false;
        }
        if seen.len() == SEEN_MAX {
            seen.clear();
        }
        seen.insert(text.to_owned())
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
