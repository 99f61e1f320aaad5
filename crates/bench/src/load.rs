//! Load from inside the process: many transactions in flight from one thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog::{
    CommitRequest, NewTable, Node, Operation, PointRead, Refusal, TableId, TableKind, ValueKind,
    Write,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

pub const VALUE_BYTES: usize = 100;
/// Records of a transaction that fills a table.
const FILL_RECORDS: u64 = 1000;
/// Transactions in flight while a table is filled.
const FILL_IN_FLIGHT: usize = 16;

/// What went wrong in a benchmark.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The key of a number: 20 bytes, spread over the key space.
pub fn key(number: u64) -> Bytes {
    Bytes::from(format!(
        "{:020}",
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    ))
}

/// A value that does not compress.
pub fn value(random: &mut SmallRng) -> Bytes {
    let mut bytes = vec![0; VALUE_BYTES];
    random.fill(&mut bytes[..]);
    Bytes::from(bytes)
}

pub fn put(table: TableId, key: Bytes, value: Bytes) -> Write {
    Write {
        table,
        key,
        operation: Operation::Put(value),
        headers: Vec::new(),
    }
}

pub fn table(node: &Node, name: &str) -> Result<TableId, Failure> {
    let table = NewTable {
        kind: TableKind::Keyed,
        value: ValueKind::Bytes,
        ..NewTable::keyed(name)
    };
    Ok(node.create_table_blocking(table)?.0.id)
}

/// Fills a table with `keys` keys; answers the records written per second.
pub fn fill(node: &Node, table: TableId, keys: u64) -> Result<f64, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let started = Instant::now();
    runtime.block_on(async {
        let next = Arc::new(AtomicU64::new(0));
        let tasks: Vec<_> = (0..FILL_IN_FLIGHT)
            .map(|seed| {
                let (node, next) = (node.clone(), Arc::clone(&next));
                async move {
                    let mut random = SmallRng::seed_from_u64(seed as u64);
                    loop {
                        let from = next.fetch_add(FILL_RECORDS, Ordering::Relaxed);
                        if from >= keys {
                            return Ok(());
                        }
                        let writes = (from..keys.min(from + FILL_RECORDS))
                            .map(|number| put(table, key(number), value(&mut random)))
                            .collect();
                        let request = CommitRequest {
                            writes,
                            ..CommitRequest::default()
                        };
                        submit(&node, request).await?;
                    }
                }
            })
            .collect();
        futures_join(tasks).await
    })?;
    Ok(keys as f64 / started.elapsed().as_secs_f64())
}

async fn futures_join(
    tasks: Vec<impl std::future::Future<Output = Result<(), Failure>> + 'static>,
) -> Result<(), Failure> {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let handles: Vec<_> = tasks.into_iter().map(tokio::task::spawn_local).collect();
            for handle in handles {
                handle.await??;
            }
            Ok(())
        })
        .await
}

/// Submits; to an overloaded node again, after the time that it names.
pub async fn submit(node: &Node, request: CommitRequest) -> Result<onelog::Committed, Refusal> {
    loop {
        match node.submit(request.clone()).await {
            Err(Refusal::Overloaded { retry_after_ms, .. }) => {
                tokio::time::sleep(Duration::from_millis(retry_after_ms)).await;
            }
            answer => return answer,
        }
    }
}

#[derive(Debug, Default)]
pub struct Load {
    /// Transactions committed.
    pub committed: u64,
    /// Conflicts met; each was read again and retried as a new transaction.
    pub conflicts: u64,
    pub seconds: f64,
    /// Latencies of commits, in milliseconds.
    pub latencies_ms: Vec<f64>,
    /// Committed in each second.
    pub by_second: HashMap<u64, u64>,
}

impl Load {
    /// Transactions per second.
    pub fn rate(&self) -> f64 {
        self.committed as f64 / self.seconds
    }
}

/// What each transaction does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Shape {
    pub reads: usize,
    pub writes: usize,
    pub keys: u64,
}

/// Keeps `in_flight` transactions in flight for `time`, from one thread.
pub fn run(
    node: &Node,
    table: TableId,
    shape: Shape,
    in_flight: usize,
    time: Duration,
) -> Result<Load, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let stop = Arc::new(AtomicBool::new(false));
    let loads = Arc::new(parking_lot::Mutex::new(Load::default()));
    let started = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..in_flight)
            .map(|seed| {
                client(
                    node.clone(),
                    table,
                    shape,
                    seed as u64,
                    Arc::clone(&stop),
                    Arc::clone(&loads),
                    started,
                )
            })
            .collect();
        let timer = Arc::clone(&stop);
        std::thread::spawn(move || {
            std::thread::sleep(time);
            timer.store(true, Ordering::Relaxed);
        });
        futures_join(tasks).await
    })?;
    let mut load = std::mem::take(&mut *loads.lock());
    load.seconds = started.elapsed().as_secs_f64();
    Ok(load)
}

async fn client(
    node: Node,
    table: TableId,
    shape: Shape,
    seed: u64,
    stop: Arc<AtomicBool>,
    loads: Arc<parking_lot::Mutex<Load>>,
    started: Instant,
) -> Result<(), Failure> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut own = Load::default();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let snapshot = node.snapshot();
        let mut request = CommitRequest {
            read_position: (shape.reads > 0).then(|| snapshot.position()),
            ..CommitRequest::default()
        };
        for _ in 0..shape.reads {
            let key = key(random.random_range(0..shape.keys));
            snapshot.get(table, &key)?;
            request.point_reads.push(PointRead { table, key });
        }
        drop(snapshot);
        for _ in 0..shape.writes {
            let key = key(random.random_range(0..shape.keys));
            request.writes.push(put(table, key, value(&mut random)));
        }
        match node.submit(request).await {
            Ok(_) => {
                own.committed += 1;
                own.latencies_ms.push(begun.elapsed().as_secs_f64() * 1e3);
                *own.by_second
                    .entry(started.elapsed().as_secs())
                    .or_default() += 1;
            }
            Err(Refusal::Conflict { .. } | Refusal::SnapshotTooOld { .. }) => own.conflicts += 1,
            Err(Refusal::Overloaded { retry_after_ms, .. }) => {
                tokio::time::sleep(Duration::from_millis(retry_after_ms)).await;
            }
            Err(refusal) => return Err(refusal.into()),
        }
    }
    let mut all = loads.lock();
    all.committed += own.committed;
    all.conflicts += own.conflicts;
    all.latencies_ms.append(&mut own.latencies_ms);
    for (second, count) in own.by_second {
        *all.by_second.entry(second).or_default() += count;
    }
    Ok(())
}
