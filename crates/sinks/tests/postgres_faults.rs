//! PostgreSQL under faults: killed under load, cut off in the middle of a commit, set back to an
//! older copy, followed by two at once, refused by its own disk.
//!
//! Two tables get two halves of every transaction: every reader sees equal sums, always. A
//! trigger notes every row that is written with the version that it got, under a unique key: a
//! change that was applied twice would be refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use onelog::{NewTable, Node, Options};
use onelog_mapping::Plan;
use onelog_record::Position;
use onelog_sinks::Sinks;
use onelog_store::conformance::{self, LOG, Model, ORDERS, SINK};
use onelog_store::{SinkDefinition, Store, StoreError, StoreKind as _, Target};
use onelog_stores::KINDS;
use onelog_testkit::{Direction, Kind, Postgres, Proxy, Server, require};
use serde_json::json;

const HALVES: &str = r#"
  {"table":"shop.orders","into":"debit","where":".side == \"debit\"","columns":{
    "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"integer"},
    "version":{"from":"$version","type":"integer"}}},
  {"table":"shop.orders","into":"credit","where":".side == \"credit\"","columns":{
    "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"integer"},
    "version":{"from":"$version","type":"integer"}}}"#;

const WITNESS: &str = "
  CREATE TABLE written (name text, id text, version bigint, PRIMARY KEY (name, id, version));
  CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.written VALUES (tg_table_name, new.id, new.version); RETURN new; END $$;
  CREATE TRIGGER witness AFTER INSERT OR UPDATE ON debit FOR EACH ROW EXECUTE FUNCTION witness();
  CREATE TRIGGER witness AFTER INSERT OR UPDATE ON credit FOR EACH ROW EXECUTE FUNCTION witness();";

const ACCOUNTS: u64 = 40;

/// A log whose every transaction writes both halves.
#[derive(Clone, Default)]
struct Ledger {
    model: Model,
    transactions: u64,
}

impl Ledger {
    fn transact(&mut self, count: u64) {
        for n in self.transactions..self.transactions + count {
            for side in ["debit", "credit"] {
                let document = json!({"side": side, "total": n}).to_string();
                let key = format!("{side} {}", n % ACCOUNTS);
                self.model.write(ORDERS, key.as_bytes(), Some(&document));
            }
            if n % 7 == 0 {
                for side in ["debit", "credit"] {
                    let key = format!("{side} {}", (n + 5) % ACCOUNTS);
                    self.model.write(ORDERS, key.as_bytes(), None);
                }
            }
        }
        self.transactions += count;
    }
}

/// The schema `public` of a database.
struct Database(Arc<dyn Target>);

impl Database {
    fn at(url: &str) -> Self {
        Self(KINDS.target(url).unwrap())
    }

    fn try_open(&self, plan: &Arc<Plan>) -> Result<Box<dyn Store>, StoreError> {
        self.0.open(SINK, LOG, Arc::clone(plan))
    }

    fn open(&self, plan: &Arc<Plan>) -> Box<dyn Store> {
        self.try_open(plan).unwrap()
    }
}

/// A server of its own, whose schema `public` follows a ledger.
struct Followed {
    server: Postgres,
    database: Database,
    plan: Arc<Plan>,
}

impl Followed {
    fn new(server: Postgres, ledger: &Ledger) -> Self {
        let database = Database::at(&server.url());
        let rules = onelog_postgres::KIND.rules();
        let plan = Arc::new(conformance::plan_by(rules, HALVES));
        let mut store = database.open(&plan);
        store.take_over().unwrap();
        Model::default().rebuild(&plan, store.as_mut()).unwrap();
        server.sql(WITNESS);
        let first = ledger.model.batch(&plan, Position::ZERO);
        store.apply(&first).unwrap();
        Self {
            server,
            database,
            plan,
        }
    }

    /// Opens the store as the runner does after an error, and says where it is.
    fn reopen(&self) -> Result<(Box<dyn Store>, Position), StoreError> {
        let mut store = self.database.try_open(&self.plan)?;
        store.take_over()?;
        let found = store.position()?.expect("the store was backfilled");
        assert_eq!(found.log_id, LOG);
        store.check_shape()?;
        Ok((store, found.position))
    }

