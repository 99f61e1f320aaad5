//! PostgreSQL under test.

use std::time::Duration;

use onelog_testkit::{Postgres, Proxy, Server};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::rig::{Auditor, LEFT, RIGHT, Rig};

pub struct PostgresRig {
    server: Postgres,
    proxy: Proxy,
}

impl PostgresRig {
    pub fn start() -> Self {
        let server = Postgres::start_with(&["fsync=on"]);
        let proxy = Proxy::in_front_of(&server);
        Self { server, proxy }
    }
}

impl Rig for PostgresRig {
    fn server(&self) -> &dyn Server {
        &self.server
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn target(&self) -> Value {
        json!({"kind": "postgres", "url": self.proxy.url_of(&self.server.url())})
    }

    fn commit(&self) -> &[u8] {
        b"COMMIT"
    }

    fn note_writes(&self) {
        self.server.sql(&format!(
            "CREATE TABLE writes (tab text, key text, version bigint, PRIMARY KEY (tab, key, version));
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO writes VALUES (TG_TABLE_NAME, NEW.id, NEW.at); RETURN NULL; END $$;
             CREATE TRIGGER note AFTER INSERT OR UPDATE ON {LEFT} FOR EACH ROW EXECUTE FUNCTION note();
             CREATE TRIGGER note AFTER INSERT OR UPDATE ON {RIGHT} FOR EACH ROW EXECUTE FUNCTION note();"
        ));
    }

    fn forget_writes(&self) {
        self.server.sql("DELETE FROM writes;");
    }

    fn connect(&self) -> Option<Box<dyn Auditor>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let url = self.server.url();
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
                .await
                .map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            Ok(client)
        });
        Some(Box::new(PostgresAuditor { runtime, client }))
    }

    fn refuse_writes(&self) {
        self.server.sql(&format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'no more accounts today' USING ERRCODE = 'check_violation'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {RIGHT} FOR EACH ROW EXECUTE FUNCTION refuse();"
        ));
    }

    fn allow_writes(&self) {
        self.server.sql(&format!("DROP TRIGGER refuse ON {RIGHT};"));
    }
}

struct PostgresAuditor {
    runtime: Runtime,
    client: Result<tokio_postgres::Client, String>,
}

impl Auditor for PostgresAuditor {
    fn sum(&mut self) -> Result<i64, String> {
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let sql = format!(
            "SELECT ((SELECT sum(balance) FROM {LEFT}) + (SELECT sum(balance) FROM {RIGHT}))::bigint"
        );
        let query = async {
            tokio::time::timeout(Duration::from_secs(5), client.query_one(&sql, &[])).await
        };
        let row = self
            .runtime
            .block_on(query)
            .map_err(|error| error.to_string())?;
        row.map(|row| row.get(0)).map_err(|error| error.to_string())
    }
}
