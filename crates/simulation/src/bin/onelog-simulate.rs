//! Runs whole clusters with random faults, a seed after the other, and says which seed broke what.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use onelog_simulation::cluster::{Batch, Outcome, Ran, STEPS, run, run_all};

const USAGE: &str = "usage: onelog-simulate [--seeds N] [--from S] [--steps N] [--minutes M] [--any-marks]
       onelog-simulate --seed S [--steps N]     one seed, twice: what it breaks, and its trace

Each seed is a cluster of three or five nodes with its own mixture of faults. Exit status 1: a seed
broke a rule, and does so again with --seed; or a batch of 500 seeds or more, of 40,000 steps or more,
missed a rare situation and says little, unless --any-marks allows that.";
const SEEDS: u64 = 500;
/// A batch of so many seeds must reach every rare situation.
const MARKS_FROM_SEEDS: u64 = 500;
/// A line of progress comes after so many seeds.
const PROGRESS_EVERY: u64 = 100;
const MINUTE: Duration = Duration::from_secs(60);

struct Arguments {
    batch: Batch,
    seed: Option<u64>,
    /// Whether a batch may miss rare situations.
    any_marks: bool,
}

fn parse() -> Result<Arguments, String> {
    let mut batch = Batch {
        from: 0,
        seeds: SEEDS,
        steps: STEPS,
        at_most: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let (mut seed, mut any_marks) = (None, false);
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        if flag == "--any-marks" {
            any_marks = true;
            continue;
        }
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
    Ok(Arguments {
        batch,
        seed,
        any_marks,
    })
}

fn main() -> ExitCode {
    let Arguments {
        batch,
        seed,
        any_marks,
    } = match parse() {
        Ok(arguments) => arguments,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    match seed {
        Some(seed) => one(seed, batch.steps),
        None => many(&batch, any_marks),
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

fn many(batch: &Batch, any_marks: bool) -> ExitCode {
    let done = AtomicU64::new(0);
    let progress = |_: &Outcome| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(PROGRESS_EVERY) {
            eprintln!("{done} of {} seeds", batch.seeds);
        }
    };
    let ran = run_all(batch, &progress);
    print(batch, &ran);
    let is_large = ran.seeds >= MARKS_FROM_SEEDS && batch.steps >= STEPS;
    let has_missed = is_large && !any_marks && !ran.missed().is_empty();
    if has_missed {
        println!("so large a batch must reach every rare situation");
    }
    exit_of(ran.broken.is_none() && !has_missed)
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
