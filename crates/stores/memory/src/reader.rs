//! Snapshots: the tables as they were, which a later change copies instead of changing.

use std::ops::ControlFlow;
use std::sync::Arc;

use onelog_mapping::{Plan, Row};
use onelog_record::Position;
use onelog_store::{EachRow, IndexCheck, StoreError, StoreReader};

use crate::connection::Contents;
use crate::ddl::Table;
use crate::decode::Decoder;

#[derive(Debug)]
pub(crate) struct MemoryReader {
    position: Position,
    tables: Vec<(Decoder, Arc<Table>)>,
}

impl MemoryReader {
    pub(crate) fn at(
        position: Position,
        contents: &Contents,
        plan: &Plan,
    ) -> Result<Self, StoreError> {
        let mut tables = Vec::with_capacity(plan.mappings.len());
        for mapping in &plan.mappings {
            let table = contents.tables.get(&mapping.into);
            let table = table.ok_or_else(|| StoreError::not_there(mapping))?;
            tables.push((Decoder::new(mapping, table)?, Arc::clone(table)));
        }
        Ok(Self { position, tables })
    }

    /// The tables as they are, with any owner.
    pub(crate) fn of_tables(contents: &Contents, plan: &Plan) -> Result<Self, StoreError> {
        Self::at(Position::ZERO, contents, plan)
    }
}

impl StoreReader for MemoryReader {
    fn position(&self) -> Position {
        self.position
    }

    fn scan(&mut self, mapping: usize, each: EachRow<'_>) -> Result<(), StoreError> {
        let (decoder, table) = &self.tables[mapping];
        let mut row = Row::default();
        for cells in table.rows.values() {
            decoder.decode(cells, &mut row);
            if each(&row) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn check_index(
        &mut self,
        mapping: usize,
        faults_max: usize,
    ) -> Result<Option<IndexCheck>, StoreError> {
        let (_, table) = &self.tables[mapping];
        let has_index = !table.index.columns.is_empty();
        Ok(has_index.then(|| table.index.check(&table.rows, faults_max)))
    }
}
