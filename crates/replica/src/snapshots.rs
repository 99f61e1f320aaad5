//! The last checkpoint on its way to a follower that needs what the log no longer has, and one that
//! came from a leader, in place of state and log.
//!
//! ```text
//!  leader                                     follower
//!  Raft's message ─▶ Job::SendSnapshot  ···▶  Import, chunk by chunk (the drivers)
//!     the log is held from there on           Event::Snapshot ─▶ Effect::Install, once no job runs:
//!  Event::SnapshotSent ◀· · · · · · · ·         state, then log, then catalog, then the engine
//! ```
//!
//! A crash between state and log leaves a state that says where it was installed: the next opening
//! restarts the log there.

use std::sync::Arc;

use onelog_engine::{Members, Message, SnapshotMark};
use onelog_log::Place;
use onelog_record::NodeId;
use onelog_state::{Export, Head, Imported, ReadError, State};

use crate::effects::warn_of_cut;
use crate::failure::Failure;
use crate::jobs::{Job, Outbox};
use crate::observer::Observer;
use crate::planted::{self, Bug};
use crate::replica::Replica;
use crate::start::{load_catalog, remembered};

/// What is said where a log with entries that its leader may not have was replaced.
pub(crate) const REPLACED: &str =
    "a state of another node took the place of this log, which had other entries than that node";

/// A snapshot on its way to another node.
#[derive(Debug)]
pub struct SendSnapshot {
    message: Message,
    mark: SnapshotMark,
    /// The chain checksum of its last entry.
    checksum: u32,
    state: State,
}

/// What a [`SendSnapshot`] sends.
#[derive(Debug)]
pub struct PinnedSnapshot {
    /// The receiver's driver hands it to its replica once everything else is there.
    pub message: Message,
    /// What the receiver begins its import with.
    pub head: Head,
    /// The rest, chunk by chunk. It keeps the checkpoint for as long as it lives.
    pub export: Export,
}

impl SendSnapshot {
    /// The node that it is for.
    #[must_use]
    pub const fn to(&self) -> NodeId {
        self.message.to()
    }

    /// Pins the checkpoint; `None` when there is a later one by now, and nothing is to be sent. Blocks.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn pin(self) -> Result<Option<PinnedSnapshot>, ReadError> {
        let export = self.state.export()?;
        if export.applied().index != self.mark.index {
            return Ok(None);
        }
        Ok(Some(PinnedSnapshot {
            message: self.message,
            head: export.head(self.checksum),
            export,
        }))
    }
}

/// A snapshot that came whole, with the message that announces it.
#[derive(Debug)]
pub struct ArrivedSnapshot {
    pub message: Message,
    pub head: Head,
    pub imported: Imported,
}

/// What an installation puts in place.
#[derive(Debug)]
pub(crate) struct Arrived {
    place: Place,
    imported: Imported,
}

impl<T, O: Observer> Replica<T, O> {
    /// The last checkpoint as followers hear of it.
    fn mark(&self) -> SnapshotMark {
        let covered = self.state.checkpointed();
        SnapshotMark {
            index: covered.index,
            term: covered.term,
            end: covered.position,
            members: self.checkpoints.members.clone(),
        }
    }

    /// Followers may be sent the last checkpoint from now on.
    pub(crate) fn offer_snapshot(&mut self) {
        let mark = self.mark();
        if self.cluster.has_peers() && mark.index > onelog_record::Index::ZERO {
            self.engine.has_snapshot(mark);
        }
    }

