//! Sinks on a real node: commits on one side, SQLite files on the other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use onelog::{NewTable, Node, Options, Position};
use onelog_sinks::{SinkError, SinkState, Sinks};
use onelog_store::SinkDefinition;
use onelog_stores::KINDS;
use rusqlite::Connection;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn options(&self) -> Options {
        Options::new(self.path("log"))
    }

    fn open(&self) -> (Node, Sinks) {
        open(self.options())
    }

    fn store(&self, name: &str) -> Connection {
        Connection::open(self.path(name)).unwrap()
    }

    fn definition(&self, name: &str, mappings: &str) -> SinkDefinition {
        let path = json!(self.path(&format!("{name}.db"))).to_string();
        let text =
            format!(r#"{{"name":"{name}","kind":"sqlite","path":{path},"mappings":[{mappings}]}}"#);
        SinkDefinition::from_slice(KINDS, text.as_bytes()).unwrap()
    }
}

fn open(options: Options) -> (Node, Sinks) {
    let node = Node::open(options).unwrap();
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    (node, sinks)
}

fn close(node: &Node, sinks: &Sinks) {
    sinks.stop();
    node.stop().unwrap();
}

const ORDERS: &str = r#"{"table":"shop.orders","into":"orders","columns":{
    "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"integer"},
    "note":{"from":"/note","type":"text"}},"full_text":["note"]}"#;
const STOCK: &str = r#"{"table":"shop.stock","into":"stock"}"#;

fn with_tables(node: &Node) {
    node.create_table_blocking(NewTable::keyed("shop.orders"))
        .unwrap();
    node.create_table_blocking(NewTable::keyed("shop.stock"))
        .unwrap();
}

fn order(node: &Node, key: &str, total: i64, note: &str) -> Position {
    let done = node.transact(|tx| {
        tx.put_json("shop.orders", key, &json!({"total": total, "note": note}))?;
        tx.put_json("shop.stock", "apple", &json!({"sold": total}))
    });
    done.unwrap().position
}

fn delete(node: &Node, key: &str) -> Position {
    node.transact(|tx| tx.delete("shop.orders", key))
        .unwrap()
        .position
}

fn assert_equal(sinks: &Sinks, name: &str, at_least: Position) {
    sinks.wait_blocking(name, at_least, PATIENCE).unwrap();
    let found = sinks.verify(name).unwrap();
    assert!(found.equal, "{found:#?}");
    assert!(found.position >= at_least);
}

fn wait_for_stop(sinks: &Sinks, name: &str) -> String {
    let error = sinks
        .wait_blocking(name, Position(u64::MAX), PATIENCE)
        .unwrap_err();
    assert!(matches!(error, SinkError::Stopped { .. }), "{error}");
    error.to_string()
}

