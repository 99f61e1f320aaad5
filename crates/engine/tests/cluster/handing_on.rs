//! A leadership that changes hands: what the next leader may answer, and who may become it.

use onelog_engine::{Consensus as _, ELECTION_TICKS};
use onelog_record::{NodeId, Term};

use crate::world::{World, node};

/// Three nodes: the leader, and both others.
fn three(seed: u64) -> (World, NodeId, [NodeId; 2]) {
    let mut world = World::of(3, seed);
    let leader = world.elect();
    let mut others = [1, 2, 3].map(node).into_iter().filter(|id| *id != leader);
    let others = [others.next().unwrap(), others.next().unwrap()];
    (world, leader, others)
}

/// Everything is delivered, and nothing that arrives is flushed.
fn deliver(world: &mut World) {
    world.gather();
    while !world.mail.is_empty() {
        for message in std::mem::take(&mut world.mail) {
            world.deliver(message);
        }
        world.gather();
    }
}

#[test]
fn right_after_a_transfer_no_read_is_answered_before_the_new_leaders_own_entry_is_committed() {
    // Given a write that is acknowledged, which the next leader has and does not know to be committed,
    let (mut world, old, [new, away]) = three(40);
    world.run(3);
    world.isolate(away);
    world.put(old, 1);
    deliver(&mut world);
    for id in [old, new] {
        world.get(id.get()).flush(usize::MAX);
    }
    world.cut.insert((old, new));
    deliver(&mut world);
    world.cut.remove(&(old, new));
    assert!(world.is_acknowledged(1));
    assert!(world.nodes[&new].applied.len() < world.nodes[&old].applied.len());
    // when it has just been handed the leadership, and its own entry is on no disk,
    world
        .get(old.get())
        .does(|engine, out| engine.transfer(new, out).unwrap().unwrap());
    deliver(&mut world);
    assert!(world.nodes[&new].engine.raft().leads());
    // then it answers no read,
    world.read(new, 100);
    deliver(&mut world);
    assert!(!world.is_readable(100));
    // and one that sees the write when the entry is committed.
    world.settle();
    world.read(new, 101);
    world.settle();
    assert!(!world.is_readable(100) && world.is_readable(101));
    world.cut.clear();
    world.run(3);
    world.check_end();
}

#[test]
fn a_node_that_sought_the_leadership_in_vain_votes_for_one_that_has_more() {
    // Given a node that was cut off, lacks what the others have, and seeks the leadership in vain,
    let (mut world, old, [whole, behind]) = three(41);
    world.isolate(behind);
    world.put(old, 1);
    world.settle();
    world.run(3 * ELECTION_TICKS);
    // when the leader is lost and only these two are left,
    world.take_off(old);
    world.cut.clear();
    // then the one that has everything leads, although the other one seeks it too.
    assert_eq!(world.elect(), whole);
    world.put(whole, 2);
    world.settle();
    assert!(world.is_acknowledged(1) && world.is_acknowledged(2));
}

#[test]
fn a_node_of_a_higher_term_and_one_that_has_more_find_a_leader() {
    // Given a node that lacks entries, and has voted in a term of which no other one has heard,
    let (mut world, old, [whole, behind]) = three(42);
    world.isolate(behind);
    world.put(old, 1);
    world.settle();
    let mut disk = world.take_off(behind);
    disk.vote = (Term(disk.vote.0.get() + 5), behind.get());
    let voted = disk.vote.0;
    // when the leader is lost and only these two are left,
    world.take_off(old);
    world.cut.clear();
    world.start(behind, disk);
    // then the one that has everything leads, in a later term.
    assert_eq!(world.elect(), whole);
    assert!(world.nodes[&whole].engine.raft().term() > voted);
    world.put(whole, 2);
    world.settle();
    assert!(world.is_acknowledged(1) && world.is_acknowledged(2));
}
