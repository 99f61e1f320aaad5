//! What others ask of a sink's thread between two batches, where the store stands exactly at a
//! position: snapshots of both sides, rows to be written again, parked keys to be replayed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog::{Offset, Position, Snapshot, SnapshotError};

use crate::error::{SinkError, SinkFault};
use crate::open::{open_store, plan_of};
use crate::parking::{Parked, ParkedKeys, parked};
use crate::runner::{Runner, SessionEnd};
use onelog_mapping::Plan;
use onelog_store::{Batch, Change, RejectedRow, Store, StoreError, StoreReader, failpoint};

/// How long somebody who asks waits for a sink that is too far behind.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How many rows are written again in one step, at most.
const ROWS_MAX: usize = 1000;

/// Both sides at one position.
pub(crate) struct SnapshotPair {
    pub(crate) plan: Arc<Plan>,
    pub(crate) store: Box<dyn StoreReader>,
    pub(crate) log: Snapshot,
    /// The keys that are parked, by mapping: their rows may be old.
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
pub(crate) enum Request {
    Snapshots(Reply<SnapshotPair>),
    /// Writes the rows of these keys again; answers how many.
    Repair(Keys, Reply<u64>),
    Replay(Replay, Reply<Replayed>),
}

/// Something asked that waits for its turn.
pub(crate) struct Pending {
    request: Request,
    deadline: Instant,
}

/// Something asked was not done; perhaps the session ends with it.
pub(crate) struct Failed(Box<Failure>);

struct Failure {
    reported: SinkError,
    end: Option<SessionEnd>,
}

impl From<SinkError> for Failed {
    fn from(reported: SinkError) -> Self {
        Self::new(reported, None)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        let end = match error {
            StoreError::Refused(_) => None,
            _ => Some(SessionEnd::of(&error)),
        };
        Self::new(error.into(), end)
    }
}

/// The session ends, and whoever asked is reported why.
impl From<SessionEnd> for Failed {
    fn from(end: SessionEnd) -> Self {
        let fault = match &end {
            SessionEnd::Exit => SinkFault::new("it was reported to end"),
            SessionEnd::Retry(fault) | SessionEnd::Stop(fault) => fault.clone(),
        };
        let reported = SinkError::Failed {
            fault: Box::new(fault),
        };
        Self::new(reported, Some(end))
    }
}

impl Failed {
    fn new(reported: SinkError, end: Option<SessionEnd>) -> Self {
        Self(Box::new(Failure { reported, end }))
    }

