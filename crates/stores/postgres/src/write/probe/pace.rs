//! How many changes the next window has, so that few statements find the ones that are refused.

use crate::write::WINDOW;

/// Up to so many changes go one by one: taking a statement apart would cost more.
const SINGLES_MAX: usize = 8;
/// The same where it is known how many rows a statement wrote before it failed.
const SINGLES_HINTED_MAX: usize = 2;

#[derive(Debug)]
pub(super) struct Pace {
    /// How many changes a window has while none of the next is known to be refused.
    size: usize,
    /// Among so many of the next changes one is refused.
    within: Option<usize>,
    /// The sizes of the next windows, the last one first.
    next: Vec<usize>,
    /// How many have passed since one was refused.
    apart: usize,
    singles_max: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            size: WINDOW,
            within: None,
            next: Vec::new(),
            apart: 0,
            singles_max: SINGLES_MAX,
        }
    }
}

impl Pace {
    pub(super) fn size(&self) -> usize {
        match (self.next.last(), self.within) {
            (Some(size), _) => *size,
            (None, Some(within)) if within <= self.singles_max => within,
            (None, Some(within)) => within / 2,
            (None, None) => self.size,
        }
    }

    pub(super) fn is_one_by_one(&self) -> bool {
        self.next.is_empty() && self.size() <= self.singles_max
    }

    pub(super) fn passed(&mut self, changes: usize) {
        self.apart += changes;
        self.next.pop();
        match self.within.map(|within| within.saturating_sub(changes)) {
            None => self.size = (self.size * 2).min(WINDOW),
            left => self.within = left.filter(|left| *left > 0),
        }
    }

    /// A statement with so many of the next changes failed, of which it had written some: the last
    /// one of these is refused, or the one behind it.
    pub(super) fn failed(&mut self, changes: usize, written: usize) {
        self.within = Some(changes);
        self.next.clear();
        self.singles_max = SINGLES_MAX;
        if (1..changes).contains(&written) {
            self.singles_max = SINGLES_HINTED_MAX;
            self.next.extend([1, 1]);
            self.next.extend(Some(written - 1).filter(|size| *size > 0));
        }
    }

    /// The next change is refused, and is no longer among the next.
    pub(super) fn refused(&mut self) {
        *self = Self {
            size: (self.apart * 2).clamp(1, WINDOW),
            singles_max: self.singles_max,
            ..Self::default()
        };
    }

    /// So many passed one by one and not together.
    pub(super) fn narrow(&mut self, changes: usize) {
        *self = Self {
            size: changes,
            apart: self.apart,
            singles_max: self.singles_max,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many statements find the refused ones of these changes.
    fn statements(refused: &[bool], has_hint: bool) -> usize {
        let (mut pace, mut at, mut statements) = (Pace::default(), 0, 0);
        let mut found = Vec::new();
        while at < refused.len() {
            let window = &refused[at..refused.len().min(at + pace.size())];
            let place = window.iter().position(|is_refused| *is_refused);
            let is_single = pace.is_one_by_one() || window.len() == 1;
            statements += match (is_single, place) {
                (false, _) => 1,
                // What came before goes again in one statement.
                (true, Some(place)) => window.len() + usize::from(place > 0),
                (true, None) => window.len(),
            };
            match place {
                None => {
                    at += window.len();
                    pace.passed(window.len());
                }
                Some(place) if is_single => {
                    if place > 0 {
                        pace.passed(place);
                    }
                    pace.refused();
                    found.push(at + place);
                    at += place + 1;
                }
                Some(place) => pace.failed(window.len(), if has_hint { place + 1 } else { 0 }),
            }
        }
        let all = (0..refused.len()).filter(|n| refused[*n]);
        assert_eq!(found, all.collect::<Vec<_>>());
        statements
    }

    #[test]
    fn few_statements_find_some_refused_changes_and_never_many_more_than_one_for_each_change() {
        const CHANGES: usize = 6_000;
        // A generator of Lehmer's, so that refused changes are anywhere.
        let mut state = 1_u64;
        let mut next = || {
            state = state * 48_271 % 2_147_483_647;
            state
        };
        for (of_thousand, with_hint, without) in [
            (0, 30, 30),
            (2, 120, 300),
            (10, 400, 1_500),
            (100, 3_500, 9_000),
            (500, 9_000, 12_000),
            (1_000, 6_600, 6_600),
        ] {
            let refused: Vec<bool> = (0..CHANGES).map(|_| next() % 1_000 < of_thousand).collect();
            for (has_hint, most) in [(true, with_hint), (false, without)] {
                let found = statements(&refused, has_hint);
                assert!(found <= most, "{of_thousand}, {has_hint}: {found}");
            }
        }
    }
}
