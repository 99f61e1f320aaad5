//! The SQLite sink catching up with a backlog, beside a bare loop of prepared upserts.

use std::time::{Duration, Instant};

use onelog::{CommitRequest, NewTable, Node, Operation, Position, TableId, Write};
use onelog_sinks::{SinkDefinition, Sinks};
use rusqlite::Connection;
use serde_json::json;

use super::Bench;
use super::figures::Figure;
use super::load::Failure;

const ROWS: u64 = 300_000;
const ROWS_PER_TRANSACTION: u64 = 100;
/// About what the sink puts into one transaction while it is far behind.
const BARE_BATCH_ROWS: u64 = 10_000;
const TIMEOUT: Duration = Duration::from_secs(120);

fn document(number: u64) -> String {
    let filler = "x".repeat(60);
    format!(
        r#"{{"customer":"customer-{}","total":{}.5,"note":"{filler}"}}"#,
        number % 1000,
        number
    )
}

fn key(number: u64) -> String {
    format!("order-{:08}", number.wrapping_mul(7919) % ROWS)
}

/// Rows per second from the first to the last row of a backlog.
pub fn run(bench: &Bench) -> Result<Vec<Figure>, Failure> {
    let node = bench.open("sqlite")?;
    let table = node
        .create_table_blocking(NewTable::keyed("bench.orders"))?
        .0
        .id;
    let sinks = Sinks::start(node.clone())?;
    let end = backlog(&node, table)?;
    let (mut rates, mut bare_rates) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        rates.push(follow(bench, &sinks, round, end)?);
        bare_rates.push(bare(bench)?);
    }
    sinks.stop();
    bench.close(node, "sqlite")?;
    Ok(vec![
        Figure::new("SQLite sink, catching up", "rows/s", rates)
            .beside("prepared upserts, 10,000 a transaction", &bare_rates)
            .note("the sink also reads the log, parses the JSON, and moves its position in the same transaction"),
    ])
}

fn backlog(node: &Node, table: TableId) -> Result<Position, Failure> {
    let mut tickets = Vec::new();
    for from in (0..ROWS).step_by(ROWS_PER_TRANSACTION as usize) {
        let write = |number| Write {
            table,
            key: key(number).into(),
            operation: Operation::Put(document(number).into()),
            headers: Vec::new(),
        };
        let request = CommitRequest {
            writes: (from..from + ROWS_PER_TRANSACTION).map(write).collect(),
            ..CommitRequest::default()
        };
        tickets.push(node.submit(request));
        if tickets.len() == 32 {
            for ticket in tickets.drain(..) {
                ticket.wait()?;
            }
        }
    }
    for ticket in tickets {
        ticket.wait()?;
    }
    Ok(node.position())
}

/// Creates a sink that starts empty at the log's start and waits until it has followed to the end.
fn follow(bench: &Bench, sinks: &Sinks, round: usize, end: Position) -> Result<f64, Failure> {
    let name = format!("bench-{round}");
    let path = bench.folder.join(format!("{name}.sqlite"));
    let definition = json!({
        "name": name,
        "kind": "sqlite",
        "path": path,
        "mappings": [{
            "table": "bench.orders",
            "into": "orders",
            "columns": {
                "id": {"from": "$key", "type": "text"},
                "customer": {"from": "/customer", "type": "text"},
                "total": {"from": "/total", "type": "real"},
                "note": {"from": "/note", "type": "text"}
            }
        }]
    });
    let definition = SinkDefinition::from_json(&definition)?;
    let started = Instant::now();
    sinks.create(definition)?;
    sinks.wait_blocking(&name, end, TIMEOUT)?;
    let took = started.elapsed().as_secs_f64();
    sinks.delete(&name)?;
    remove(&path)?;
    Ok(ROWS as f64 / took)
}

fn bare(bench: &Bench) -> Result<f64, Failure> {
    let path = bench.folder.join("bare.sqlite");
    let mut connection = Connection::open(&path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.execute_batch(
        "CREATE TABLE orders (id TEXT PRIMARY KEY, customer TEXT, total REAL, note TEXT) STRICT, WITHOUT ROWID",
    )?;
    let note = "x".repeat(60);
    let started = Instant::now();
    for from in (0..ROWS).step_by(BARE_BATCH_ROWS as usize) {
        let transaction = connection.transaction()?;
        {
            let mut upsert = transaction.prepare_cached(
                "INSERT INTO orders VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE SET customer = excluded.customer, total = excluded.total, note = excluded.note",
            )?;
            for number in from..from + BARE_BATCH_ROWS {
                let customer = format!("customer-{}", number % 1000);
                upsert.execute((key(number), customer, number as f64 + 0.5, &note))?;
            }
        }
        transaction.commit()?;
    }
    let took = started.elapsed().as_secs_f64();
    drop(connection);
    remove(&path)?;
    Ok(ROWS as f64 / took)
}

fn remove(path: &std::path::Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
