//! Stories of snapshots: of followers that need what the log no longer has.

use onelog_engine::MemberChange;
use onelog_log::{CrashMode, Fault};
use onelog_record::{Index, NodeId, TxnId};
use onelog_replica::{Event, ReplicaOptions};
use onelog_simulation::cluster::{World, node, options};

/// About how many calls of the disks crash in one test.
const CRASHES: usize = 40;

/// A world whose node 3 needs what the others' logs no longer have.
pub fn with_a_follower_far_behind(seed: u64) -> World {
    let mut world = World::of_with(3, seed, small);
    fill_without(&mut world, node(1), node(3));
    world
}

pub fn small(id: NodeId) -> ReplicaOptions {
    ReplicaOptions {
        retain_bytes: Some(16 << 10),
        checkpoint_interval_ms: 500,
        ..options(id)
    }
}

/// A node is away until the leader's log begins behind what it has.
fn fill_without(world: &mut World, leader: NodeId, away: NodeId) {
    world.isolate(away);
    for ticket in 1..=300 {
        world.put(leader, ticket);
        world.settle();
        if ticket % 20 == 0 {
            world.run(10);
            world.get(leader).handle(Event::Idle);
        }
    }
    world.settle();
    let first = world.nodes[&leader].replica().first_index();
    let there = world.nodes[&away].replica().applied().index;
    assert!(
        there < first,
        "node {away} is at {there}, the log begins at {first}"
    );
}

#[test]
fn a_follower_far_behind_gets_a_snapshot_and_then_the_rest() {
    let mut world = with_a_follower_far_behind(30);
    let before = world.nodes[&node(3)].replica().durable();
    world.cut.clear();
    for ticket in 301..=310 {
        world.put(node(1), ticket);
    }
    world.run(30);
    assert!(world.nodes[&node(3)].replica().first_index() > before);
    assert!(world.reached().often("a snapshot was installed") > 0);
    world.check_end();
    // It votes and leads as any other.
    let event = Event::Transfer(1, node(3));
    let leader = world.leader().unwrap();
    world.get(leader).handle(event);
    world.run(3);
    assert_eq!(world.leader(), Some(node(3)));
    // A retry of what only the snapshot says is found.
    world.put_as(node(3), 400, TxnId(5));
    world.put(node(3), 401);
    world.run(3);
    assert!(world.is_acknowledged(400) && world.is_acknowledged(401));
    world.crash(node(3), CrashMode::LoseAll);
    world.elect();
    world.run(30);
    world.check_end();
}

#[test]
fn a_node_that_joins_late_gets_a_snapshot_that_knows_it() {
    let mut world = World::of_one_with(31, small(node(1)));
    for ticket in 1..=300 {
        world.put(node(1), ticket);
        world.run(1);
        world.get(node(1)).handle(Event::Idle);
    }
    world.settle();
    assert!(world.nodes[&node(1)].replica().first_index() > Index(1));
    world.add(node(2), small(node(2)));
    world.change_and_wait(node(1), &[MemberChange::Learner(node(2))]);
    world.run(30);
    assert!(world.nodes[&node(2)].replica().first_index() > Index(1));
    world.check_end();
    world.change_and_wait(node(1), &[MemberChange::Voter(node(2))]);
    world.run(3);
    world.crash(node(2), CrashMode::LoseAll);
    world.put(node(1), 301);
    world.run(30);
    assert!(world.is_acknowledged(301));
    world.check_end();
}

#[test]
fn a_crash_at_any_call_of_the_disks_while_a_snapshot_is_installed_loses_nothing() {
    // Given how many calls it takes,
    let mut world = with_a_follower_far_behind(32);
    let steps = |world: &World| {
        let node = &world.nodes[&node(3)];
        (node.log.steps(), node.state.steps())
    };
    let before = steps(&world);
    world.cut.clear();
    world.run(20);
    assert!(world.reached().often("a snapshot was installed") > 0);
    let after = steps(&world);
    let log = (before.0..after.0).map(|step| (true, step));
    let state = (before.1..after.1).map(|step| (false, step));
    let points: Vec<_> = log.chain(state).collect();
    let mut finished = 0;
    // when power fails at some of them, then the node starts again and comes to the same.
    let stride = (points.len() / CRASHES).max(1);
    for (place, (is_log, step)) in points.into_iter().step_by(stride).enumerate() {
        let mut world = with_a_follower_far_behind(32);
        let there = world.get(node(3));
        let disk = if is_log { &there.log } else { &there.state };
        disk.fail_at(step, Fault::CrashNow);
        there.may_fail = true;
        world.cut.clear();
        world.run(20);
        world.stop(node(3), CrashMode::ALL[place % CrashMode::ALL.len()]);
        let there = world.get(node(3));
        there.may_fail = false;
        there.start().expect("it starts after the crash");
        finished += there
            .reached
            .often("an installation was finished by a start");
        let leader = world.elect();
        world.put(leader, 900);
        world.run(20);
        world.check_end();
    }
    assert!(finished > 0, "none came between state and log");
}

#[test]
fn a_former_leader_far_behind_gets_a_snapshot_and_leads_again() {
    // Given a node that has decided much, handed the leadership on, and was away,
    let mut world = World::of_with(3, 35, small);
    world.get(node(1)).handle(Event::Transfer(1, node(2)));
    world.run(3);
    fill_without(&mut world, node(2), node(1));
    // when it gets a snapshot, without a start in between, and leads again,
    world.cut.clear();
    world.run(30);
    assert!(world.reached().often("a snapshot was installed") > 0);
    world.get(node(2)).handle(Event::Transfer(2, node(1)));
    world.run(3);
    // then it takes requests as before.
    world.put(node(1), 501);
    world.define(node(1), "u", 502);
    world.run(3);
    assert!(world.is_acknowledged(501) && world.is_acknowledged(502));
    world.check_end();
}

fn kept_by(world: &World, id: NodeId) -> Vec<String> {
    let names = world.nodes[&id].log.files().into_keys();
    names.filter(|name| name.ends_with(".kept")).collect()
}

#[test]
fn what_a_leader_wrote_alone_is_copied_before_a_snapshot_takes_its_place() {
    // Given a leader that is cut off and writes much by itself,
    let mut world = World::of_with(3, 36, small);
    world.isolate(node(1));
    let shared = world.nodes[&node(1)].replica().durable();
    for ticket in 1_001..=1_500 {
        world.put(node(1), ticket);
        world.settle();
    }
    let last = world.nodes[&node(1)].replica().durable();
    let term = world.nodes[&node(1)].replica().role().term;
    assert!(last > Index(shared.0 + 490), "{shared} {last}");
    // while the others write less, and cut their log,
    let leader = world.elect_of(&[node(2), node(3)]);
    fill_without(&mut world, leader, node(1));
    assert!(world.nodes[&leader].replica().durable() < last);
    // when it comes back and gets a snapshot,
    world.cut.clear();
    world.run(30);
    assert!(world.reached().often("a snapshot was installed") > 0);
    // then a file has what it wrote, and the others, one of which was only behind, have none.
    let (from, last, term) = (shared.0 + 1, last.0, term.0);
    let name = format!("cut-{from:020}-{last:020}-{term:020}.kept");
    assert_eq!(kept_by(&world, node(1)), [name]);
    for id in [2, 3] {
        assert_eq!(kept_by(&world, node(id)), [""; 0]);
    }
    world.check_end();
}
