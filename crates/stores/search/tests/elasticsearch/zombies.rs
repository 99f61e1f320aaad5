//! Late requests, processes that were overtaken, crashes in the middle of an exchange.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_record::Position;
use onelog_store::conformance::{LOG, Model, ORDERS};
use onelog_store::{Store, StoreError, failpoint};
use serde_json::{Value, json};

use crate::common::{FIRST, STANDARD, apply_all, assert_equal, backfilled};
use crate::search::Fixture;

fn bulk(fixture: &Fixture, index: &str, id: &str, version: u64, source: &Value) -> u64 {
    let action = json!({"index": {"_index": index, "_id": id,
        "version": version, "version_type": "external"}});
    let answer = fixture.request(
        "POST",
        "/_bulk?require_alias=true",
        &format!("{action}\n{source}\n"),
    );
    answer["items"][0]["index"]["status"].as_u64().unwrap()
}

pub(crate) fn a_put_that_comes_late_brings_nothing_back(fixture: &Fixture) {
    let (mut store, mut model, plan, _) = backfilled(fixture);
    let from = model.position();
    model.order("late", 1, "one");
    let late = model.batch(&plan, from).changes[0][0].offset.get();
    model.write(ORDERS, b"late", None);
    apply_all(&plan, &model, from, store.as_mut());
    let source = json!({"_onelog": {"offset": late}, "id": "late", "total": 1, "note": "one"});
    let write = format!("{FIRST}-write");
    assert_eq!(bulk(fixture, &write, "late", late + 1, &source), 409);
    assert_equal(&plan, &model, store.as_mut());
    // Nor into an index that was replaced since.
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert_eq!(bulk(fixture, &write, "late", late + 1, &source), 404);
    assert_equal(&plan, &model, store.as_mut());
    let found = fixture.request("GET", "/orders", "");
    let names: Vec<&String> = found.as_object().unwrap().keys().collect();
    assert_eq!(names, ["orders-onelog-2"]);
}

/// Runs `work` with the thread of this test stopped at a place, where `action` runs.
fn at_place(
    sink: &str,
    event: &str,
    action: impl Fn() + Send + Sync + 'static,
    work: impl FnOnce(),
) {
    let place = format!("{sink}:{event}");
    let thread = std::thread::current().id();
    failpoint::set(&place, move || {
        // Other tests of this process come here too.
        if std::thread::current().id() == thread {
            action();
        }
    });
    work();
    failpoint::clear(&place);
}

pub(crate) fn a_zombie_that_already_wrote_is_fenced_and_harms_nothing(fixture: &Fixture) {
    let harness = fixture.harness();
    let plan = harness.plan(STANDARD);
    let mut zombie = harness.open_as("overtaken", &plan, LOG);
    let mut model = Model::default();
    model.order("a", 1, "one");
    model.order("b", 1, "one");
    zombie.take_over().unwrap();
    model.rebuild(&plan, &mut zombie).unwrap();
    // The zombie has a batch that ends before the one of its rival, and one that ends behind it.
    let from = model.position();
    model.order("a", 2, "both");
    model.order("z", 1, "both");
    let short = model.clone();
    model.write(ORDERS, b"b", None);
    model.order("a", 3, "the rival alone");
    let long = model.clone();
    for (zombies, rivals) in [(short.clone(), long.clone()), (long, short)] {
        let (again, plan_again) = (harness.clone(), Arc::clone(&plan));
        let rival_model = rivals.clone();
        let mut zombie = harness.open_as("overtaken", &plan, LOG);
        let epoch = zombie.take_over().unwrap();
        rebuilt_to(&zombies, from, &plan, &mut zombie);
        let mut outcome = None;
        at_place(
            "overtaken",
            "before_commit",
            move || {
                let mut rival = again.open_as("overtaken", &plan_again, LOG);
                // The rival comes to the same place; it must not begin again there.
                failpoint::clear("overtaken:before_commit");
                rival.take_over().unwrap();
                rival.apply(&rival_model.batch(&plan_again, from)).unwrap();
            },
            || outcome = Some(zombie.apply(&zombies.batch(&plan, from))),
        );
        let error = outcome.unwrap().unwrap_err();
        let fenced = matches!(error, StoreError::Fenced { ours, found } if ours == epoch && found == epoch + 1);
        assert!(fenced, "{error}");
        // What the zombie wrote beyond its rival is of records that the rival has not reached: no
        // snapshot is taken of that, and the rival gets there.
        let mut rival = harness.open_as("overtaken", &plan, LOG);
        rival.take_over().unwrap();
        if rivals.position() < zombies.position() {
            assert!(rival.reader().is_err());
            rival
                .apply(&zombies.batch(&plan, rivals.position()))
                .unwrap();
        }
        assert_equal(&plan, &model, &mut rival);
    }
}

