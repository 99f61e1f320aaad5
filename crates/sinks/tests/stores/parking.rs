//! Records that the store refuses are parked; nothing else waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use onelog_sinks::Replay;
use onelog_store::failpoint;
use serde_json::{Value, json};

use crate::rig::Rig;
use crate::world::{PATIENCE, World};

pub fn what_is_refused_waits_and_is_replayed_when_the_record_or_the_store_is_mended(rig: &dyn Rig) {
    let mut world = World::new(rig, "parking");
    let orders = world.table("orders");
    world.create(&json!({"on_refused": "park"}));
    for (n, key) in ["a", "b", "c", "gone"].iter().enumerate() {
        world.order(key, n as i64 + 1);
    }
    world.wait();
    rig.forbid(&orders);

    // Good and bad records in one transaction: the good ones are in the store, the key has its last
    // row from before, and one that never had a row has none.
    let before = world.node().position();
    let done = world.node().transact(|tx| {
        tx.put_json("shop.orders", "a", &json!({"total": 10}))?;
        tx.put_json("shop.orders", "b", &rig.refused())?;
        tx.put_json("shop.orders", "new", &rig.refused())?;
        tx.put_json("shop.orders", "other", &json!({"total": 11}))?;
        tx.delete("shop.orders", "gone")
    });
    let first = done.unwrap().position;
    let found = world.assert_equal();
    assert_eq!(found.tables[0].parked, 2);
    assert_eq!(world.parked(), ["b", "new"]);
    for (key, total) in [("a", Some("10")), ("b", Some("2")), ("other", Some("11"))] {
        assert_eq!(world.total(key).as_deref(), total, "{key}");
    }
    assert_eq!((world.total("new"), world.total("gone")), (None, None));
    for parked in world.sinks().parked(world.sink()).unwrap() {
        assert_eq!((&parked.table[..], &parked.into), ("shop.orders", &orders));
        assert!(parked.what.contains(rig.message()), "{}", parked.what);
        assert!(!before.sees(parked.first_offset) && first.sees(parked.first_offset));
    }
    let status = world.sinks().get(world.sink()).unwrap();
    assert_eq!((status.parked, &status.last_error), (2, &None));

    // What comes behind it waits, also across a restart; all other keys go on.
    world.order("b", 20);
    world.order("c", 30);
    world.wait();
    world.reopen();
    world.order("b", 21);
    world.order("a", 31);
    world.assert_equal();
    assert_eq!(world.parked(), ["b", "new"]);
    world.assert_total("b", 2);
    world.assert_total("c", 30);
    world.assert_total("a", 31);

    // The newest image is written, and readers see it at once; what is still refused still waits.
    let done = world.sinks().replay(world.sink(), Replay::All).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (1, 1));
    assert_eq!(done.remaining[0].key, json!("new"));
    assert!(done.remaining[0].what.contains(rig.message()));
    world.assert_total("b", 21);

    // Mended in the store where that can be, otherwise by another record.
    let expected = match rig.allow(&orders) {
        true => rig.refused()["total"].to_string(),
        false => {
            world.order("new", 40);
            world.wait();
            "40".to_owned()
        }
    };
    let new = Replay::Keys(vec![(orders.clone(), Bytes::from_static(b"new"))]);
    let done = world.sinks().replay(world.sink(), new).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (1, 0));
    assert_eq!(world.total("new"), Some(expected));

    // From then on these keys are as every other.
    world.order("b", 50);
    world.delete("new");
    world.assert_equal();
    world.assert_total("b", 50);
    assert_eq!(world.total("new"), None);
    world.end();
}

pub fn only_the_table_that_refuses_parks_the_record(rig: &dyn Rig) {
    let world = World::new(rig, "two_tables");
    let (archive, orders) = (world.table("archive"), world.table("orders"));
    let mappings = json!([rig.lax_mapping(&archive), rig.mapping(&orders)]);
    world.create(&json!({"on_refused": "park", "mappings": mappings}));
    world.order("a", 1);
    world.order("b", 2);
    world.wait();
    rig.forbid(&orders);
    world.put("a", &rig.refused());
    world.put("c", &rig.refused());
    world.order("b", 3);
    let found = world.assert_equal();
    let parked: Vec<u64> = found.tables.iter().map(|table| table.parked).collect();
    assert_eq!(parked, [0, 2]);
    let listed = world.sinks().parked(world.sink()).unwrap();
    assert!(listed.iter().all(|parked| parked.into == orders));
    let refused = Some(rig.refused()["total"].to_string());
    assert_eq!(rig.total(&archive, "a"), refused);
    assert_eq!(rig.total(&archive, "c"), refused);
    world.assert_total("a", 1);
    assert_eq!(world.total("c"), None);

    // Later ones go into the other table, too.
    world.order("a", 4);
    world.order("c", 5);
    world.assert_equal();
    assert_eq!(rig.total(&archive, "a").as_deref(), Some("4"));
    world.assert_total("a", 1);
    let done = world.sinks().replay(world.sink(), Replay::All).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (2, 0));
    world.assert_total("a", 4);
    world.assert_total("c", 5);
    world.end();
}

