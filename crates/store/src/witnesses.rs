//! Some rows of a table, by which one that was made anew is distinguished from one that was altered.
//!
//! A table that was dropped and made anew lacks everything from before, and so does a column that was
//! dropped and added again. Where a product does not number what it makes, its own rows tell: as long as
//! a session lasts a few of them are known, and looked for whenever the definition is another one.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use onelog_mapping::{Cell, MappingPlan, Row};

use crate::batch::Change;

/// So many rows of a table are known, at most.
pub const WITNESSES_MAX: usize = 8;

/// What is said of a table that was made anew.
pub const TABLE_RENEWED: &str = "it was dropped and made anew, or replaced by another table, since onelog filled it, and may lack the rows from before; fill it from the log: onelog sinks rebuild";

/// What is said of such a column.
pub fn column_renewed(name: &str) -> String {
    format!(
        "the column '{name}' was dropped and added again since onelog filled it, and lacks its values from before; fill it from the log: onelog sinks rebuild"
    )
}

/// What is left of a cell; `None`: it is NULL.
type Print = Option<u64>;

/// Rows that a table has.
#[derive(Clone, Debug, Default)]
pub struct Witnesses(HashMap<Bytes, Vec<Print>>);

impl Witnesses {
    /// The rows that the table has of those that were found in it.
    pub fn of(plan: &MappingPlan, found: &[Row]) -> Self {
        let rows = found.iter().take(WITNESSES_MAX);
        Self(
            rows.filter_map(|row| Some((plan.key_of_row(row)?.into(), prints(row))))
                .collect(),
        )
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys of the log whose rows are to be found.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.0.keys()
    }

    /// Forgets rows that the log changes; the changes are sorted by key, as a batch has them.
    pub fn forget(&mut self, changes: &[Change]) {
        debug_assert!(changes.is_sorted_by(|a, b| a.key <= b.key));
        self.0.retain(|key, _| {
            changes
                .binary_search_by(|change| change.key.cmp(key))
                .is_err()
        });
    }

    /// What is not as it was, by the rows that were found of these keys.
    pub fn renewed(&self, plan: &MappingPlan, found: &[Row]) -> Vec<String> {
        let now = Self::of(plan, found).0;
        let both: Vec<(&Vec<Print>, &Vec<Print>)> = self
            .0
            .iter()
            .filter_map(|(key, was)| Some((was, now.get(key)?)))
            .collect();
        if both.is_empty() && !self.is_empty() {
            return vec![TABLE_RENEWED.to_owned()];
        }
        let is_renewed = |n: usize| {
            let was: BTreeSet<Print> = both.iter().map(|(was, _)| was[n]).collect();
            let is: BTreeSet<Print> = both.iter().map(|(_, is)| is[n]).collect();
            let had_values = was.iter().any(Option::is_some);
            // A default is one value for all.
            had_values && is.len() == 1 && (is.contains(&None) || was.len() > 1)
        };
        let columns = plan.columns.iter().enumerate();
        columns
            .filter(|(n, _)| *n != plan.key && is_renewed(*n))
            .map(|(_, column)| column_renewed(&column.name))
            .collect()
    }
}

fn prints(row: &Row) -> Vec<Print> {
    let mut bytes = Vec::new();
    let mut print = |cell: &Cell| {
        if *cell == Cell::Null {
            return None;
        }
        bytes.clear();
        cell.encode(&mut bytes);
        let hash = blake3::hash(&bytes);
        let (first, _) = hash.as_bytes().split_first_chunk::<8>()?;
        Some(u64::from_le_bytes(*first))
    };
    row.cells.iter().map(&mut print).collect()
}
