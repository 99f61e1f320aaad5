//! SQLite against the contract of every store, and what is its own: whose tables are whose,
//! planted damage, search as a user writes it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod guarded;
mod left;
mod renewed;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_sqlite::SqliteStore;
use onelog_store::conformance::{
    self, Anew, Capabilities, Harness, LOG, Model, ORDERS, SINK, backfilled,
};
use onelog_store::{Store, StoreError, Verification, failpoint};
use rusqlite::Connection;

struct Sqlite {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Sqlite {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        Self {
            _folder: folder,
            path,
        }
    }

    fn connect(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }
}

impl Harness for Sqlite {
    fn open_as(&self, sink: &str, plan: Arc<Plan>, log_id: &str) -> Box<dyn Store> {
        Box::new(SqliteStore::open(&self.path, sink, log_id, plan).unwrap())
    }

    fn make_table_anew(&self, into: &str) -> Anew {
        let connection = self.connect();
        let sql = "SELECT sql FROM sqlite_schema WHERE name = ?1";
        let made: String = connection.query_row(sql, [into], |row| row.get(0)).unwrap();
        connection
            .execute_batch(&format!("BEGIN; DROP TABLE {into}; {made}; COMMIT"))
            .unwrap();
        Anew::Noticed
    }

    fn make_column_anew(&self, into: &str, column: &str) -> Anew {
        let sql = format!(
            "BEGIN; ALTER TABLE {into} DROP COLUMN {column};
             ALTER TABLE {into} ADD COLUMN {column} TEXT; COMMIT"
        );
        self.connect().execute_batch(&sql).unwrap();
        Anew::Noticed
    }

    fn alter_note(&self, into: &str, cuts: bool) -> bool {
        let kind = if cuts { "BLOB" } else { "TEXT" };
        let sql = format!(
            "BEGIN; CREATE TABLE altered (id TEXT PRIMARY KEY NOT NULL, total INTEGER, note {kind}) STRICT;
             INSERT INTO altered SELECT id, total, CAST(substr(note, 1, 3) AS {kind}) FROM {into};
             DROP TABLE {into}; ALTER TABLE altered RENAME TO {into}; COMMIT"
        );
        self.connect().execute_batch(&sql).unwrap();
        true
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn kind(&self) -> &'static dyn onelog_store::StoreKind {
        &onelog_sqlite::KIND
    }
}

fn open(path: &Path, plan: Arc<Plan>, log_id: &str) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, SINK, log_id, plan)
}

fn standard_plan() -> Arc<Plan> {
    conformance::standard_plan(&Sqlite::new())
}

fn searched_plan() -> Arc<Plan> {
    conformance::plan(
        &Sqlite::new(),
        r#"{"table":"shop.orders","into":"orders","columns":{
            "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"integer"},
            "note":{"from":"/note","type":"text"}},"full_text":["note"]}"#,
    )
}

#[test]
fn sqlite_keeps_the_contract_of_every_store() {
    conformance::all(&|| Box::new(Sqlite::new()));
}

fn by_hand(
    sqlite: &Sqlite,
    model: &Model,
    store: &mut dyn Store,
    plan: &Plan,
    sql: &str,
) -> Verification {
    sqlite.connect().execute_batch(sql).unwrap();
    model.verify(plan, store)
}

#[test]
fn every_kind_of_planted_difference_is_found_and_named() {
    let sqlite = Sqlite::new();
    let plan = standard_plan();
    let (mut store, model) = backfilled(&sqlite, &plan);
    let found = by_hand(
        &sqlite,
        &model,
        store.as_mut(),
        &plan,
        "UPDATE orders SET total = 7, note = 'hand' WHERE id = 'a';
         DELETE FROM orders WHERE id = 'b';
         INSERT INTO orders VALUES ('x', 1, 'extra');",
    );
    let table = &found.tables[0];
    assert!(!found.equal && !table.equal);
    assert_eq!(
        (table.rows, table.store_rows, table.differences_total),
        (3, 3, 3)
    );
    let shown = serde_json::to_value(&table.differences).unwrap();
    assert_eq!(
        shown,
        serde_json::json!([
            {"key": "a", "log": {"total": 1, "note": "one"}, "store": {"total": 7, "note": "hand"}},
            {"key": "b", "log": {"id": "b", "total": 2, "note": "two"}, "store": null},
            {"key": "x", "log": null, "store": {"id": "x", "total": 1, "note": "extra"}},
        ])
    );
}