    fn assert_equal(&self, ledger: &Ledger) {
        let (mut store, position) = self.reopen().unwrap();
        if position < ledger.model.position() {
            store
                .apply(&ledger.model.batch(&self.plan, position))
                .unwrap();
        }
        let found = ledger.model.verify(&self.plan, store.as_mut());
        assert!(found.equal, "{found:#?}");
        assert_eq!(found.position, ledger.model.position());
    }
}

/// Reads both tables again and again until it is stopped; connects again when the server is back.
struct Watcher {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watcher {
    fn start(url: String) -> Self {
        let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&reads));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            while !stopped.load(Ordering::Relaxed) {
                runtime.block_on(watch(&url, &stopped, &counted));
            }
        });
        Self {
            stop,
            reads,
            thread: Some(thread),
        }
    }

    fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        assert!(self.reads.load(Ordering::Relaxed) > 0, "there was no read");
    }
}

async fn watch(url: &str, stopped: &AtomicBool, counted: &AtomicU64) {
    let Ok((client, connection)) = tokio_postgres::connect(url, tokio_postgres::NoTls).await else {
        return;
    };
    let task = tokio::spawn(connection);
    let sql = "SELECT (SELECT (sum(total)::bigint, count(*))::text FROM debit),
                      (SELECT (sum(total)::bigint, count(*))::text FROM credit)";
    while !stopped.load(Ordering::Relaxed) {
        let Ok(row) = client.query_one(sql, &[]).await else {
            break;
        };
        let (debit, credit): (String, String) = (row.get(0), row.get(1));
        assert_eq!(debit, credit, "half a transaction was seen");
        counted.fetch_add(1, Ordering::Relaxed);
    }
    task.abort();
}

#[test]
fn a_server_killed_under_load_shows_whole_transactions_and_takes_each_once() {
    require!(Kind::Postgres);
    const ROUNDS: usize = 20;
    const BATCHES: u64 = 12;
    let mut ledger = Ledger::default();
    ledger.transact(ACCOUNTS);
    let followed = Followed::new(Postgres::start(), &ledger);
    let watcher = Watcher::start(followed.server.url());
    let (mut store, mut at) = followed.reopen().unwrap();
    for round in 0..ROUNDS {
        let (applied, applications) = mpsc::channel();
        std::thread::scope(|scope| {
            let (followed, ledger) = (&followed, &mut ledger);
            let (store, at) = (&mut store, &mut at);
            let worker = scope.spawn(move || {
                // More and more at once, until the server is gone.
                for size in 1.. {
                    ledger.transact(size * 3);
                    let batch = ledger.model.batch(&followed.plan, *at);
                    match store.apply(&batch) {
                        Ok(()) => *at = batch.to,
                        Err(error) => {
                            assert!(error.is_retryable(), "{error}");
                            return;
                        }
                    }
                    applied.send(()).ok();
                }
            });
            for _ in 0..(round as u64 * 5) % BATCHES {
                applications.recv().unwrap();
            }
            followed.server.kill();
            worker.join().unwrap();
        });
        followed.server.start_again();
        let reached = at;
        (store, at) = followed.reopen().unwrap();
        // The newest commits may be lost, rows and position together; none comes from nowhere.
        assert!(at <= ledger.model.position(), "{at} {reached}");
    }
    drop(store);
    watcher.finish();
    followed.assert_equal(&ledger);
}

