//! A column is made narrower by hand while its sink follows.

use serde_json::json;

use crate::rig::Rig;
use crate::world::World;

pub fn a_column_that_is_narrowed_stops_its_sink_by_name(rig: &dyn Rig) {
    let world = World::new(rig, "narrowing");
    let orders = world.table("orders");
    world.create(&json!({}));
    world.order("a", 1);
    world.wait();
    let Some(said) = rig.narrow(&orders) else {
        return world.end();
    };

    // The next batch is not written, and no row is blamed.
    world.order("b", 2);
    let stopped = world.wait_for_stop(world.sink());
    assert!(stopped.contains(&said), "{stopped}");
    assert!(
        stopped.contains(&orders) && stopped.contains("'note'"),
        "{stopped}"
    );
    assert_eq!(world.total("b"), None);

    // Nor does it go on by being resumed.
    world.sinks().resume(world.sink()).unwrap();
    let stopped = world.wait_for_stop(world.sink());
    assert!(stopped.contains(&said), "{stopped}");

    // Nor where the column has its type back: what was cut is cut.
    rig.widen(&orders);
    world.sinks().resume(world.sink()).unwrap();
    let stopped = world.wait_for_stop(world.sink());
    assert!(
        stopped.contains("'note' was") && stopped.contains("onelog sinks rebuild"),
        "{stopped}"
    );
    assert_eq!(world.total("b"), None);

    // Backfilled, all is as the log has it.
    world.sinks().rebuild(world.sink()).unwrap();
    world.assert_equal();
    world.assert_total("b", 2);

    // While nothing is written it is noticed as well, here when the sink is resumed.
    world.sinks().pause(world.sink()).unwrap();
    rig.narrow(&orders);
    world.sinks().resume(world.sink()).unwrap();
    let stopped = world.wait_for_stop(world.sink());
    assert!(stopped.contains(&said), "{stopped}");
    rig.widen(&orders);
    world.sinks().rebuild(world.sink()).unwrap();
    world.end();
}
