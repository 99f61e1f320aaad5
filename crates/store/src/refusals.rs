//! What a store refuses of one batch. A store that looks for all of it in one attempt spares the
//! caller an attempt for each.

use std::collections::HashSet;

use bytes::Bytes;

use crate::batch::Change;
use crate::store::{Refused, StoreError};

/// The most refusals that one attempt looks for.
pub const REFUSALS_MAX: usize = 1000;

/// Gathered in any order; the first one of the log speaks for all.
#[derive(Debug, Default)]
pub struct Refusals {
    found: Vec<Refused>,
    keys: HashSet<(usize, Bytes)>,
}

impl Refusals {
    /// Notes a refusal; every other error is handed back.
    pub fn note(
        &mut self,
        mapping: usize,
        change: &Change,
        error: StoreError,
    ) -> Result<(), StoreError> {
        match error {
            StoreError::Refused(refused) => {
                self.keys.insert((mapping, change.key.clone()));
                self.found.push(*refused);
                Ok(())
            }
            other => Err(other),
        }
    }

    /// Adds what was noted apart.
    pub fn append(&mut self, others: Self) {
        self.found.extend(others.found);
        self.keys.extend(others.keys);
    }

    /// Whether a change comes behind a refused one of its key: it is not tried.
    #[must_use]
    pub fn covers(&self, mapping: usize, change: &Change) -> bool {
        !self.keys.is_empty() && self.keys.contains(&(mapping, change.key.clone()))
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether no more are looked for.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.found.len() >= REFUSALS_MAX
    }

    /// All of them as one error, where there are any.
    pub fn into_result(mut self) -> Result<(), StoreError> {
        let first = (0..self.found.len()).min_by_key(|n| self.found[*n].offset);
        let Some(first) = first else { return Ok(()) };
        let mut refused = self.found.swap_remove(first);
        refused.more = self.found;
        Err(StoreError::Refused(Box::new(refused)))
    }
}

impl Refused {
    /// Those of these that `others` has as well.
    #[must_use]
    pub fn among(mut self, others: &Self) -> Option<Self> {
        let key = |refused: &Self| (refused.into.clone(), refused.key_bytes.clone());
        let known: HashSet<_> = others.all().map(key).collect();
        let more = std::mem::take(&mut self.more);
        let all = std::iter::once(self).chain(more);
        let mut found: Vec<Self> = all
            .filter(|refused| known.contains(&key(refused)))
            .collect();
        found.sort_by_key(|refused| refused.offset);
        let mut found = found.into_iter();
        let mut first = found.next()?;
        first.more = found.collect();
        Some(first)
    }

    /// This one and those that were found with it.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.more)
    }
}

#[cfg(test)]
mod tests {
    use onelog_record::Offset;
    use serde_json::json;

    use super::*;

    fn change(key: &'static str) -> Change {
        Change {
            key: Bytes::from_static(key.as_bytes()),
            offset: Offset(0),
            value: None,
        }
    }

    fn refused(offset: u64) -> StoreError {
        StoreError::Refused(Box::new(Refused {
            table: "t".into(),
            key: json!("k"),
            key_bytes: Bytes::from_static(b"k"),
            offset: Offset(offset),
            into: None,
            what: "no".into(),
            more: Vec::new(),
        }))
    }

    #[test]
    fn the_first_one_of_the_log_speaks_for_all_and_later_changes_of_a_key_are_covered() {
        let mut refusals = Refusals::default();
        for (key, offset) in [("b", 7), ("a", 3), ("c", 5)] {
            refusals.note(0, &change(key), refused(offset)).unwrap();
        }
        assert!(refusals.covers(0, &change("a")) && !refusals.covers(1, &change("a")));
        let Err(StoreError::Refused(first)) = refusals.into_result() else {
            panic!("three were noted");
        };
        let mut more: Vec<u64> = first.more.iter().map(|other| other.offset.get()).collect();
        more.sort_unstable();
        assert_eq!((first.offset, more), (Offset(3), vec![5, 7]));
    }

    #[test]
    fn those_that_two_attempts_refuse_are_found_in_the_order_of_the_log() {
        let of = |offsets: &[(&'static str, u64)]| {
            let mut all = offsets.iter().map(|(key, offset)| {
                let StoreError::Refused(refused) = refused(*offset) else {
                    unreachable!("it is a refusal");
                };
                Refused {
                    key_bytes: Bytes::from_static(key.as_bytes()),
                    ..*refused
                }
            });
            let mut first = all.next().unwrap();
            first.more = all.collect();
            first
        };
        let before = of(&[("b", 2), ("d", 4), ("c", 3)]);
        let found = of(&[("a", 1), ("d", 4), ("c", 3)]).among(&before).unwrap();
        let offsets: Vec<u64> = found.all().map(|refused| refused.offset.get()).collect();
        assert_eq!(offsets, [3, 4]);
        assert!(of(&[("a", 1)]).among(&before).is_none());
    }

    #[test]
    fn what_is_no_refusal_is_handed_back() {
        let mut refusals = Refusals::default();
        let fenced = StoreError::Fenced { ours: 1, found: 2 };
        let back = refusals.note(0, &change("a"), fenced).unwrap_err();
        assert_eq!(back.code(), crate::store::StoreErrorCode::Fenced);
        assert!(refusals.is_empty() && refusals.into_result().is_ok());
    }
}
