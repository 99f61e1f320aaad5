//! A column that is made narrower under a sink and given its type back.

use std::sync::Arc;

use super::{Harness, LOG, backfilled, standard_plan};
use crate::StoreError;

/// What narrowing has cut stays cut when the column has its type back: once the store has noticed, no
/// session writes into the table until a rebuild has backfilled it.
pub fn a_column_that_was_narrowed_and_put_back_stops_the_sink_until_a_rebuild(
    harness: &dyn Harness,
) {
    let plan = standard_plan(harness);
    let into = &plan.mappings[0].into;
    let (mut store, mut model) = backfilled(harness, &plan);
    for by_a_batch in [true, false] {
        let before = model.position();
        let mut after = model.clone();
        after.order("d", 4, "fourth");
        let batch = after.batch(&plan, before);
        // Given a sink that has noticed a narrower column, by a batch or by a look alone,
        if !harness.alter_note(into, true) {
            return;
        }
        let noticed = match by_a_batch {
            true => store.apply(&batch),
            false => store.check_shape(),
        };
        let error = noticed.unwrap_err();
        assert!(
            matches!(error, StoreError::SchemaMismatch { .. }),
            "{error}"
        );
        // when the column has its type back,
        assert!(harness.alter_note(into, false));
        // then this session and every later one name it and the way out, and write nothing,
        for is_reopened in [false, true, true] {
            if is_reopened {
                drop(store);
                store = harness.open(Arc::clone(&plan), LOG);
                store.take_over().unwrap();
            }
            for error in [
                store.check_shape().unwrap_err(),
                store.apply(&batch).unwrap_err(),
            ] {
                let text = error.to_string();
                assert!(matches!(error, StoreError::SchemaMismatch { .. }), "{text}");
                assert!(text.contains("'note' was"), "{text}");
                assert!(text.contains("at a later look"), "{text}");
                assert!(text.contains("onelog sinks rebuild"), "{text}");
            }
            let found = store.position().unwrap().unwrap();
            assert_eq!(found.position, before);
        }
        // until a rebuild has backfilled the table.
        model.rebuild(&plan, store.as_mut()).unwrap();
        store.check_shape().unwrap();
        model.assert_equal(&plan, store.as_mut());
        drop(store);
        store = harness.open(Arc::clone(&plan), LOG);
        store.take_over().unwrap();
        store.check_shape().unwrap();
        store.apply(&batch).unwrap();
        after.assert_equal(&plan, store.as_mut());
        model = after;
    }
}
