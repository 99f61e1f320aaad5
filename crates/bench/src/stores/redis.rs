//! Redis, bare: one pipelined MULTI/EXEC a batch, with the position key.

use std::time::Instant;

use redis::Connection;

use super::{BARE_TABLE, Bare, Failure, Order, TABLE};

const BATCH_ROWS: u64 = 10_000;
const POSITION: &str = "bench_onelog_bare_position";
/// How many keys one command removes.
const REMOVED_AT_ONCE: u64 = 10_000;

pub struct BareRedis(Connection);

impl BareRedis {
    pub fn connect(url: &str) -> Result<Self, Failure> {
        Ok(Self(redis::Client::open(url)?.get_connection()?))
    }
}

impl Bare for BareRedis {
    fn name(&self) -> &'static str {
        "pipelined MULTI/EXEC, 10,000 keys each"
    }

    fn prepare(&mut self, rows: u64) -> Result<(), Failure> {
        self.pass(rows, 0).map(|_| ())
    }

    fn pass(&mut self, rows: u64, pass: u64) -> Result<f64, Failure> {
        let started = Instant::now();
        for from in (0..rows).step_by(BATCH_ROWS as usize) {
            let to = (from + BATCH_ROWS).min(rows);
            let mut pipe = redis::pipe();
            pipe.atomic();
            for number in from..to {
                let order = Order::new(number, rows, pass);
                pipe.set(format!("{BARE_TABLE}:{}", order.key), order.document())
                    .ignore();
            }
            pipe.hset(POSITION, "position", to).ignore();
            pipe.query::<()>(&mut self.0)?;
        }
        Ok(started.elapsed().as_secs_f64())
    }

    fn clean(&mut self) -> Result<(), Failure> {
        for prefix in [BARE_TABLE, TABLE] {
            self.remove_all(&format!("{prefix}:*"))?;
        }
        redis::cmd("DEL").arg(POSITION).query::<()>(&mut self.0)?;
        Ok(())
    }
}

impl BareRedis {
    fn remove_all(&mut self, pattern: &str) -> Result<(), Failure> {
        let mut cursor = 0u64;
        loop {
            let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(pattern)
                .arg("COUNT")
                .arg(REMOVED_AT_ONCE)
                .query(&mut self.0)?;
            if !keys.is_empty() {
                redis::cmd("UNLINK").arg(keys).query::<()>(&mut self.0)?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}
