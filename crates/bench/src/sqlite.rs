//! The SQLite sink catching up with a backlog, beside a bare loop of prepared upserts.

use std::time::{Duration, Instant};

use onelog::{CommitRequest, NewTable, Node, Operation, Position, TableId, Write};
use onelog_sinks::{SinkDefinition, Sinks};
use rusqlite::Connection;
use serde_json::json;

use crate::Bench;
use crate::figures::Figure;
use crate::load::Failure;

const ROWS: u64 = 300_000;
const ROWS_PER_TRANSACTION: u64 = 100;
/// About what the sink puts into one transaction while it is far behind.
const BARE_BATCH_ROWS: u64 = 10_000;
const TIMEOUT: Duration = Duration::from_secs(600);

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

/// Rows per second of a sink that catches up with a backlog, every record in turn.
pub fn run(bench: &Bench) -> Result<Vec<Figure>, Failure> {
    let node = bench.open("sqlite")?;
    let table = node
        .create_table_blocking(NewTable::keyed("bench.orders"))?
        .0
        .id;
    let sinks = Sinks::start(node.clone(), onelog_stores::KINDS)?;
    backlog(&node, table)?;
    let (mut rates, mut bare_rates) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        let (rate, schema) = follow(bench, &node, table, &sinks, round)?;
        rates.push(rate);
        bare_rates.push(bare(bench, &schema)?);
    }
    sinks.stop();
    bench.close(node, "sqlite")?;
    Ok(vec![
        Figure::new("SQLite sink, catching up", "rows/s", rates)
            .beside("prepared upserts into the same table, 10,000 a transaction", &bare_rates)
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

/// Follows a backlog that was written while the sink was paused. Answers the rate and the table's
/// definition in SQLite.
fn follow(
    bench: &Bench,
    node: &Node,
    table: TableId,
    sinks: &Sinks,
    round: usize,
) -> Result<(f64, String), Failure> {
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
    sinks.create(SinkDefinition::from_json(
        onelog_stores::KINDS,
        &definition,
    )?)?;
    sinks.wait_blocking(&name, node.position(), TIMEOUT)?;
    sinks.pause(&name)?;
    let end = backlog(node, table)?;
    let started = Instant::now();
    sinks.resume(&name)?;
    sinks.wait_blocking(&name, end, TIMEOUT)?;
    let took = started.elapsed().as_secs_f64();
    sinks.delete(&name)?;
    let connection = Connection::open(&path)?;
    let schema = connection.query_row(
        "SELECT sql FROM sqlite_master WHERE name = 'orders'",
        [],
        |row| row.get(0),
    )?;
    drop(connection);
    remove(&path)?;
    Ok((ROWS as f64 / took, schema))
}

fn bare(bench: &Bench, schema: &str) -> Result<f64, Failure> {
    let path = bench.folder.join("bare.sqlite");
    let mut connection = Connection::open(&path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.execute_batch(schema)?;
    let note = "x".repeat(60);
    let mut took = Duration::ZERO;
    // The first pass backfills, as the sink did from a snapshot; the second counts.
    for pass in 0..2 {
        let started = Instant::now();
        for from in (0..ROWS).step_by(BARE_BATCH_ROWS as usize) {
            let transaction = connection.transaction()?;
            {
                let mut upsert = transaction.prepare_cached(
                    "INSERT INTO orders (id, customer, total, note) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE SET customer = excluded.customer, total = excluded.total, note = excluded.note",
                )?;
                for number in from..from + BARE_BATCH_ROWS {
                    let customer = format!("customer-{}", number % 1000);
                    upsert.execute((key(number), customer, (number + pass) as f64 + 0.5, &note))?;
                }
            }
            transaction.commit()?;
        }
        took = started.elapsed();
    }
    drop(connection);
    remove(&path)?;
    Ok(ROWS as f64 / took.as_secs_f64())
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
