//! Offset commits.

use onelog_groups::limits::{CLEANUP_INTERVAL_MS, OFFSETS_RETENTION_MS};
use onelog_groups::{ErrorCode, Join, PartitionOffset, State, Sync};

use crate::fixture::{SESSION_MS, START_UNIX_MS, World, at, commit, join, sync};

#[test]
fn an_offset_is_answered_and_seen_once_it_is_stored() {
    let (mut world, ids) = World::stable(&["a"]);
    world.holds = true;
    let token = world.commit(commit(1, &ids[0], 7));
    assert!(world.waits(token));
    assert_eq!(world.offset(), None);
    world.store();
    assert_eq!(world.committed(token).partitions[0].error, ErrorCode::None);
    let record = world.coordinator.offset("g", &at("shop.orders", 0));
    let record = record.expect("it is stored");
    assert_eq!((record.offset, record.leader_epoch), (7, 3));
    assert_eq!(record.metadata, "text");
    assert_eq!(record.committed_at, world.now.unix_ms);
    assert!(record.committed_at > START_UNIX_MS);
}

#[test]
fn an_offset_that_cannot_be_stored_is_refused() {
    let (mut world, ids) = World::stable(&["a"]);
    world.commit_one(1, &ids[0], 7);
    world.holds = true;
    let lost = world.commit(commit(1, &ids[0], 8));
    let kept = world.commit(commit(1, &ids[0], 9));
    world.fail_store(ErrorCode::CoordinatorNotAvailable);
    let error = world.committed(lost).partitions[0].error;
    assert_eq!(error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.offset(), Some(7));
    world.store();
    assert_eq!(world.committed(kept).partitions[0].error, ErrorCode::None);
    assert_eq!(world.offset(), Some(9));
}

#[test]
fn only_a_member_of_the_generation_commits() {
    let (mut world, ids) = World::stable(&["a"]);
    let a = ids[0].as_str();
    assert_eq!(world.commit_one(0, a, 7), ErrorCode::IllegalGeneration);
    assert_eq!(world.commit_one(2, a, 7), ErrorCode::IllegalGeneration);
    assert_eq!(world.commit_one(1, "nobody", 7), ErrorCode::UnknownMemberId);
    assert_eq!(world.commit_one(-1, "", 7), ErrorCode::UnknownMemberId);
    assert_eq!(world.offset(), None);
    assert_eq!(world.commit_one(1, a, 7), ErrorCode::None);
}

#[test]
fn a_commit_keeps_its_member_like_a_heartbeat() {
    let (mut world, ids) = World::stable(&["a"]);
    for offset in 0..4 {
        world.pass(u64::from(SESSION_MS) - 1);
        assert_eq!(world.commit_one(1, &ids[0], offset), ErrorCode::None);
    }
}

#[test]
fn a_member_commits_before_it_joins_again_and_not_before_it_is_assigned() {
    let (mut world, ids) = World::stable(&["a", "b"]);
    let (_, leader) = world.generation();
    let other = ids.iter().find(|id| **id != leader).expect("there are two");
    let again = world.join(Join {
        member_id: leader.clone(),
        ..join("a")
    });
    assert_eq!(world.state(), State::PreparingRebalance);
    assert_eq!(world.commit_one(1, other, 7), ErrorCode::None);
    world.join(Join {
        member_id: other.clone(),
        ..join("b")
    });
    world.joined(again);
    assert_eq!(world.commit_one(1, other, 8), ErrorCode::IllegalGeneration);
    assert_eq!(
        world.commit_one(2, other, 8),
        ErrorCode::RebalanceInProgress
    );
    assert_eq!(world.offset(), Some(7));
}

#[test]
fn a_member_gets_its_assignment_after_earlier_offsets_are_to_be_seen() {
    let (mut world, ids) = World::stable(&["a"]);
    world.holds = true;
    world.commit(commit(1, &ids[0], 7));
    let again = world.join(Join {
        member_id: ids[0].clone(),
        ..join("a")
    });
    world.joined(again);
    let assigned = world.sync(Sync {
        assignments: [(ids[0].clone(), "x".into())].into(),
        ..sync(2, &ids[0])
    });
    assert!(world.waits(assigned));
    world.store();
    assert_eq!(world.synced(assigned).assignment, "x");
    assert_eq!(world.offset(), Some(7));
}

#[test]
fn a_consumer_without_a_group_of_members_commits() {
    let mut world = World::new();
    assert_eq!(world.commit_one(-1, "", 7), ErrorCode::None);
    assert_eq!(world.state(), State::Empty);
    world.restart();
    assert_eq!(world.offset(), Some(7));
    assert_eq!(world.commit_one(-1, "", 8), ErrorCode::None);
    assert_eq!(world.commit_one(1, "a", 9), ErrorCode::UnknownMemberId);
    assert_eq!(world.offset(), Some(8));

    let mut other = World::new();
    assert_eq!(other.commit_one(4, "a", 9), ErrorCode::IllegalGeneration);
}

#[test]
fn a_text_that_is_too_long_refuses_its_partition_alone() {
    let mut world = World::new();
    let mut both = commit(-1, "", 7);
    both.offsets.push(PartitionOffset {
        at: at("shop.orders", 1),
        metadata: "x".repeat(4_097),
        ..both.offsets[0].clone()
    });
    let token = world.commit(both);
    let answer = world.committed(token);
    let errors: Vec<_> = answer.partitions.iter().map(|one| one.error).collect();
    assert_eq!(errors, [ErrorCode::None, ErrorCode::OffsetMetadataTooLarge]);
    assert_eq!(world.coordinator.offsets("g").count(), 1);
}

#[test]
fn offsets_of_an_empty_group_go_after_the_retention_and_the_group_with_them() {
    let mut world = World::new();
    world.commit_one(-1, "", 7);
    world.pass(OFFSETS_RETENTION_MS - 1);
    assert_eq!(world.offset(), Some(7));
    world.pass(CLEANUP_INTERVAL_MS * 2);
    assert_eq!(world.offset(), None);
    assert_eq!(world.coordinator.list(), vec![]);
    assert!(world.rows.is_empty());
}

#[test]
fn the_retention_of_offsets_begins_when_the_last_member_leaves() {
    let (mut world, ids) = World::stable(&["a"]);
    world.commit_one(1, &ids[0], 7);
    let mut passed = 0;
    while passed < OFFSETS_RETENTION_MS * 2 {
        let step = u64::from(SESSION_MS) - 1;
        // A session is much shorter than the retention: the time between heartbeats is left out.
        passed += step * 100_000;
        world.pass(step);
        world.now.unix_ms += i64::try_from(step * 99_999).expect("it fits");
        assert_eq!(world.heartbeat(1, &ids[0]), ErrorCode::None);
    }
    world.leave(&ids[0], None);
    world.pass(OFFSETS_RETENTION_MS / 2);
    assert_eq!(world.offset(), Some(7), "it has members, or had until now");
    world.restart();
    world.pass(OFFSETS_RETENTION_MS / 2 + CLEANUP_INTERVAL_MS * 2);
    assert_eq!(world.offset(), None);
    assert!(world.rows.is_empty());
}
