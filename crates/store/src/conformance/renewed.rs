//! Tables that are made anew under a sink that follows.

use super::{Anew, Harness, backfilled, standard_plan};
use crate::StoreError;

/// What was filled a moment ago is known as well, although no batch has followed yet.
pub fn what_was_made_anew_after_a_backfill_is_noticed(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    // Given a sink that has just filled its table,
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
/// more until it is filled again; where a product cannot tell, a comparison does.
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
        // and a rebuild fills it.
        model.rebuild(&plan, store.as_mut()).unwrap();
        model.assert_equal(&plan, store.as_mut());
        store.check_shape().unwrap();
    }
    let from = model.position();
    model.order("a", 6, "six");
    store.apply(&model.batch(&plan, from)).unwrap();
    model.assert_equal(&plan, store.as_mut());
}
