//! Parts that run in a process of their own: to be killed, or to have their memory looked at.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use onelog::{Node, Options};

use crate::load::{self, Failure, Shape};

/// How much log a killed process leaves to be replayed.
pub const REPLAY_BYTES: u64 = 100 << 20;

/// A part of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Writes without checkpoints until enough log is there, then waits to be killed.
    Write,
    /// Opens, waits a moment, says how much memory it has.
    Idle,
}

/// Options under which no checkpoint is made while writing.
pub fn without_checkpoints(folder: &Path, cache_bytes: usize) -> Options {
    Options {
        cache_bytes,
        memtable_bytes: 2 << 30,
        memtable_bytes_max: 4 << 30,
        checkpoint_interval_ms: u64::MAX,
        ..Options::new(folder)
    }
}

/// Resident memory of this process, in MiB.
fn resident_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or("0");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap_or(0.0);
    kib / 1024.0
}

pub fn run(part: Part, folder: &Path, keys: u64, cache_bytes: usize) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    match part {
        Part::Write => {
            let node = Node::open(without_checkpoints(folder, cache_bytes))?;
            let table = load::table(&node, "bench.reopen")?;
            let shape = Shape {
                reads: 0,
                writes: 20,
                keys,
            };
            let (mut bytes, mut records) = (0.0, 0.0);
            while bytes < REPLAY_BYTES as f64 {
                let load = load::run(&node, table, shape, 64, Duration::from_millis(500))?;
                records += (load.committed * 20) as f64;
                bytes = crate::commits::histogram(&node, "group_bytes").0;
            }
            writeln!(out, "{bytes} {records}")?;
            out.flush()?;
            // Until the parent kills it.
            loop {
                std::thread::park();
            }
        }
        Part::Idle => {
            let node = Node::open(Options {
                cache_bytes,
                ..Options::new(folder)
            })?;
            let _ = node.wait_for_blocking(onelog::Position(u64::MAX), Duration::from_secs(2));
            writeln!(out, "{}", resident_mib())?;
            out.flush()?;
            node.stop()?;
            Ok(())
        }
    }
}
