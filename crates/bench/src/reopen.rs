//! Reopening a node: after a clean stop, after a kill; and its memory while idle.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use onelog::Node;

use crate::Bench;
use crate::child::without_checkpoints;
use crate::figures::Figure;
use crate::load::{self, Failure};

pub fn run(bench: &Bench) -> Result<Vec<Figure>, Failure> {
    let mut figures = clean(bench)?;
    figures.extend(killed(bench)?);
    Ok(figures)
}

fn clean(bench: &Bench) -> Result<Vec<Figure>, Failure> {
    let node = bench.open("reopen")?;
    let table = load::table(&node, "bench.reopen")?;
    load::fill(&node, table, bench.keys)?;
    node.stop()?;
    drop(node);
    let mut seconds = Vec::new();
    for _ in 0..bench.rounds {
        let started = Instant::now();
        let node = bench.open("reopen")?;
        seconds.push(started.elapsed().as_secs_f64());
        node.stop()?;
    }
    let folder = bench.folder.join("reopen");
    let mut idle = Vec::new();
    for _ in 0..bench.rounds.min(3) {
        let mut child = start(&folder, "idle", bench)?;
        idle.push(line(&mut child)?.trim().parse()?);
        child.wait()?;
    }
    std::fs::remove_dir_all(folder)?;
    Ok(vec![
        Figure::new(
            format!("reopen after a clean stop, {} keys", bench.keys),
            "s",
            seconds,
        ),
        Figure::new(
            format!("resident memory, idle, {} keys", bench.keys),
            "MiB",
            idle,
        ),
    ])
}

fn killed(bench: &Bench) -> Result<Vec<Figure>, Failure> {
    let (mut rates, mut seconds) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds.min(3) {
        let folder = bench.folder.join("killed");
        let mut child = start(&folder, "write", bench)?;
        let written = line(&mut child);
        child.kill()?;
        child.wait()?;
        let written = written?;
        let bytes: f64 = written.split_whitespace().next().unwrap_or("0").parse()?;
        let started = Instant::now();
        let node = Node::open(without_checkpoints(&folder, bench.cache_bytes))?;
        let took = started.elapsed().as_secs_f64();
        seconds.push(took);
        rates.push(bytes / took / 1e6);
        drop(node);
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(vec![
        Figure::new(
            "replay after kill -9, entries' bytes by the time of the whole open",
            "MB/s",
            rates,
        ),
        Figure::new("the whole open", "s", seconds),
    ])
}

fn start(folder: &Path, part: &str, bench: &Bench) -> Result<Child, Failure> {
    let child = Command::new(std::env::current_exe()?)
        .args(["--child", part, "--keys", &bench.keys.to_string()])
        .args(["--cache-mib", &(bench.cache_bytes >> 20).to_string()])
        .arg("--folder")
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()?;
    Ok(child)
}

fn line(child: &mut Child) -> Result<String, Failure> {
    let out = child.stdout.take().ok_or("the child has no output")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    if line.is_empty() {
        return Err("the child process ended early".into());
    }
    Ok(line)
}