#[test]
fn many_differences_are_counted_and_the_first_hundred_listed() {
    let sqlite = Sqlite::new();
    let plan = standard_plan();
    let mut model = Model::default();
    for n in 0..5000 {
        model.order(&format!("k{n}"), n, "note");
    }
    let mut store = open(&sqlite.path, Arc::clone(&plan), LOG).unwrap();
    store.take_over().unwrap();
    model.rebuild(&plan, &mut store).unwrap();
    let found = by_hand(
        &sqlite,
        &model,
        &mut store,
        &plan,
        "UPDATE orders SET total = total + 1 WHERE total % 2",
    );
    let table = &found.tables[0];
    assert_eq!(
        (table.differences_total, table.differences.len()),
        (2500, 100)
    );
    assert!(table.counted_all);
}

#[test]
fn an_index_that_was_tampered_with_is_found_word_by_word() {
    let sqlite = Sqlite::new();
    let plan = searched_plan();
    let (mut store, model) = backfilled(&sqlite, &plan);
    let found = by_hand(
        &sqlite,
        &model,
        store.as_mut(),
        &plan,
        "INSERT INTO orders_fts (orders_fts, rowid, id, note) SELECT 'delete', _row, id, note FROM orders WHERE id = 'a';
         INSERT INTO orders_fts (rowid, id, note) VALUES (99, 'q', 'ghost');",
    );
    let index = found.tables[0].full_text.clone().unwrap();
    assert!(!found.equal && found.tables[0].differences.is_empty());
    assert_eq!(index.faults_total, 2, "{index:?}");
    assert!(
        index.faults[0].contains("row 99") && index.faults[0].contains("'ghost'"),
        "{index:?}"
    );
    assert!(
        index.faults[1].contains("key 'a'") && index.faults[1].contains("lacks"),
        "{index:?}"
    );
    // A rebuild mends it.
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert!(model.verify(&plan, store.as_mut()).equal);
}

