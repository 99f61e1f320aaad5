//! Rebuilds of a real MariaDB that is killed, or whose connections are cut, at any point: either
//! the old generation of tables is there, or the new one, with its position, for every reader. What
//! concerns batches is in the faults that all stores share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "mysql/harness.rs"]
mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use onelog_mapping::Plan;
use onelog_mysql::{MysqlStore, MysqlTarget};
use onelog_store::conformance::{LOG, Model, SINK, standard_plan};
use onelog_store::{Store as _, StoreError, failpoint};
use onelog_testkit::{Direction, Kind, Mariadb, Proxy, Server, require};

use self::harness::Database;

const ROWS: u64 = 10;
const ROUNDS: u64 = 20;

/// One generation: ten rows whose total is its number. The position tells the number.
fn write_generation(model: &mut Model, number: u64) {
    for row in 0..ROWS {
        model.order(&format!("k{row}"), i64::try_from(number).unwrap(), "row");
    }
}

fn open(target: &MysqlTarget, plan: &Arc<Plan>) -> Result<MysqlStore, StoreError> {
    let mut store = MysqlStore::open(target, SINK, LOG, Arc::clone(plan))?;
    store.take_over()?;
    Ok(store)
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads position and rows in one statement, again and again, and checks that they belong together.
fn watch(server: &Mariadb, database: &str, table: &str, ends: &AtomicBool, seen: &AtomicU64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (address, _) = server
        .url()
        .rsplit_once('/')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let options = mysql_async::Opts::from_url(&format!("{address}/{database}")).unwrap();
    let sql = format!(
        "SELECT (SELECT position FROM `{table}`), count(*), min(total), max(total) FROM orders"
    );
    while !ends.load(Ordering::Relaxed) {
        let reading = async {
            let mut connection = mysql_async::Conn::new(options.clone()).await?;
            loop {
                let row: Option<(u64, u64, u64, u64)> =
                    connection.query_first(sql.as_str()).await?;
                let (position, rows, least, most) = row.unwrap();
                let number = position / ROWS - 1;
                assert_eq!((rows, least, most), (ROWS, number, number));
                seen.fetch_add(1, Ordering::Relaxed);
                if ends.load(Ordering::Relaxed) {
                    return Ok::<_, mysql_async::Error>(());
                }
            }
        };
        // The server is killed under the reader's feet, too; then it connects again.
        let _ = runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(10), reading).await });
    }
}

#[test]
fn a_server_that_is_killed_during_a_swap_has_one_generation_whole() {
    require!(Kind::Mariadb);
    let server = Mariadb::start();
    server.sql("CREATE DATABASE swaps");
    let database = Database {
        name: "swaps".into(),
        many_rows: false,
    };
    let target = database.target_at(&server.url());
    let plan = standard_plan(&database);
    let mut model = Model::default();
    write_generation(&mut model, 0);
    let mut store = open(&target, &plan).unwrap();
    model.rebuild(&plan, &mut store).unwrap();
    let table = server.sql("USE swaps; SHOW TABLES LIKE 'onelog\\_position%'");
    let (ends, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut swapped = 0;
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&server, "swaps", &table, &ends, &seen));
        // However the rounds end: a watcher that goes on would hide a failure.
        let ending = Ends(&ends);
        for round in 1..=ROUNDS {
            let before = model.clone();
            write_generation(&mut model, round);
            let (reached, comes) = mpsc::channel();
            // Half of the rounds die around the swap, half where the old tables are dropped.
            let event = if round % 2 == 0 {
                "before_swap"
            } else {
                "after_swap"
            };
            let place = format!("{SINK}:{event}");
            failpoint::set(&place, move || {
                let _ = reached.send(());
            });
            std::thread::scope(|inner| {
                let server = &server;
                inner.spawn(move || {
                    if comes.recv().is_ok() {
                        // A different moment in each round, spread over the statement.
                        let moment = Instant::now() + Duration::from_micros(300 * (round / 2));
                        while Instant::now() < moment {
                            std::hint::spin_loop();
                        }
                        server.kill();
                    }
                });
                let _ = model.rebuild(&plan, &mut store);
                failpoint::clear(&place);
            });
            server.start_again();
            store = open(&target, &plan).unwrap();
            let position = store.position().unwrap().unwrap().position;
            let expected = if position == model.position() {
                swapped += 1;
                &model
            } else {
                assert_eq!(position, before.position());
                &before
            };
            let found = expected.verify(&plan, &mut store);
            assert!(found.equal, "round {round}: {found:#?}");
            // The next round begins with the log's newest state, whatever happened.
            model.rebuild(&plan, &mut store).unwrap();
        }
        drop(ending);
        watcher.join().unwrap();
    });
    assert!(model.verify(&plan, &mut store).equal);
    assert!(seen.load(Ordering::Relaxed) > 0);
    println!("{swapped} of {ROUNDS} swaps took place before the kill");
    for left in ["onelog\\_new%", "onelog\\_old%"] {
        assert_eq!(
            server.sql(&format!("USE swaps; SHOW TABLES LIKE '{left}'")),
            ""
        );
    }
}

#[test]
fn a_rebuild_whose_connection_is_cut_anywhere_is_done_or_not_done() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let proxy = Proxy::in_front_of(harness::server());
    let target = database.target_at(&proxy.url_of(&harness::server().url()));
    let plan = standard_plan(&database);
    let mut model = Model::default();
    write_generation(&mut model, 0);
    let mut store = open(&target, &plan).unwrap();
    model.rebuild(&plan, &mut store).unwrap();
    // The answer to the swap is lost: it took place.
    write_generation(&mut model, 1);
    proxy.cut_answer_after(b"RENAME TABLE");
    let error = model.rebuild(&plan, &mut store).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let mut store = open(&target, &plan).unwrap();
    assert_eq!(
        store.position().unwrap().unwrap().position,
        model.position()
    );
    assert!(model.verify(&plan, &mut store).equal);
    let mut outcomes = [0, 0];
    for round in 2..2 + ROUNDS {
        let before = model.clone();
        write_generation(&mut model, round);
        proxy.cut_after_bytes(Direction::ToServer, 400 * usize::try_from(round).unwrap());
        let rebuilt = model.rebuild(&plan, &mut store);
        drop(store);
        // Whatever the trap did not catch is disarmed by its next victim.
        let opened = || {
            let mut store = open(&target, &plan)?;
            let found = store.position()?;
            Ok::<_, StoreError>((store, found))
        };
        let found;
        (store, found) = loop {
            match opened() {
                Ok(opened) => break opened,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        };
        let position = found.unwrap().position;
        let new = position == model.position();
        outcomes[usize::from(new)] += 1;
        assert!(new || rebuilt.is_err());
        let expected = if new { &model } else { &before };
        assert_eq!(position, expected.position());
        let direct = database.target();
        let mut unhindered = MysqlStore::open(&direct, SINK, LOG, Arc::clone(&plan)).unwrap();
        assert!(
            expected.verify(&plan, &mut unhindered).equal,
            "round {round}"
        );
        if !new {
            model = before;
        }
    }
    println!("{} rebuilds were undone, {} done", outcomes[0], outcomes[1]);
}
