//! Point reads on a snapshot, on one thread, while writes go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::Bench;
use crate::figures::Figure;
use crate::load::{self, Failure, Shape};

/// Reads between two looks at the clock, on one snapshot.
const READS_AT_ONCE: u32 = 1_000;
const WRITERS_IN_FLIGHT: usize = 16;

/// Reads random keys; the time is the reader's CPU time, because the writer shares the cores.
pub fn run(bench: &Bench) -> Result<Vec<Figure>, Failure> {
    let node = bench.open("reads")?;
    let table = load::table(&node, "bench.reads")?;
    load::fill(&node, table, bench.keys)?;
    let stop = AtomicBool::new(false);
    let (mut rates, mut wall) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| -> Result<(), Failure> {
        let writer = scope.spawn(|| -> Result<u64, Failure> {
            let shape = Shape {
                reads: 0,
                writes: 2,
                keys: bench.keys,
            };
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                let load = load::run(
                    &node,
                    table,
                    shape,
                    WRITERS_IN_FLIGHT,
                    Duration::from_millis(300),
                )?;
                written += load.committed;
            }
            Ok(written)
        });
        let mut random = SmallRng::seed_from_u64(7);
        for _ in 0..bench.rounds {
            let (started, cpu_started) = (Instant::now(), cpu_seconds());
            let mut reads = 0u64;
            while started.elapsed() < bench.round / 2 {
                let snapshot = node.snapshot();
                for _ in 0..READS_AT_ONCE {
                    let found =
                        snapshot.get(table, &load::key(random.random_range(0..bench.keys)))?;
                    if found.is_none() {
                        return Err("a key that was written is missing".into());
                    }
                }
                reads += u64::from(READS_AT_ONCE);
            }
            rates.push(reads as f64 / (cpu_seconds() - cpu_started).max(1e-9));
            wall.push(reads as f64 / started.elapsed().as_secs_f64());
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| "the writer panicked")??;
        Ok(())
    })?;
    bench.close(node, "reads")?;
    Ok(vec![
        Figure::new(
            "snapshot point reads while writing, per second of one core",
            "reads/s",
            rates,
        ),
        Figure::new("the same by the wall clock", "reads/s", wall),
    ])
}

/// CPU seconds of this thread.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds: f64 = text
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0);
    nanoseconds / 1e9
}
