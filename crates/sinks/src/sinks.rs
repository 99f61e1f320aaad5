//! All sinks of a node: their definitions are records of `onelog.sinks`, each has a thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use onelog::{
    CommitRequest, Follower, Guard, Node, Operation, Position, Predicate, Refusal, Write,
};
use onelog_record::{TABLE_SINKS, nearest_name};
use parking_lot::Mutex;

use crate::dry_run::Lost;
use crate::elsewhere;
use crate::error::{SinkError, SinksError};
use crate::handle::{Found, Handle};
use crate::lifecycle::Leave;
use crate::memory::{Memory, SINKS_MEMORY_BYTES};
use crate::metrics::SinkCollector;
use crate::open::plan_of;
use crate::overlap::check_overlap;
use crate::parking::{self, Parked};
use crate::placing::{self, Placing};
use crate::progress::{Figures, Progress, SinkState, SinkStatus};
use crate::removal::{self, Remains};
use crate::request::{Command, Replay, Replayed, Request};
use crate::schedule::{self, Bell};
use crate::stored::{self, StoredSink, TableIds};
use onelog_mapping::DefinitionError;
use onelog_store::{Kinds, SinkDefinition, StoreError};

/// The most sinks of one node; each has a thread.
pub const SINKS_MAX: usize = 256;
/// How long a sink may take to hear a command; a batch or a step of a rebuild may be under way.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a record is written again whose sink has used up its right to take a store meanwhile.
const COMMIT_ATTEMPTS_MAX: u32 = 3;
/// How long replaying parked keys may take before the caller gets `Unanswered`.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(600);

/// The sinks of a node. Cheap to clone. One per node.
#[derive(Clone, Debug)]
pub struct Sinks {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) node: Node,
    pub(crate) kinds: Kinds,
    pub(crate) sinks: Mutex<BTreeMap<String, Handle>>,
    /// Held while definitions change, so that they change one after the other.
    pub(crate) changing: Mutex<()>,
    /// Gives up comparisons under way.
    pub(crate) stopping: AtomicBool,
    /// What all sinks share for their batches.
    pub(crate) memory: Memory,
    /// Wakes the threads that look after all sinks.
    pub(crate) bell: Arc<Bell>,
    pub(crate) helpers: Mutex<Vec<JoinHandle<()>>>,
    /// Keep the log for sinks of kinds that this program does not know.
    pub(crate) foreign: Mutex<BTreeMap<String, Follower>>,
    /// Where the sinks run, in a cluster.
    pub(crate) placing: Placing,
}

/// What has come of another definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Replaced {
    pub status: SinkStatus,
    /// What stays of a sink that moves to another store in one that cannot be reached; see
    /// [`Sinks::forget`].
    pub remains: Option<Remains>,
    /// What the backfill drops with the tables that it replaces.
    pub lost: Vec<Lost>,
}

impl Sinks {
    /// Starts every sink that is defined. `kinds` are the kinds of store that this program knows.
    pub fn start(node: Node, kinds: Kinds) -> Result<Self, SinksError> {
        Self::start_within(node, kinds, SINKS_MEMORY_BYTES)
    }

    /// [`Sinks::start`], with so much memory for what all sinks together have unpacked of the log and
    /// not yet written to their stores; at least
    /// [`SINKS_MEMORY_BYTES_MIN`](crate::SINKS_MEMORY_BYTES_MIN).
    pub fn start_within(node: Node, kinds: Kinds, memory_bytes: u64) -> Result<Self, SinksError> {
        let (definitions, foreign) = match node.source() {
            None => stored::defined(kinds, &node)?,
            // They run where the log is written.
            Some(_) => Default::default(),
        };
        let inner = Arc::new(Inner {
            node,
            kinds,
            sinks: Mutex::default(),
            changing: Mutex::default(),
            stopping: AtomicBool::new(false),
            memory: Memory::new(memory_bytes),
            bell: Arc::default(),
            helpers: Mutex::default(),
            foreign: Mutex::new(foreign),
            placing: Placing::default(),
        });
        for sink in definitions {
            // Until its position is read from its store, the whole log may be needed.
            let from = inner.node.log_start();
            inner.begin(sink, from, Arc::new(Progress::new()))?;
        }
        schedule::start(&inner)?;
        placing::start(&inner)?;
        elsewhere::answer_calls(&inner);
        let collector = SinkCollector(Arc::downgrade(&inner));
        inner
            .node
            .registry()
            .lock()
            .register_collector(Box::new(collector));
        Ok(Self { inner })
    }

    /// The kinds of store that this program knows.
    #[must_use]
    pub fn kinds(&self) -> Kinds {
        self.inner.kinds
    }

