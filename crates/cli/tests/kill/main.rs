//! A real server is killed with `kill -9` under load, again and again, on one folder.
//!
//! After every kill the folder checks clean, every acknowledged transaction is in the log once and
//! at the offsets that were answered, every unanswered one gets a definite answer when it is sent
//! again, no transaction is half there, and in the end the SQLite sink is equal.
//!
//! When to kill is drawn from a seed, in numbers of acknowledged transactions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod history;
mod load;
mod server;

use std::sync::mpsc::channel;
use std::thread;

use history::History;
use load::{Client, Done, Transfer};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use server::{Folder, PATIENCE, Server};

const KILLS: usize = 50;
const KILLS_FULL: usize = 500;
const CLIENTS: u64 = 6;
/// The kill comes after at most so many acknowledged transactions of a round.
const ACKNOWLEDGED_MAX: usize = 300;
/// One start in so many is killed before it is ready.
const EARLY_KILL_ONE_IN: u32 = 4;
/// How many acknowledged transactions of a round are sent again.
const SENT_AGAIN: usize = 3;
/// Everything, the sink included, is compared after so many kills.
const DEEP_EVERY: usize = 10;
/// The longest wait that the server grants.
const SINK_WAIT_MS: u64 = 60_000;

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_done_twice_when_the_server_is_killed() {
    let everything = std::env::var("ONELOG_TEST_FULL").is_ok_and(|value| value == "1");
    let kills = if everything { KILLS_FULL } else { KILLS };
    let seed = match std::env::var("ONELOG_KILL_SEED") {
        Ok(text) => text.parse().expect("ONELOG_KILL_SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("seed {seed} (repeat with ONELOG_KILL_SEED={seed}), {kills} kills");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = Folder::new();
    let mut history = History::default();
    let mut early_kills = 0;
    make_tables_and_sink(&folder);
    for round in 1..=kills {
        if rng.random_ratio(1, EARLY_KILL_ONE_IN) {
            Server::start_and_kill_early(&folder);
            early_kills += 1;
            folder.check();
        }
        let server = Server::start(&folder);
        let client = Client::new(&server.url);
        settle(&client, &mut history, &mut rng);
        history.read_log(&client);
        history.judge_state(&client);
        if round % DEEP_EVERY == 0 {
            judge_deeply(&client, &history);
        }
        let sent = history.sent();
        load_until_killed(server, round as u64, &mut history, &mut rng);
        assert!(history.sent() > sent, "there was load");
        folder.check();
    }
    let server = Server::start(&folder);
    let client = Client::new(&server.url);
    settle(&client, &mut history, &mut rng);
    history.read_log(&client);
    history.judge_state(&client);
    judge_deeply(&client, &history);
    judge_sqlite(&folder, &history);
    server.kill();
    folder.check();
    println!(
        "{kills} kills under load and {early_kills} before the server was ready: {}",
        history.summary()
    );
}

fn make_tables_and_sink(folder: &Folder) {
    let server = Server::start(folder);
    let client = Client::new(&server.url);
    for table in history::TABLES {
        let definition = json!({"name": table, "kind": "keyed", "value": "json"});
        client.post("/v1/tables", &definition).expect(201);
    }
    let text = |from: &str| json!({"from": from, "type": "text"});
    let whole = |from: &str| json!({"from": from, "type": "integer"});
    let sink = json!({
    "name": "copy", "kind": "sqlite", "path": folder.sqlite(), "mappings": [
        {"table": "kill.ledger", "into": "ledger",
         "columns": {"id": text("$key"), "total": text("/total")}},
        {"table": "kill.pairs", "into": "pairs",
         "columns": {"name": text("$key"), "by": text("/by")}},
        {"table": "kill.totals", "into": "totals",
         "columns": {"name": text("$key"), "n": whole("/n")}},
    ]});
    client.post("/v1/sinks", &sink).expect(201);
}

/// Sends every unanswered transaction again until it is answered, and some answered ones.
fn settle(client: &Client, history: &mut History, rng: &mut StdRng) {
    for transfer in history.take_unanswered() {
        let answer = client.commit(&transfer).expect("the server is up");
        history.answered(transfer, &answer);
    }
    for _ in 0..SENT_AGAIN {
        if let Some((transfer, before)) = history.pick_answered(rng) {
            let again = client.commit(&transfer).expect("the server is up");
            assert_eq!(again.place(), before, "the original answer again");
            assert!(again.repeated, "{} was done twice", transfer.id);
        }
    }
}

/// Runs clients, and kills the server after a drawn number of acknowledged transactions.
fn load_until_killed(server: Server, round: u64, history: &mut History, rng: &mut StdRng) {
    let kill_after = rng.random_range(0..=ACKNOWLEDGED_MAX);
    let (acknowledge, acknowledged) = channel();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = Client::new(&server.url);
            let acknowledge = acknowledge.clone();
            let mut rng = StdRng::seed_from_u64(rng.random());
            let first_id = u128::from(round) << 64 | u128::from(number) << 32;
            thread::spawn(move || client.run(first_id, &mut rng, &acknowledge))
        })
        .collect();
    for _ in 0..kill_after {
        acknowledged
            .recv_timeout(PATIENCE)
            .expect("transactions are acknowledged");
    }
    server.kill();
    for client in clients {
        let Done {
            answered,
            unanswered,
        } = client.join().expect("a client does not fail");
        for (transfer, answer) in answered {
            history.answered(transfer, &answer);
        }
        history.unanswered(unanswered);
    }
}

