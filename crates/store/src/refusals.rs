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