    /// Reads a definition from its text, in which no field may occur twice.
    pub fn read_definition(&self, text: &[u8]) -> Result<SinkDefinition, DefinitionError> {
        SinkDefinition::from_slice(self.inner.kinds, text)
    }

    /// Defines a sink and starts it. Blocks until the definition is committed, not until the
    /// store is backfilled.
    pub fn create(&self, definition: SinkDefinition) -> Result<SinkStatus, SinkError> {
        self.create_if(definition, Err)
    }

    /// [`Sinks::create`], also when the store cannot be reached now: the sink then waits for it, as
    /// one does whose store goes away later.
    pub fn create_ahead(&self, definition: SinkDefinition) -> Result<SinkStatus, SinkError> {
        self.create_if(definition, |error| match error {
            SinkError::Store(StoreError::Unavailable { .. } | StoreError::NotWritable { .. }) => {
                Ok(())
            }
            other => Err(other),
        })
    }

    fn create_if(
        &self,
        definition: SinkDefinition,
        excuse: fn(SinkError) -> Result<(), SinkError>,
    ) -> Result<SinkStatus, SinkError> {
        let inner = &self.inner;
        let _changing = inner.changing.lock();
        // The tables that it follows, and sinks that write to the same, may be of another node.
        inner.catch_up()?;
        inner.check(&definition, None).or_else(excuse)?;
        let tables = TableIds::of(&plan_of(&inner.node, &definition)?);
        let name = definition.name.clone();
        let sink = StoredSink {
            definition,
            tables,
            former: Vec::new(),
            verified: None,
        };
        let put = Operation::Put(sink.record());
        let committed = inner.commit(&name, Predicate::Absent, put);
        match committed {
            Err(SinkError::Commit(Refusal::GuardFailed { .. })) => {
                return Err(SinkError::Exists { name });
            }
            other => other?,
        };
        inner.begin(sink, inner.node.log_start(), Arc::new(Progress::new()))?;
        self.get(&name)
    }

    /// Gives a sink another definition. Where its mappings changed the store is backfilled;
    /// otherwise the sink goes on from the store's position. Blocks until the step of the sink that is
    /// under way has ended. The same definition again changes nothing.
    pub fn replace(&self, definition: SinkDefinition) -> Result<SinkStatus, SinkError> {
        Ok(self.replace_and_leave(definition)?.status)
    }

    /// [`Sinks::replace`], and what becomes of the tables by that.
    pub fn replace_and_leave(&self, definition: SinkDefinition) -> Result<Replaced, SinkError> {
        self.replace_if(definition, Err)
    }

    /// [`Sinks::replace`], also when the store cannot be reached now: the sink then waits for it under
    /// its new definition.
    pub(crate) fn replace_ahead(&self, definition: SinkDefinition) -> Result<(), SinkError> {
        let replaced = self.replace_if(definition, |error| match error {
            SinkError::Store(
                StoreError::Unavailable { .. }
                | StoreError::NotWritable { .. }
                | StoreError::NoAccess { .. },
            ) => Ok(()),
            other => Err(other),
        });
        replaced.map(drop)
    }

    fn replace_if(
        &self,
        definition: SinkDefinition,
        excuse: fn(SinkError) -> Result<(), SinkError>,
    ) -> Result<Replaced, SinkError> {
        let inner = &self.inner;
        let _changing = inner.changing.lock();
        inner.catch_up()?;
        let name = definition.name.clone();
        let known = inner.find(&name)?;
        if known.definition == definition {
            return Ok(Replaced {
                status: self.get(&name)?,
                remains: None,
                lost: Vec::new(),
            });
        }
        let lost_node = known.check_changeable()?;
        inner.check(&definition, Some(&name)).or_else(excuse)?;
        let lost = inner.lost_by(&definition, &known.definition);
        // Only a rebuild takes another table of the same name.
        let tables = TableIds::of(&plan_of(&inner.node, &definition)?).or_former(&known.tables);
        let sink = StoredSink {
            former: known.former_of(&definition),
            verified: known.progress.verified(),
            definition,
            tables,
        };
        let put = Operation::Put(sink.record());
        inner.commit(&name, Predicate::Exists, put)?;
        inner.hand_over(&name);
        let remains = match lost_node {
            Some(node) => Some(removal::on_lost_node(&known.definition, node)),
            None => inner.forget_moved(&known.definition, &sink.definition),
        };
        known.progress.revive(SinkState::Starting);
        // Under the new definition the store's position is unknown until it is read.
        known.progress.set_position(None);
        // The old hold keeps the log until the new one has replaced it.
        inner.begin(sink, known.retention.position(), known.progress)?;
        Ok(Replaced {
            status: self.get(&name)?,
            remains,
            lost,
        })
    }

