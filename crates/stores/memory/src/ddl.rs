//! Tables: what they are made of, whose they are, and whether they are as a plan has them.

use std::collections::BTreeMap;

use onelog_mapping::{Cell, ColumnType, MappingPlan};
use onelog_store::{Remedy, StoreError};

use crate::connection::Contents;
use crate::encode::Key;
use crate::full_text::Index;

/// One table. `owner` is the sink that made it; `None` when that sink was removed.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) owner: Option<String>,
    pub(crate) columns: Vec<(String, ColumnType)>,
    pub(crate) rows: BTreeMap<Key, Vec<Cell>>,
    pub(crate) index: Index,
}

impl Table {
    pub(crate) fn new(plan: &MappingPlan, sink: &str) -> Self {
        Self {
            owner: Some(sink.to_owned()),
            columns: columns(plan),
            rows: BTreeMap::new(),
            index: Index::new(&plan.full_text),
        }
    }

    pub(crate) fn put(&mut self, key: Key, cells: Vec<Cell>) {
        self.delete(&key);
        self.index.add(&key, &cells);
        self.rows.insert(key, cells);
    }

    pub(crate) fn delete(&mut self, key: &Key) {
        if let Some(cells) = self.rows.remove(key) {
            self.index.remove(key, &cells);
        }
    }
}

fn columns(plan: &MappingPlan) -> Vec<(String, ColumnType)> {
    let columns = plan.columns.iter();
    columns
        .map(|column| (column.name.clone(), column.kind))
        .collect()
}

pub(crate) fn check_owner(
    contents: &Contents,
    plan: &MappingPlan,
    sink: &str,
) -> Result<(), StoreError> {
    let table = contents.tables.get(&plan.into);
    match table.and_then(|table| table.owner.as_deref()) {
        Some(owner) if owner != sink => {
            let fact = format!("it belongs to the sink '{owner}'");
            Err(StoreError::owned(&plan.into, owner, fact))
        }
        _ => Ok(()),
    }
}

pub(crate) fn check_columns(contents: &Contents, plan: &MappingPlan) -> Result<(), StoreError> {
    match contents.tables.get(&plan.into) {
        Some(table) if table.columns == columns(plan) && table.index.columns == plan.full_text => {
            Ok(())
        }
        Some(_) => Err(StoreError::mismatch(
            plan,
            "its columns or its full-text index differ",
            Remedy::Rebuild,
        )),
        None => Err(StoreError::not_there(plan)),
    }
}
