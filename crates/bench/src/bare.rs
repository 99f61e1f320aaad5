//! Bare loops: what the machine does without any of onelog's code, measured in the same run.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The pre-written file that bare flushes write into, like a segment of the log.
const FILE_BYTES: u64 = 64 << 20;

fn prepared(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .read(true)
        .open(path)?;
    let zeros = vec![0u8; 1 << 20];
    for n in 0..FILE_BYTES >> 20 {
        file.write_all_at(&zeros, n << 20)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Groups of `group_bytes` flushed per second by `in_flight` threads on one pre-written file.
pub fn flushes(
    folder: &Path,
    in_flight: usize,
    group_bytes: usize,
    time: Duration,
) -> io::Result<f64> {
    let path = folder.join("bare-flush");
    let file = prepared(&path)?;
    let group = vec![0x5a; group_bytes.max(1)];
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let started = Instant::now();
    let counts: Vec<io::Result<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..in_flight)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let at = next.fetch_add(group.len() as u64, Ordering::Relaxed);
                        file.write_all_at(&group, at % (FILE_BYTES - group.len() as u64))?;
                        file.sync_data()?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a bare loop panicked")))
            })
            .collect()
    });
    let took = started.elapsed().as_secs_f64();
    let mut total = 0;
    for count in counts {
        total += count?;
    }
    std::fs::remove_file(&path)?;
    Ok(total as f64 / took)
}

/// The latencies, in milliseconds, of single flushes of `bytes` one after the other.
pub fn flush_latencies(folder: &Path, bytes: usize, count: usize) -> io::Result<Vec<f64>> {
    let path = folder.join("bare-flush");
    let file = prepared(&path)?;
    let group = vec![0x5a; bytes];
    let mut latencies = Vec::with_capacity(count);
    for n in 0..count as u64 {
        let started = Instant::now();
        file.write_all_at(&group, n * bytes as u64 % (FILE_BYTES - bytes as u64))?;
        file.sync_data()?;
        latencies.push(started.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(&path)?;
    Ok(latencies)
}
