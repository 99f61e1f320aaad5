//! Rows of a table as the columns of a plan, which may be fewer or in another order.

use onelog_mapping::{Cell, MappingPlan, Row};
use onelog_store::{Remedy, StoreError};

use crate::ddl::Table;

/// For each column of the plan, its place in the table's rows.
#[derive(Debug)]
pub(crate) struct Decoder(Vec<usize>);

impl Decoder {
    pub(crate) fn new(plan: &MappingPlan, table: &Table) -> Result<Self, StoreError> {
        let place = |name: &str| {
            let found = table.columns.iter().position(|(known, _)| known == name);
            found.ok_or_else(|| {
                let what = format!("the column '{name}' is not there");
                StoreError::mismatch(plan, what, Remedy::NameAnother)
            })
        };
        plan.column_names()
            .map(place)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn decode(&self, cells: &[Cell], row: &mut Row) {
        row.resize(self.0.len());
        for (cell, place) in row.cells.iter_mut().zip(&self.0) {
            cell.clone_from(&cells[*place]);
        }
    }
}
