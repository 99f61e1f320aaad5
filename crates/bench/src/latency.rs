//! The latency of one client that waits for each commit.

use std::time::Instant;

use onelog::CommitRequest;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::figures::{Figure, quantile};
use crate::load::{self, Failure};
use crate::{Bench, bare};

const COMMITS: u64 = 2_000;
/// What the commit below occupies in the log: frame header, transaction, record.
const FRAME_BYTES: usize = 256;

/// One write of 100 B a transaction, one after the other.
pub fn run(bench: &Bench) -> Result<Vec<Figure>, Failure> {
    let node = bench.open("latency")?;
    let table = load::table(&node, "bench.latency")?;
    let mut random = SmallRng::seed_from_u64(1);
    let (mut medians, mut tails, mut bare_medians, mut bare_tails) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let mut latencies = Vec::new();
        for number in 0..COMMITS {
            let request = CommitRequest {
                writes: vec![load::put(
                    table,
                    load::key(number),
                    load::value(&mut random),
                )],
                ..CommitRequest::default()
            };
            let started = Instant::now();
            node.submit(request).wait()?;
            latencies.push(started.elapsed().as_secs_f64() * 1e3);
        }
        medians.push(quantile(&mut latencies, 0.5));
        tails.push(quantile(&mut latencies, 0.99));
        let mut flushes = bare::flush_latencies(&bench.folder, FRAME_BYTES, COMMITS as usize)?;
        bare_medians.push(quantile(&mut flushes, 0.5));
        bare_tails.push(quantile(&mut flushes, 0.99));
    }
    bench.close(node, "latency")?;
    Ok(vec![
        Figure::new("commit, one client, median", "ms", medians)
            .beside("write + fdatasync", &bare_medians),
        Figure::new("commit, one client, p99", "ms", tails)
            .beside("write + fdatasync", &bare_tails),
    ])
}
