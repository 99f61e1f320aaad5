//! Records per second over many keys for as long as one likes, with checkpoints running.

use crate::Bench;
use crate::figures::Figure;
use crate::load::{self, Failure, Shape};

const IN_FLIGHT: usize = 64;
const WRITES: usize = 50;

/// Fills a big table, then writes random keys of it.
pub fn run(bench: &Bench) -> Result<Vec<Figure>, Failure> {
    let node = bench.open("sustained")?;
    let table = load::table(&node, "bench.sustained")?;
    let fill = load::fill(&node, table, bench.sustained_keys)?;
    let shape = Shape {
        reads: 0,
        writes: WRITES,
        keys: bench.sustained_keys,
    };
    let load = load::run(&node, table, shape, IN_FLIGHT, bench.sustained_time)?;
    bench.close(node, "sustained")?;
    let slice = bench.sustained_time.as_secs().div_ceil(5).max(1);
    let mut slices = [0u64; 5];
    for (second, count) in load.by_second {
        slices[((second / slice) as usize).min(4)] += count;
    }
    let shown: Vec<String> = slices
        .iter()
        .map(|count| (count * WRITES as u64 / slice).to_string())
        .collect();
    let rate = load.committed as f64 * WRITES as f64 / load.seconds;
    Ok(vec![
        Figure::new(
            format!("filling {} keys", bench.sustained_keys),
            "records/s",
            vec![fill],
        ),
        Figure::new(
            format!("random writes over {} keys, 100 B", bench.sustained_keys),
            "records/s",
            vec![rate],
        )
        .note(format!(
            "one run, checkpoints and waiting for them included; by slices of {slice} s: {}",
            shown.join(" ")
        )),
    ])
}