pub fn a_backfill_parks_and_a_rebuild_tries_again(rig: &dyn Rig) {
    let world = World::new(rig, "backfill");
    for n in 0..20 {
        world.order(&format!("k{n}"), n);
    }
    for key in ["bad", "worse"] {
        world.put(key, &rig.rejected());
    }
    world.create(&json!({"on_refused": "park"}));
    let found = world.assert_equal();
    assert_eq!((found.tables[0].rows, found.tables[0].parked), (20, 2));
    assert_eq!(world.parked(), ["bad", "worse"]);
    world.assert_total("k7", 7);

    // One is mended, another one breaks, and a rebuild finds out.
    world.order("bad", 1);
    world.put("k3", &rig.rejected());
    world.wait();
    assert_eq!(world.parked(), ["bad", "k3", "worse"]);
    world.assert_total("k3", 3);
    world.sinks().rebuild(world.sink()).unwrap();
    let rebuilt = world
        .sinks()
        .wait_for_status(world.sink(), PATIENCE, |status| status.parked == 2);
    assert_eq!(rebuilt.unwrap().parked, 2);
    world.order("bad", 2);
    let found = world.assert_equal();
    assert_eq!((found.tables[0].rows, found.tables[0].parked), (20, 2));
    assert_eq!(world.parked(), ["k3", "worse"]);
    // Its row is as it was, unless a new table has taken the place of the old one.
    let kept = rig.merges().then(|| "3".to_owned());
    assert_eq!(world.total("k3"), kept);
    world.assert_total("bad", 2);

    world.order("k3", 3);
    world.delete("worse");
    world.wait();
    let done = world.sinks().replay(world.sink(), Replay::All).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (2, 0));
    world.assert_total("k3", 3);
    world.end();
}

/// Nothing where the store has no tables that it does not make itself.
pub fn parked_rows_that_refer_to_each_other_are_replayed_by_one_call(rig: &dyn Rig) {
    let world = World::of_its_own(rig, "family");
    let people = world.table("people");
    if !rig.make_family(&people) {
        return;
    }
    // Given a table whose rows refer to each other, and a first one that it refuses
    let mut mapping = rig.mapping(&people);
    mapping["existing"] = json!(true);
    world.create(&json!({"on_refused": "park", "mappings": [mapping]}));
    rig.forbid(&people);
    for (key, parent) in [("a", "b"), ("b", "c"), ("c", "d")] {
        world.put(key, &json!({"total": 1, "note": parent}));
    }
    world.put("d", &json!({"total": -1}));
    world.wait();
    assert_eq!(world.parked(), ["a", "b", "c", "d"]);
    // when the store takes that one, then all of them are replayed at once.
    rig.allow(&people);
    let done = world.sinks().replay(world.sink(), Replay::All).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (4, 0));
    world.assert_equal();
    world.end();
}

/// How often a sink's thread comes to a place, until it is dropped.
pub struct Visits {
    place: String,
    count: Arc<AtomicUsize>,
}

