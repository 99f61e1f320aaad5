//! MariaDB against the contract of every store, and what is its own: whose tables are whose,
//! tables that were there before, unique and foreign keys, planted damage, swaps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "mysql/harness.rs"]
mod harness;
#[path = "mysql/kept.rs"]
mod kept;
#[path = "mysql/redefined.rs"]
mod redefined;
#[path = "mysql/refused.rs"]
mod refused;
#[path = "mysql/reports.rs"]
mod reports;
#[path = "mysql/swaps.rs"]
mod swaps;
#[path = "mysql/tables.rs"]
mod tables;
#[path = "mysql/values.rs"]
mod values;

use onelog_store::conformance;
use onelog_testkit::{Kind, require};

use self::harness::Database;

/// One after the other, because both set the same failpoints.
#[test]
fn mariadb_keeps_the_contract_of_every_store_however_rows_are_sent() {
    require!(Kind::Mariadb);
    for many_rows in [false, true] {
        conformance::all(&|| {
            Box::new(Database {
                many_rows,
                ..Database::new()
            })
        });
    }
}
