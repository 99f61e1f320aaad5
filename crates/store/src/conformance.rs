//! What every store must pass, as functions: one per sentence of [`crate::Store`].
//!
//! A store's own tests give a [`Harness`] that opens one and the same store again and again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cells;
mod model;
mod narrowed;
mod owners;
mod records;
mod refused;
mod renewed;
mod rights;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use onelog_mapping::{Mapping, MappingRules, Plan};
use onelog_record::{Offset, Position, TableDefinition, TableId, TableKind, ValueKind};

pub use self::cells::every_cell_comes_back_as_it_was;
pub use self::model::Model;
pub use self::narrowed::a_column_that_was_narrowed_and_put_back_stops_the_sink_until_a_rebuild;
pub use self::owners::{
    a_table_belongs_to_one_of_the_sinks_that_race_for_it, a_table_of_another_sink_is_refused,
    a_table_that_a_definition_left_is_free, an_existing_table_of_another_sink_is_refused,
};
pub use self::records::{
    a_removed_sink_is_forgotten, a_removed_sinks_process_is_fenced_by_the_next_sink_of_its_name,
    a_store_that_was_put_back_is_no_other_processes,
    another_logs_sink_is_not_taken_without_its_name, another_plan_has_no_position,
    how_far_a_store_got_is_known_under_every_plan, the_chain_is_kept_beside_the_position,
};
pub use self::refused::refused_keys;
pub use self::renewed::{
    Anew, what_was_made_anew_after_a_backfill_is_noticed,
    what_was_made_anew_behind_the_swap_is_noticed, what_was_made_anew_between_sessions_is_noticed,
    what_was_made_anew_is_noticed_before_it_is_written,
};
pub use self::rights::{line_of, the_rights_suffice};
use crate::verify::verify;
use crate::{Batch, Change, Store, StoreError, StoreKind, failpoint};

/// Opens one store, which is empty when the harness is made.
pub trait Harness {
    /// Opens the store for a sink of the log `log_id`.
    fn open_as(&self, sink: &str, plan: Arc<Plan>, log_id: &str) -> Box<dyn Store>;

    /// [`Harness::open_as`], for the sink [`SINK`].
    fn open(&self, plan: Arc<Plan>, log_id: &str) -> Box<dyn Store> {
        self.open_as(SINK, plan, log_id)
    }

    /// What the product can hold of the contract.
    fn capabilities(&self) -> Capabilities;
    fn kind(&self) -> &'static dyn StoreKind;

    /// Drops a table by hand and makes it anew, without its rows and otherwise as it was.
    fn make_table_anew(&self, _into: &str) -> Anew {
        Anew::Never
    }

    /// Drops a column by hand and adds it again, without its values.
    fn make_column_anew(&self, _into: &str, _column: &str) -> Anew {
        Anew::Never
    }

    /// Gives the column `note` by hand a type that cuts texts, or its own again. `false`: not possible.
    fn alter_note(&self, _into: &str, _cuts: bool) -> bool {
        false
    }
}

/// What a product can hold of the contract. A function that needs more checks what is promised
/// instead; it never leaves the check out.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// It can have full-text indexes.
    pub full_text: bool,
    /// A batch is one atomic step. Otherwise: after an error and a replay all is equal, and the
    /// position moves last.
    pub atomic: bool,
    /// A snapshot stays as it is while batches are applied and rebuilds are swapped.
    pub snapshots: bool,
    /// U+0000 can stand in texts and in JSON. Otherwise it is refused.
    pub nul_in_text: bool,
    /// A key can be empty. Otherwise it is refused.
    pub empty_keys: bool,
    /// A table can have any name. Otherwise `check_target` refuses a name that it cannot have, before
    /// anything is written.
    pub any_name: bool,
}

impl Capabilities {
    pub const ALL: Self = Self {
        full_text: true,
        atomic: true,
        snapshots: true,
        nul_in_text: true,
        empty_keys: true,
        any_name: true,
    };
}

