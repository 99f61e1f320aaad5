//! From a definition to its plan and its store.

use std::sync::Arc;

use onelog::{Catalog, Node};
use onelog_mapping::{DefinitionError, Plan, Tables};
use onelog_record::TableDefinition;
use onelog_store::{SinkDefinition, Store, StoreError};

/// The tables of the log, as a plan looks them up.
struct LogTables<'a>(&'a Catalog);

impl Tables for LogTables<'_> {
    fn table(&self, name: &str) -> Option<TableDefinition> {
        let found = self.0.tables().find(|table| table.name == name);
        found.map(|table| TableDefinition::clone(table))
    }

    fn names(&self) -> Vec<String> {
        self.0.tables().map(|table| table.name.clone()).collect()
    }
}

/// Checks a definition against the tables that the log has now.
pub(crate) fn plan_of(node: &Node, definition: &SinkDefinition) -> Result<Plan, DefinitionError> {
    definition.plan(&LogTables(&node.catalog()))
}

/// Opens the store of a definition for the sink of that name.
pub(crate) fn open_store(
    definition: &SinkDefinition,
    plan: &Arc<Plan>,
    log_id: &str,
) -> Result<Box<dyn Store>, StoreError> {
    let plan = Arc::clone(plan);
    definition.target.open(&definition.name, log_id, plan)
}
