//! Unique fields, from the values alone: the rows that the product keeps for them are not asked.

use std::collections::HashMap;

use bytes::Bytes;
use onelog_record::{FieldPath, Op, TableId};
use serde_json::Value;

use super::{Checker, Rule};
use crate::history::Logged;

/// Who has a value: table, number of the field, the value's text.
type Owners = HashMap<(TableId, usize, String), Bytes>;

impl Checker<'_> {
    pub(super) fn check_unique(&mut self) {
        let mut owners = Owners::new();
        let mut rows: HashMap<(TableId, Bytes), Bytes> = HashMap::new();
        for logged in self.model.log {
            for (at, table) in self.tables.iter().enumerate() {
                for (field, path) in table.unique.iter().enumerate() {
                    let of = self.tables[at].id;
                    let changed = last_images(logged, of);
                    release(&mut owners, &rows, &changed, (of, field, path));
                    for (key, image) in &changed {
                        let Some(value) = image.as_ref().and_then(|image| text_of(image, path))
                        else {
                            continue;
                        };
                        let Some(other) = owners.insert((of, field, value.clone()), key.clone())
                        else {
                            continue;
                        };
                        let text = format!(
                            "transaction {} gives {value} in field '{path}' to key {key:?}, but key {other:?} has it",
                            logged.id
                        );
                        self.add(Rule::NotUnique, text);
                    }
                }
            }
            for record in &logged.records {
                let key = (record.table, record.key.clone());
                match &record.value {
                    Some(value) if record.op == Op::Put => drop(rows.insert(key, value.clone())),
                    Some(_) => {}
                    None => drop(rows.remove(&key)),
                }
            }
        }
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

fn release(
    owners: &mut Owners,
    rows: &HashMap<(TableId, Bytes), Bytes>,
    changed: &HashMap<Bytes, Option<Bytes>>,
    (table, field, path): (TableId, usize, &FieldPath),
) {
    for key in changed.keys() {
        let before = rows.get(&(table, key.clone()));
        if let Some(value) = before.and_then(|before| text_of(before, path)) {
            owners.remove(&(table, field, value));
        }
    }
}

/// The text of a field's value; `null` and nothing belong to nobody.
pub(super) fn text_of(document: &[u8], path: &FieldPath) -> Option<String> {
    let document: Value = serde_json::from_slice(document).ok()?;
    let value = path.get(&document)?;
    (!value.is_null()).then(|| value.to_string())
}
