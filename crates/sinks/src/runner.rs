//! The thread of one sink: connects to the store, reads its position, and feeds it the log.
//!
//! What it does next is decided by [`Lifecycle`](crate::lifecycle::Lifecycle) alone. Every session
//! begins with the position that the store holds. The thread never polls: it sleeps until the log
//! grows, a command comes or a delay is over.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use onelog::{LogBatch, Node, Position, ReadLogError};
use onelog_mapping::Plan;
use onelog_record::{
    Op, Record, TABLE_SINKS, TABLE_TABLES, TableDefinition, TableId, panic_message,
};
use onelog_store::{
    BATCH_BYTES_DEFAULT, Batch, LogPlace, Store, StoreError, StoreErrorCode, StorePosition,
    failpoint,
};
use tokio::sync::mpsc;

use crate::error::SinkFault;
use crate::feed::Feed;
use crate::history::History;
use crate::inbox::Inbox;
use crate::lifecycle::{Action, Event, Leave};
use crate::memory::{Held, Memory};
use crate::open::{first_epoch, open_store, plan_of};
use crate::pace::Pace;
use crate::parking::ParkedKeys;
use crate::permission::Permission;
use crate::progress::{Progress, SinkState};
use crate::request::{Command, RequestError};
use crate::retention::RetentionHold;
use crate::session_end::SessionEnd;
use crate::stored::StoredSink;

/// Delays between attempts: doubled from the first to the last, then a random part of it.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(30);
/// How long one wait lasts at most; then it begins again, and an idle store confirms its position.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often the definitions of the tables are looked at while batches are written; an idle sink does
/// so whenever it confirms its position.
const SHAPE_EVERY: Duration = Duration::from_secs(60);
/// How often a store that was put back is taken over until its epoch is above the one of the last
/// session. Beyond that only a step that this very sink has sent before could pass for a new one.
const EPOCHS_CAUGHT_UP_MAX: u32 = 16;
/// Waiting for this position ends by a command or the time.
const NEVER: Position = Position(u64::MAX);

pub(crate) struct Runner {
    feed: Feed,
    inbox: Inbox,
    pace: Pace,
    /// The epoch of the last session, of this thread.
    epoch: u64,
    permission: Permission,
    /// When the store's tables were last found to be as the plan defines them.
    shape_checked: Instant,
}

/// The log's id as stores keep it.
pub(crate) fn log_id(node: &Node) -> String {
    format!("{:032x}", node.log_id())
}

impl Runner {
    pub(crate) fn new(
        node: Node,
        sink: StoredSink,
        progress: Arc<Progress>,
        commands: mpsc::Receiver<Command>,
        retention: Arc<RetentionHold>,
        memory: Memory,
        leaving: Arc<AtomicBool>,
    ) -> std::io::Result<Self> {
        let StoredSink {
            definition,
            tables,
            former,
            ..
        } = sink;
        Ok(Self {
            inbox: Inbox::new(definition.paused, tables, Arc::clone(&progress), commands)?,
            pace: Pace::new(definition.batch_bytes_max.unwrap_or(BATCH_BYTES_DEFAULT)),
            feed: Feed {
                memory,
                log_id: log_id(&node),
                in_cluster: node.cluster().is_some(),
                node,
                definition,
                former,
                progress,
                retention,
                leaving,
                parked: ParkedKeys::default(),
            },
            epoch: 0,
            permission: Permission::default(),
            shape_checked: Instant::now(),
        })
    }

    pub(crate) fn run(mut self) {
        loop {
            match self.inbox.lifecycle.action() {
                Action::Leave(reason) => return self.leave(reason),
                Action::BackOff { attempt } => self.back_off(attempt),
                Action::AwaitCommand => {
                    self.feed.serve_detached(&mut self.inbox.requests);
                    self.inbox.wait(&self.feed.node, NEVER, WAIT_MAX);
                }
                Action::Connect
                | Action::Backfill { .. }
                | Action::Confirm(_)
                | Action::Follow(_)
                | Action::StandBy(_) => {
                    let shown = self.inbox.lifecycle.shown();
                    self.feed.progress.set_state(shown);
                    if let Err(end) = self.guarded_session() {
                        self.fail(end);
                    }
                }
            }
        }
    }

