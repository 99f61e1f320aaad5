//! What a dry run says in advance of a store.

use std::sync::Arc;

use onelog_store::StoreError;
use onelog_store::conformance::{self, Harness as _, LOG, SINK, backfilled, standard_plan};
use onelog_testkit::{Kind, require};

use super::harness::Pg;

#[test]
fn what_users_have_added_to_a_table_is_named_where_another_one_takes_its_place() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let plan = standard_plan(&pg);
    let target = pg.definition("dry").target;
    assert_eq!(target.lost(&plan, 0).unwrap(), [""; 0]);
    let (store, _) = backfilled(&pg, &plan);
    drop(store);
    // Given a table of onelog's to which a user has added something,
    pg.sql(
        "ALTER TABLE orders ADD COLUMN mood text, ADD CONSTRAINT small CHECK (total < 1000);
         ALTER TABLE orders ALTER COLUMN note SET DEFAULT 'none', ALTER COLUMN note SET NOT NULL,
           REPLICA IDENTITY FULL;
         CREATE SEQUENCE numbers OWNED BY orders.total; CREATE INDEX by_note ON orders (note);
         CREATE STATISTICS pairs ON total, note FROM orders;
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER watch BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION nothing();
         CREATE RULE hush AS ON INSERT TO orders DO INSTEAD NOTHING;
         ALTER TABLE orders DISABLE RULE hush",
    );
    // then a mapping that the table fits drops nothing, and one that needs another table all of it;
    let mapping = |columns: &str| {
        let mapping = r#"{"table":"shop.orders","into":"orders","columns":"#;
        conformance::plan(&pg, &format!("{mapping}{columns}}}"))
    };
    let fitting = mapping(r#"{"id":{"from":"$key","type":"text"}}"#);
    assert_eq!(target.lost(&fitting, 0).unwrap(), [""; 0]);
    let other =
        mapping(r#"{"id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"text"}}"#);
    let added = [
        "the column 'mood'",
        "the NOT NULL of the column 'note'",
        "the constraint 'small'",
        "the default of the column 'note'",
        "the index 'by_note'",
        "the replica identity 'FULL'",
        "the rule 'hush'",
        "the sequence 'numbers'",
        "the statistics 'pairs'",
        "the trigger 'watch'",
    ];
    assert_eq!(target.lost(&other, 0).unwrap(), added);
    // and a table that onelog did not make stays as it is.
    pg.sql("UPDATE onelog_tables SET made = false");
    assert_eq!(target.lost(&other, 0).unwrap(), [""; 0]);
}

#[test]
fn rights_that_a_backfill_lacks_are_named_with_what_gives_them() {
    require!(Kind::Postgres);
    // Given a table that a sink has made, and a mapping that needs another one in its place,
    let pg = Pg::new();
    let plan = standard_plan(&pg);
    let user = pg.new_role("mere");
    let schema = pg.quoted();
    pg.sql(&format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}"));
    let (store, model) = backfilled(&pg, &plan);
    drop(store);
    pg.sql(&format!(
        "GRANT SELECT ON onelog_tables, onelog_position, orders TO {user}"
    ));
    let other = conformance::plan(
        &pg,
        r#"{"table":"shop.orders","into":"orders","columns":{
            "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"text"}}}"#,
    );
    let theirs = pg.as_user(&user);
    let target = theirs.definition("dry").target;
    let said = |plan| {
        let error: StoreError = target.check_backfill(SINK, plan, 0).unwrap_err();
        error.to_string()
    };
    // when the sink's user may not write it, or not replace it, then that is said,
    let (backfills, replaces) = (said(&plan), said(&other));
    for right in ["INSERT", "UPDATE", "DELETE"] {
        let helps = format!("GRANT {right} ON {schema}.orders TO {user}");
        assert!(backfills.contains(&helps), "{backfills}");
    }
    let helps = format!("ALTER TABLE {schema}.orders OWNER TO {user}");
    assert!(replaces.contains(&helps), "{replaces}");
    // and so it is of a schema in which no table can be made.
    pg.sql(&format!("REVOKE CREATE ON SCHEMA {schema} FROM {user}"));
    let makes = said(&plan);
    let gives = format!("GRANT CREATE ON SCHEMA {schema} TO {user}");
    assert!(makes.contains(&gives), "{makes}");
    // What is said gives the rights.
    pg.sql(&format!(
        "{gives}; {helps}; ALTER TABLE onelog_tables OWNER TO {user};
         ALTER TABLE onelog_position OWNER TO {user}"
    ));
    for plan in [&plan, &other] {
        target.check_backfill(SINK, plan, 0).unwrap();
        let mut store = theirs.open(Arc::clone(plan), LOG);
        store.take_over().unwrap();
        model.rebuild(plan, store.as_mut()).unwrap();
    }
    drop(theirs);
    pg.sql(&format!("DROP OWNED BY {user}"));
}
