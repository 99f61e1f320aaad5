//! Commits from inside the process, many in flight; and what a checkpoint does to their latency.

use onelog::Node;

use crate::figures::{Figure, median, quantile};
use crate::load::{self, Failure, Shape};
use crate::{Bench, bare};

const IN_FLIGHT: usize = 512;
const READS: usize = 2;
const WRITES: usize = 2;

fn shape(bench: &Bench) -> Shape {
    Shape {
        reads: READS,
        writes: WRITES,
        keys: bench.keys,
    }
}

/// Sum and count of a histogram of the node.
pub fn histogram(node: &Node, name: &str) -> (f64, f64) {
    let text = node.metrics_text();
    let find = |suffix: &str| {
        let wanted = format!("onelog_{name}_{suffix} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&wanted))
            .and_then(|number| number.trim().parse().ok())
            .unwrap_or(0.0)
    };
    (find("sum"), find("count"))
}

/// Transactions per second with 512 in flight, beside bare flushes of groups of the same size.
pub fn throughput(bench: &Bench) -> Result<Vec<Figure>, Failure> {
    let node = bench.open("commits")?;
    let table = load::table(&node, "bench.commits")?;
    load::fill(&node, table, bench.keys)?;
    let (mut rates, mut bare_rates, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    let mut conflicts = 0;
    for _ in 0..bench.rounds {
        let (transactions_before, groups_before) = histogram(&node, "group_transactions");
        let (bytes_before, _) = histogram(&node, "group_bytes");
        let mut load = load::run(&node, table, shape(bench), IN_FLIGHT, bench.round)?;
        let (transactions, count) = histogram(&node, "group_transactions");
        let (bytes, _) = histogram(&node, "group_bytes");
        let count = (count - groups_before).max(1.0);
        let group_transactions = (transactions - transactions_before) / count;
        let group_bytes = (bytes - bytes_before) / count;
        let flushes = bare::flushes(
            &bench.folder,
            bench.flushes,
            group_bytes as usize,
            bench.round / 3,
        )?;
        rates.push(load.rate());
        bare_rates.push(flushes * group_transactions);
        groups.push(group_transactions);
        conflicts += load.conflicts;
        medians.push(quantile(&mut load.latencies_ms, 0.5));
        tails.push(quantile(&mut load.latencies_ms, 0.99));
    }
    bench.close(node, "commits")?;
    let figure = Figure::new(
        "commits, 512 in flight, 2 reads + 2 writes of 100 B",
        "transactions/s",
        rates,
    )
    .beside(
        "flushes of groups of the same size, as many in flight",
        &bare_rates,
    )
    .note(format!(
        "{:.0} transactions a group; {conflicts} conflicts; checkpoints run meanwhile",
        median(&groups)
    ));
    Ok(vec![
        figure,
        Figure::new("their latency, median", "ms", medians),
        Figure::new("their latency, p99", "ms", tails),
    ])
}

/// The 99th percentile while a checkpoint runs, beside the one while none runs.
pub fn checkpoint(bench: &Bench) -> Result<Vec<Figure>, Failure> {
    // A load that leaves room: saturation would measure queueing, not the checkpoint.
    const CLIENTS: usize = 16;
    let options = onelog::Options {
        checkpoint_interval_ms: u64::MAX,
        ..bench.options("checkpoint")
    };
    let node = Node::open(options)?;
    let table = load::table(&node, "bench.checkpoint")?;
    load::fill(&node, table, bench.keys)?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut guard = 0;
    while (with.len() < bench.rounds || without.len() < bench.rounds) && guard < bench.rounds * 40 {
        guard += 1;
        let (_, before) = histogram(&node, "checkpoint_seconds");
        let running = node.status().checkpoint_running;
        let slice = std::time::Duration::from_millis(700);
        let mut load = load::run(&node, table, shape(bench), CLIENTS, slice)?;
        let (_, after) = histogram(&node, "checkpoint_seconds");
        let ran = running || node.status().checkpoint_running || after > before;
        let p99 = quantile(&mut load.latencies_ms, 0.99);
        if ran {
            with.push(p99)
        } else {
            without.push(p99)
        }
    }
    bench.close(node, "checkpoint")?;
    Ok(vec![
        Figure::new(
            "p99 of commits while a checkpoint runs, 16 in flight",
            "ms",
            with,
        )
        .beside("the same without a checkpoint", &without)
        .note("slices of 0.7 s, sorted by whether a checkpoint ran in them"),
    ])
}
