//! Looks at how much room the disks have: after each job that takes some, and now and then, because
//! other programs write as well. Never on the engine's thread, which a hanging disk must not hold up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onelog_log::Disk;
use onelog_replica::Now;

/// How often it is looked at while no job ends.
const INTERVAL_MS: u64 = 500;

/// Looks for room, on any thread. A clone looks at the same disks.
#[derive(Clone, Debug)]
pub(crate) struct SpaceProbe {
    disks: [Arc<dyn Disk>; 2],
    /// Whether a look is under way that was due.
    is_looking: Arc<AtomicBool>,
}

impl SpaceProbe {
    pub(crate) fn new(disks: [Arc<dyn Disk>; 2]) -> Self {
        Self {
            disks,
            is_looking: Arc::default(),
        }
    }

    /// How much is free on the disk that has less; `None` where that is not known.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        let found = self
            .disks
            .iter()
            .filter_map(|disk| match disk.free_bytes() {
                Ok(free) => free,
                Err(error) => {
                    tracing::warn!(%error, "how much room the disk has cannot be found out");
                    None
                }
            });
        found.min()
    }
}

/// When it was looked last.
#[derive(Debug)]
pub(crate) struct SpaceWatch {
    pub(crate) probe: SpaceProbe,
    looked_at_ms: u64,
}

impl SpaceWatch {
    pub(crate) const fn new(probe: SpaceProbe, now: Now) -> Self {
        Self {
            probe,
            looked_at_ms: now.monotonic_ms,
        }
    }

    /// Whether a look is due; the one before must have ended.
    pub(crate) fn take_due(&mut self, now: Now) -> bool {
        let is_due = now.monotonic_ms.saturating_sub(self.looked_at_ms) >= INTERVAL_MS;
        if !is_due || self.probe.is_looking.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.looked_at_ms = now.monotonic_ms;
        true
    }

    /// The look that was due has ended, or could not begin.
    pub(crate) fn ended(probe: &SpaceProbe) {
        probe.is_looking.store(false, Ordering::Release);
    }
}
