//! What the rest of onelog knows of a PostgreSQL database.

use std::sync::Arc;

use onelog_mapping::{
    ADOPT_RULE, DefinitionError, EXISTING_RULE, FieldRule, FieldValue, KeyForm, MappingRules,
    Object, Plan, RowForm, no_further_check,
};
use onelog_store::{
    Address, CA_FILE, ServerAddress, Store, StoreError, StoreKind, StoreReader, Target, URL,
};
use serde_json::{Map, Value, json};

use crate::PostgresStore;
use crate::connection::Purpose;
use crate::ddl::backfill::{check_backfill, followed_log};
use crate::ddl::lost::lost;
use crate::reader::{count_rows, open_reader};

pub(crate) const SCHEMA: FieldRule = FieldRule {
    name: "schema",
    help: "the schema of the tables, public unless given",
    value: FieldValue::Text,
};
/// The schema in which tables are made when a definition names none.
const USUAL_SCHEMA: &str = "public";
const SCHEMES: &[&str] = &["postgres", "postgresql"];

pub static KIND: PostgresKind = PostgresKind;

static RULES: MappingRules = MappingRules {
    kind: "postgres",
    has_type: |_| true,
    full_text: false,
    folds_names: false,
    options: &[EXISTING_RULE, ADOPT_RULE],
    keys: KeyForm::Column,
    rows: RowForm::Columns,
    columns_by: None,
    check: no_further_check,
};

/// The kind of store `postgres`: a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresKind;

/// A PostgreSQL database and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresTarget {
    /// `postgres://user:password@host:port/database`.
    pub server: ServerAddress,
    /// The schema of the tables.
    pub schema: String,
}

impl StoreKind for PostgresKind {
    fn rules(&self) -> &'static MappingRules {
        &RULES
    }

    fn schemes(&self) -> &'static [&'static str] {
        SCHEMES
    }

    fn fields(&self) -> &'static [FieldRule] {
        &[URL, SCHEMA, CA_FILE]
    }

    fn example(&self) -> Value {
        json!({
            "name": "reports", "kind": "postgres",
            "url": "postgres://onelog:${REPORTS_PASSWORD}@db.example/reports", "schema": "shop",
            "on_refused": "park", "verify_every": "1h", "keep_log": "10GiB",
            "mappings": [{
                "table": "shop.orders", "into": "orders", "where": ".total > 0",
                "columns": {
                    "id": {"from": "$key", "type": "text"},
                    "order": {"from": "$value", "type": "json"},
                },
            }],
        })
    }

    fn part(&self) -> Option<&'static str> {
        Some(SCHEMA.name)
    }

    fn target(&self, definition: &Object<'_>) -> Result<Arc<dyn Target>, DefinitionError> {
        Ok(Arc::new(PostgresTarget {
            server: ServerAddress::read(definition, SCHEMES)?,
            schema: definition
                .optional_text(SCHEMA.name)?
                .unwrap_or(USUAL_SCHEMA)
                .to_owned(),
        }))
    }
}

impl Target for PostgresTarget {
    fn kind(&self) -> &'static dyn StoreKind {
        &KIND
    }

    fn address(&self) -> Option<&Address> {
        Some(&self.server.url)
    }

    fn place(&self) -> String {
        format!("{} schema {}", self.server.url.shown(), self.schema)
    }

    fn fields(&self, secrets: bool) -> Map<String, Value> {
        let schema =
            (self.schema != USUAL_SCHEMA).then(|| (SCHEMA.name, self.schema.clone().into()));
        self.server.fields(secrets, schema)
    }

    fn is_same_store(&self, other: &dyn Target) -> bool {
        (other as &dyn std::any::Any)
            .downcast_ref::<Self>()
            .is_some_and(|other| {
                self.server.is_same_place(&other.server) && self.schema == other.schema
            })
    }

    fn check_place(&self) -> Result<(), String> {
        self.server.check()
    }

    fn open(
        &self,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(PostgresStore::open(self, sink, log_id, plan)?))
    }

    fn open_reader(&self, plan: &Arc<Plan>) -> Result<Box<dyn StoreReader>, StoreError> {
        open_reader(self, plan, Purpose::Read)
    }

    fn open_reader_where_written(
        &self,
        plan: &Arc<Plan>,
    ) -> Result<Box<dyn StoreReader>, StoreError> {
        open_reader(self, plan, Purpose::Snapshot)
    }

    fn count_rows(&self, into: &str) -> Result<Option<u64>, StoreError> {
        count_rows(self, into)
    }

    fn lost(&self, plan: &Plan, mapping: usize) -> Result<Vec<String>, StoreError> {
        lost(self, &plan.mappings[mapping])
    }

    fn check_backfill(&self, sink: &str, plan: &Plan, mapping: usize) -> Result<(), StoreError> {
        check_backfill(self, sink, plan, mapping)
    }

    fn followed_log(&self, sink: &str, _log_id: &str) -> Result<Option<String>, StoreError> {
        followed_log(self, sink)
    }
}
