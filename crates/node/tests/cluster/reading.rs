//! Reads on followers, and followers that are far behind.

use std::collections::BTreeSet;

use onelog::{Node, NodeId, Options};

use crate::rig::{Cluster, PATIENCE, small};

#[test]
fn a_barrier_on_any_node_sees_what_was_acknowledged_on_another() {
    let cluster = Cluster::of(3);
    for n in 0..60 {
        let (at, on) = (n % 3 + 1, (n + 1) % 3 + 1);
        let value = n.to_string();
        let committed = cluster.put(at, "k", &value).unwrap();
        let position = cluster.get(on).read_barrier_blocking().unwrap();
        assert!(position >= committed.position);
        assert_eq!(cluster.value(on, "k"), Some(value));
    }
}

#[test]
fn a_node_that_is_alone_answers_a_barrier_with_its_own_position() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(small(Options::new(folder.path()))).unwrap();
    assert_eq!(node.read_barrier_blocking(), Ok(node.position()));
    assert!(node.cluster().is_none());
}

#[test]
fn a_transaction_that_was_read_on_a_follower_is_checked_by_the_leader() {
    let cluster = Cluster::of(2);
    let leader = cluster.leader();
    let follower = 3 - leader;
    cluster.put(leader, "k", "1").unwrap();
    cluster.get(follower).read_barrier_blocking().unwrap();
    // Given a transaction that has read a key on the follower,
    let mut tx = cluster.get(follower).begin();
    assert!(tx.get(crate::rig::TABLE, "k").unwrap().is_some());
    tx.put(crate::rig::TABLE, "sum", "2").unwrap();
    // when the key is written elsewhere, then it is a conflict,
    cluster.put(leader, "k", "2").unwrap();
    let refused = tx.commit_blocking();
    assert!(
        matches!(refused, Err(onelog::Refusal::Conflict { .. })),
        "{refused:?}"
    );
    // and the closure form reads again until it is none.
    let done = cluster.get(follower).transact(|tx| {
        let value = tx.get_json(crate::rig::TABLE, "k")?;
        tx.put_json(crate::rig::TABLE, "sum", &value)
    });
    let position = done.unwrap().position;
    cluster
        .get(follower)
        .wait_for_blocking(position, PATIENCE)
        .unwrap();
    assert_eq!(cluster.value(follower, "sum").as_deref(), Some("2"));
}

/// What a follower lacks is cut soon.
fn cutting(options: Options) -> Options {
    Options {
        retain_bytes: Some(64 << 10),
        checkpoint_interval_ms: 50,
        ..small(options)
    }
}

#[test]
fn a_follower_that_lacks_what_the_log_no_longer_has_gets_a_snapshot() {
    // Given three nodes that keep little of the log, of which one is away for long,
    let mut cluster = Cluster::empty();
    cluster.options = cutting;
    cluster.place(1);
    cluster.start(1, &[]).unwrap();
    let table = onelog::NewTable::keyed(crate::rig::TABLE);
    cluster.get(1).create_table_blocking(table).unwrap();
    cluster.join(2);
    cluster.join(3);
    cluster.stop(3);
    let leader = cluster.leader();
    let end = cluster.get(3 - leader).position();
    let value = format!("\"{}\"", "x".repeat(2_000));
    // What is cut is gone when the next cut begins.
    let mut cuts = [1, 2].map(|id| (id, BTreeSet::new()));
    for n in 0.. {
        cluster
            .put(leader, &format!("k{}", n % 300), &value)
            .unwrap();
        for (id, starts) in &mut cuts {
            let start = cluster.get(*id).log_start();
            starts.extend((start > end).then_some(start));
        }
        if cuts.iter().all(|(_, starts)| starts.len() > 1) {
            break;
        }
        assert!(n < 100_000, "the log is never cut");
    }
    // when it comes back, and another one joins, then both get there,
    cluster.start(3, &[1, 2]).unwrap();
    cluster.learn(4);
    cluster.check_equal_states();
    let log = cluster.place(3).folder.path().join("log");
    let names = std::fs::read_dir(log).unwrap();
    let mut names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    let is_copy = |name: String| name.ends_with(".kept");
    assert!(!names.any(is_copy), "a log that is behind is not copied");
    // and go on.
    cluster.get(1).promote_member_blocking(NodeId(4)).unwrap();
    cluster.put(4, "last", "1").unwrap();
    cluster.check_equal_states();
    assert!(
        cluster.get(3).log_start() > end,
        "what it lacked came as a snapshot"
    );
    // Also after a restart.
    cluster.stop(3);
    cluster.start(3, &[1, 2]).unwrap();
    cluster.check_equal_states();
}

#[test]
fn a_table_that_is_made_on_a_follower_can_be_used_there_at_once_also_when_others_make_it() {
    let cluster = Cluster::of(3);
    let making: Vec<_> = [1, 2, 3]
        .map(|id| {
            let node = cluster.get(id).clone();
            std::thread::spawn(move || {
                for n in 0..10 {
                    let name = format!("many.t{n}");
                    let table = onelog::NewTable::keyed(&name);
                    let (made, _) = node.create_table_blocking(table).unwrap();
                    node.transact(|tx| tx.put(&name, format!("{id}"), "1"))
                        .unwrap();
                    assert_eq!(made.name, name);
                }
            })
        })
        .into();
    for thread in making {
        thread.join().unwrap();
    }
    cluster.check_equal();
    assert_eq!(cluster.get(2).catalog().tables().count(), 11);
}
