//! Static membership.

use bytes::Bytes;
use onelog_groups::{ErrorCode, Join, JoinAnswer, State, Sync};

use crate::fixture::{DELAY_MS, REBALANCE_MS, SESSION_MS, World, instance, protocol, sync};

/// Instances of a group that is stable: what each joined with, the leader first.
fn stable(names: &[&str]) -> (World, Vec<JoinAnswer>) {
    let mut world = World::new();
    let tokens: Vec<_> = names
        .iter()
        .map(|name| world.join(instance(name)))
        .collect();
    world.pass(DELAY_MS * 2);
    let joined: Vec<_> = tokens
        .into_iter()
        .map(|token| world.joined(token))
        .collect();
    let ids: Vec<_> = joined.iter().map(|one| one.member_id.clone()).collect();
    world.sync_all(&ids);
    (world, joined)
}

#[test]
fn an_instance_that_starts_again_gets_its_assignment_without_a_rebalance() {
    let (mut world, joined) = stable(&["one", "two"]);
    let former = &joined[1].member_id;

    let token = world.join(instance("two"));
    let back = world.joined(token);
    assert_eq!((back.error, back.generation), (ErrorCode::None, 1));
    assert_ne!(back.member_id, *former);
    assert_eq!(back.leader, joined[0].member_id);
    assert_eq!(world.state(), State::Stable);

    let token = world.sync(Sync {
        instance_id: Some("two".to_owned()),
        ..sync(1, &back.member_id)
    });
    assert_eq!(world.synced(token).assignment, former.as_bytes());
}

#[test]
fn whatever_uses_the_former_id_of_an_instance_is_fenced() {
    let (mut world, joined) = stable(&["one", "two"]);
    let former = joined[1].member_id.as_str();
    world.join(instance("two"));
    let fenced = ErrorCode::FencedInstanceId;
    assert_eq!(world.heartbeat_of(1, former, Some("two")), fenced);
    let token = world.sync(Sync {
        instance_id: Some("two".to_owned()),
        ..sync(1, former)
    });
    assert_eq!(world.synced(token).error, fenced);
    let token = world.join(Join {
        member_id: former.to_owned(),
        ..instance("two")
    });
    assert_eq!(world.joined(token).error, fenced);
    let left = world.leave(former, Some("two"));
    assert_eq!(left.members[0].1, fenced);
    let token = world.commit(onelog_groups::Commit {
        instance_id: Some("two".to_owned()),
        ..crate::fixture::commit(1, former, 5)
    });
    assert_eq!(world.committed(token).partitions[0].error, fenced);
    assert_eq!(world.offset(), None);
}

#[test]
fn the_place_of_an_instance_is_stored_before_it_is_answered() {
    let (mut world, joined) = stable(&["one", "two"]);
    world.holds = true;
    let token = world.join(instance("two"));
    assert!(world.waits(token));
    world.store();
    let back = world.joined(token);
    world.restart();
    assert_eq!(
        world.heartbeat_of(1, &back.member_id, Some("two")),
        ErrorCode::None
    );
    let former = &joined[1].member_id;
    assert_eq!(
        world.heartbeat_of(1, former, Some("two")),
        ErrorCode::FencedInstanceId
    );
    assert_eq!(world.rows.len(), 3, "a row of the group and of each member");
}

