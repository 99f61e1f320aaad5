//! Deletions of groups and of offsets.

use onelog_groups::{Answer, ErrorCode, State};

use crate::fixture::{World, commit, old_join};

fn answered(world: &mut World, token: onelog_groups::Token) -> ErrorCode {
    match world.answer(token) {
        Some(Answer::DeleteGroup(error)) => error,
        other => panic!("no answer to a deletion: {other:?}"),
    }
}

#[test]
fn an_empty_group_is_deleted_with_all_that_is_stored() {
    let (mut world, ids) = World::stable(&["a"]);
    world.commit_one(1, &ids[0], 7);
    let token = world.delete_group();
    assert_eq!(answered(&mut world, token), ErrorCode::NonEmptyGroup);

    world.leave(&ids[0], None);
    world.holds = true;
    world.commit(commit(-1, "", 8));
    let token = world.delete_group();
    assert!(world.waits(token));
    assert_eq!(world.state(), State::Dead);
    let late = world.join(old_join("b"));
    assert_eq!(world.joined(late).error, ErrorCode::CoordinatorNotAvailable);
    world.store();

    assert_eq!(answered(&mut world, token), ErrorCode::None);
    assert!(world.rows.is_empty(), "also what was not stored yet");
    assert_eq!(world.coordinator.list(), vec![]);
    let token = world.delete_group();
    assert_eq!(answered(&mut world, token), ErrorCode::GroupIdNotFound);
}

#[test]
fn a_group_whose_deletion_cannot_be_stored_is_there_as_before() {
    let mut world = World::new();
    world.commit_one(-1, "", 7);
    world.holds = true;
    let token = world.delete_group();
    world.fail_store(ErrorCode::NotCoordinator);
    assert_eq!(answered(&mut world, token), ErrorCode::NotCoordinator);
    assert_eq!(world.state(), State::Empty);
    assert_eq!(world.offset(), Some(7));
}

#[test]
fn offsets_of_topics_that_no_member_reads_are_deleted() {
    let (mut world, ids) = World::stable(&["a"]);
    world.commit_one(1, &ids[0], 7);
    let refused = world.delete_offsets(&["shop.orders", "shop.other"], &["shop.orders"]);
    let errors: Vec<_> = refused.partitions.iter().map(|one| one.error).collect();
    assert_eq!(errors, [ErrorCode::GroupSubscribedToTopic, ErrorCode::None]);
    assert_eq!(world.offset(), Some(7));

    world.leave(&ids[0], None);
    let deleted = world.delete_offsets(&["shop.orders"], &[]);
    assert_eq!(deleted.partitions[0].error, ErrorCode::None);
    assert_eq!(world.offset(), None);
    world.restart();
    assert_eq!(world.offset(), None);
}

#[test]
fn offsets_of_members_that_are_no_consumers_are_kept() {
    let mut world = World::new();
    world.join(onelog_groups::Join {
        protocol_type: "connect".to_owned(),
        ..old_join("a")
    });
    let answer = world.delete_offsets(&["shop.orders"], &[]);
    assert_eq!(answer.error, ErrorCode::NonEmptyGroup);
    assert_eq!(answer.partitions, vec![]);
    let mut other = World::new();
    let answer = other.delete_offsets(&["shop.orders"], &[]);
    assert_eq!(answer.error, ErrorCode::GroupIdNotFound);
}
