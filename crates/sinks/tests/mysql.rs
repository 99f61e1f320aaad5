//! MariaDB against the contract of every store, and what is its own: whose tables are whose,
//! tables that were there before, unique and foreign keys, planted damage, swaps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "mysql/harness.rs"]
mod harness;
#[path = "mysql/swaps.rs"]
mod swaps;
#[path = "mysql/tables.rs"]
mod tables;
#[path = "mysql/values.rs"]
mod values;

use onelog_sinks::conformance;
use onelog_testkit::{Kind, require};

use self::harness::Database;

#[test]
fn mariadb_keeps_the_contract_of_every_store() {
    require!(Kind::Mariadb);
    conformance::all(&|| Box::new(Database::new()));
}

#[test]
fn statements_with_many_rows_keep_it_as_well() {
    require!(Kind::Mariadb);
    conformance::all(&|| {
        let mut database = Database::new();
        database.many_rows = true;
        Box::new(database)
    });
}
