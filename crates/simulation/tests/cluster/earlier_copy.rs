//! Disks that are put back as they were earlier have forgotten what their node confirmed.

use onelog_log::SimulatedDisk;
use onelog_replica::{Event, StartError};
use onelog_simulation::cluster::{World, node};

#[test]
fn a_node_that_has_heard_what_it_lost_never_starts_again() {
    // Given a follower whose disks are put back as they were before entries that it confirmed,
    let mut world = World::of(3, 22);
    for ticket in 1..=5 {
        world.put(node(1), ticket);
    }
    world.run(3);
    let follower = world.get(node(3));
    follower.handle(Event::Idle);
    follower.run_all_jobs();
    let before = (follower.log.files(), follower.state.files());
    for ticket in 6..=30 {
        world.put(node(1), ticket);
        world.settle();
    }
    world.run(3);
    let follower = world.get(node(3));
    follower.end();
    follower.log = SimulatedDisk::with_files(1, before.0);
    follower.state = SimulatedDisk::with_files(2, before.1);
    // when it starts, and the leader says so,
    follower.may_fail = true;
    follower.start().unwrap();
    world.run(10);
    let failure = world.get(node(3)).failure.take().expect("it has stopped");
    let said = failure.to_string();
    assert!(
        said.contains("the disk has lost acknowledged entries"),
        "{said}"
    );
    // then it votes never again, whichever nodes are there when it is started.
    let error = world.get(node(3)).start().unwrap_err();
    assert!(matches!(error, StartError::LostTail { .. }), "{error}");
}
