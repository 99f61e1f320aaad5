//! Three nodes of the real binary, with addresses of their own and TLS between them, are killed,
//! stopped and cut off from each other, lose the power of a disk and find bits of their log flipped,
//! while clients append to lists through all of them.
//!
//! Every client repeats under its id what was not answered. In the end each node shows every list, and
//! what all clients saw must be strictly serializable: nothing acknowledged is lost, nothing is there
//! twice, and nothing refused is there at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail by them

mod clients;
mod disk;
mod faults;
mod network;
mod rig;

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use clients::{Client, Shared, read_all};
use faults::{Faults, Plan};
use onelog_simulation::cycles::{Outcome, Transaction, find};
use onelog_simulation::is_full;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rig::{Cluster, NODES, make_table, post};
use serde_json::json;

const CLIENTS: u32 = 4;
const SEED: u64 = 7;

const QUICK: Plan = Plan {
    kills: 5,
    pauses: 3,
    partitions: 3,
    whole_kills: 1,
    restarts: 1,
    flips: 1,
    power_cuts: 2,
};
const FULL: Plan = Plan {
    kills: 100,
    pauses: 50,
    partitions: 50,
    whole_kills: 20,
    restarts: 20,
    flips: 30,
    power_cuts: 30,
};

#[test]
fn clients_see_one_order_through_kills_pauses_and_partitions() {
    if !network::is_inside("clients_see_one_order_through_kills_pauses_and_partitions") {
        return;
    }
    // Given three nodes and clients that use all of them,
    let shared = Shared::default();
    let cluster = Cluster::start();
    let (mut history, mut faults) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let client = Client::new(&shared, number, SEED);
                scope.spawn(move || client.run())
            })
            .collect();
        // However this ends, the clients do as well.
        let _ends = Ends(&shared);
        // when nodes fail in every way, one after the other,
        let mut faults = Faults {
            cluster,
            shared: &shared,
            random: StdRng::seed_from_u64(SEED),
            without_leader: Vec::new(),
        };
        faults.run(if is_full() { &FULL } else { &QUICK });
        shared.ends.store(true, Ordering::SeqCst);
        let seen = clients.into_iter().map(|client| client.join().unwrap());
        (seen.flatten().collect::<Vec<_>>(), faults)
    });
    let end = NODES.map(|node| read_all(&shared, node, &history));
    history.extend(end);

    // then all of them saw one order, and each node shows the same in the end.
    report(&history, &mut faults.without_leader);
    let found = find(&history).unwrap();
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    let said = NODES.map(|node| faults.cluster.said(node));
    assert!(
        found.is_empty(),
        "{}\n{}",
        lines.join("\n"),
        said.join("\n")
    );
}

#[test]
fn a_node_that_is_behind_does_not_deny_a_table() {
    if !network::is_inside("a_node_that_is_behind_does_not_deny_a_table") {
        return;
    }
    // Given a node that was cut off before a table was made,
    let cluster = Cluster::start();
    let (leader, _) = cluster.wait_for_leader(&NODES);
    let others: Vec<u64> = NODES.into_iter().filter(|node| *node != leader).collect();
    let behind = others[0];
    for other in [leader, others[1]] {
        cluster.network.block(behind, other);
        cluster.network.block(other, behind);
    }
    make_table(leader, "faults.new");

    // when it is to write into the table, then it says that it cannot, not that there is none,
    let write = json!({"op": "put", "table": "faults.new", "key": "a", "value": 1});
    let transaction = json!({"writes": [write]});
    let (status, said) = post(behind, "/v1/transactions", &transaction);
    assert_eq!(
        (status, &said["error"]),
        (503, &json!("no_leader")),
        "{said}"
    );

    // and writes once it is connected again.
    for other in [leader, others[1]] {
        cluster.network.unblock(behind, other);
        cluster.network.unblock(other, behind);
    }
    let (status, said) = post(behind, "/v1/transactions", &transaction);
    assert_eq!(status, 200, "{said}");
}

/// Ends the load when it is dropped.
struct Ends<'s>(&'s Shared);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.ends.store(true, Ordering::SeqCst);
    }
}

fn report(history: &[Transaction], without_leader: &mut [Duration]) {
    let count = |outcome: Outcome, is_timed: bool| {
        let same = history.iter();
        same.filter(|t| t.outcome == outcome && t.is_timed == is_timed)
            .count()
    };
    println!(
        "{} committed or read, {} refused, {} never answered, {} reads of an old state",
        count(Outcome::Committed, true),
        count(Outcome::Refused, true),
        count(Outcome::Unknown, true),
        count(Outcome::Committed, false)
    );
    without_leader.sort_unstable();
    let at = |percent: usize| without_leader.get(without_leader.len() * percent / 100);
    println!(
        "without a leader {} times: median {:?}, p99 {:?}",
        without_leader.len(),
        at(50),
        at(99)
    );
}