    fn fail(&mut self, end: SessionEnd) {
        let sink = &self.feed.definition.name;
        let (retryable, fault) = match end {
            SessionEnd::Retry(fault) => {
                tracing::warn!(sink, %fault, "a sink will try again");
                (true, fault)
            }
            // Another node took it over, perhaps one that only believed that the sink is its own.
            SessionEnd::Stop(fault)
                if fault.code == Some(StoreErrorCode::Fenced) && self.feed.is_in_cluster() =>
            {
                tracing::warn!(sink, %fault, "another node took a sink over; it will try again here");
                (true, fault)
            }
            SessionEnd::Stop(fault) => {
                tracing::error!(sink, %fault, "a sink has stopped");
                (false, fault)
            }
        };
        if fault.code == Some(StoreErrorCode::PositionMismatch) {
            // Waiters must not see what was reached before.
            self.feed.progress.set_position(None);
        }
        self.inbox.lifecycle.apply(Event::Failed { retryable });
        self.feed.progress.fail(self.inbox.lifecycle.shown(), fault);
    }

    /// A broken invariant must not leave a sink that looks alive.
    fn guarded_session(&mut self) -> Result<(), SessionEnd> {
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| self.session()));
        outcome.unwrap_or_else(|panic| {
            let message = panic_message(panic.as_ref());
            Err(SessionEnd::Stop(SinkFault::new(format!(
                "the sink's thread met a broken invariant, which is a fault of onelog: {}",
                message.unwrap_or("no message")
            ))))
        })
    }

    /// One connection to the store, until the next action needs none.
    fn session(&mut self) -> Result<(), SessionEnd> {
        if self.feed.is_in_cluster() && !self.may_take_over()? {
            return Ok(());
        }
        let plan = plan_of(&self.feed.node, &self.feed.definition)
            .map_err(|error| SessionEnd::Stop(SinkFault::new(error)))?;
        // Before the store is taken over, which would forget the position.
        self.inbox.tables.check(&plan).map_err(SessionEnd::Stop)?;
        let plan = Arc::new(plan);
        let mut store = open_store(&self.feed.definition, &plan, &self.feed.log_id)?;
        let store = store.as_mut();
        self.check_history(store)?;
        self.take_over(store)?;
        self.pace.begin();
        let at = self.read_position(store)?;
        let name = &self.feed.definition.name;
        self.feed.parked = ParkedKeys::load(&self.feed.node, name, &plan, at)?;
        self.feed.progress.set_parked(self.feed.parked.len());
        self.inbox.lifecycle.apply(Event::Connected(at));
        loop {
            self.inbox.receive();
            match self.inbox.lifecycle.action() {
                Action::Backfill { old } => self.backfill(&plan, store, old)?,
                Action::Confirm(at) => {
                    self.serve(&plan, store, Some(at))?;
                    self.confirm_position(store, at)?;
                }
                Action::Follow(at) => {
                    self.serve(&plan, store, Some(at))?;
                    if let Some(over) = self.feed.progress.run() {
                        let sink = &self.feed.definition.name;
                        tracing::info!(sink, fault = %over, "a sink follows again, this is over");
                    }
                    self.step(&plan, store, at)?;
                }
                Action::StandBy(at) => {
                    self.serve(&plan, store, at)?;
                    if let Some(at) = at {
                        self.publish(store, at)?;
                    }
                    self.feed.progress.set_state(SinkState::Paused);
                    self.inbox.wait(&self.feed.node, NEVER, WAIT_MAX);
                }
                Action::Connect
                | Action::BackOff { .. }
                | Action::AwaitCommand
                | Action::Leave(_) => return Ok(()),
            }
        }
    }

    fn take_over(&mut self, store: &mut dyn Store) -> Result<(), SessionEnd> {
        let Self {
            feed, permission, ..
        } = self;
        store.set_first_epoch(first_epoch(feed.node.position()));
        let from = permission.take(feed, store)?;
        let mut epoch = store.take_over_from(from)?;
        permission.use_up();
        for _ in 0..EPOCHS_CAUGHT_UP_MAX {
            if epoch > self.epoch {
                break;
            }
            epoch = store.take_over()?;
        }
        self.epoch = epoch;
        Ok(())
    }

    /// Before a store is taken over: whether this node is part of the cluster, and the sink is still
    /// the one that the log defines. A node that was cut off must not shut out the one that goes on.
    fn may_take_over(&mut self) -> Result<bool, SessionEnd> {
        let Self { feed, inbox, .. } = self;
        let Some(passed) = inbox.read_barrier(&feed.node) else {
            return Ok(false);
        };
        let retry = |what: String| SessionEnd::Retry(SinkFault::new(what));
        passed.map_err(|refusal| {
            retry(format!(
                "this node is not part of its cluster now: {refusal}"
            ))
        })?;
        let name = &feed.definition.name;
        let row = feed.node.snapshot().get(TABLE_SINKS, name.as_bytes());
        let row = row.map_err(|error| retry(error.to_string()))?;
        let definition = feed.definition.to_stored();
        let is_same = row.is_some_and(|row| is_of(&row.value, &definition));
        match is_same {
            true => Ok(true),
            false => Err(retry(
                "the definition was changed or deleted on another node".to_owned(),
            )),
        }
    }

    fn backfill(
        &mut self,
        plan: &Arc<Plan>,
        store: &mut dyn Store,
        old: Option<Position>,
    ) -> Result<(), SessionEnd> {
        let Self {
            feed, inbox, pace, ..
        } = self;
        feed.progress.set_state(inbox.lifecycle.shown());
        let may_delete = inbox.may_delete;
        let memory = feed.memory.clone();
        let backfilled = feed.backfill(plan, store, old, may_delete, &mut |bytes| {
            inbox.receive();
            while !inbox.lifecycle.is_leaving() {
                if let Some(held) = inbox.wait_for_memory(&memory, bytes) {
                    return Some(held);
                }
            }
            None
        })?;
        if let Some(at) = backfilled {
            pace.begin();
            inbox.may_delete = false;
            inbox.lifecycle.apply(Event::Backfilled(at));
        }
        Ok(())
    }

    fn serve(
        &mut self,
        plan: &Arc<Plan>,
        store: &mut dyn Store,
        at: Option<Position>,
    ) -> Result<(), SessionEnd> {
        let Self { feed, inbox, .. } = self;
        feed.repeat_replays(plan, store, at)?;
        let is_paused = inbox.lifecycle.is_paused();
        feed.serve(&mut inbox.requests, plan, store, at, is_paused)
    }

    /// A store that got to another history of this log, or beyond its end, is left as it is, also
    /// where the plan is another one: taking it over would forget how far it got.
    fn check_history(&mut self, store: &mut dyn Store) -> Result<(), SessionEnd> {
        let followed = store.followed()?;
        let followed = followed.filter(|found| found.log_id == self.feed.log_id);
        let Some(place) = followed.and_then(|found| found.place) else {
            return Ok(());
        };
        if self.inbox.lifecycle.is_rebuilding() {
            return Ok(());
        }
        let fault = self.history_of(place)?.fault(place.position);
        fault.map_or(Ok(()), |fault| {
            self.feed.progress.set_position(None);
            Err(SessionEnd::Stop(fault))
        })
    }

    /// The store's position. `None`: it has to be backfilled.
    fn read_position(&mut self, store: &mut dyn Store) -> Result<Option<Position>, SessionEnd> {
        let found = store.position()?;
        let place_of = |found: &StorePosition| LogPlace {
            position: found.position,
            chain: found.chain,
        };
        let history = found.as_ref().map(place_of).map(|at| self.history_of(at));
        let history = history.transpose()?;
        // A position that means nothing in this log must not be taken for one that was reached.
        let ours = found.as_ref().filter(|_| history == Some(History::Ours));
        self.feed
            .progress
            .set_position(ours.map(|found| found.position));
        let (Some(found), Some(history)) = (found, history) else {
            return Ok(None);
        };
        if self.inbox.lifecycle.is_rebuilding() {
            return Ok(None);
        }
        let position = found.position;
        if let Some(fault) = history.fault(position) {
            return Err(SessionEnd::Stop(fault));
        }
        if history == History::Cut {
            return Ok(None);
        }
        self.check_shape(store)?;
        self.feed.retention.advance(position);
        Ok(Some(position))
    }

    /// Whether a place of the store is one of this log as it is now.
    fn history_of(&mut self, found: LogPlace) -> Result<History, SessionEnd> {
        if self.feed.is_in_cluster() && found.position > self.feed.node.position() {
            // Another node had more of the log when it wrote there.
            let passed = self.inbox.read_barrier(&self.feed.node);
            if let Some(Err(refusal)) = passed {
                return Err(SessionEnd::Retry(SinkFault::new(refusal)));
            }
        }
        let node = &self.feed.node;
        let end = node.position();
        if found.position > end {
            return Ok(History::Ahead { end });
        }
        if found.position < node.log_start() {
            return Ok(History::Cut);
        }
        let here = self.feed.place(found.position)?.chain;
        Ok(match (found.chain, here) {
            (Some(there), Some(here)) if there != here => History::Other { there, here },
            // A store that an earlier version wrote has no checksum until its next batch.
            (None, _) | (Some(_), Some(_)) => History::Ours,
            // What cannot be compared is not known to be of this log.
            (Some(_), None) => History::Cut,
        })
    }

    /// While nothing is written the store is not read either, so it could be restored or vanish
    /// unnoticed.
    fn confirm_position(&mut self, store: &mut dyn Store, at: Position) -> Result<(), SessionEnd> {
        let found = store.position()?;
        let here = self.feed.place(at)?.chain;
        let is_there = |found: &StorePosition| {
            let is_same = here.is_none() || found.chain.is_none() || found.chain == here;
            found.position == at && is_same
        };
        if found.as_ref().is_some_and(is_there) {
            self.check_shape(store)?;
            self.inbox.lifecycle.apply(Event::Confirmed);
            return Ok(());
        }
        Err(StoreError::PositionMismatch {
            expected: Some(at),
            found,
        }
        .into())
    }

    fn check_shape(&mut self, store: &mut dyn Store) -> Result<(), SessionEnd> {
        store.check_shape()?;
        self.shape_checked = Instant::now();
        Ok(())
    }

    /// One batch, or one wait for something to do.
    fn step(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        from: Position,
    ) -> Result<(), SessionEnd> {
        if self.shape_checked.elapsed() >= SHAPE_EVERY {
            self.check_shape(store)?;
        }
        // Held until the batch is in the store.
        let (held, read) = match self.read(plan, from) {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(()),
            Err(ReadLogError::Cut { .. }) => {
                self.inbox.lifecycle.apply(Event::LogCut);
                return Ok(());
            }
            Err(error @ ReadLogError::InFuture { .. }) => {
                return Err(SessionEnd::Stop(SinkFault::new(error)));
            }
            Err(error) => return Err(SessionEnd::Retry(SinkFault::new(error))),
        };
        if read.next <= from {
            drop(held);
            self.publish(store, from)?;
            let next = Position(from.get() + 1);
            if self.inbox.wait(&self.feed.node, next, WAIT_MAX) {
                self.inbox.lifecycle.apply(Event::Idle);
            }
            return Ok(());
        }
        let (mut batch, to, dropped) = batch_of(plan, from, &read);
        self.feed.parked.leave_out(&mut batch);
        if self.feed.parks() {
            let Some(rejected) = batch.seal_accepted(plan, to, &self.feed.leaving) else {
                return Ok(());
            };
            self.feed.park(plan, &rejected)?;
        } else if !batch.seal(plan, to, &self.feed.leaving)? {
            return Ok(());
        }
        if to > from {
            self.apply(plan, store, &mut batch)?;
        }
        match dropped {
            None => Ok(()),
            Some(name) => Err(SessionEnd::Stop(SinkFault::new(format!(
                "the table '{name}' was deleted from the log at position {to}; delete this sink, or make a new one without that table"
            )))),
        }
    }

    /// Reads what concerns the sink from a position on, as soon as there is memory for it. `None`: a
    /// command came.
    fn read(
        &mut self,
        plan: &Plan,
        from: Position,
    ) -> Result<Option<(Option<Held>, LogBatch)>, ReadLogError> {
        let Self { feed, inbox, .. } = self;
        // A followed table that is deleted is a record of the other.
        let tables: Vec<TableId> = plan.tables().chain([TABLE_TABLES]).collect();
        if from >= feed.node.position() {
            let packed = feed.node.read_packed_log(from, 1)?;
            if packed.unpacked_bytes() == 0 {
                return Ok(Some((None, packed.unpack()?)));
            }
        }
        let batch_bytes = self.pace.batch_bytes();
        let mut wanted = batch_bytes;
        loop {
            let Some(mut held) = inbox.wait_for_memory(&feed.memory, wanted) else {
                return Ok(None);
            };
            let packed = feed.node.read_packed_log_of(&tables, from, batch_bytes)?;
            let bytes = packed.unpacked_bytes();
            if held.covers(bytes) {
                held.shrink_to(bytes);
                return Ok(Some((Some(held), packed.unpack()?)));
            }
            // One entry that is larger than a batch. What is held is given back first, else two
            // could wait for each other.
            wanted = bytes;
        }
    }

    /// Makes what was applied up to `to` visible, and reports it to those who wait for it.
    fn publish(&mut self, store: &mut dyn Store, to: Position) -> Result<(), SessionEnd> {
        if let Some(from) = self.pace.unpublished() {
            let begun = Instant::now();
            store.publish()?;
            self.pace.published(begun.elapsed());
            self.feed.progress.applied(from, to);
        }
        Ok(())
    }

    fn apply(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        batch: &mut Batch,
    ) -> Result<(), SessionEnd> {
        let feed = &mut self.feed;
        failpoint::hit(&feed.definition.name, "before_apply");
        let begun = Instant::now();
        feed.apply_accepted(plan, store, batch)
            .map_err(RequestError::into_session_end)?;
        let took = begun.elapsed();
        failpoint::hit(&feed.definition.name, "after_commit");
        feed.retention.advance(batch.to);
        self.pace.applied(batch.from);
        let more = batch.to < feed.node.position();
        if !store.publishes() || !more || self.pace.is_publishing_due() {
            self.publish(store, batch.to)?;
        }
        self.inbox.lifecycle.apply(Event::Applied(batch.to));
        self.pace.adapt(took, &store.batch_time(), more);
        Ok(())
    }

    fn back_off(&mut self, attempt: u32) {
        let delay = RETRY_FIRST
            .saturating_mul(1 << attempt.min(16))
            .min(RETRY_LAST)
            .mul_f64(rand::random_range(0.5..1.0));
        let until = Instant::now() + delay;
        while matches!(self.inbox.lifecycle.action(), Action::BackOff { .. }) {
            self.feed.serve_detached(&mut self.inbox.requests);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.inbox.lifecycle.apply(Event::DelayOver);
            }
            self.inbox.wait(&self.feed.node, NEVER, left);
        }
    }

    fn leave(self, reason: Leave) {
        if reason != Leave::HandOver {
            self.feed.progress.set_state(SinkState::Stopped);
        }
    }
}

