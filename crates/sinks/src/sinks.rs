//! All sinks of a node: their definitions are records of `onelog.sinks`, each has a thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use onelog::{
    CommitRequest, Guard, KeyRange, Node, Operation, Position, Predicate, Refusal, Snapshot, Write,
};
use onelog_record::{TABLE_SINKS, nearest_name};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::definition::{DefinitionError, SinkDefinition, SinkKind, Url};
use crate::error::{SinkError, SinksError};
use crate::metrics::SinkCollector;
use crate::plan::Plan;
use crate::progress::{Figures, Progress, SinkState, SinkStatus};
use crate::runner::{Command, Runner, log_id};
use crate::store::StoreError;
use crate::stores::open_store;
use crate::verify::{Verification, verify};

/// The most sinks of one node; each has a thread.
pub const SINKS_MAX: usize = 256;
/// How many commands may wait for a sink.
const COMMANDS_MAX: usize = 64;
/// How long a sink may take to hear a command; a batch or a step of a rebuild may be under way.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a comparison waits for both sides to be opened.
const PICTURE_TIMEOUT: Duration = Duration::from_secs(60);

/// The sinks of a node. Cheap to clone. One per node.
#[derive(Clone, Debug)]
pub struct Sinks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    node: Node,
    sinks: Mutex<BTreeMap<String, Handle>>,
    /// Held while definitions change, so that they change one after the other.
    changing: Mutex<()>,
}

