//! What a store keeps of its sink beside the rows: the log and its history, the plan, the epoch.

use std::sync::Arc;

use onelog_record::Position;

use super::{Harness, LOG, Model, STANDARD, backfilled, plan, standard_plan};
use crate::{Store, StoreError};

/// The checksum of the log's chain is kept as it is, or as unknown.
pub fn the_chain_is_kept_beside_the_position(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let (mut store, mut model) = backfilled(harness, &plan);
    for chain in [Some(0), None, Some(u32::MAX), Some(1)] {
        let from = model.position();
        model.order("a", 1, "again");
        let mut batch = model.batch(&plan, from);
        batch.chain = chain;
        store.apply(&batch).unwrap();
        assert_eq!(store.position().unwrap().unwrap().chain, chain);
        store.begin_rebuild().unwrap();
        store.finish_rebuild(batch.place()).unwrap();
        drop(store);
        store = harness.open(Arc::clone(&plan), LOG);
        assert_eq!(store.position().unwrap().unwrap().chain, chain);
        store.take_over().unwrap();
        assert_eq!(store.position().unwrap().unwrap().chain, chain);
    }
}

/// Rows of one plan mean nothing under another.
pub fn another_plan_has_no_position(harness: &dyn Harness) {
    let plan_before = standard_plan(harness);
    let (store, model) = backfilled(harness, &plan_before);
    drop(store);
    let other = plan(harness, &STANDARD.replace("/total", "/sum"));
    let mut store = harness.open(Arc::clone(&other), LOG);
    assert_eq!(store.position().unwrap(), None);
    store.take_over().unwrap();
    assert_eq!(store.position().unwrap(), None);
    model.rebuild(&other, store.as_mut()).unwrap();
    model.assert_equal(&other, store.as_mut());
    // The way back is no shorter.
    let mut store = harness.open(plan_before, LOG);
    assert_eq!(store.position().unwrap(), None);
}

fn log_of(store: &mut dyn Store) -> Option<String> {
    store.followed().unwrap().map(|found| found.log_id)
}

/// How far the store got is known whatever the plan, until a takeover under another one forgets it.
pub fn how_far_a_store_got_is_known_under_every_plan(harness: &dyn Harness) {
    let plan_before = standard_plan(harness);
    let (store, model) = backfilled(harness, &plan_before);
    drop(store);
    let other = plan(harness, &STANDARD.replace("/total", "/sum"));
    for plan in [&plan_before, &other] {
        let mut store = harness.open(Arc::clone(plan), LOG);
        let found = store.followed().unwrap().unwrap();
        assert_eq!(found.log_id, LOG);
        assert_eq!(found.place, Some(model.place()));
    }
    let mut store = harness.open(Arc::clone(&other), LOG);
    store.take_over().unwrap();
    assert_eq!(store.followed().unwrap().unwrap().place, None);
}

/// A store that follows another log says so, and changes nothing until that log is named.
pub fn another_logs_sink_is_not_taken_without_its_name(harness: &dyn Harness) {
    let plan_of_first = standard_plan(harness);
    let (mut first, mut model) = backfilled(harness, &plan_of_first);
    // Whether the rival's plan is the same or not makes no difference.
    for text in [STANDARD.to_owned(), STANDARD.replace("/total", "/sum")] {
        let mut rival = harness.open(plan(harness, &text), "log-2");
        assert_eq!(log_of(rival.as_mut()).as_deref(), Some(LOG));
        for from in [None, Some("log-3"), Some("log-2")] {
            let error = rival.take_over_from(from).unwrap_err();
            assert!(
                matches!(&error, StoreError::OtherLog { ours, found }
                    if ours == "log-2" && found == LOG),
                "{error}"
            );
            assert!(!error.is_retryable());
        }
        let from = model.position();
        model.order("z", 9, "of the first log");
        first
            .apply(&model.batch(&plan_of_first, from))
            .expect("nothing has changed for the first log");
        model.assert_equal(&plan_of_first, first.as_mut());
        assert_eq!(first.position().unwrap().unwrap().epoch, 1);
    }
    // Once it is named the sink is the other log's, which knows nothing about the rows.
    let mut second = harness.open(Arc::clone(&plan_of_first), "log-2");
    assert_eq!(second.take_over_from(Some(LOG)).unwrap(), 2);
    assert_eq!(log_of(second.as_mut()).as_deref(), Some("log-2"));
    assert_eq!(second.position().unwrap(), None);
    let from = model.position();
    model.order("z", 10, "too late");
    let error = first.apply(&model.batch(&plan_of_first, from)).unwrap_err();
    assert!(
        matches!(error, StoreError::Fenced { ours: 1, found: 2 }),
        "{error}"
    );
    model.rebuild(&plan_of_first, second.as_mut()).unwrap();
    assert_eq!(second.position().unwrap().unwrap().log_id, "log-2");
    assert!(model.verify(&plan_of_first, second.as_mut()).equal);
    // The name of a log that the store no longer follows is no obstacle.
    drop(second);
    let mut second = harness.open(Arc::clone(&plan_of_first), "log-2");
    assert_eq!(second.take_over_from(Some(LOG)).unwrap(), 3);
    assert_eq!(
        second.position().unwrap().unwrap().position,
        model.position()
    );
}

