//! A log that no longer reaches back to the store: its sink backfills it by itself.

use onelog_sinks::Replay;
use serde_json::json;

use crate::rig::Rig;
use crate::world::{World, order};

pub fn rows_of_what_is_parked_are_treated_as_in_every_backfill(rig: &dyn Rig) {
    let mut world = World::of_its_own(rig, "cutting");
    let orders = world.table("orders");
    // Given a user's table where the store has such, and keys that are parked in it,
    let existing = rig.make_table(&orders);
    let mut mapping = rig.mapping(&orders);
    if existing {
        mapping["existing"] = json!(true);
    }
    world.create(&json!({"on_refused": "park", "mappings": [mapping]}));
    for (n, key) in ["bad", "deleted", "mended", "other"].iter().enumerate() {
        world.order(key, n as i64 + 1);
    }
    world.wait();
    for key in ["bad", "deleted", "mended", "new"] {
        world.put(key, &rig.rejected());
    }
    world.wait();
    assert_eq!(world.parked(), ["bad", "deleted", "mended", "new"]);
    // when the log is cut above all that while no sink runs,
    world.reopen_with_a_cut_log(|node| {
        order(node, "mended", 30);
        order(node, "other", 40);
        node.transact(|tx| tx.delete("shop.orders", "deleted"))
            .unwrap();
    });
    // then the store is backfilled by a snapshot: what is refused now is parked, and nothing else,
    world.wait();
    let found = world.assert_equal();
    assert_eq!(world.parked(), ["bad", "new"]);
    assert_eq!(found.tables[0].parked, 2);
    world.assert_total("mended", 30);
    world.assert_total("other", 40);
    assert_eq!((world.total("deleted"), world.total("new")), (None, None));
    // a row of a key that is parked stays where rows are merged into the table that is there,
    let kept = (existing || rig.merges()).then(|| "1".to_owned());
    assert_eq!(world.total("bad"), kept);
    // and is followed again once its record fits.
    world.order("bad", 10);
    world.order("new", 20);
    world.wait();
    let done = world.sinks().replay(world.sink(), Replay::All).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (2, 0));
    world.assert_total("bad", 10);
    world.assert_total("new", 20);
    world.end();
}
