//! When the state is checkpointed: in time, when the memtable is large, and at a clean end. And for
//! how long the view before the last checkpoint stays readable.

use onelog_engine::Members;
use onelog_record::Index;
use onelog_state::{Checkpoint, CheckpointError};

use crate::events::Now;
use crate::failure::Failure;
use crate::jobs::{CheckpointJob, Checkpointed, Job, Outbox};
use crate::observer::Observer;
use crate::replica::Replica;

/// How long a checkpoint that found no room waits at least.
const RETRY_MS: u64 = 10_000;
/// How long it waits for more room than it had. What it had may have been taken by others meanwhile, so
/// that it needs less: then it is tried with whatever there is.
const MORE_ROOM_MS: u64 = 30_000;

/// A checkpoint that found no room.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) checkpoint: Checkpoint,
    ended_at_ms: u64,
    /// How much was free when it began, until that has been waited for long enough.
    pub(crate) begun_with: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Checkpoints {
    pub(crate) is_running: bool,
    /// Runs again before another one begins.
    pub(crate) unfinished: Option<Unfinished>,
    /// Begun behind an entry at which digests are compared: runs before another one begins.
    pub(crate) frozen: Option<Checkpoint>,
    /// How much was free when the one that runs began.
    pub(crate) begun_with: Option<u64>,
    /// Whether the next one is due at once: a follower needs it.
    pub(crate) is_wanted: bool,
    /// The members at the last one, and at the one that runs or is unfinished.
    pub(crate) members: Members,
    pub(crate) next_members: Members,
    /// When the last one was considered, by the monotonic clock.
    pub(crate) considered_at_ms: u64,
    /// The last entry that the B-tree on disk has: the next start needs the log behind it.
    pub(crate) covered: Index,
    /// When the view before the last one became old, by the monotonic clock; `None` when it is gone.
    pub(crate) kept_since_ms: Option<u64>,
}

impl Checkpoints {
    /// Of a replica that starts from the checkpoint at this entry.
    pub(crate) fn at(covered: Index, members: Members, now: Now) -> Self {
        Self {
            is_running: false,
            unfinished: None,
            frozen: None,
            begun_with: None,
            considered_at_ms: now.monotonic_ms,
            is_wanted: false,
            members: members.clone(),
            next_members: members,
            covered,
            kept_since_ms: None,
        }
    }
}

impl<T, O: Observer> Replica<T, O> {
    /// Starts a checkpoint when one is due or the memtable requests it.
    pub(crate) fn checkpoint_when_due(&mut self, now: Now, out: &mut Outbox<T>) {
        if let Some(unfinished) = &mut self.checkpoints.unfinished
            && now.monotonic_ms.saturating_sub(unfinished.ended_at_ms) >= MORE_ROOM_MS
        {
            unfinished.begun_with = None;
        }
        let since_ms = now
            .monotonic_ms
            .saturating_sub(self.checkpoints.considered_at_ms);
        let is_due = match &self.checkpoints.unfinished {
            Some(unfinished) => now.monotonic_ms.saturating_sub(unfinished.ended_at_ms) >= RETRY_MS,
            None => {
                since_ms >= self.options.checkpoint_interval_ms
                    || self.state.wants_checkpoint()
                    || self.checkpoints.is_wanted
                    || self.checkpoints.frozen.is_some()
            }
        };
        if !self.checkpoints.is_running && is_due && self.checkpoint_has_room() {
            self.start_checkpoint(now, out);
        }
    }

    pub(crate) fn start_checkpoint(&mut self, now: Now, out: &mut Outbox<T>) {
        self.checkpoints.considered_at_ms = now.monotonic_ms;
        let unfinished = self.checkpoints.unfinished.take();
        self.checkpoints.is_wanted = false;
        let checkpoint = match unfinished {
            Some(unfinished) => Some(unfinished.checkpoint),
            None => self.checkpoints.frozen.take().or_else(|| self.freeze()),
        };
        let Some(checkpoint) = checkpoint else {
            return;
        };
        self.checkpoints.begun_with = self.space.free();
        self.checkpoints.is_running = true;
        self.observer.checkpoint_started();
        let log = self.cluster.has_peers().then(|| self.reader.clone());
        out.jobs
            .push(Job::Checkpoint(CheckpointJob { checkpoint, log }));
    }

    pub(crate) fn freeze(&mut self) -> Option<Checkpoint> {
        // The next start needs the log behind it.
        assert!(
            self.state.applied().index <= self.log.durable(),
            "what is applied is durable on this node"
        );
        let frozen = self.state.freeze();
        if frozen.is_some() {
            self.checkpoints
                .next_members
                .clone_from(&self.cluster.members);
        }
        frozen
    }

    pub(crate) fn checkpointed(
        &mut self,
        result: Result<Checkpointed, CheckpointError>,
        now: Now,
        out: &mut Outbox<T>,
    ) -> Result<(), Failure> {
        self.checkpoints.is_running = false;
        let made = result.as_ref().ok();
        self.observer
            .checkpoint_ended(made.map(|made| &made.report));
        if let Err(CheckpointError::NoSpace { checkpoint, .. }) = result {
            tracing::warn!(
                position = %checkpoint.position(),
                "a checkpoint found no room on the disk; it is made when there is more"
            );
            self.checkpoints.unfinished = Some(Unfinished {
                checkpoint: *checkpoint,
                ended_at_ms: now.monotonic_ms,
                begun_with: self.checkpoints.begun_with,
            });
            return Ok(());
        }
        self.check_state()?;
        let Checkpointed { report, chain } = result?;
        self.note_digest(report.digest, chain);
        self.compare_digests()?;
        self.checkpoints.covered = self.state.checkpointed().index;
        self.checkpoints.kept_since_ms = Some(now.monotonic_ms);
        let next = self.checkpoints.next_members.clone();
        self.checkpoints.members = next;
        self.offer_snapshot();
        self.retain(now, out)
    }

    /// A failure of any read of the state is final: each later one would fail as well.
    pub(crate) fn check_state(&self) -> Result<(), Failure> {
        self.state.fault().map_or(Ok(()), |fault| Err(fault.into()))
    }

    /// What memory holds goes to the disk, where there is room; else the next start replays it.
    pub(crate) fn checkpoint_at_the_end(&mut self) -> Result<(), Failure> {
        if !self.checkpoint_has_room() {
            tracing::warn!("the last checkpoint was not made: there is no room on the disk for it");
            return Ok(());
        }
        let unfinished = self.checkpoints.unfinished.take().map(|u| u.checkpoint);
        let mut next = unfinished.or_else(|| self.checkpoints.frozen.take());
        while let Some(checkpoint) = next.take().or_else(|| self.freeze()) {
            match checkpoint.run() {
                Err(error @ CheckpointError::NoSpace { .. }) => {
                    tracing::warn!(%error, "the last checkpoint was not made");
                    return Ok(());
                }
                made => {
                    self.check_state()?;
                    made?;
                }
            }
        }
        Ok(())
    }

    /// Lets the view before the last checkpoint go once it is old enough and no snapshot uses it.
    pub(crate) fn release_old_view(&mut self, now: Now, out: &mut Outbox<T>) {
        let is_old = self.checkpoints.kept_since_ms.is_some_and(|since| {
            now.monotonic_ms.saturating_sub(since) >= self.options.snapshot_age_ms_max
        });
        // A checkpoint that runs puts a younger view in its place, perhaps right now.
        if !is_old || self.checkpoints.is_running {
            return;
        }
        if let Some(released) = self.state.release_old_view() {
            self.checkpoints.kept_since_ms = None;
            out.jobs.push(Job::Release(released));
        }
    }
}