/// A process that still writes for a removed sink changes nothing of the next one of its name.
pub fn a_removed_sinks_process_is_fenced_by_the_next_sink_of_its_name(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let mut model = Model::default();
    model.order("a", 1, "of the removed sink");
    // Given a process that was stopped in the middle of its backfill, and whose sink was removed,
    let mut zombie = harness.open(Arc::clone(&plan), LOG);
    let former = zombie.take_over().unwrap();
    zombie.begin_rebuild().unwrap();
    let rows = model.batch(&plan, Position::ZERO).changes.remove(0);
    let mut remover = harness.open(Arc::clone(&plan), LOG);
    remover.take_over().unwrap();
    remover.remove().unwrap();
    drop(remover);
    // when the next sink of the name is backfilled by the same plan,
    let mut next = harness.open(Arc::clone(&plan), LOG);
    next.set_first_epoch(former + (1 << 16));
    let first = next.take_over().unwrap();
    next.begin_rebuild().unwrap();
    // then the process adds no row to that, and puts nothing in place,
    assert!(zombie.load(0, &rows).is_err());
    assert!(zombie.finish_rebuild(model.place()).is_err());
    assert_eq!(next.position().unwrap(), None);
    let mut new = Model::default();
    new.order("b", 2, "of the new sink");
    new.rebuild(&plan, next.as_mut()).unwrap();
    new.assert_equal(&plan, next.as_mut());
    // and applies no batch, also where the positions are the same.
    let from = new.position();
    new.order("z", 9, "too late");
    let error = zombie.apply(&new.batch(&plan, from)).unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    next.apply(&new.batch(&plan, from)).unwrap();
    new.assert_equal(&plan, next.as_mut());
    // The epochs of the sink go on from there.
    drop(next);
    let mut next = harness.open(Arc::clone(&plan), LOG);
    next.set_first_epoch(1);
    assert_eq!(next.take_over().unwrap(), first + 1);
}

/// After a removal nothing of the sink is known, and its tables may be backfilled again.
pub fn a_removed_sink_is_forgotten(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let (mut store, model) = backfilled(harness, &plan);
    store.remove().unwrap();
    assert_eq!(store.position().unwrap(), None);
    assert_eq!(store.followed().unwrap(), None);
    drop(store);
    let mut store = harness.open(Arc::clone(&plan), LOG);
    store.check_target().unwrap();
    assert_eq!(store.take_over().unwrap(), 1);
    assert_eq!(store.position().unwrap(), None);
    model.rebuild(&plan, store.as_mut()).unwrap();
    model.assert_equal(&plan, store.as_mut());
}

/// A store whose epoch is lower than ours was put back to an older copy. What is sent in the middle of
/// that changes nothing; opened again, it is taken over and goes on from where it is.
pub fn a_store_that_was_put_back_is_no_other_processes(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let mut model = Model::default();
    model.order("a", 1, "in the older copy");
    let older = model.clone();
    // Given a process that follows,
    let mut ours = harness.open(Arc::clone(&plan), LOG);
    ours.set_first_epoch(20);
    assert_eq!(ours.take_over().unwrap(), 20);
    model.order("b", 2, "behind the older copy");
    model.rebuild(&plan, ours.as_mut()).unwrap();
    // when the store is as it was, two takeovers before,
    let mut copy = harness.open(Arc::clone(&plan), LOG);
    copy.take_over().unwrap();
    copy.remove().unwrap();
    copy.set_first_epoch(18);
    assert_eq!(copy.take_over().unwrap(), 18);
    older.rebuild(&plan, copy.as_mut()).unwrap();
    // then nothing that the process sends is written, and the answer is to open the store again,
    let from = model.position();
    model.order("c", 3, "new");
    let batch = model.batch(&plan, from);
    let row = batch.changes[0].clone();
    for error in [
        ours.apply(&batch).unwrap_err(),
        ours.begin_rebuild().unwrap_err(),
        ours.load(0, &row).unwrap_err(),
        ours.finish_rebuild(model.place()).unwrap_err(),
        ours.remove().unwrap_err(),
    ] {
        assert!(
            matches!(
                error,
                StoreError::PutBack {
                    ours: 20,
                    found: 18
                }
            ),
            "{error}"
        );
        assert!(error.is_retryable());
    }
    older.assert_equal(&plan, copy.as_mut());
    // finds the older position, from which it goes on.
    let mut again = harness.open(Arc::clone(&plan), LOG);
    assert_eq!(again.take_over().unwrap(), 19);
    let found = again.position().unwrap().unwrap();
    assert_eq!(found.position, older.position());
    assert!(ours.apply(&batch).is_err());
    let batch = model.batch(&plan, older.position());
    again.apply(&batch).unwrap();
    model.assert_equal(&plan, again.as_mut());
    // A later takeover than ours is another process's, as ever.
    let error = copy.apply(&batch).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Fenced {
                ours: 18,
                found: 19
            }
        ),
        "{error}"
    );
}