/// Backfills the store with the state that `model` had at `position`.
fn rebuilt_to(model: &Model, position: Position, plan: &Arc<Plan>, store: &mut dyn Store) {
    let mut before = Model::default();
    before.order("a", 1, "one");
    before.order("b", 1, "one");
    assert_eq!(
        (before.position(), model.position() > position),
        (position, true)
    );
    before.rebuild(plan, store).unwrap();
}

pub(crate) fn an_exchange_survives_a_crash_before_and_after_it(fixture: &Fixture) {
    for (event, has_moved) in [("before_swap", false), ("after_swap", true)] {
        fixture.wipe();
        let sink = format!("crashed-{event}");
        let harness = fixture.harness();
        let plan = harness.plan(STANDARD);
        let mut model = Model::default();
        model.order("a", 1, "one");
        let mut store = harness.open_as(&sink, &plan, LOG);
        store.take_over().unwrap();
        model.rebuild(&plan, &mut store).unwrap();
        let before = model.clone();
        model.order("a", 2, "two");
        model.order("b", 1, "one");
        let place = sink.clone();
        let thread = std::thread::current().id();
        failpoint::set(&format!("{place}:{event}"), move || {
            assert_ne!(std::thread::current().id(), thread, "the planned failure");
        });
        let crashed =
            std::panic::catch_unwind(AssertUnwindSafe(|| model.rebuild(&plan, &mut store)));
        failpoint::clear(&format!("{place}:{event}"));
        assert!(crashed.is_err());
        drop(store);

        // A process that only reads sees what readers see.
        let mut store = harness.open_as(&sink, &plan, LOG);
        let expected = if has_moved { &model } else { &before };
        assert_equal(&plan, expected, &mut store);
        store.check_shape().unwrap();
        // A takeover finds the exchange made, and goes on from there.
        store.take_over().unwrap();
        assert_equal(&plan, &model, &mut store);
        let from = model.position();
        model.order("c", 3, "after the crash");
        apply_all(&plan, &model, from, &mut store);
        assert_equal(&plan, &model, &mut store);
        store.check_shape().unwrap();
    }
}

pub(crate) fn a_zombie_cannot_exchange_indexes_again(fixture: &Fixture) {
    let harness = fixture.harness();
    let plan = harness.plan(STANDARD);
    let mut model = Model::default();
    model.order("a", 1, "one");
    let mut zombie = harness.open_as("slow", &plan, LOG);
    zombie.take_over().unwrap();
    let rivals = Arc::new(std::sync::Mutex::new(model.clone()));
    let (again, plan_again, theirs) = (harness.clone(), Arc::clone(&plan), Arc::clone(&rivals));
    let mut outcome = None;
    at_place(
        "slow",
        "before_swap",
        move || {
            failpoint::clear("slow:before_swap");
            let mut model = theirs.lock().unwrap();
            let mut rival = again.open_as("slow", &plan_again, LOG);
            rival.take_over().unwrap();
            // A snapshot keeps the index that the zombie is about to put in place.
            let snapshot = rival.reader().unwrap();
            model.order("a", 2, "of the rival");
            model.rebuild(&plan_again, &mut rival).unwrap();
            drop(snapshot);
        },
        || outcome = Some(model.rebuild(&plan, &mut zombie)),
    );
    let error = outcome.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    let mut rival = harness.open_as("slow", &plan, LOG);
    assert_equal(&plan, &rivals.lock().unwrap(), &mut rival);
    rival.check_shape().unwrap();
}
