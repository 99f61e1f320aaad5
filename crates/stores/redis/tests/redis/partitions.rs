//! Keys that are spread over partitions, and sinks whose number of partitions changes.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use onelog_mapping::Plan;
use onelog_redis::{RedisStore, RedisTarget};
use onelog_store::conformance::{self, LOG, Model, SINK};
use onelog_store::{ServerAddress, Store, StoreError, failpoint};
use onelog_testkit::{Kind, Server, require};

use crate::harness::{OneServer, RedisShape, SERVER};
use crate::repairs::{differing, repair};

const OTHER: &str = "log-2";

fn spread(server: &OneServer, partitions: Option<u16>) -> RedisTarget {
    RedisTarget {
        partitions,
        ..server.target.clone()
    }
}

fn open_as(target: &RedisTarget, sink: &str, log: &str, plan: &Arc<Plan>) -> RedisStore {
    RedisStore::open(target, sink, log, Arc::clone(plan)).unwrap()
}

fn model_of(orders: usize) -> Model {
    let mut model = Model::default();
    for n in 0..orders {
        model.order(&format!("k{n}"), 1, "note");
    }
    model
}

fn records(server: &OneServer, sink: &str) -> usize {
    let found = server.command(&["KEYS", &format!("*onelog:position:{sink}")]);
    found.split_whitespace().count()
}

#[test]
fn a_process_that_was_taken_over_deletes_no_key_in_another_partition() {
    require!(Kind::Redis);
    const SLEEPER: &str = "slow-partitions";
    // Given a sink with fewer partitions than before, whose process sleeps behind its swap,
    let server = Arc::new(OneServer::with(RedisShape::String, Some(16)));
    let plan = conformance::standard_plan(server.as_ref());
    let model = model_of(50);
    let mut former = open_as(&spread(&server, Some(16)), SLEEPER, LOG, &plan);
    former.take_over().unwrap();
    model.rebuild(&plan, &mut former).unwrap();
    let fewer = spread(&server, Some(4));
    let mut store = open_as(&fewer, SLEEPER, LOG, &plan);
    let epoch = store.take_over().unwrap();
    let point = format!("{SLEEPER}:before_strays");
    let rival = Arc::clone(&server);
    failpoint::set(&point, move || {
        let records = rival.command(&["KEYS", &format!("*onelog:position:{SLEEPER}")]);
        for name in records.lines() {
            rival.command(&["HINCRBY", name, "epoch", "1"]);
        }
    });
    let strays = || server.command(&["KEYS", "{p01?}orders:*"]).lines().count();
    let before = strays();
    assert!(before > 0);
    // when another process takes it over meanwhile,
    let error = model.rebuild(&plan, &mut store).unwrap_err();
    failpoint::clear(&point);
    // then it deletes nothing any more.
    let is_fenced = matches!(error, StoreError::Fenced { ours, .. } if ours == epoch);
    assert!(is_fenced, "{error}");
    assert_eq!(strays(), before);
    let mut store = open_as(&fewer, SLEEPER, LOG, &plan);
    store.take_over().unwrap();
    model.rebuild(&plan, &mut store).unwrap();
    assert_eq!(strays(), 0);
}

#[test]
fn a_backfill_that_dies_between_two_partitions_is_never_taken_as_finished() {
    require!(Kind::Redis);
    for (n, before) in [&[16, 4][..], &[16], &[1, 4096, 2], &[]]
        .into_iter()
        .enumerate()
    {
        let sink = format!("among{n}");
        let server = OneServer::new();
        let plan = conformance::standard_plan(&server);
        // Given a store that was backfilled with other numbers of partitions, and with this one,
        let mut model = model_of(100);
        for partitions in before {
            let mut store = open_as(&spread(&server, Some(*partitions)), &sink, LOG, &plan);
            store.take_over().unwrap();
            model.rebuild(&plan, &mut store).unwrap();
            model.order("k1", 2, "changed");
        }
        // when a backfill dies after each number of partitions,
        let target = spread(&server, Some(16));
        for swapped in [1, 5, 15] {
            let mut store = open_as(&target, &sink, LOG, &plan);
            store.take_over().unwrap();
            let (point, times) = (format!("{sink}:between_parts"), AtomicUsize::new(0));
            failpoint::set(&point, move || {
                let times = times.fetch_add(1, Ordering::Relaxed) + 1;
                assert!(times < swapped, "the planned failure");
            });
            let died = AssertUnwindSafe(|| model.rebuild(&plan, &mut store));
            let outcome = std::panic::catch_unwind(died);
            failpoint::clear(&point);
            assert!(outcome.is_err());
            // then the next process knows no position,
            let mut store = open_as(&target, &sink, LOG, &plan);
            assert_eq!(store.position().unwrap(), None, "{before:?} {swapped}");
            store.take_over().unwrap();
            assert_eq!(store.position().unwrap(), None, "{before:?} {swapped}");
        }
        // and what it backfills is whole.
        let mut store = open_as(&target, &sink, LOG, &plan);
        store.take_over().unwrap();
        model.rebuild(&plan, &mut store).unwrap();
        assert!(model.verify(&plan, &mut store).equal);
    }
}

