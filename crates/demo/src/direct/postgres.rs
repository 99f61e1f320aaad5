//! PostgreSQL: a table of two columns.

use std::collections::BTreeSet;

use onelog_store::{Trust, tls_config};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, Error, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Contents, Direct, StoreClient, runtime, taken};
use crate::error::DemoError;

/// Tables in the schema in which tables are made, with onelog in their names.
const TRACES: &str = "SELECT table_name FROM information_schema.tables
  WHERE table_schema = current_schema() AND table_name LIKE '%onelog%'";

/// Which table onelog made; it remembers a table beyond its sink.
const OWNERS: &str = "onelog_tables";

pub const CLIENT: StoreClient = StoreClient {
    kind: "postgres",
    help: "Run the race on this PostgreSQL, postgres://user@host/database",
    connect: |url, shown| Ok(Box::new(Postgres::connect(url, shown)?)),
};

pub struct Postgres {
    runtime: Runtime,
    client: Client,
    shown: String,
    put: Option<Statement>,
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Postgres {
    pub fn connect(url: &str, shown: &str) -> Result<Self, DemoError> {
        let runtime = runtime()?;
        let tls = tls_config(Trust::System)
            .map_err(|why| DemoError::Failed(format!("{shown}: {why}")))?;
        let tls = MakeRustlsConnect::new(tls);
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, tls).await?;
            tokio::spawn(connection);
            Ok(client)
        });
        Ok(Self {
            client: client.map_err(|error| failed(shown, &error))?,
            runtime,
            shown: shown.to_owned(),
            put: None,
        })
    }

    fn names(&self) -> Result<BTreeSet<String>, Error> {
        let rows = self.runtime.block_on(self.client.query(TRACES, &[]))?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    fn run(&self, sql: &str) -> Result<(), Error> {
        self.runtime.block_on(self.client.batch_execute(sql))
    }
}

/// The server's message is the source of the driver's error.
fn failed(shown: &str, error: &Error) -> DemoError {
    let message = match error.as_db_error() {
        Some(error) => error.to_string(),
        None => std::error::Error::source(error)
            .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
    };
    DemoError::Failed(format!("{shown}: {message}"))
}

impl Direct for Postgres {
    fn create(&mut self, place: &str) -> Result<(), DemoError> {
        let names = self.names().map_err(|e| failed(&self.shown, &e))?;
        if names.contains(place) {
            return Err(taken(place, &self.shown));
        }
        self.run(&format!(
            "CREATE TABLE {} (id text PRIMARY KEY, text text)",
            quote(place)
        ))
        .map_err(|e| failed(&self.shown, &e))
    }

    fn put(&mut self, place: &str, key: &str, text: &str) -> Result<(), DemoError> {
        let Self {
            runtime,
            client,
            put,
            shown,
        } = self;
        let written = runtime.block_on(async {
            let statement = match put {
                Some(statement) => statement,
                None => put.insert(
                    client
                        .prepare(&format!(
                            "INSERT INTO {} (id, text) VALUES ($1, $2)
                             ON CONFLICT (id) DO UPDATE SET text = excluded.text",
                            quote(place)
                        ))
                        .await?,
                ),
            };
            client.execute(statement, &[&key, &text]).await
        });
        written.map(|_| ()).map_err(|e| failed(shown, &e))
    }

    fn contents(&mut self, place: &str) -> Result<Contents, DemoError> {
        let sql = format!("SELECT id, text FROM {}", quote(place));
        let rows = self.runtime.block_on(self.client.query(&sql, &[]));
        let read = rows.and_then(|rows| {
            rows.iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect()
        });
        read.map_err(|e| failed(&self.shown, &e))
    }

    fn traces(&mut self) -> Result<BTreeSet<String>, DemoError> {
        self.names().map_err(|e| failed(&self.shown, &e))
    }

    fn clean(&mut self, run: &str, before: &BTreeSet<String>) -> Result<(), DemoError> {
        let clean = || -> Result<(), Error> {
            let names = self.names()?;
            if names.contains(OWNERS) {
                let sql = format!("DELETE FROM {} WHERE strpos(name, $1) > 0", quote(OWNERS));
                self.runtime.block_on(self.client.execute(&sql, &[&run]))?;
            }
            for name in names.iter().filter(|name| !before.contains(*name)) {
                let table = quote(name);
                let query = format!("SELECT EXISTS (SELECT 1 FROM {table})");
                let unused = name.contains(run) || {
                    let row = self.runtime.block_on(self.client.query_one(&query, &[]))?;
                    !row.try_get::<_, bool>(0)?
                };
                if unused {
                    self.run(&format!("DROP TABLE {table}"))?;
                }
            }
            Ok(())
        };
        clean().map_err(|e| failed(&self.shown, &e))
    }
}
