//! Keys that are spread over partitions, and sinks whose number of partitions changes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use onelog_mapping::Plan;
use onelog_redis::{RedisStore, RedisTarget};
use onelog_store::conformance::{self, LOG, Model};
use onelog_store::{Store, failpoint};
use onelog_testkit::{Kind, require};

use crate::harness::OneServer;

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
