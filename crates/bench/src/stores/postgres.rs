//! PostgreSQL, bare, in two ways, each with the position row and one transaction a batch: binary
//! COPY into a temporary table that is merged, and upserts of arrays by `unnest`.

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
/// The rows of one statement.
const STATEMENT_ROWS: u64 = 10_000;

/// How rows are written.
#[derive(Clone, Copy)]
pub enum Way {
    CopyAndMerge,
    Unnest,
}

pub struct BarePostgres {
    runtime: Runtime,
    client: Client,
    way: Way,
    table: String,
}

impl BarePostgres {
    pub fn connect(url: &str, way: Way) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            client.batch_execute("SET synchronous_commit = off").await?;
            Ok::<_, tokio_postgres::Error>(client)
        })?;
        let table = match way {
            Way::CopyAndMerge => format!("{BARE_TABLE}_copy"),
            Way::Unnest => format!("{BARE_TABLE}_unnest"),
        };
        Ok(Self {
            runtime,
            client,
            way,
            table,
        })
    }
}

impl BarePostgres {
    async fn write(&self, from: u64, to: u64, rows: u64, pass: u64) -> Result<(), Failure> {
        self.client.batch_execute("BEGIN").await?;
        let sql = format!(
            "UPDATE {}_position SET position = $1 WHERE id = 1",
            self.table
        );
        self.client.execute(&sql, &[&(to as i64)]).await?;
        match self.way {
            Way::CopyAndMerge => self.copy_and_merge(from, to, rows, pass).await?,
            Way::Unnest => {
                for from in (from..to).step_by(STATEMENT_ROWS as usize) {
                    let to = (from + STATEMENT_ROWS).min(to);
                    self.unnest(from, to, rows, pass).await?;
                }
            }
        }
        Ok(self.client.batch_execute("COMMIT").await?)
    }

    async fn copy_and_merge(
        &self,
        from: u64,
        to: u64,
        rows: u64,
        pass: u64,
    ) -> Result<(), Failure> {
        let copy = format!("COPY {}_new FROM STDIN BINARY", self.table);
        let sink = self.client.copy_in(&copy).await?;
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
        let merge = format!(
            "{} SELECT * FROM {}_new {UPSERT}",
            self.insert(),
            self.table
        );
        Ok(self.client.batch_execute(&merge).await?)
    }

    async fn unnest(&self, from: u64, to: u64, rows: u64, pass: u64) -> Result<(), Failure> {
        let orders: Vec<Order> = (from..to).map(|n| Order::new(n, rows, pass)).collect();
        let column = |of: fn(&Order) -> &str| orders.iter().map(of).collect::<Vec<_>>();
        let totals: Vec<f64> = orders.iter().map(|order| order.total).collect();
        let sql = format!(
            "{} SELECT * FROM unnest($1::text[], $2::text[], $3::float8[], $4::text[]) {UPSERT}",
            self.insert()
        );
        let (keys, customers) = (column(|o| &o.key), column(|o| &o.customer));
        let notes = column(|o| &o.note);
        self.client
            .execute(&sql, &[&keys, &customers, &totals, &notes])
            .await?;
        Ok(())
    }

    fn insert(&self) -> String {
        format!("INSERT INTO {}", self.table)
    }
}

const UPSERT: &str = "ON CONFLICT (id) DO UPDATE
  SET customer = excluded.customer, total = excluded.total, note = excluded.note";

impl Bare for BarePostgres {
    fn name(&self) -> &'static str {
        match self.way {
            Way::CopyAndMerge => "COPY into a temporary table and merge, 40,000 rows a transaction",
            Way::Unnest => "upserts of 10,000 rows by unnest, 40,000 rows a transaction",
        }
    }

    fn prepare(&mut self, rows: u64) -> Result<(), Failure> {
        let table = &self.table;
        self.runtime.block_on(self.client.batch_execute(&format!(
            "DROP TABLE IF EXISTS {table}, {table}_position;
             CREATE TABLE {table} (id text PRIMARY KEY, customer text, total double precision, note text);
             CREATE TABLE {table}_position (id int PRIMARY KEY, position bigint);
             INSERT INTO {table}_position VALUES (1, 0);
             CREATE TEMPORARY TABLE {table}_new
               (id text, customer text, total double precision, note text) ON COMMIT DELETE ROWS"
        )))?;
        self.pass(rows, 0).map(|_| ())
    }

    fn pass(&mut self, rows: u64, pass: u64) -> Result<f64, Failure> {
        let started = Instant::now();
        for from in (0..rows).step_by(BATCH_ROWS as usize) {
            let to = (from + BATCH_ROWS).min(rows);
            self.runtime.block_on(self.write(from, to, rows, pass))?;
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
            "DROP TABLE IF EXISTS {0}, {0}_position, {TABLE}",
            self.table
        )))?;
        Ok(())
    }
}
