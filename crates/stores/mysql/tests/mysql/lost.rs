//! What a backfill drops with the table that it replaces, and what it does not.

use onelog_store::Target as _;
use onelog_store::conformance::{SINK, backfilled, standard_plan};
use onelog_testkit::{Kind, require};

use crate::harness::Database;

#[test]
fn what_users_have_added_to_a_table_is_named_and_a_backfill_drops_just_that() {
    require!(Kind::Mariadb);
    // Given a table of onelog's to which a user has added something,
    let database = Database::new();
    let plan = standard_plan(&database);
    let target = database.target();
    assert_eq!(target.lost(&plan, 0).unwrap(), [""; 0]);
    let (mut store, model) = backfilled(&database, &plan);
    assert_eq!(target.lost(&plan, 0).unwrap(), [""; 0]);
    database.sql(
        "CREATE TABLE sizes (total BIGINT PRIMARY KEY); CREATE TABLE seen (id TEXT);
         INSERT INTO sizes SELECT DISTINCT total FROM orders WHERE total IS NOT NULL;
         ALTER TABLE orders ADD CONSTRAINT small CHECK (total < 100000),
           ADD CONSTRAINT sized FOREIGN KEY (total) REFERENCES sizes (total),
           ALTER COLUMN total SET DEFAULT 7;
         ALTER TABLE orders MODIFY note LONGTEXT CHARACTER SET utf8mb4
           COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'by hand',
           ADD remark TEXT, ADD twice BIGINT AS (total * 2) STORED, ADD hidden INT INVISIBLE;
         CREATE INDEX by_note ON orders (note(20));
         CREATE TRIGGER watch AFTER DELETE ON orders FOR EACH ROW INSERT INTO seen VALUES (OLD.id);
         CREATE VIEW totals AS SELECT total FROM orders",
    );
    let user = format!("lost_{}", database.name);
    database.sql(&format!(
        "CREATE USER {user}@'%'; GRANT SELECT ON orders TO {user}@'%'; GRANT UPDATE (note) ON orders TO {user}@'%'"
    ));
    let rights = format!("SHOW GRANTS FOR {user}@'%'");
    let granted = database.sql(&rights);
    // then all of it is named, and the table itself can be replaced;
    let added = [
        "the column 'remark'",
        "the column 'twice'",
        "the column 'hidden'",
        "the comment of the column 'note'",
        "the constraint 'sized'",
        "the constraint 'small'",
        "the default of the column 'total'",
        "the index 'by_note'",
        "the index 'sized'",
        "the NOT NULL of the column 'note'",
        "the trigger 'watch'",
    ];
    assert_eq!(target.lost(&plan, 0).unwrap(), added);
    target.check_backfill(SINK, &plan, 0).unwrap();
    // and a backfill drops it, and keeps what goes by the name of the table.
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert_eq!(target.lost(&plan, 0).unwrap(), [""; 0]);
    assert_eq!(database.sql(&rights), granted);
    let rows = database.sql("SELECT COUNT(*) FROM orders");
    assert_eq!(database.sql("SELECT COUNT(*) FROM totals"), rows);
    // A key of another table onto it is said before the backfill would be refused for it.
    database.sql(
        "CREATE TABLE notes (id VARCHAR(768) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin,
           CONSTRAINT of_order FOREIGN KEY (id) REFERENCES orders (id))",
    );
    let foretold = target.check_backfill(SINK, &plan, 0).unwrap_err();
    let refused = model.rebuild(&plan, store.as_mut()).unwrap_err();
    assert_eq!(foretold.to_string(), refused.to_string());
    assert!(refused.to_string().contains("'of_order'"), "{refused}");
}
