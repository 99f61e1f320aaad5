//! The state machine itself: events in, jobs and answers out.

use std::collections::VecDeque;
use std::sync::Arc;

use onelog_engine::{Applied, Effect, Engine};
use onelog_log::{FlushError, HardState, Log, LogReader};
use onelog_record::{Index, Position, Refusal};
use onelog_state::State;

use crate::catalog::Catalog;
use crate::checkpoints::Checkpoints;
use crate::cluster::Cluster;
use crate::digests::Digests;
use crate::events::{Event, Now, Request};
use crate::failure::Failure;
use crate::followers::Followers;
use crate::jobs::{Answer, Job, Outbox};
use crate::log_clock::LogClock;
use crate::observer::Observer;
use crate::options::{QUEUE_WAIT_MS_MAX, ReplicaOptions};
use crate::retention::Retention;
use crate::snapshots::Arrived;
use crate::space::Space;
use crate::start::Startup;
use crate::view::StateView;

/// How many requests are decided before completions are looked at again.
const REQUESTS_PER_TURN_MAX: usize = 512;
/// A turn in which the decisions took so many steps takes no further request: those that are
/// answered already are not kept waiting for others like it.
const STEPS_PER_TURN_MAX: u64 = onelog_commit::DECISION_STEPS_MAX as u64;
/// How long a client should wait while checkpoints catch up.
const RETRY_AFTER_MS: u64 = 250;

/// How long nothing is made ready ahead of time after that has failed.
const PREPARE_RETRY_MS: u64 = 5_000;

/// One replica of the log. `T` is the ticket by which a client is answered.
#[derive(Debug)]
pub struct Replica<T, O> {
    pub(crate) options: ReplicaOptions,
    pub(crate) observer: O,
    pub(crate) engine: Engine<T>,
    pub(crate) log: Log,
    pub(crate) reader: LogReader,
    pub(crate) state: State,
    pub(crate) hard_state: HardState,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) followers: Arc<Followers>,
    pub(crate) startup: Startup,
    /// What the engine wants done, as it answers.
    pub(crate) effects: Vec<Effect<T>>,
    /// What of it is not carried out. Empty between two calls, unless its first one waits.
    pub(crate) queue: VecDeque<Effect<T>>,
    pub(crate) cluster: Cluster<T>,
    /// A leader's snapshot that is to be installed.
    pub(crate) arrived: Option<Arrived>,
    /// The state that this turn's requests are decided on. Never older than what is applied.
    pub(crate) view: Option<StateView>,
    pub(crate) flushes_in_flight: usize,
    pub(crate) is_preparing: bool,
    /// No file is made ready before that time, by the monotonic clock: the last attempt failed.
    pub(crate) prepare_from_ms: u64,
    pub(crate) is_saving: bool,
    /// How many bytes were added to the log since the last save began, and when that was, by the
    /// monotonic clock.
    pub(crate) unsaved_bytes: u64,
    pub(crate) saved_at_ms: u64,
    /// How many bytes were added to the log in this turn.
    pub(crate) turn_bytes: u64,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) digests: Digests,
    pub(crate) retention: Retention,
    pub(crate) space: Space,
    pub(crate) log_clock: LogClock,
    pub(crate) taken: usize,
    /// The engine's steps when the turn began.
    pub(crate) turn_began_at_step: u64,
    pub(crate) ticked_at_ms: u64,
    pub(crate) is_stopping: bool,
}

impl<T, O: Observer> Replica<T, O> {
    /// Takes in what happened.
    ///
    /// # Errors
    /// Every failure is final: nothing further may be acknowledged. Stop, and take the tickets that
    /// wait by [`Replica::abandon`]. What `out` got before is still to be carried out.
    pub fn handle(
        &mut self,
        event: Event<T>,
        now: Now,
        out: &mut Outbox<T>,
    ) -> Result<(), Failure> {
        let is_job_end = event.is_job_end();
        self.take_in(event, now, out)?;
        if is_job_end && !self.queue.is_empty() {
            // What waits may have waited for this.
            self.carry_out(out)?;
        }
        Ok(())
    }

