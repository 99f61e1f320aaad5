//! `onelog-bench`: every figure beside a bare loop that was measured in the same run.
//!
//! Machines are shared and noisy, so no figure is an absolute promise: the ratio to the bare loop
//! is what carries over. Each figure is the median of several rounds.

mod bare;
mod child;
mod cluster;
mod commits;
mod figures;
mod http;
mod latency;
mod load;
mod reads;
mod reopen;
mod sqlite;
mod stores;
mod sustained;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use onelog::{Node, Options};

use figures::Figure;
use load::Failure;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// 512 transactions in flight from inside the process, 2 point reads and 2 writes each.
    Commits,
    /// The commits' 99th percentile with a checkpoint running and without one.
    Checkpoint,
    /// Records per second over many keys, with checkpoints running.
    Sustained,
    /// The latency of one client.
    Latency,
    /// Transactions over HTTP, 64 connections.
    Http,
    /// Snapshot reads while writes go on.
    Reads,
    /// Reopening, clean and after a kill, and memory while idle.
    Reopen,
    /// The SQLite sink catching up.
    Sqlite,
    /// Three nodes in processes of their own: commits, a new node catching up, failover.
    Cluster,
    /// The sinks of the stores given by --store: catching up, small transactions, latency, verify.
    Stores,
}

const ALL: [Kind; 9] = [
    Kind::Latency,
    Kind::Commits,
    Kind::Checkpoint,
    Kind::Reads,
    Kind::Http,
    Kind::Reopen,
    Kind::Sqlite,
    Kind::Cluster,
    Kind::Sustained,
];

/// Measure this machine and onelog on it
#[derive(Debug, Parser)]
#[command(name = "onelog-bench", version, max_term_width = 100)]
pub struct Args {
    /// What to measure; everything when nothing is named
    #[arg(value_enum)]
    kinds: Vec<Kind>,
    /// Where the data goes while measuring; a temporary folder inside it is made and removed
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Rounds of each figure, whose median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that a round takes
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Keys of the table that is read and written
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Keys of the table of the sustained run
    #[arg(long, default_value_t = 10_000_000)]
    sustained_keys: u64,
    /// Seconds of the sustained run
    #[arg(long, default_value_t = 60)]
    sustained_seconds: u64,
    /// The B-tree's page cache, in MiB
    #[arg(long, default_value_t = 1024)]
    cache_mib: usize,
    /// Groups that are flushed at the same time
    #[arg(long, default_value_t = onelog::FLUSHES_IN_FLIGHT)]
    flushes: usize,
    /// The memtable is checkpointed at this size, in MiB
    #[arg(long, default_value_t = onelog::MEMTABLE_BYTES >> 20)]
    memtable_mib: usize,
    /// A store to measure a sink with, by its address (postgres://…, mysql://…, redis://…,
    /// http://…); tables and keys that start with bench_onelog are made there, and removed
    #[arg(long = "store", value_name = "URL")]
    stores: Vec<String>,
    /// Rows with which a store's sink catches up
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Runs a part of a measurement in a process of its own
    #[arg(long, hide = true)]
    child: Option<child::Part>,
    /// Runs a node of a cluster, which is described as JSON
    #[arg(long, hide = true)]
    member: Option<String>,
}

/// What every measurement needs.
#[derive(Debug)]
struct Bench {
    folder: PathBuf,
    rounds: usize,
    round: Duration,
    keys: u64,
    sustained_keys: u64,
    sustained_time: Duration,
    cache_bytes: usize,
    flushes: usize,
    memtable_bytes: usize,
    stores: Vec<String>,
    rows: u64,
}

impl Bench {
    fn options(&self, name: &str) -> Options {
        Options {
            cache_bytes: self.cache_bytes,
            flushes_in_flight: self.flushes,
            memtable_bytes: self.memtable_bytes,
            memtable_bytes_max: onelog::MEMTABLE_BYTES_MAX.max(self.memtable_bytes * 4),
            ..Options::new(self.folder.join(name))
        }
    }

    fn open(&self, name: &str) -> Result<Node, Failure> {
        Ok(Node::open(self.options(name))?)
    }

    /// Stops a node and removes its data.
    fn close(&self, node: Node, name: &str) -> Result<(), Failure> {
        node.stop()?;
        drop(node);
        Ok(std::fs::remove_dir_all(self.folder.join(name))?)
    }
}

/// The product's allocator, so that the figures are the product's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(part) = args.child {
        return finish(child::run(
            part,
            &args.folder,
            args.keys,
            args.cache_mib << 20,
        ));
    }
    if let Some(start) = &args.member {
        return finish(cluster::member::run(start));
    }
    finish(measure(&args))
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<(), Failure> {
    let folder = tempfile::Builder::new()
        .prefix("onelog-bench-")
        .tempdir_in(&args.folder)?;
    let bench = Bench {
        folder: folder.path().to_path_buf(),
        rounds: args.rounds.max(1),
        round: Duration::from_secs(args.seconds.max(1)),
        keys: args.keys.max(1),
        sustained_keys: args.sustained_keys.max(1),
        sustained_time: Duration::from_secs(args.sustained_seconds.max(1)),
        cache_bytes: args.cache_mib << 20,
        flushes: args.flushes,
        memtable_bytes: args.memtable_mib << 20,
        stores: args.stores.clone(),
        rows: args.rows.max(1),
    };
    let kinds = if args.kinds.is_empty() && !args.stores.is_empty() {
        &[Kind::Stores][..]
    } else if args.kinds.is_empty() {
        &ALL[..]
    } else {
        &args.kinds
    };
    let mut figures = Vec::new();
    for kind in kinds {
        eprintln!("measuring {kind:?} ...");
        figures.extend(one(&bench, *kind)?);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print!("{}\n{}", machine(), figures::table(&figures));
    }
    Ok(())
}

fn one(bench: &Bench, kind: Kind) -> Result<Vec<Figure>, Failure> {
    match kind {
        Kind::Commits => commits::throughput(bench),
        Kind::Checkpoint => commits::checkpoint(bench),
        Kind::Sustained => sustained::run(bench),
        Kind::Latency => latency::run(bench),
        Kind::Http => http::run(bench),
        Kind::Reads => reads::run(bench),
        Kind::Reopen => reopen::run(bench),
        Kind::Sqlite => sqlite::run(bench),
        Kind::Cluster => cluster::run(bench),
        Kind::Stores => all_stores(bench),
    }
}

fn all_stores(bench: &Bench) -> Result<Vec<Figure>, Failure> {
    if bench.stores.is_empty() {
        return Err("which stores? Give their addresses with --store".into());
    }
    let mut figures = Vec::new();
    for url in &bench.stores {
        let target = stores::Target::new(url)?;
        figures.extend(stores::run(bench, &target, bench.rows)?);
    }
    Ok(figures)
}

/// A line that says where it was measured.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    format!(
        "{cores} cores, {model}; load {load}; onelog {}\n",
        env!("CARGO_PKG_VERSION")
    )
}