/// The sink that every function opens.
pub const SINK: &str = "follower";
/// The log that is followed.
pub const LOG: &str = "log-1";
/// The table that the standard plan follows.
pub const ORDERS: TableId = TableId(1024);

const STANDARD: &str = r#"{"table":"shop.orders","into":"orders","columns":{
  "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"integer"},
  "note":{"from":"/note","type":"text"}}}"#;

/// A plan for these mappings over the tables `shop.orders` (JSON) and `shop.blobs` (bytes).
#[must_use]
pub fn plan(harness: &dyn Harness, mappings: &str) -> Arc<Plan> {
    Arc::new(plan_by(harness.kind().rules(), mappings))
}

/// As [`plan`], where there is no store to open.
#[must_use]
pub fn plan_by(rules: &'static MappingRules, mappings: &str) -> Plan {
    let table = |id, name: &str, value| TableDefinition {
        id: TableId(id),
        name: name.into(),
        kind: TableKind::Keyed,
        value,
        schema: None,
        unique: Vec::new(),
        dropped: false,
    };
    let tables = [
        table(1024, "shop.orders", ValueKind::Json),
        table(1025, "shop.blobs", ValueKind::Bytes),
    ];
    let list: Vec<serde_json::Value> = serde_json::from_str(&format!("[{mappings}]")).unwrap();
    let mappings: Vec<Mapping> = list
        .iter()
        .map(|mapping| Mapping::from_json("mapping", mapping, rules, &[rules]).unwrap())
        .collect();
    Plan::new(rules, &mappings, tables.as_slice()).unwrap()
}

/// The plan that most functions use: one table, columns `id`, `total`, `note`.
#[must_use]
pub fn standard_plan(harness: &dyn Harness) -> Arc<Plan> {
    plan(harness, STANDARD)
}

/// A store with three orders, taken over and backfilled.
pub fn backfilled(harness: &dyn Harness, plan: &Arc<Plan>) -> (Box<dyn Store>, Model) {
    let mut model = Model::default();
    model.order("a", 1, "one");
    model.order("b", 2, "two");
    model.order("c", 3, "three");
    let mut store = harness.open(Arc::clone(plan), LOG);
    store.take_over().unwrap();
    model.rebuild(plan, store.as_mut()).unwrap();
    (store, model)
}

type Function = fn(&dyn Harness);

macro_rules! named {
    ($($function:ident),* $(,)?) => { [$((stringify!($function), $function as Function)),*] };
}

/// Runs every function, each on a new store.
pub fn all(new: &dyn Fn() -> Box<dyn Harness>) {
    let functions = named![
        a_new_store_has_no_position,
        a_batch_and_its_position_are_one_step,
        the_chain_is_kept_beside_the_position,
        a_batch_collapses_to_the_last_image,
        a_batch_that_begins_elsewhere_is_refused,
        a_zombie_changes_nothing,
        a_refused_record_leaves_everything,
        a_refused_load_leaves_what_was_loaded,
        a_failure_before_the_commit_changes_nothing,
        a_rebuild_replaces_all_rows_in_one_step,
        an_unfinished_rebuild_is_thrown_away,
        a_repair_writes_rows_at_the_stores_position,
        a_snapshot_does_not_change,
        another_plan_has_no_position,
        how_far_a_store_got_is_known_under_every_plan,
        another_logs_sink_is_not_taken_without_its_name,
        a_removed_sink_is_forgotten,
        a_removed_sinks_process_is_fenced_by_the_next_sink_of_its_name,
        a_store_that_was_put_back_is_no_other_processes,
        a_table_of_another_sink_is_refused,
        an_existing_table_of_another_sink_is_refused,
        a_table_that_a_definition_left_is_free,
        a_table_belongs_to_one_of_the_sinks_that_race_for_it,
        what_was_made_anew_after_a_backfill_is_noticed,
        what_was_made_anew_behind_the_swap_is_noticed,
        what_was_made_anew_between_sessions_is_noticed,
        what_was_made_anew_is_noticed_before_it_is_written,
        a_column_that_was_narrowed_and_put_back_stops_the_sink_until_a_rebuild,
        a_delete_without_a_row_is_no_error,
        every_cell_comes_back_as_it_was,
        several_mappings_move_together,
        a_full_text_index_follows_its_rows,
    ];
    for (name, function) in functions {
        println!("conformance: {}", name.replace('_', " "));
        function(new().as_ref());
    }
}

