//! A node that was alone becomes a cluster.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::{io, thread};

use onelog::{Node, NodeId, Options, TlsFiles};
use onelog_log::{Disk, DiskFile, SimulatedDisk};
use onelog_testkit::Authority;

use crate::rig::{Cluster, PATIENCE, Place, small};

#[test]
fn a_node_with_data_grows_to_three_and_all_have_the_same() {
    // Given a node that is alone, with data from before,
    let mut cluster = Cluster::empty();
    let folder = cluster.place(1).folder.path().to_path_buf();
    let alone = Node::open(small(Options::new(&folder))).unwrap();
    let made = alone.create_table_blocking(onelog::NewTable::keyed(crate::rig::TABLE));
    made.unwrap();
    for n in 0..100 {
        alone
            .transact(|tx| tx.put(crate::rig::TABLE, format!("k{n}"), format!("{n}")))
            .unwrap();
    }
    alone.stop().unwrap();
    drop(alone);
    // when it is opened as one of a cluster, and two others join,
    cluster.start(1, &[]).unwrap();
    cluster.join(2);
    cluster.join(3);
    // then all three vote and have everything,
    let status = cluster.status(1);
    assert_eq!(status.members.len(), 3);
    assert!(status.members.iter().all(|member| member.is_voter));
    cluster.check_equal();
    assert_eq!(cluster.value(3, "k99").as_deref(), Some("99"));
    // and what is written on the leader is read on the others.
    let leader = cluster.leader();
    let committed = cluster.put(leader, "k1", "\"new\"").unwrap();
    for id in [1, 2, 3] {
        let node = cluster.get(id);
        node.wait_for_blocking(committed.position, PATIENCE)
            .unwrap();
        assert_eq!(cluster.value(id, "k1").as_deref(), Some("\"new\""));
    }
    cluster.check_equal();
}

#[test]
fn a_learner_follows_and_a_node_that_is_no_member_cannot_be_promoted() {
    let mut cluster = Cluster::of_one();
    cluster.learn(2);
    cluster.wait(2, |status| status.is_member);
    cluster.put(1, "a", "1").unwrap();
    cluster.check_equal();
    let refused = cluster.get(1).promote_member_blocking(NodeId(7));
    assert_eq!(refused, Err(onelog::MembersChangeError::NoMember(7)));
    let refused = cluster.get(1).transfer_leadership_blocking(NodeId(2));
    assert_eq!(refused, Err(onelog::MembersChangeError::NoVoterYet(2)));
}

#[test]
fn a_node_that_has_moved_is_found_at_its_new_address() {
    // Given three nodes, of which one stops,
    let mut cluster = Cluster::of(3);
    cluster.stop(3);
    cluster.put(1, "a", "1").unwrap();
    // when it comes back at another address,
    let elsewhere = Place::new();
    let mut options = cluster.node_options(3, &[1, 2]);
    let moved = options.cluster.as_mut().unwrap();
    moved.listen = elsewhere.address().parse().unwrap();
    cluster.start_with(3, options).unwrap();
    // then the others find it there,
    cluster.check_equal();
    // and one that joins later does too: it is recorded where the node is.
    let leader = cluster.leader();
    let address = elsewhere.address();
    cluster
        .get(2)
        .add_member_blocking(NodeId(3), &address)
        .unwrap();
    let is_there = |status: &onelog::ClusterStatus| {
        let member = status.members.iter().find(|member| member.node == 3);
        member.is_some_and(|member| member.address.as_deref() == Some(&address))
    };
    cluster.wait(leader, is_there);
    cluster.learn(4);
    cluster.wait(4, is_there);
    cluster.check_equal();
}

/// The disk of a state that is not opened before it may be.
#[derive(Debug)]
struct Slow {
    disk: SimulatedDisk,
    go: Mutex<Receiver<()>>,
}

impl Slow {
    fn wait(&self) {
        let _ = self.go.lock().unwrap().recv();
    }
}

impl Disk for Slow {
    fn list(&self) -> io::Result<Vec<String>> {
        self.wait();
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.wait();
        self.disk.open(name)
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(name, len)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_folder()
    }
}