#[derive(Debug)]
struct Handle {
    definition: SinkDefinition,
    progress: Arc<Progress>,
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Sinks {
    /// Starts every sink that is defined.
    pub fn start(node: Node) -> Result<Self, SinksError> {
        let definitions = defined(&node.snapshot())?;
        let inner = Arc::new(Inner {
            node,
            sinks: Mutex::default(),
            changing: Mutex::default(),
        });
        for definition in definitions {
            // Until its store has been asked, nobody knows what of the log it still needs.
            let from = inner.node.log_start();
            inner.spawn(definition, from)?;
        }
        let collector = SinkCollector(Arc::downgrade(&inner));
        inner
            .node
            .registry()
            .lock()
            .register_collector(Box::new(collector));
        Ok(Self { inner })
    }

    /// Defines a sink and starts it. Blocks until the definition is committed, not until the
    /// store is filled.
    pub fn create(&self, definition: SinkDefinition) -> Result<SinkStatus, SinkError> {
        self.create_if(definition, Err)
    }

    /// [`Sinks::create`], also when the store cannot be reached now: the sink then waits for it, as
    /// one does whose store goes away later.
    pub fn create_ahead(&self, definition: SinkDefinition) -> Result<SinkStatus, SinkError> {
        self.create_if(definition, |error| match error {
            SinkError::Store(StoreError::Unavailable { .. }) => Ok(()),
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
        inner.check(&definition).or_else(excuse)?;
        let name = definition.name.clone();
        let committed = inner.commit(
            &name,
            Predicate::Absent,
            Operation::Put(definition_bytes(&definition)),
        );
        match committed {
            Err(SinkError::Commit(Refusal::GuardFailed { .. })) => {
                return Err(SinkError::Exists { name });
            }
            other => other?,
        };
        inner.spawn(definition, inner.node.log_start())?;
        self.get(&name)
    }

    /// All sinks by name.
    #[must_use]
    pub fn list(&self) -> Vec<SinkStatus> {
        let statuses = self.inner.statuses();
        statuses.into_iter().map(|(status, _)| status).collect()
    }

    /// One sink.
    pub fn get(&self, name: &str) -> Result<SinkStatus, SinkError> {
        let (definition, progress) = self.inner.find(name)?;
        Ok(progress.status(&self.inner.node, definition))
    }

    /// Lets a sink stand still, also across restarts.
    pub fn pause(&self, name: &str) -> Result<SinkStatus, SinkError> {
        self.set_paused(name, true)?;
        let (_, progress) = self.inner.find(name)?;
        // A batch or a filling under way ends first; the status tells when it does not end soon.
        let still = [SinkState::Paused, SinkState::Stopped, SinkState::Waiting];
        progress.wait_for_state(&still, COMMAND_TIMEOUT);
        self.get(name)
    }

    /// Lets a sink go on that stands still, was told to or not.
    pub fn resume(&self, name: &str) -> Result<SinkStatus, SinkError> {
        self.set_paused(name, false)?;
        self.get(name)
    }

    /// Ends a sink and forgets its position; its rows stay in the store.
    pub fn delete(&self, name: &str) -> Result<(), SinkError> {
        let inner = &self.inner;
        let _changing = inner.changing.lock();
        inner.find(name)?;
        inner.commit(name, Predicate::Exists, Operation::Delete)?;
        let handle = inner.sinks.lock().remove(name);
        if let Some(handle) = handle {
            handle.end(Command::Remove);
        }
        Ok(())
    }

    /// Compares a sink's store with the log at the sink's position. Blocks this thread for as long
    /// as reading both sides takes; the sink and the writers go on.
    pub fn verify(&self, name: &str) -> Result<Verification, SinkError> {
        let (reply, answer) = sync_channel(1);
        self.inner.tell(name, Command::Picture(reply))?;
        let mut pictures =
            answer
                .recv_timeout(PICTURE_TIMEOUT)
                .map_err(|_| SinkError::Busy {
                    name: name.to_owned(),
                })??;
        Ok(verify(
            &pictures.plan,
            &pictures.log,
            pictures.store.as_mut(),
        )?)
    }

    /// Fills the store anew, beside what it has, and swaps. Answers as soon as that has begun.
    pub fn rebuild(&self, name: &str) -> Result<SinkStatus, SinkError> {
        self.ask(name, Command::Rebuild)?;
        self.get(name)
    }

    /// Waits until a sink has reached a position: then its store shows everything below it.
    pub async fn wait(
        &self,
        name: &str,
        position: Position,
        timeout: Duration,
    ) -> Result<SinkStatus, SinkError> {
        let (_, progress) = self.inner.find(name)?;
        progress.wait(name, position, timeout).await?;
        self.get(name)
    }

    /// [`Sinks::wait`] for threads that block.
    pub fn wait_blocking(
        &self,
        name: &str,
        position: Position,
        timeout: Duration,
    ) -> Result<SinkStatus, SinkError> {
        let (_, progress) = self.inner.find(name)?;
        progress.wait_blocking(name, position, timeout)?;
        self.get(name)
    }

    /// Stops all threads; each ends its step first. Idempotent.
    pub fn stop(&self) {
        self.inner.stop();
    }

    fn set_paused(&self, name: &str, paused: bool) -> Result<(), SinkError> {
        let _changing = self.inner.changing.lock();
        let (mut definition, _) = self.inner.find(name)?;
        if definition.paused != paused {
            definition.paused = paused;
            let put = Operation::Put(definition_bytes(&definition));
            self.inner.commit(name, Predicate::Exists, put)?;
            if let Some(handle) = self.inner.sinks.lock().get_mut(name) {
                handle.definition = definition;
            }
        }
        self.ask(
            name,
            if paused {
                Command::Pause
            } else {
                Command::Resume
            },
        )
    }

    fn ask(&self, name: &str, command: fn(SyncSender<()>) -> Command) -> Result<(), SinkError> {
        let (reply, answer): (_, Receiver<()>) = sync_channel(1);
        self.inner.tell(name, command(reply))?;
        answer
            .recv_timeout(COMMAND_TIMEOUT)
            .map_err(|_| SinkError::Busy {
                name: name.to_owned(),
            })
    }
}

impl Inner {
    fn find(&self, name: &str) -> Result<(SinkDefinition, Arc<Progress>), SinkError> {
        let sinks = self.sinks.lock();
        match sinks.get(name) {
            Some(handle) => Ok((handle.definition.clone(), Arc::clone(&handle.progress))),
            None => Err(SinkError::Unknown {
                name: name.to_owned(),
                nearest: nearest_name(name, sinks.keys().map(String::as_str)).map(str::to_owned),
            }),
        }
    }

    /// All sinks. The lock is not held while the log is looked at.
    pub(crate) fn statuses(&self) -> Vec<(SinkStatus, Figures)> {
        let known: Vec<(SinkDefinition, Arc<Progress>)> = self
            .sinks
            .lock()
            .values()
            .map(|handle| (handle.definition.clone(), Arc::clone(&handle.progress)))
            .collect();
        known
            .into_iter()
            .map(|(definition, progress)| {
                let figures = progress.figures();
                (progress.status(&self.node, definition), figures)
            })
            .collect()
    }

    fn tell(&self, name: &str, command: Command) -> Result<(), SinkError> {
        self.find(name)?;
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

    /// Everything that can be checked before a sink is defined, its store included.
    fn check(&self, definition: &SinkDefinition) -> Result<(), SinkError> {
        check_text(definition)?;
        let plan = Arc::new(Plan::new(definition, self.node.catalog().as_ref())?);
        {
            let sinks = self.sinks.lock();
            if sinks.contains_key(&definition.name) {
                return Err(SinkError::Exists {
                    name: definition.name.clone(),
                });
            }
            if sinks.len() >= SINKS_MAX {
                return Err(SinkError::TooMany { max: SINKS_MAX });
            }
            for handle in sinks.values() {
                check_apart(definition, &handle.definition)?;
            }
        }
        let mut store = open_store(definition, &plan, &log_id(&self.node))?;
        Ok(store.check_target()?)
    }

    fn commit(
        &self,
        name: &str,
        predicate: Predicate,
        operation: Operation,
    ) -> Result<Position, SinkError> {
        let key = Bytes::from(name.to_owned());
        let request = CommitRequest {
            guards: vec![Guard {
                table: TABLE_SINKS,
                key: key.clone(),
                predicate,
            }],
            writes: vec![Write {
                table: TABLE_SINKS,
                key,
                operation,
                headers: Vec::new(),
            }],
            ..CommitRequest::default()
        };
        Ok(self.node.submit(request).wait()?.position)
    }

    fn spawn(&self, definition: SinkDefinition, from: Position) -> Result<(), SinksError> {
        let name = definition.name.clone();
        let failed = |cause| SinksError::Thread {
            name: name.clone(),
            cause,
        };
        let progress = Arc::new(Progress::new());
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let runner = Runner::new(
            self.node.clone(),
            definition.clone(),
            Arc::clone(&progress),
            received,
            self.node.follower(&format!("sink {name}"), from),
        )
        .map_err(failed)?;
        let thread = std::thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn(move || runner.run())
            .map_err(failed)?;
        let handle = Handle {
            definition,
            progress,
            commands,
            thread: Some(thread),
        };
        self.sinks.lock().insert(name, handle);
        Ok(())
    }

    fn stop(&self) {
        let threads: Vec<_> = {
            let mut sinks = self.sinks.lock();
            let handles = sinks.values_mut();
            handles
                .filter_map(|handle| {
                    // A full queue is read to its end; an ended thread needs no telling.
                    let _ = handle.commands.try_send(Command::Stop);
                    handle.thread.take()
                })
                .collect()
        };
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Handle {
    fn end(mut self, command: Command) {
        let _ = self.commands.try_send(command);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A definition that was put together by a program passes the same checks as one that was read.
fn check_text(definition: &SinkDefinition) -> Result<(), DefinitionError> {
    SinkDefinition::from_json(&definition.to_stored()).map(|_| ())
}

/// Two sinks must not fill one table.
fn check_apart(new: &SinkDefinition, other: &SinkDefinition) -> Result<(), DefinitionError> {
    if !are_one_store(&new.kind, &other.kind) {
        return Ok(());
    }
    for (n, mapping) in new.mappings.iter().enumerate() {
        let taken = other
            .mappings
            .iter()
            .any(|known| known.into.eq_ignore_ascii_case(&mapping.into));
        if taken {
            return Err(DefinitionError::new(
                format!("mappings[{n}].into"),
                format!(
                    "the sink '{}' fills '{}' in this store already; choose another name or another store",
                    other.name, mapping.into
                ),
            ));
        }
    }
    Ok(())
}

/// Whether two definitions lead to one store, as far as their texts tell; the store itself knows
/// the owner of each table.
fn are_one_store(new: &SinkKind, other: &SinkKind) -> bool {
    match (new, other) {
        (SinkKind::Sqlite { path: mine }, SinkKind::Sqlite { path: theirs }) => {
            mine == theirs
                || matches!((mine.canonicalize(), theirs.canonicalize()), (Ok(a), Ok(b)) if a == b)
        }
        (SinkKind::Postgres(mine), SinkKind::Postgres(theirs)) => {
            is_one_place(&mine.url, &theirs.url) && mine.schema == theirs.schema
        }
        (SinkKind::Mysql(mine), SinkKind::Mysql(theirs)) => is_one_place(&mine.url, &theirs.url),
        (SinkKind::Redis(mine), SinkKind::Redis(theirs)) => is_one_place(&mine.url, &theirs.url),
        (SinkKind::Elasticsearch(mine), SinkKind::Elasticsearch(theirs)) => {
            is_one_place(&mine.url, &theirs.url)
        }
        _ => false,
    }
}

fn is_one_place(mine: &Url, theirs: &Url) -> bool {
    let place = |url: &Url| {
        let text = url.as_written();
        let behind = text.rsplit('@').next().unwrap_or(text);
        let behind = behind.split("://").last().unwrap_or(behind);
        behind
            .split('?')
            .next()
            .unwrap_or(behind)
            .trim_end_matches('/')
            .to_owned()
    };
    place(mine) == place(theirs)
}

fn definition_bytes(definition: &SinkDefinition) -> Bytes {
    definition.to_stored().to_string().into()
}

/// The definitions that the log has. One that cannot be read stops nothing but itself.
fn defined(snapshot: &Snapshot) -> Result<Vec<SinkDefinition>, SinksError> {
    let range = KeyRange {
        table: TABLE_SINKS,
        from: Bytes::new(),
        to: None,
    };
    let mut out = Vec::new();
    for row in snapshot.scan(&range, false)? {
        let row = row?;
        match SinkDefinition::from_slice(&row.value) {
            Ok(definition) => out.push(definition),
            Err(error) => {
                let sink = String::from_utf8_lossy(&row.key);
                tracing::error!(%sink, %error, "the definition of a sink cannot be read");
            }
        }
    }
    Ok(out)
}