/// The whole log from its start, every row of every table, and the sink.
fn judge_deeply(client: &Client, history: &History) {
    let mut anew = history.with_nothing_read();
    anew.read_log(client);
    assert_eq!(anew.committed(), history.committed());
    history.judge_ledger(client);
    let position = history.position();
    let path = format!("/v1/sinks/copy/wait?position={position}&timeout_ms={SINK_WAIT_MS}");
    client.get(&path).expect(200);
    let verified = client.post("/v1/sinks/copy/verify", &json!({})).expect(200);
    assert_eq!(verified["equal"], json!(true), "{verified:#}");
    let rows = |table: &str| {
        let tables = verified["tables"].as_array().expect("a list");
        let found = tables.iter().find(|found| found["table"] == table);
        found.map_or(Value::Null, |found| found["rows"].clone())
    };
    assert_eq!(rows("kill.ledger"), json!(history.committed()));
}

/// The database itself, read without onelog.
fn judge_sqlite(folder: &Folder, history: &History) {
    let database = rusqlite::Connection::open(folder.sqlite()).unwrap();
    let number = |query: &str| -> i64 { database.query_row(query, [], |row| row.get(0)).unwrap() };
    let committed = i64::try_from(history.committed()).unwrap();
    assert_eq!(number("SELECT count(*) FROM ledger"), committed);
    assert_eq!(number("SELECT sum(n) FROM totals"), committed);
    let unequal = "SELECT count(*) FROM pairs l JOIN pairs r
         ON l.name = 'left-' || substr(r.name, 7) WHERE r.name LIKE 'right-%' AND l.by <> r.by";
    assert_eq!(number(unequal), 0);
}

/// The writes of a transfer, as a request.
fn body(transfer: &Transfer) -> Value {
    let pair = |side: &str| {
        json!({"op": "put", "table": "kill.pairs", "key": format!("{side}-{}", transfer.pair),
               "value": {"by": transfer.id}})
    };
    json!({"id": transfer.id, "writes": [
        pair("left"),
        {"op": "add", "table": "kill.totals", "key": transfer.total, "field": "/n", "by": 1},
        {"op": "put", "table": "kill.ledger", "key": transfer.id, "value": {"total": transfer.total}},
        pair("right"),
    ]})
}
