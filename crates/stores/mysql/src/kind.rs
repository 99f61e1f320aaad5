//! What the rest of onelog knows of a MariaDB or MySQL database.

use std::sync::Arc;

use onelog_mapping::{
    ADOPT_RULE, Cell, ColumnType, DefinitionError, EXISTING_RULE, FieldRule, KeyForm, MappingRules,
    Object, Plan, RowForm, no_further_check,
};
use onelog_store::{
    Address, CA_FILE, ServerAddress, Store, StoreError, StoreKind, StoreReader, Target, URL,
};
use serde_json::{Map, Value, json};

use crate::MysqlStore;
use crate::ddl::lost::{check_backfill, followed_log, lost};
use crate::encode;
use crate::reader::{MysqlReader, count_rows};

const SCHEMES: &[&str] = &["mysql", "mariadb"];

pub static KIND: MysqlKind = MysqlKind;

static RULES: MappingRules = MappingRules {
    kind: "mysql",
    has_type: |kind| !matches!(kind, ColumnType::List(_)),
    full_text: false,
    folds_names: true,
    options: &[EXISTING_RULE, ADOPT_RULE],
    keys: KeyForm::Column,
    rows: RowForm::Columns,
    columns_by: None,
    check: no_further_check,
};

/// The kind of store `mysql`: a MariaDB or MySQL database.
#[derive(Debug)]
pub struct MysqlKind;

/// A MariaDB or MySQL database and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlTarget {
    /// `mysql://user:password@host:port/database`.
    pub server: ServerAddress,
}

impl StoreKind for MysqlKind {
    fn rules(&self) -> &'static MappingRules {
        &RULES
    }

    fn schemes(&self) -> &'static [&'static str] {
        SCHEMES
    }

    fn fields(&self) -> &'static [FieldRule] {
        &[URL, CA_FILE]
    }

    fn example(&self) -> Value {
        json!({
            "name": "shop", "kind": "mysql",
            "url": "mysql://onelog:${SHOP_PASSWORD}@db.example/shop",
            "mappings": [{
                "table": "shop.orders", "into": "orders", "existing": true,
                "columns": {
                    "id": {"from": "$key", "type": "text"},
                    "total": {"from": "/total", "type": "numeric"},
                },
            }],
        })
    }

    fn target(&self, definition: &Object<'_>) -> Result<Arc<dyn Target>, DefinitionError> {
        Ok(Arc::new(MysqlTarget {
            server: ServerAddress::read(definition, SCHEMES)?,
        }))
    }
}

impl Target for MysqlTarget {
    fn kind(&self) -> &'static dyn StoreKind {
        &KIND
    }

    fn address(&self) -> Option<&Address> {
        Some(&self.server.url)
    }

    fn place(&self) -> String {
        self.server.url.shown()
    }

    fn fields(&self, secrets: bool) -> Map<String, Value> {
        self.server.fields(secrets, None)
    }

    fn is_same_store(&self, other: &dyn Target) -> bool {
        (other as &dyn std::any::Any)
            .downcast_ref::<Self>()
            .is_some_and(|other| self.server.is_same_place(&other.server))
    }

    fn check_place(&self) -> Result<(), String> {
        self.server.check()
    }

    fn unwritable(&self, cell: &Cell) -> Option<String> {
        let value = match cell {
            Cell::Timestamp(micros) => encode::timestamp(*micros),
            Cell::Date(days) => encode::date(*days),
            _ => return None,
        };
        value.err()
    }

    fn open(
        &self,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(MysqlStore::open(self, sink, log_id, plan)?))
    }

    fn open_reader(&self, plan: &Arc<Plan>) -> Result<Box<dyn StoreReader>, StoreError> {
        Ok(Box::new(MysqlReader::of_tables(self, Arc::clone(plan))?))
    }

    fn count_rows(&self, into: &str) -> Result<Option<u64>, StoreError> {
        count_rows(self, into)
    }

    fn lost(&self, plan: &Plan, mapping: usize) -> Result<Vec<String>, StoreError> {
        lost(self, plan, mapping)
    }

    fn check_backfill(&self, sink: &str, plan: &Plan, mapping: usize) -> Result<(), StoreError> {
        check_backfill(self, sink, plan, mapping)
    }

    fn followed_log(&self, sink: &str, _log_id: &str) -> Result<Option<String>, StoreError> {
        followed_log(self, sink)
    }
}