fn count(store: &Connection, sql: &str) -> i64 {
    store.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_store_follows_two_tables_through_pause_rebuild_and_restart() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_tables(&node);
    for n in 0..50 {
        order(&node, &format!("early {n}"), n, "before the sink");
    }
    // A new store is backfilled from a snapshot, then follows.
    sinks
        .create(place.definition("search", &format!("{ORDERS},{STOCK}")))
        .unwrap();
    for n in 0..200 {
        order(
            &node,
            &format!("k{}", n % 40),
            n,
            &format!("apple number {n}"),
        );
    }
    let end = delete(&node, "k7");
    assert_equal(&sinks, "search", end);
    let store = place.store("search.db");
    assert_eq!(count(&store, "SELECT count(*) FROM orders"), 89);
    assert_eq!(
        count(
            &store,
            "SELECT count(*) FROM orders_fts WHERE orders_fts MATCH 'apple'"
        ),
        39
    );
    assert_eq!(count(&store, "SELECT document ->> 'sold' FROM stock"), 199);

    // While it is paused the store does not change; afterwards it catches up.
    assert_eq!(sinks.pause("search").unwrap().state, SinkState::Paused);
    let end = order(&node, "paused", 1, "unseen");
    let status = sinks.get("search").unwrap();
    assert!(
        status.definition.paused && status.lag_records.unwrap() > 0,
        "{status:?}"
    );
    assert!(status.lag_seconds.unwrap() >= 0.0);
    assert_eq!(
        count(&store, "SELECT count(*) FROM orders WHERE id = 'paused'"),
        0
    );
    // It can be compared at its position.
    assert!(sinks.verify("search").unwrap().equal);
    sinks.resume("search").unwrap();
    assert_equal(&sinks, "search", end);

    // A rebuild mends what was changed by hand.
    store
        .execute_batch("UPDATE orders SET total = -1; DELETE FROM stock")
        .unwrap();
    let found = sinks.verify("search").unwrap();
    assert!(!found.equal);
    assert_eq!(
        (
            found.tables[0].differences_total,
            found.tables[1].differences_total
        ),
        (90, 1)
    );
    sinks.rebuild("search").unwrap();
    let end = order(&node, "after", 2, "the rebuild began");
    assert_equal(&sinks, "search", end);

    // A restart goes on from the store's position, paused or not.
    sinks.pause("search").unwrap();
    close(&node, &sinks);
    drop((node, sinks));
    let (node, sinks) = place.open();
    let end = order(&node, "restarted", 3, "again");
    assert_eq!(sinks.list().len(), 1);
    assert!(sinks.get("search").unwrap().definition.paused);
    sinks.resume("search").unwrap();
    assert_equal(&sinks, "search", end);
    // The definition's own change is a record too.
    let end = node.position();
    sinks.wait_blocking("search", end, PATIENCE).unwrap();
    let text = node.metrics_text();
    for line in [
        format!("onelog_sink_position{{sink=\"search\"}} {}", end.get()),
        "onelog_sink_lag_records{sink=\"search\"} 0".to_owned(),
        "onelog_sink_running{sink=\"search\"} 1".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
    close(&node, &sinks);
}

#[test]
fn comparing_does_not_need_writers_or_the_sink_to_pause() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_tables(&node);
    sinks
        .create(place.definition("search", &format!("{ORDERS},{STOCK}")))
        .unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..1500 {
                order(&node, &format!("k{}", n % 100), n, "moving");
            }
        });
        let mut compared = 0;
        while !writer.is_finished() {
            match sinks.verify("search") {
                Ok(found) => assert!(found.equal, "{found:#?}"),
                Err(SinkError::NotBackfilled { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            compared += 1;
        }
        assert!(compared > 0);
    });
    assert_equal(&sinks, "search", node.position());
    close(&node, &sinks);
}

#[test]
fn a_store_that_the_log_no_longer_reaches_is_backfilled() {
    let place = Place::new();
    let mut options = place.options();
    options.segment_bytes = 256 << 10;
    options.retain_bytes = Some(1 << 20);
    options.retain_past_followers = true;
    options.checkpoint_interval_ms = 200;
    let (node, sinks) = open(options);
    with_tables(&node);
    sinks
        .create(place.definition("search", &format!("{ORDERS},{STOCK}")))
        .unwrap();
    let kept = order(&node, "gone", 1, "deleted meanwhile");
    assert_equal(&sinks, "search", kept);
    sinks.pause("search").unwrap();
    delete(&node, "gone");
    let note = "x".repeat(20_000);
    let mut n = 0;
    while node.log_start() <= kept {
        order(&node, &format!("k{}", n % 30), n, &note);
        n += 1;
    }
    let end = node.position();
    sinks.resume("search").unwrap();
    assert_equal(&sinks, "search", end);
    assert_eq!(
        count(
            &place.store("search.db"),
            "SELECT count(*) FROM orders WHERE id = 'gone'"
        ),
        0
    );
    close(&node, &sinks);
}

