//! Tables that are made anew under a sink that follows.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use bytes::Bytes;
use onelog_mapping::Plan;

use super::{Harness, LOG, Model, ORDERS, backfilled, standard_plan};
use crate::{Store, StoreError, failpoint};

/// What the store promises where something was made anew by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anew {
    /// There is no such thing, and nothing was done.
    Never,
    /// The store cannot tell; a comparison can.
    Unnoticed,
    /// Nothing is written any more.
    Noticed,
}

/// What was backfilled a moment ago is known as well, although no batch has followed yet.
pub fn what_was_made_anew_after_a_backfill_is_noticed(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    // Given a sink that has just backfilled its table,
    let (mut store, mut model) = backfilled(harness, &plan);
    let from = model.position();
    // when that is made anew before the first batch,
    let outcome = harness.make_table_anew(&plan.mappings[0].into);
    model.order("d", 4, "four");
    let applied = store.apply(&model.batch(&plan, from));
    match outcome {
        Anew::Never => applied.unwrap(),
        // then that is seen by a comparison,
        Anew::Unnoticed => {
            applied.unwrap();
            assert!(!model.verify(&plan, store.as_mut()).equal);
        }
        // or the batch is not written.
        Anew::Noticed => {
            let error = applied.unwrap_err();
            assert!(
                matches!(error, StoreError::SchemaMismatch { .. }),
                "{error}"
            );
        }
    }
}

/// A table that was dropped and made anew lacks what it had, and so does a column. It gets nothing
/// more until it is backfilled again; where a product cannot tell, a comparison does.
pub fn what_was_made_anew_is_noticed_before_it_is_written(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let into = &plan.mappings[0].into;
    let changes: [&dyn Fn() -> Anew; 2] = [&|| harness.make_table_anew(into), &|| {
        harness.make_column_anew(into, "note")
    }];
    let (mut store, mut model) = backfilled(harness, &plan);
    for (n, change) in changes.into_iter().enumerate() {
        // Given a sink that follows,
        let from = model.position();
        model.order("d", 4, "four");
        store.apply(&model.batch(&plan, from)).unwrap();
        store.check_shape().unwrap();
        let (before, mut after) = (model.clone(), model.clone());
        // when its table is made anew,
        let outcome = change();
        after.order("e", 5, "five");
        let applied = || after.batch(&plan, before.position());
        match outcome {
            Anew::Never => continue,
            // then that is seen by a comparison,
            Anew::Unnoticed => {
                store.apply(&applied()).unwrap();
                assert!(!after.verify(&plan, store.as_mut()).equal, "{n}");
                model = after;
            }
            // or the next batch is not written,
            Anew::Noticed => {
                let error = store.apply(&applied()).unwrap_err();
                assert!(
                    matches!(error, StoreError::SchemaMismatch { .. }),
                    "{error}"
                );
                let text = error.to_string();
                assert!(text.contains(into), "{text}");
                assert!(text.contains("onelog sinks rebuild"), "{text}");
                // however often it is tried,
                store.check_shape().unwrap_err();
                store.apply(&applied()).unwrap_err();
                let found = store.position().unwrap().unwrap();
                assert_eq!(found.position, before.position());
            }
        }
        // and a rebuild backfills it.
        model.rebuild(&plan, store.as_mut()).unwrap();
        model.assert_equal(&plan, store.as_mut());
        store.check_shape().unwrap();
    }
    let from = model.position();
    model.order("a", 6, "six");
    store.apply(&model.batch(&plan, from)).unwrap();
    model.assert_equal(&plan, store.as_mut());
}

/// What is made anew behind the step that backfills it, before a session looks, is noticed as well.
pub fn what_was_made_anew_behind_the_swap_is_noticed(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    for is_reopened in [false, true] {
        // Given a table that was backfilled in this very moment,
        let mut model = Model::default();
        model.order("a", 1, "one");
        model.order("b", 2, "two");
        let mut store = open(harness, &plan);
        model.load(&plan, store.as_mut()).unwrap();
        // when it is made anew before the step has returned,
        let anew = || harness.make_table_anew(&plan.mappings[0].into);
        let outcome = made_anew_behind_the_swap(&model, store.as_mut(), &anew);
        if is_reopened {
            drop(store);
            store = open(harness, &plan);
        }
        // then that is noticed, in this session and in the next.
        check(&plan, &mut model, store.as_mut(), outcome);
        model.rebuild(&plan, store.as_mut()).unwrap();
        model.assert_equal(&plan, store.as_mut());
    }
}

