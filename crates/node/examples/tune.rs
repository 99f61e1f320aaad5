#![allow(warnings)]
#[path = "../../cli/src/bench/bare.rs"]
mod bare;
#[path = "../../cli/src/bench/figures.rs"]
mod figures;
#[path = "../../cli/src/bench/load.rs"]
mod load;
use onelog::*;
use std::time::Duration;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let keys: u64 = a[1].parse().unwrap();
    let in_flight: usize = a[2].parse().unwrap();
    let secs: u64 = a[3].parse().unwrap();
    let folder = tempfile::tempdir_in(".").unwrap();
    let node = Node::open(Options::new(folder.path())).unwrap();
    let t = load::table(&node, "t").unwrap();
    println!("fill {:.0} rec/s", load::fill(&node, t, keys).unwrap());
    let shape = load::Shape {
        reads: a.get(4).map_or(2, |x| x.parse().unwrap()),
        writes: 2,
        keys,
    };
    for _ in 0..3 {
        let before: std::collections::HashMap<_, _> = threads().into_iter().collect();
        let mut l = load::run(&node, t, shape, in_flight, Duration::from_secs(secs)).unwrap();
        let mut v: Vec<_> = l.by_second.iter().map(|(k, v)| (*k, *v)).collect();
        v.sort();
        println!(
            "{:.0} tx/s conflicts {} p50 {:.3} p99 {:.3} ms {:?}",
            l.rate(),
            l.conflicts,
            figures::quantile(&mut l.latencies_ms, 0.5),
            figures::quantile(&mut l.latencies_ms, 0.99),
            v
        );
        for (n, c) in threads() {
            println!(
                "    {n}: {:.2} us/tx",
                (c - before.get(&n).copied().unwrap_or(0.0)) * 1e6 / l.committed as f64
            );
        }
    }
    let bl = bare::flush_latencies(folder.path(), 400, 2000).unwrap();
    println!("bare flush {:.3} ms", figures::median(&bl));
    for n in [1, 2, 4] {
        println!(
            "bare {n} in flight 8KB: {:.0}/s",
            bare::flushes(folder.path(), n, 8192, Duration::from_secs(1)).unwrap()
        );
    }
    for l in node.metrics_text().lines() {
        if l.contains("_sum") || l.contains("_count") {
            println!("{l}");
        }
    }
    std::process::Command::new("ps")
        .args(["-o", "rss", "-p", &std::process::id().to_string()])
        .status()
        .unwrap();
    node.stop().unwrap();
}
pub fn threads() -> Vec<(String, f64)> {
    let mut out: std::collections::BTreeMap<String, f64> = Default::default();
    for e in std::fs::read_dir("/proc/self/task").unwrap() {
        let s = std::fs::read_to_string(e.unwrap().path().join("stat")).unwrap_or_default();
        let (a, b) = s.rsplit_once(')').unwrap_or(("", ""));
        let name = a.split_once('(').map(|x| x.1).unwrap_or("").to_string();
        let f: Vec<&str> = b.split_whitespace().collect();
        if f.len() > 12 {
            *out.entry(name).or_default() +=
                (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0;
        }
    }
    out.into_iter().collect()
}
