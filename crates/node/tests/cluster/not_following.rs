//! Why a node does not follow is seen on the node itself and on the leader, until it follows.

use std::sync::Arc;

use onelog::{ClusterStatus, Node, NodeId, Options, Position};
use onelog_log::{Fault, SimulatedDisk};

use crate::rig::{Cluster, TABLE, small};

const MUCH: u64 = 1 << 40;

/// The disks of a node: that of its log and that of its state.
fn disks() -> [SimulatedDisk; 2] {
    [1, 2].map(|seed| {
        let disk = SimulatedDisk::new(seed);
        disk.set_free_bytes(MUCH);
        disk
    })
}

fn start_on(cluster: &mut Cluster, id: u64, peers: &[u64], disks: &[SimulatedDisk; 2]) {
    cluster.place(id);
    let [log, state] = disks.clone();
    let options = cluster.node_options(id, peers);
    let node = Node::open_on(Arc::new(log), Arc::new(state), options).unwrap();
    cluster.adopt(id, node);
}

fn add(cluster: &Cluster, id: u64) {
    let address = cluster.address(id);
    let added = cluster.get(1).add_member_blocking(NodeId(id), address);
    added.unwrap();
}

/// What a node's status says of node 2.
fn of_node_2(status: &ClusterStatus) -> Option<&str> {
    if status.node == 2 {
        return status.not_following.as_deref();
    }
    let member = status.members.iter().find(|member| member.node == 2)?;
    member.not_following.as_deref()
}

#[track_caller]
fn both_say(cluster: &Cluster, what: &str) {
    for id in [2, 1] {
        cluster.wait(id, |status| {
            of_node_2(status).is_some_and(|why| why.contains(what))
        });
    }
}

#[track_caller]
fn both_are_silent(cluster: &Cluster) {
    for id in [2, 1] {
        cluster.wait(id, |status| of_node_2(status).is_none());
    }
}

#[test]
fn a_follower_whose_disk_is_full_is_seen_on_the_leader_until_there_is_room() {
    // Given a follower with room,
    let mut cluster = Cluster::of_one();
    let disks = disks();
    start_on(&mut cluster, 2, &[1], &disks);
    add(&cluster, 2);
    cluster.put(1, "a", "1").unwrap();
    cluster.check_equal();
    both_are_silent(&cluster);
    // when its disk is full, then it says so, and so does the leader,
    disks[0].set_free_bytes(1 << 10);
    both_say(&cluster, "its disk has no room");
    assert_eq!(cluster.status(1).not_following, None);
    // and neither does when there is room.
    disks[0].set_free_bytes(MUCH);
    both_are_silent(&cluster);
    cluster.check_equal();
}

/// The log is soon cut, so that a new node needs a snapshot.
fn cutting(options: Options) -> Options {
    Options {
        retain_bytes: Some(64 << 10),
        checkpoint_interval_ms: 50,
        ..small(options)
    }
}

/// Node 1 has cut what a new node needs.
fn with_a_cut_log() -> Cluster {
    let mut cluster = Cluster::empty();
    cluster.options = cutting;
    start_on(&mut cluster, 1, &[], &disks());
    let table = onelog::NewTable::keyed(TABLE);
    cluster.get(1).create_table_blocking(table).unwrap();
    let value = format!("\"{}\"", "x".repeat(2_000));
    for n in 0.. {
        cluster.put(1, &format!("k{}", n % 100), &value).unwrap();
        if cluster.get(1).log_start() > Position::ZERO {
            break;
        }
        assert!(n < 100_000, "the log is never cut");
    }
    cluster
}

#[test]
fn a_new_node_that_has_no_room_for_a_snapshot_says_so_until_it_has() {
    let mut cluster = with_a_cut_log();
    // Given a new node whose disk has no room for the state,
    let disks = disks();
    start_on(&mut cluster, 2, &[1], &disks);
    disks[1].fail_at(disks[1].steps(), Fault::Full);
    // when it is sent one, then it says why it does not have it, and so does the leader,
    add(&cluster, 2);
    both_say(&cluster, "snapshot of node 1 not taken in");
    both_say(&cluster, "disk is full");
    assert!(!cluster.status(2).is_member);
    // and neither does once it has it.
    disks[1].mend();
    cluster.wait(2, |status| status.is_member);
    both_are_silent(&cluster);
    cluster.check_equal_states();
}
