//! The bounds, each at its edge.

use bytes::Bytes;
use onelog_groups::limits::{
    GROUPS_MAX, MEMBER_METADATA_BYTES_MAX, NAME_BYTES_MAX, OFFSETS_MAX, PROTOCOLS_MAX,
    SESSION_TIMEOUT_MS_MAX, SESSION_TIMEOUT_MS_MIN, STORES_MAX,
};
use onelog_groups::{ErrorCode, Join, Options, PartitionOffset, Protocol, Request};

use crate::fixture::{DELAY_MS, World, at, commit, instance, join, old_join, protocol};

fn error(world: &mut World, join: Join) -> ErrorCode {
    let token = world.join(join);
    world.joined(token).error
}

#[test]
fn a_group_has_no_more_members_than_it_may() {
    let mut world = World::with(Options {
        members_max: 2,
        ..Options::default()
    });
    let first = world.join(join("a"));
    let first = world.joined(first).member_id;
    let second = world.join(instance("one"));
    assert_eq!(
        error(&mut world, old_join("c")),
        ErrorCode::GroupMaxSizeReached
    );
    assert_eq!(
        error(&mut world, instance("two")),
        ErrorCode::GroupMaxSizeReached
    );
    let first = world.join(Join {
        member_id: first,
        ..join("a")
    });
    world.pass(DELAY_MS * 3);
    let (first, second) = (world.joined(first), world.joined(second));
    assert_eq!((first.generation, second.generation), (1, 1));
    world.sync_all(&[first.member_id, second.member_id]);
    let back = world.join(instance("one"));
    assert_eq!(world.joined(back).generation, 1, "it takes its own place");
}

#[test]
fn session_timeouts_outside_the_bounds_are_refused() {
    let mut world = World::new();
    for session_timeout_ms in [0, SESSION_TIMEOUT_MS_MIN - 1, SESSION_TIMEOUT_MS_MAX + 1] {
        let join = Join {
            session_timeout_ms,
            ..join("a")
        };
        assert_eq!(error(&mut world, join), ErrorCode::InvalidSessionTimeout);
    }
    assert_eq!(world.coordinator.list(), vec![]);
}

#[test]
fn names_and_metadata_that_are_too_long_are_refused() {
    let mut world = World::new();
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let metadata = |bytes: usize| Protocol {
        name: "range".to_owned(),
        metadata: Bytes::from(vec![0; bytes - 32 - "range".len()]),
    };
    let refused = [
        Join {
            instance_id: Some(long.clone()),
            ..join("a")
        },
        Join {
            protocol_type: long.clone(),
            ..join("a")
        },
        Join {
            protocols: vec![protocol(&long, "")],
            ..join("a")
        },
        Join {
            protocols: vec![protocol("range", ""); PROTOCOLS_MAX + 1],
            ..join("a")
        },
        Join {
            protocols: vec![metadata(MEMBER_METADATA_BYTES_MAX + 1)],
            ..join("a")
        },
    ];
    for join in refused {
        assert_eq!(error(&mut world, join), ErrorCode::InvalidRequest);
    }
    let most = Join {
        protocols: vec![metadata(MEMBER_METADATA_BYTES_MAX)],
        ..join("a")
    };
    assert_eq!(error(&mut world, most), ErrorCode::MemberIdRequired);
}

#[test]
fn a_group_takes_no_more_metadata_than_fits_in_a_transaction() {
    let mut world = World::new();
    let big = |client: &str| Join {
        protocols: vec![Protocol {
            name: "range".to_owned(),
            metadata: Bytes::from(vec![0; MEMBER_METADATA_BYTES_MAX - 37]),
        }],
        ..old_join(client)
    };
    let mut members = 0;
    loop {
        let token = world.join(big("a"));
        if !world.waits(token) {
            let error = world.joined(token).error;
            assert_eq!(error, ErrorCode::GroupMaxSizeReached);
            break;
        }
        members += 1;
    }
    assert_eq!(members, 11);
}

#[test]
fn a_client_with_a_long_name_gets_a_short_id() {
    let mut world = World::new();
    let token = world.join(join(&"ü".repeat(200)));
    let id = world.joined(token).member_id;
    assert_eq!(id.len(), 254 + 1 + 32);
}