    fn take_in(&mut self, event: Event<T>, now: Now, out: &mut Outbox<T>) -> Result<(), Failure> {
        match event {
            Event::Submitted(request) => self.submit(*request, now, out),
            Event::ReadBarrier(ticket) => {
                self.engine.read_barrier(ticket, &mut self.effects)?;
                self.carry_out(out)
            }
            Event::ChangeMembers(ticket, changes) => self.change_members(ticket, &changes, out),
            Event::Transfer(ticket, to) => self.transfer(ticket, to, out),
            Event::Message(message) => self.message_came(*message, out),
            Event::Fetched { id, result } => {
                self.engine.fetched(id, &result?, &mut self.effects)?;
                self.carry_out(out)
            }
            Event::Snapshot(arrived) => self.snapshot_came(*arrived, out),
            Event::FromSource(brought) => self.hears_source(*brought, out),
            Event::SnapshotSent { to, is_whole } => {
                self.snapshot_sent(to, is_whole)?;
                self.carry_out(out)
            }
            Event::Digests { from, digests } => self.digests_came(from, digests),
            Event::Unreachable(node) => {
                self.engine.unreachable(node);
                Ok(())
            }
            // What stopped the log is reported by the job that met it, and says more.
            Event::Flushed {
                result: Err(FlushError::Stopped),
                ..
            } => Ok(()),
            Event::Flushed { number, result } => {
                result?;
                self.flushed(number, out)
            }
            Event::Checkpointed(result) => self.checkpointed(*result, now, out),
            Event::Prepared(result) => {
                self.is_preparing = false;
                if let Err(error) = result {
                    self.prepare_from_ms = now.monotonic_ms + PREPARE_RETRY_MS;
                    if error.is_no_space() {
                        self.space_ran_out();
                    }
                    // Not fatal: the flush that rolls makes the file, and meets the error there.
                    tracing::warn!(%error, "the next segment, or an index, could not be made ready ahead of time");
                }
                Ok(())
            }
            Event::FreeSpace(free) => {
                self.space_found(free);
                Ok(())
            }
            Event::Retained(result) => self.retained(result),
            Event::WatermarkSaved(result) => {
                self.is_saving = false;
                result.map_err(Failure::HardState)
            }
            Event::Idle => {
                self.save_watermark(now, out);
                self.retain(now, out)
            }
            Event::Stop => {
                self.is_stopping = true;
                Ok(())
            }
        }
    }

    /// Whether another request may be submitted in this turn: the open entry has room, the memtable
    /// is not full, and completions are not kept waiting.
    #[must_use]
    pub fn may_take(&self) -> bool {
        let steps = self.engine.steps() - self.turn_began_at_step;
        let is_full = self.engine.admits() && (self.engine.is_full() || self.state.is_full());
        // Where nothing is written, requests need not wait to hear it.
        self.taken < REQUESTS_PER_TURN_MAX
            && steps < STEPS_PER_TURN_MAX
            && (!is_full || self.space.is_read_only())
    }

    fn submit(
        &mut self,
        request: Request<T>,
        now: Now,
        out: &mut Outbox<T>,
    ) -> Result<(), Failure> {
        self.taken += 1;
        if !self.engine.admits() {
            let answer = Answer::Decided(request.submission.ticket, Err(Refusal::NotLeader));
            out.answers.push(answer);
            return Ok(());
        }
        let waited_ms = now.monotonic_ms.saturating_sub(request.queued_at_ms);
        if waited_ms > QUEUE_WAIT_MS_MAX {
            let refusal = Refusal::Overloaded {
                reason: "the request waited too long for the checkpoints to catch up".into(),
                retry_after_ms: RETRY_AFTER_MS,
            };
            let answer = Answer::Decided(request.submission.ticket, Err(refusal));
            out.answers.push(answer);
            return Ok(());
        }
        if let Some(refusal) = self.space_refusal(&request.submission) {
            let answer = Answer::Decided(request.submission.ticket, Err(refusal));
            out.answers.push(answer);
            return Ok(());
        }
        let view = self
            .view
            .get_or_insert_with(|| StateView(self.state.latest()));
        self.engine
            .submit(request.submission, view, &*self.catalog, &mut self.effects)?;
        if self.effects.is_empty() {
            return Ok(());
        }
        self.carry_out(out)
    }

    /// Ends a turn: all that has happened was reported. Decides what waited for a change of the
    /// catalog, seals what was decided when a flush may begin (the batch grows by itself while
    /// none may), applies a piece of what a leader has committed, and looks after checkpoints and
    /// segments. Answers whether another turn has something to do: anything was sealed, or there is more
    /// to apply, or requests that waited can be decided.
    ///
    /// # Errors
    /// As [`Replica::handle`].
    pub fn end_turn(&mut self, now: Now, out: &mut Outbox<T>) -> Result<bool, Failure> {
        self.check_state()?;
        self.taken = 0;
        self.observer.decided(self.engine.steps());
        if self.engine.has_held() {
            let view = self
                .view
                .get_or_insert_with(|| StateView(self.state.latest()));
            self.engine
                .resume(view, &*self.catalog, &mut self.effects)?;
            self.carry_out(out)?;
        }
        // A view that is held keeps memtables alive.
        self.view = None;
        self.turn_began_at_step = self.engine.steps();
        let is_sealed = self.seal(now, out)?;
        let has_more = self.commit(out)?;
        self.turn_bytes = 0;
        self.take_parked(out)?;
        self.tick(now, out)?;
        self.maintenance(now, out);
        Ok(is_sealed || has_more || self.engine.may_resume())
    }

