//! How the refused rows of a batch are found: which ones, and by how many statements.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use onelog_mapping::Plan;
use onelog_record::{Offset, Position};
use onelog_store::conformance::{self, LOG, Model, ORDERS};
use onelog_store::{Refused, Store, StoreError, failpoint};
use onelog_testkit::{Kind, require};

use super::harness::Pg;

const COUNTED: &str = "counted";
const USERS: &str = r#"{"table":"shop.orders","into":"users","existing":true,"columns":{
  "id":{"from":"$key","type":"text"},"name":{"from":"/name","type":"text"}}}"#;
const TABLE: &str = "CREATE TABLE users (id text PRIMARY KEY,
    name varchar(8) UNIQUE NOT NULL CHECK (name <> 'gold'));";
/// With all names but those that the other table refuses.
const TEAMS: &str = "CREATE TABLE teams (id text PRIMARY KEY);
    INSERT INTO teams SELECT 'n' || n FROM generate_series(0, 149) AS n;
    INSERT INTO teams SELECT 'u' || d || 'x' || n
      FROM unnest('{2,5,20,200}'::int[]) AS d, generate_series(0, 699) AS n;
    CREATE TABLE users (id text PRIMARY KEY, name text REFERENCES teams";
/// Keeps the search to one row in a statement.
const TRIGGER: &str = "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN RETURN NULL; END $$;
    CREATE TRIGGER look AFTER INSERT OR UPDATE OR DELETE ON users
      FOR EACH ROW EXECUTE FUNCTION look();";

fn named(model: &mut Model, key: &str, name: &str) {
    let document = serde_json::json!({ "name": name }).to_string();
    model.write(ORDERS, key.as_bytes(), Some(&document));
}

fn backfilled(sink: &str, table: &str, model: &Model) -> (Pg, Box<dyn Store>, Arc<Plan>) {
    let pg = Pg::new();
    pg.sql(table);
    let plan = conformance::plan(&pg, USERS);
    let mut store = pg.open_as(sink, &plan, LOG).unwrap();
    store.take_over().unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    (pg, store, plan)
}

fn refusals(
    store: &mut dyn Store,
    plan: &Plan,
    model: &Model,
    from: Position,
) -> Vec<(Offset, String, String)> {
    let shown = |refused: &Refused| {
        (
            refused.offset,
            refused.key.to_string(),
            refused.what.clone(),
        )
    };
    match store.apply(&model.batch(plan, from)) {
        Ok(()) => Vec::new(),
        Err(StoreError::Refused(refused)) => {
            let all = refused.all().map(shown);
            all.collect()
        }
        Err(error) => panic!("{error}"),
    }
}

/// Changes of which about one in `dense` breaks a rule of each kind.
fn write_some(model: &mut Model, dense: u64) {
    let mut state = dense + 7;
    let mut next = |below: u64| {
        state = state * 48_271 % 2_147_483_647;
        state % below
    };
    for n in 0..700 {
        let key = format!("k{}", next(900));
        match next(dense) {
            0 => named(model, &key, &format!("n{}", next(150))),
            1 if dense > 2 => model.write(ORDERS, key.as_bytes(), None),
            1 if n % 4 == 0 => named(model, &key, "gold"),
            2 if n % 3 == 0 => named(model, &key, "gold"),
            3 if n % 3 == 0 => named(model, &key, "too long for it"),
            4 if n % 5 == 0 => named(model, &key, "\0"),
            _ => named(model, &key, &format!("u{dense}x{n}")),
        }
    }
}

#[test]
fn many_rows_in_a_statement_are_refused_as_they_are_one_by_one() {
    require!(Kind::Postgres);
    let mut model = Model::default();
    (0..100).for_each(|n| named(&mut model, &format!("k{n}"), &format!("n{n}")));
    for table in [
        TABLE.to_owned(),
        format!("{TEAMS});"),
        format!("{TEAMS} DEFERRABLE INITIALLY DEFERRED);"),
    ] {
        // Given the same rows in a table whose rows are checked one by one, and in one with a trigger.
        let (_checked, mut many, plan) = backfilled("many", &table, &model);
        let (_looked_at, mut one, _) = backfilled("one", &format!("{table} {TRIGGER}"), &model);
        for dense in [2, 5, 20, 200] {
            // When batches that break rules, here and there, are applied to both,
            let mut changed = model.clone();
            write_some(&mut changed, dense);
            let refused = refusals(many.as_mut(), &plan, &changed, model.position());
            // then the same are refused, with the same messages in the same order.
            assert!(!refused.is_empty(), "{table} {dense}");
            let other = refusals(one.as_mut(), &plan, &changed, model.position());
            assert_eq!(refused, other, "{table} {dense}");
            assert!(model.verify(&plan, many.as_mut()).equal);
        }
    }
}

#[test]
fn refused_rows_among_many_are_found_by_a_few_statements_each() {
    require!(Kind::Postgres);
    // Given 600 names that are taken.
    const TAKEN: usize = 600;
    let mut model = Model::default();
    (0..TAKEN).for_each(|n| named(&mut model, &format!("t{n:04}"), &format!("t{n}")));
    let (_pg, mut store, plan) = backfilled(COUNTED, TABLE, &model);
    let from = model.position();
    let mut changed = model.clone();
    for n in 0..TAKEN * 10 {
        let name = match n % 10 {
            3 => format!("t{}", n / 10),
            _ => format!("n{n}"),
        };
        named(&mut changed, &format!("k{n:05}"), &name);
    }
    // When a batch has them all once more,
    static STATEMENTS: AtomicUsize = AtomicUsize::new(0);
    failpoint::set(&format!("{COUNTED}:probe_statement"), || {
        STATEMENTS.fetch_add(1, Ordering::Relaxed);
    });
    let refused = refusals(store.as_mut(), &plan, &changed, from);
    // then each is named, and the search took less than five statements for each.
    assert_eq!(refused.len(), TAKEN);
    let statements = STATEMENTS.load(Ordering::Relaxed);
    assert!(statements < 5 * TAKEN, "{statements}");
    assert!(model.verify(&plan, store.as_mut()).equal);
}
