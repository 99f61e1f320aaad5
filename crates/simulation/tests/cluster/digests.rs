//! Replicas compare what they hold.

use onelog_record::NodeId;
use onelog_replica::{Event, Failure};
use onelog_simulation::cluster::{World, node};

fn with_digests() -> World {
    let mut world = World::of(3, 51);
    for ticket in 1..=200 {
        // Each node makes checkpoints of its own as well, whenever it likes.
        world.put(node(1), ticket);
        world.settle();
    }
    world.run(3);
    world
}

#[test]
fn replicas_make_digests_at_the_same_places() {
    let mut world = with_digests();
    let digests = |id| world.nodes[&node(id)].replica().observer().digests.clone();
    let (first, others) = (digests(1), [digests(2), digests(3)]);
    for other in others {
        let same = first.iter().filter(|at| other.contains(at)).count();
        assert!(same > 1, "{first:?} {other:?}");
    }
    assert!(first.iter().all(|at| at.contents.chain.is_some()));
    world.check_end();
}

#[test]
fn a_replica_whose_log_differs_stops_though_its_rows_are_the_same() {
    // Given three nodes with digests at the same places,
    let mut world = with_digests();
    let mut digests = world.nodes[&node(1)].replica().observer().digests.clone();
    // when both others have another checksum of the log there,
    for at in &mut digests {
        at.contents.chain = at.contents.chain.map(|chain| !chain);
    }
    world.get(node(3)).may_fail = true;
    for from in [node(1), node(2)] {
        let digests = digests.clone();
        world.get(node(3)).handle(Event::Digests { from, digests });
    }
    // then the one that is alone stops.
    let failure = world.get(node(3)).failure.take().expect("it has stopped");
    let is_named = matches!(
        failure,
        Failure::StateDiverged {
            node: NodeId(3),
            ..
        }
    );
    assert!(is_named, "{failure}");
}
