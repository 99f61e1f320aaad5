//! A store that answers and takes no writes for a while, as in the middle of a failover.

use onelog_sinks::{SinkState, SinkStatus};
use serde_json::json;

use crate::rig::Rig;
use crate::world::{PATIENCE, World};

fn waits_with(status: &SinkStatus, code: &str) -> bool {
    let found = status.last_error.as_ref().and_then(|fault| fault.code);
    status.state == SinkState::Waiting && found.is_some_and(|found| found.as_str() == code)
}

impl World<'_> {
    /// Waits until the status says that the store takes no writes; answers its message.
    pub fn wait_for_not_writable(&self) -> String {
        self.wait_for_waiting("not_writable")
    }

    /// Waits until the sink waits for its store with this code; answers its message.
    fn wait_for_waiting(&self, code: &str) -> String {
        let seen =
            |status: &SinkStatus| status.state == SinkState::Stopped || waits_with(status, code);
        let status = self.sinks().wait_for_status(self.sink(), PATIENCE, seen);
        let status = status.unwrap();
        assert!(waits_with(&status, code), "{status:#?}");
        status.last_error.unwrap().what
    }
}

pub fn a_store_that_refuses_the_login_for_a_while_is_waited_for(rig: &dyn Rig) {
    // Given a sink that follows.
    let mut world = World::new(rig, "shutout");
    world.create(&json!({}));
    world.order("a", 1);
    world.assert_equal();
    // When its login is not known for a while
    if !rig.shut_out() {
        return world.end();
    }
    world.order("a", 2);
    // Then it says so and waits, also across a restart,
    let message = world.wait_for_waiting("no_access");
    assert!(message.contains("address"), "{message}");
    world.reopen();
    world.wait_for_waiting("no_access");
    // and goes on by itself when the store lets it in.
    rig.let_in();
    world.wait();
    world.assert_equal();
    world.assert_total("a", 2);
    world.end();
}

pub fn a_store_that_takes_no_writes_for_a_while_is_waited_for(rig: &dyn Rig) {
    let mut world = World::new(rig, "failover");
    let orders = world.table("orders");
    world.create(&json!({"on_refused": "park"}));
    world.order("a", 1);
    world.assert_equal();

    // It turns read-only under the open connection: nothing is parked, and nothing stops.
    rig.freeze(&orders);
    world.order("a", 2);
    world.order("b", 3);
    let message = world.wait_for_not_writable();
    assert!(message.contains("not writable now"), "{message}");
    world.assert_total("a", 1);
    rig.thaw(&orders);
    world.assert_equal();
    world.assert_total("a", 2);
    assert!(world.parked().is_empty());
    let status = world.sinks().get(world.sink()).unwrap();
    assert_eq!(status.state, SinkState::Running);
    assert!(status.last_error_over_at_ms.is_some());

    // A node that starts while it is so waits as well.
    rig.freeze(&orders);
    world.order("a", 4);
    world.reopen();
    world.wait_for_not_writable();
    rig.thaw(&orders);
    world.assert_equal();
    world.assert_total("a", 4);

    // So does a rebuild.
    rig.freeze(&orders);
    world.sinks().rebuild(world.sink()).unwrap();
    world.wait_for_not_writable();
    rig.thaw(&orders);
    world.order("c", 5);
    world.wait();
    world.assert_total("c", 5);
    world.end();
}
