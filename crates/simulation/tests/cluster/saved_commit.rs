//! What is committed is saved while entries flow, so that a node knows it when it meets others that do
//! not.

use onelog_log::{CrashMode, HardState, SimulatedDisk};
use onelog_record::Index;
use onelog_simulation::cluster::{Node, World, node};

fn saved(node: &Node) -> Index {
    let saved = HardState::read(&node.log).unwrap();
    saved.map_or(Index::ZERO, |saved| saved.commit)
}

#[test]
fn what_is_committed_is_saved_within_each_second_of_a_steady_small_load_on_every_node() {
    // Given a load that never pauses, too small for any other reason to save,
    let mut world = World::of(3, 35);
    let saves_before: Vec<u64> = world.nodes.values().map(|node| node.saves).collect();
    for ticket in 1..=100 {
        world.put(node(1), ticket);
        world.run(1);
        // then what each node has saved is at most a second behind what it has applied,
        for node in world.nodes.values() {
            let saved = saved(node);
            let applied = node.replica().applied().index;
            // An entry each tick, and ten of them are a second.
            assert!(
                ticket <= 12 || saved.get() + 12 >= applied.get(),
                "node {} has saved {saved} and applied {applied}",
                node.id
            );
        }
    }
    // at the price of one save a second.
    for (node, before) in world.nodes.values().zip(saves_before) {
        let saves = node.saves - before;
        assert!((8..=11).contains(&saves), "node {}: {saves}", node.id);
    }
}

#[test]
fn a_node_alone_saves_nothing_while_entries_flow() {
    let mut world = World::of_one(36);
    let before = world.nodes[&node(1)].saves;
    for ticket in 1..=100 {
        world.put(node(1), ticket);
        world.run(1);
    }
    assert_eq!(world.nodes[&node(1)].saves, before);
}

#[test]
fn a_node_that_acknowledged_stops_when_others_with_an_earlier_copy_have_gone_on() {
    // Given entries of a steady load that the leader and one follower have, the other one lags,
    let mut world = World::of(3, 37);
    world.isolate(node(2));
    let mut before = None;
    for ticket in 1..=60 {
        world.put(node(1), ticket);
        world.run(1);
        let follower = &world.nodes[&node(3)];
        if ticket == 10 {
            before = Some((follower.log.files(), follower.state.files()));
        }
    }
    assert!((1..=60).all(|ticket| world.is_acknowledged(ticket)));
    // when that follower's disks are put back, the leader is killed, and the two others go on,
    world.stop(node(1), CrashMode::LoseAll);
    let follower = world.get(node(3));
    follower.end();
    let (log, state) = before.unwrap();
    follower.log = SimulatedDisk::with_files(1, log);
    follower.state = SimulatedDisk::with_files(2, state);
    follower.start().unwrap();
    world.cut.clear();
    world.has_lost_entries = true;
    let leader = world.elect_of(&[node(2), node(3)]);
    world.put(leader, 61);
    world.run(3);
    // then the former leader knows that it has more, and stops when it hears of them.
    let former = world.get(node(1));
    former.may_fail = true;
    former.start().unwrap();
    let last = former.replica().durable();
    for _ in 0..20 {
        if world.nodes[&node(1)].failure.is_some() {
            break;
        }
        world.run(1);
    }
    let former = world.get(node(1));
    let failure = former.failure.take().expect("it has stopped");
    let said = failure.to_string();
    assert!(said.contains("is committed on this node"), "{said}");
    // Nothing of what it has was cut.
    former.start().unwrap();
    assert_eq!(former.replica().durable(), last);
}
