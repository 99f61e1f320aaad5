//! PostgreSQL, bare: binary COPY into a temporary table, merged, with the position row, one
//! transaction a batch.

use std::pin::pin;
use std::time::Instant;

use futures_util::StreamExt;
use tokio::runtime::Runtime;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

use super::{BARE_TABLE, Bare, Failure, Order, TABLE};

/// As many rows as the sink puts into one transaction while it is far behind.
const BATCH_ROWS: u64 = 40_000;

pub struct BarePostgres {
    runtime: Runtime,
    client: Client,
}

impl BarePostgres {
    pub fn connect(url: &str) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            client.batch_execute("SET synchronous_commit = off").await?;
            Ok::<_, tokio_postgres::Error>(client)
        })?;
        Ok(Self { runtime, client })
    }
}

async fn write(client: &Client, from: u64, to: u64, rows: u64, pass: u64) -> Result<(), Failure> {
    client.batch_execute("BEGIN").await?;
    client
        .execute(
            "UPDATE bench_onelog_bare_position SET position = $1 WHERE id = 1",
            &[&(to as i64)],
        )
        .await?;
    let sink = client
        .copy_in("COPY bench_onelog_bare_new FROM STDIN BINARY")
        .await?;
    let types = [Type::TEXT, Type::TEXT, Type::FLOAT8, Type::TEXT];
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
    for number in from..to {
        let order = Order::new(number, rows, pass);
        writer
            .as_mut()
            .write(&[&order.key, &order.customer, &order.total, &order.note])
            .await?;
    }
    writer.finish().await?;
    client
        .batch_execute(&format!(
            "INSERT INTO {BARE_TABLE} SELECT * FROM bench_onelog_bare_new ON CONFLICT (id) DO UPDATE
               SET customer = excluded.customer, total = excluded.total, note = excluded.note;
             COMMIT"
        ))
        .await?;
    Ok(())
}

impl Bare for BarePostgres {
    fn name(&self) -> &'static str {
        "COPY into a temporary table and merge, 40,000 rows a transaction"
    }

    fn prepare(&mut self, rows: u64) -> Result<(), Failure> {
        self.runtime.block_on(self.client.batch_execute(&format!(
            "DROP TABLE IF EXISTS {BARE_TABLE}, bench_onelog_bare_position;
             CREATE TABLE {BARE_TABLE} (id text PRIMARY KEY, customer text, total double precision, note text);
             CREATE TABLE bench_onelog_bare_position (id int PRIMARY KEY, position bigint);
             INSERT INTO bench_onelog_bare_position VALUES (1, 0);
             CREATE TEMPORARY TABLE bench_onelog_bare_new
               (id text, customer text, total double precision, note text) ON COMMIT DELETE ROWS"
        )))?;
        self.pass(rows, 0).map(|_| ())
    }

    fn pass(&mut self, rows: u64, pass: u64) -> Result<f64, Failure> {
        let started = Instant::now();
        for from in (0..rows).step_by(BATCH_ROWS as usize) {
            let to = (from + BATCH_ROWS).min(rows);
            self.runtime
                .block_on(write(&self.client, from, to, rows, pass))?;
        }
        Ok(started.elapsed().as_secs_f64())
    }

    fn dump(&mut self, table: &str) -> Result<Option<f64>, Failure> {
        let started = Instant::now();
        let client = &self.client;
        self.runtime.block_on(async {
            let stream = client.copy_out(&format!("COPY {table} TO STDOUT")).await?;
            let mut stream = pin!(stream);
            while let Some(part) = stream.next().await {
                part?;
            }
            Ok::<_, tokio_postgres::Error>(())
        })?;
        Ok(Some(started.elapsed().as_secs_f64()))
    }

    fn clean(&mut self) -> Result<(), Failure> {
        self.runtime.block_on(self.client.batch_execute(&format!(
            "DROP TABLE IF EXISTS {BARE_TABLE}, {TABLE}, bench_onelog_bare_position"
        )))?;
        Ok(())
    }
}
