//! Rebuilds: new tables grow in the sink's entry, unseen, and are put in place in one step.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_store::{Change, LogPlace, StoreError, failpoint};

use crate::bookkeeping::Owner;
use crate::connection::Contents;
use crate::ddl::{Table, check_owner};
use crate::encode::encode;
use crate::error::no_rebuild;
use crate::write::write;

pub(crate) fn begin(contents: &mut Contents, owner: &Owner, plan: &Plan) -> Result<(), StoreError> {
    let tables = plan.mappings.iter();
    let tables = tables.map(|mapping| Table::new(mapping, &owner.sink));
    owner.entry(contents)?.rebuild = Some(tables.collect());
    check_owners(contents, owner, plan)
}

pub(crate) fn load(
    contents: &mut Contents,
    owner: &Owner,
    plan: &Plan,
    mapping: usize,
    rows: &[Change],
) -> Result<(), StoreError> {
    let entry = owner.entry(contents)?;
    let tables = entry.rebuild.as_mut().ok_or_else(no_rebuild)?;
    write(&mut tables[mapping], encode(&plan.mappings[mapping], rows)?);
    Ok(())
}

pub(crate) fn finish(
    contents: &mut Contents,
    owner: &Owner,
    plan: &Plan,
    place: LogPlace,
) -> Result<(), StoreError> {
    owner.entry(contents)?;
    // Another sink may have taken a name since the rebuild began.
    check_owners(contents, owner, plan)?;
    failpoint::hit(&owner.sink, "before_swap");
    let entry = owner.entry(contents)?;
    let tables = entry.rebuild.take().ok_or_else(no_rebuild)?;
    entry.place = Some(place);
    entry.log_id.clone_from(&owner.log_id);
    entry.plan.clone_from(&owner.plan);
    // What the definition names no longer is free.
    for table in contents.tables.values_mut() {
        if table.owner.as_ref() == Some(&owner.sink) {
            Arc::make_mut(table).owner = None;
        }
    }
    for (mapping, table) in plan.mappings.iter().zip(tables) {
        contents
            .tables
            .insert(mapping.into.clone(), Arc::new(table));
    }
    Ok(())
}

fn check_owners(contents: &Contents, owner: &Owner, plan: &Plan) -> Result<(), StoreError> {
    let mut mappings = plan.mappings.iter();
    mappings.try_for_each(|mapping| check_owner(contents, mapping, &owner.sink))
}
