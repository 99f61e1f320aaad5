//! How members get their assignment.

use std::collections::BTreeMap;

use bytes::Bytes;
use onelog_groups::limits::ASSIGNMENT_BYTES_MAX;
use onelog_groups::{ErrorCode, Join, State, Sync};

use crate::fixture::{DELAY_MS, REBALANCE_MS, SESSION_MS, World, join, old_join, sync};

/// Two members that joined the first generation: its leader and its follower.
fn two() -> (World, String, String) {
    let mut world = World::new();
    let a = world.join(old_join("a"));
    let b = world.join(old_join("b"));
    world.pass(DELAY_MS * 2);
    let (a, b) = (world.joined(a), world.joined(b));
    assert_eq!(a.leader, a.member_id);
    (world, a.member_id, b.member_id)
}

fn assigning(leader: &str, to: &[(&str, &'static str)]) -> Sync {
    let each = to.iter();
    Sync {
        assignments: each
            .map(|(id, bytes)| ((*id).to_owned(), Bytes::from_static(bytes.as_bytes())))
            .collect(),
        ..sync(1, leader)
    }
}

#[test]
fn a_follower_waits_for_the_leader_and_both_for_the_disk() {
    let (mut world, leader, follower) = two();
    world.holds = true;
    let second = world.sync(sync(1, &follower));
    let first = world.sync(assigning(&leader, &[(&leader, "x"), (&follower, "y")]));
    assert!(
        world.waits(first) && world.waits(second),
        "nothing is stored"
    );
    assert_eq!(world.state(), State::CompletingRebalance);

    world.store();
    assert_eq!(world.synced(first).assignment, "x");
    assert_eq!(world.synced(second).assignment, "y");
    assert_eq!(world.state(), State::Stable);

    let late = world.sync(sync(1, &follower));
    assert_eq!(world.synced(late).assignment, "y", "it may ask again");
}

#[test]
fn a_member_that_the_leader_leaves_out_gets_an_empty_assignment() {
    let (mut world, leader, follower) = two();
    world.sync(assigning(&leader, &[(&leader, "x"), ("a stranger", "z")]));
    let token = world.sync(sync(1, &follower));
    let answer = world.synced(token);
    assert_eq!(
        (answer.error, answer.assignment.len()),
        (ErrorCode::None, 0)
    );
    assert_eq!(world.members().len(), 2);
}

#[test]
fn what_a_follower_assigns_is_ignored() {
    let (mut world, leader, follower) = two();
    let token = world.sync(assigning(&follower, &[(&follower, "all")]));
    assert!(world.waits(token));
    world.sync(assigning(&leader, &[(&follower, "part")]));
    assert_eq!(world.synced(token).assignment, "part");
}

#[test]
fn a_sync_of_another_generation_or_protocol_is_refused() {
    let (mut world, leader, _) = two();
    let refused = [
        (sync(0, &leader), ErrorCode::IllegalGeneration),
        (sync(2, &leader), ErrorCode::IllegalGeneration),
        (sync(1, "nobody"), ErrorCode::UnknownMemberId),
        (
            Sync {
                protocol: Some("robin".to_owned()),
                ..sync(1, &leader)
            },
            ErrorCode::InconsistentGroupProtocol,
        ),
        (
            Sync {
                protocol_type: Some("connect".to_owned()),
                ..sync(1, &leader)
            },
            ErrorCode::InconsistentGroupProtocol,
        ),
    ];
    for (sync, error) in refused {
        let token = world.sync(sync);
        assert_eq!(world.synced(token).error, error);
    }
    let named = Sync {
        protocol: Some("range".to_owned()),
        protocol_type: Some("consumer".to_owned()),
        ..assigning(&leader, &[])
    };
    let token = world.sync(named);
    assert_eq!(world.synced(token).error, ErrorCode::None);
}

#[test]
fn a_sync_that_is_repeated_answers_the_former_one() {
    let (mut world, leader, follower) = two();
    let first = world.sync(sync(1, &follower));
    let second = world.sync(sync(1, &follower));
    assert_eq!(world.synced(first).error, ErrorCode::RebalanceInProgress);
    world.sync(assigning(&leader, &[(&follower, "y")]));
    assert_eq!(world.synced(second).assignment, "y");
}

#[test]
fn a_member_that_comes_sends_those_back_that_wait_for_an_assignment() {
    let (mut world, leader, follower) = two();
    world.holds = true;
    let waiting = world.sync(sync(1, &follower));
    let assigned = world.sync(assigning(&leader, &[(&leader, "x"), (&follower, "y")]));
    world.join(old_join("c"));
    assert_eq!(world.synced(waiting).error, ErrorCode::RebalanceInProgress);
    assert_eq!(world.synced(assigned).error, ErrorCode::RebalanceInProgress);
    world.store();
    assert_eq!(
        world.state(),
        State::PreparingRebalance,
        "what is stored comes too late"
    );
}

#[test]
fn an_assignment_that_cannot_be_stored_begins_a_rebalance() {
    let (mut world, leader, follower) = two();
    world.holds = true;
    let waiting = world.sync(sync(1, &follower));
    let assigned = world.sync(assigning(&leader, &[(&leader, "x")]));
    world.fail_store(ErrorCode::CoordinatorNotAvailable);
    for token in [waiting, assigned] {
        let answer = world.synced(token);
        assert_eq!(answer.error, ErrorCode::CoordinatorNotAvailable);
        assert_eq!(answer.assignment.len(), 0);
    }
    assert_eq!(world.state(), State::PreparingRebalance);
}

#[test]
fn an_assignment_that_is_too_long_is_refused() {
    let (mut world, leader, follower) = two();
    let waiting = world.sync(sync(1, &follower));
    let long = Bytes::from(vec![0; ASSIGNMENT_BYTES_MAX + 1]);
    let assigned = world.sync(Sync {
        assignments: BTreeMap::from([(follower, long)]),
        ..sync(1, &leader)
    });
    for token in [waiting, assigned] {
        assert_eq!(world.synced(token).error, ErrorCode::UnknownServerError);
    }
    assert!(world.rows.is_empty());
}

#[test]
fn a_leader_that_assigns_nothing_is_removed_after_the_rebalance_timeout() {
    let (mut world, leader, follower) = two();
    let waiting = world.sync(sync(1, &follower));
    for _ in 0..20 {
        world.pass(u64::from(REBALANCE_MS) / 20);
        world.heartbeat(1, &leader);
    }
    assert_eq!(world.synced(waiting).error, ErrorCode::RebalanceInProgress);
    assert_eq!(world.heartbeat(1, &leader), ErrorCode::UnknownMemberId);
    let again = world.join(Join {
        member_id: follower.clone(),
        ..join("b")
    });
    assert_eq!(world.joined(again).leader, follower);
}

#[test]
fn heartbeats_keep_a_member_and_their_absence_ends_it() {
    let (mut world, ids) = World::stable(&["a", "b"]);
    for _ in 0..5 {
        world.pass(u64::from(SESSION_MS) - 1);
        for id in &ids {
            assert_eq!(world.heartbeat(1, id), ErrorCode::None);
        }
    }
    world.pass(u64::from(SESSION_MS) / 2);
    world.heartbeat(1, &ids[0]);
    world.pass(u64::from(SESSION_MS) / 2);
    assert_eq!(world.members(), ids[..1]);
    assert_eq!(world.heartbeat(1, &ids[0]), ErrorCode::RebalanceInProgress);
    assert_eq!(world.heartbeat(1, &ids[1]), ErrorCode::UnknownMemberId);
    assert_eq!(world.heartbeat(0, &ids[0]), ErrorCode::IllegalGeneration);
}
