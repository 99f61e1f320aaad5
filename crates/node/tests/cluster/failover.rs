//! Clients on all nodes while leaders come and go.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use onelog::{Node, NodeId, Position, Refusal, TableId, TxnId};

use crate::rig::{Cluster, request};

/// A client that writes one key after the other until it is to end; what was acknowledged.
fn writes(node: &Node, name: &str, table: TableId, ends: &AtomicBool) -> Vec<(String, TxnId)> {
    let mut acknowledged = Vec::new();
    for n in 0.. {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{name}-{n}");
        match node.submit(request(table, &key, "1")).wait() {
            Ok(committed) => acknowledged.push((key, committed.id)),
            // Whether these were carried out is not known.
            Err(Refusal::Stopped(_)) => break,
            Err(Refusal::NotLeader | Refusal::Overloaded { .. }) => {}
            Err(refusal) => panic!("{key}: {refusal}"),
        }
    }
    acknowledged
}

#[test]
fn nothing_acknowledged_is_lost_while_leaders_are_stopped_and_started_in_turn() {
    // Given three nodes and a client on each,
    let mut cluster = Cluster::of(3);
    let table = cluster.table(1);
    let ends = std::sync::Arc::new(AtomicBool::new(false));
    let (done, acknowledged) = channel();
    let begin = |cluster: &Cluster, id: u64, round: usize| {
        let (node, ends, done) = (cluster.get(id).clone(), ends.clone(), done.clone());
        thread::spawn(move || {
            let found = writes(&node, &format!("{id}-{round}"), table, &ends);
            drop(node);
            done.send(found).unwrap();
        });
    };
    for id in [1, 2, 3] {
        begin(&cluster, id, 0);
    }
    // when the leader is stopped and comes back, several times,
    let rounds = 6;
    let mut found = BTreeMap::new();
    for round in 1..=rounds {
        let leader = cluster.leader();
        let before = cluster.get(leader).position();
        let enough = Position(before.get() + 20);
        cluster
            .get(leader)
            .wait_for_blocking(enough, crate::rig::PATIENCE)
            .unwrap();
        cluster.stop(leader);
        // Its client has ended with it.
        found.extend(acknowledged.recv().unwrap());
        let others: Vec<u64> = cluster.running();
        cluster.leader();
        cluster.start(leader, &others).unwrap();
        begin(&cluster, leader, round);
    }
    ends.store(true, Ordering::Relaxed);
    drop(done);
    for more in acknowledged {
        found.extend(more);
    }
    // then all have the same, every acknowledged write is there, and no id twice.
    let ids = cluster.check_equal();
    let distinct: HashSet<_> = ids.iter().copied().collect();
    assert_eq!(distinct.len(), ids.len(), "no transaction is there twice");
    assert!(found.len() >= 20 * rounds, "{}", found.len());
    for (key, id) in found {
        assert!(distinct.contains(&id), "{key} is lost");
        assert!(cluster.value(1, &key).is_some(), "{key} is lost");
    }
}

#[test]
fn the_leadership_is_handed_to_another_voter_on_request() {
    let cluster = Cluster::of(3);
    for to in [2, 3, 1] {
        let via = cluster.leader() % 3 + 1;
        cluster
            .get(via)
            .transfer_leadership_blocking(NodeId(to))
            .unwrap();
        cluster.wait(to, |status| status.leads);
        assert_eq!(cluster.leader(), to);
    }
    let refused = cluster.get(1).transfer_leadership_blocking(NodeId(9));
    assert_eq!(refused, Err(onelog::MembersChangeError::NoMember(9)));
}
