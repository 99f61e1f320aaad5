//! Without `park` a refused record stops its sink, with a message, and no other.

use onelog_sinks::{SinkError, SinkState};
use serde_json::json;

use crate::rig::Rig;
use crate::world::World;

pub fn a_refused_record_stops_its_sink_and_no_other(rig: &dyn Rig) {
    let mut world = World::new(rig, "stopping");
    let (orders, others) = (world.table("orders"), world.table("others"));
    world.create(&json!({}));
    let other = json!({"mappings": [rig.lax_mapping(&others)]});
    let other = world.definition("goes_on", &other);
    world.sinks().create(other).unwrap();
    world.order("a", 1);
    world.wait();
    rig.forbid(&orders);

    let before = world.node().position();
    let done = world.node().transact(|tx| {
        tx.put_json("shop.orders", "a", &json!({"total": 2}))?;
        tx.put_json("shop.orders", "b", &rig.refused())
    });
    let end = done.unwrap().position;
    let message = world.wait_for_stop(world.sink());
    assert!(message.contains(rig.message()), "{message}");
    let status = world.sinks().get(world.sink()).unwrap();
    assert_eq!((status.state, status.parked), (SinkState::Stopped, 0));
    assert_eq!(status.position, Some(before));
    let fault = status.last_error.unwrap();
    assert_eq!(fault.table.as_deref(), Some("shop.orders"));
    assert_eq!(fault.key, Some(json!("b")));
    let offset = fault.offset.unwrap();
    assert!(!before.sees(offset) && end.sees(offset), "{offset}");
    assert!(fault.what.contains(rig.message()), "{}", fault.what);
    if rig.is_atomic() {
        world.assert_total("a", 1);
        assert_eq!(world.total("b"), None);
    }

    // The other one is at the log's end, and stays there.
    world.order("a", 3);
    world.wait_for("goes_on");
    let found = world.verified("goes_on");
    assert!(found.equal, "{found:#?}");
    assert_eq!(rig.total(&others, "a").as_deref(), Some("3"));
    let refused = Some(rig.refused()["total"].to_string());
    assert_eq!(rig.total(&others, "b"), refused);

    // Nothing was mended: it stops again, also after a restart.
    world.sinks().resume(world.sink()).unwrap();
    assert!(world.wait_for_stop(world.sink()).contains(rig.message()));
    world.reopen();
    assert!(world.wait_for_stop(world.sink()).contains(rig.message()));

    // Mended by a newer record it goes on, and mended in the store as well.
    world.order("b", 4);
    world.sinks().resume(world.sink()).unwrap();
    world.assert_equal();
    world.assert_total("b", 4);
    world.put("b", &rig.refused());
    world.wait_for_stop(world.sink());
    if !rig.allow(&orders) {
        world.order("b", 5);
    }
    world.sinks().resume(world.sink()).unwrap();
    world.assert_equal();
    world.wait_for("goes_on");
    world.sinks().delete("goes_on").unwrap();
    world.end();
}

pub fn a_sink_of_a_server_that_does_not_answer_is_deleted_and_what_stays_is_said(rig: &dyn Rig) {
    let world = World::new(rig, "frozen");
    world.order("a", 1);
    world.create(&json!({}));
    let former = world.definition(world.sink(), &json!({}));
    // When the server is frozen, with a batch on its way to it, and the sink is deleted,
    rig.server().pause();
    world.order("a", 2);
    let left = world.sinks().delete(world.sink()).unwrap();
    rig.server().resume();
    // then the sink is gone, and the answer says what stays and why.
    let left = left.unwrap();
    assert!(left.why.contains("did not answer within 10 s"), "{left:?}");
    let known = world.sinks().get(world.sink());
    assert!(matches!(known, Err(SinkError::Unknown { .. })), "{known:?}");
    // When the server answers again, then that can be taken away.
    assert!(world.sinks().forget(&former).unwrap());
    assert!(!world.sinks().forget(&former).unwrap());
    world.create(&json!({}));
    world.end();
}