    /// For a session that cannot go on without what was not done.
    pub(crate) fn into_session_end(self) -> SessionEnd {
        match (self.0.end, self.0.reported) {
            (Some(end), _) => end,
            (None, SinkError::Store(error)) => SessionEnd::of(&error),
            (None, reported) => SessionEnd::Stop(SinkFault::new(reported)),
        }
    }
}

impl Pending {
    pub(crate) fn new(request: Request) -> Self {
        Self {
            request,
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
    ) -> Result<(), SessionEnd> {
        let mut waiting: VecDeque<Pending> = std::mem::take(&mut self.pending).into();
        while let Some(pending) = waiting.pop_front() {
            let may_wait = !self.paused && Instant::now() < pending.deadline;
            let later =
                |error: &SinkError| may_wait && matches!(error, SinkError::TooFarBehind { .. });
            let later_anew = |error: &SinkError| {
                let lost = matches!(error, SinkError::Store(error) if error.is_retryable());
                later(error) || (may_wait && lost)
            };
            let failed = match &pending.request {
                Request::Snapshots(reply) => {
                    let done = self.snapshots(plan, store, at);
                    answer(reply, done, &later_anew)
                }
                Request::Repair(keys, reply) => {
                    let done = self.repair(plan, store, at, keys);
                    answer(reply, done, &later)
                }
                Request::Replay(which, reply) => {
                    let done = self.replay(plan, store, at, which);
                    answer(reply, done, &later)
                }
            };
            match failed {
                Served::Later(None) => self.pending.push(pending),
                Served::Later(Some(end)) => {
                    self.pending.push(pending);
                    self.pending.extend(waiting);
                    return Err(end);
                }
                Served::Done => {}
                Served::Ended(end) => {
                    self.pending.extend(waiting);
                    return Err(end);
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

    fn snapshots(
        &self,
        plan: &Arc<Plan>,
        store: &mut dyn Store,
        at: Option<Position>,
    ) -> Result<SnapshotPair, Failed> {
        self.open_snapshots(plan, store, at, &self.parked)
            .map_err(|error| match error {
                // The store was restarted, perhaps with older data, while nothing was written: a
                // new session begins where it stands.
                SinkError::Store(error) if error.is_retryable() => {
                    if matches!(error, StoreError::PositionMismatch { .. }) {
                        // Nobody who waits is reported what was reached before.
                        self.progress.set_position(None);
                    }
                    error.into()
                }
                error => error.into(),
            })
    }

    fn open_snapshots(
        &self,
        plan: &Arc<Plan>,
        store: &mut dyn Store,
        at: Option<Position>,
        parked: &ParkedKeys,
    ) -> Result<SnapshotPair, SinkError> {
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
        Ok(SnapshotPair {
            plan: Arc::clone(plan),
            store: reader,
            log,
            parked: parked.keys(),
        })
    }

    /// A sink that stands still has no store open; one is opened for a comparison alone.
    pub(crate) fn serve_detached(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            match pending.request {
                Request::Snapshots(reply) => {
                    let _ = reply.try_send(self.detached_snapshots());
                }
                Request::Repair(_, reply) => {
                    let _ = reply.try_send(Err(self.not_following()));
                }
                Request::Replay(_, reply) => {
                    let _ = reply.try_send(Err(self.not_following()));
                }
            }
        }
    }

    fn detached_snapshots(&self) -> Result<SnapshotPair, SinkError> {
        let plan = Arc::new(plan_of(&self.node, &self.definition)?);
        let mut store = open_store(&self.definition, &plan, &self.log_id)?;
        let found = store.position()?;
        let ours = found.filter(|found| found.log_id == self.log_id);
        let at = ours.map(|found| found.position);
        let parked = ParkedKeys::load(&self.node, &self.definition.name, &plan, at);
        let parked = parked.map_err(|_| self.not_following())?;
        self.open_snapshots(&plan, store.as_mut(), at, &parked)
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
                if !self.parked.contains(*mapping, key) {
                    images.add(plan, &snapshot, *mapping, key)?;
                }
            }
            if let Some(first) = images.rejected.first() {
                if !self.parks() {
                    let of = &plan.mappings[first.mapping];
                    let error = StoreError::refused(of, &first.key, first.offset, &first.what);
                    return Err(error.into());
                }
                self.park(plan, &images.rejected)?;
            }
            let mut batch = images.into_batch(plan, snapshot.position());
            self.apply_accepted(plan, store, &mut batch)?;
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
            Replay::All => self.parked.all(),
            Replay::Keys(wanted) => wanted
                .iter()
                .filter_map(|(into, key)| {
                    let mapping = plan.mappings.iter().position(|m| m.into == *into)?;
                    let known = self.parked.contains(mapping, key);
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
            let mut rejected = std::mem::take(&mut images.rejected);
            let mut batch = images.into_batch(plan, snapshot.position());
            rejected.extend(batch.rejected_rows(plan));
            batch.leave_out(&rejected);
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
                rejected.extend(more);
            }
            failpoint::hit(&self.definition.name, "after_replay");
            self.park(plan, &rejected)?;
            let taken: Keys = part
                .iter()
                .filter(|(of, key)| !rejected.iter().any(|u| u.mapping == *of && u.key == *key))
                .cloned()
                .collect();
            let at = snapshot.position();
            let released = self.parked.release(&self.node, plan, &taken, at);
            self.progress.set_parked(self.parked.len());
            released?;
            replayed += taken.len() as u64;
            refused.extend(
                rejected
                    .into_iter()
                    .map(|rejected| (rejected.mapping, rejected.key)),
            );
        }
        // No batch may come for long, and whoever asked looks now.
        store.publish()?;
        Ok((replayed, refused))
    }

    /// Replays what was replayed before at a position that this copy of the store has not passed.
    pub(crate) fn repeat_replays(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        at: Option<Position>,
    ) -> Result<(), SessionEnd> {
        if self.parked.to_repeat().is_empty() {
            return Ok(());
        }
        // Too far behind to read the log's state there: the next batches bring it nearer.
        let Ok(snapshot) = self.snapshot_at(at) else {
            return Ok(());
        };
        let keys = self.parked.to_repeat().to_vec();
        match self.replay_keys(plan, store, &snapshot, &keys) {
            Ok(_) => Ok(()),
            Err(failed) => Err(failed.into_session_end()),
        }
    }
}

enum Served {
    Done,
    /// Once more; in a new session when this one ends.
    Later(Option<SessionEnd>),
    Ended(SessionEnd),
}

fn answer<T>(
    reply: &Reply<T>,
    done: Result<T, Failed>,
    later: &dyn Fn(&SinkError) -> bool,
) -> Served {
    let (answer, end) = match done {
        Ok(done) => (Ok(done), None),
        Err(failed) if later(&failed.0.reported) => return Served::Later(failed.0.end),
        Err(failed) => (Err(failed.0.reported), failed.0.end),
    };
    // Who asked may have stopped waiting.
    let _ = reply.try_send(answer);
    end.map_or(Served::Done, Served::Ended)
}

/// The images of keys at one position, by mapping.
#[derive(Default)]
struct Images {
    changes: Vec<(usize, Change)>,
    rejected: Vec<RejectedRow>,
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
            Err(fault) => self
                .rejected
                .push(RejectedRow::new(mapping, &change, fault)),
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
