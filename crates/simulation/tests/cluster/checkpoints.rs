//! A checkpoint says more of what is committed than the hard state: that one is saved now and then.

use onelog_log::{CrashMode, HardState, SimulatedDisk};
use onelog_record::{Index, NodeId};
use onelog_replica::{ReplicaOptions, StartError};
use onelog_simulation::cluster::{World, node, options};

const FOLLOWER: NodeId = NodeId(2);

fn often(id: NodeId) -> ReplicaOptions {
    ReplicaOptions {
        checkpoint_interval_ms: 500,
        ..options(id)
    }
}

fn saved_commit(world: &World) -> Index {
    let saved = HardState::read(&world.nodes[&FOLLOWER].log).unwrap();
    saved.map_or(Index::ZERO, |saved| saved.commit)
}

/// A follower whose checkpoint goes beyond what its hard state knows to be committed; up to where the
/// checkpoint goes.
fn with_a_checkpoint_ahead(seed: u64) -> (World, Index) {
    let mut world = World::of_with(3, seed, often);
    let checkpointed = |world: &World| {
        let state = world.nodes[&FOLLOWER].replica().state();
        state.checkpointed().index
    };
    let mut ticket = 0;
    while ticket < 20 || saved_commit(&world) >= checkpointed(&world) {
        ticket += 1;
        assert!(ticket <= 100, "no checkpoint is ahead of what is saved");
        world.put(node(1), ticket);
        world.run(1);
    }
    let checkpoint = checkpointed(&world);
    (world, checkpoint)
}

#[test]
fn what_a_checkpoint_has_is_committed_after_a_crash_also_where_the_hard_state_does_not_say_so() {
    // Given a follower whose checkpoint is ahead of the saved commit,
    let (mut world, checkpoint) = with_a_checkpoint_ahead(60);
    // when it crashes, and starts without a leader,
    world.isolate(FOLLOWER);
    world.crash(FOLLOWER, CrashMode::LoseAll);
    // then what it has checkpointed is applied, and it goes on as any other,
    assert!(world.nodes[&FOLLOWER].replica().applied().index >= checkpoint);
    world.cut.clear();
    world.run(30);
    let leader = world.elect();
    world.put(leader, 101);
    world.run(10);
    assert!(
        (1..=20)
            .chain([101])
            .all(|ticket| world.is_acknowledged(ticket))
    );
    world.check_end();
    // and it can lead.
    world.isolate(node(1));
    world.elect_of(&[FOLLOWER, node(3)]);
}

#[test]
fn a_checkpoint_of_what_the_log_does_not_have_is_refused() {
    // Given a follower whose checkpoint is ahead of the saved commit,
    let mut world = World::of_with(3, 61, often);
    world.put(node(1), 1);
    world.run(3);
    let old = world.nodes[&FOLLOWER].log.files();
    for ticket in 2..=20 {
        world.put(node(1), ticket);
        world.settle();
    }
    world.run(20);
    let follower = world.get(FOLLOWER);
    let checkpoint = follower.replica().state().checkpointed().index;
    // when its log is an older one, which ends before that,
    follower.end();
    follower.log = SimulatedDisk::with_files(1, old);
    // then it does not start, and says what contradicts what.
    let error = follower.start().unwrap_err();
    let StartError::Mismatch { state, last, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(state, checkpoint);
    assert!(last < checkpoint);
    assert!(!follower.runs());
}
