//! Stories of what waits: for a flush, for the end of a snapshot's way, for the end of a replay, for a
//! leader.

use onelog_engine::{MemberChange, Message};
use onelog_log::{CrashMode, HardState};
use onelog_record::{Index, NodeId};
use onelog_replica::Event;
use onelog_simulation::cluster::{Node, World, node};

use crate::snapshots::{small, with_a_follower_far_behind};

/// More ticks than anything takes.
const LONG: usize = 300;

/// Everything happens on all nodes but `late`, whose jobs do not end; messages for it are handed to
/// `take`.
fn without(world: &mut World, late: NodeId, take: &mut dyn FnMut(Message)) {
    loop {
        let mut is_busy = false;
        for node in world.nodes.values_mut().filter(|node| node.id != late) {
            is_busy |= node.turn();
            is_busy |= node.run_all_jobs();
        }
        world.gather();
        is_busy |= !world.mail.is_empty();
        for message in std::mem::take(&mut world.mail) {
            match message.to() == late {
                true => take(message),
                false => world.deliver(message),
            }
        }
        if !is_busy {
            return;
        }
    }
}

fn tick_without(world: &mut World, late: NodeId) {
    let others = world.nodes.values_mut().filter(|node| node.id != late);
    others.for_each(Node::tick);
}

/// Time passes, in which no snapshot moves.
#[track_caller]
fn pass_until(world: &mut World, done: impl Fn(&World) -> bool) {
    for _ in 0..LONG {
        if done(world) {
            return;
        }
        world.nodes.values_mut().for_each(Node::tick);
        world.settle_but_snapshots();
    }
    panic!("it never happens");
}

#[test]
fn a_snapshot_that_comes_behind_a_waiting_cut_is_installed() {
    // Given a leader that is not heard any more, whose own writes are still being flushed,
    let (late, away) = (node(1), node(4));
    let mut world = World::of_with(3, 41, small);
    world.add(away, small(away));
    world.change_and_wait(late, &[MemberChange::Learner(away)]);
    world.isolate(away);
    world.cut.extend([(late, node(2)), (late, node(3))]);
    for ticket in 1001..=1003 {
        world.put(late, ticket);
    }
    // the next leader, whose first entries are late,
    let mut entries: Vec<Message> = Vec::new();
    let leader = (0..LONG).find_map(|_| {
        tick_without(&mut world, late);
        without(&mut world, late, &mut |message| {
            entries.extend(Some(message).filter(Message::has_entries));
        });
        let mut others = [2, 3].map(node).into_iter();
        others.find(|id| world.nodes[id].admits())
    });
    let leader = leader.expect("one leads");
    let first = entries.pop().expect("it sends the first entry of its term");
    assert_eq!(first.from(), leader);
    // whose log begins far behind them by now, so that it has a snapshot to send.
    for ticket in 1..=300 {
        world.put(leader, ticket);
        without(&mut world, late, &mut drop);
        if ticket % 20 == 0 {
            tick_without(&mut world, late);
            world.get(leader).handle(Event::Idle);
        }
    }
    let before = world.nodes[&late].replica().applied().index;
    assert!(world.nodes[&leader].replica().first_index() > before.next());
    world.cut.retain(|(from, _)| *from == late);
    for _ in 0..LONG {
        if world.nodes[&leader].has_snapshot_to_send() {
            break;
        }
        tick_without(&mut world, late);
        without(&mut world, late, &mut drop);
    }
    // When the entries come, and then a snapshot, before the flush has ended,
    assert!(world.carry_snapshot(0), "its way begins");
    world.redirect_snapshots(late);
    world.deliver(first);
    let waits = |world: &World| world.nodes[&late].replica().waits_for_jobs();
    assert!(waits(&world), "a cut waits");
    world.cut.clear();
    while world.carry_snapshot(0) {}
    assert!(waits(&world));
    assert_eq!(world.nodes[&late].replica().observer().installs, 0);
    let (to, is_whole) = (away, false);
    world
        .get(leader)
        .handle(Event::SnapshotSent { to, is_whole });
    // then the one is cut and the other installed when it has.
    world.get(late).run_all_jobs();
    let watch = world.nodes[&late].replica().observer();
    assert_eq!((watch.cuts, watch.installs), (1, 1));
    world.run(20);
    world.check_end();
}

