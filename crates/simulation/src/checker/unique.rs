//! Unique fields, from the values alone; and then that the rows which the product keeps for them
//! in `onelog.unique` say exactly the same.

use std::collections::HashMap;

use bytes::Bytes;
use onelog_commit::unique_row_key;
use onelog_record::{FieldPath, JsonText, Op, TABLE_UNIQUE, TableId};
use serde_json::Value;

use super::{Checker, Rule};
use crate::history::Logged;

/// A field of a table: the table, the field's number, its path.
type Field<'p> = (TableId, usize, &'p FieldPath);

/// What is true behind the transactions looked at so far.
#[derive(Default)]
struct Truth {
    /// Every row of every table.
    rows: HashMap<(TableId, Bytes), Bytes>,
    /// Who has a value: table, number of the field, the value's text.
    owners: HashMap<(TableId, usize, String), Bytes>,
    /// The same as `onelog.unique` should have it.
    wanted: HashMap<Bytes, Bytes>,
}

impl Checker<'_> {
    pub(super) fn check_unique(&mut self) {
        let tables = self.tables;
        let fields: Vec<Field<'_>> = tables
            .iter()
            .flat_map(|table| {
                let paths = table.unique.iter().enumerate();
                paths.map(|(number, path)| (table.id, number, path))
            })
            .collect();
        let mut truth = Truth::default();
        for logged in self.model.log {
            let mut touched = Vec::new();
            for field in &fields {
                for text in truth.give(logged, *field, &mut touched) {
                    self.add(Rule::NotUnique, text);
                }
            }
            truth.put_rows(logged);
            let kept = logged.records.iter().filter(|r| r.table == TABLE_UNIQUE);
            touched.extend(kept.map(|record| record.key.clone()));
            for row in touched {
                let (is, wanted) = truth.row(&row);
                if !fields.is_empty() && is != wanted {
                    let text = format!(
                        "transaction {} leaves {is:?} as the owner in row {row:?} of the unique values; by the values it is {wanted:?}",
                        logged.id
                    );
                    self.add(Rule::WrongRecords, text);
                }
            }
        }
    }
}

impl Truth {
    /// Takes the values that a transaction changes from their owners, then gives the new ones out.
    fn give(&mut self, logged: &Logged, field: Field<'_>, touched: &mut Vec<Bytes>) -> Vec<String> {
        let (table, number, path) = field;
        let row = |value: &Value| {
            unique_row_key(table, number as u16, &JsonText::from(value.clone()).json())
        };
        let changed = last_images(logged, table);
        for key in changed.keys() {
            let before = self.rows.get(&(table, key.clone()));
            if let Some(value) = before.and_then(|before| value_of(before, path)) {
                self.owners.remove(&(table, number, value.to_string()));
                self.wanted.remove(&row(&value));
                touched.push(row(&value));
            }
        }
        let mut clashes = Vec::new();
        for (key, image) in &changed {
            let Some(value) = image.as_ref().and_then(|image| value_of(image, path)) else {
                continue;
            };
            let claim = (table, number, value.to_string());
            if let Some(other) = self.owners.insert(claim, key.clone()) {
                clashes.push(format!(
                    "transaction {} gives {value} in field '{path}' to key {key:?}, but key {other:?} has it",
                    logged.id
                ));
            }
            self.wanted.insert(row(&value), key.clone());
            touched.push(row(&value));
        }
        clashes
    }

    fn put_rows(&mut self, logged: &Logged) {
        for record in &logged.records {
            let key = (record.table, record.key.clone());
            match &record.value {
                Some(value) if record.op == Op::Put => drop(self.rows.insert(key, value.clone())),
                Some(_) => {}
                None => drop(self.rows.remove(&key)),
            }
        }
    }

    /// The owner in a row of `onelog.unique`, as it is and as it should be.
    fn row(&self, row: &Bytes) -> (Option<&Bytes>, Option<&Bytes>) {
        let is = self.rows.get(&(TABLE_UNIQUE, row.clone()));
        (is, self.wanted.get(row))
    }
}

fn last_images(logged: &Logged, table: TableId) -> HashMap<Bytes, Option<Bytes>> {
    logged
        .records
        .iter()
        .filter(|record| record.table == table && record.op != Op::Event)
        .map(|record| (record.key.clone(), record.value.clone()))
        .collect()
}

/// A field's value; `null` and missing have no owner.
pub(super) fn value_of(document: &[u8], path: &FieldPath) -> Option<Value> {
    let document: Value = serde_json::from_slice(document).ok()?;
    path.get(&document)
        .filter(|value| !value.is_null())
        .cloned()
}
