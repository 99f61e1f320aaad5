//! The engine's thread: takes requests and completions in, carries effects out.
//!
//! Only this thread touches the engine and writes the log and the memtable. Flushes run on the
//! pool's threads, checkpoints and the making of segments on two workers; all of them report back
//! through one channel. Whatever fails here is final: the node stops acknowledging, says why, and
//! every waiting request is answered `Stopped`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, never, select};
use onelog_engine::{Effect, Engine, Submission};
use onelog_log::{FlushError, FlushPool, HardState, Log, PrepareError};
use onelog_record::{Entry, EntryKind, Index, Op, Refusal, TABLE_TABLES, Transactions};
use onelog_state::{CheckpointError, CheckpointReport};

use crate::catalog::Catalog;
use crate::failure::Failure;
use crate::retention::Retention;
use crate::shared::Shared;
use crate::ticket::Answer;
use crate::view::StateView;
use crate::worker::Worker;

/// How many requests are decided before completions are looked at again.
const DRAIN_REQUESTS_MAX: usize = 512;
/// How often the thread looks around when nothing happens.
const IDLE_INTERVAL: Duration = Duration::from_millis(200);
/// What a refused client is told to wait while checkpoints catch up.
const RETRY_AFTER_MS: u64 = 250;

/// A request in the queue.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) submission: Submission<Reply>,
    pub(crate) queued_at: Instant,
    pub(crate) bytes: usize,
}

/// What decisions rest on: the state and the tables at one position.
struct Basis {
    view: StateView,
    catalog: Arc<Catalog>,
}

/// Who is answered.
pub(crate) type Reply = tokio::sync::oneshot::Sender<Answer>;

#[derive(Debug)]
pub(crate) enum Command {
    Submit(Box<Queued>),
    Stop,
}

/// What another thread has finished.
#[derive(Debug)]
pub(crate) enum Completion {
    Flushed(u64, Result<(), FlushError>, Duration),
    Checkpointed(Box<Result<CheckpointReport, CheckpointError>>),
    Prepared(Result<(), PrepareError>),
}

#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Engine<Reply>,
    pub(crate) log: Log,
    pub(crate) hard_state: HardState,
    pub(crate) pool: FlushPool,
    pub(crate) commands: Receiver<Command>,
    pub(crate) completed: Receiver<Completion>,
    pub(crate) complete: Sender<Completion>,
    pub(crate) checkpointer: Worker,
    pub(crate) preparer: Worker,
    pub(crate) effects: Vec<Effect<Reply>>,
    pub(crate) in_flight: usize,
    pub(crate) checkpointing: bool,
    pub(crate) preparing: bool,
    pub(crate) last_checkpoint: Instant,
    pub(crate) checkpointed: Index,
    pub(crate) retention: Retention,
    pub(crate) stopping: bool,
}

