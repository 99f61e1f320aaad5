//! What the rest of onelog knows of a PostgreSQL database.

use std::path::PathBuf;
use std::sync::Arc;

use onelog_mapping::{
    DefinitionError, EXISTING_RULE, FieldRule, FieldValue, KeyForm, MappingRules, Object, Plan,
    RowForm, no_further_check,
};
use onelog_store::{
    Address, CA_FILE, Store, StoreError, StoreKind, StoreReader, Target, URL, network_fields,
    read_address, read_ca_file,
};
use serde_json::{Map, Value, json};

use crate::PostgresStore;
use crate::reader::open_reader;

const SCHEMA: FieldRule = FieldRule {
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
    options: &[EXISTING_RULE],
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
    pub url: Address,
    /// The schema of the tables.
    pub schema: String,
    /// Certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
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
            url: read_address(definition, SCHEMES)?,
            schema: definition
                .optional_text(SCHEMA.name)?
                .unwrap_or(USUAL_SCHEMA)
                .to_owned(),
            ca_file: read_ca_file(definition)?,
        }))
    }
}

impl Target for PostgresTarget {
    fn kind(&self) -> &'static dyn StoreKind {
        &KIND
    }

    fn address(&self) -> Option<&Address> {
        Some(&self.url)
    }

    fn place(&self) -> String {
        format!("{} schema {}", self.url.shown(), self.schema)
    }

    fn fields(&self, secrets: bool) -> Map<String, Value> {
        let schema =
            (self.schema != USUAL_SCHEMA).then(|| (SCHEMA.name, self.schema.clone().into()));
        network_fields(&self.url, self.ca_file.as_ref(), secrets, schema)
    }

    fn is_same_store(&self, other: &dyn Target) -> bool {
        (other as &dyn std::any::Any)
            .downcast_ref::<Self>()
            .is_some_and(|other| self.url.is_same_place(&other.url) && self.schema == other.schema)
    }

    fn check_place(&self) -> Result<(), String> {
        self.url.resolve().map(drop).map_err(|error| error.what)
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
        open_reader(self, plan)
    }
}