#[test]
fn a_commit_whose_answer_is_lost_is_read_back_and_not_applied_again() {
    require!(Kind::Postgres);
    let mut ledger = Ledger::default();
    ledger.transact(ACCOUNTS);
    let followed = Followed::new(Postgres::start(), &ledger);
    let proxy = Proxy::in_front_of(&followed.server);
    let database = Database::at(&proxy.url_of(&followed.server.url()));
    for _ in 0..20 {
        let mut store = database.open(&followed.plan);
        store.take_over().unwrap();
        let at = store.position().unwrap().unwrap().position;
        assert_eq!(at, ledger.model.position());
        ledger.transact(5);
        // As a statement of its own: a transaction also begins with READ COMMITTED.
        proxy.cut_answer_after(b"COMMIT\0");
        let batch = ledger.model.batch(&followed.plan, at);
        let error = store.apply(&batch).unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
    followed.assert_equal(&ledger);
}

#[test]
fn a_connection_cut_at_any_byte_leaves_all_of_a_batch_or_nothing() {
    require!(Kind::Postgres);
    let mut ledger = Ledger::default();
    ledger.transact(ACCOUNTS);
    let followed = Followed::new(Postgres::start(), &ledger);
    let (mut whole, mut nothing) = (0, 0);
    for round in 0..40 {
        let proxy = Proxy::in_front_of(&followed.server);
        let database = Database::at(&proxy.url_of(&followed.server.url()));
        let mut store = database.open(&followed.plan);
        store.take_over().unwrap();
        let at = store.position().unwrap().unwrap().position;
        // The statements are prepared, so that the cut falls into the transaction.
        ledger.transact(5);
        let batch = ledger.model.batch(&followed.plan, at);
        store.apply(&batch).unwrap();
        let at = batch.to;
        ledger.transact(5);
        let direction = if round % 2 == 0 {
            Direction::ToServer
        } else {
            Direction::ToClient
        };
        proxy.cut_after_bytes(direction, round * 23);
        let batch = ledger.model.batch(&followed.plan, at);
        let outcome = store.apply(&batch);
        // A batch that was shorter than the cut goes through.
        let found = followed.reopen().unwrap().1;
        match outcome {
            Ok(()) => assert_eq!(found, batch.to),
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                assert!(found == batch.from || found == batch.to, "{found}");
                *(if found == batch.to {
                    &mut whole
                } else {
                    &mut nothing
                }) += 1;
            }
        }
        followed.assert_equal(&ledger);
    }
    assert!(
        nothing > 0,
        "no cut fell into a transaction ({whole}, {nothing})"
    );
}

#[test]
fn a_store_set_back_to_an_older_copy_is_replayed_from_there() {
    require!(Kind::Postgres);
    let mut ledger = Ledger::default();
    ledger.transact(ACCOUNTS);
    let followed = Followed::new(Postgres::start(), &ledger);
    let (mut store, mut at) = followed.reopen().unwrap();
    for _ in 0..3 {
        followed.server.stop();
        let saved = followed.server.save_data();
        let then = at;
        followed.server.start_again();
        (store, at) = followed.reopen().unwrap();
        assert_eq!(at, then);
        ledger.transact(30);
        store
            .apply(&ledger.model.batch(&followed.plan, at))
            .unwrap();
        drop(store);
        followed.server.stop();
        followed.server.restore_data(&saved);
        followed.server.start_again();
        (store, at) = followed.reopen().unwrap();
        assert_eq!(at, then, "the store reports its position");
        let batch = ledger.model.batch(&followed.plan, at);
        store.apply(&batch).unwrap();
        at = batch.to;
    }
    drop(store);
    followed.assert_equal(&ledger);
}

#[test]
fn two_processes_at_once_fence_each_other_and_apply_everything_once() {
    require!(Kind::Postgres);
    let mut ledger = Ledger::default();
    ledger.transact(ACCOUNTS);
    let followed = Followed::new(Postgres::start(), &ledger);
    let steps: Vec<Ledger> = (0..80)
        .map(|_| {
            ledger.transact(5);
            ledger.clone()
        })
        .collect();
    let watcher = Watcher::start(followed.server.url());
    let fenced = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for rival in 0..2 {
            let (followed, steps, fenced) = (&followed, &steps, &fenced);
            scope.spawn(move || {
                loop {
                    let (mut store, mut at) = followed.reopen().unwrap();
                    // Each lets the other one in after some batches.
                    for _ in 0..5 + rival {
                        let Some(step) = steps.iter().find(|step| step.model.position() > at)
                        else {
                            return;
                        };
                        let batch = step.model.batch(&followed.plan, at);
                        match store.apply(&batch) {
                            Ok(()) => at = batch.to,
                            Err(StoreError::Fenced { ours, found }) => {
                                assert!(found > ours);
                                fenced.fetch_add(1, Ordering::Relaxed);
                                break;
                            }
                            // Taken over between opening and reading the position.
                            Err(error) => assert!(error.is_retryable(), "{error}"),
                        }
                    }
                }
            });
        }
    });
    watcher.finish();
    assert!(fenced.load(Ordering::Relaxed) > 0, "no rival was fenced");
    followed.assert_equal(&ledger);
}