/// Absence is not position 0.
pub fn a_new_store_has_no_position(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let mut store = harness.open(Arc::clone(&plan), LOG);
    assert_eq!(store.position().unwrap(), None);
    assert_eq!(store.followed().unwrap(), None);
    store.check_target().unwrap();
    assert_eq!(store.take_over().unwrap(), 1);
    assert_eq!(store.position().unwrap(), None);
    let error = store.apply(&Batch::new(&plan, Position::ZERO)).unwrap_err();
    assert!(
        matches!(error, StoreError::PositionMismatch { found: None, .. }),
        "{error}"
    );
    assert!(store.reader().is_err());
    // Backfilled with nothing it has a position all the same.
    let model = Model::default();
    model.rebuild(&plan, store.as_mut()).unwrap();
    model.assert_equal(&plan, store.as_mut());
}

/// Rows and position move together, and are there when the store is opened again.
pub fn a_batch_and_its_position_are_one_step(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let (mut store, mut model) = backfilled(harness, &plan);
    let from = model.position();
    model.order("a", -1, "changed");
    model.write(ORDERS, b"b", None);
    model.order("d", 4, "new");
    store.apply(&model.batch(&plan, from)).unwrap();
    model.assert_equal(&plan, store.as_mut());
    drop(store);
    let mut store = harness.open(Arc::clone(&plan), LOG);
    model.assert_equal(&plan, store.as_mut());
    store.check_shape().unwrap();
    assert_eq!(store.take_over().unwrap(), 2);
    // A batch without changes for this sink moves the position too.
    let from = model.position();
    model.write(TableId(9999), b"x", Some("{}"));
    store.apply(&model.batch(&plan, from)).unwrap();
    model.assert_equal(&plan, store.as_mut());
}

/// Only the last image of a key counts, and a batch has one change a key.
pub fn a_batch_collapses_to_the_last_image(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let (mut store, mut model) = backfilled(harness, &plan);
    let from = model.position();
    for n in 0..10 {
        model.order("a", n, "again");
        model.write(ORDERS, b"a", None);
        model.write(ORDERS, b"b", None);
        model.order("b", n, "back");
        model.order("e", n, "short-lived");
        model.write(ORDERS, b"e", None);
    }
    let batch = model.batch(&plan, from);
    assert_eq!(batch.rows(), 3);
    store.apply(&batch).unwrap();
    model.assert_equal(&plan, store.as_mut());
}

/// The position in the store decides, not the one in the batch.
pub fn a_batch_that_begins_elsewhere_is_refused(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let (mut store, mut model) = backfilled(harness, &plan);
    let before = model.clone();
    let from = model.position();
    model.order("z", 9, "later");
    for wrong in [Position(from.get() - 1), Position(from.get() + 1)] {
        let mut batch = model.batch(&plan, from);
        batch.from = wrong;
        let error = store.apply(&batch).unwrap_err();
        assert!(
            matches!(error, StoreError::PositionMismatch { found: Some(_), .. }),
            "{error}"
        );
        assert!(error.is_retryable());
        before.assert_equal(&plan, store.as_mut());
    }
    let batch = model.batch(&plan, from);
    store.apply(&batch).unwrap();
    assert!(
        store.apply(&batch).is_err(),
        "the same batch is never applied twice"
    );
    model.assert_equal(&plan, store.as_mut());
}

