//! The tables that exist: an immutable snapshot, replaced whole when a definition is applied.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use onelog_commit::{Rules, TableRules};
use onelog_record::{
    CommitRequest, Op, Record, Refusal, SYSTEM_TABLES, TABLE_TABLES, TABLE_UNIQUE, TableDefinition,
    TableId, TableKind, USER_TABLES_FROM, ValueKind, nearest_name,
};

use crate::dropped::DroppedTables;
use crate::{schema, system_writes};

/// A record of `onelog.tables` that cannot be understood: written by a newer version, or damage.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The definition is not what this version writes.
    #[error("the definition of table {key:?} cannot be read: {cause}")]
    Definition {
        /// Its key in `onelog.tables`.
        key: bytes::Bytes,
        cause: serde_json::Error,
    },
}

/// The tables at one position.
#[derive(Clone, Debug)]
pub struct Catalog {
    rules: HashMap<TableId, TableRules>,
    names: BTreeMap<String, TableId>,
    /// Deleted tables: their number still names their old records.
    dropped: DroppedTables,
    /// The number of the next table. It never falls: each number that was given out has a record for
    /// ever, of the table or of its end.
    next_id: TableId,
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new()
    }
}

impl Catalog {
    /// The system tables only.
    #[must_use]
    pub fn new() -> Self {
        let mut catalog = Self {
            rules: HashMap::new(),
            names: BTreeMap::new(),
            dropped: DroppedTables::default(),
            next_id: USER_TABLES_FROM,
        };
        for (id, name) in SYSTEM_TABLES {
            let definition = TableDefinition {
                id,
                name: name.to_owned(),
                kind: TableKind::Keyed,
                value: if id == TABLE_UNIQUE {
                    ValueKind::Bytes
                } else {
                    ValueKind::Json
                },
                schema: None,
                unique: Vec::new(),
                dropped: false,
            };
            catalog.names.insert(name.to_owned(), id);
            catalog.rules.insert(
                id,
                TableRules {
                    definition: Arc::new(definition),
                    schema: None,
                },
            );
        }
        catalog
    }

    /// Applies a record of `onelog.tables`; answers the table that it deleted.
    pub(crate) fn apply(&mut self, record: &Record) -> Result<Option<TableId>, CatalogError> {
        assert_eq!(
            record.table, TABLE_TABLES,
            "only definitions change the catalog"
        );
        let (Op::Put, Some(value)) = (record.op, &record.value) else {
            return Ok(self.forget_name(&record.key));
        };
        let definition: TableDefinition =
            serde_json::from_slice(value).map_err(|cause| CatalogError::Definition {
                key: record.key.clone(),
                cause,
            })?;
        let (id, name) = (definition.id, definition.name.clone());
        self.next_id = self.next_id.max(TableId(id.0.saturating_add(1)));
        if definition.dropped {
            self.rules.remove(&id);
            self.dropped.insert(definition);
            return Ok(Some(id));
        }
        let schema = definition.schema.as_ref().map(schema::of_table);
        self.names.insert(name, id);
        self.rules.insert(
            id,
            TableRules {
                definition: Arc::new(definition),
                schema,
            },
        );
        Ok(None)
    }

    fn forget_name(&mut self, key: &[u8]) -> Option<TableId> {
        let name = std::str::from_utf8(key).ok()?;
        let id = self.names.remove(name)?;
        self.rules.remove(&id);
        Some(id)
    }

    /// The live table of this name; system tables included.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Arc<TableDefinition>> {
        let id = self.names.get(name)?;
        self.rules.get(id).map(|rules| &rules.definition)
    }

    /// The table with this number; deleted ones included, because old records name them.
    #[must_use]
    pub fn by_id(&self, id: TableId) -> Option<&Arc<TableDefinition>> {
        let live = self.rules.get(&id).map(|rules| &rules.definition);
        live.or_else(|| self.dropped.get(id))
    }

    /// The live tables of users, by name.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableDefinition>> {
        self.names
            .values()
            .filter(|id| **id >= USER_TABLES_FROM)
            .filter_map(|id| self.rules.get(id).map(|rules| &rules.definition))
    }

    /// The name that is nearest to a mistyped one.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest_name(name, self.tables().map(|table| table.name.as_str()))
    }

    /// The number for the next table: behind every one that was ever used.
    pub(crate) const fn next_id(&self) -> TableId {
        self.next_id
    }
}

impl Rules for Catalog {
    fn table(&self, table: TableId) -> Option<&TableRules> {
        self.rules.get(&table)
    }

    fn check_system_writes(&self, request: &CommitRequest) -> Result<(), Refusal> {
        system_writes::check(self, request)
    }

    fn check_definitions(&self, request: &CommitRequest) -> Result<(), Refusal> {
        system_writes::check_definitions(request)
    }
}
