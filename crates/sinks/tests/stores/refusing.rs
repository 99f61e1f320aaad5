//! Records that a store refuses while it is backfilled.

use onelog::Position;
use serde_json::json;

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

    // When a sink that does not park is to fill it, then it stops and names a record.
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