/// A store that was taken over by a rival changes nothing any more.
pub fn a_zombie_changes_nothing(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let (mut zombie, mut model) = backfilled(harness, &plan);
    let before = model.clone();
    let mut rival = harness.open(Arc::clone(&plan), LOG);
    assert_eq!(rival.take_over().unwrap(), 2);
    let from = model.position();
    model.order("z", 9, "later");
    let batch = model.batch(&plan, from);
    let row = batch.changes[0].clone();
    for error in [
        zombie.apply(&batch).unwrap_err(),
        zombie.begin_rebuild().unwrap_err(),
        zombie.load(0, &row).unwrap_err(),
        zombie.finish_rebuild(model.place()).unwrap_err(),
        zombie.remove().unwrap_err(),
    ] {
        assert!(
            matches!(error, StoreError::Fenced { ours: 1, found: 2 }),
            "{error}"
        );
        assert!(!error.is_retryable());
    }
    before.assert_equal(&plan, rival.as_mut());
    rival.apply(&batch).unwrap();
    model.assert_equal(&plan, rival.as_mut());
}

/// A record that does not fit is named, and nothing of its batch is there.
pub fn a_refused_record_leaves_everything(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let (mut store, mut model) = backfilled(harness, &plan);
    let before = model.clone();
    let from = model.position();
    model.order("a", 100, "fine");
    model.write(ORDERS, b"b", Some(r#"{"total":"many"}"#));
    match store.apply(&model.batch(&plan, from)).unwrap_err() {
        StoreError::Refused(refused) => {
            assert_eq!(
                (refused.table.as_str(), refused.key.as_str()),
                ("shop.orders", Some("b"))
            );
            assert_eq!(refused.offset, Offset(from.get() + 1));
            assert_eq!(
                refused.into.as_deref(),
                Some(plan.mappings[0].into.as_str())
            );
            assert!(refused.what.contains("total"), "{refused}");
        }
        other => panic!("{other}"),
    }
    before.assert_equal(&plan, store.as_mut());
}

/// A backfill goes on without the record that does not fit.
pub fn a_refused_load_leaves_what_was_loaded(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let (mut store, mut model) = backfilled(harness, &plan);
    let row = |key: &'static str, offset, text: &'static str| Change {
        key: Bytes::from_static(key.as_bytes()),
        offset: Offset(offset),
        value: Some(Bytes::from_static(text.as_bytes())),
    };
    store.begin_rebuild().unwrap();
    let one = row("a", 0, r#"{"total":1,"note":"one"}"#);
    store.load(0, &[one]).unwrap();
    let two = row("b", 1, r#"{"total":2,"note":"two"}"#);
    let bad = row("bad", 2, r#"{"total":"many"}"#);
    let error = store.load(0, &[two.clone(), bad]).unwrap_err();
    let StoreError::Refused(refused) = error else {
        panic!("{error}");
    };
    assert_eq!(
        (refused.offset, refused.key.as_str()),
        (Offset(2), Some("bad"))
    );
    store.load(0, &[two]).unwrap();
    store.finish_rebuild(model.place()).unwrap();
    model.rows.remove(&(ORDERS, Bytes::from_static(b"c")));
    model.assert_equal(&plan, store.as_mut());
}

/// A failure between the rows and the commit changes nothing; the replay is equal.
pub fn a_failure_before_the_commit_changes_nothing(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let (mut store, mut model) = backfilled(harness, &plan);
    let before = model.clone();
    let from = model.position();
    model.order("a", 100, "changed");
    model.write(ORDERS, b"c", None);
    let batch = model.batch(&plan, from);
    // One test of a process at a time: they would replace each other's failure.
    static PLANNED: Mutex<()> = Mutex::new(());
    let planned = PLANNED.lock().unwrap_or_else(PoisonError::into_inner);
    let place = format!("{SINK}:before_commit");
    let thread = std::thread::current().id();
    failpoint::set(&place, move || {
        // Other tests of this process come here too.
        assert_ne!(std::thread::current().id(), thread, "the planned failure");
    });
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| store.apply(&batch)));
    failpoint::clear(&place);
    drop(planned);
    assert!(
        outcome.is_err(),
        "every store comes to the place before_commit"
    );
    drop(store);
    let mut store = harness.open(Arc::clone(&plan), LOG);
    if harness.capabilities().atomic {
        before.assert_equal(&plan, store.as_mut());
    } else {
        // Rows may be there, but the position has not moved, and no snapshot shows them as its state.
        let found = store.position().unwrap().expect("a position");
        assert_eq!(found.position, before.position());
        if let Ok(mut snapshot) = store.reader() {
            assert!(verify(&plan, &before, snapshot.as_mut()).unwrap().equal);
        }
    }
    store.take_over().unwrap();
    store.apply(&batch).unwrap();
    model.assert_equal(&plan, store.as_mut());
}

/// Until it is finished a rebuild is invisible; then nothing of the old rows is left.
pub fn a_rebuild_replaces_all_rows_in_one_step(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let (mut store, mut model) = backfilled(harness, &plan);
    let before = model.clone();
    model.write(ORDERS, b"a", None);
    model.order("b", 20, "changed");
    model.order("n", 30, "new");
    store.begin_rebuild().unwrap();
    let rows: Vec<Change> = model
        .batch(&plan, before.position())
        .changes
        .remove(0)
        .into_iter()
        .filter(|change| change.value.is_some())
        .collect();
    store.load(0, &rows).unwrap();
    before.assert_equal(&plan, store.as_mut());
    model.rebuild(&plan, store.as_mut()).unwrap();
    model.assert_equal(&plan, store.as_mut());
    let from = model.position();
    model.order("after", 1, "the rebuild");
    store.apply(&model.batch(&plan, from)).unwrap();
    model.assert_equal(&plan, store.as_mut());
}

/// What an interrupted rebuild left is not in the next one.
pub fn an_unfinished_rebuild_is_thrown_away(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let (mut store, mut model) = backfilled(harness, &plan);
    store.begin_rebuild().unwrap();
    let stray = Change {
        key: Bytes::from_static(b"stray"),
        offset: Offset(0),
        value: Some(Bytes::from_static(b"{}")),
    };
    store.load(0, &[stray]).unwrap();
    drop(store);
    let mut store = harness.open(Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    let from = model.position();
    model.order("d", 4, "four");
    store.apply(&model.batch(&plan, from)).unwrap();
    model.assert_equal(&plan, store.as_mut());
    model.rebuild(&plan, store.as_mut()).unwrap();
    model.assert_equal(&plan, store.as_mut());
}

/// A repair changes rows and not the position: here first to what is wrong, then to what is right.
pub fn a_repair_writes_rows_at_the_stores_position(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let (mut store, mut model) = backfilled(harness, &plan);
    let change = |key: &str, offset: u64, value: Option<&str>| Change {
        key: Bytes::copy_from_slice(key.as_bytes()),
        offset: Offset(offset),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
    };
    let (at, last) = (model.place(), model.position().get() - 1);
    let wrong = vec![
        change("a", last, Some(r#"{"total":-1,"note":"wrong"}"#)),
        change("b", last, None),
        change("extra", last, Some(r#"{"total":7,"note":"in no log"}"#)),
    ];
    store.apply(&Batch::repair(at, vec![wrong])).unwrap();
    let found = model.verify(&plan, store.as_mut());
    assert!(!found.equal);
    assert_eq!(found.tables[0].differences_total, 3, "{found:#?}");
    assert_eq!(store.position().unwrap().unwrap().position, at.position);
    let mut right: Vec<Change> = model.batch(&plan, Position::ZERO).changes.remove(0);
    right.retain(|change| change.key != b"c"[..]);
    right.push(change("extra", last, None));
    store.apply(&Batch::repair(at, vec![right])).unwrap();
    model.assert_equal(&plan, store.as_mut());
    // A repair of another position changes nothing.
    let stray = vec![change("a", last, None)];
    let error = store
        .apply(&Batch::repair(
            Position(at.position.get() - 1).into(),
            vec![stray],
        ))
        .unwrap_err();
    assert!(
        matches!(error, StoreError::PositionMismatch { .. }),
        "{error}"
    );
    model.order("a", 10, "later");
    model.order("extra", 11, "now real");
    store.apply(&model.batch(&plan, at.position)).unwrap();
    model.assert_equal(&plan, store.as_mut());
}

/// A snapshot stays at its position while batches are applied.
pub fn a_snapshot_does_not_change(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let (mut store, mut model) = backfilled(harness, &plan);
    let before = model.clone();
    let mut snapshot = store.reader().unwrap();
    let from = model.position();
    model.order("a", 1000, "later");
    model.write(ORDERS, b"b", None);
    store.apply(&model.batch(&plan, from)).unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert_eq!(snapshot.position(), before.position());
    assert!(verify(&plan, &before, snapshot.as_mut()).unwrap().equal);
    assert!(!verify(&plan, &model, snapshot.as_mut()).unwrap().equal);
    model.assert_equal(&plan, store.as_mut());
}

/// A delete changes nothing where no row is, also when its key cannot be in the table.
pub fn a_delete_without_a_row_is_no_error(harness: &dyn Harness) {
    let plan = standard_plan(harness);
    let (mut store, mut model) = backfilled(harness, &plan);
    let from = model.position();
    model.write(ORDERS, b"never there", None);
    model.write(ORDERS, &[0xff, 0xfe], None);
    store.apply(&model.batch(&plan, from)).unwrap();
    model.assert_equal(&plan, store.as_mut());
}

/// A transaction over two tables is in both or in neither.
pub fn several_mappings_move_together(harness: &dyn Harness) {
    let plan = plan(
        harness,
        &format!(
            r#"{STANDARD},{{"table":"shop.orders","into":"whole"}},{{"table":"shop.blobs","into":"blobs"}}"#
        ),
    );
    let (mut store, mut model) = backfilled(harness, &plan);
    let before = model.clone();
    let from = model.position();
    model.order("a", 50, "changed");
    model.write(TableId(1025), &[0xff], Some("a key that is not UTF-8"));
    let error = store.apply(&model.batch(&plan, from)).unwrap_err();
    assert!(
        matches!(&error, StoreError::Refused(refused)
            if refused.table == "shop.blobs" && refused.into.as_deref() == Some("blobs")),
        "{error}"
    );
    before.assert_equal(&plan, store.as_mut());
    let mut model = before;
    model.order("a", 50, "changed");
    model.write(TableId(1025), b"k", Some("bytes"));
    store.apply(&model.batch(&plan, from)).unwrap();
    model.assert_equal(&plan, store.as_mut());
}

/// The index is right after inserts, updates, deletes and a rebuild.
pub fn a_full_text_index_follows_its_rows(harness: &dyn Harness) {
    if !harness.capabilities().full_text {
        return;
    }
    let indexed = STANDARD.replacen("}}}", "}},\"full_text\":[\"note\"]}", 1);
    let plan = plan(harness, &indexed);
    let (mut store, mut model) = backfilled(harness, &plan);
    model.assert_equal(&plan, store.as_mut());
    for step in 0..6 {
        let from = model.position();
        model.order(
            "a",
            step,
            ["red apple", "green pear", "red pear"][step as usize % 3],
        );
        model.order(&format!("n{step}"), step, "a note \u{0} with 'words'");
        model.write(ORDERS, format!("n{}", step - 2).as_bytes(), None);
        model.write(ORDERS, b"b", (step % 2 == 0).then_some(r#"{"note":null}"#));
        store.apply(&model.batch(&plan, from)).unwrap();
        model.assert_equal(&plan, store.as_mut());
    }
    model.rebuild(&plan, store.as_mut()).unwrap();
    model.assert_equal(&plan, store.as_mut());
    store.check_shape().unwrap();
}