#[test]
fn a_node_that_has_moved_is_found_by_one_that_it_called_while_that_one_was_starting() {
    // Given three nodes of which the third one starts slowly,
    let mut cluster = Cluster::of(2);
    let [log, state] = [1, 2].map(SimulatedDisk::new);
    let open = |cluster: &Cluster, go| {
        let state = Slow {
            disk: state.clone(),
            go: Mutex::new(go),
        };
        let options = cluster.node_options(3, &[1, 2]);
        Node::open_on(Arc::new(log.clone()), Arc::new(state), options).unwrap()
    };
    cluster.place(3);
    let (_, at_once) = channel();
    let third = open(&cluster, at_once);
    cluster.adopt(3, third);
    let address = cluster.address(3);
    let joining = cluster.get(1);
    joining.add_member_blocking(NodeId(3), address).unwrap();
    cluster.get(1).promote_member_blocking(NodeId(3)).unwrap();
    cluster.check_equal();
    cluster.stop(3);
    cluster.stop(1);
    // when the first one comes back at another address, and calls it meanwhile,
    let elsewhere = Place::new();
    let mut options = cluster.node_options(1, &[2, 3]);
    let moved = options.cluster.as_mut().unwrap();
    moved.listen = elsewhere.address().parse().unwrap();
    let (opens, go) = channel();
    let (first, third) = thread::scope(|scope| {
        let third = scope.spawn(|| open(&cluster, go));
        let first = Node::open(options).unwrap();
        let has_called = |status: &onelog::ClusterStatus| {
            let mut members = status.members.iter();
            members.any(|member| member.node == 3 && member.is_connected)
        };
        first.wait_for_cluster(PATIENCE, has_called).unwrap();
        drop(opens);
        (first, third.join().unwrap())
    });
    cluster.adopt(1, first);
    cluster.adopt(3, third);
    // then it finds the first one where that is.
    let address = elsewhere.address();
    cluster.wait(3, |status| {
        let first = status.members.iter().find(|member| member.node == 1);
        first.is_some_and(|first| first.is_connected && first.address.as_ref() == Some(&address))
    });
    cluster.check_equal();
}

#[test]
fn nodes_with_certificates_form_a_cluster() {
    let mut authority = Authority::new();
    let mut cluster = Cluster::empty();
    for id in [1, 2] {
        cluster.place(id);
        let certificates = authority.issue(&format!("node-{id}.onelog"));
        let mut options = cluster.node_options(id, if id == 1 { &[] } else { &[1] });
        options.cluster.as_mut().unwrap().tls = Some(TlsFiles {
            certificate: certificates.certificate.clone(),
            key: certificates.key.clone(),
            authority: certificates.root.clone(),
        });
        cluster.start_with(id, options).unwrap();
    }
    let table = onelog::NewTable::keyed(crate::rig::TABLE);
    cluster.get(1).create_table_blocking(table).unwrap();
    let address = cluster.address(2);
    cluster
        .get(1)
        .add_member_blocking(NodeId(2), address)
        .unwrap();
    cluster.get(2).promote_member_blocking(NodeId(2)).unwrap();
    cluster.put(1, "a", "1").unwrap();
    cluster.check_equal();
}

#[test]
fn status_and_figures_show_the_cluster() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    let end = cluster.get(leader).read_barrier_blocking().unwrap();
    let all_heard = |status: &onelog::ClusterStatus| {
        let others = status.members.iter().filter(|m| m.node != leader);
        others
            .filter(|m| m.is_active == Some(true) && m.is_connected)
            .count()
            == 2
    };
    cluster.wait(leader, all_heard);
    let status = serde_json::to_value(cluster.get(leader).status()).unwrap();
    assert_eq!(status["cluster"]["leader"], leader);
    assert_eq!(status["cluster"]["members"].as_array().unwrap().len(), 3);
    assert!(cluster.get(leader).position() >= end);
    let text = cluster.get(leader).metrics_text();
    for line in [
        "onelog_cluster_leads 1",
        "onelog_cluster_voters 3",
        &format!("onelog_cluster_leader {leader}"),
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let other = leader % 3 + 1;
    let matched = format!("onelog_cluster_peer_matched{{node=\"{other}\"}}");
    assert!(text.contains(&matched), "{text}");
    for (figure, value) in [("active", 1), ("takes_snapshot", 0), ("connected", 1)] {
        let line = format!("onelog_cluster_peer_{figure}{{node=\"{other}\"}} {value}");
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert!(
        cluster
            .get(other)
            .metrics_text()
            .contains("onelog_cluster_leads 0")
    );
}
