//! From a definition to its plan and its store.

use std::sync::Arc;

use onelog::{Catalog, Node, Position};
use onelog_mapping::{DefinitionError, Plan, Tables};
use onelog_record::{TableDefinition, TableId, TableKind, ValueKind};
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

/// The plan of a definition that is no longer followed: a table that the log has no more is one of
/// JSON.
pub(crate) fn plan_of_any_table(
    node: &Node,
    definition: &SinkDefinition,
) -> Result<Plan, DefinitionError> {
    let catalog = node.catalog();
    definition.plan(&MoreTables {
        known: LogTables(&catalog),
        more: &|name| {
            Some(TableDefinition {
                id: TableId(u32::MAX),
                name: name.to_owned(),
                kind: TableKind::Keyed,
                value: ValueKind::Json,
                schema: None,
                unique: Vec::new(),
                dropped: true,
            })
        },
    })
}

/// Checks a definition against the tables of the log and these, which are to be made.
pub(crate) fn plan_with(
    node: &Node,
    definition: &SinkDefinition,
    tables: &[TableDefinition],
) -> Result<Plan, DefinitionError> {
    let catalog = node.catalog();
    definition.plan(&MoreTables {
        known: LogTables(&catalog),
        more: &|name| tables.iter().find(|table| table.name == name).cloned(),
    })
}

/// The tables of the log, and others.
struct MoreTables<'a> {
    known: LogTables<'a>,
    more: &'a dyn Fn(&str) -> Option<TableDefinition>,
}

impl Tables for MoreTables<'_> {
    fn table(&self, name: &str) -> Option<TableDefinition> {
        self.known.table(name).or_else(|| (self.more)(name))
    }

    fn names(&self) -> Vec<String> {
        self.known.names()
    }
}

/// How many takeovers fit between the first epochs of two sinks of one name.
const TAKEOVERS_BITS: u32 = 16;
/// A store may calculate with floats, which hold whole numbers of 53 bits.
const POSITION_BITS: u32 = 36;

/// The epoch of a sink that a store does not know, taken over while the log ends here. The deletion
/// of the former sink of its name and the definition of this one are in the log since, so it is
/// above all that the former one had.
pub(crate) const fn first_epoch(end: Position) -> u64 {
    ((end.get() & ((1 << POSITION_BITS) - 1)) << TAKEOVERS_BITS) + 1
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

/// Refuses names in the store that are not the sink's to have. Of a sink that has one it is said
/// where it follows another log: no server of this one can delete it.
pub(crate) fn check_target(
    definition: &SinkDefinition,
    plan: &Arc<Plan>,
    log_id: &str,
    store: &mut dyn Store,
) -> Result<(), StoreError> {
    let Err(error) = store.check_target() else {
        return Ok(());
    };
    let StoreError::NotOwner {
        owner: Some(owner), ..
    } = &error
    else {
        return Err(error);
    };
    let theirs = definition.target.open(owner, log_id, Arc::clone(plan));
    // What is said besides is no reason to fail otherwise.
    let followed = theirs
        .and_then(|mut theirs| theirs.followed())
        .ok()
        .flatten();
    match followed.filter(|followed| followed.log_id != log_id) {
        Some(followed) => Err(error.of_sink_of_log(&followed.log_id, log_id)),
        None => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_is_made_later_begins_above_all_takeovers_of_the_former_one() {
        assert_eq!(first_epoch(Position::ZERO), 1);
        let former = first_epoch(Position(7));
        assert!(former + (1 << TAKEOVERS_BITS) - 1 < first_epoch(Position(8)));
        let last = first_epoch(Position((1 << POSITION_BITS) - 1));
        assert!(last < 1 << 53, "{last}");
    }
}