#[test]
fn a_sink_holds_the_log_until_it_has_taken_it() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_tables(&node);
    sinks.create(place.definition("search", ORDERS)).unwrap();
    let at = order(&node, "a", 1, "one");
    sinks.wait_blocking("search", at, PATIENCE).unwrap();
    sinks.pause("search").unwrap();
    // Pausing is a record of the log, too, which the sink may have passed before it stood still.
    let paused = node.position();
    order(&node, "b", 2, "two");
    let slowest = node.status().slowest_follower.unwrap();
    assert_eq!(slowest.name, "sink search");
    assert!((at..=paused).contains(&slowest.position), "{slowest:?}");
    sinks.delete("search").unwrap();
    assert!(node.status().slowest_follower.is_none());
    close(&node, &sinks);
}

#[test]
fn a_record_that_does_not_fit_stops_its_sink_alone_until_it_is_mended() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_tables(&node);
    sinks.create(place.definition("strict", ORDERS)).unwrap();
    sinks.create(place.definition("lax", STOCK)).unwrap();
    let good = order(&node, "a", 1, "fine");
    sinks.wait_blocking("strict", good, PATIENCE).unwrap();
    let bad = node
        .transact(|tx| tx.put_json("shop.orders", "b", &json!({"total": "many"})))
        .unwrap()
        .position;
    let text = wait_for_stop(&sinks, "strict");
    let status = sinks.get("strict").unwrap();
    let fault = status.last_error.unwrap();
    assert_eq!(status.position, Some(good));
    assert_eq!(fault.table.as_deref(), Some("shop.orders"));
    assert_eq!(fault.key, Some(json!("b")));
    assert_eq!(fault.offset.map(onelog::Offset::after), Some(bad));
    assert!(text.contains("total"), "{text}");
    // What stood before the refusal can still be compared, and the other sink goes on.
    assert!(sinks.verify("strict").unwrap().equal);
    let end = order(&node, "c", 2, "fine too");
    assert_equal(&sinks, "lax", end);
    // Resuming alone does not help; a later write of the key does.
    sinks.resume("strict").unwrap();
    wait_for_stop(&sinks, "strict");
    let end = order(&node, "b", 7, "mended");
    sinks.resume("strict").unwrap();
    assert_equal(&sinks, "strict", end);
    assert_eq!(sinks.get("strict").unwrap().last_error, None);
    close(&node, &sinks);
}

#[test]
fn a_sink_of_a_deleted_table_says_so() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_tables(&node);
    sinks
        .create(place.definition("both", &format!("{ORDERS},{STOCK}")))
        .unwrap();
    let end = order(&node, "a", 1, "one");
    sinks.wait_blocking("both", end, PATIENCE).unwrap();
    node.drop_table_blocking("shop.stock").unwrap();
    let text = wait_for_stop(&sinks, "both");
    assert!(text.contains("'shop.stock' was deleted"), "{text}");
    sinks.delete("both").unwrap();
    assert!(sinks.list().is_empty());
    close(&node, &sinks);
}