    /// A sink's definition as it was written, secrets included.
    pub fn definition(&self, name: &str) -> Result<SinkDefinition, SinkError> {
        Ok(self.inner.find(name)?.definition)
    }

    /// The keys that a sink has parked because its store refused a record of theirs.
    pub fn parked(&self, name: &str) -> Result<Vec<Parked>, SinkError> {
        self.inner.find(name)?;
        parking::parked(&self.inner.node, name).map_err(|cause| SinkError::Read { cause })
    }

    /// Gives the store the newest images of parked keys. Those that it takes are no longer
    /// parked.
    pub fn replay(&self, name: &str, which: Replay) -> Result<Replayed, SinkError> {
        let request = |reply| Request::Replay(which, reply);
        self.inner.request(name, REPLAY_TIMEOUT, request)
    }

    #[must_use]
    pub fn list(&self) -> Vec<SinkStatus> {
        let statuses = self.inner.statuses();
        statuses.into_iter().map(|(status, _)| status).collect()
    }

    pub fn get(&self, name: &str) -> Result<SinkStatus, SinkError> {
        let found = self.inner.find(name)?;
        Ok(found.status(&self.inner.node))
    }

    /// Pauses a sink, also across restarts.
    pub fn pause(&self, name: &str) -> Result<SinkStatus, SinkError> {
        self.set_paused(name, true)?;
        let progress = self.inner.find(name)?.progress;
        // A batch or a backfill under way ends first; the status shows when it does not end soon.
        let still = [SinkState::Paused, SinkState::Stopped, SinkState::Waiting];
        progress.wait_for_state(&still, COMMAND_TIMEOUT);
        self.get(name)
    }

    /// Lets a sink go on that is paused or has stopped.
    pub fn resume(&self, name: &str) -> Result<SinkStatus, SinkError> {
        self.set_paused(name, false)?;
        self.get(name)
    }

    /// Ends a sink and forgets its position; its rows stay in the store. Answers what stays of the
    /// sink in a store that cannot be reached; see [`Sinks::forget`].
    pub fn delete(&self, name: &str) -> Result<Option<Remains>, SinkError> {
        let inner = &self.inner;
        let _changing = inner.changing.lock();
        let known = inner.find(name)?;
        let lost = known.check_changeable()?;
        inner.commit(name, Predicate::Exists, Operation::Delete)?;
        let handle = inner.sinks.lock().remove(name);
        let thread = handle.and_then(|mut handle| handle.leave(Leave::Stop));
        inner.bell.ring();
        Ok(match lost {
            Some(node) => Some(removal::on_lost_node(&known.definition, node)),
            None => inner.forget_deleted(&known.definition, thread),
        })
    }

    /// Stops all threads; each ends its step first. Idempotent.
    pub fn stop(&self) {
        self.inner.stop();
    }

    fn set_paused(&self, name: &str, paused: bool) -> Result<(), SinkError> {
        let _changing = self.inner.changing.lock();
        let known = self.inner.find(name)?;
        known.check_here()?;
        let stored = known.stored();
        let mut definition = stored.definition.clone();
        if definition.paused != paused {
            definition.paused = paused;
            let sink = StoredSink {
                definition: definition.clone(),
                ..stored
            };
            let put = Operation::Put(sink.record());
            self.inner.commit(name, Predicate::Exists, put)?;
            if let Some(handle) = self.inner.sinks.lock().get_mut(name) {
                handle.definition = definition;
            }
        }
        self.command(
            name,
            if paused {
                Command::Pause
            } else {
                Command::Resume
            },
        )
    }

    pub(crate) fn command(
        &self,
        name: &str,
        command: impl FnOnce(SyncSender<()>) -> Command,
    ) -> Result<(), SinkError> {
        let (reply, answer): (_, Receiver<()>) = sync_channel(1);
        self.inner.send(name, command(reply))?;
        answer
            .recv_timeout(COMMAND_TIMEOUT)
            .map_err(|_| SinkError::Unanswered {
                name: name.to_owned(),
            })
    }
}

impl Inner {
    pub(crate) fn find(&self, name: &str) -> Result<Found, SinkError> {
        let sinks = self.sinks.lock();
        match sinks.get(name) {
            Some(handle) => Ok(handle.found()),
            None => Err(SinkError::Unknown {
                name: name.to_owned(),
                nearest: nearest_name(name, sinks.keys().map(String::as_str)).map(str::to_owned),
            }),
        }
    }