#[test]
fn a_node_is_sent_one_snapshot_at_a_time_whichever_node_led_meanwhile() {
    // Given a leader whose snapshot is on its way to a follower,
    let mut world = with_a_follower_far_behind(42);
    world.cut.clear();
    let away = node(3);
    pass_until(&mut world, |world| {
        world.nodes[&node(1)].has_snapshot_to_send()
    });
    assert!(world.carry_snapshot(0), "its way begins");
    let takes_snapshot = |world: &World| {
        let peers = world.nodes[&node(1)].replica().peers();
        let mut peers = peers.iter();
        peers.any(|peer| peer.node == away && peer.takes_snapshot)
    };
    // when another node leads, and then it again,
    for (from, to) in [(1, 2), (2, 1)] {
        world
            .get(node(from))
            .handle(Event::Transfer(to as u32, node(to)));
        pass_until(&mut world, |world| world.nodes[&node(to)].admits());
    }
    pass_until(&mut world, takes_snapshot);
    // then the snapshot that is on its way is the only one, and its end the answer to both.
    assert!(!world.nodes[&node(1)].has_snapshot_to_send());
    world.run(30);
    assert!(!takes_snapshot(&world));
    assert!(world.reached().often("a snapshot was installed") > 0);
    world.check_end();
}

/// What is saved as committed, and known to be durable.
fn saved(node: &Node) -> (Index, Index) {
    let found = HardState::read(&node.log).unwrap().expect("it has a log");
    (found.commit, found.durable)
}

#[test]
fn what_was_saved_as_committed_never_falls_while_a_start_replays() {
    // Given a founder whose checkpoint knows of no other member, that has saved what is committed,
    let mut world = World::of(3, 43);
    for ticket in 1..=3 {
        world.put(node(1), ticket);
    }
    world.run(3);
    world.get(node(1)).handle(Event::Idle);
    world.get(node(1)).run_all_jobs();
    let (commit, _) = saved(&world.nodes[&node(1)]);
    // and then took more,
    world.isolate(node(1));
    world.put(node(1), 4);
    world.settle();
    // when nothing happens for a moment while it starts again, before it has replayed anything,
    world.stop(node(1), CrashMode::LoseAll);
    let founder = world.get(node(1));
    founder.open().unwrap();
    founder.handle(Event::Idle);
    founder.lead_on().unwrap();
    // then it knows what is committed as before, and so does what is saved with the next vote.
    let applied = founder.replica().applied().index;
    assert!(applied >= commit, "applied {applied}, committed {commit}");
    founder.run_all_jobs();
    assert!(saved(founder).0 >= commit);
    world.cut.clear();
    world.elect();
    world.run(10);
    let (now, _) = saved(&world.nodes[&node(1)]);
    assert!(now >= commit, "saved {now}, before {commit}");
    world.check_end();
}

#[test]
fn a_stop_does_not_wait_for_a_transfer_that_no_leader_will_answer() {
    // Given a leader that is cut off, and hands the leadership on before it notices,
    let mut world = World::of(3, 44);
    world.isolate(node(1));
    world.run(11);
    assert!(world.nodes[&node(1)].admits());
    world.get(node(1)).handle(Event::Transfer(1, node(3)));
    // when it has lost the leadership, and nobody knows who leads,
    pass_until(&mut world, |world| {
        world.nodes[&node(1)].replica().role().leader.is_none()
    });
    assert!(!world.transferred.contains_key(&1), "it is not known");
    // then it stops at once, and takes out what waits.
    world.get(node(1)).handle(Event::Stop);
    let former = &mut world.get(node(1)).life().replica;
    assert!(former.is_drained());
    assert_eq!(former.abandon(), [1]);
}
