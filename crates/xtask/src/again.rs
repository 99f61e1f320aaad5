//! `again`: the tests about concurrency, many times over, because what goes wrong between threads goes
//! wrong rarely. Each round runs every binary once, as many at once as there are processors; in every
//! second round the processors are kept busy as well. A run that does not end is stopped and named.
//!
//! Threads: one for each binary that runs, and in a busy round one for each processor.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::Error;
use crate::files;
use crate::testing::{Binary, Limits, Ran, compile, run_all};

const TIMES_USUAL: u32 = 100;
const TIMES_MAX: u32 = 100_000;
/// The slowest takes about a minute where others compile beside it.
const RUN_SECONDS_MAX: u64 = 10 * 60;

/// The test binaries that are about what threads do to one another, by package.
const BINARIES: [(&str, &[&str]); 8] = [
    (
        "onelog",
        &[
            "cluster",
            "flushes",
            "following",
            "handover",
            "node",
            "queued",
            "stopping",
            "work",
        ],
    ),
    ("onelog-commit", &["beforehand"]),
    ("onelog-engine", &["steps"]),
    ("onelog-log", &["faults", "log", "readers"]),
    ("onelog-peers", &["connections"]),
    ("onelog-simulation", &["concurrent"]),
    ("onelog-sinks", &["leaving", "takeovers", "upkeep"]),
    ("onelog-state", &["life", "readers"]),
];

/// What one binary has done in all rounds.
#[derive(Debug, Default)]
struct Tally {
    passed: u32,
    failed: u32,
    slowest_seconds: f64,
}

/// Runs each binary `--times` times, or those alone that are named; whether all passed.
pub fn run(arguments: &[&str]) -> Result<bool, Error> {
    let (times, names) = wanted(arguments)?;
    let binaries = built(&names)?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let limits = Limits {
        at_once: processors,
        seconds_max: RUN_SECONDS_MAX,
    };
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for round in 1..=times {
        let is_busy = round % 2 == 0;
        let start = Instant::now();
        let ran = match is_busy {
            true => while_busy(processors, || run_all(binaries.clone(), &limits, show)),
            false => run_all(binaries.clone(), &limits, show),
        }?;
        let failed = ran.iter().filter(|(_, ran)| !ran.passed).count();
        for (binary, ran) in ran {
            let tally = tallies.entry(binary.source).or_default();
            match ran.passed {
                true => tally.passed += 1,
                false => tally.failed += 1,
            }
            tally.slowest_seconds = tally.slowest_seconds.max(ran.seconds);
        }
        println!(
            "round {round} of {times}{}: {} passed, {failed} failed, {:.0} s",
            if is_busy { ", busy" } else { "" },
            binaries.len() - failed,
            start.elapsed().as_secs_f64()
        );
    }
    for (source, tally) in &tallies {
        let Tally {
            passed,
            failed,
            slowest_seconds,
        } = tally;
        println!("{passed:6} passed {failed:4} failed, at most {slowest_seconds:6.1} s  {source}");
    }
    Ok(tallies.values().all(|tally| tally.failed == 0))
}

fn wanted<'a>(arguments: &[&'a str]) -> Result<(u32, Vec<&'a str>), Error> {
    let (times, names) = match arguments {
        ["--times", times, names @ ..] => {
            let times = times.parse().ok().filter(|n| (1..=TIMES_MAX).contains(n));
            (
                times
                    .ok_or_else(|| bad(format!("--times: a whole number from 1 to {TIMES_MAX}")))?,
                names,
            )
        }
        names => (TIMES_USUAL, names),
    };
    let known = |name: &str| BINARIES.iter().any(|(_, tests)| tests.contains(&name));
    match names.iter().find(|name| !known(name)) {
        None => Ok((times, names.to_vec())),
        Some(name) => Err(bad(format!(
            "'{name}' is not a binary of its list: {}",
            BINARIES.map(|(_, tests)| tests.join(", ")).join(", ")
        ))),
    }
}

fn bad(message: String) -> Error {
    Error::Command {
        command: "cargo xtask again".to_owned(),
        message,
    }
}

/// Cargo takes `--test` for all packages: what is not in the list is compiled, and not run.
fn built(names: &[&str]) -> Result<Vec<Binary>, Error> {
    let is_wanted = |test: &str| names.is_empty() || names.contains(&test);
    let mut arguments = Vec::new();
    for (package, tests) in BINARIES {
        let mut tests = tests.iter().filter(|test| is_wanted(test)).peekable();
        if tests.peek().is_some() {
            arguments.extend(["--package", package]);
        }
        arguments.extend(tests.flat_map(|test| ["--test", test]));
    }
    let listed: Vec<String> = BINARIES
        .iter()
        .flat_map(|(package, tests)| tests.iter().map(|test| place(package, test)))
        .collect();
    let mut binaries = compile(&files::root(), &arguments)?;
    binaries.retain(|binary| {
        let source = binary.source.trim_end_matches("/main.rs");
        let source = source.trim_end_matches(".rs");
        listed.iter().any(|place| place == source)
    });
    Ok(binaries)
}

/// Where the source of a test binary is, without its ending.
fn place(package: &str, test: &str) -> String {
    let folder = package.strip_prefix("onelog-").unwrap_or("node");
    format!("crates/{folder}/tests/{test}")
}

fn show(binary: &Binary, ran: &Ran) {
    if !ran.passed {
        println!("{}: FAILED\n{}", binary.source, ran.output);
    }
}

/// Does something while every processor has other work too.
fn while_busy<T>(processors: usize, act: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let done = act();
        is_over.store(true, Ordering::Relaxed);
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_names_are_read_and_others_refused() {
        assert_eq!(wanted(&[]).unwrap(), (TIMES_USUAL, vec![]));
        assert_eq!(
            wanted(&["--times", "3", "stopping"]).unwrap(),
            (3, vec!["stopping"])
        );
        for refused in [&["--times", "0"][..], &["--times", "x"], &["unheard"]] {
            assert!(wanted(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn every_binary_of_the_list_is_there() {
        for (package, tests) in BINARIES {
            for test in tests {
                let place = files::root().join(place(package, test));
                let is_there = place.is_dir() || place.with_extension("rs").is_file();
                assert!(is_there, "{}", place.display());
            }
        }
    }
}
