//! Two sinks never write to one table: the store knows whose each table is.

use std::sync::{Arc, Barrier};

use onelog_mapping::{EXISTING, Mapping, Plan};

use super::{Harness, LOG, Model, SINK, STANDARD, backfilled, plan, standard_plan};
use crate::{Store, StoreError};

/// How often sinks race for a table, each time for another one.
const RACES: usize = 16;
/// How often one of them begins again because the store was busy.
const ATTEMPTS_MAX: usize = 10;

/// A table belongs to the sink that backfilled it until that is removed, for sinks of every log.
pub fn a_table_of_another_sink_is_refused(harness: &dyn Harness) {
    let made = standard_plan(harness);
    let (store, model) = backfilled(harness, &made);
    let existing = has_existing(harness).then(|| plan(harness, &existing_mapping()));
    others_are_refused(harness, &made, existing.as_ref(), store, model);
}

fn existing_mapping() -> String {
    STANDARD.replacen('{', "{\"existing\":true,", 1)
}

fn has_existing(harness: &dyn Harness) -> bool {
    let rules = harness.kind().rules();
    rules.options.iter().any(|rule| rule.name == EXISTING)
}

/// The same for a table that the user has made. Where a store has none of these, a definition that
/// asks for one is refused.
pub fn an_existing_table_of_another_sink_is_refused(harness: &dyn Harness) {
    let existing = existing_mapping();
    let rules = harness.kind().rules();
    if !has_existing(harness) {
        let value = serde_json::from_str(&existing).unwrap();
        Mapping::from_json("mapping", &value, rules, &[rules]).unwrap_err();
        return;
    }
    // A table that is there, and no sink's.
    let (mut former, _) = backfilled(harness, &standard_plan(harness));
    former.remove().unwrap();
    let plan = plan(harness, &existing);
    let (store, model) = backfilled(harness, &plan);
    let made = standard_plan(harness);
    others_are_refused(harness, &plan, Some(&made), store, model);
}

/// A table that a definition names no longer is the sink's until the tables that it names are
/// backfilled, and then free: another sink may have it, and the former one has to ask.
pub fn a_table_that_a_definition_left_is_free(harness: &dyn Harness) {
    // given a sink with a table, whose definition names another one by now,
    let left = standard_plan(harness);
    let named = plan(
        harness,
        &STANDARD.replacen("\"orders\"", "\"elsewhere\"", 1),
    );
    let (_, model) = backfilled(harness, &left);
    let mut store = harness.open(Arc::clone(&named), LOG);
    store.take_over().unwrap();
    model.rebuild(&named, store.as_mut()).unwrap();
    // when another sink wants the table that was left, then it has it,
    let mut heir = harness.open_as("heir", Arc::clone(&left), LOG);
    heir.check_target().unwrap();
    heir.take_over().unwrap();
    model.rebuild(&left, heir.as_mut()).unwrap();
    model.assert_equal(&left, heir.as_mut());
    // and the other table is still the first one's, which cannot come back.
    model.assert_equal(&named, store.as_mut());
    let error = harness.open(left, LOG).check_target().unwrap_err();
    let is_refused =
        matches!(&error, StoreError::NotOwner { owner: Some(owner), .. } if owner == "heir");
    assert!(is_refused, "{error}");
}

fn others_are_refused(
    harness: &dyn Harness,
    plan: &Arc<Plan>,
    otherwise: Option<&Arc<Plan>>,
    mut store: Box<dyn Store>,
    mut model: Model,
) {
    for (sink, log_id) in [("intruder", LOG), ("stranger", "log-2")] {
        // Also to one that would have the table in the other way, made or as it is.
        for theirs in std::iter::once(plan).chain(otherwise) {
            let mut other = harness.open_as(sink, Arc::clone(theirs), log_id);
            is_refused(&other.check_target().unwrap_err());
            other.take_over().unwrap();
            is_refused(&other.check_target().unwrap_err());
            is_refused(&model.rebuild(theirs, other.as_mut()).unwrap_err());
            other.remove().unwrap();
        }
    }
    // The owner has not noticed any of that.
    model.assert_equal(plan, store.as_mut());
    let from = model.position();
    model.order("a", -1, "changed");
    store.apply(&model.batch(plan, from)).unwrap();
    model.assert_equal(plan, store.as_mut());
    store.remove().unwrap();
    let mut other = harness.open_as("heir", Arc::clone(plan), LOG);
    other.check_target().unwrap();
    other.take_over().unwrap();
    model.rebuild(plan, other.as_mut()).unwrap();
    model.assert_equal(plan, other.as_mut());
}

