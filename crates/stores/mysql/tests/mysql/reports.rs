//! What is reported of tables, databases and servers that are not there.

use std::ops::ControlFlow;

use onelog_mysql::{MysqlStore, MysqlTarget};
use onelog_store::conformance::{LOG, SINK, backfilled, standard_plan};
use onelog_store::{ServerAddress, StoreError, Target as _};
use onelog_testkit::{Kind, Server as _, require};

use crate::harness::{Database, server};

#[test]
fn a_table_that_was_dropped_is_named_as_the_mapping_names_it() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = standard_plan(&database);
    let (mut store, _) = backfilled(&database, &plan);
    database.sql("DROP TABLE orders");
    let mut reader = store.reader().unwrap();
    let scanned = reader.scan(0, &mut |_| ControlFlow::Continue(()));
    let text = scanned.unwrap_err().to_string();
    assert!(
        text.contains("'orders'") && text.contains("dropped or renamed"),
        "{text}"
    );
    assert!(!text.contains("onelog_old"), "{text}");
}

#[test]
fn a_table_of_nobody_that_is_not_there_is_not_said_to_be_gone() {
    require!(Kind::Mariadb);
    // Given a database that no sink writes to
    let database = Database::new();
    let target = database.target();
    // when a table of it is to be read that was never there, then that is all that is said.
    let mut reader = target.open_reader(&standard_plan(&database)).unwrap();
    let scanned = reader.scan(0, &mut |_| ControlFlow::Continue(()));
    let text = scanned.unwrap_err().to_string();
    assert!(
        text.contains("'orders'") && text.contains("there is no such table in this database"),
        "{text}"
    );
    assert!(!text.contains("rebuild"), "{text}");
}

#[test]
fn a_column_that_a_table_of_nobody_lacks_is_named_with_those_that_it_has() {
    require!(Kind::Mariadb);
    // Given a table of another program
    let database = Database::new();
    database.sql("CREATE TABLE orders (ident int PRIMARY KEY, Total int, note text)");
    let target = database.target();
    // when it is to be read by a key that it does not have, then its columns are listed.
    let mut reader = target.open_reader(&standard_plan(&database)).unwrap();
    let scanned = reader.scan(0, &mut |_| ControlFlow::Continue(()));
    let text = scanned.unwrap_err().to_string();
    let listed = "it has no column 'id'; its columns are ident, Total, note";
    assert!(text.contains("'orders'") && text.contains(listed), "{text}");
}

#[test]
fn a_database_that_is_not_there_is_a_fault_of_the_address() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let url = server().url();
    let (address, _) = url.rsplit_once('/').unwrap();
    let target = MysqlTarget {
        server: ServerAddress::from(format!("{address}/missing").as_str()),
    };
    let error = MysqlStore::open(&target, SINK, LOG, standard_plan(&database)).unwrap_err();
    assert!(
        matches!(error, StoreError::NoSuchPlace { field: "url", .. }),
        "{error}"
    );
}

#[test]
fn an_outage_is_reported_once_and_not_by_the_layers_of_the_driver() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let url = server()
        .url()
        .replace(&format!(":{}/", server().port()), ":1/");
    let target = MysqlTarget {
        server: ServerAddress::from(url.as_str()),
    };
    let error = MysqlStore::open(&target, SINK, LOG, standard_plan(&database)).unwrap_err();
    let text = error.to_string();
    assert!(!text.contains("Input/output error"), "{text}");
    assert_eq!(text.matches("refused").count(), 1, "{text}");
}
