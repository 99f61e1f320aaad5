//! Changes as rows of a table.

use onelog_mapping::{Cell, MappingPlan, Row};
use onelog_store::{Change, StoreError};

/// The canonical encoding of a row's key cell.
pub(crate) type Key = Vec<u8>;

/// A row to write, or, without cells, to delete.
pub(crate) type Write = (Key, Option<Vec<Cell>>);

/// Deletes that can have no row in this table are left out.
pub(crate) fn encode(plan: &MappingPlan, changes: &[Change]) -> Result<Vec<Write>, StoreError> {
    let mut writes = Vec::with_capacity(changes.len());
    let mut row = Row::default();
    let mut cell = Cell::Null;
    for change in changes {
        match &change.value {
            Some(value) => {
                plan.project(&change.key, change.offset, value, &mut row)
                    .map_err(|fault| StoreError::refused_change(plan, change, fault))?;
                writes.push((encode_key(&row.cells[plan.key]), Some(row.cells.clone())));
            }
            None if plan.project_key(&change.key, &mut cell).is_ok() => {
                writes.push((encode_key(&cell), None));
            }
            None => {}
        }
    }
    Ok(writes)
}

fn encode_key(cell: &Cell) -> Key {
    let mut key = Key::new();
    cell.encode(&mut key);
    key
}
