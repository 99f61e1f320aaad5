//! MariaDB or MySQL: a table of two columns.

use std::collections::BTreeSet;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts};
use tokio::runtime::Runtime;

use super::{Contents, Direct, StoreClient, runtime, taken};
use crate::error::DemoError;

const TRACES: &str = "SELECT table_name FROM information_schema.tables
  WHERE table_schema = DATABASE() AND table_name LIKE '%onelog%'";

pub const CLIENT: StoreClient = StoreClient {
    kind: "mysql",
    help: "On this MariaDB or MySQL, mysql://user@host/database",
    connect: |url, shown| Ok(Box::new(Mysql::connect(url, shown)?)),
};

pub struct Mysql {
    runtime: Runtime,
    conn: Conn,
    shown: String,
}

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn failed(shown: &str, error: &Error) -> DemoError {
    DemoError::Failed(format!("{shown}: {error}"))
}

impl Mysql {
    pub fn connect(url: &str, shown: &str) -> Result<Self, DemoError> {
        // Both names mean the same protocol; the driver knows one.
        let url = match url.strip_prefix("mariadb://") {
            Some(rest) => format!("mysql://{rest}"),
            None => url.to_owned(),
        };
        let options = Opts::from_url(&url)
            .map_err(|_| DemoError::Usage(format!("{shown} is not an address of MySQL")))?;
        let runtime = runtime()?;
        let conn = runtime
            .block_on(Conn::new(options))
            .map_err(|error| failed(shown, &error))?;
        Ok(Self {
            runtime,
            conn,
            shown: shown.to_owned(),
        })
    }

    fn names(&mut self) -> Result<BTreeSet<String>, Error> {
        let names: Vec<String> = self.runtime.block_on(self.conn.query(TRACES))?;
        Ok(names.into_iter().collect())
    }
}

impl Direct for Mysql {
    fn create(&mut self, place: &str) -> Result<(), DemoError> {
        let names = self.names().map_err(|e| failed(&self.shown, &e))?;
        if names.contains(place) {
            return Err(taken(place, &self.shown));
        }
        let sql = format!(
            "CREATE TABLE {} (id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY, text TEXT CHARACTER SET utf8mb4) ENGINE = InnoDB",
            quote(place)
        );
        self.runtime
            .block_on(self.conn.query_drop(sql))
            .map_err(|e| failed(&self.shown, &e))
    }

    fn put(&mut self, place: &str, key: &str, text: &str) -> Result<(), DemoError> {
        let sql = format!(
            "INSERT INTO {} (id, text) VALUES (?, ?) ON DUPLICATE KEY UPDATE text = VALUES(text)",
            quote(place)
        );
        self.runtime
            .block_on(self.conn.exec_drop(sql, (key, text)))
            .map_err(|e| failed(&self.shown, &e))
    }

    fn contents(&mut self, place: &str) -> Result<Contents, DemoError> {
        let sql = format!("SELECT id, text FROM {}", quote(place));
        let rows: Result<Vec<(String, String)>, Error> =
            self.runtime.block_on(self.conn.query(sql));
        let rows = rows.map_err(|e| failed(&self.shown, &e))?;
        Ok(rows.into_iter().collect())
    }

    fn traces(&mut self) -> Result<BTreeSet<String>, DemoError> {
        self.names().map_err(|e| failed(&self.shown, &e))
    }

    fn clean(&mut self, run: &str, before: &BTreeSet<String>) -> Result<(), DemoError> {
        let mut clean = || -> Result<(), Error> {
            let names = self.names()?;
            for name in names.iter().filter(|name| !before.contains(*name)) {
                let table = quote(name);
                let query = format!("SELECT EXISTS (SELECT 1 FROM {table})");
                let unused = name.contains(run) || {
                    let found: Option<u8> = self.runtime.block_on(self.conn.query_first(query))?;
                    found == Some(0)
                };
                if unused {
                    let sql = format!("DROP TABLE {table}");
                    self.runtime.block_on(self.conn.query_drop(sql))?;
                }
            }
            Ok(())
        };
        clean().map_err(|e| failed(&self.shown, &e))
    }
}
