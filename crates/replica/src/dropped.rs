//! The deleted tables: their numbers still name their old records.
//!
//! Their number only grows, and each definition makes a new catalog. So they are kept in blocks
//! that catalogs share, and a new catalog copies the one block that changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use onelog_record::{TableDefinition, TableId};

/// How many numbers a block holds: what a deletion copies.
const BLOCK_TABLES: u32 = 512;

#[derive(Clone, Debug, Default)]
pub(crate) struct DroppedTables {
    blocks: BTreeMap<u32, Arc<Block>>,
}

type Block = BTreeMap<TableId, Arc<TableDefinition>>;

impl DroppedTables {
    /// Remembers a table without its schema, which nothing checks any more.
    pub(crate) fn insert(&mut self, mut definition: TableDefinition) {
        definition.schema = None;
        let block = self.blocks.entry(definition.id.0 / BLOCK_TABLES);
        let block = Arc::make_mut(block.or_default());
        block.insert(definition.id, Arc::new(definition));
    }

    pub(crate) fn get(&self, id: TableId) -> Option<&Arc<TableDefinition>> {
        self.blocks.get(&(id.0 / BLOCK_TABLES))?.get(&id)
    }
}

#[cfg(test)]
mod tests {
    use onelog_record::{TableKind, ValueKind};

    use super::*;

    fn definition(id: u32) -> TableDefinition {
        TableDefinition {
            id: TableId(id),
            name: format!("s.t{id}"),
            kind: TableKind::Keyed,
            value: ValueKind::Json,
            schema: serde_json::from_str(r#"{"type":"object"}"#).ok(),
            unique: Vec::new(),
            dropped: true,
        }
    }

    #[test]
    fn a_deletion_copies_one_block_and_shares_the_others() {
        // Given deleted tables of several blocks, and a copy of them
        let mut tables = DroppedTables::default();
        let last = BLOCK_TABLES * 3;
        (0..last).for_each(|id| tables.insert(definition(id)));
        let copy = tables.clone();

        // When one more is deleted
        tables.insert(definition(last));

        // Then the older blocks are the same memory, and only the new one names it
        let shared = |id: u32| {
            let of = |tables: &DroppedTables| Arc::as_ptr(&tables.blocks[&(id / BLOCK_TABLES)]);
            of(&tables) == of(&copy)
        };
        assert!(shared(0) && shared(BLOCK_TABLES) && shared(last - 1));
        assert!(copy.get(TableId(last)).is_none());
        let found = tables.get(TableId(last)).unwrap();
        assert_eq!((found.name.as_str(), &found.schema), ("s.t1536", &None));
    }
}