/// A session that begins finds what was made anew since the last one ended.
pub fn what_was_made_anew_between_sessions_is_noticed(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let into = &plan.mappings[0].into;
    let table = || harness.make_table_anew(into);
    let column = || harness.make_column_anew(into, "note");
    let (store, mut model) = backfilled(harness, &plan);
    drop(store);
    for (change, has_followed) in [
        (&table as &dyn Fn() -> Anew, false),
        (&table, true),
        (&column, false),
        (&column, true),
    ] {
        // Given a store that was backfilled, and perhaps got batches that changed each row,
        if has_followed {
            let mut store = open(harness, &plan);
            let from = model.position();
            let keys: Vec<Bytes> = model.rows.keys().map(|(_, key)| key.clone()).collect();
            for key in keys {
                model.write(ORDERS, &key, None);
            }
            model.order("d", 4, "four");
            model.order("e", 5, "five");
            store.apply(&model.batch(&plan, from)).unwrap();
        }
        // when its table is made anew while nobody follows, then the next session notices,
        let outcome = change();
        let mut store = open(harness, &plan);
        check(&plan, &mut model, store.as_mut(), outcome);
        if outcome == Anew::Noticed {
            // and so does every later one,
            drop(store);
            store = open(harness, &plan);
            check(&plan, &mut model, store.as_mut(), outcome);
        }
        // until a rebuild backfills it.
        model.order("a", 1, "one");
        model.order("b", 2, "two");
        model.order("c", 3, "three");
        model.rebuild(&plan, store.as_mut()).unwrap();
        store.check_shape().unwrap();
        drop(store);
        let mut store = open(harness, &plan);
        store.check_shape().unwrap();
        let from = model.position();
        model.order("f", 6, "six");
        store.apply(&model.batch(&plan, from)).unwrap();
        model.assert_equal(&plan, store.as_mut());
    }
}

/// The store as a new session of the sink has it.
fn open(harness: &dyn Harness, plan: &Arc<Plan>) -> Box<dyn Store> {
    let mut store = harness.open(Arc::clone(plan), LOG);
    store.take_over().unwrap();
    store
}

/// Says that the thread ends which has it: it may never have come to the place.
struct Ends(mpsc::Sender<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Ends a rebuild; `anew` is called when its step has taken place and has not returned.
fn made_anew_behind_the_swap(
    model: &Model,
    store: &mut dyn Store,
    anew: &dyn Fn() -> Anew,
) -> Anew {
    /// One test of a process at a time: they would replace each other's action.
    static PLANNED: Mutex<()> = Mutex::new(());
    const THREAD: &str = "onelog-ends-a-rebuild";
    const PLACE: &str = "after_swap";
    let _planned = PLANNED.lock().unwrap_or_else(PoisonError::into_inner);
    let (reaches, reached) = mpsc::channel();
    let (goes_on, go_on) = mpsc::channel();
    let (ends, go_on) = (reaches.clone(), Mutex::new(go_on));
    failpoint::set(PLACE, move || {
        // Other tests of this process come here too.
        if thread::current().name() == Some(THREAD) {
            reaches.send(()).unwrap();
            go_on.lock().unwrap().recv().unwrap();
        }
    });
    let outcome = thread::scope(|scope| {
        // Gone with this function, however it ends: nobody waits for it any more.
        let goes_on = goes_on;
        let ending = thread::Builder::new().name(THREAD.to_owned());
        let ending = ending.spawn_scoped(scope, move || {
            let _ends = Ends(ends);
            store.finish_rebuild(model.place()).unwrap();
        });
        reached.recv().unwrap();
        let outcome = anew();
        let _ = goes_on.send(());
        ending.unwrap().join().unwrap();
        outcome
    });
    failpoint::clear(PLACE);
    outcome
}

/// Nothing is written into what was made anew, however often it is tried; or a comparison sees it.
fn check(plan: &Plan, model: &mut Model, store: &mut dyn Store, outcome: Anew) {
    let before = model.position();
    let mut after = model.clone();
    after.order("g", 7, "seven");
    let batch = after.batch(plan, before);
    if outcome != Anew::Noticed {
        store.apply(&batch).unwrap();
        *model = after;
        assert_eq!(model.verify(plan, store).equal, outcome == Anew::Never);
        return;
    }
    for error in [
        store.check_shape().unwrap_err(),
        store.apply(&batch).unwrap_err(),
        store.check_shape().unwrap_err(),
    ] {
        assert!(
            matches!(error, StoreError::SchemaMismatch { .. }),
            "{error}"
        );
        assert!(
            error.to_string().contains("onelog sinks rebuild"),
            "{error}"
        );
    }
    assert_eq!(store.position().unwrap().unwrap().position, before);
}