    /// All sinks. The lock is not held while the log is looked at.
    fn all(&self) -> Vec<Found> {
        self.sinks.lock().values().map(Handle::found).collect()
    }

    pub(crate) fn statuses(&self) -> Vec<(SinkStatus, Figures)> {
        let known = self.all().into_iter();
        known
            .map(|found| {
                let figures = found.progress.figures();
                (found.status(&self.node), figures)
            })
            .collect()
    }

    /// How often which sink is compared.
    pub(crate) fn schedules(&self) -> BTreeMap<String, Duration> {
        let sinks = self.sinks.lock();
        let every = |handle: &Handle| handle.definition.verify_every_seconds;
        sinks
            .iter()
            .filter(|(_, handle)| handle.is_here())
            .filter_map(|(name, handle)| {
                every(handle).map(|seconds| (name.clone(), Duration::from_secs(seconds)))
            })
            .collect()
    }

    /// Looks whether the log that is kept for each sink is within its limit.
    pub(crate) fn check_retention(&self) {
        for found in self.all() {
            if found.retention.check() {
                found.progress.touch();
            }
        }
    }

    pub(crate) fn send(&self, name: &str, command: Command) -> Result<(), SinkError> {
        self.find(name)?.check_here()?;
        let sent = match self.sinks.lock().get(name) {
            Some(handle) => handle.commands.try_send(command).is_ok(),
            None => false,
        };
        if sent {
            return Ok(());
        }
        Err(SinkError::Busy {
            name: name.to_owned(),
        })
    }

    /// Whether there is room for a sink beside the others; it may replace the sink of a name.
    pub(crate) fn check_others(
        &self,
        definition: &SinkDefinition,
        replaced: Option<&str>,
    ) -> Result<(), SinkError> {
        let sinks = self.sinks.lock();
        if replaced.is_none() && sinks.contains_key(&definition.name) {
            return Err(SinkError::Exists {
                name: definition.name.clone(),
            });
        }
        if replaced.is_none() && sinks.len() >= SINKS_MAX {
            return Err(SinkError::TooMany { max: SINKS_MAX });
        }
        let others = sinks
            .values()
            .filter(|h| Some(h.definition.name.as_str()) != replaced);
        for handle in others {
            check_overlap(definition, &handle.definition)?;
        }
        Ok(())
    }

    pub(crate) fn commit(
        &self,
        name: &str,
        predicate: Predicate,
        operation: Operation,
    ) -> Result<Position, SinkError> {
        let mut attempt = 1;
        loop {
            let (guard, next) = match predicate {
                Predicate::Exists => self.unchanged(name, operation.clone())?,
                _ => (predicate.clone(), operation.clone()),
            };
            match self.commit_once(name, guard, next) {
                Err(SinkError::Commit(Refusal::GuardFailed { .. }))
                    if predicate == Predicate::Exists && attempt < COMMIT_ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                committed => return committed,
            }
        }
    }

    fn commit_once(
        &self,
        name: &str,
        predicate: Predicate,
        operation: Operation,
    ) -> Result<Position, SinkError> {
        let key = Bytes::from(name.to_owned());
        let mut writes = Vec::with_capacity(2);
        if operation == Operation::Delete {
            writes.extend(self.floor_deletion(name)?);
        }
        writes.push(Write {
            table: TABLE_SINKS,
            key: key.clone(),
            operation,
            headers: Vec::new(),
        });
        let request = CommitRequest {
            guards: vec![Guard {
                table: TABLE_SINKS,
                key,
                predicate,
            }],
            writes,
            ..CommitRequest::default()
        };
        let position = self.node.submit_system(request).wait()?.position;
        // Another node may have decided it; what this one does next rests on it.
        let applied = self.node.wait_for_blocking(position, COMMAND_TIMEOUT);
        if let Err(error) = applied {
            tracing::warn!(sink = name, %error, "a definition that was committed is not here yet");
        }
        Ok(position)
    }

    pub(crate) fn set_tables(&self, name: &str, tables: &TableIds) {
        if let Some(handle) = self.sinks.lock().get_mut(name) {
            handle.tables.clone_from(tables);
        }
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.bell.ring();
        self.placing.ring();
        let mut threads: Vec<_> = {
            let mut sinks = self.sinks.lock();
            let handles = sinks.values_mut();
            handles
                .filter_map(|handle| handle.leave(Leave::Stop))
                .collect()
        };
        threads.append(&mut self.placing.take_leaving());
        threads.append(&mut self.helpers.lock());
        for thread in threads {
            // A helper that holds the last reference comes here itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}
