//! Runs whole clusters with random faults, a seed after the other, and says which seed broke what.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use onelog_simulation::cluster::{Batch, Outcome, Ran, STEPS, run, run_all};

const USAGE: &str = "usage: onelog-simulate [--seeds N] [--from S] [--steps N] [--minutes M]
       onelog-simulate --seed S [--steps N]     one seed, twice: what it breaks, and its trace

Each seed is a cluster of three or five nodes with its own mixture of faults. Exit status 1: a seed
broke a rule; it does so again with --seed.";
const SEEDS: u64 = 500;
/// A line of progress comes after so many seeds.
const PROGRESS_EVERY: u64 = 100;
const MINUTE: Duration = Duration::from_secs(60);

struct Arguments {
    batch: Batch,
    seed: Option<u64>,
}

fn parse() -> Result<Arguments, String> {
    let mut batch = Batch {
        from: 0,
        seeds: SEEDS,
        steps: STEPS,
        at_most: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut seed = None;
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let known = ["--seeds", "--from", "--steps", "--minutes", "--seed"];
        if !known.contains(&flag.as_str()) {
            return Err(USAGE.to_owned());
        }
        let value = given.next();
        let value = value.and_then(|value| value.parse::<u64>().ok());
        let value = value.ok_or_else(|| format!("{flag} wants a whole number\n\n{USAGE}"))?;
        match flag.as_str() {
            "--seeds" => batch.seeds = value,
            "--from" => batch.from = value,
            "--steps" => batch.steps = value as usize,
            "--minutes" => batch.at_most = Some(MINUTE * value as u32),
            _ => seed = Some(value),
        }
    }
    Ok(Arguments { batch, seed })
}

fn main() -> ExitCode {
    let Arguments { batch, seed } = match parse() {
        Ok(arguments) => arguments,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    match seed {
        Some(seed) => one(seed, batch.steps),
        None => many(&batch),
    }
}

/// Twice, because the second run must be the first.
fn one(seed: u64, steps: usize) -> ExitCode {
    let (outcome, again) = (run(seed, steps), run(seed, steps));
    println!("seed {seed}: {}", outcome.report);
    println!("reached: {:#?}", outcome.reached.0);
    println!("trace {:016x}", outcome.trace);
    if outcome.trace != again.trace {
        println!(
            "the second run went another way: trace {:016x}",
            again.trace
        );
    }
    exit_of(outcome.report.is_clean() && outcome.trace == again.trace)
}

fn many(batch: &Batch) -> ExitCode {
    let done = AtomicU64::new(0);
    let progress = |_: &Outcome| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(PROGRESS_EVERY) {
            eprintln!("{done} of {} seeds", batch.seeds);
        }
    };
    let ran = run_all(batch, &progress);
    print(batch, &ran);
    exit_of(ran.broken.is_none())
}

fn print(batch: &Batch, ran: &Ran) {
    println!(
        "{} seeds from {} of {} steps: {} transactions in their logs, {} reads of snapshots",
        ran.seeds, batch.from, batch.steps, ran.transactions, ran.reads
    );
    for (what, often) in &ran.reached.0 {
        println!("{often:>9}  {what}");
    }
    for what in ran.missed() {
        println!("    never  {what}");
    }
    match &ran.broken {
        None => println!("no rule was broken"),
        Some(broken) => println!(
            "seed {} broke a rule: {}\nagain: onelog-simulate --seed {} --steps {}",
            broken.seed, broken.report, broken.seed, batch.steps
        ),
    }
}

fn exit_of(is_well: bool) -> ExitCode {
    match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    }
}
