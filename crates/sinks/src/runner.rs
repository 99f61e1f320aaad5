//! The thread of one sink: connects to the store, asks it where it stands, and feeds it the log.
//!
//! Nothing is remembered across connections but the wish to follow: every session begins with the
//! position that the store holds. The thread never polls: it sleeps until the log grows, a command
//! comes or a delay is over.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use onelog::{Node, Position, ReadLogError, WaitError};
use onelog_record::{Op, Record, TABLE_TABLES, TableDefinition, TableId};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::error::{SinkError, SinkFault};
use crate::open::{open_store, plan_of};
use crate::parking::{self, ParkedKeys};
use crate::progress::{Progress, SinkState};
use crate::request::{Command, Failed, Pending};
use crate::retention::RetentionHold;
use crate::session_end::SessionEnd;
use onelog_mapping::Plan;
use onelog_store::{Batch, OnRefused, RejectedRow, SinkDefinition, Store, StoreError, failpoint};

/// The least and the most log that is read for one batch, in stored bytes.
const BATCH_BYTES_MIN: usize = 64 << 10;
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How long what was applied may stay unseen while the sink is behind, in stores where showing it
/// costs: as long as showing it took so many times, between the two bounds.
const PUBLISH_SHARE: u32 = 20;
const PUBLISH_MIN: Duration = Duration::from_secs(1);
const PUBLISH_MAX: Duration = Duration::from_secs(5);
/// Delays between attempts: doubled from the first to the last, then a random part of it.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(30);
/// How long one wait lasts at most; then it begins again, and an idle store is asked where it stands.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The state of the thread.
pub(crate) struct Runner {
    pub(crate) node: Node,
    pub(crate) definition: SinkDefinition,
    pub(crate) log_id: String,
    pub(crate) progress: Arc<Progress>,
    pub(crate) retention: Arc<RetentionHold>,
    /// What is parked; read anew from the log in each session.
    pub(crate) parked: ParkedKeys,
    /// What is asked and waits for its turn.
    pub(crate) pending: Vec<Pending>,
    commands: mpsc::Receiver<Command>,
    runtime: Runtime,
    pub(crate) paused: bool,
    rebuild: bool,
    /// A command that ends standing still came.
    woken: bool,
    /// The store is to be asked whether it still stands where it was left.
    check_position: bool,
    exit: bool,
    remove: bool,
    leaves: bool,
    batch_bytes: usize,
    failures: u32,
    /// Where what was applied and not shown yet begins.
    unpublished: Option<Position>,
    published_at: Instant,
    /// When the next showing is due.
    publish_after: Duration,
}

/// Why a wait ended.
enum Woken {
    Command(Option<Command>),
    Reached,
    TimedOut,
    NodeStopped,
}

/// The log's id as stores keep it.
pub(crate) fn log_id(node: &Node) -> String {
    format!("{:032x}", node.log_id())
}

