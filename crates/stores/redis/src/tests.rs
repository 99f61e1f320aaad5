//! Rebuilds that are too large for one step, on a real server; the limits are small here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_store::conformance::{self, Capabilities, Harness, LOG, Model};
use onelog_store::{ServerAddress, Store};
use onelog_store::{StoreError, failpoint};
use onelog_testkit::{Kind, Redis, Server, require};

use crate::kind::RedisTarget;
use crate::store::RedisStore;

struct Place(RedisTarget);

impl Place {
    fn store(&self, sink: &str, plan: &Arc<Plan>) -> RedisStore {
        RedisStore::open(&self.0, sink, LOG, Arc::clone(plan)).unwrap()
    }
}

impl Harness for Place {
    fn open_as(&self, sink: &str, plan: Arc<Plan>, _: &str) -> Box<dyn Store> {
        Box::new(self.store(sink, &plan))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn kind(&self) -> &'static dyn onelog_store::StoreKind {
        &crate::KIND
    }
}

fn orders(model: &mut Model, count: i64, total: i64) {
    for n in 0..count {
        model.order(&format!("k{n}"), total, "note");
    }
}

#[test]
fn a_rebuild_of_many_keys_goes_in_parts_and_one_that_dies_between_them_begins_again() {
    require!(Kind::Redis);
    let server = Redis::start();
    let place = Place(RedisTarget {
        server: ServerAddress::from(server.url().as_str()),
        partitions: None,
    });
    let plan = conformance::standard_plan(&place);
    let mut store = place.store("parts", &plan);
    store.take_over().unwrap();
    let mut model = Model::default();
    orders(&mut model, 1000, 1);
    model.rebuild(&plan, &mut store).unwrap();
    assert!(model.verify(&plan, &mut store).equal);
    // Some rows go, all others change; the process dies after the first part.
    for n in 0..400 {
        model.write(conformance::ORDERS, format!("k{n}").as_bytes(), None);
    }
    for n in 400..1000 {
        model.order(&format!("k{n}"), 2, "note");
    }
    failpoint::set("parts:between_parts", || panic!("the planned failure"));
    let died = AssertUnwindSafe(|| model.rebuild(&plan, &mut store));
    let outcome = std::panic::catch_unwind(died);
    failpoint::clear("parts:between_parts");
    assert!(outcome.is_err(), "there is more than one part");
    drop(store);
    let mut store = place.store("parts", &plan);
    store.take_over().unwrap();
    assert_eq!(
        store.position().unwrap(),
        None,
        "half of it is not a state of the log"
    );
    model.rebuild(&plan, &mut store).unwrap();
    assert!(model.verify(&plan, &mut store).equal);
    assert_eq!(server.command(&["DBSIZE"]).trim(), "602");
}

#[test]
fn new_rows_that_another_client_deleted_are_not_put_in_place() {
    require!(Kind::Redis);
    let server = Redis::start();
    let place = Place(RedisTarget {
        server: ServerAddress::from(server.url().as_str()),
        partitions: None,
    });
    let plan = conformance::standard_plan(&place);
    let mut model = Model::default();
    orders(&mut model, 10, 1);
    for lose in ["onelog:new:lost:0:k3", "onelog:names:lost:0"] {
        let mut store = place.store("lost", &plan);
        store.take_over().unwrap();
        store.begin_rebuild().unwrap();
        let rows = model
            .batch(&plan, onelog_record::Position::ZERO)
            .changes
            .remove(0);
        store.load(0, &rows).unwrap();
        assert_eq!(server.command(&["DEL", lose]).trim(), "1");
        let error = store.finish_rebuild(model.place()).unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert_eq!(store.position().unwrap(), None);
        model.rebuild(&plan, &mut store).unwrap();
        assert!(model.verify(&plan, &mut store).equal);
        store.remove().unwrap();
    }
}