impl Shell {
    /// Runs until the node stops; the log is closed cleanly when nothing failed.
    pub(crate) fn run(mut self) {
        let result = self.serve().and_then(|()| self.close());
        if let Err(failure) = &result {
            tracing::error!(%failure, "the node stops");
            self.shared.fail(failure);
        }
        self.shared.advance.stop();
        let reason = self.shared.stop_reason();
        for reply in self.engine.abandon() {
            let _ = reply.send(Err(Refusal::Stopped(reason.clone())));
        }
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Submit(queued) = command {
                let _ = queued
                    .submission
                    .ticket
                    .send(Err(Refusal::Stopped(reason.clone())));
            }
        }
    }

    fn serve(&mut self) -> Result<(), Failure> {
        loop {
            while let Ok(completion) = self.completed.try_recv() {
                self.completed(completion)?;
            }
            let worked = self.take_requests()?;
            let sealed = self.seal()?;
            self.keep_house()?;
            if worked || sealed {
                continue;
            }
            if self.stopping && self.is_quiet() {
                return Ok(());
            }
            self.wait()?;
        }
    }

    fn is_quiet(&self) -> bool {
        self.in_flight == 0
            && self.engine.waiting() == 0
            && !self.engine.has_open()
            && self.commands.is_empty()
    }

    /// Whether requests may be taken: the open entry has room and the memtable is not full.
    fn may_take(&self) -> bool {
        !self.engine.is_full() && !self.shared.state.is_full()
    }

    /// What decisions rest on. Taken anew after entries have been applied, which never happens
    /// while requests are being decided.
    fn basis(&self) -> Basis {
        Basis {
            view: StateView(self.shared.state.latest()),
            catalog: self.shared.catalog(),
        }
    }

    fn take_requests(&mut self) -> Result<bool, Failure> {
        if !self.engine.has_held() && self.commands.is_empty() {
            return Ok(false);
        }
        let basis = self.basis();
        if self.engine.has_held() {
            self.engine
                .resume(&basis.view, &*basis.catalog, &mut self.effects)?;
            self.carry_out()?;
        }
        let mut taken = 0;
        while taken < DRAIN_REQUESTS_MAX && self.may_take() {
            let Ok(command) = self.commands.try_recv() else {
                break;
            };
            self.command(command, &basis)?;
            taken += 1;
        }
        Ok(taken > 0)
    }

    fn command(&mut self, command: Command, basis: &Basis) -> Result<(), Failure> {
        let queued = match command {
            Command::Stop => {
                self.stopping = true;
                return Ok(());
            }
            Command::Submit(queued) => *queued,
        };
        self.shared
            .queued_bytes
            .fetch_sub(queued.bytes, Ordering::Relaxed);
        let waited_ms = queued.queued_at.elapsed().as_millis();
        if waited_ms > u128::from(crate::options::QUEUE_WAIT_MS_MAX) {
            let refusal = Refusal::Overloaded {
                reason: "the request waited too long for the checkpoints to catch up",
                retry_after_ms: RETRY_AFTER_MS,
            };
            self.shared.reply(queued.submission.ticket, Err(refusal));
            return Ok(());
        }
        self.engine.submit(
            queued.submission,
            &basis.view,
            &*basis.catalog,
            &mut self.effects,
        )?;
        if self.effects.is_empty() {
            return Ok(());
        }
        self.carry_out()
    }

    /// Seals the open entry when a flush slot is free: the batch grows by itself while none is.
    fn seal(&mut self) -> Result<bool, Failure> {
        if !self.engine.has_open() || self.in_flight >= self.shared.options.flushes_in_flight {
            return Ok(false);
        }
        self.engine.seal(now_ms(), &mut self.effects)?;
        self.carry_out()?;
        Ok(true)
    }

    fn completed(&mut self, completion: Completion) -> Result<(), Failure> {
        match completion {
            Completion::Flushed(number, result, duration) => {
                result?;
                self.in_flight -= 1;
                self.shared
                    .metrics
                    .flush_seconds
                    .observe(duration.as_secs_f64());
                let durable = self.log.flushed(number);
                self.engine.stored(durable, &mut self.effects)?;
                self.carry_out()
            }
            Completion::Checkpointed(result) => {
                self.checkpointing = false;
                self.shared
                    .checkpoint_running
                    .store(false, Ordering::Relaxed);
                let report = (*result)?;
                self.shared.metrics.checkpoint(report.duration);
                self.checkpointed = self.shared.state.checkpointed().index;
                self.retain()
            }
            Completion::Prepared(result) => {
                self.preparing = false;
                if let Err(error) = result {
                    // Not fatal: rolling makes the file inline and meets the error there.
                    tracing::warn!(%error, "the next segment could not be made ready ahead of time");
                }
                Ok(())
            }
        }
    }

    /// Carries out effects in order. Applying moves the position before any reply is told.
    pub(crate) fn carry_out(&mut self) -> Result<(), Failure> {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::SaveVote(term, vote) => {
                    self.hard_state.term = term;
                    self.hard_state.vote = vote;
                    self.save_hard_state()?;
                }
                Effect::Append(entries) => self.append(&entries)?,
                Effect::Apply(entry, raw) => self.apply(&entry, &raw)?,
                Effect::Reply(reply, answer) => self.shared.reply(reply, answer),
                // The node asks for no barriers: the only voter's own position is one.
                Effect::Readable(..) => {}
            }
        }
        self.effects = effects;
        Ok(())
    }

    /// Applies replayed entries all at once; nobody reads yet.
    pub(crate) fn carry_out_replay(&mut self) -> Result<(), Failure> {
        let mut entries = Vec::new();
        for effect in std::mem::take(&mut self.effects) {
            if let Effect::Apply(entry, raw) = effect {
                if self.engine.may_define(&entry) {
                    self.apply_definitions(&entry, &raw)?;
                }
                entries.push((entry, raw));
            }
        }
        self.shared.state.apply_all(&entries)?;
        if let Some((last, _)) = entries.last() {
            self.shared
                .applied_index
                .store(last.index.get(), Ordering::Release);
            self.shared.advance.set(last.header.end());
        }
        Ok(())
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), Failure> {
        for entry in entries {
            let metrics = &self.shared.metrics;
            metrics.log_bytes.inc_by(entry.body.len() as u64);
            if entry.header.kind == EntryKind::Transactions {
                metrics
                    .group_transactions
                    .observe(f64::from(entry.header.transaction_count));
                metrics.group_bytes.observe(entry.body.len() as f64);
            }
        }
        for flush in self.log.stage(entries)? {
            self.in_flight += 1;
            self.pool.push(flush);
        }
        Ok(())
    }

    fn apply(&mut self, entry: &Entry, raw: &bytes::Bytes) -> Result<(), Failure> {
        // The catalog leads: whoever sees a row can name its table.
        if self.engine.may_define(entry) {
            self.apply_definitions(entry, raw)?;
        }
        self.shared.state.apply_raw(entry, raw)?;
        if entry.header.kind == EntryKind::Transactions {
            let metrics = &self.shared.metrics;
            metrics
                .commits
                .inc_by(u64::from(entry.header.transaction_count));
            metrics.records.inc_by(u64::from(entry.header.record_count));
        }
        self.shared
            .applied_index
            .store(entry.index.get(), Ordering::Release);
        self.shared.advance.set(entry.header.end());
        Ok(())
    }

    fn apply_definitions(&mut self, entry: &Entry, raw: &bytes::Bytes) -> Result<(), Failure> {
        let mut changed = None;
        for transaction in Transactions::new(raw.clone(), entry.header.base_offset) {
            for record in transaction?.records() {
                let record = record?;
                if record.table != TABLE_TABLES || record.op == Op::Event {
                    continue;
                }
                let catalog = changed.get_or_insert_with(|| (*self.shared.catalog()).clone());
                if let Some(table) = catalog.apply(&record)? {
                    self.shared.state.drop_table(table);
                }
            }
        }
        if let Some(catalog) = changed {
            *self.shared.catalog.write() = Arc::new(catalog);
        }
        Ok(())
    }

    fn keep_house(&mut self) -> Result<(), Failure> {
        let due = self.last_checkpoint.elapsed().as_millis()
            >= u128::from(self.shared.options.checkpoint_interval_ms);
        if !self.checkpointing && (due || self.shared.state.wants_checkpoint()) {
            self.start_checkpoint();
        }
        if !self.preparing
            && let Some(prepare) = self.log.prepare()
        {
            let complete = self.complete.clone();
            self.preparing = self.preparer.push(move || {
                let _ = complete.send(Completion::Prepared(prepare.run()));
            });
        }
        Ok(())
    }

    fn start_checkpoint(&mut self) {
        self.last_checkpoint = Instant::now();
        let Some(checkpoint) = self.shared.state.freeze() else {
            return;
        };
        let complete = self.complete.clone();
        self.checkpointing = self.checkpointer.push(move || {
            let _ = complete.send(Completion::Checkpointed(Box::new(checkpoint.run())));
        });
        self.shared
            .checkpoint_running
            .store(true, Ordering::Relaxed);
        assert!(
            self.checkpointing,
            "one checkpoint at a time always fits the worker's queue"
        );
    }

    /// While replaying: checkpoints keep the memtable within its bound.
    pub(crate) fn make_room(&mut self) -> Result<(), Failure> {
        while let Ok(completion) = self.completed.try_recv() {
            self.completed(completion)?;
        }
        if !self.checkpointing && self.shared.state.wants_checkpoint() {
            self.start_checkpoint();
        }
        while self.shared.state.is_full() && self.checkpointing {
            self.wait_for_completion()?;
        }
        Ok(())
    }

    pub(crate) fn wait_for_completion(&mut self) -> Result<(), Failure> {
        let completion = self
            .completed
            .recv()
            .map_err(|_| Failure::Thread("completion"))?;
        self.completed(completion)
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let idle = never();
        let commands = if self.may_take() {
            &self.commands
        } else {
            &idle
        };
        select! {
            recv(self.completed) -> completion => match completion {
                Ok(completion) => self.completed(completion),
                Err(_) => Err(Failure::Thread("flush")),
            },
            recv(commands) -> command => match command {
                Ok(command) => {
                    let basis = self.basis();
                    self.command(command, &basis)
                }
                Err(_) => { self.stopping = true; Ok(()) }
            },
            default(IDLE_INTERVAL) => self.idle(),
        }
    }

    /// Nothing happened for a while: remember how far the log is durable, so that damage to its
    /// last frames can never pass for a torn tail.
    fn idle(&mut self) -> Result<(), Failure> {
        self.shared.state.release_old_views();
        if self.in_flight == 0 && self.hard_state.durable < self.log.durable() {
            self.save_hard_state()?;
        }
        self.shared.metrics.queue.set(self.commands.len() as i64);
        self.retain()
    }

    fn save_hard_state(&mut self) -> Result<(), Failure> {
        self.hard_state.durable = self.log.durable();
        self.hard_state.commit = self.engine.applied().index;
        self.log
            .save_hard_state(&self.hard_state)
            .map_err(Failure::HardState)
    }

    /// A clean end: the state is checkpointed and the log marked as closed.
    fn close(&mut self) -> Result<(), Failure> {
        // Both write files that closing touches.
        while self.checkpointing || self.preparing {
            self.wait_for_completion()?;
        }
        if let Some(checkpoint) = self.shared.state.freeze() {
            checkpoint.run()?;
        }
        self.hard_state.commit = self.engine.applied().index;
        Ok(self.log.close(&self.hard_state)?)
    }
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
