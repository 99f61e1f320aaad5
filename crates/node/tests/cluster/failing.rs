//! Leaders that fail without a word: their disks break while clients write everywhere.

use std::collections::HashSet;
use std::sync::Arc;

use onelog::{Node, NodeId, Refusal, TxnId};
use onelog_log::{CrashMode, Disk, Fault, SimulatedDisk};

use crate::rig::{Cluster, PATIENCE};

/// The disks of one node.
struct Disks([SimulatedDisk; 2]);

impl Disks {
    fn new(seed: u64) -> Self {
        Self([SimulatedDisk::new(seed), SimulatedDisk::new(seed + 1)])
    }

    fn open(&self, cluster: &Cluster, id: u64, peers: &[u64]) -> Node {
        let [log, state] = self.0.clone().map(|disk| Arc::new(disk) as Arc<dyn Disk>);
        Node::open_on(log, state, cluster.node_options(id, peers)).unwrap()
    }

    /// The next step fails, and the ones after it.
    fn fail(&self, node: &Node) {
        while node.failure().is_none() {
            self.0[0].fail_at(self.0[0].steps(), Fault::Error);
            std::thread::yield_now();
        }
    }

    fn crash(&self) {
        for disk in &self.0 {
            disk.crash(CrashMode::LoseAll);
        }
    }
}

#[test]
fn a_request_that_met_a_leader_which_fails_is_carried_out_once_by_the_next_one() {
    // Given three nodes whose first one has a disk that will fail,
    let mut cluster = Cluster::empty();
    cluster.place(1);
    let disks = Disks::new(7);
    cluster.adopt(1, disks.open(&cluster, 1, &[]));
    let table = onelog::NewTable::keyed(crate::rig::TABLE);
    cluster.get(1).create_table_blocking(table).unwrap();
    cluster.join(2);
    cluster.join(3);
    cluster
        .get(2)
        .wait_for_cluster(PATIENCE, |status| status.leader.is_some())
        .unwrap();
    let mut acknowledged: Vec<TxnId> = Vec::new();
    for _ in 0..2 {
        cluster
            .get(2)
            .transfer_leadership_blocking(NodeId(1))
            .unwrap();
        cluster.wait(1, |status| status.leads);
        // when it fails with requests of clients of the other two on their way,
        let table = cluster.table(2);
        let put = |id: u64, n: usize| {
            cluster
                .get(id)
                .submit(crate::rig::request(table, &format!("k{n}"), "1"))
        };
        let before: Vec<_> = (0..50).map(|n| put(2 + n as u64 % 2, n)).collect();
        disks.fail(cluster.get(1));
        let behind: Vec<_> = (50..100).map(|n| put(2 + n as u64 % 2, n)).collect();
        // then each is answered by the next leader,
        for ticket in before.into_iter().chain(behind) {
            acknowledged.push(ticket.wait().unwrap().id);
        }
        // its own clients hear that it has stopped,
        let refused = cluster.put(1, "a", "1");
        assert!(matches!(refused, Err(Refusal::Stopped(_))), "{refused:?}");
        // and it comes back.
        drop(cluster.take(1));
        disks.crash();
        cluster.adopt(1, disks.open(&cluster, 1, &[2, 3]));
    }
    let ids = cluster.check_equal();
    let distinct: HashSet<_> = ids.iter().copied().collect();
    assert_eq!(distinct.len(), ids.len(), "no transaction is there twice");
    assert!(acknowledged.iter().all(|id| distinct.contains(id)));
}

#[test]
fn five_voters_go_on_without_two_of_them_which_catch_up_when_they_are_back() {
    // Given five voters, of which two have disks that will fail, and one of these leads,
    let mut cluster = Cluster::of(3);
    let failing = [(4, Disks::new(40)), (5, Disks::new(50))];
    for (id, disks) in &failing {
        cluster.place(*id);
        cluster.adopt(*id, disks.open(&cluster, *id, &[1]));
        let address = cluster.address(*id);
        let via = cluster.get(1);
        via.add_member_blocking(NodeId(*id), address).unwrap();
        via.promote_member_blocking(NodeId(*id)).unwrap();
    }
    for id in 1..=5 {
        cluster.wait(id, |status| {
            let voters = status.members.iter().filter(|member| member.is_voter);
            voters.count() == 5
        });
    }
    let via = cluster.get(1);
    via.transfer_leadership_blocking(NodeId(4)).unwrap();
    cluster.wait(4, |status| status.leads);
    cluster.put(1, "before", "1").unwrap();
    // when both fail,
    for (id, disks) in &failing {
        disks.fail(cluster.get(*id));
        drop(cluster.take(*id));
        disks.crash();
    }
    // then the other three go on,
    let leader = cluster.leader();
    assert!(leader <= 3);
    for id in 1..=3 {
        cluster.put(id, &format!("without-{id}"), "1").unwrap();
    }
    // both have everything when they are back, and are a majority with one other.
    for (id, disks) in &failing {
        cluster.adopt(*id, disks.open(&cluster, *id, &[1, 2, 3]));
    }
    let ids = cluster.check_equal();
    let distinct: HashSet<_> = ids.iter().copied().collect();
    assert_eq!(distinct.len(), ids.len(), "no transaction is there twice");
    for id in 1..=5 {
        assert!(cluster.value(id, "before").is_some(), "node {id}");
        assert!(cluster.value(id, "without-3").is_some(), "node {id}");
    }
    for id in [1, 2] {
        cluster.stop(id);
    }
    cluster.leader();
    cluster.put(3, "with", "1").unwrap();
    cluster.check_equal();
}