impl Runner {
    pub(crate) fn new(
        node: Node,
        definition: SinkDefinition,
        progress: Arc<Progress>,
        commands: mpsc::Receiver<Command>,
        retention: Arc<RetentionHold>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            log_id: log_id(&node),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()?,
            paused: definition.paused,
            node,
            definition,
            progress,
            retention,
            parked: ParkedKeys::default(),
            pending: Vec::new(),
            commands,
            rebuild: false,
            woken: false,
            check_position: false,
            exit: false,
            remove: false,
            leaves: false,
            batch_bytes: BATCH_BYTES_MIN,
            failures: 0,
            unpublished: None,
            published_at: Instant::now(),
            publish_after: PUBLISH_MIN,
        })
    }

    /// The thread.
    pub(crate) fn run(mut self) {
        while !self.exit {
            self.progress.set_state(SinkState::Starting);
            match self.guarded_session() {
                SessionEnd::Exit => self.exit = true,
                SessionEnd::Retry(fault) => {
                    tracing::warn!(sink = self.definition.name, %fault, "a sink will try again");
                    self.progress.fail(SinkState::Waiting, fault);
                    self.back_off();
                }
                SessionEnd::Stop(fault) => {
                    tracing::error!(sink = self.definition.name, %fault, "a sink has stopped");
                    self.progress.fail(SinkState::Stopped, fault);
                    self.stand_still();
                }
            }
        }
        if self.remove {
            self.remove_from_store();
        }
        if !self.leaves {
            self.progress.set_state(SinkState::Stopped);
        }
    }

    /// A broken invariant must not leave a sink that looks alive.
    fn guarded_session(&mut self) -> SessionEnd {
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| self.session()));
        match outcome {
            Ok(Err(end)) => end,
            Err(panic) => {
                let words = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied());
                SessionEnd::Stop(SinkFault::new(format!(
                    "the sink's thread met a broken invariant, which is a fault of onelog: {}",
                    words.unwrap_or("no words")
                )))
            }
        }
    }

    fn session(&mut self) -> Result<Infallible, SessionEnd> {
        let plan = plan_of(&self.node, &self.definition)
            .map_err(|error| SessionEnd::Stop(SinkFault::new(error)))?;
        let plan = Arc::new(plan);
        let mut store = open_store(&self.definition, &plan, &self.log_id)?;
        store.take_over()?;
        self.unpublished = None;
        let mut at = self.read_position(store.as_mut())?;
        self.parked = ParkedKeys::load(&self.node, &self.definition.name, &plan, at)?;
        self.progress.set_parked(self.parked.len());
        loop {
            self.receive();
            if self.exit {
                return Err(SessionEnd::Exit);
            }
            if self.rebuild || (at.is_none() && !self.paused) {
                at = Some(self.backfill(&plan, store.as_mut(), at)?);
                self.unpublished = None;
                self.rebuild = false;
                self.failures = 0;
                continue;
            }
            self.repeat_replays(&plan, store.as_mut(), at)?;
            self.serve(&plan, store.as_mut(), at)?;
            match at {
                Some(position) if !self.paused => {
                    self.check_position(store.as_mut(), position)?;
                    self.progress.set_state(SinkState::Running);
                    at = self.step(&plan, store.as_mut(), position)?;
                }
                _ => {
                    if let Some(position) = at {
                        self.publish(store.as_mut(), position)?;
                    }
                    self.progress.set_state(SinkState::Paused);
                    let woken = self.wait(Position(u64::MAX), WAIT_MAX);
                    self.react(woken)?;
                }
            }
        }
    }

    /// Asks the store. `None`: it has to be filled.
    fn read_position(&mut self, store: &mut dyn Store) -> Result<Option<Position>, SessionEnd> {
        let found = store.position()?;
        let latest = self.node.position();
        // A position that means nothing in this log must not be taken for one that was reached.
        let ours = found
            .as_ref()
            .filter(|found| found.log_id == self.log_id && found.position <= latest);
        self.progress.set_position(ours.map(|found| found.position));
        let Some(found) = found else {
            return Ok(None);
        };
        if self.rebuild {
            return Ok(None);
        }
        if found.log_id != self.log_id {
            return Err(SessionEnd::Stop(SinkFault::new(format!(
                "the store follows another log (its id is {}, this log's is {}); rebuild the sink to fill the store from this log",
                found.log_id, self.log_id
            ))));
        }
        if found.position > latest {
            return Err(SessionEnd::Stop(SinkFault::new(format!(
                "the store is at position {}, but the log ends at {latest}: one of them was restored from another time; rebuild the sink to make the store equal to the log",
                found.position
            ))));
        }
        if found.position < self.node.log_start() {
            return Ok(None);
        }
        store.check_shape()?;
        self.retention.advance(found.position);
        Ok(Some(found.position))
    }

    /// While nothing is written nobody speaks to the store, so nobody would notice that it was
    /// restored, or is gone.
    fn check_position(&mut self, store: &mut dyn Store, at: Position) -> Result<(), SessionEnd> {
        if !std::mem::take(&mut self.check_position) {
            return Ok(());
        }
        let found = store.position()?;
        if found.as_ref().is_some_and(|found| found.position == at) {
            return Ok(());
        }
        // Nobody who waits is reported what was reached before.
        self.progress.set_position(None);
        let expected = at;
        Err(StoreError::PositionMismatch { expected, found }.into())
    }

    /// One batch, or one wait for something to do. `None`: the log no longer reaches back.
    fn step(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        from: Position,
    ) -> Result<Option<Position>, SessionEnd> {
        let read = match self.node.read_log(from, self.batch_bytes) {
            Ok(read) => read,
            Err(ReadLogError::Cut { .. }) => return Ok(None),
            Err(error @ ReadLogError::InFuture { .. }) => {
                return Err(SessionEnd::Stop(SinkFault::new(error)));
            }
            Err(error) => return Err(SessionEnd::Retry(SinkFault::new(error))),
        };
        if read.next <= from {
            self.publish(store, from)?;
            let woken = self.wait(Position(from.get() + 1), WAIT_MAX);
            self.check_position |= matches!(woken, Woken::TimedOut);
            self.react(woken)?;
            return Ok(Some(from));
        }
        let mut batch = Batch::new(plan, from);
        let mut to = read.next;
        let mut dropped = None;
        for transaction in &read.transactions {
            dropped = transaction
                .records
                .iter()
                .find_map(|r| dropped_table(plan, r));
            if dropped.is_some() {
                to = Position(transaction.first_offset.get()).max(from);
                break;
            }
            for record in transaction.records.iter().filter(|r| !from.sees(r.offset)) {
                batch.push(plan, record);
            }
        }
        self.parked.leave_out(&mut batch);
        if self.parks() {
            let rejected = batch.seal_accepted(plan, to);
            self.park(plan, &rejected)?;
        } else {
            batch.seal(plan, to)?;
        }
        if to > from {
            self.apply(plan, store, &mut batch)?;
        }
        match dropped {
            None => Ok(Some(to)),
            Some(name) => Err(SessionEnd::Stop(SinkFault::new(format!(
                "the table '{name}' was deleted from the log at position {to}; delete this sink, or make a new one without that table"
            )))),
        }
    }

    /// Shows readers what was applied up to `to`, and tells whoever waits for it.
    fn publish(&mut self, store: &mut dyn Store, to: Position) -> Result<(), SessionEnd> {
        if let Some(from) = self.unpublished {
            let begun = Instant::now();
            store.publish()?;
            self.unpublished = None;
            self.published_at = Instant::now();
            self.publish_after = (begun.elapsed() * PUBLISH_SHARE).clamp(PUBLISH_MIN, PUBLISH_MAX);
            self.progress.applied(from, to);
        }
        Ok(())
    }

    fn apply(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        batch: &mut Batch,
    ) -> Result<(), SessionEnd> {
        let name = self.definition.name.clone();
        failpoint::hit(&name, "before_apply");
        let begun = Instant::now();
        self.apply_accepted(plan, store, batch)
            .map_err(Failed::into_session_end)?;
        let took = begun.elapsed();
        failpoint::hit(&name, "after_commit");
        self.retention.advance(batch.to);
        self.unpublished.get_or_insert(batch.from);
        let more = batch.to < self.node.position();
        if !store.publishes() || !more || self.published_at.elapsed() >= self.publish_after {
            self.publish(store, batch.to)?;
        }
        self.failures = 0;
        let goal = store.batch_time();
        if took > goal.end {
            self.batch_bytes = (self.batch_bytes / 2).max(BATCH_BYTES_MIN);
        } else if took < goal.start && more {
            self.batch_bytes = (self.batch_bytes * 2).min(BATCH_BYTES_MAX);
        }
        Ok(())
    }

    /// Applies a batch; what the store refuses is parked, where the definition says so.
    pub(crate) fn apply_accepted(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        batch: &mut Batch,
    ) -> Result<(), Failed> {
        loop {
            let error = match store.apply(batch) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let StoreError::Refused(refused) = &error else {
                return Err(error.into());
            };
            let mut rejected = batch.refused(plan, refused);
            if rejected.is_empty() || !self.parks() {
                return Err(error.into());
            }
            // Others that cannot fit are found without asking the store for each.
            rejected.extend(batch.rejected_rows(plan));
            self.park(plan, &rejected)?;
            batch.leave_out(&rejected);
        }
    }

    /// Whether a refused record is parked.
    pub(crate) fn parks(&self) -> bool {
        self.definition.on_refused == OnRefused::Park
    }

    /// Parks keys.
    pub(crate) fn park(&mut self, plan: &Plan, rejected: &[RejectedRow]) -> Result<(), SessionEnd> {
        if rejected.is_empty() {
            return Ok(());
        }
        self.parked.park(&self.node, plan, rejected)?;
        self.progress.set_parked(self.parked.len());
        failpoint::hit(&self.definition.name, "after_park");
        Ok(())
    }

    /// Takes every command that has come.
    pub(crate) fn receive(&mut self) {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.handle(Some(command)),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => return self.handle(None),
            }
        }
    }

    /// Whether the thread shall end.
    pub(crate) const fn is_leaving(&self) -> bool {
        self.exit
    }

    /// Whether somebody asked for the filling that is under way.
    pub(crate) const fn is_rebuilding(&self) -> bool {
        self.rebuild
    }

    fn handle(&mut self, command: Option<Command>) {
        let heard = |reply: SyncSender<()>| {
            // Who asked may have stopped waiting.
            let _ = reply.try_send(());
        };
        match command {
            Some(Command::Pause(reply)) => {
                self.paused = true;
                heard(reply);
            }
            Some(Command::Resume(reply)) => {
                self.paused = false;
                self.woken = true;
                self.check_position = true;
                self.progress.revive(SinkState::Starting);
                heard(reply);
            }
            Some(Command::Rebuild(reply)) => {
                self.rebuild = true;
                self.woken = true;
                self.progress.revive(SinkState::Rebuilding);
                heard(reply);
            }
            Some(Command::Request(ask)) => self.pending.push(Pending::new(ask)),
            Some(Command::Remove) => {
                self.remove = true;
                self.exit = true;
            }
            Some(Command::Leave) => {
                self.leaves = true;
                self.exit = true;
            }
            Some(Command::Stop) | None => self.exit = true,
        }
    }

    fn wait(&mut self, position: Position, timeout: Duration) -> Woken {
        let (node, commands) = (&self.node, &mut self.commands);
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                command = commands.recv() => Woken::Command(command),
                reached = node.wait_for(position, timeout) => match reached {
                    Ok(()) => Woken::Reached,
                    Err(WaitError::TimedOut { .. }) => Woken::TimedOut,
                    Err(WaitError::Stopped) => Woken::NodeStopped,
                },
            }
        })
    }

    fn react(&mut self, woken: Woken) -> Result<(), SessionEnd> {
        match woken {
            Woken::Command(command) => self.handle(command),
            Woken::Reached | Woken::TimedOut => {}
            Woken::NodeStopped => return Err(SessionEnd::Exit),
        }
        Ok(())
    }

    fn back_off(&mut self) {
        let delay = RETRY_FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(RETRY_LAST)
            .mul_f64(rand::random_range(0.5..1.0));
        self.failures = self.failures.saturating_add(1);
        self.stand(Some(Instant::now() + delay));
    }

    fn stand_still(&mut self) {
        self.failures = 0;
        self.stand(None);
    }

    /// Waits for a command that changes something, or until a time.
    fn stand(&mut self, until: Option<Instant>) {
        self.woken = false;
        while !self.woken && !self.exit {
            self.serve_detached();
            let left = until.map_or(WAIT_MAX, |until| {
                until.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return;
            }
            let woken = self.wait(Position(u64::MAX), left);
            if self.react(woken).is_err() {
                self.exit = true;
            }
        }
    }

    /// Forgets the sink in its store. A store that cannot be reached keeps what it has: the
    /// position in it stays true.
    fn remove_from_store(&self) {
        let remove = || -> Result<(), SinkError> {
            let plan = Arc::new(plan_of(&self.node, &self.definition)?);
            let mut store = open_store(&self.definition, &plan, &self.log_id)?;
            store.take_over()?;
            Ok(store.remove()?)
        };
        if let Err(error) = remove() {
            tracing::warn!(sink = self.definition.name, %error, "the store of a deleted sink keeps its position");
            return;
        }
        // As long as the store has a position, what is parked is part of what it means.
        if let Err(SessionEnd::Retry(fault) | SessionEnd::Stop(fault)) =
            parking::forget(&self.node, &self.definition.name)
        {
            tracing::warn!(sink = self.definition.name, %fault, "what a deleted sink had parked stays in onelog.parked");
        }
    }
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
