//! Who may take part: lost disks, other logs, nodes that were removed.

use std::time::Duration;

use onelog::{
    ClusterError, ClusterOptions, MembersChangeError, Node, NodeId, OpenError, Options, Refusal,
};

use crate::rig::{Cluster, PATIENCE, small};

/// Long enough for what answers at all; waited for in vain.
const SHORT: Duration = Duration::from_millis(300);

fn cluster_of(options: &mut Options) -> &mut ClusterOptions {
    options.cluster.as_mut().unwrap()
}

#[test]
fn a_founder_that_has_lost_its_disk_is_refused_and_comes_back_under_a_new_number() {
    // Given a cluster of three whose first node loses its disk,
    let mut cluster = Cluster::of(3);
    cluster.put(1, "a", "1").unwrap();
    cluster.stop(1);
    let lost = tempfile::tempdir().unwrap();
    let mut options = cluster.node_options(1, &[2, 3]);
    options.folder = lost.path().to_path_buf();
    // when it starts with an empty one, then it is refused and the error says what to do,
    let refused = Node::open(options.clone()).unwrap_err();
    let text = refused.to_string();
    assert!(
        matches!(refused, OpenError::Cluster(ClusterError::DiskLost { .. })),
        "{text}"
    );
    assert!(text.contains("under a new number"), "{text}");
    // also when it is to found the cluster.
    cluster_of(&mut options).found = true;
    let refused = Node::open(options).unwrap_err();
    assert!(
        matches!(refused, OpenError::Cluster(ClusterError::DiskLost { .. })),
        "{refused}"
    );
    // A new number takes its place.
    cluster.get(2).remove_member_blocking(NodeId(1)).unwrap();
    cluster.learn(4);
    cluster.get(3).promote_member_blocking(NodeId(4)).unwrap();
    let ids = cluster.check_equal();
    assert!(!ids.is_empty());
    assert_eq!(cluster.value(4, "a").as_deref(), Some("1"));
}

/// A node starts with another folder, which is empty.
fn start_empty(cluster: &Cluster, id: u64, peers: &[u64]) -> Result<Node, OpenError> {
    let mut options = cluster.node_options(id, peers);
    cluster_of(&mut options).start_timeout = SHORT;
    let folder = tempfile::tempdir().unwrap();
    options.folder = folder.path().to_path_buf();
    Node::open(options)
}

#[test]
fn a_voter_that_has_lost_its_disk_is_refused_and_so_is_a_learner_that_had_the_log() {
    // Given three voters and a learner that has the log,
    let mut cluster = Cluster::of(3);
    cluster.learn(4);
    cluster.put(1, "a", "1").unwrap();
    cluster.check_equal();
    let leader = cluster.leader();
    cluster.wait(leader, |status| {
        let learner = status.members.iter().find(|member| member.node == 4);
        learner.is_some_and(|learner| learner.matched > Some(0)) || !status.leads
    });
    for id in [4, 3] {
        cluster.stop(id);
        let leader = cluster.leader();
        // when one of them comes back with an empty folder, then it is refused by name,
        let refused = start_empty(&cluster, id, &[1, 2]).unwrap_err();
        let is_named = matches!(
            refused,
            OpenError::Cluster(ClusterError::NodeDiskLost { .. })
        );
        assert!(is_named, "{refused}");
        assert!(refused.to_string().contains("under a new number"));
        // also by a follower, which requests it of the leader.
        let follower = if leader == 1 { 2 } else { 1 };
        let refused = start_empty(&cluster, id, &[follower]).unwrap_err();
        let is_named = matches!(
            refused,
            OpenError::Cluster(ClusterError::NodeDiskLost { .. })
        );
        assert!(is_named, "{refused}");
    }
    // A cluster without a leader cannot say that the node is new.
    cluster.stop(2);
    cluster.place(5);
    let refused = start_empty(&cluster, 5, &[1]).unwrap_err();
    let is_named = matches!(refused, OpenError::Cluster(ClusterError::NoLeader { .. }));
    assert!(is_named, "{refused}");
}

#[test]
fn the_time_until_an_election_is_chosen_within_bounds() {
    let mut cluster = Cluster::empty();
    cluster.place(1);
    for wrong in [0, onelog::ELECTION_MS_MIN - 1, onelog::ELECTION_MS_MAX + 1] {
        let mut options = cluster.node_options(1, &[]);
        cluster_of(&mut options).election_ms = wrong;
        let refused = Node::open(options).unwrap_err();
        let is_named = matches!(
            refused,
            OpenError::Cluster(ClusterError::ElectionTime { .. })
        );
        assert!(is_named, "{refused}");
    }
    let mut options = cluster.node_options(1, &[]);
    cluster_of(&mut options).election_ms = onelog::ELECTION_MS_MIN;
    drop(Node::open(options).unwrap());
}

