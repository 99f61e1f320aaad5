//! One server for all tests of a binary, and a schema of its own for each store.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use onelog_mapping::Plan;
use onelog_store::conformance::{Anew, Capabilities, Harness, Model, SINK};
use onelog_store::{SinkDefinition, Store, StoreError, Verification};
use onelog_testkit::{Postgres, Server as _};

static KINDS: onelog_store::Kinds = onelog_store::Kinds::new(&[&onelog_postgres::KIND]);

pub struct Pg {
    pub schema: String,
    kind: String,
}

pub fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(Postgres::start)
}

impl Pg {
    /// An empty schema on the shared server.
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let schema = format!("Schema \"{}\"", NUMBER.fetch_add(1, Ordering::Relaxed));
        let store = Self::at(&server().url(), &schema);
        server().sql(&format!("CREATE SCHEMA {}", store.quoted()));
        store
    }

    /// A schema that is there, by this address.
    pub fn at(url: &str, schema: &str) -> Self {
        let kind = format!(
            r#""kind":"postgres","url":{},"schema":{}"#,
            serde_json::json!(url),
            serde_json::json!(schema)
        );
        Self {
            schema: schema.to_owned(),
            kind,
        }
    }

    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.schema.replace('"', "\"\""))
    }

    /// Runs statements by hand; names without a schema are this one's.
    pub fn sql(&self, statements: &str) -> String {
        server().sql(&format!(
            "SET search_path = {}; {statements}",
            self.quoted()
        ))
    }

    /// A role that may log in and nothing else.
    pub fn new_role(&self, name: &str) -> String {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let role = format!("{name}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.sql(&format!("CREATE ROLE {role} LOGIN"));
        role
    }

    /// The same schema, entered by another role.
    pub fn as_user(&self, role: &str) -> Self {
        let url = server().url().replacen("onelog@", &format!("{role}@"), 1);
        Self::at(&url, &self.schema)
    }

    pub fn definition(&self, sink: &str) -> SinkDefinition {
        let text = format!(
            r#"{{"name":"{sink}",{},"mappings":[{{"table":"shop.orders","into":"orders"}}]}}"#,
            self.kind
        );
        SinkDefinition::from_slice(KINDS, text.as_bytes()).unwrap()
    }

    pub fn try_open(&self, plan: &Arc<Plan>, log_id: &str) -> Result<Box<dyn Store>, StoreError> {
        self.open_as(SINK, plan, log_id)
    }

    pub fn open_as(
        &self,
        sink: &str,
        plan: &Arc<Plan>,
        log_id: &str,
    ) -> Result<Box<dyn Store>, StoreError> {
        self.definition(sink)
            .target
            .open(sink, log_id, Arc::clone(plan))
    }

    pub fn by_hand(
        &self,
        model: &Model,
        store: &mut dyn Store,
        plan: &Plan,
        sql: &str,
    ) -> Verification {
        self.sql(sql);
        model.verify(plan, store)
    }
}

impl Harness for Pg {
    fn open_as(&self, sink: &str, plan: Arc<Plan>, log_id: &str) -> Box<dyn Store> {
        Self::open_as(self, sink, &plan, log_id).unwrap()
    }

    fn make_table_anew(&self, into: &str) -> Anew {
        self.sql(&format!(
            "CREATE TABLE anew (LIKE {into} INCLUDING ALL); DROP TABLE {into}; ALTER TABLE anew RENAME TO {into}"
        ));
        Anew::Noticed
    }

    fn make_column_anew(&self, into: &str, column: &str) -> Anew {
        self.sql(&format!(
            "ALTER TABLE {into} DROP COLUMN {column}, ADD COLUMN {column} text"
        ));
        Anew::Noticed
    }

    fn alter_note(&self, into: &str, cuts: bool) -> bool {
        let to = match cuts {
            true => "varchar(3) USING left(note, 3)",
            false => "text",
        };
        self.sql(&format!("ALTER TABLE {into} ALTER note TYPE {to}"));
        true
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            full_text: false,
            nul_in_text: false,
            ..Capabilities::ALL
        }
    }

    fn kind(&self) -> &'static dyn onelog_store::StoreKind {
        &onelog_postgres::KIND
    }
}
