//! What has the name of a table and is none, or is of another kind: what is said helps.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_store::conformance::{self, LOG, Model, SINK, standard_plan};
use onelog_store::{Store, StoreError};
use onelog_testkit::{Kind, require};

use crate::harness::Database;

fn existing(database: &Database) -> Arc<Plan> {
    conformance::plan(
        database,
        r#"{"table":"shop.orders","into":"orders","existing":true,"columns":{
            "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"integer"}}}"#,
    )
}

fn backfill(database: &Database, plan: &Arc<Plan>, model: &Model) -> Result<(), StoreError> {
    let mut store = database.store(SINK, LOG, Arc::clone(plan))?;
    store.take_over()?;
    model.rebuild(plan, &mut store)?;
    assert!(model.verify(plan, &mut store).equal);
    Ok(())
}

fn refused(database: &Database, plan: &Arc<Plan>) -> String {
    let mut store = database.store(SINK, LOG, Arc::clone(plan)).unwrap();
    store.check_target().unwrap_err().to_string()
}

const MINE: &str = "CREATE TABLE orders (id VARCHAR(50) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PRIMARY KEY, total BIGINT)";

#[test]
fn a_table_of_a_user_that_cannot_be_backfilled_is_backfilled_after_what_is_said() {
    require!(Kind::Mariadb);
    for (kind, helps) in [
        (
            "WITH SYSTEM VERSIONING",
            "ALTER TABLE `orders` DROP SYSTEM VERSIONING",
        ),
        ("ENGINE=MEMORY", "ALTER TABLE `orders` ENGINE=InnoDB"),
    ] {
        // Given a table of a user's,
        let database = Database::new();
        let mut model = Model::default();
        model.order("a", 1, "one");
        database.sql(&format!("{MINE} {kind}"));
        // when it is to be backfilled, then both refusals say what helps,
        let (made, existing) = (standard_plan(&database), existing(&database));
        for (plan, parts) in [(&made, ["'existing'", helps]), (&existing, [helps, helps])] {
            let text = refused(&database, plan);
            for part in parts {
                assert!(text.contains(part), "{text}");
            }
            assert!(!text.contains("system versioned"), "{text}");
        }
        // and that does.
        database.sql(helps);
        backfill(&database, &existing, &model).unwrap();
    }
}

#[test]
fn what_is_no_table_is_not_to_be_backfilled_as_it_is() {
    require!(Kind::Mariadb);
    for (kind, made) in [
        ("view", "CREATE VIEW orders AS SELECT 'a' AS id, 1 AS total"),
        ("sequence", "CREATE SEQUENCE orders"),
    ] {
        let database = Database::new();
        database.sql(made);
        let text = refused(&database, &standard_plan(&database));
        assert!(text.contains(&format!("drop the {kind}")), "{text}");
        assert!(!text.contains("existing"), "{text}");
        let text = refused(&database, &existing(&database));
        assert!(text.contains("name a table in 'into'"), "{text}");
        assert!(!text.contains("rebuild"), "{text}");
        database.sql(&format!("DROP {kind} orders"));
        backfill(&database, &standard_plan(&database), &Model::default()).unwrap();
    }
}

#[test]
fn a_table_of_onelogs_that_was_given_system_versioning_is_named_with_what_helps() {
    require!(Kind::Mariadb);
    // Given a table that onelog made, with a key that is short enough for that,
    let database = Database::new();
    let plan = conformance::plan(
        &database,
        r#"{"table":"shop.orders","into":"orders","columns":{
            "id":{"from":"$key","type":"integer"},"total":{"from":"/total","type":"integer"}}}"#,
    );
    let mut model = Model::default();
    model.order("1", 1, "one");
    backfill(&database, &plan, &model).unwrap();
    let mut store = database.store(SINK, LOG, Arc::clone(&plan)).unwrap();
    // when a user has its former rows kept,
    database.sql("ALTER TABLE orders ADD SYSTEM VERSIONING");
    // then neither the sink nor a rebuild goes over it, and what is said helps.
    let helps = "ALTER TABLE `orders` DROP SYSTEM VERSIONING";
    let shape = store.check_shape().unwrap_err().to_string();
    let target = refused(&database, &plan);
    assert!(shape.contains("onelog sinks rebuild"), "{shape}");
    for text in [shape, target] {
        assert!(text.contains(helps), "{text}");
        assert!(!text.contains("did not make"), "{text}");
    }
    database.sql(helps);
    backfill(&database, &plan, &model).unwrap();
}
