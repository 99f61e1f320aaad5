//! Cutting the log's start: by size or age, but never past what the state or a follower needs.

use std::time::{Duration, Instant};

use onelog_record::{Index, Position};

use crate::failure::Failure;
use crate::shell::{Shell, now_ms};

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often a log that a follower holds is complained about.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// When retention last did what.
#[derive(Debug)]
pub(crate) struct Retention {
    looked_at: Instant,
    complained_at: Option<Instant>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            looked_at: Instant::now(),
            complained_at: None,
        }
    }
}

impl Shell {
    /// Drops whole segments that the settings no longer want and nobody needs.
    pub(crate) fn retain(&mut self) -> Result<(), Failure> {
        let options = &self.shared.options;
        let unlimited = options.retain_bytes.is_none() && options.retain_ms.is_none();
        if unlimited || self.retention.looked_at.elapsed() < INTERVAL {
            return Ok(());
        }
        self.retention.looked_at = Instant::now();
        let wanted = self.unwanted_below()?;
        if wanted <= self.log.first_index() {
            return Ok(());
        }
        let needed = self.needed_from()?;
        if needed < wanted {
            self.complain();
        }
        let dropped = self
            .log
            .retain_from(wanted.min(needed))
            .map_err(retention_failed)?;
        if let Some(last) = dropped.last() {
            tracing::info!(segments = dropped.len(), log_start = %last.end, "cut the log's start");
            let start = self.log.start().get();
            self.shared
                .log_start
                .store(start, std::sync::atomic::Ordering::Release);
        }
        Ok(())
    }

    /// The settings want nothing below this index.
    fn unwanted_below(&self) -> Result<Index, Failure> {
        let options = &self.shared.options;
        let mut below = Index::ZERO;
        if let Some(limit) = options.retain_bytes {
            let mut total = self.log.disk_bytes();
            for segment in self.log.sealed_segments() {
                if total <= limit {
                    break;
                }
                total -= segment.bytes;
                below = segment.last_index.next();
            }
        }
        if let Some(age_ms) = options.retain_ms {
            let since = now_ms().saturating_sub(age_ms);
            let position = self
                .shared
                .reader
                .position_at_time(since)
                .map_err(retention_failed)?;
            below = below.max(self.index_of(position)?);
        }
        Ok(below)
    }

    /// Everything from this index on is needed: by the next start, or by a follower.
    fn needed_from(&self) -> Result<Index, Failure> {
        let needed = self.checkpointed.next();
        if self.shared.options.retain_past_followers {
            return Ok(needed);
        }
        match self.shared.followers.slowest() {
            Some((_, position)) => Ok(needed.min(self.index_of(position)?)),
            None => Ok(needed),
        }
    }

    /// The index of the entry that holds the record at `position`.
    fn index_of(&self, position: Position) -> Result<Index, Failure> {
        let next = self.engine.applied().index.next();
        if position >= self.shared.advance.position() {
            return Ok(next);
        }
        if position < self.log.start() {
            return Ok(self.log.first_index());
        }
        let entries = self
            .shared
            .reader
            .entries_from(position, next, 1)
            .map_err(retention_failed)?;
        Ok(entries.first().map_or(next, |entry| entry.index))
    }

    fn complain(&mut self) {
        if self
            .retention
            .complained_at
            .is_some_and(|at| at.elapsed() < COMPLAINT_INTERVAL)
        {
            return;
        }
        self.retention.complained_at = Some(Instant::now());
        if let Some((name, position)) = self.shared.followers.slowest() {
            tracing::warn!(follower = name, %position, "the log is kept beyond its limit for a slow follower");
        }
    }
}

fn retention_failed(cause: impl std::fmt::Display) -> Failure {
    Failure::Retention(cause.to_string())
}
