//! Batches: rows and position change under one lock.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_store::{Batch, StoreError, failpoint};

use crate::bookkeeping::Owner;
use crate::connection::Contents;
use crate::ddl::{Table, check_columns};
use crate::encode::{Write, encode};

pub(crate) fn apply(
    contents: &mut Contents,
    owner: &Owner,
    plan: &Plan,
    batch: &Batch,
) -> Result<(), StoreError> {
    owner.check_position(contents, batch.from)?;
    let mut writes = Vec::with_capacity(plan.mappings.len());
    for (mapping, changes) in plan.mappings.iter().zip(&batch.changes) {
        check_columns(contents, mapping)?;
        writes.push((&mapping.into, encode(mapping, changes)?));
    }
    failpoint::hit(&owner.sink, "before_commit");
    // Nothing fails from here on.
    for (into, writes) in writes {
        if let Some(table) = contents.tables.get_mut(into) {
            write(Arc::make_mut(table), writes);
        }
    }
    owner.entry(contents)?.place = Some(batch.place());
    Ok(())
}

pub(crate) fn write(table: &mut Table, writes: Vec<Write>) {
    for (key, cells) in writes {
        match cells {
            Some(cells) => table.put(key, cells),
            None => table.delete(&key),
        }
    }
}