#[test]
fn a_key_in_another_partition_than_its_own_is_no_row() {
    require!(Kind::Redis);
    for shape in [RedisShape::String, RedisShape::Hash] {
        // Given rows in their partitions,
        let server = OneServer::with(shape, Some(16));
        let plan = conformance::standard_plan(&server);
        let model = model_of(9);
        let mut store = server.store(Arc::clone(&plan), LOG).unwrap();
        store.take_over().unwrap();
        model.rebuild(&plan, &mut store).unwrap();
        let name = |key: &str| {
            let name = server.command(&["KEYS", &format!("*orders:{key}")]);
            name.trim_end().to_owned()
        };
        let elsewhere = |key: &str, to: &str| {
            let own = name(key);
            let tag = if own.starts_with("{p001}") {
                "{p002}"
            } else {
                "{p001}"
            };
            format!("{tag}orders:{to}")
        };
        // when one of them is moved, one is copied, one is moved to a tag that no partition has, and
        // one is copied to a key that the log does not have,
        server.command(&["RENAME", &name("k1"), &elsewhere("k1", "k1")]);
        server.command(&["COPY", &name("k2"), &elsewhere("k2", "k2")]);
        server.command(&["RENAME", &name("k3"), "{p99}orders:k3"]);
        server.command(&["COPY", &name("k4"), "{p99}orders:x"]);
        // then all of them are differences,
        let found = model.verify(&plan, &mut store);
        assert!(!found.equal);
        let keys: BTreeSet<String> = found.tables[0]
            .differences
            .iter()
            .map(|difference| difference.key.to_string())
            .collect();
        let expected = ["\"k1\"", "\"k2\"", "\"k3\"", "\"x\""];
        assert_eq!(keys.into_iter().collect::<Vec<_>>(), expected);
        // each key counts once among those that a backfill may delete,
        let mut counted = 0;
        let each = &mut |_: &onelog_mapping::Row| {
            counted += 1;
            ControlFlow::Continue(())
        };
        store.reader().unwrap().scan_keys(0, each).unwrap();
        assert_eq!(counted, 10);
        // and a repair writes the rows where they belong and takes the copies in known partitions away.
        server.command(&["RENAME", "{p99}orders:k3", &elsewhere("k3", "k3")]);
        server.command(&["RENAME", "{p99}orders:x", "{p003}orders:x"]);
        repair(&plan, &model, &mut store, &["k1", "k2", "k3", "x"]);
        let found = model.verify(&plan, &mut store);
        assert!(found.equal, "{:?}", differing(&found));
        let left = server.command(&["KEYS", "*orders:*"]);
        assert_eq!(left.split_whitespace().count(), 9);
    }
}

#[test]
fn another_logs_sink_is_found_whatever_its_number_of_partitions() {
    require!(Kind::Redis);
    for (first, second) in [
        (None, Some(4)),
        (Some(4), None),
        (Some(4), Some(16)),
        (Some(16), Some(4)),
    ] {
        let server = OneServer::new();
        let plan = conformance::standard_plan(&server);
        let mut model = model_of(9);
        let mut store = open_as(&spread(&server, first), SINK, LOG, &plan);
        store.take_over().unwrap();
        model.rebuild(&plan, &mut store).unwrap();
        // When a sink of another log comes with the same name,
        let mut rival = open_as(&spread(&server, second), SINK, OTHER, &plan);
        // then it finds whose the store is and changes nothing,
        assert_eq!(rival.followed().unwrap().unwrap().log_id, LOG);
        let error = rival.take_over().unwrap_err();
        assert!(
            matches!(&error, StoreError::OtherLog { found, .. } if found == LOG),
            "{error}"
        );
        let from = model.position();
        model.order("k1", 2, "two");
        store.apply(&model.batch(&plan, from)).unwrap();
        store.check_shape().unwrap();
        // until it names that log: then the first one is shut out.
        rival.take_over_from(Some(LOG)).unwrap();
        assert_eq!(rival.followed().unwrap().unwrap().log_id, OTHER);
        assert_eq!(rival.position().unwrap(), None);
        let from = model.position();
        model.order("k1", 3, "three");
        let error = store.apply(&model.batch(&plan, from)).unwrap_err();
        assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
        assert_eq!(store.position().unwrap(), None);
        model.rebuild(&plan, &mut rival).unwrap();
        assert!(model.verify(&plan, &mut rival).equal);
        let mut back = open_as(&spread(&server, first), SINK, LOG, &plan);
        let error = back.take_over().unwrap_err();
        assert!(
            matches!(&error, StoreError::OtherLog { found, .. } if found == OTHER),
            "{error}"
        );
    }
}