/// Of sinks that backfill one table at the same moment one has it, whatever the timing, and the others
/// are refused: a new table in every second race, else one that a deleted sink left.
pub fn a_table_belongs_to_one_of_the_sinks_that_race_for_it(harness: &dyn Harness) {
    for race in 0..RACES {
        let into = format!("\"race_{race}\"");
        let plan = plan(harness, &STANDARD.replacen("\"orders\"", &into, 1));
        if race % 2 == 1 {
            let mut former = harness.open_as("former", Arc::clone(&plan), LOG);
            let mut model = Model::default();
            model.order("former", 1, "left");
            former.take_over().unwrap();
            model.rebuild(&plan, former.as_mut()).unwrap();
            former.remove().unwrap();
        }
        // given three sinks of which none has backfilled,
        let mut rivals = ["left", "middle", "right"].map(|side| {
            let sink = format!("{side}-{race}");
            let mut model = Model::default();
            model.order(&sink, 1, "theirs");
            let mut store = harness.open_as(&sink, Arc::clone(&plan), LOG);
            store.check_target().unwrap();
            store.take_over().unwrap();
            (sink, model, store)
        });
        // when they do so at once,
        let (loading, finishing) = (Barrier::new(rivals.len()), Barrier::new(rivals.len()));
        let (loading, finishing, plan) = (&loading, &finishing, &plan);
        let outcomes = std::thread::scope(|scope| {
            let threads = rivals.each_mut().map(|(_, model, store)| {
                scope.spawn(move || {
                    loading.wait();
                    let loaded = model.load(plan, store.as_mut());
                    finishing.wait();
                    loaded.and_then(|()| store.finish_rebuild(model.place()))
                })
            });
            threads.map(|thread| thread.join().unwrap())
        });
        // then one is done, and the others know that the table is its own.
        let mut owners = Vec::new();
        let mut errors = Vec::new();
        for ((sink, model, mut store), mut outcome) in rivals.into_iter().zip(outcomes) {
            for _ in 0..ATTEMPTS_MAX {
                if !outcome.as_ref().is_err_and(StoreError::is_retryable) {
                    break;
                }
                store = harness.open_as(&sink, Arc::clone(plan), LOG);
                store.take_over().unwrap();
                outcome = model.rebuild(plan, store.as_mut());
            }
            match outcome {
                Ok(()) => owners.push((sink, model, store)),
                Err(error) => errors.push(error),
            }
        }
        let names: Vec<&String> = owners.iter().map(|(sink, ..)| sink).collect();
        assert_eq!(names.len(), 1, "race {race}: {names:?}, {errors:?}");
        let (sink, mut model, mut store) = owners.remove(0);
        for error in &errors {
            let is_named = error.to_string().contains(&format!("the sink '{sink}'"));
            let is_refused = matches!(error, StoreError::NotOwner { .. });
            assert!(is_refused && is_named, "race {race}: {error}");
        }
        let from = model.position();
        model.order(&sink, 2, "theirs still");
        store.apply(&model.batch(plan, from)).unwrap();
        store.check_shape().unwrap();
        model.assert_equal(plan, store.as_mut());
    }
}

fn is_refused(error: &StoreError) {
    let StoreError::NotOwner { what, .. } = error else {
        panic!("{error}");
    };
    let owner = format!("the sink '{SINK}'");
    assert!(
        what.contains(&owner) && what.contains("onelog sinks forget"),
        "{what}"
    );
}
