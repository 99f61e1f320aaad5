//! One server for all tests of a binary, a database of its own for each.

// Each binary of tests uses a part of it.
#![allow(dead_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use onelog_mapping::Plan;
use onelog_mysql::{MysqlStore, MysqlTarget};
use onelog_store::conformance::{Anew, Capabilities, Harness, Model};
use onelog_store::{ServerAddress, Store, StoreError, Verification};
use onelog_testkit::{Mariadb, Server};

pub fn server() -> &'static Mariadb {
    static SERVER: OnceLock<Mariadb> = OnceLock::new();
    SERVER.get_or_init(Mariadb::start)
}

/// A new, empty database.
pub struct Database {
    pub name: String,
    /// Rows are sent as MySQL gets them.
    pub many_rows: bool,
}

impl Database {
    pub fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        server().sql(&format!(
            "CREATE DATABASE {name} CHARACTER SET latin1 COLLATE latin1_swedish_ci"
        ));
        Self {
            name,
            many_rows: false,
        }
    }

    /// Runs SQL in this database by hand.
    pub fn sql(&self, statements: &str) -> String {
        server().sql(&format!("USE {}; {statements}", self.name))
    }

    pub fn target(&self) -> MysqlTarget {
        self.target_at(&server().url())
    }

    /// This database at another address of the server, or for another user.
    pub fn target_at(&self, url: &str) -> MysqlTarget {
        let (address, _) = url.rsplit_once('/').unwrap();
        MysqlTarget {
            server: ServerAddress::from(format!("{address}/{}", self.name).as_str()),
        }
    }

    pub fn store(
        &self,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<MysqlStore, StoreError> {
        let mut store = MysqlStore::open(&self.target(), sink, log_id, plan)?;
        if self.many_rows {
            store.use_many_rows();
        }
        Ok(store)
    }

    /// Does this until the server, which counts in seconds, has another time for the table.
    pub fn until_made_anew(&self, into: &str, statements: &str) {
        let made = || {
            self.sql(&format!(
                "SELECT CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{into}'"
            ))
        };
        let before = made();
        while made() == before {
            self.sql(statements);
        }
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

impl Harness for Database {
    fn open_as(&self, sink: &str, plan: Arc<Plan>, log_id: &str) -> Box<dyn Store> {
        Box::new(self.store(sink, log_id, plan).unwrap())
    }

    fn make_table_anew(&self, into: &str) -> Anew {
        self.until_made_anew(
            into,
            &format!(
                "CREATE TABLE anew LIKE {into}; DROP TABLE {into}; RENAME TABLE anew TO {into}"
            ),
        );
        Anew::Noticed
    }

    fn make_column_anew(&self, into: &str, column: &str) -> Anew {
        self.until_made_anew(
            into,
            &format!(
                "ALTER TABLE {into} DROP COLUMN {column}, ADD COLUMN {column} LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
            ),
        );
        Anew::Noticed
    }

    fn alter_note(&self, into: &str, cuts: bool) -> bool {
        let to = match cuts {
            true => "varchar(3)",
            false => "longtext",
        };
        self.sql(&format!(
            "SET sql_mode = ''; ALTER TABLE {into} MODIFY note {to} CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
        ));
        true
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            full_text: false,
            ..Capabilities::ALL
        }
    }

    fn kind(&self) -> &'static dyn onelog_store::StoreKind {
        &onelog_mysql::KIND
    }
}