#[test]
fn what_cannot_be_is_refused_when_it_is_defined() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_tables(&node);
    let text = |result: Result<_, SinkError>| {
        result
            .map(|_: onelog_sinks::SinkStatus| ())
            .unwrap_err()
            .to_string()
    };
    assert!(
        text(sinks.create(place.definition("s", &ORDERS.replace("shop.orders", "shop.order"))))
            .contains("did you mean 'shop.orders'?")
    );
    sinks.create(place.definition("search", ORDERS)).unwrap();
    assert!(text(sinks.create(place.definition("search", STOCK))).contains("already"));
    let mut same_file = place.definition("other", ORDERS);
    same_file.target = place.definition("search", ORDERS).target;
    assert!(text(sinks.create(same_file)).contains("the sink 'search' writes to 'orders'"));
    // Where the store folds names, the name that is taken is the one that is said;
    let mut folded = place.definition("folded", &ORDERS.replace("\"orders\"", "\"Orders\""));
    folded.target = place.definition("search", ORDERS).target;
    let said = text(sinks.create(folded));
    assert!(said.contains("writes to 'orders' in this store already, and names of tables are compared without regard to case"), "{said}");
    // where it does not, both are tables.
    for (name, into) in [("lower", "order"), ("upper", "Order")] {
        let text = format!(
            r#"{{"name":"{name}","kind":"postgres","url":"postgres://u@127.0.0.1:1/d","mappings":[{{"table":"shop.orders","into":"{into}"}}]}}"#
        );
        let definition = SinkDefinition::from_slice(KINDS, text.as_bytes()).unwrap();
        sinks.create_ahead(definition).unwrap();
    }
    for name in ["lower", "upper"] {
        sinks.delete(name).unwrap();
    }
    let mut nowhere = place.definition("nowhere", STOCK);
    nowhere.target = std::sync::Arc::new(onelog_sqlite::SqliteTarget {
        path: place.path("no/folder/x.db"),
    });
    assert!(text(sinks.create(nowhere)).contains("no/folder"));
    place
        .store("mine.db")
        .execute_batch("CREATE TABLE stock (a); INSERT INTO stock VALUES (1)")
        .unwrap();
    assert!(text(sinks.create(place.definition("mine", STOCK))).contains("onelog did not make"));
    assert!(text(sinks.get("serch")).contains("did you mean 'search'?"));
    assert!(matches!(
        sinks.delete("none"),
        Err(SinkError::Unknown { .. })
    ));
    let far = Position(node.position().get() + 1000);
    let error = sinks
        .wait_blocking("search", far, Duration::from_millis(10))
        .unwrap_err();
    assert!(matches!(error, SinkError::TimedOut { .. }), "{error}");
    assert_eq!(sinks.list().len(), 1);
    close(&node, &sinks);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_store_that_went_back_in_time_catches_up_and_one_from_the_future_is_refused() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_tables(&node);
    sinks.create(place.definition("search", ORDERS)).unwrap();
    let end = order(&node, "a", 1, "one");
    sinks.wait_blocking("search", end, PATIENCE).unwrap();
    close(&node, &sinks);
    drop((node, sinks));
    std::fs::copy(place.path("search.db"), place.path("old.db")).unwrap();
    copy(&place.path("log"), &place.path("old-log"));

    let (node, sinks) = place.open();
    order(&node, "a", 2, "changed");
    let end = order(&node, "b", 3, "new");
    sinks.wait_blocking("search", end, PATIENCE).unwrap();
    close(&node, &sinks);
    drop((node, sinks));

    // The store is restored from its copy: the log fills the gap.
    let newest = place.path("newest.db");
    std::fs::rename(place.path("search.db"), &newest).unwrap();
    std::fs::rename(place.path("old.db"), place.path("search.db")).unwrap();
    let (node, sinks) = place.open();
    assert_equal(&sinks, "search", end);
    close(&node, &sinks);
    drop((node, sinks));

    // The log is restored from its copy: the store knows more than the log. Nothing is guessed.
    std::fs::rename(place.path("log"), place.path("newest-log")).unwrap();
    std::fs::rename(place.path("old-log"), place.path("log")).unwrap();
    let (node, sinks) = place.open();
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains("but the log ends at"), "{text}");
    // No waiter is answered that it has reached what it has of another future.
    assert_eq!(sinks.get("search").unwrap().position, None);
    let error = sinks.verify("search").unwrap_err();
    assert!(matches!(error, SinkError::Ahead { .. }), "{error}");
    sinks.rebuild("search").unwrap();
    let end = order(&node, "c", 4, "of the restored log");
    assert_equal(&sinks, "search", end);
    assert_eq!(
        count(&place.store("search.db"), "SELECT count(*) FROM orders"),
        2
    );
    close(&node, &sinks);
}

