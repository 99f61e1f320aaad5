//! Changes by hand: found by every comparison, undone by a repair.

use serde_json::json;

use crate::rig::Rig;
use crate::world::{PATIENCE, World, order};

const ROWS: i64 = 300;

pub fn changes_by_hand_are_found_and_undone_while_the_sink_goes_on(rig: &dyn Rig) {
    let world = World::new(rig, "repair");
    let orders = world.table("orders");
    let filled = world.node().transact(|tx| {
        for n in 0..ROWS {
            tx.put_json("shop.orders", format!("k{n}"), &json!({"total": n}))?;
        }
        Ok(())
    });
    filled.unwrap();
    world.create(&json!({}));
    world.order("later", 1);
    world.assert_equal();
    rig.change(&orders, "k250", 7);
    rig.change(&orders, "later", 2);
    rig.remove(&orders, "k260");
    rig.add(&orders, "extra", 8);

    let found = world.verified(world.sink());
    let table = &found.tables[0];
    let mut keys: Vec<_> = table.differences.iter().map(|found| &found.key).collect();
    keys.sort_by_key(|key| key.to_string());
    assert_eq!(keys, ["extra", "k250", "k260", "later"]);
    assert_eq!((found.equal, table.differences_total), (false, 4));
    let named = |key: &str| table.differences.iter().find(|found| found.key == key);
    let (missing, extra) = (named("k260").unwrap(), named("extra").unwrap());
    assert!(
        missing.log.is_some() && missing.store.is_none(),
        "{missing:?}"
    );
    assert!(extra.log.is_none() && extra.store.is_some(), "{extra:?}");

    let repaired = std::thread::scope(|scope| {
        let node = world.node();
        let writer = scope.spawn(move || {
            for n in 0..100 {
                order(node, &format!("k{n}"), n + 10_000);
            }
        });
        let repaired = world.sinks().verify_and_repair(world.sink()).unwrap();
        writer.join().unwrap();
        repaired
    });
    assert!(repaired.equal, "{repaired:#?}");
    assert_eq!(repaired.repaired, Some(4));
    assert_eq!(repaired.tables[0].unrepairable, Some(0));
    world.assert_total("k250", 250);
    world.assert_total("k260", 260);
    world.assert_total("later", 1);
    assert_eq!(world.total("extra"), None);
    let found = world.assert_equal();
    assert_eq!(found.tables[0].rows, ROWS as u64 + 1);
    world.assert_total("k99", 10_099);

    // What was mended follows the log again, and a second repair finds nothing to do.
    for key in ["k250", "k260", "later", "extra"] {
        world.order(key, 9);
    }
    world.assert_equal();
    world.assert_total("extra", 9);
    let again = world.sinks().verify_and_repair(world.sink()).unwrap();
    assert_eq!((again.equal, again.repaired), (true, Some(0)));
    world.end();
}

/// Rows that the log has are not deleted, whatever they hold beside their keys.
pub fn a_rebuild_of_many_rows_that_the_log_has_asks_nothing(rig: &dyn Rig) {
    let world = World::new(rig, "rebuilt");
    let filled = world.node().transact(|tx| {
        for n in 0..ROWS {
            let order = json!({"total": n, "note": "as it should be"});
            tx.put_json("shop.orders", format!("k{n}"), &order)?;
        }
        Ok(())
    });
    filled.unwrap();
    world.create(&json!({}));
    world.assert_equal();
    // When the store has a row that the log has not, then that one alone is counted.
    rig.add(&world.table("orders"), "extra", 8);
    let tried = world.definition(world.sink(), &json!({}));
    let tried = world.sinks().dry_run(&tried, 1).unwrap();
    let store = tried.mappings[0].store.as_ref().unwrap();
    assert_eq!(
        (store.rows, store.deletes),
        (ROWS as u64 + 1, 1),
        "{store:?}"
    );
    world.sinks().rebuild(world.sink()).unwrap();
    world.order("later", 1);
    world.assert_equal();
    assert_eq!(world.total("extra"), None);
    world.end();
}

pub fn the_schedule_finds_a_change_by_hand_and_shows_it(rig: &dyn Rig) {
    let world = World::new(rig, "schedule");
    world.create(&json!({"verify_every": "1s"}));
    world.order("a", 1);
    world.order("b", 2);
    world.wait();
    let verified = |equal: bool| {
        let seen = world
            .sinks()
            .wait_for_status(world.sink(), PATIENCE, |status| {
                let last = status.last_verification.as_ref();
                last.is_some_and(|last| last.equal == equal)
            });
        seen.unwrap().last_verification.unwrap()
    };
    assert!(verified(true).scheduled);
    rig.change(&world.table("orders"), "a", 7);
    let last = verified(false);
    assert_eq!((last.scheduled, last.differences_total), (true, 1));
    let text = world.node().metrics_text();
    for line in [
        "onelog_sink_differing_rows{sink=\"schedule\"} 1".to_owned(),
        format!(
            "onelog_sink_verified_position{{sink=\"schedule\"}} {}",
            last.position
        ),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
    // Mended, the next one on the schedule says so.
    let repaired = world.sinks().verify_and_repair(world.sink()).unwrap();
    assert_eq!(repaired.repaired, Some(1));
    verified(true);
    world.assert_total("a", 1);
    world.end();
}
