//! Who still needs the log: retention never cuts past the slowest of them.

use std::collections::HashMap;
use std::sync::Arc;

use onelog_record::Position;
use parking_lot::Mutex;

/// The name under which a sink holds the log.
#[must_use]
pub fn sink_follower(sink: &str) -> String {
    format!("sink {sink}")
}

/// All followers and how far each has come.
#[derive(Debug, Default)]
pub struct Followers {
    positions: Mutex<HashMap<u64, (String, Option<Position>)>>,
}

impl Followers {
    /// The slowest follower.
    #[must_use]
    pub fn slowest(&self) -> Option<(String, Position)> {
        let positions = self.positions.lock();
        positions
            .values()
            .filter_map(|(name, held)| held.map(|position| (name, position)))
            .min_by_key(|(_, position)| *position)
            .map(|(name, position)| (name.clone(), position))
    }

    /// Whether a follower of this name has joined, wherever it is.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let positions = self.positions.lock();
        positions.values().any(|(known, _)| known == name)
    }

    /// A follower that needs the log from `position` on.
    #[must_use]
    pub fn join(self: &Arc<Self>, name: &str, position: Position) -> Follower {
        let mut positions = self.positions.lock();
        let number = positions.keys().max().map_or(0, |last| last + 1);
        positions.insert(number, (name.to_owned(), Some(position)));
        Follower {
            number,
            all: Arc::clone(self),
        }
    }
}

/// Holds retention back at its position until it is advanced or dropped.
#[derive(Debug)]
pub struct Follower {
    number: u64,
    all: Arc<Followers>,
}

impl Follower {
    /// What lies below `position` is needed no longer, but for the entry with the last record below:
    /// its checksum says which history the position is of. A store that went back moves back.
    pub fn advance(&self, position: Position) {
        if let Some((_, held)) = self.all.positions.lock().get_mut(&self.number) {
            *held = Some(position);
        }
    }

    /// Holds nothing any more, until it is advanced again.
    pub fn let_go(&self) {
        if let Some((_, held)) = self.all.positions.lock().get_mut(&self.number) {
            *held = None;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.all.positions.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_follower_holds_the_log() {
        let all = Arc::new(Followers::default());
        assert_eq!(all.slowest(), None);
        let fast = all.join("fast", Position(9));
        let slow = all.join("slow", Position(3));
        assert_eq!(all.slowest(), Some(("slow".into(), Position(3))));
        slow.advance(Position(12));
        assert_eq!(all.slowest(), Some(("fast".into(), Position(9))));
        fast.let_go();
        assert_eq!(all.slowest(), Some(("slow".into(), Position(12))));
        fast.advance(Position(10));
        assert_eq!(all.slowest(), Some(("fast".into(), Position(10))));
        drop(fast);
        assert_eq!(all.slowest(), Some(("slow".into(), Position(12))));
    }
}
