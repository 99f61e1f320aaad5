//! Members that leave.

use onelog_groups::{ErrorCode, Join, State};

use crate::fixture::{DELAY_MS, World, join, old_join};

#[test]
fn the_others_rebalance_at_once_when_a_member_leaves() {
    let (mut world, ids) = World::stable(&["a", "b"]);
    let left = world.leave(&ids[0], None);
    assert_eq!(left.error, ErrorCode::None);
    assert_eq!(left.members[0].1, ErrorCode::None);
    let again = world.join(Join {
        member_id: ids[1].clone(),
        ..join("b")
    });
    let again = world.joined(again);
    assert_eq!((again.generation, again.leader), (2, ids[1].clone()));
}

#[test]
fn a_group_is_empty_when_the_last_member_has_left() {
    let (mut world, ids) = World::stable(&["a"]);
    world.leave(&ids[0], None);
    assert_eq!(world.state(), State::Empty);
    assert_eq!(world.generation().0, 2);
    assert_eq!(world.rows.len(), 1, "the row of the group");
    assert_eq!(world.heartbeat(2, &ids[0]), ErrorCode::UnknownMemberId);

    let next = world.join(old_join("b"));
    world.pass(DELAY_MS);
    assert_eq!(
        world.joined(next).generation,
        3,
        "generations are not used again"
    );
}

#[test]
fn a_member_that_is_not_there_cannot_leave() {
    let (mut world, _) = World::stable(&["a"]);
    let left = world.leave("nobody", None);
    assert_eq!(left.error, ErrorCode::None);
    assert_eq!(left.members[0].1, ErrorCode::UnknownMemberId);
    assert_eq!(world.state(), State::Stable);

    let mut other = World::new();
    let left = other.leave("nobody", None);
    assert_eq!(left.members[0].1, ErrorCode::UnknownMemberId);
    assert_eq!(other.coordinator.list(), vec![]);
}

#[test]
fn an_id_that_has_not_joined_yet_can_leave() {
    let (mut world, ids) = World::stable(&["a"]);
    let pending = world.join(join("b"));
    let pending = world.joined(pending).member_id;
    let a = world.join(Join {
        member_id: ids[0].clone(),
        ..join("a")
    });
    assert!(world.waits(a), "one more is to join");
    assert_eq!(world.leave(&pending, None).members[0].1, ErrorCode::None);
    assert_eq!(world.joined(a).generation, 2);
}

#[test]
fn a_join_that_waits_is_answered_when_its_member_leaves() {
    let (mut world, ids) = World::stable(&["a", "b"]);
    let (_, leader) = world.generation();
    let token = world.join(Join {
        member_id: leader.clone(),
        ..join("a")
    });
    world.leave(&leader, None);
    let answer = world.joined(token);
    assert_eq!(answer.error, ErrorCode::UnknownMemberId);
    assert_eq!(
        answer.member_id, "",
        "a client that is still there joins anew"
    );
    assert_eq!(world.members().len(), ids.len() - 1);
}
