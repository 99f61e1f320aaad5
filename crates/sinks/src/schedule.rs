//! The threads that look after all sinks of a node: one compares stores on their schedules, one
//! after the other, so that comparisons never overlap; one looks whether the log that is kept for
//! each sink is within its limit, and follows and records how far they are.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{SinkError, SinksError};
use crate::floors::Recording;
use crate::sinks::Inner;

/// The first comparison after a start comes no later than this, so that one that is due once a day
/// is made by a process that is restarted every day.
const FIRST_WITHIN: Duration = Duration::from_secs(300);
/// How often it is looked at how much log is kept.
const RETENTION_INTERVAL: Duration = Duration::from_secs(1);
/// How long the comparing thread sleeps when nothing is scheduled; changes wake it.
const IDLE: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<u64>,
    condition: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rung.lock() += 1;
        self.condition.notify_all();
    }

    fn rung(&self) -> u64 {
        *self.rung.lock()
    }

    /// Waits until it rings again or the time has come.
    fn wait(&self, heard: u64, until: Instant) {
        let mut rung = self.rung.lock();
        while *rung == heard {
            if self.condition.wait_until(&mut rung, until).timed_out() {
                return;
            }
        }
    }
}

/// When a sink is compared next.
#[derive(Clone, Copy, Debug)]
struct Due {
    every: Duration,
    at: Instant,
}

impl Due {
    fn first(every: Duration, now: Instant) -> Self {
        let at = now + every.min(FIRST_WITHIN);
        Self { every, at }
    }

    /// The next time that has not passed: what was missed is not made up for, and the times do not
    /// drift by how long a comparison takes.
    fn next(self, now: Instant) -> Self {
        let passed = now.saturating_duration_since(self.at);
        let periods = passed.as_nanos() / self.every.as_nanos().max(1) + 1;
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        Self {
            every: self.every,
            at: self.at + self.every.saturating_mul(periods),
        }
    }
}

/// Starts both threads.
pub(crate) fn start(inner: &Arc<Inner>) -> Result<(), SinksError> {
    let spawn = |name: &str, work: fn(Weak<Inner>, Arc<Bell>)| {
        let (weak, bell) = (Arc::downgrade(inner), Arc::clone(&inner.bell));
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(weak, bell))
            .map_err(|cause| SinksError::Thread {
                name: name.to_owned(),
                cause,
            })
    };
    let threads: [JoinHandle<()>; 2] = [
        spawn("sinks-verify", compare_on_schedule)?,
        spawn("sinks-retention", check_retention_often)?,
    ];
    inner.helpers.lock().extend(threads);
    Ok(())
}

fn compare_on_schedule(sinks: Weak<Inner>, bell: Arc<Bell>) {
    let mut plan: HashMap<String, Due> = HashMap::new();
    loop {
        let heard = bell.rung();
        let Some(inner) = sinks.upgrade().filter(|inner| !is_stopping(inner)) else {
            return;
        };
        let now = Instant::now();
        let wanted = inner.schedules();
        plan.retain(|name, due| wanted.get(name) == Some(&due.every));
        for (name, every) in wanted {
            plan.entry(name).or_insert_with(|| Due::first(every, now));
        }
        let next = plan.iter_mut().min_by_key(|(_, due)| due.at);
        let until = match next {
            None => now + IDLE,
            Some((_, due)) if due.at > now => due.at,
            Some((name, due)) => {
                compare(&inner, name);
                *due = due.next(Instant::now());
                continue;
            }
        };
        // The owner of the sinks may drop them while this thread sleeps.
        drop(inner);
        bell.wait(heard, until);
    }
}

fn compare(inner: &Inner, name: &str) {
    match inner.verify(name, true) {
        Ok(found) => tracing::info!(
            sink = name, position = %found.position, equal = found.equal, took_ms = found.took_ms,
            "a store was compared with the log on schedule"
        ),
        Err(SinkError::Unknown { .. }) => {}
        Err(error) => {
            tracing::warn!(sink = name, %error, "a store could not be compared with the log on schedule");
        }
    }
}

fn check_retention_often(sinks: Weak<Inner>, bell: Arc<Bell>) {
    let mut recording = Recording::default();
    loop {
        let heard = bell.rung();
        let Some(inner) = sinks.upgrade().filter(|inner| !is_stopping(inner)) else {
            return;
        };
        inner.follow_floors(&mut recording);
        inner.check_retention();
        drop(inner);
        bell.wait(heard, Instant::now() + RETENTION_INTERVAL);
    }
}

fn is_stopping(inner: &Inner) -> bool {
    inner.stopping.load(Ordering::Acquire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_neither_drift_nor_pile_up() {
        let begun = Instant::now();
        let every = Duration::from_secs(10);
        let first = Due::first(every, begun);
        assert_eq!(first.at, begun + every);
        // The comparison took 3 seconds: the next one is due 10 seconds after the first was due.
        let next = first.next(first.at + Duration::from_secs(3));
        assert_eq!(next.at, begun + every * 2);
        // It took longer than the interval: the missed ones are left out.
        let next = next.next(next.at + Duration::from_secs(35));
        assert_eq!(next.at, begun + every * 6);
    }

    #[test]
    fn a_rare_comparison_is_first_made_soon() {
        let now = Instant::now();
        let due = Due::first(Duration::from_secs(86_400), now);
        assert_eq!(due.at, now + FIRST_WITHIN);
    }
}
