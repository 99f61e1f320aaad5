//! Records that a store refuses while it is backfilled.

use onelog::Position;
use serde_json::{Value, json};

use crate::parking::Visits;
use crate::rig::Rig;
use crate::world::World;

const GOOD: i64 = 1500;

/// Nothing where the store has no tables that it does not make itself.
pub fn what_a_users_table_refuses_in_a_backfill_is_parked_once(rig: &dyn Rig) {
    let world = World::of_its_own(rig, "refusing");
    let orders = world.table("orders");
    if !rig.make_table(&orders) {
        return;
    }
    // Given a user's own table with two rules, and a log that breaks each of them once
    rig.forbid(&orders);
    rig.make_unique(&orders);
    let written = world.node().transact(|tx| {
        for n in 0..GOOD {
            let key = format!("k{n:04}");
            tx.put_json("shop.orders", key, &json!({ "total": n }))?;
        }
        tx.put_json("shop.orders", "bad", &rig.refused())?;
        tx.put_json("shop.orders", "twin", &json!({"total": 7}))
    });
    let written = written.unwrap().position;
    let mut mapping = rig.mapping(&orders);
    mapping["existing"] = json!(true);

    // When a sink that does not park is to backfill it, then it stops and names a record.
    let strict = world.definition("strict", &json!({"mappings": [mapping]}));
    world.sinks().create(strict).unwrap();
    let text = world.wait_for_stop("strict");
    assert!(
        text.contains(r#"of table 'shop.orders', key "bad""#)
            || text.contains(r#"of table 'shop.orders', key "twin""#),
        "{text}"
    );
    assert_eq!(rig.total(&orders, "k0001"), None);
    world.sinks().delete("strict").unwrap();

    // When one parks, then it parks these two, and everything else is there.
    let attempts = Visits::of(&world, "attempt");
    world.create(&json!({"on_refused": "park", "mappings": [mapping]}));
    assert!(attempts.count() <= 6, "{} attempts", attempts.count());
    let found = world.assert_equal();
    let table = &found.tables[0];
    assert_eq!((table.rows, table.parked), (GOOD.cast_unsigned(), 2));
    assert_eq!(world.parked(), ["bad", "twin"]);
    let parked = world.sinks().parked(world.sink()).unwrap();
    assert!(parked[0].what.contains(rig.message()), "{}", parked[0].what);
    assert!(written.sees(parked[0].first_offset));

    // When it is rebuilt, then nothing is parked a second time.
    world.order("later", -7 - GOOD);
    world.wait();
    assert_eq!(world.parked(), ["bad", "later", "twin"]);
    let parked = world.sinks().parked(world.sink()).unwrap();
    rebuilt(&world);
    assert_eq!(world.sinks().parked(world.sink()).unwrap(), parked);

    // When the cause is gone, then a rebuild takes them.
    rig.allow(&orders);
    world.order("k0007", 7 + GOOD);
    rebuilt(&world);
    world.end();
}

/// A user's table for a sink that parks and may delete one row.
fn careful(rig: &dyn Rig, into: &str, more: &Value) -> Value {
    let mut mapping = rig.mapping(into);
    mapping["existing"] = json!(true);
    for (field, more) in more.as_object().unwrap() {
        mapping[field] = more.clone();
    }
    json!({"on_refused": "park", "max_deletes": 1, "mappings": [mapping]})
}

fn key(n: i64) -> String {
    format!("k{n:04}")
}

/// Nothing where the store has no tables that it does not make itself.
pub fn the_rows_of_what_a_backfill_refuses_stay_as_they_are(rig: &dyn Rig) {
    let world = World::of_its_own(rig, "staying");
    let orders = world.table("orders");
    if !rig.make_table(&orders) {
        return;
    }
    // Given a user's table with a row of each key, which refuses what the log has of most by now
    let written = world.node().transact(|tx| {
        (0..300).try_for_each(|n| tx.put_json("shop.orders", key(n), &json!({ "total": n })))
    });
    written.unwrap();
    world.create(&careful(rig, &orders, &json!({})));
    rig.forbid(&orders);
    let written = world.node().transact(|tx| {
        (0..199).try_for_each(|n| tx.put_json("shop.orders", key(n), &rig.refused()))?;
        tx.put_json("shop.orders", key(199), &rig.rejected())
    });
    written.unwrap();
    world.wait();
    let assert_kept = || {
        assert_eq!(world.parked().len(), 200);
        for n in [0, 100, 198, 199, 200, 299] {
            world.assert_total(&key(n), n);
        }
    };
    assert_kept();

    // When it is rebuilt, then all of these rows are as they were.
    rebuilt(&world);
    assert_kept();
    let found = world.assert_equal();
    assert_eq!((found.tables[0].rows, found.tables[0].parked), (100, 200));

    // When rows are there that the log lacks, then the guard counts these alone.
    rig.add(&orders, "by hand", 1000);
    rebuilt(&world);
    assert_eq!(world.total("by hand"), None);
    rig.add(&orders, "by hand", 1000);
    rig.add(&orders, "another", 1001);
    world.sinks().rebuild(world.sink()).unwrap();
    let text = world.wait_for_stop(world.sink());
    assert!(text.contains("would delete 2 of the 302 rows"), "{text}");
    world.sinks().rebuild_deleting(world.sink()).unwrap();
    world.assert_equal();
    assert_kept();
    world.sinks().delete(world.sink()).unwrap();
    replacing_keeps_the_rows_for_which_the_log_has_nothing_to_give(&world);
    world.end();
}

fn replacing_keeps_the_rows_for_which_the_log_has_nothing_to_give(world: &World<'_>) {
    // Given another table of the user, with rows of keys that it refuses and of others
    let (rig, pets) = (world.rig, world.table("pets"));
    assert!(rig.make_table(&pets));
    for (key, total) in [(key(0), 7000), (key(199), 7199), (key(299), 7299)] {
        rig.add(&pets, &key, total);
    }
    rig.add(&pets, "mine", 3);
    rig.forbid(&pets);
    // When it is to be replaced, then the rows of these keys stay.
    world.create(&careful(rig, &pets, &json!({"adopt": "replace"})));
    world.assert_equal();
    let total = |key: &str| rig.total(&pets, key);
    assert_eq!(total(&key(0)), Some("7000".to_owned()));
    assert_eq!(total(&key(199)), Some("7199".to_owned()));
    assert_eq!(total(&key(1)), None);
    assert_eq!(total(&key(299)), Some("299".to_owned()));
    assert_eq!(total("mine"), None);
    // When the causes are gone, then a rebuild takes what was refused.
    rig.allow(&pets);
    world.order(&key(199), 199);
    rebuilt(world);
    assert_eq!(total(&key(0)), Some("-1".to_owned()));
}

/// Rebuilds the story's sink, and waits until it follows again.
pub fn rebuilt(world: &World<'_>) {
    let done = Visits::of(world, "before_finish");
    world.sinks().rebuild(world.sink()).unwrap();
    let status = world
        .sinks()
        .wait_for_status(world.sink(), crate::world::PATIENCE, |status| {
            done.count() > 0 && status.position.is_some_and(|at| at > Position(0))
        });
    status.unwrap();
    world.assert_equal();
}