#[test]
fn an_instance_whose_place_cannot_be_stored_tries_again() {
    let (mut world, _) = stable(&["one", "two"]);
    world.holds = true;
    let token = world.join(instance("two"));
    world.fail_store(ErrorCode::CoordinatorNotAvailable);
    let answer = world.joined(token);
    assert_eq!(answer.error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(answer.member_id, "");
    world.holds = false;
    let token = world.join(instance("two"));
    assert_eq!(world.joined(token).generation, 1);
}

#[test]
fn the_former_id_of_an_instance_goes_though_its_end_could_not_be_stored_at_first() {
    let (mut world, _) = stable(&["one", "two"]);
    world.holds = true;
    world.join(instance("two"));
    let token = world.join(instance("two"));
    world.fail_store(ErrorCode::CoordinatorNotAvailable);
    world.store();
    let back = world.joined(token);
    assert_eq!(world.rows.len(), 3, "a row of the group and of each member");
    world.restart();
    let error = world.heartbeat_of(1, &back.member_id, Some("two"));
    assert_eq!(error, ErrorCode::None);
}

#[test]
fn a_leader_that_starts_again_does_not_assign() {
    let (mut world, joined) = stable(&["one", "two"]);
    let token = world.join(instance("one"));
    let back = world.joined(token);
    assert_eq!(
        back.leader, joined[0].member_id,
        "it does not know itself as leader"
    );
    assert_eq!(back.members, vec![]);
    assert!(!back.skip_assignment);

    let token = world.join(Join {
        knows_skip_assignment: true,
        ..instance("one")
    });
    let back = world.joined(token);
    assert_eq!(back.leader, back.member_id);
    assert_eq!(back.members.len(), 2);
    assert!(back.skip_assignment);
    assert_eq!(world.generation(), (1, back.member_id));
}

#[test]
fn an_instance_may_be_away_for_its_session_while_others_rebalance() {
    let (mut world, joined) = stable(&["one", "two"]);
    let session = u64::from(REBALANCE_MS) * 3;
    let long = Join {
        session_timeout_ms: u32::try_from(session).expect("it is short"),
        ..instance("two")
    };
    let token = world.join(long.clone());
    let away = world.joined(token);

    // Given a rebalance that the instance does not take part in
    let three = world.join(instance("three"));
    let one = world.join(Join {
        member_id: joined[0].member_id.clone(),
        ..instance("one")
    });
    world.pass(u64::from(REBALANCE_MS));
    let (one, three) = (world.joined(one), world.joined(three));
    assert_eq!((one.generation, three.generation), (2, 2));
    assert_eq!(
        one.members.len(),
        3,
        "the leader assigns to the instance that is away"
    );
    let assignments = [(away.member_id.clone(), Bytes::from_static(b"kept"))];
    let token = world.sync(Sync {
        assignments: assignments.into_iter().collect(),
        ..sync(2, &one.member_id)
    });
    world.synced(token);

    // Then what it sends from the former generation, or with the number of the new one, is refused
    for generation in [1, 2] {
        let error = world.heartbeat_of(generation, &away.member_id, Some("two"));
        assert_eq!(error, ErrorCode::IllegalGeneration);
    }
    // and it finds its place when it comes back
    let token = world.join(Join {
        member_id: away.member_id.clone(),
        ..long
    });
    assert_eq!(world.state(), State::PreparingRebalance);
    assert!(world.waits(token));
}

#[test]
fn an_instance_that_is_away_too_long_is_removed() {
    let (mut world, joined) = stable(&["one", "two"]);
    for _ in 0..4 {
        world.pass(u64::from(SESSION_MS) / 4);
        world.heartbeat_of(1, &joined[0].member_id, Some("one"));
    }
    assert_eq!(world.members(), [joined[0].member_id.clone()]);
    let token = world.join(Join {
        member_id: joined[1].member_id.clone(),
        ..instance("two")
    });
    assert_eq!(world.joined(token).error, ErrorCode::UnknownMemberId);
}

#[test]
fn an_instance_is_taken_out_by_its_name_alone() {
    let (mut world, joined) = stable(&["one", "two"]);
    let left = world.leave("", Some("two"));
    assert_eq!(left.members[0].1, ErrorCode::None);
    assert_eq!(world.members(), [joined[0].member_id.clone()]);
    let left = world.leave("", Some("two"));
    assert_eq!(left.members[0].1, ErrorCode::UnknownMemberId);
}

#[test]
fn an_instance_that_comes_back_with_other_protocols_begins_a_rebalance() {
    let (mut world, joined) = stable(&["one", "two"]);
    let token = world.join(Join {
        protocols: vec![protocol("robin", "o")],
        ..instance("two")
    });
    assert!(world.waits(token));
    let one = world.join(Join {
        member_id: joined[0].member_id.clone(),
        ..instance("one")
    });
    assert_eq!(world.joined(one).protocol.as_deref(), Some("robin"));
    assert_eq!(world.joined(token).generation, 2);
}

#[test]
fn an_instance_that_comes_back_while_the_leader_assigns_begins_a_rebalance() {
    let mut world = World::new();
    let one = world.join(instance("one"));
    let two = world.join(instance("two"));
    world.pass(DELAY_MS * 2);
    let (one, two) = (world.joined(one), world.joined(two));
    let waiting = world.sync(sync(1, &two.member_id));

    let back = world.join(instance("two"));
    assert_eq!(world.synced(waiting).error, ErrorCode::FencedInstanceId);
    assert_eq!(world.state(), State::PreparingRebalance);
    world.join(Join {
        member_id: one.member_id,
        ..instance("one")
    });
    assert_eq!(world.joined(back).generation, 2);
}

#[test]
fn a_join_of_the_former_id_that_waits_is_fenced() {
    let (mut world, joined) = stable(&["one", "two"]);
    let changed = Join {
        member_id: joined[1].member_id.clone(),
        protocols: vec![protocol("range", "changed")],
        ..instance("two")
    };
    let waiting = world.join(changed);
    let back = world.join(instance("two"));
    assert_eq!(world.joined(waiting).error, ErrorCode::FencedInstanceId);
    assert!(world.waits(back));
}