#[test]
fn a_node_that_was_added_before_its_first_start_is_new() {
    let mut cluster = Cluster::of_one();
    cluster.put(1, "a", "1").unwrap();
    cluster.place(2);
    let address = cluster.address(2);
    let added = cluster.get(1).add_member_blocking(NodeId(2), address);
    added.unwrap();
    cluster.start(2, &[1]).unwrap();
    cluster.get(1).promote_member_blocking(NodeId(2)).unwrap();
    cluster.check_equal();
    assert_eq!(cluster.value(2, "a").as_deref(), Some("1"));
}

#[test]
fn a_founder_whose_peers_do_not_answer_begins_no_log_unless_it_is_to() {
    let mut cluster = Cluster::empty();
    cluster.place(1);
    cluster.place(2);
    let mut options = cluster.node_options(1, &[2]);
    cluster_of(&mut options).start_timeout = SHORT;
    let refused = Node::open(options.clone()).unwrap_err();
    assert!(
        matches!(refused, OpenError::Cluster(ClusterError::MayBeLost { .. })),
        "{refused}"
    );
    cluster_of(&mut options).found = true;
    cluster.start_with(1, options.clone()).unwrap();
    // From then on the option makes no difference.
    let log_id = cluster.get(1).log_id();
    cluster.stop(1);
    cluster_of(&mut options).found = false;
    cluster.start_with(1, options).unwrap();
    assert_eq!(cluster.get(1).log_id(), log_id);
}

#[test]
fn a_founder_that_a_peer_refuses_begins_no_log_although_it_is_to() {
    // Given a cluster, and the empty folder of another node 1 that is to found one,
    let cluster = Cluster::of(3);
    let mut lost = Cluster::empty();
    lost.place(1);
    let mut options = lost.node_options(1, &[]);
    // when the peer that it lists is connected with the node 1 that runs, or has another number,
    for wanted in [2, 3] {
        let founder = cluster_of(&mut options);
        founder.peers = vec![(NodeId(2), cluster.address(wanted))];
        (founder.found, founder.start_timeout) = (true, SHORT);
        let refused = Node::open(options.clone()).unwrap_err();
        // then it starts no second log, and says what the peer said.
        let is_named = matches!(refused, OpenError::Cluster(ClusterError::Refused { .. }));
        assert!(is_named, "{refused}");
        let said = ["two processes are node 1", "leads to node 3"][wanted as usize - 2];
        assert!(refused.to_string().contains(said), "{refused}");
    }
}

#[test]
fn nodes_that_start_together_need_no_option() {
    // Given three empty folders, each node knowing all others,
    let mut cluster = Cluster::empty();
    for id in [1, 2, 3] {
        cluster.place(id);
    }
    let options = [(1, [2, 3]), (2, [1, 3]), (3, [1, 2])]
        .map(|(id, peers)| (id, cluster.node_options(id, &peers)));
    // when all start at once,
    let starting =
        options.map(|(id, options)| (id, std::thread::spawn(move || Node::open(options).unwrap())));
    let nodes = starting.map(|(id, thread)| (id, thread.join().unwrap()));
    // then they have the log of node 1, and wait to be added.
    let log_id = nodes[0].1.log_id();
    for (id, node) in &nodes {
        assert_eq!(node.log_id(), log_id);
        assert_eq!(node.cluster().unwrap().is_member, *id == 1);
    }
    let (id, joining) = &nodes[2];
    let address = joining.cluster().unwrap().address;
    nodes[0]
        .1
        .add_member_blocking(NodeId(*id), address)
        .unwrap();
    joining
        .wait_for_cluster(PATIENCE, |status| status.is_member)
        .unwrap();
    for (_, node) in &nodes {
        node.stop().unwrap();
    }
}

#[test]
fn a_folder_is_opened_as_what_it_is() {
    let mut cluster = Cluster::of(2);
    cluster.stop(2);
    cluster.stop(1);
    // A member's folder is not that of a node that is alone,
    for id in [1, 2] {
        let folder = cluster.place(id).folder.path().to_path_buf();
        let refused = Node::open(small(Options::new(folder))).unwrap_err();
        assert!(
            matches!(refused, OpenError::Cluster(ClusterError::NotAlone { node }) if node == NodeId(id)),
            "{refused}"
        );
    }
    // nor that of another member.
    let mut options = cluster.node_options(2, &[1]);
    cluster_of(&mut options).node = NodeId(3);
    let refused = Node::open(options).unwrap_err().to_string();
    assert!(refused.contains("belongs to node 2"), "{refused}");
    // A joining node needs a member to join.
    let empty = tempfile::tempdir().unwrap();
    let mut options = cluster.node_options(2, &[]);
    options.folder = empty.path().to_path_buf();
    let refused = Node::open(options).unwrap_err();
    assert!(
        matches!(refused, OpenError::Cluster(ClusterError::NoPeers(_))),
        "{refused}"
    );
}

