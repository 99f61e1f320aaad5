//! Nodes that join by their own request, and changes of the members that meet.

use onelog::{ClusterStatus, Join, MembersChangeError, Node, NodeId};

use crate::rig::Cluster;

fn joins(cluster: &mut Cluster, id: u64, peers: &[u64], join: Join) {
    cluster.place(id);
    let mut options = cluster.node_options(id, peers);
    options.cluster.as_mut().unwrap().join = Some(join);
    cluster.start_with(id, options).unwrap();
}

fn is_voter(id: u64, expected: bool) -> impl Fn(&ClusterStatus) -> bool {
    move |status| {
        let mut members = status.members.iter();
        members.any(|member| member.node == id && member.is_voter == expected)
    }
}

#[test]
fn a_node_joins_as_what_it_wants_to_be_and_any_member_takes_its_request() {
    // Given node 1 that leads,
    let mut cluster = Cluster::of_one();
    // when others join, one of them by a node that does not lead,
    joins(&mut cluster, 2, &[1], Join::Voter);
    cluster.wait(2, is_voter(2, true));
    joins(&mut cluster, 3, &[2], Join::Learner);
    cluster.wait(3, is_voter(3, false));
    // then they are members, have everything, and nothing more is requested.
    cluster.put(3, "a", "1").unwrap();
    cluster.check_equal();
    let settled = |status: &ClusterStatus| status.join_error.is_none();
    cluster.wait(2, settled);
    cluster.wait(3, settled);
    // A voter that starts again as one that wants to learn stays a voter.
    cluster.stop(2);
    joins(&mut cluster, 2, &[1, 3], Join::Learner);
    cluster.put(2, "b", "1").unwrap();
    cluster.check_equal();
    cluster.wait(1, is_voter(2, true));
}

#[test]
fn a_node_that_was_removed_is_refused_by_name_whatever_it_requests() {
    let mut cluster = Cluster::of_one();
    joins(&mut cluster, 2, &[1], Join::Learner);
    cluster.wait(2, |status| status.is_member);
    cluster.get(1).remove_member_blocking(NodeId(2)).unwrap();
    cluster.stop(2);
    let before = cluster.get(1).position();
    joins(&mut cluster, 2, &[1], Join::Voter);
    let status = cluster.wait(2, |status| status.join_error.is_some() && status.is_removed);
    let error = status.join_error.unwrap();
    assert!(error.contains("node 2 was removed"), "{error}");
    assert_eq!(
        cluster.get(1).position(),
        before,
        "nothing was recorded of it"
    );
}

#[test]
fn a_node_that_moves_while_it_is_removed_is_no_member_afterwards() {
    const NUMBERS: std::ops::RangeInclusive<u64> = 2..=60;
    let cluster = Cluster::of_one();
    for id in NUMBERS.map(NodeId) {
        // Given a member,
        let add = move |port: u64, node: &Node| {
            let address = format!("127.0.0.1:{port}");
            node.add_member_blocking(id, address)
        };
        add(1, cluster.get(1)).unwrap();
        // when its removal meets requests that record another address of it,
        let moves = (2..6).map(|port| {
            let node = cluster.get(1).clone();
            std::thread::spawn(move || add(port, &node))
        });
        let moves: Vec<_> = moves.collect();
        cluster.get(1).remove_member_blocking(id).unwrap();
        let answers: Vec<_> = moves
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        // then it is no member, and its number is used up.
        let status = cluster.status(1);
        let is_member = status.members.iter().any(|member| member.node == id.get());
        assert!(!is_member, "{answers:?}");
        let again = add(1, cluster.get(1));
        assert_eq!(
            again,
            Err(MembersChangeError::Removed(id.get())),
            "{answers:?}"
        );
    }
}
