//! Foreign keys of tables that the sink's user has no rights on, onto tables that onelog makes.

use onelog_mysql::{MysqlStore, MysqlTarget};
use onelog_store::conformance::{LOG, Model, ORDERS, standard_plan};
use onelog_store::{Store as _, StoreError, Target as _, failpoint};
use onelog_testkit::{Kind, Server as _, require};

use crate::harness::{Database, server};

/// No other test waits at its places.
const SINK: &str = "blind";

const KEY: &str = "VARCHAR(768) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin";

/// The database for a user with the rights that a sink needs, and no others.
fn blind(database: &Database) -> MysqlTarget {
    let (name, user) = (&database.name, format!("blind_{}", database.name));
    database.sql(&format!(
        "CREATE USER {user}@localhost IDENTIFIED BY 'pw';
         GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, CREATE TEMPORARY TABLES, TRIGGER
         ON {name}.* TO {user}@localhost"
    ));
    let url = server().url();
    database.target_at(&url.replace("onelog:onelog@", &format!("{user}:pw@")))
}

#[test]
fn a_key_of_a_table_that_its_user_cannot_see_keeps_a_rebuild_from_replacing_a_table() {
    require!(Kind::Mariadb);
    // Given a sink's table, and one of another database that refers to it,
    let (database, other) = (Database::new(), Database::new());
    let target = blind(&database);
    let plan = standard_plan(&database);
    let mut store = MysqlStore::open(&target, SINK, LOG, plan.clone()).unwrap();
    store.take_over().unwrap();
    let mut model = Model::default();
    model.order("a", 1, "one");
    model.rebuild(&plan, &mut store).unwrap();
    let refer = format!(
        "CREATE TABLE mine (id {KEY}, CONSTRAINT hidden FOREIGN KEY (id) REFERENCES {}.orders (id)
           ON DELETE CASCADE);
         INSERT INTO mine VALUES ('a')",
        database.name
    );
    other.sql(&refer);
    let refers = || {
        let made = other.sql("SHOW CREATE TABLE mine");
        made.contains(&format!("REFERENCES `{}`.`orders`", database.name))
    };
    assert!(refers());
    // when it is rebuilt, then it is refused, as a dry run says,
    let begun = store.begin_rebuild().unwrap_err();
    let foretold = target.check_backfill(SINK, &plan, 0).unwrap_err();
    assert_eq!(begun.to_string(), foretold.to_string());
    let hidden = "a foreign key of a table that this user may not see refers to it";
    assert!(begun.to_string().contains(hidden), "{begun}");
    // and named to a user who may see it.
    let named = database
        .target()
        .check_backfill(SINK, &plan, 0)
        .unwrap_err();
    assert!(named.to_string().contains("hidden"), "{named}");
    // The sink goes on, and the key is as it was.
    let from = model.position();
    model.order("a", 2, "two");
    store.apply(&model.batch(&plan, from)).unwrap();
    assert!(model.verify(&plan, &mut store).equal);
    assert_eq!(other.sql("SELECT count(*) FROM mine"), "1");
    assert!(refers());
    // When the key comes while the tables are exchanged, then they are exchanged back.
    other.sql("DROP TABLE mine");
    let (name, comes) = (other.name.clone(), refer.clone());
    failpoint::set(&format!("{SINK}:before_swap"), move || {
        server().sql(&format!("USE {name}; {comes}"));
    });
    let undone = model.rebuild(&plan, &mut store).unwrap_err();
    failpoint::clear(&format!("{SINK}:before_swap"));
    assert!(undone.to_string().contains(hidden), "{undone}");
    assert!(refers());
    assert!(model.verify(&plan, &mut store).equal);
    // When a row is deleted from the log, then the key does what it says.
    let from = model.position();
    model.write(ORDERS, b"a", None);
    store.apply(&model.batch(&plan, from)).unwrap();
    assert_eq!(other.sql("SELECT count(*) FROM mine"), "0");
    // When it is gone, then the table is rebuilt.
    other.sql("DROP TABLE mine");
    model.rebuild(&plan, &mut store).unwrap();
    assert!(model.verify(&plan, &mut store).equal);
    assert_eq!(database.sql("SHOW TABLES LIKE 'onelog\\_old%'"), "");
}

#[test]
fn a_key_of_the_table_itself_is_told_from_one_that_refers_to_it_where_the_user_may_know() {
    require!(Kind::Mariadb);
    // Given a sink's table to which a user has given a key of its own,
    let database = Database::new();
    let target = blind(&database);
    let plan = standard_plan(&database);
    let mut store = MysqlStore::open(&target, "sized", LOG, plan.clone()).unwrap();
    store.take_over().unwrap();
    let mut model = Model::default();
    model.order("a", 1, "one");
    model.rebuild(&plan, &mut store).unwrap();
    database.sql(
        "CREATE TABLE sizes (total BIGINT PRIMARY KEY); INSERT INTO sizes VALUES (1);
         ALTER TABLE orders ADD CONSTRAINT sized FOREIGN KEY (total) REFERENCES sizes (total)",
    );
    // when it is rebuilt, then a user who cannot see all keys is asked to drop it,
    let refused = store.begin_rebuild().unwrap_err();
    assert!(
        matches!(refused, StoreError::SchemaMismatch { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("drop 'sized'"), "{refused}");
    // and one who can is not.
    target.check_backfill("sized", &plan, 0).unwrap_err();
    database.target().check_backfill("sized", &plan, 0).unwrap();
    database.sql("ALTER TABLE orders DROP FOREIGN KEY sized");
    model.rebuild(&plan, &mut store).unwrap();
    assert!(model.verify(&plan, &mut store).equal);
}
