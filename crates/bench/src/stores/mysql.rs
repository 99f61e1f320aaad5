//! MariaDB, bare: bulk execution of one upsert, with the position row, one transaction a batch.

use std::time::Instant;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use tokio::runtime::Runtime;

use super::{BARE_TABLE, Bare, Failure, Order, TABLE};

const BATCH_ROWS: u64 = 10_000;

pub struct BareMysql {
    runtime: Runtime,
    connection: Conn,
}

impl BareMysql {
    pub fn connect(url: &str) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let connection = runtime.block_on(Conn::new(Opts::from_url(url)?))?;
        Ok(Self {
            runtime,
            connection,
        })
    }
}

async fn write(
    connection: &mut Conn,
    from: u64,
    to: u64,
    rows: u64,
    pass: u64,
) -> Result<(), Failure> {
    connection.query_drop("BEGIN").await?;
    connection
        .exec_drop(
            "UPDATE bench_onelog_bare_position SET position = ? WHERE id = 1",
            (to,),
        )
        .await?;
    let orders = (from..to).map(|number| {
        let order = Order::new(number, rows, pass);
        (order.key, order.customer, order.total, order.note)
    });
    connection
        .exec_batch(
            format!(
                "INSERT INTO {BARE_TABLE} (id, customer, total, note) VALUES (?, ?, ?, ?)
                 ON DUPLICATE KEY UPDATE customer = VALUES(customer), total = VALUES(total), note = VALUES(note)"
            ),
            orders,
        )
        .await?;
    connection.query_drop("COMMIT").await?;
    Ok(())
}

impl Bare for BareMysql {
    fn name(&self) -> &'static str {
        "bulk execution of an upsert, 10,000 rows a transaction"
    }

    fn prepare(&mut self, rows: u64) -> Result<(), Failure> {
        let connection = &mut self.connection;
        self.runtime.block_on(async {
            for sql in [
                format!("DROP TABLE IF EXISTS {BARE_TABLE}, bench_onelog_bare_position"),
                format!(
                    "CREATE TABLE {BARE_TABLE} (id VARCHAR(768) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PRIMARY KEY,
                     customer LONGTEXT, total DOUBLE, note LONGTEXT) ENGINE=InnoDB CHARACTER SET utf8mb4"
                ),
                "CREATE TABLE bench_onelog_bare_position (id INT PRIMARY KEY, position BIGINT UNSIGNED) ENGINE=InnoDB".to_owned(),
                "INSERT INTO bench_onelog_bare_position VALUES (1, 0)".to_owned(),
            ] {
                connection.query_drop(sql).await?;
            }
            Ok::<_, mysql_async::Error>(())
        })?;
        self.pass(rows, 0).map(|_| ())
    }

    fn pass(&mut self, rows: u64, pass: u64) -> Result<f64, Failure> {
        let started = Instant::now();
        for from in (0..rows).step_by(BATCH_ROWS as usize) {
            let to = (from + BATCH_ROWS).min(rows);
            self.runtime
                .block_on(write(&mut self.connection, from, to, rows, pass))?;
        }
        Ok(started.elapsed().as_secs_f64())
    }

    fn clean(&mut self) -> Result<(), Failure> {
        let sql = format!("DROP TABLE IF EXISTS {BARE_TABLE}, {TABLE}, bench_onelog_bare_position");
        Ok(self.runtime.block_on(self.connection.query_drop(sql))?)
    }
}
