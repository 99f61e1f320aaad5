//! How much of the log one batch takes, and how long applied rows stay invisible in stores where
//! publishing them costs.

use std::ops::Range;
use std::time::{Duration, Instant};

use onelog::Position;

/// The least log that is read for one batch, in unpacked bytes; the most is said by the definition.
const BATCH_BYTES_MIN: usize = onelog_store::BATCH_BYTES_MIN as usize;
/// While the sink is behind, what was applied stays invisible for this many times as long as
/// publishing took last, between the two bounds.
const PUBLISH_SHARE: u32 = 20;
const PUBLISH_MIN: Duration = Duration::from_secs(1);
const PUBLISH_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Pace {
    batch_bytes: usize,
    batch_bytes_max: usize,
    /// Where what was applied and is not visible yet begins.
    unpublished: Option<Position>,
    published_at: Instant,
    publish_after: Duration,
}

impl Pace {
    pub(crate) fn new(batch_bytes_max: u64) -> Self {
        let most = usize::try_from(batch_bytes_max).unwrap_or(usize::MAX);
        Self {
            batch_bytes: BATCH_BYTES_MIN,
            batch_bytes_max: most.max(BATCH_BYTES_MIN),
            unpublished: None,
            published_at: Instant::now(),
            publish_after: PUBLISH_MIN,
        }
    }

    pub(crate) const fn batch_bytes(&self) -> usize {
        self.batch_bytes
    }

    pub(crate) const fn unpublished(&self) -> Option<Position> {
        self.unpublished
    }

    /// A new connection or backfill: nothing is applied and invisible.
    pub(crate) const fn begin(&mut self) {
        self.unpublished = None;
    }

    pub(crate) fn applied(&mut self, from: Position) {
        self.unpublished.get_or_insert(from);
    }

    pub(crate) fn is_publishing_due(&self) -> bool {
        self.published_at.elapsed() >= self.publish_after
    }

    pub(crate) fn published(&mut self, took: Duration) {
        self.unpublished = None;
        self.published_at = Instant::now();
        self.publish_after = (took * PUBLISH_SHARE).clamp(PUBLISH_MIN, PUBLISH_MAX);
    }

    /// Brings the time of a batch near the goal; `more`: the log has more to read.
    pub(crate) fn adapt(&mut self, took: Duration, goal: &Range<Duration>, more: bool) {
        if took > goal.end {
            self.batch_bytes = (self.batch_bytes / 2).max(BATCH_BYTES_MIN);
        } else if took < goal.start && more {
            self.batch_bytes = (self.batch_bytes * 2).min(self.batch_bytes_max);
        }
    }
}
