//! What others ask of a sink's thread between two batches, where the store stands exactly at a
//! position: pictures of both sides, rows to be written again, parked keys to be replayed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog::{Offset, Position, Snapshot, SnapshotError};

use crate::error::{SinkError, SinkFault};
use crate::open::{open_store, plan_of};
use crate::parking::{Aside, Parked, parked};
use crate::runner::{Halt, Runner};
use onelog_mapping::Plan;
use onelog_store::{Batch, Change, RejectedRow, Store, StoreError, StoreReader, failpoint};

/// How long somebody who asks waits for a sink that is too far behind.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How many rows are written again in one step, at most.
const ROWS_MAX: usize = 1000;

/// Both sides at one position.
pub(crate) struct Pictures {
    pub(crate) plan: Arc<Plan>,
    pub(crate) store: Box<dyn StoreReader>,
    pub(crate) log: Snapshot,
    /// The keys that are set aside, by mapping: their rows may be old.
    pub(crate) parked: Vec<std::collections::HashSet<Bytes>>,
}

/// Keys of the log with the numbers of their mappings.
pub(crate) type Keys = Vec<(usize, Bytes)>;

/// Which parked keys are replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replay {
    /// All.
    All,
    /// These: table of the store, key of the log.
    Keys(Vec<(String, Bytes)>),
}

/// What became of a replay.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Replayed {
    /// The sink.
    pub sink: String,
    /// The store has the newest images of the replayed keys at this position.
    pub position: Position,
    /// How many keys the store has taken.
    pub replayed: u64,
    /// Those that it still refuses, with its new words.
    pub remaining: Vec<Parked>,
}

/// An answer, once.
pub(crate) type Reply<T> = SyncSender<Result<T, SinkError>>;

/// Something asked.
pub(crate) enum Ask {
    Picture(Reply<Pictures>),
    /// Writes the rows of these keys again; answers how many.
    Repair(Keys, Reply<u64>),
    Replay(Replay, Reply<Replayed>),
}

/// Something asked that waits for its turn.
pub(crate) struct Pending {
    ask: Ask,
    deadline: Instant,
}

/// Something asked was not done; perhaps the session ends with it.
pub(crate) struct Failed(Box<Failure>);

struct Failure {
    told: SinkError,
    halt: Option<Halt>,
}

impl From<SinkError> for Failed {
    fn from(told: SinkError) -> Self {
        Self::new(told, None)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        let halt = match error {
            StoreError::Refused(_) => None,
            _ => Some(Halt::of(&error)),
        };
        Self::new(error.into(), halt)
    }
}

/// The session ends, and whoever asked is told why.
impl From<Halt> for Failed {
    fn from(halt: Halt) -> Self {
        let fault = match &halt {
            Halt::Exit => SinkFault::new("it was told to end"),
            Halt::Retry(fault) | Halt::Stop(fault) => fault.clone(),
        };
        let told = SinkError::Failed {
            fault: Box::new(fault),
        };
        Self::new(told, Some(halt))
    }
}

impl Failed {
    fn new(told: SinkError, halt: Option<Halt>) -> Self {
        Self(Box::new(Failure { told, halt }))
    }

    /// For a session that cannot go on without what was not done.
    pub(crate) fn into_halt(self) -> Halt {
        match (self.0.halt, self.0.told) {
            (Some(halt), _) => halt,
            (None, SinkError::Store(error)) => Halt::of(&error),
            (None, told) => Halt::Stop(SinkFault::new(told)),
        }
    }
}

impl Pending {
    pub(crate) fn new(ask: Ask) -> Self {
        Self {
            ask,
            deadline: Instant::now() + PATIENCE,
        }
    }
}

impl Runner {
    /// Does what was asked. A sink that is too far behind is given some time to catch up.
    pub(crate) fn serve(
        &mut self,
        plan: &Arc<Plan>,
        store: &mut dyn Store,
        at: Option<Position>,
    ) -> Result<(), Halt> {
        let mut waiting: VecDeque<Pending> = std::mem::take(&mut self.pending).into();
        while let Some(pending) = waiting.pop_front() {
            let may_wait = !self.paused && Instant::now() < pending.deadline;
            let later =
                |error: &SinkError| may_wait && matches!(error, SinkError::TooFarBehind { .. });
            let later_anew = |error: &SinkError| {
                let lost = matches!(error, SinkError::Store(error) if error.is_retryable());
                later(error) || (may_wait && lost)
            };
            let failed = match &pending.ask {
                Ask::Picture(reply) => {
                    let done = self.picture(plan, store, at);
                    tell(reply, done, &later_anew)
                }
                Ask::Repair(keys, reply) => {
                    let done = self.repair(plan, store, at, keys);
                    tell(reply, done, &later)
                }
                Ask::Replay(which, reply) => {
                    let done = self.replay(plan, store, at, which);
                    tell(reply, done, &later)
                }
            };
            match failed {
                Told::Later(None) => self.pending.push(pending),
                Told::Later(Some(halt)) => {
                    self.pending.push(pending);
                    self.pending.extend(waiting);
                    return Err(halt);
                }
                Told::Done => {}
                Told::Halted(halt) => {
                    self.pending.extend(waiting);
                    return Err(halt);
                }
            }
        }
        Ok(())
    }