    fn seal(&mut self, now: Now, out: &mut Outbox<T>) -> Result<bool, Failure> {
        let is_busy = self.flushes_in_flight >= self.options.flushes_in_flight;
        if !self.engine.has_open() || is_busy || !self.may_seal() {
            return Ok(false);
        }
        self.engine.seal(now.unix_ms, &mut self.effects)?;
        self.carry_out(out)?;
        // It stays open while the leadership is being handed on.
        Ok(!self.engine.has_open())
    }

    fn tick(&mut self, now: Now, out: &mut Outbox<T>) -> Result<(), Failure> {
        if now.monotonic_ms.saturating_sub(self.ticked_at_ms) < self.tick_interval_ms() {
            return Ok(());
        }
        self.ticked_at_ms = now.monotonic_ms;
        self.look_at_clock(now);
        self.release_old_view(now, out);
        self.engine.tick(&mut self.effects)?;
        self.carry_out(out)?;
        self.hand_on_when_full(now, out)?;
        self.note_peers();
        Ok(())
    }

    fn maintenance(&mut self, now: Now, out: &mut Outbox<T>) {
        self.judge_space();
        if self.waits_to_install() {
            return;
        }
        self.checkpoint_when_due(now, out);
        self.save_commit(now, out);
        if !self.is_preparing
            && now.monotonic_ms >= self.prepare_from_ms
            && self.may_prepare()
            && let Some(prepare) = self.log.prepare()
        {
            self.is_preparing = true;
            out.jobs.push(Job::Prepare(prepare));
        }
    }

    /// Whether everything that came before [`Event::Stop`] is decided and answered.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_stopping
            && self.flushes_in_flight == 0
            && self.queue.is_empty()
            && self.engine.waiting() == 0
            && !self.cluster.has_waiting()
            && !self.engine.has_open()
    }

    /// Whether a job runs whose end [`Replica::close`] must wait for: it writes files that closing
    /// touches.
    #[must_use]
    pub fn has_background_job(&self) -> bool {
        let is_at_log = self.is_preparing || self.retention.is_running || self.is_saving;
        self.checkpoints.is_running || is_at_log
    }

    /// A clean end, after [`Replica::is_drained`]: the state is checkpointed and the log marked as
    /// closed. Blocks.
    ///
    /// # Errors
    /// Nothing is lost by a failure: the next start recovers.
    pub fn close(&mut self) -> Result<(), Failure> {
        assert!(
            !self.has_background_job(),
            "the driver waits for the jobs before it closes"
        );
        self.checkpoint_at_the_end()?;
        self.save_clean_end()
    }

    /// Takes every ticket that waits, when the replica stops: what became of them is not known.
    pub fn abandon(&mut self) -> Vec<T> {
        let waiting = self.engine.abandon().into_iter();
        waiting.chain(self.cluster.abandon()).collect()
    }

    /// How far the log is applied to the state.
    #[must_use]
    pub fn applied(&self) -> Applied {
        let onelog_state::Applied {
            position,
            index,
            term,
            timestamp_ms,
        } = self.state.applied();
        Applied {
            position,
            index,
            term,
            timestamp_ms,
        }
    }

    /// Whether requests are decided: this node leads, and its term's first entry is applied.
    #[must_use]
    pub fn admits(&self) -> bool {
        self.engine.admits()
    }

    /// The tables at the applied position.
    #[must_use]
    pub const fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// A handle for readers of the state on any thread.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// Those that retention waits for.
    #[must_use]
    pub const fn followers(&self) -> &Arc<Followers> {
        &self.followers
    }

    /// The first entry that the log still has.
    #[must_use]
    pub fn first_index(&self) -> Index {
        self.log.first_index()
    }

    /// Everything up to here is durable on this replica.
    #[must_use]
    pub fn durable(&self) -> Index {
        self.log.durable()
    }

    /// The oldest position that the log still has.
    #[must_use]
    pub fn log_start(&self) -> Position {
        self.log.start()
    }

    #[must_use]
    pub const fn observer(&self) -> &O {
        &self.observer
    }
}