fn search(connection: &Connection, query: &str) -> Vec<String> {
    let mut statement = connection
        .prepare("SELECT id FROM orders_fts WHERE orders_fts MATCH ?1 ORDER BY id")
        .unwrap();
    let rows = statement.query_map([query], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_search_finds_what_the_newest_rows_say() {
    let sqlite = Sqlite::new();
    let plan = searched_plan();
    let (mut store, mut model) = backfilled(&sqlite, &plan);
    let reader = sqlite.connect();
    assert_eq!(search(&reader, "one OR three"), ["a", "c"]);
    let from = model.position();
    model.order("a", 1, "three blind mice");
    model.write(ORDERS, b"c", None);
    store.apply(&model.batch(&plan, from)).unwrap();
    assert_eq!(search(&reader, "three"), ["a"]);
    assert_eq!(search(&reader, "one"), [""; 0]);
    let total: i64 = reader
        .query_row(
            "SELECT o.total FROM orders_fts f JOIN orders o ON o._row = f.rowid WHERE orders_fts MATCH 'blind'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(total, 1);
    // Rows keep their numbers when the file is rewritten.
    reader.execute_batch("VACUUM").unwrap();
    assert_eq!(search(&reader, "mice"), ["a"]);
    assert!(model.verify(&plan, store.as_mut()).equal);
}

#[test]
fn a_change_by_hand_keeps_the_index_in_step_with_the_row() {
    let sqlite = Sqlite::new();
    let plan = searched_plan();
    let (mut store, model) = backfilled(&sqlite, &plan);
    let found = by_hand(
        &sqlite,
        &model,
        store.as_mut(),
        &plan,
        "UPDATE orders SET note = 'forged' WHERE id = 'a'",
    );
    assert_eq!(search(&sqlite.connect(), "forged"), ["a"]);
    let table = &found.tables[0];
    assert!(table.full_text.as_ref().unwrap().equal);
    assert_eq!(table.differences_total, 1);
}

#[test]
fn a_table_that_onelog_did_not_make_is_never_replaced() {
    let sqlite = Sqlite::new();
    sqlite
        .connect()
        .execute_batch("CREATE TABLE Orders (id TEXT, total REAL, extra INT); INSERT INTO orders VALUES ('mine', 1, 2);")
        .unwrap();
    let mut store = open(&sqlite.path, standard_plan(), LOG).unwrap();
    let error = store.check_target().unwrap_err();
    let text = error.to_string();
    for part in [
        "it has rows",
        "'id' is TEXT, and should be TEXT PRIMARY KEY NOT NULL",
        "'total' is REAL, and should be INTEGER",
        "'note' is missing",
        "'extra' is not in the mapping",
        "not STRICT",
    ] {
        assert!(text.contains(part), "{text}");
    }
    store.take_over().unwrap();
    assert!(matches!(
        store.begin_rebuild(),
        Err(StoreError::NotOwner { .. })
    ));
    let rows: i64 = sqlite
        .connect()
        .query_row("SELECT count(*) FROM orders", [], |r| r.get(0))
        .unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn an_empty_table_of_the_right_shape_is_taken_over_and_a_view_is_not() {
    let plan = standard_plan();
    let sqlite = Sqlite::new();
    sqlite
        .connect()
        .execute_batch(
            "CREATE TABLE orders (id TEXT PRIMARY KEY NOT NULL, total INTEGER, note TEXT) STRICT",
        )
        .unwrap();
    let (mut store, model) = backfilled(&sqlite, &plan);
    assert!(model.verify(&plan, store.as_mut()).equal);

    let sqlite = Sqlite::new();
    sqlite
        .connect()
        .execute_batch("CREATE VIEW orders AS SELECT 1")
        .unwrap();
    let error = open(&sqlite.path, plan, LOG)
        .unwrap()
        .check_target()
        .unwrap_err();
    assert!(error.to_string().contains("a view"), "{error}");
}

#[test]
fn two_sinks_share_a_file_but_not_a_table() {
    let sqlite = Sqlite::new();
    let plan = standard_plan();
    let (mut store, model) = backfilled(&sqlite, &plan);
    let mut other = SqliteStore::open(&sqlite.path, "other", LOG, Arc::clone(&plan)).unwrap();
    let error = other.check_target().unwrap_err().to_string();
    assert!(error.contains("belongs to the sink 'follower'"), "{error}");
    other.take_over().unwrap();
    assert!(other.begin_rebuild().is_err());
    let elsewhere = conformance::plan(
        &Sqlite::new(),
        r#"{"table":"shop.orders","into":"elsewhere"}"#,
    );
    let mut other = SqliteStore::open(&sqlite.path, "other", LOG, Arc::clone(&elsewhere)).unwrap();
    other.take_over().unwrap();
    model.rebuild(&elsewhere, &mut other).unwrap();
    assert!(model.verify(&elsewhere, &mut other).equal);
    assert!(model.verify(&plan, store.as_mut()).equal);
    // Once its sink is removed, the name is free.
    store.remove().unwrap();
    SqliteStore::open(&sqlite.path, "third", LOG, plan)
        .unwrap()
        .check_target()
        .unwrap();
}

#[test]
fn sinks_that_backfill_one_table_do_not_mix_their_rows() {
    // Given a sink that has begun to backfill a new table,
    let (sqlite, plan) = (Sqlite::new(), standard_plan());
    let sink = |name: &str| {
        let mut model = Model::default();
        model.order(name, 1, "theirs");
        let mut store = sqlite.open_as(name, Arc::clone(&plan), LOG);
        store.take_over().unwrap();
        (model, store)
    };
    let (model, mut first) = sink("first");
    model.load(&plan, first.as_mut()).unwrap();
    // when another one is to backfill it, and is removed,
    let (other, mut second) = sink("second");
    let error = other.load(&plan, second.as_mut()).unwrap_err();
    second.remove().unwrap();
    // then it was refused, with the name of the first,
    let is_named = error
        .to_string()
        .contains("the sink 'first' is backfilling it");
    assert!(
        matches!(error, StoreError::NotOwner { .. }) && is_named,
        "{error}"
    );
    // which ends with its own rows,
    first.finish_rebuild(model.place()).unwrap();
    assert!(model.verify(&plan, first.as_mut()).equal);
    // and leaves the name free when it is gone.
    first.remove().unwrap();
    let (third_model, mut third) = sink("third");
    third_model.rebuild(&plan, third.as_mut()).unwrap();
    assert!(third_model.verify(&plan, third.as_mut()).equal);
}

#[test]
fn a_table_that_was_altered_is_described() {
    let plan = searched_plan();
    for (sql, expected) in [
        (
            "ALTER TABLE orders ADD COLUMN mood TEXT",
            "the column 'mood' is not in the mapping",
        ),
        ("DROP TABLE orders", "it is not there"),
        (
            "DROP TRIGGER orders_fts_update",
            "'orders_fts_update' of its full-text index is not there",
        ),
        (
            "DROP TABLE orders_fts",
            "'orders_fts' of its full-text index is not there",
        ),
    ] {
        let sqlite = Sqlite::new();
        let (mut store, model) = backfilled(&sqlite, &plan);
        sqlite.connect().execute_batch(sql).unwrap();
        let error = store.check_shape().unwrap_err();
        assert!(matches!(error, StoreError::SchemaMismatch { .. }));
        assert!(error.to_string().contains(expected), "{error}");
        model.rebuild(&plan, store.as_mut()).unwrap();
        store.check_shape().unwrap();
        assert!(model.verify(&plan, store.as_mut()).equal);
    }
}

#[test]
fn a_table_that_another_process_makes_anew_gets_no_row_that_it_would_change() {
    for (columns, expected) in [
        (
            "id TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, total INTEGER, note TEXT) STRICT",
            "the column 'id' has the collation NOCASE",
        ),
        (
            "id TEXT PRIMARY KEY NOT NULL, total INTEGER, note TEXT)",
            "the table is not STRICT",
        ),
        (
            "id TEXT PRIMARY KEY NOT NULL, total INTEGER, note TEXT UNIQUE ON CONFLICT IGNORE) STRICT",
            "the column 'note' has a UNIQUE constraint",
        ),
    ] {
        // Given a sink that follows, when another process makes its table anew in the middle,
        let sqlite = Sqlite::new();
        let plan = standard_plan();
        let (mut store, mut model) = backfilled(&sqlite, &plan);
        model.order("first", 1, "one");
        model.apply(&plan, store.as_mut()).unwrap();
        sqlite
            .connect()
            .execute_batch(&format!(
                "BEGIN; ALTER TABLE orders RENAME TO before; CREATE TABLE orders ({columns};
                 INSERT INTO orders SELECT * FROM before; DROP TABLE before; COMMIT"
            ))
            .unwrap();
        let position = store.position().unwrap();
        // then the next batch is refused whole, and says what the table is now.
        model.order("FIRST", 2, "one");
        let error = model.apply(&plan, store.as_mut()).unwrap_err();
        assert!(
            matches!(&error, StoreError::SchemaMismatch { what, .. } if what.contains(expected)),
            "{error}"
        );
        let said = error.to_string();
        assert!(said.ends_with("onelog sinks rebuild"), "{said}");
        assert_eq!(store.position().unwrap(), position);
        // A rebuild makes the table as it should be.
        model.rebuild(&plan, store.as_mut()).unwrap();
        assert!(model.verify(&plan, store.as_mut()).equal);
    }
}

#[test]
fn the_message_of_the_store_is_kept_when_it_refuses_a_row() {
    let sqlite = Sqlite::new();
    let plan = standard_plan();
    let (mut store, mut model) = backfilled(&sqlite, &plan);
    sqlite
        .connect()
        .execute_batch(
            "CREATE TRIGGER no BEFORE INSERT ON orders WHEN new.total > 100 BEGIN SELECT RAISE(ABORT, 'too dear'); END",
        )
        .unwrap();
    let from = model.position();
    model.order("d", 1000, "gold");
    let error = store.apply(&model.batch(&plan, from)).unwrap_err();
    assert!(
        error.to_string().contains("too dear") && error.to_string().contains("\"d\""),
        "{error}"
    );
    assert!(!error.is_retryable());
}

#[test]
fn a_file_that_was_replaced_is_noticed() {
    let sqlite = Sqlite::new();
    let plan = standard_plan();
    let (mut store, mut model) = backfilled(&sqlite, &plan);
    let from = model.position();
    model.order("d", 1, "late");
    std::fs::rename(&sqlite.path, sqlite.path.with_extension("old")).unwrap();
    let error = store.apply(&model.batch(&plan, from)).unwrap_err();
    assert!(
        error.is_retryable() && error.to_string().contains("replaced"),
        "{error}"
    );
}

#[test]
fn what_was_committed_to_a_file_that_was_replaced_meanwhile_is_not_reported_as_written() {
    // Given a store whose file is replaced while a batch is written.
    let sqlite = Sqlite::new();
    let plan = standard_plan();
    let sink = "replaced";
    let mut store = sqlite.open_as(sink, Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    let mut model = Model::default();
    model.rebuild(&plan, store.as_mut()).unwrap();
    let from = model.position();
    model.order("d", 1, "late");
    let (path, place) = (sqlite.path.clone(), format!("{sink}:before_commit"));
    failpoint::set(&place, move || {
        std::fs::rename(&path, path.with_extension("old")).unwrap();
    });
    // When it is committed, then that is an error that is tried again, and the next session has the
    // file that is there.
    let error = store.apply(&model.batch(&plan, from)).unwrap_err();
    failpoint::clear(&place);
    assert!(
        error.is_retryable() && error.to_string().contains("replaced"),
        "{error}"
    );
    let mut store = sqlite.open_as(sink, plan, LOG);
    store.take_over().unwrap();
    assert_eq!(store.position().unwrap(), None);
}

#[test]
fn what_is_no_database_is_not_overwritten() {
    let sqlite = Sqlite::new();
    std::fs::write(
        &sqlite.path,
        "a letter to a friend, longer than any header of a database would be, honestly".repeat(20),
    )
    .unwrap();
    let error = open(&sqlite.path, standard_plan(), LOG).unwrap_err();
    assert!(matches!(error, StoreError::Broken { .. }), "{error}");
    let missing = sqlite.path.with_file_name("no/such/folder/x.db");
    let error = open(&missing, standard_plan(), LOG).unwrap_err();
    assert!(
        error.is_retryable() && error.to_string().contains("no/such/folder"),
        "{error}"
    );
}

#[test]
fn views_of_users_survive_a_rebuild() {
    let sqlite = Sqlite::new();
    let plan = standard_plan();
    let (mut store, model) = backfilled(&sqlite, &plan);
    let user = sqlite.connect();
    user.execute_batch("CREATE VIEW dear AS SELECT id FROM orders WHERE total > 1")
        .unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    let count: i64 = user
        .query_row("SELECT count(*) FROM dear", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 2);
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, i64, String),
    Delete(u8),
    Apply,
    Rebuild,
    Reopen,
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::*;
    prop_oneof![
        6 => (0..12u8, any::<i64>(), "[ab'\" \u{0}ü\n]{0,12}").prop_map(|(k, n, t)| Step::Put(k, n, t)),
        3 => (0..12u8).prop_map(Step::Delete),
        3 => Just(Step::Apply),
        1 => Just(Step::Rebuild),
        1 => Just(Step::Reopen),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn any_history_in_any_batches_ends_equal(steps in proptest::collection::vec(step(), 1..60)) {
        let sqlite = Sqlite::new();
        let plan = searched_plan();
        let (mut store, mut model) = backfilled(&sqlite, &plan);
        let mut at = model.position();
        for step in steps.into_iter().chain([Step::Apply]) {
            match step {
                Step::Put(key, total, note) => model.order(&format!("k{key}"), total, &note),
                Step::Delete(key) => model.write(ORDERS, format!("k{key}").as_bytes(), None),
                Step::Apply => {
                    store.apply(&model.batch(&plan, at)).unwrap();
                    at = model.position();
                }
                Step::Rebuild => {
                    model.rebuild(&plan, store.as_mut()).unwrap();
                    at = model.position();
                }
                Step::Reopen => {
                    store = sqlite.open(std::sync::Arc::clone(&plan), LOG);
                    store.take_over().unwrap();
                    at = store.position().unwrap().unwrap().position;
                }
            }
        }
        let found = model.verify(&plan, store.as_mut());
        proptest::prop_assert!(found.equal, "{found:#?}");
    }
}