#[test]
fn group_ids_are_neither_empty_nor_too_long_nor_of_several_lines() {
    let mut world = World::new();
    let refused = [
        String::new(),
        "g".repeat(NAME_BYTES_MAX + 1),
        "a\nb".to_owned(),
    ];
    for group in refused {
        let join = Join { group, ..join("a") };
        assert_eq!(error(&mut world, join), ErrorCode::InvalidGroupId);
    }
    let old = onelog_groups::Commit {
        group: String::new(),
        ..commit(-1, "", 7)
    };
    let token = world.commit(old);
    let answer = world.committed(token);
    assert_eq!(
        answer.partitions[0].error,
        ErrorCode::None,
        "of consumers without a group"
    );
}

#[test]
fn there_are_no_more_groups_than_there_may_be() {
    let mut world = World::new();
    let of = |group: usize| onelog_groups::Commit {
        group: group.to_string(),
        ..commit(-1, "", 7)
    };
    for group in 0..GROUPS_MAX {
        world.commit(of(group));
    }
    let token = world.commit(of(GROUPS_MAX));
    let error_of_commit = world.committed(token).partitions[0].error;
    assert_eq!(error_of_commit, ErrorCode::InvalidCommitOffsetSize);
    assert_eq!(error(&mut world, join("a")), ErrorCode::GroupMaxSizeReached);
    let token = world.commit(of(3));
    assert_eq!(world.committed(token).partitions[0].error, ErrorCode::None);
}

#[test]
fn a_group_has_no_more_offsets_than_it_may() {
    let mut world = World::new();
    let of = |partitions: std::ops::Range<usize>| onelog_groups::Commit {
        offsets: partitions
            .map(|partition| PartitionOffset {
                at: at("t", i32::try_from(partition).expect("it is small")),
                offset: 1,
                leader_epoch: -1,
                metadata: String::new(),
            })
            .collect(),
        ..commit(-1, "", 7)
    };
    let token = world.commit(of(0..OFFSETS_MAX));
    assert_eq!(world.committed(token).partitions[0].error, ErrorCode::None);
    let token = world.commit(of(OFFSETS_MAX..OFFSETS_MAX + 1));
    let refused = world.committed(token).partitions[0].error;
    assert_eq!(refused, ErrorCode::InvalidCommitOffsetSize);
    let token = world.commit(of(0..OFFSETS_MAX));
    assert_eq!(world.committed(token).partitions[7].error, ErrorCode::None);

    world.holds = true;
    world.request(Request::DeleteGroup {
        group: "g".to_owned(),
    });
    assert!(
        world.unstored[0].len() <= 10_000,
        "all of it goes in one transaction"
    );
}

#[test]
fn a_commit_has_no_more_bytes_than_fit_in_a_transaction() {
    let mut world = World::new();
    let of = |texts: i32| onelog_groups::Commit {
        offsets: (0..texts)
            .map(|partition| PartitionOffset {
                at: at("t", partition),
                offset: 1,
                leader_epoch: -1,
                metadata: "\u{1}".repeat(4_000),
            })
            .collect(),
        ..commit(-1, "", 7)
    };
    let token = world.commit(of(100));
    let refused = world.committed(token).partitions[0].error;
    assert_eq!(refused, ErrorCode::InvalidCommitOffsetSize);
    world.holds = true;
    world.commit(of(80));
    let rows = world.unstored[0].iter().map(onelog_groups::Record::row);
    let bytes = rows.map(|row| row.key.len() + row.value.map_or(0, |value| value.len()));
    assert!(bytes.sum::<usize>() < 8 << 20);
}

#[test]
fn more_than_waits_to_be_stored_is_refused() {
    let mut world = World::new();
    world.holds = true;
    for _ in 0..STORES_MAX {
        world.commit(commit(-1, "", 7));
    }
    let token = world.commit(commit(-1, "", 8));
    let refused = world.committed(token).partitions[0].error;
    assert_eq!(refused, ErrorCode::CoordinatorNotAvailable);
    world.holds = false;
    world.store();
    assert_eq!(world.coordinator.unstored(), 0);
    assert_eq!(world.commit_one(-1, "", 8), ErrorCode::None);
}
