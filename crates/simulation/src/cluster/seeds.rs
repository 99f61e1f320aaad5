//! Many seeds, on several threads; each runs in one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::reached::Reached;
use super::run::{Outcome, run};

/// Which seeds, and how long at most.
#[derive(Clone, Debug)]
pub struct Batch {
    pub from: u64,
    pub seeds: u64,
    /// How many steps each takes.
    pub steps: usize,
    /// No further seed begins after this.
    pub at_most: Option<Duration>,
    pub threads: usize,
}

/// What a batch showed.
#[derive(Debug, Default)]
pub struct Ran {
    pub seeds: u64,
    pub transactions: usize,
    pub reads: usize,
    pub reached: Reached,
    /// The outcome with the lowest seed that is not clean.
    pub broken: Option<Outcome>,
}

/// Runs seeds until all have run, the time is over, or one is not clean. `progress` hears of each.
pub fn run_all(batch: &Batch, progress: &(dyn Fn(&Outcome) + Sync)) -> Ran {
    let begun = Instant::now();
    let next = AtomicU64::new(batch.from);
    let ran = Mutex::new(Ran::default());
    let is_over = || batch.at_most.is_some_and(|most| begun.elapsed() >= most);
    let work = || {
        while !is_over() && ran.lock().unwrap().broken.is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= batch.from + batch.seeds {
                return;
            }
            let outcome = run(seed, batch.steps);
            progress(&outcome);
            ran.lock().unwrap().add(outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..batch.threads {
            scope.spawn(work);
        }
    });
    ran.into_inner().unwrap()
}

impl Ran {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.transactions += outcome.report.transactions;
        self.reads += outcome.report.reads;
        self.reached.add(&outcome.reached);
        let is_first = (self.broken.as_ref()).is_none_or(|known| outcome.seed < known.seed);
        if !outcome.report.is_clean() && is_first {
            self.broken = Some(outcome);
        }
    }

    /// The rare situations that no seed reached.
    #[must_use]
    pub fn missed(&self) -> Vec<&'static str> {
        let all = super::reached::RARE.into_iter();
        all.filter(|what| self.reached.often(what) == 0).collect()
    }
}