    /// The log's state where the store stands.
    fn snapshot_at(&self, at: Option<Position>) -> Result<Snapshot, SinkError> {
        let name = &self.definition.name;
        let Some(position) = at else {
            return Err(SinkError::Unfilled { name: name.clone() });
        };
        self.node.snapshot_at(position).map_err(|error| {
            let floor = match error {
                SnapshotError::TooOld { floor } => floor,
                SnapshotError::InFuture { latest } => latest,
            };
            SinkError::TooFarBehind {
                name: name.clone(),
                position,
                floor,
            }
        })
    }

    fn picture(
        &self,
        plan: &Arc<Plan>,
        store: &mut dyn Store,
        at: Option<Position>,
    ) -> Result<Pictures, Failed> {
        self.open_picture(plan, store, at, &self.aside)
            .map_err(|error| match error {
                // The store was restarted, perhaps with older data, while nothing was written: a
                // new session begins where it stands.
                SinkError::Store(error) if error.is_retryable() => {
                    if matches!(error, StoreError::PositionMismatch { .. }) {
                        // Nobody who waits is told what was reached before.
                        self.progress.set_position(None);
                    }
                    error.into()
                }
                error => error.into(),
            })
    }

    fn open_picture(
        &self,
        plan: &Arc<Plan>,
        store: &mut dyn Store,
        at: Option<Position>,
        aside: &Aside,
    ) -> Result<Pictures, SinkError> {
        let log = self.snapshot_at(at)?;
        let position = log.position();
        let reader = store.reader()?;
        if reader.position() != position {
            return Err(SinkError::Store(StoreError::PositionMismatch {
                expected: position,
                // The store may have come back with other data under an old connection.
                found: store.position().unwrap_or(None),
            }));
        }
        Ok(Pictures {
            plan: Arc::clone(plan),
            store: reader,
            log,
            parked: aside.keys(),
        })
    }