/// Whether a record of `onelog.sinks` has this definition; it has more than that.
fn is_of(record: &[u8], definition: &serde_json::Value) -> bool {
    let record: Option<serde_json::Value> = serde_json::from_slice(record).ok();
    let (Some(record), Some(fields)) = (record, definition.as_object()) else {
        return false;
    };
    // Pausing does not change what the sink is.
    let mut lasting = fields.iter().filter(|(name, _)| *name != "paused");
    lasting.all(|(name, value)| record.get(name) == Some(value))
}

/// The changes of what was read, up to which position they go, and the name of a followed table that
/// is deleted right there.
fn batch_of(plan: &Plan, from: Position, read: &LogBatch) -> (Batch, Position, Option<String>) {
    let mut batch = Batch::new(plan, from);
    for transaction in &read.transactions {
        let mut records = transaction.records.iter();
        if let Some(name) = records.find_map(|r| dropped_table(plan, r)) {
            let to = Position(transaction.first_offset.get()).max(from);
            return (batch, to, Some(name));
        }
        batch.begin_transaction(transaction.first_offset);
        for record in transaction.records.iter().filter(|r| !from.sees(r.offset)) {
            batch.push(plan, record);
        }
        batch.chain = Some(transaction.chain);
    }
    batch.chain = read.chain.or(batch.chain);
    (batch, read.next, None)
}

/// The name of a followed table that this record deletes.
fn dropped_table(plan: &Plan, record: &Record) -> Option<String> {
    if record.table != TABLE_TABLES || record.op != Op::Put || record.key.first() != Some(&b'#') {
        return None;
    }
    let definition: TableDefinition = serde_json::from_slice(record.value.as_ref()?).ok()?;
    let followed = plan.of_table(TableId(definition.id.get()));
    (definition.dropped && !followed.is_empty()).then_some(definition.name)
}
