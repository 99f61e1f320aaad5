//! A coordinator that starts with what another one has stored.

use onelog_groups::{
    Answer, Coordinator, ErrorCode, Join, LoadError, Options, Output, Record, State, Sync,
};

use crate::fixture::{SESSION_MS, World, commit, join, old_join, sync};

#[test]
fn members_of_a_stable_group_go_on_without_a_rebalance() {
    let (mut world, ids) = World::stable(&["a", "b"]);
    world.commit_one(1, &ids[0], 7);
    let before = world.coordinator.describe("g");
    world.restart();
    assert_eq!(world.coordinator.describe("g"), before);
    for id in &ids {
        assert_eq!(world.heartbeat(1, id), ErrorCode::None);
        let token = world.sync(sync(1, id));
        assert_eq!(world.synced(token).assignment, id.as_bytes());
    }
    assert_eq!(world.commit_one(1, &ids[1], 8), ErrorCode::None);
    let (_, leader) = world.generation();
    let follower = ids.iter().find(|id| **id != leader).expect("there are two");
    let again = world.join(Join {
        member_id: follower.clone(),
        ..join("b")
    });
    assert_eq!(
        world.joined(again).generation,
        1,
        "its metadata is as it was"
    );
}

#[test]
fn members_that_do_not_come_back_are_removed() {
    let (mut world, ids) = World::stable(&["a", "b"]);
    world.restart();
    world.pass(u64::from(SESSION_MS) / 2);
    assert_eq!(world.heartbeat(1, &ids[0]), ErrorCode::None);
    world.pass(u64::from(SESSION_MS) / 2);
    assert_eq!(world.members(), ids[..1]);
}

#[test]
fn a_rebalance_that_was_under_way_begins_anew() {
    let (mut world, ids) = World::stable(&["a"]);
    let b = world.join(old_join("b"));
    let a = world.join(Join {
        member_id: ids[0].clone(),
        ..join("a")
    });
    let (a, b) = (world.joined(a), world.joined(b));
    world.holds = true;
    world.sync(Sync {
        assignments: [(b.member_id.clone(), "x".into())].into(),
        ..sync(2, &a.member_id)
    });
    world.restart();
    world.holds = false;

    assert_eq!(
        world.heartbeat(2, &a.member_id),
        ErrorCode::IllegalGeneration
    );
    assert_eq!(world.heartbeat(2, &b.member_id), ErrorCode::UnknownMemberId);
    assert_eq!(
        world.commit_one(2, &a.member_id, 1),
        ErrorCode::IllegalGeneration
    );
    let b = world.join(old_join("b"));
    let a = world.join(Join {
        member_id: a.member_id,
        ..join("a")
    });
    assert_eq!(world.joined(a).generation, 2);
    assert_eq!(world.joined(b).generation, 2);
}

#[test]
fn a_coordinator_that_resigns_answers_all_that_waits() {
    let (mut world, ids) = World::stable(&["a", "b"]);
    world.holds = true;
    let commit = world.commit(commit(1, &ids[0], 7));
    let a = world.join(Join {
        member_id: ids[0].clone(),
        protocols: vec![crate::fixture::protocol("range", "changed")],
        ..join("a")
    });
    let b = world.join(Join {
        member_id: ids[1].clone(),
        ..join("b")
    });
    let joined = world.joined(a);
    world.joined(b);
    let follower = ids.iter().find(|id| **id != joined.leader);
    let waiting = world.sync(sync(2, follower.expect("there are two")));
    let coordinator =
        std::mem::replace(&mut world.coordinator, Coordinator::new(Options::default()));
    let answers = coordinator.resign(ErrorCode::NotCoordinator);
    let mut tokens: Vec<_> = answers
        .into_iter()
        .map(|output| match output {
            Output::Answer { token, answer } => {
                let error = match answer {
                    Answer::Commit(answer) => answer.partitions[0].error,
                    Answer::Sync(answer) => answer.error,
                    other => panic!("nothing else waits: {other:?}"),
                };
                assert_eq!(error, ErrorCode::NotCoordinator);
                token
            }
            Output::Store(_) => panic!("it stores nothing more"),
        })
        .collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [commit, waiting]);
}

#[test]
fn rows_that_contradict_each_other_are_named() {
    let (world, ids) = World::stable(&["a"]);
    let load = |records: Vec<Record>| {
        Coordinator::load(Options::default(), world.now, records).map(|_| ())
    };
    let rows = world.rows.iter();
    let all: Vec<_> = rows
        .map(|(key, value)| Record::of_row(key, value).expect("a row"))
        .collect();
    assert_eq!(load(all.clone()), Ok(()));

    let members: Vec<_> = all
        .iter()
        .filter(|record| matches!(record, Record::PutMember { .. }))
        .cloned()
        .collect();
    let (group, member) = ("g".to_owned(), ids[0].clone());
    assert_eq!(load(members), Err(LoadError::NoGroup { group, member }));

    let mut empty = all.clone();
    for record in &mut empty {
        if let Record::PutGroup { record, .. } = record {
            record.protocol = None;
        }
    }
    let group = "g".to_owned();
    assert_eq!(load(empty), Err(LoadError::NoGeneration { group }));

    let mut twice = all;
    for record in &mut twice {
        if let Record::PutMember { record, .. } = record {
            record.instance_id = Some("one".to_owned());
        }
    }
    let mut other = twice.clone();
    for record in &mut other {
        if let Record::PutMember { member, .. } = record {
            member.push('z');
        }
    }
    twice.extend(other);
    let same = load(twice).expect_err("two members are one instance");
    assert!(matches!(same, LoadError::SameInstance { .. }), "{same}");
}

#[test]
fn a_group_that_was_emptied_starts_empty() {
    let (mut world, ids) = World::stable(&["a"]);
    world.commit_one(1, &ids[0], 7);
    world.leave(&ids[0], None);
    world.restart();
    assert_eq!(world.state(), State::Empty);
    assert_eq!(world.generation().0, 2);
    assert_eq!(world.offset(), Some(7));
}