    /// A sink that stands still has no store open; one is opened for a comparison alone.
    pub(crate) fn serve_detached(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            match pending.ask {
                Ask::Picture(reply) => {
                    let _ = reply.try_send(self.detached_picture());
                }
                Ask::Repair(_, reply) => {
                    let _ = reply.try_send(Err(self.not_following()));
                }
                Ask::Replay(_, reply) => {
                    let _ = reply.try_send(Err(self.not_following()));
                }
            }
        }
    }

    fn detached_picture(&self) -> Result<Pictures, SinkError> {
        let plan = Arc::new(plan_of(&self.node, &self.definition)?);
        let mut store = open_store(&self.definition, &plan, &self.log_id)?;
        let found = store.position()?;
        let ours = found.filter(|found| found.log_id == self.log_id);
        let at = ours.map(|found| found.position);
        let aside = Aside::load(&self.node, &self.definition.name, &plan, at);
        let aside = aside.map_err(|_| self.not_following())?;
        self.open_picture(&plan, store.as_mut(), at, &aside)
    }

    fn not_following(&self) -> SinkError {
        SinkError::Stopped {
            name: self.definition.name.clone(),
            fault: Box::new(self.progress.last_error()),
        }
    }

    /// Writes the rows of keys again as the log has them where the store stands.
    fn repair(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        at: Option<Position>,
        keys: &Keys,
    ) -> Result<u64, Failed> {
        let snapshot = self.snapshot_at(at)?;
        let mut written = 0;
        for part in keys.chunks(ROWS_MAX) {
            let mut images = Images::default();
            for (mapping, key) in part {
                if !self.aside.contains(*mapping, key) {
                    images.add(plan, &snapshot, *mapping, key)?;
                }
            }
            if let Some(first) = images.unfit.first() {
                if !self.parks() {
                    let of = &plan.mappings[first.mapping];
                    let error = StoreError::refused(of, &first.key, first.offset, &first.what);
                    return Err(error.into());
                }
                self.park(plan, &images.unfit)?;
            }
            let mut batch = images.into_batch(plan, snapshot.position());
            self.apply_what_fits(plan, store, &mut batch)?;
            written += batch.rows() as u64;
        }
        store.publish()?;
        Ok(written)
    }

    /// Gives the store the newest images of parked keys where it stands.
    fn replay(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        at: Option<Position>,
        which: &Replay,
    ) -> Result<Replayed, Failed> {
        let snapshot = self.snapshot_at(at)?;
        let keys: Keys = match which {
            Replay::All => self.aside.all(),
            Replay::Keys(wanted) => wanted
                .iter()
                .filter_map(|(into, key)| {
                    let mapping = plan.mappings.iter().position(|m| m.into == *into)?;
                    let known = self.aside.contains(mapping, key);
                    known.then(|| (mapping, key.clone()))
                })
                .collect(),
        };
        let (replayed, refused) = self.replay_keys(plan, store, &snapshot, &keys)?;
        let of_refused = |entry: &Parked| {
            refused.iter().any(|(mapping, key)| {
                plan.mappings[*mapping].into == entry.into && *key == entry.key_bytes
            })
        };
        let known = parked(&self.node, &self.definition.name);
        let known = known.map_err(|error| SinkError::Read { cause: error })?;
        Ok(Replayed {
            sink: self.definition.name.clone(),
            position: snapshot.position(),
            replayed,
            remaining: known.into_iter().filter(of_refused).collect(),
        })
    }

    /// Answers how many keys the store has taken, and those that it refuses.
    fn replay_keys(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        snapshot: &Snapshot,
        keys: &[(usize, Bytes)],
    ) -> Result<(u64, Keys), Failed> {
        let (mut replayed, mut refused) = (0, Vec::new());
        for part in keys.chunks(ROWS_MAX) {
            let mut images = Images::default();
            for (mapping, key) in part {
                images.add(plan, snapshot, *mapping, key)?;
            }
            let mut unfit = std::mem::take(&mut images.unfit);
            let mut batch = images.into_batch(plan, snapshot.position());
            unfit.extend(batch.rejected_rows(plan));
            batch.leave_out(&unfit);
            while batch.rows() > 0 {
                let Err(error) = store.apply(&batch) else {
                    break;
                };
                let StoreError::Refused(words) = &error else {
                    return Err(error.into());
                };
                let more = batch.refused(plan, words);
                if more.is_empty() {
                    return Err(error.into());
                }
                batch.leave_out(&more);
                unfit.extend(more);
            }
            failpoint::hit(&self.definition.name, "after_replay");
            self.park(plan, &unfit)?;
            let taken: Keys = part
                .iter()
                .filter(|(of, key)| !unfit.iter().any(|u| u.mapping == *of && u.key == *key))
                .cloned()
                .collect();
            let at = snapshot.position();
            let released = self.aside.release(&self.node, plan, &taken, at);
            self.progress.set_parked(self.aside.len());
            released?;
            replayed += taken.len() as u64;
            refused.extend(unfit.into_iter().map(|unfit| (unfit.mapping, unfit.key)));
        }
        // No batch may come for long, and whoever asked looks now.
        store.publish()?;
        Ok((replayed, refused))
    }

    /// Replays what was replayed before at a position that this copy of the store has not passed.
    pub(crate) fn replay_again(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        at: Option<Position>,
    ) -> Result<(), Halt> {
        if self.aside.again().is_empty() {
            return Ok(());
        }
        // Too far behind to read the log's state there: the next batches bring it nearer.
        let Ok(snapshot) = self.snapshot_at(at) else {
            return Ok(());
        };
        let keys = self.aside.again().to_vec();
        match self.replay_keys(plan, store, &snapshot, &keys) {
            Ok(_) => Ok(()),
            Err(failed) => Err(failed.into_halt()),
        }
    }
}

enum Told {
    Done,
    /// Once more; in a new session when this one ends.
    Later(Option<Halt>),
    Halted(Halt),
}

fn tell<T>(reply: &Reply<T>, done: Result<T, Failed>, later: &dyn Fn(&SinkError) -> bool) -> Told {
    let (answer, halt) = match done {
        Ok(done) => (Ok(done), None),
        Err(failed) if later(&failed.0.told) => return Told::Later(failed.0.halt),
        Err(failed) => (Err(failed.0.told), failed.0.halt),
    };
    // Who asked may have stopped waiting.
    let _ = reply.try_send(answer);
    halt.map_or(Told::Done, Told::Halted)
}

/// The images of keys at one position, by mapping.
#[derive(Default)]
struct Images {
    changes: Vec<(usize, Change)>,
    unfit: Vec<RejectedRow>,
}

impl Images {
    fn add(
        &mut self,
        plan: &Plan,
        snapshot: &Snapshot,
        mapping: usize,
        key: &Bytes,
    ) -> Result<(), SinkError> {
        let of = &plan.mappings[mapping];
        let found = snapshot
            .get(of.table, key)
            .map_err(|cause| SinkError::Read { cause })?;
        let mut change = match found {
            Some(found) => Change {
                key: key.clone(),
                offset: found.version,
                value: Some(found.value),
            },
            // The last record below the position is at least as new as the one that deleted it.
            None => Change {
                key: key.clone(),
                offset: Offset(snapshot.position().get().saturating_sub(1)),
                value: None,
            },
        };
        match change.try_transform(of) {
            Ok(()) => self.changes.push((mapping, change)),
            Err(fault) => self.unfit.push(RejectedRow::new(mapping, &change, fault)),
        }
        Ok(())
    }

    fn into_batch(self, plan: &Plan, at: Position) -> Batch {
        let mut changes = vec![Vec::new(); plan.mappings.len()];
        for (mapping, change) in self.changes {
            changes[mapping].push(change);
        }
        Batch::repair(at, changes)
    }
}