impl Visits {
    pub fn of(world: &World<'_>, event: &str) -> Self {
        let place = format!("{}:{event}", world.sink());
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        failpoint::set(&place, move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        Self { place, count }
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Visits {
    fn drop(&mut self) {
        failpoint::clear(&self.place);
    }
}

const MANY: i64 = 6000;

/// One transaction of so many rows, of which each tenth is `bad`.
fn write_many(world: &World<'_>, bad: &Value) {
    let done = world.node().transact(|tx| {
        for n in 0..MANY {
            let value = match n % 10 {
                9 => bad.clone(),
                _ => json!({ "total": n }),
            };
            tx.put_json("shop.orders", format!("k{n:04}"), &value)?;
        }
        Ok(())
    });
    done.unwrap();
}

/// The bad rows were found in a few attempts, and are parked until they are deleted.
fn one_in_ten_is_parked(world: &World<'_>, attempts: &Visits) {
    assert!(attempts.count() <= 4, "{} attempts", attempts.count());
    let found = world.assert_equal();
    let table = &found.tables[0];
    assert_eq!((table.rows, table.parked), (5400, 600));
    for n in (9..MANY).step_by(10) {
        world.delete(&format!("k{n:04}"));
    }
    world.wait();
    world.sinks().replay(world.sink(), Replay::All).unwrap();
}

pub fn many_refusals_in_one_batch_cost_a_few_attempts(rig: &dyn Rig) {
    let world = World::of_its_own(rig, "many_refused");
    world.create(&json!({"on_refused": "park"}));
    rig.forbid(&world.table("orders"));
    let attempts = Visits::of(&world, "attempt");
    let begun = std::time::Instant::now();
    write_many(&world, &rig.refused());
    world.wait();
    println!(
        "  {:?} for {MANY} rows of which one in ten is refused",
        begun.elapsed()
    );
    one_in_ten_is_parked(&world, &attempts);
    world.end();
}

pub fn many_rows_that_a_backfill_cannot_load_cost_a_few_attempts(rig: &dyn Rig) {
    let world = World::of_its_own(rig, "many_rejected");
    write_many(&world, &rig.rejected());
    let attempts = Visits::of(&world, "attempt");
    world.create(&json!({"on_refused": "park"}));
    one_in_ten_is_parked(&world, &attempts);
    world.end();
}

/// Only one row has each total. `event` is a step of the store, which comes at most `most` times.
pub fn many_duplicates_in_one_batch_are_parked_alone(rig: &dyn Rig, event: &str, most: usize) {
    let world = World::of_its_own(rig, "duplicates");
    world.create(&json!({"on_refused": "park"}));
    rig.make_unique(&world.table("orders"));
    let (attempts, steps) = (Visits::of(&world, "attempt"), Visits::of(&world, event));
    let begun = std::time::Instant::now();
    let done = world.node().transact(|tx| {
        for n in 0..MANY {
            let total = n - i64::from(n % 10 == 9);
            tx.put_json(
                "shop.orders",
                format!("k{n:04}"),
                &json!({ "total": total }),
            )?;
        }
        Ok(())
    });
    done.unwrap();
    world.wait();
    println!(
        "  {:?} for {MANY} rows with 600 duplicates, {} of {event}",
        begun.elapsed(),
        steps.count()
    );
    assert!(attempts.count() <= 3, "{} attempts", attempts.count());
    assert!(steps.count() <= most, "{} times {event}", steps.count());
    let found = world.assert_equal();
    let table = &found.tables[0];
    assert_eq!((table.rows, table.parked), (5400, 600));
    assert!(world.parked().iter().all(|key| key.ends_with('9')));

    // Two that exchange what each has once are in no other's way.
    let exchanged = world.node().transact(|tx| {
        tx.put_json("shop.orders", "k0000", &json!({"total": 1}))?;
        tx.put_json("shop.orders", "k0001", &json!({"total": 0}))
    });
    exchanged.unwrap();
    world.assert_equal();
    world.assert_total("k0000", 1);
    for n in (9..MANY).step_by(10) {
        world.delete(&format!("k{n:04}"));
    }
    world.wait();
    let done = world.sinks().replay(world.sink(), Replay::All).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (600, 0));
    world.end();
}

/// The last story: it kills the server.
pub fn a_store_restored_from_before_a_replay_gets_the_rows_again(rig: &dyn Rig) {
    let world = World::new(rig, "restored");
    world.create(&json!({"on_refused": "park"}));
    world.order("a", 1);
    world.put("a", &rig.rejected());
    world.wait();
    assert_eq!(world.parked(), ["a"]);
    world.order("a", 2);
    world.order("b", 3);
    world.wait();
    rig.server().stop();
    let saved = rig.server().save_data();
    rig.server().start_again();

    world.order("b", 4);
    world.wait();
    let done = world.sinks().replay(world.sink(), Replay::All).unwrap();
    assert_eq!(done.replayed, 1);
    world.order("c", 5);
    world.assert_equal();
    world.assert_total("a", 2);

    // The log alone does not bring the row back: its records were left out of this copy for good.
    rig.server().kill();
    rig.server().restore_data(&saved);
    rig.server().start_again();
    world.order("c", 6);
    world.wait();
    let replayed = world
        .sinks()
        .wait_for_status(world.sink(), PATIENCE, |status| status.parked == 0);
    assert_eq!(replayed.unwrap().parked, 0);
    let found = world.assert_equal();
    assert_eq!((found.tables[0].rows, found.tables[0].parked), (3, 0));
    world.assert_total("a", 2);
    world.end();
}
