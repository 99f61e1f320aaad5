//! Copies of a member, opened alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use onelog::{KeyRange, NewTable, Node, NodeId, Options, Position};
use tempfile::TempDir;

use crate::rig::{Cluster, PATIENCE, TABLE, request, small};

fn rows(node: &Node) -> Vec<(bytes::Bytes, bytes::Bytes)> {
    let all = KeyRange {
        table: node.catalog().by_name(TABLE).unwrap().id,
        from: Default::default(),
        to: None,
    };
    let rows = node.snapshot().scan(&all, false).unwrap();
    rows.map(|row| row.unwrap())
        .map(|row| (row.key, row.value))
        .collect()
}

/// A copy takes the place of the first node of another cluster.
fn restored(copy: TempDir) -> Cluster {
    let mut cluster = Cluster::empty();
    cluster.place_in(1, copy);
    cluster.start(1, &[]).unwrap();
    cluster
}

#[test]
fn a_follower_is_copied_under_load_and_the_copy_begins_alone_and_grows_to_three() {
    // Given three nodes and a client that writes,
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    let follower = leader % 3 + 1;
    let text = "x".repeat(500);
    for n in 0..300 {
        cluster.put(leader, &format!("before-{n}"), &text).unwrap();
    }
    let ends = Arc::new(AtomicBool::new(false));
    let writer = {
        let (node, ends) = (cluster.get(leader).clone(), Arc::clone(&ends));
        let (table, text) = (cluster.table(leader), text.clone());
        thread::spawn(move || {
            for n in 0.. {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("during-{n}");
                node.submit(request(table, &key, &text)).wait().unwrap();
            }
        })
    };
    let caught_up = cluster.get(leader).position();
    cluster
        .get(follower)
        .wait_for_blocking(caught_up, PATIENCE)
        .unwrap();
    // when a follower is copied meanwhile,
    let copy = TempDir::new().unwrap();
    let position = cluster.get(follower).backup(copy.path()).unwrap();
    assert!(position >= caught_up);
    ends.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let wanted = {
        // The follower has this position, or had it a moment ago.
        let node = cluster.get(leader);
        let snapshot = node.snapshot_at(position).unwrap();
        let all = KeyRange {
            table: cluster.table(leader),
            from: Default::default(),
            to: None,
        };
        let rows = snapshot.scan(&all, false).unwrap();
        rows.map(|row| row.unwrap())
            .map(|row| (row.key, row.value))
            .collect::<Vec<_>>()
    };
    // then the copy can be opened by a node that is alone, and has all rows below its position;
    let alone = Node::open(small(Options::new(copy.path()))).unwrap();
    assert_ne!(alone.log_id(), cluster.get(leader).log_id());
    assert_eq!(alone.position(), position);
    assert_eq!(rows(&alone), wanted);
    assert!(wanted.len() >= 300);
    alone.stop().unwrap();
    drop(alone);
    // and it grows to three again, while the former nodes run on.
    let mut second = restored(copy);
    second.join(2);
    second.join(3);
    second.put(second.leader(), "after", "1").unwrap();
    second.check_equal();
    for id in [1, 2, 3] {
        assert_eq!(rows(second.get(id)).len(), wanted.len() + 1);
        let members = second.status(id).members;
        assert_eq!(members.len(), 3, "{members:?}");
    }
    cluster.check_equal();
}

#[test]
fn the_copy_of_a_cluster_that_has_removed_its_first_node_grows_as_well() {
    // Given two nodes, of which the one that began the log was removed,
    let mut cluster = Cluster::of(3);
    cluster.put(1, "a", "1").unwrap();
    cluster.get(2).remove_member_blocking(NodeId(1)).unwrap();
    cluster.stop(1);
    cluster.leader();
    let copy = TempDir::new().unwrap();
    let at = cluster.get(3).read_barrier_blocking().unwrap();
    // when one of the others is copied,
    assert_eq!(cluster.get(3).backup(copy.path()).unwrap(), at);
    // then the copy is that of a node 1, and others join it, under their former numbers too.
    let mut second = restored(copy);
    second.join(2);
    second.join(4);
    second.put(second.leader(), "b", "1").unwrap();
    second.check_equal();
    // A node of the former cluster is not taken for one of this.
    second.stop(2);
    second.start(2, &[]).unwrap();
    second.put(2, "c", "1").unwrap();
    second.check_equal();
    assert_eq!(cluster.value(2, "b"), None);
}

#[test]
fn a_node_that_was_sent_a_snapshot_and_nothing_since_is_copied() {
    // Given a node whose log begins behind a snapshot that has everything,
    let mut cluster = Cluster::empty();
    cluster.options = |options| Options {
        retain_bytes: Some(0),
        checkpoint_interval_ms: 50,
        snapshot_age_ms_max: 50,
        ..small(options)
    };
    cluster.place(1);
    cluster.start(1, &[]).unwrap();
    let made = cluster.get(1).create_table_blocking(NewTable::keyed(TABLE));
    made.unwrap();
    cluster.place(2);
    let address = cluster.address(2);
    let added = cluster.get(1).add_member_blocking(NodeId(2), address);
    added.unwrap();
    let text = "x".repeat(2_000);
    for n in 0..400 {
        cluster.put(1, &format!("k{n}"), &text).unwrap();
    }
    let end = cluster.get(1).position();
    cluster.wait(1, |_| {
        let status = cluster.get(1).status();
        let is_covered = status.memtable_bytes == 0 && !status.checkpoint_running;
        is_covered && status.log_start > Position::ZERO
    });
    cluster.start(2, &[1]).unwrap();
    let node = cluster.get(2);
    node.wait_for_blocking(end, PATIENCE).unwrap();
    assert!(node.log_start() > Position::ZERO);
    // when it is copied,
    let copy = TempDir::new().unwrap();
    assert_eq!(node.backup(copy.path()).unwrap(), end);
    // then everything is in the copy, which goes on alone.
    let alone = Node::open(small(Options::new(copy.path()))).unwrap();
    assert_eq!(rows(&alone).len(), 400);
    alone.transact(|tx| tx.put(TABLE, "more", "1")).unwrap();
    assert!(alone.position() > end);
    alone.stop().unwrap();
    drop(alone);
    let again = Node::open(small(Options::new(copy.path()))).unwrap();
    assert_eq!(rows(&again).len(), 401);
}
