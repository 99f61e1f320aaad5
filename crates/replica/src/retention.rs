//! Cutting the log's start: by size or age, but never past what the state or a follower needs.
//!
//! What goes is decided here, by what memory says about whole segments. From then on it can no
//! longer be read; a job records that and removes the files.

use std::sync::Arc;

use bytes::Bytes;
use onelog_log::{Dropped, RetainError, SegmentSpan};
use onelog_record::{Index, KeyRange, Position, TABLE_SINKS};
use onelog_state::{ReadError, Written};

use crate::events::Now;
use crate::failure::Failure;
use crate::followers::sink_follower;
use crate::jobs::{Job, Outbox};
use crate::observer::Observer;
use crate::planted::{self, Bug};
use crate::replica::Replica;

const INTERVAL_MS: u64 = 1_000;
/// How often a log that a follower holds is complained about.
const COMPLAINT_INTERVAL_MS: u64 = 60_000;

/// When retention last did what, by the monotonic clock.
#[derive(Debug)]
pub(crate) struct Retention {
    pub(crate) is_running: bool,
    pub(crate) considered_at_ms: u64,
    pub(crate) complained_at_ms: Option<u64>,
    pub(crate) defined: Option<DefinedSinks>,
}

/// The sinks that the log defines. They are read on the thread that owns the replica, so only when
/// their table was written since.
#[derive(Debug)]
pub(crate) struct DefinedSinks {
    /// What lies below this position is in it.
    at: Position,
    names: Vec<String>,
}

/// Looking whether a table that was not written since was written takes none.
const WRITTEN_STEPS_MAX: usize = 16;

impl<T, O: Observer> Replica<T, O> {
    /// Drops whole segments that the settings no longer want and nothing needs.
    pub(crate) fn retain(&mut self, now: Now, out: &mut Outbox<T>) -> Result<(), Failure> {
        let is_unlimited = self.options.retain_bytes.is_none() && self.options.retain_ms.is_none();
        let since_ms = now
            .monotonic_ms
            .saturating_sub(self.retention.considered_at_ms);
        let is_busy = self.retention.is_running || self.waits_to_install();
        if is_unlimited || is_busy || since_ms < INTERVAL_MS {
            return Ok(());
        }
        self.retention.considered_at_ms = now.monotonic_ms;
        let segments = self.log.sealed_segments();
        let wanted = self.unwanted_below(&segments, now);
        if wanted <= self.log.first_index() {
            return Ok(());
        }
        let needed = self.needed_from(&segments)?;
        if needed < wanted {
            self.complain(now);
        }
        let dropped = self
            .log
            .retain_from(wanted.min(needed))
            .map_err(retention_failed)?;
        if let Some(retain) = dropped {
            self.retention.is_running = true;
            self.engine.cut_start(self.log.first_index());
            self.observer.log_start_moved(self.log.start());
            out.jobs.push(Job::Retain(retain));
        }
        Ok(())
    }

    pub(crate) fn retained(
        &mut self,
        result: Result<Vec<Dropped>, RetainError>,
    ) -> Result<(), Failure> {
        self.retention.is_running = false;
        let dropped = result.map_err(retention_failed)?;
        if let Some(last) = dropped.last() {
            tracing::info!(segments = dropped.len(), log_start = %last.end, "cut the log's start");
        }
        Ok(())
    }

    /// The settings want nothing below this index.
    fn unwanted_below(&self, segments: &[SegmentSpan], now: Now) -> Index {
        let mut below = Index::ZERO;
        if let Some(limit) = self.options.retain_bytes {
            let mut total = self.log.disk_bytes();
            for segment in segments {
                if total <= limit {
                    break;
                }
                total -= segment.bytes;
                below = segment.last_index.next();
            }
        }
        if let Some(age_ms) = self.options.retain_ms {
            let since = now.unix_ms.saturating_sub(age_ms);
            let is_old = |segment: &&SegmentSpan| segment.timestamp_ms < since;
            if let Some(last) = segments.iter().take_while(is_old).last() {
                below = below.max(last.last_index.next());
            }
        }
        below
    }

    /// Everything from this index on is needed: by the next start, or by a follower.
    fn needed_from(&mut self, segments: &[SegmentSpan]) -> Result<Index, Failure> {
        let needed = if planted::is(Bug::RetainPastCheckpoint) {
            self.engine.applied().index.next()
        } else {
            self.checkpoints.covered.next()
        };
        // The receiver of a snapshot goes on behind it; the entry there is what it is known by.
        let sending = self.cluster.sending.values().min();
        let needed = sending.map_or(needed, |last| needed.min(*last));
        if self.options.retain_past_followers || planted::is(Bug::RetainPastFollowers) {
            return Ok(needed);
        }
        if self.absent_sink()?.is_some() {
            return Ok(self.log.first_index());
        }
        let Some((_, position)) = self.followers.slowest() else {
            return Ok(needed);
        };
        // The entry with the last record below it says which history a position is of.
        let last = Position(position.get().saturating_sub(1));
        let holder = segments.iter().find(|segment| last < segment.end);
        Ok(holder.map_or(needed, |holder| needed.min(holder.first_index)))
    }

    /// A sink that is defined and does not follow: this program runs without its sinks, or has not
    /// started it yet. Where it is in the log only its store knows.
    fn absent_sink(&mut self) -> Result<Option<String>, Failure> {
        let followers = Arc::clone(&self.followers);
        let is_absent = |sink: &&String| !followers.has(&sink_follower(sink));
        Ok(self.defined_sinks()?.iter().find(is_absent).cloned())
    }

    fn defined_sinks(&mut self) -> Result<&[String], Failure> {
        let all = KeyRange {
            table: TABLE_SINKS,
            from: Bytes::new(),
            to: None,
        };
        let latest = self.state.latest();
        let at = latest.position();
        let is_unchanged = |known: &DefinedSinks| {
            known.at >= latest.floor()
                && latest.written_since(&all, known.at, &mut { WRITTEN_STEPS_MAX })
                    == Written::Nothing
        };
        let known = self.retention.defined.take().filter(is_unchanged);
        let names = match known {
            Some(known) => known.names,
            None => {
                let sinks = self.state.snapshot().scan(&all, false);
                let rows = sinks.map_err(retention_failed)?;
                rows.map(|row| Ok(String::from_utf8_lossy(&row?.key).into_owned()))
                    .collect::<Result<_, ReadError>>()
                    .map_err(retention_failed)?
            }
        };
        let defined = self.retention.defined.insert(DefinedSinks { at, names });
        Ok(&defined.names)
    }

    fn complain(&mut self, now: Now) {
        if self
            .retention
            .complained_at_ms
            .is_some_and(|at| now.monotonic_ms.saturating_sub(at) < COMPLAINT_INTERVAL_MS)
        {
            return;
        }
        self.retention.complained_at_ms = Some(now.monotonic_ms);
        match self.absent_sink() {
            Ok(Some(sink)) => {
                tracing::warn!(
                    sink,
                    "the log is kept beyond its limit for a sink that does not run"
                );
            }
            _ => {
                if let Some((name, position)) = self.followers.slowest() {
                    tracing::warn!(follower = name, %position, "the log is kept beyond its limit for a slow follower");
                }
            }
        }
    }
}

fn retention_failed(cause: impl std::fmt::Display) -> Failure {
    Failure::Retention(cause.to_string())
}