#[test]
fn a_store_that_went_back_in_time_while_nothing_was_written_catches_up_when_it_is_verified_or_resumed()
 {
    // Given a sink at the end of the log, and no writers
    let place = Place::new();
    let (node, sinks) = place.open();
    with_tables(&node);
    sinks.create(place.definition("back", ORDERS)).unwrap();
    let early = order(&node, "a", 1, "early");
    sinks.wait_blocking("back", early, PATIENCE).unwrap();
    let end = order(&node, "b", 2, "late");
    sinks.wait_blocking("back", end, PATIENCE).unwrap();
    let store = place.store("back.db");
    store.busy_timeout(PATIENCE).unwrap();
    let chain = node.chain_at(early).unwrap().unwrap();
    let go_back = || {
        let sql = format!(
            "BEGIN; DELETE FROM orders WHERE id = 'b';
             UPDATE onelog_position SET position = {early}, chain = {chain}; COMMIT"
        );
        store.execute_batch(&sql).unwrap();
    };
    // When the store is given what it held before
    go_back();
    // Then a verification notices that, and the store is brought forward.
    let found = sinks.verify("back").unwrap();
    assert!(found.equal, "{found:?}");
    // What a comparison finds is a record of the log, which the sink passes as well.
    let settled = || {
        let at = node.position();
        sinks.wait_blocking("back", at, PATIENCE).unwrap();
        at
    };
    let at = settled();
    let found = sinks.verify("back").unwrap();
    assert_eq!((found.equal, found.position), (true, at), "{found:?}");
    assert_eq!(count(&store, "SELECT count(*) FROM orders"), 2);
    settled();
    // When that happens again, and a user who knows of it resumes the sink, then it is brought
    // forward, too.
    go_back();
    sinks.resume("back").unwrap();
    let begun = std::time::Instant::now();
    while count(&store, "SELECT count(*) FROM orders") < 2 {
        assert!(begun.elapsed() < PATIENCE, "the store was not queried");
        std::thread::yield_now();
    }
    let at = settled();
    let found = sinks.verify("back").unwrap();
    assert_eq!((found.equal, found.position), (true, at), "{found:?}");
    close(&node, &sinks);
}

#[test]
fn a_store_that_vanishes_while_it_is_followed_is_backfilled() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_tables(&node);
    sinks.create(place.definition("search", ORDERS)).unwrap();
    let end = order(&node, "a", 1, "one");
    sinks.wait_blocking("search", end, PATIENCE).unwrap();
    for name in ["search.db", "search.db-wal", "search.db-shm"] {
        let _ = std::fs::remove_file(place.path(name));
    }
    let end = order(&node, "b", 2, "two");
    assert_equal(&sinks, "search", end);
    assert_eq!(
        count(&place.store("search.db"), "SELECT count(*) FROM orders"),
        2
    );
    close(&node, &sinks);
}

#[test]
fn a_rival_that_takes_over_fences_the_sink() {
    use onelog_sqlite::SqliteStore;
    use onelog_store::Store as _;
    let place = Place::new();
    let (node, sinks) = place.open();
    with_tables(&node);
    let definition = place.definition("search", ORDERS);
    sinks.create(definition.clone()).unwrap();
    let end = order(&node, "a", 1, "one");
    sinks.wait_blocking("search", end, PATIENCE).unwrap();
    let catalog = node.catalog();
    let tables: Vec<_> = catalog.tables().map(|table| (**table).clone()).collect();
    let plan = std::sync::Arc::new(definition.plan(tables.as_slice()).unwrap());
    let id = format!("{:032x}", node.log_id());
    let mut rival = SqliteStore::open(&place.path("search.db"), "search", &id, plan).unwrap();
    rival.take_over().unwrap();
    order(&node, "b", 2, "two");
    let text = wait_for_stop(&sinks, "search");
    assert!(text.contains("took this sink over"), "{text}");
    assert_eq!(rival.position().unwrap().unwrap().position, end);
    sinks.resume("search").unwrap();
    assert_equal(&sinks, "search", node.position());
    close(&node, &sinks);
}

#[test]
fn a_task_can_wait_for_a_store() {
    let place = Place::new();
    let (node, sinks) = place.open();
    with_tables(&node);
    sinks.create(place.definition("search", ORDERS)).unwrap();
    let end = order(&node, "a", 1, "one");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let status = sinks.wait("search", end, PATIENCE).await.unwrap();
        assert!(status.position >= Some(end));
        let far = Position(u64::MAX);
        let error = sinks
            .wait("search", far, Duration::from_millis(5))
            .await
            .unwrap_err();
        assert!(matches!(error, SinkError::TimedOut { .. }), "{error}");
    });
    close(&node, &sinks);
}