#[test]
fn a_sink_keeps_the_records_of_its_present_partitions_only() {
    require!(Kind::Redis);
    let server = OneServer::new();
    let plan = conformance::standard_plan(&server);
    let mut model = model_of(20);
    let mut epoch = 0;
    for partitions in [None, Some(4), Some(1024), Some(16), None, Some(16), None] {
        // Given a sink that had another number of partitions, when it is taken over with this one,
        let target = spread(&server, partitions);
        let mut store = open_as(&target, SINK, LOG, &plan);
        if epoch > 0 {
            let place = store.followed().unwrap().unwrap().place;
            assert_eq!(place, Some(model.place()), "{partitions:?}");
        }
        // then its epochs go on, no position is left,
        let next = store.take_over().unwrap();
        assert!(next > epoch, "{partitions:?}");
        epoch = next;
        assert_eq!(store.position().unwrap(), None, "{partitions:?}");
        // and after the backfill only the records of this number are there.
        model.order("k1", next as i64, "again");
        model.rebuild(&plan, &mut store).unwrap();
        assert!(model.verify(&plan, &mut store).equal);
        let expected = usize::from(partitions.unwrap_or(1));
        assert_eq!(records(&server, SINK), expected, "{partitions:?}");
    }
    // Nor does a sink that is deleted leave one, whatever was there, and those of others stay.
    for stale in [
        "{p007}onelog:position:follower",
        "{p4095}onelog:position:follower",
    ] {
        server.command(&["HSET", stale, "log", LOG, "epoch", "1", "position", "3"]);
    }
    let others = [
        "{p007}onelog:position:follower2",
        "x:onelog:position:follower",
        "{q}onelog:position:follower",
    ];
    for other in others {
        server.command(&["HSET", other, "log", LOG, "epoch", "1"]);
    }
    let mut store = open_as(&spread(&server, None), SINK, LOG, &plan);
    store.take_over().unwrap();
    store.remove().unwrap();
    assert_eq!(records(&server, "follower2"), 1);
    assert_eq!(records(&server, SINK), 2);
}

#[test]
fn a_user_who_may_not_see_partitions_runs_a_sink_without_them() {
    require!(Kind::Redis);
    let server = OneServer::new();
    let plan = conformance::standard_plan(&server);
    let rights = ["~onelog:*", "~orders:*", "+@all"];
    let mut user = vec!["ACL", "SETUSER", "unspread", "on", ">pw"];
    user.extend(rights);
    server.command(&user);
    // Given records of partitions that this user may neither read nor delete,
    server.command(&[
        "HSET",
        "{p000}onelog:position:follower",
        "log",
        OTHER,
        "epoch",
        "1",
    ]);
    let url = SERVER.url().replace("://", "://unspread:pw@");
    let target = RedisTarget {
        server: ServerAddress::from(format!("{url}/{}", server.database).as_str()),
        partitions: None,
    };
    // when the sink runs, then they are no obstacle.
    let model = model_of(3);
    let mut store = open_as(&target, SINK, LOG, &plan);
    assert_eq!(store.followed().unwrap(), None);
    store.take_over().unwrap();
    model.rebuild(&plan, &mut store).unwrap();
    assert!(model.verify(&plan, &mut store).equal);
    store.remove().unwrap();
    assert_eq!(records(&server, SINK), 1);
}

/// The records as earlier versions stored them, which left those of the other kind.
#[test]
fn a_store_with_records_of_an_earlier_version_goes_on_where_it_is() {
    require!(Kind::Redis);
    for (partitions, own, stale) in [
        (
            None,
            "onelog:position:follower",
            "{p000}onelog:position:follower",
        ),
        (
            Some(4),
            "{p000}onelog:position:follower",
            "onelog:position:follower",
        ),
    ] {
        let server = OneServer::new();
        let plan = conformance::standard_plan(&server);
        let target = spread(&server, partitions);
        let mut model = model_of(9);
        let mut store = open_as(&target, SINK, LOG, &plan);
        store.take_over().unwrap();
        model.rebuild(&plan, &mut store).unwrap();
        let field = |name: &str, field: &str| {
            let value = server.command(&["HGET", name, field]);
            value.trim_end().to_owned()
        };
        let (plan_id, at) = (field(own, "plan"), model.position().to_string());
        // Given a record of the former kind, and its own,
        server.command(&[
            "HSET", stale, "log", LOG, "position", "3", "epoch", "9", "plan", "x",
        ]);
        let mut store = open_as(&target, SINK, LOG, &plan);
        assert_eq!(
            store.followed().unwrap().unwrap().place,
            Some(model.place())
        );
        // when the sink is taken over, then it is where it was, and the other kind is shut out.
        assert_eq!(store.take_over().unwrap(), 10);
        assert_eq!(
            store.position().unwrap().unwrap().position,
            model.position()
        );
        let all = ["log", "position", "epoch", "plan", "filling"].map(|name| field(own, name));
        assert_eq!(all, [LOG, &at, "10", &plan_id, ""]);
        let all = ["log", "position", "epoch", "plan"].map(|name| field(stale, name));
        assert_eq!(all, [LOG, "", "10", "x"]);
        let from = model.position();
        model.order("k1", 2, "two");
        store.apply(&model.batch(&plan, from)).unwrap();
        assert!(model.verify(&plan, &mut store).equal);
    }
}
