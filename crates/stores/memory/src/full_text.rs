//! A full-text index: which rows have a word in one of its columns.

use std::collections::{BTreeMap, BTreeSet};

use onelog_mapping::Cell;
use onelog_store::IndexCheck;

use crate::encode::Key;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Index {
    pub(crate) columns: Vec<usize>,
    words: BTreeMap<String, BTreeSet<Key>>,
}

impl Index {
    pub(crate) fn new(columns: &[usize]) -> Self {
        Self {
            columns: columns.to_vec(),
            words: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, key: &Key, cells: &[Cell]) {
        for word in self.words_of(cells) {
            self.words.entry(word).or_default().insert(key.clone());
        }
    }

    pub(crate) fn remove(&mut self, key: &Key, cells: &[Cell]) {
        for word in self.words_of(cells) {
            if let Some(keys) = self.words.get_mut(&word) {
                keys.remove(key);
                if keys.is_empty() {
                    self.words.remove(&word);
                }
            }
        }
    }

    fn words_of(&self, cells: &[Cell]) -> BTreeSet<String> {
        let texts = self
            .columns
            .iter()
            .filter_map(|column| match &cells[*column] {
                Cell::Text(text) | Cell::Json(text) => Some(text),
                _ => None,
            });
        texts
            .flat_map(|text| text.split(|c: char| !c.is_alphanumeric()))
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect()
    }

    /// Compares the index with one that is made of the rows now.
    pub(crate) fn check(&self, rows: &BTreeMap<Key, Vec<Cell>>, faults_max: usize) -> IndexCheck {
        let mut expected = Self::new(&self.columns);
        for (key, cells) in rows {
            expected.add(key, cells);
        }
        let words: BTreeSet<&String> = self.words.keys().chain(expected.words.keys()).collect();
        let wrong = words
            .into_iter()
            .filter(|word| self.words.get(*word) != expected.words.get(*word));
        let faults: Vec<String> = wrong
            .map(|word| format!("the rows with '{word}' are others"))
            .collect();
        IndexCheck {
            faults_total: faults.len() as u64,
            faults: faults.into_iter().take(faults_max).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_missing_and_one_too_many_are_found() {
        let text = |text: &str| vec![Cell::Text(text.to_owned())];
        let mut index = Index::new(&[0]);
        let mut rows = BTreeMap::from([(vec![1], text("Red apple")), (vec![2], text("red pear"))]);
        for (key, cells) in &rows {
            index.add(key, cells);
        }
        assert_eq!(index.check(&rows, 9).faults_total, 0);
        rows.insert(vec![2], text("green pear"));
        let found = index.check(&rows, 1);
        assert_eq!(
            (found.faults_total, found.faults.len()),
            (2, 1),
            "{found:?}"
        );
    }
}