    /// Raft wants a follower to get the snapshot that it knows of.
    pub(crate) fn send_snapshot(
        &mut self,
        message: Message,
        mark: SnapshotMark,
        out: &mut Outbox<T>,
    ) -> Result<(), Failure> {
        let to = message.to();
        if self.cluster.sending.contains_key(&to) {
            // That of an earlier leadership is still on its way: its end is the answer to this one too.
            return Ok(());
        }
        if !mark.members.all().contains(&to) {
            // It would take itself for no member, and refuse. The next checkpoint has it.
            self.checkpoints.is_wanted = true;
            return self.snapshot_sent(to, false);
        }
        let place = match mark == self.mark() {
            true => self.reader.place(mark.index)?,
            false => None,
        };
        let Some(place) = place else {
            self.offer_snapshot();
            return self.snapshot_sent(to, false);
        };
        self.cluster.sending.insert(to, mark.index);
        out.jobs.push(Job::SendSnapshot(Box::new(SendSnapshot {
            message,
            mark,
            checksum: place.checksum,
            state: self.state.clone(),
        })));
        Ok(())
    }

    /// A snapshot was sent whole, or not. Leads to no more than the next look at the engine does.
    pub(crate) fn snapshot_sent(&mut self, to: NodeId, is_whole: bool) -> Result<(), Failure> {
        self.cluster.sending.remove(&to);
        Ok(self.engine.snapshot_sent(to, is_whole, &mut self.effects)?)
    }

    /// A leader's snapshot is here.
    pub(crate) fn snapshot_came(
        &mut self,
        arrived: ArrivedSnapshot,
        out: &mut Outbox<T>,
    ) -> Result<(), Failure> {
        let ArrivedSnapshot {
            message,
            head,
            imported,
        } = arrived;
        let applied = imported.applied();
        let mark = message.snapshot();
        let is_announced = mark.is_some_and(|mark| {
            let members = head.members.clone().map(Members::decode);
            (mark.index, mark.term, mark.end) == (applied.index, applied.term, applied.position)
                && matches!(members, Some(Ok(members)) if members == mark.members)
        });
        if !is_announced {
            tracing::warn!(index = %applied.index, "a snapshot came that is not the one which was announced");
        }
        let is_old = applied.index <= self.state.applied().index;
        if !is_announced || is_old || self.arrived.is_some() || !self.has_replayed() {
            return Ok(());
        }
        self.arrived = Some(Arrived {
            place: Place {
                index: applied.index,
                term: applied.term,
                end: applied.position,
                checksum: head.checksum,
            },
            imported,
        });
        self.engine.step(message, &mut self.effects)?;
        self.carry_out(out)?;
        if !self.has_install_waiting() {
            // Installed already, or of no use to the engine.
            self.arrived = None;
        }
        Ok(())
    }

    /// Replaces state and log. Nothing else touches either. Blocks.
    #[expect(
        clippy::expect_used,
        reason = "the engine installs what `snapshot_came` has put there, one at a time"
    )]
    pub(crate) fn install(&mut self, mark: SnapshotMark) -> Result<(), Failure> {
        let Arrived { place, imported } = self.arrived.take().expect("it came with its message");
        self.view = None;
        let unfinished = self.checkpoints.unfinished.take().map(|u| u.checkpoint);
        let mut unfinished = unfinished.or_else(|| self.checkpoints.frozen.take());
        let opened = self.state.install(imported, &mut unfinished)?;
        if let Some(cut) = self.log.restart_behind(place)? {
            warn_of_cut(&cut, REPLACED);
        }
        tracing::info!(index = %mark.index, end = %mark.end, "took state and log of another node");
        if !planted::is(Bug::CatalogNotInstalled) {
            self.catalog = Arc::new(load_catalog(&self.state)?);
        }
        self.observer.catalog_changed(&self.catalog);
        self.checkpoints.covered = mark.index;
        self.checkpoints.kept_since_ms = None;
        self.checkpoints.members = mark.members.clone();
        self.observer.log_start_moved(self.log.start());
        self.observer.members_changed(mark.index, &mark.members);
        // Last: what waits for the position finds all of it.
        self.observer.installed(mark.index, mark.end);
        self.cluster.members = mark.members;
        let timestamp_ms = opened.applied.timestamp_ms;
        let ids = remembered(&opened);
        self.engine
            .installed(ids, timestamp_ms, &mut self.effects)?;
        self.offer_snapshot();
        Ok(())
    }
}
