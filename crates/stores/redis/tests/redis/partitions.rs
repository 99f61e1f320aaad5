//! Keys that are spread over partitions, and sinks whose number of partitions changes.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use onelog_mapping::Plan;
use onelog_redis::{RedisStore, RedisTarget};
use onelog_store::conformance::{self, LOG, Model};
use onelog_store::{Store, failpoint};
use onelog_testkit::{Kind, require};

use crate::harness::{OneServer, RedisShape};
use crate::repairs::{differing, repair};

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
        // Given a store that was filled with other numbers of partitions, and with this one,
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
