//! Joins, and how a generation begins.

use onelog_groups::{ErrorCode, Join, State};

use crate::fixture::{DELAY_MS, REBALANCE_MS, SESSION_MS, World, join, old_join, protocol};

#[test]
fn a_new_member_is_given_an_id_and_joins_with_it() {
    let mut world = World::new();
    let first = world.join(join("a"));
    let first = world.joined(first);
    assert_eq!(first.error, ErrorCode::MemberIdRequired);
    assert!(first.member_id.starts_with("a-"), "{}", first.member_id);
    assert_eq!(world.state(), State::Empty);

    let second = world.join(Join {
        member_id: first.member_id.clone(),
        ..join("a")
    });
    assert!(world.waits(second), "more members may come");
    world.pass(DELAY_MS);

    let second = world.joined(second);
    assert_eq!(second.error, ErrorCode::None);
    assert_eq!(second.generation, 1);
    assert_eq!(second.leader, first.member_id);
    assert_eq!(second.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(second.protocol.as_deref(), Some("range"));
    assert_eq!(second.members.len(), 1);
    assert_eq!(second.members[0].metadata, "r");
}

#[test]
fn an_id_that_was_given_out_and_not_used_is_forgotten() {
    let mut world = World::new();
    let first = world.join(join("a"));
    let id = world.joined(first).member_id;
    world.pass(u64::from(SESSION_MS));
    assert_eq!(world.coordinator.list(), vec![], "nothing is left of it");

    let late = world.join(Join {
        member_id: id,
        ..join("a")
    });
    assert_eq!(world.joined(late).error, ErrorCode::UnknownMemberId);
}

#[test]
fn an_old_client_joins_at_once() {
    let mut world = World::new();
    let token = world.join(old_join("a"));
    world.pass(DELAY_MS);
    assert_eq!(world.joined(token).generation, 1);
}

#[test]
fn an_empty_group_waits_longer_while_members_come() {
    let mut world = World::new();
    let a = world.join(old_join("a"));
    world.pass(DELAY_MS / 2);
    let b = world.join(old_join("b"));
    world.pass(DELAY_MS / 2);
    assert!(world.waits(a), "one more has come");
    world.pass(DELAY_MS);
    let (a, b) = (world.joined(a), world.joined(b));
    assert_eq!((a.generation, b.generation), (1, 1));
    assert_eq!((a.members.len(), b.members.len()), (2, 0));
    assert_eq!(b.leader, a.member_id);
}

#[test]
fn an_empty_group_does_not_wait_beyond_the_rebalance_timeout() {
    let mut world = World::new();
    let first = world.join(old_join("first"));
    let mut waited = 0;
    while world.waits(first) {
        world.join(old_join("more"));
        world.pass(DELAY_MS / 2);
        waited += DELAY_MS / 2;
        assert!(waited <= u64::from(REBALANCE_MS));
    }
    assert_eq!(world.joined(first).members.len(), 121);
}

#[test]
fn a_member_that_comes_makes_the_others_join_again() {
    let (mut world, ids) = World::stable(&["a"]);
    let b = world.join(old_join("b"));
    assert_eq!(world.state(), State::PreparingRebalance);
    assert_eq!(world.heartbeat(1, &ids[0]), ErrorCode::RebalanceInProgress);
    let a = world.join(Join {
        member_id: ids[0].clone(),
        ..join("a")
    });
    let (a, b) = (world.joined(a), world.joined(b));
    assert_eq!((a.generation, b.generation), (2, 2));
    assert_eq!(a.members.len(), 2);
    assert_eq!(world.state(), State::CompletingRebalance);
}

#[test]
fn a_member_that_does_not_join_again_is_left_out_after_the_rebalance_timeout() {
    let (mut world, ids) = World::stable(&["a"]);
    let b = world.join(old_join("b"));
    for _ in 0..20 {
        world.pass(u64::from(REBALANCE_MS) / 20);
        world.heartbeat(1, &ids[0]);
    }
    let b = world.joined(b);
    assert_eq!(b.generation, 2);
    assert_eq!(b.leader, b.member_id);
    assert_eq!(world.heartbeat(1, &ids[0]), ErrorCode::UnknownMemberId);
}

#[test]
fn a_member_that_waits_for_a_generation_needs_no_heartbeats() {
    let (mut world, ids) = World::stable(&["a", "b"]);
    let a = world.join(Join {
        member_id: ids[0].clone(),
        protocols: vec![protocol("range", "changed")],
        ..join("a")
    });
    for _ in 0..8 {
        world.pass(u64::from(SESSION_MS) / 2);
        world.heartbeat(1, &ids[1]);
    }
    assert!(world.waits(a));
    let b = world.join(Join {
        member_id: ids[1].clone(),
        ..join("b")
    });
    assert_eq!(world.joined(a).generation, 2);
    assert_eq!(world.joined(b).generation, 2);
}

#[test]
fn a_join_that_is_repeated_answers_the_former_one() {
    let (mut world, ids) = World::stable(&["a", "b"]);
    let again = |world: &mut World| {
        world.join(Join {
            member_id: ids[0].clone(),
            ..join("a")
        })
    };
    let first = again(&mut world);
    let second = again(&mut world);
    assert_eq!(world.joined(first).error, ErrorCode::RebalanceInProgress);
    assert!(world.waits(second));
}

#[test]
fn a_member_whose_answer_was_lost_gets_the_same_generation_again() {
    let mut world = World::new();
    let a = world.join(old_join("a"));
    let b = world.join(old_join("b"));
    world.pass(DELAY_MS * 2);
    let (a, b) = (world.joined(a), world.joined(b));
    for (lost, members) in [(&a, 2), (&b, 0)] {
        let again = world.join(Join {
            member_id: lost.member_id.clone(),
            ..old_join("a")
        });
        let again = world.joined(again);
        assert_eq!((again.generation, again.members.len()), (1, members));
    }
    world.sync_all(&[a.member_id.clone(), b.member_id.clone()]);
    let again = world.join(Join {
        member_id: b.member_id,
        ..old_join("b")
    });
    assert_eq!(world.joined(again).generation, 1);
    assert_eq!(world.state(), State::Stable);

    world.join(Join {
        member_id: a.member_id,
        ..old_join("a")
    });
    assert_eq!(
        world.state(),
        State::PreparingRebalance,
        "the leader wants to assign"
    );
}

#[test]
fn a_follower_whose_metadata_changed_begins_a_rebalance() {
    let (mut world, ids) = World::stable(&["a", "b"]);
    let (_, leader) = world.generation();
    let follower = ids.iter().find(|id| **id != leader).expect("a follower");
    world.join(Join {
        member_id: follower.clone(),
        protocols: vec![protocol("range", "more topics"), protocol("robin", "o")],
        ..join("b")
    });
    assert_eq!(world.state(), State::PreparingRebalance);
}

#[test]
fn members_that_have_no_protocol_in_common_are_refused() {
    let (mut world, _) = World::stable(&["a"]);
    let refused = [
        Join {
            protocols: vec![protocol("sticky", "")],
            ..join("b")
        },
        Join {
            protocols: vec![],
            ..join("b")
        },
        Join {
            protocol_type: "connect".to_owned(),
            ..join("b")
        },
        Join {
            protocol_type: String::new(),
            ..join("b")
        },
    ];
    for join in refused {
        let token = world.join(join);
        assert_eq!(
            world.joined(token).error,
            ErrorCode::InconsistentGroupProtocol
        );
    }
    assert_eq!(world.state(), State::Stable);
}

#[test]
fn the_group_moves_to_a_protocol_that_all_offer_once_the_last_has_it() {
    let (mut world, ids) = World::stable(&["a"]);
    let b = world.join(Join {
        protocols: vec![protocol("robin", "o"), protocol("range", "r")],
        ..old_join("b")
    });
    let a = world.join(Join {
        member_id: ids[0].clone(),
        protocols: vec![protocol("robin", "o")],
        ..join("a")
    });
    assert_eq!(world.joined(a).protocol.as_deref(), Some("robin"));
    assert_eq!(world.joined(b).protocol.as_deref(), Some("robin"));
}

#[test]
fn an_unknown_member_is_told_so() {
    let (mut world, _) = World::stable(&["a"]);
    let token = world.join(Join {
        member_id: "nobody".to_owned(),
        ..join("b")
    });
    let answer = world.joined(token);
    assert_eq!(answer.error, ErrorCode::UnknownMemberId);
    assert_eq!(answer.member_id, "nobody");
}

#[test]
fn a_first_join_that_waits_too_long_ends_without_a_member() {
    let (mut world, ids) = World::stable(&["a"]);
    // The rebalance would wait for an hour for the first member, which keeps up its heartbeats.
    let long = Join {
        rebalance_timeout_ms: 3_600_000,
        ..old_join("b")
    };
    let b = world.join(long);
    for _ in 0..70 {
        world.pass(u64::from(SESSION_MS) / 2);
        world.heartbeat(1, &ids[0]);
    }
    assert_eq!(world.joined(b).error, ErrorCode::UnknownMemberId);
    assert_eq!(world.members(), ids);
}