#[test]
fn a_node_of_another_log_is_not_connected_and_never_becomes_a_member() {
    // Given two clusters, and a node of the second one,
    let mut ours = Cluster::of_one();
    let mut theirs = Cluster::of_one();
    theirs.learn(2);
    theirs.wait(2, |status| status.is_member);
    // when that is added to the first one,
    let address = theirs.address(2);
    let added = ours.get(1).add_member_blocking(NodeId(2), address);
    added.unwrap();
    // then they refuse each other, and say why,
    let is_refused = |status: &onelog::ClusterStatus| {
        let second = status.members.iter().find(|member| member.node == 2);
        let error = second.and_then(|member| member.last_error.clone());
        error.is_some_and(|error| error.contains("log"))
    };
    ours.wait(1, is_refused);
    // and each goes on with its own.
    let end = ours.put(1, "a", "1").unwrap().position;
    theirs.put(2, "b", "1").unwrap();
    theirs.check_equal();
    assert_eq!(theirs.value(2, "a"), None);
    assert_eq!(ours.get(1).position(), end);
    ours.stop(1);
}

#[test]
fn a_node_that_was_removed_takes_no_part_and_its_number_is_not_used_again() {
    // Given a cluster of three,
    let mut cluster = Cluster::of(3);
    cluster.put(1, "a", "1").unwrap();
    // when the leader is removed on another node,
    let leader = cluster.leader();
    let other = leader % 3 + 1;
    cluster
        .get(other)
        .remove_member_blocking(NodeId(leader))
        .unwrap();
    // then the others go on without it,
    let stays = |status: &onelog::ClusterStatus| status.members.iter().all(|m| m.node != leader);
    cluster.wait(other, stays);
    let removed = cluster.get(leader).clone();
    let before = removed.position();
    cluster.put(other, "b", "2").unwrap();
    let no_longer = |status: &onelog::ClusterStatus| !status.leads && status.leader != Some(leader);
    removed.wait_for_cluster(PATIENCE, no_longer).unwrap();
    assert!(removed.position() <= cluster.get(other).position());
    assert!(removed.position() >= before);
    // it does not come back under its number,
    let address = cluster.address(leader);
    let refused = cluster
        .get(other)
        .add_member_blocking(NodeId(leader), address);
    assert_eq!(refused, Err(MembersChangeError::Removed(leader)));
    let refused = cluster.get(other).remove_member_blocking(NodeId(leader));
    assert_eq!(refused, Err(MembersChangeError::NoMember(leader)));
    // not after a restart either, and the others hear nothing of it.
    drop(removed);
    cluster.stop(leader);
    let term = cluster.status(other).term;
    let others = cluster.running();
    cluster.start(leader, &others).unwrap();
    let refused = |status: &onelog::ClusterStatus| {
        status.members.iter().any(|member| {
            let error = member.last_error.as_ref();
            error.is_some_and(|error| error.contains("refused"))
        })
    };
    cluster.wait(leader, refused);
    cluster.put(other, "c", "3").unwrap();
    assert_eq!(cluster.status(other).term, term);
    assert_eq!(cluster.value(leader, "c"), None);
    cluster.stop(leader);
    cluster.check_equal();
}

#[test]
fn a_leader_that_is_removed_through_itself_answers_that_it_is() {
    // Given a cluster of three,
    let mut cluster = Cluster::of(3);
    cluster.put(1, "a", "1").unwrap();
    let leader = cluster.leader();
    let other = leader % 3 + 1;
    // when its leader is asked to remove itself, then that is done,
    let asked = cluster.get(leader).clone();
    assert_eq!(asked.remove_member_blocking(NodeId(leader)), Ok(()));
    let stays = |status: &onelog::ClusterStatus| status.members.iter().all(|m| m.node != leader);
    cluster.wait(other, stays);
    cluster.put(other, "b", "2").unwrap();
    // and it knows that it takes no part any more.
    let is_removed = |status: &onelog::ClusterStatus| status.is_removed;
    asked.wait_for_cluster(PATIENCE, is_removed).unwrap();
    // What its clients request is refused as soon as the others no longer talk to it.
    let refused = loop {
        if let Err(refused) = cluster.put(leader, "c", "3") {
            break refused;
        }
    };
    assert!(
        matches!(refused, Refusal::NoLeader | Refusal::NotLeader),
        "{refused:?}"
    );
    drop(asked);
    cluster.stop(leader);
    cluster.check_equal();
}

#[test]
fn without_a_majority_nothing_is_acknowledged_and_a_node_still_stops() {
    // Given two voters of which one stops without the other being asked,
    let mut cluster = Cluster::of(2);
    let leader = cluster.leader();
    let other = 3 - leader;
    cluster.stop(other);
    // when a client writes, then it is not acknowledged,
    let ticket = cluster
        .get(leader)
        .submit(crate::rig::request(cluster.table(leader), "a", "1"));
    // and the node stops all the same.
    cluster.stop(leader);
    let refused = ticket.wait();
    assert!(
        matches!(refused, Err(Refusal::Stopped(_) | Refusal::NotLeader)),
        "{refused:?}"
    );
    // Both come back, and one leads.
    cluster.start(leader, &[other]).unwrap();
    cluster.start(other, &[leader]).unwrap();
    cluster.put(leader, "b", "1").unwrap();
    cluster.check_equal();
}
