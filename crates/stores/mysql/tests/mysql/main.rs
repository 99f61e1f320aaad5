//! MariaDB against the contract of every store, and what is its own: whose tables are whose,
//! tables that were there before, unique and foreign keys, planted damage, swaps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod harness;
mod hidden;
mod kept;
mod kinds;
mod lost;
mod marks;
mod redefined;
mod refused;
mod reports;
mod swaps;
mod tables;
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