#[test]
fn a_full_disk_stops_nothing_for_good() {
    require!(Kind::Postgres);
    let mut ledger = Ledger::default();
    ledger.transact(ACCOUNTS);
    let followed = Followed::new(Postgres::start(), &ledger);
    let (mut store, at) = followed.reopen().unwrap();
    ledger.transact(20_000);
    let pid = followed
        .server
        .sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'onelog:follower'");
    // The server process of this connection can make no file longer.
    followed.server.sql(&format!(
        "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; prlimit --pid {pid} --fsize=8192:8192'"
    ));
    let error = store
        .apply(&ledger.model.batch(&followed.plan, at))
        .unwrap_err();
    assert!(error.is_retryable(), "{error}");
    drop(store);
    // With room again, the same batch is applied whole.
    assert_eq!(followed.reopen().unwrap().1, at);
    followed.assert_equal(&ledger);
}

#[test]
fn rights_that_were_taken_away_are_named_and_the_store_goes_on_when_they_are_back() {
    require!(Kind::Postgres);
    let mut ledger = Ledger::default();
    ledger.transact(ACCOUNTS);
    let followed = Followed::new(Postgres::start(), &ledger);
    followed.server.sql(
        "CREATE ROLE limited LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO limited",
    );
    let url = followed.server.url().replace("onelog@", "limited@");
    let mut store = Database::at(&url).open(&followed.plan);
    store.take_over().unwrap();
    let at = ledger.model.position();
    ledger.transact(3);
    let batch = ledger.model.batch(&followed.plan, at);
    followed.server.sql("REVOKE INSERT ON credit FROM limited");
    let error = store.apply(&batch).unwrap_err();
    assert!(matches!(error, StoreError::Broken { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("permission denied for table credit"),
        "{error}"
    );
    followed.server.sql("GRANT INSERT ON credit TO limited");
    store.apply(&batch).unwrap();
    followed.assert_equal(&ledger);
}

#[test]
fn a_running_sink_outlives_its_server() {
    require!(Kind::Postgres);
    const PATIENCE: Duration = Duration::from_secs(120);
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(Options::new(folder.path().join("log"))).unwrap();
    node.create_table_blocking(NewTable::keyed("t.left"))
        .unwrap();
    node.create_table_blocking(NewTable::keyed("t.right"))
        .unwrap();
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    let definition = json!({"name": "follower", "kind": "postgres", "url": server.url(), "mappings": [
        {"table": "t.left", "into": "debit", "columns": {
            "id": {"from": "$key", "type": "text"}, "total": {"from": "n", "type": "integer"}}},
        {"table": "t.right", "into": "credit", "columns": {
            "id": {"from": "$key", "type": "text"}, "total": {"from": "n", "type": "integer"}}}]});
    sinks
        .create(SinkDefinition::from_json(KINDS, &definition).unwrap())
        .unwrap();
    let write = |from: i64, to: i64| {
        for n in from..to {
            node.transact(|tx| {
                let key = format!("{}", n % 10);
                tx.put_json("t.left", key.clone(), &json!({"n": n}))?;
                tx.put_json("t.right", key, &json!({"n": n}))
            })
            .unwrap();
        }
        node.position()
    };
    sinks
        .wait_blocking("follower", write(0, 50), PATIENCE)
        .unwrap();
    let watcher = Watcher::start(server.url());
    for round in 1..=5 {
        write(round * 100, round * 100 + 50);
        server.kill();
        // Writers do not notice.
        let end = write(round * 100 + 50, round * 100 + 100);
        server.start_again();
        sinks.wait_blocking("follower", end, PATIENCE).unwrap();
    }
    watcher.finish();
    let found = sinks.verify("follower").unwrap();
    assert!(found.equal && found.tables[0].rows == 10, "{found:#?}");
    sinks.stop();
    node.stop().unwrap();
}
