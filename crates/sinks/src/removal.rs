//! What a sink leaves in a store that it no longer writes: its position and the ownership of its
//! tables, which are taken away when it is deleted or moved, or later, by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use onelog_store::{SinkDefinition, Store, StoreError};
use serde::Serialize;

use crate::error::SinkError;
use crate::open::{open_store, plan_of, plan_of_any_table};
use crate::parking;
use crate::runner::log_id;
use crate::sinks::{Inner, Sinks};

/// How long a deletion waits for the sink's thread and for its store, together.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A store that did not answer a deletion.
#[derive(Debug, thiserror::Error)]
#[error(
    "it did not answer within {} s; what is still there: the sink's position, and that its tables are this sink's",
    REMOVAL_TIMEOUT.as_secs()
)]
struct Unanswered;

/// A store that still says what a deleted or moved sink had there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remains {
    /// Where the store is, without secrets.
    pub store: String,
    /// Why it could not be cleaned.
    pub why: String,
}

impl Sinks {
    /// Takes away what a sink that was deleted or moved has left in the store of its former
    /// definition; its rows stay, without an owner. Whether the store had a record of it.
    ///
    /// Refuses a sink of another log, which may be alive there.
    pub fn forget(&self, definition: &SinkDefinition) -> Result<bool, SinkError> {
        self.forget_with(definition, false)
    }

    /// [`Sinks::forget`], also of a sink of the log that the definition names in `take_from_log`. The
    /// name stays this log's in the store, without a position, until it is forgotten once more: so a
    /// server that still runs the sink finds that, and stops it.
    pub fn forget_of_other_log(&self, definition: &SinkDefinition) -> Result<bool, SinkError> {
        self.forget_with(definition, true)
    }

    fn forget_with(&self, definition: &SinkDefinition, release: bool) -> Result<bool, SinkError> {
        let inner = &self.inner;
        let _changing = inner.changing.lock();
        let mut store = inner.former_store(definition)?;
        // Where there is no record of it, a table may still be called its own.
        let followed = store.followed()?.map(|found| found.log_id);
        let is_known = followed.is_some();
        let ours = log_id(&inner.node);
        let other = followed.filter(|log| *log != ours);
        let name = &definition.name;
        if let Some(log) = &other
            && !release
        {
            return Err(SinkError::OfOtherLog {
                name: name.clone(),
                store: definition.target.place(),
                log: log.clone(),
                ours,
                position: store.position()?.map(|found| found.position),
            });
        }
        let epoch = match inner.find(name) {
            Ok(known) => {
                known.check_here()?;
                // Whether that one writes here shows by takeovers, which its thread must not meet.
                inner.hand_over(name);
                let forgotten = inner.forget_unless_used(&known.definition, definition, &mut store);
                inner.go_on(known)?;
                forgotten?
            }
            Err(_) => {
                let epoch = store.take_over_from(definition.take_from_log.as_deref())?;
                store.remove()?;
                epoch
            }
        };
        if other.is_some() {
            // Otherwise the sink of the other log would find nothing and begin again, or, with the epoch
            // that it has, finish a rebuild.
            store.set_first_epoch(epoch + 1);
            while store.take_over()? <= epoch {}
        }
        let place = definition.target.place();
        tracing::info!(
            sink = definition.name,
            store = place,
            "a former sink was forgotten in its store"
        );
        Ok(is_known)
    }
}

impl Inner {
    /// The store of a definition whose tables may be gone from the log.
    fn former_store(&self, definition: &SinkDefinition) -> Result<Box<dyn Store>, SinkError> {
        let plan = Arc::new(plan_of_any_table(&self.node, definition)?);
        // Opening a file that is away would make one.
        definition
            .target
            .check_place()
            .map_err(|what| StoreError::Unavailable {
                what: format!("opening {}", definition.target.place()),
                cause: what.into(),
            })?;
        Ok(open_store(definition, &plan, &log_id(&self.node))?)
    }

    /// Whether a sink writes to the store `former` of another definition of its name, perhaps by
    /// another address: a takeover through one of them then shows in the other. `from`: the log that
    /// the former store may be taken from.
    fn writes_to(
        &self,
        sink: &SinkDefinition,
        definition: &SinkDefinition,
        from: Option<&str>,
        former: &mut dyn Store,
    ) -> Result<bool, SinkError> {
        if sink.target.kind().name() != definition.target.kind().name() {
            return Ok(false);
        }
        if sink.target.is_same_store(definition.target.as_ref()) {
            return Ok(true);
        }
        let plan = Arc::new(plan_of(&self.node, sink)?);
        let mut current = open_store(sink, &plan, &log_id(&self.node))?;
        let before = former.take_over_from(from)?;
        match current.take_over() {
            // Another one than `former`, which is this log's now. The sink's own right is its thread's.
            Err(StoreError::OtherLog { .. }) => return Ok(false),
            taken => taken?,
        };
        Ok(former.take_over()? != before + 1)
    }

    fn forget_unless_used(
        &self,
        sink: &SinkDefinition,
        definition: &SinkDefinition,
        former: &mut Box<dyn Store>,
    ) -> Result<u64, SinkError> {
        let from = definition.take_from_log.as_deref();
        if self.writes_to(sink, definition, from, former.as_mut())? {
            return Err(SinkError::StillThere {
                name: definition.name.clone(),
            });
        }
        let epoch = former.take_over_from(from)?;
        former.remove()?;
        Ok(epoch)
    }

    /// Forgets a deleted sink in its store, and what it had parked, once its thread has ended; not
    /// longer than [`REMOVAL_TIMEOUT`].
    pub(crate) fn forget_deleted(
        self: &Arc<Self>,
        definition: &SinkDefinition,
        thread: Option<JoinHandle<()>>,
    ) -> Option<Remains> {
        let name = &definition.name;
        let store = definition.target.place();
        tracing::info!(
            sink = name,
            store,
            "a sink was deleted; its rows stay in the store"
        );
        let given_up = Arc::new(AtomicBool::new(false));
        let (reply, answer) = sync_channel(1);
        let inner = Arc::clone(self);
        let (former, is_over) = (definition.clone(), Arc::clone(&given_up));
        let spawned = Builder::new().name("onelog-forget".into()).spawn(move || {
            let _ = thread.map(JoinHandle::join);
            let removed = inner.forget_at_once(&former, &is_over);
            reply.send(left_behind(&former, removed)).ok();
        });
        if let Err(error) = spawned {
            return Some(remains(definition, &error));
        }
        match answer.recv_timeout(REMOVAL_TIMEOUT) {
            Ok(left) => left,
            Err(_) => {
                given_up.store(true, Ordering::Release);
                Some(remains(definition, &Unanswered))
            }
        }
    }

    /// `is_over`: nobody waits for it, and the name may be another sink's by now.
    fn forget_at_once(
        &self,
        definition: &SinkDefinition,
        is_over: &AtomicBool,
    ) -> Result<(), SinkError> {
        let is_over = || is_over.load(Ordering::Acquire);
        if is_over() {
            return Ok(());
        }
        let mut store = self.former_store(definition)?;
        if is_over() {
            return Ok(());
        }
        let removed = store.take_over().and_then(|_| match is_over() {
            true => Ok(()),
            false => store.remove(),
        });
        match removed {
            // It has taken with it what the sink had there.
            Err(StoreError::OtherLog { .. }) => {}
            removed => removed?,
        }
        if is_over() {
            return Ok(());
        }
        // As long as the store has a position, what is parked is part of what it means.
        if let Err(end) = parking::forget(&self.node, &definition.name) {
            let fault = end.fault();
            tracing::warn!(sink = definition.name, %fault, "what a deleted sink had parked stays in onelog.parked");
        }
        Ok(())
    }

    /// Forgets a sink in the store of its former definition, where it has moved to another store.
    pub(crate) fn forget_moved(
        &self,
        former: &SinkDefinition,
        now: &SinkDefinition,
    ) -> Option<Remains> {
        if now.target.is_same_store(former.target.as_ref()) {
            return None;
        }
        let removed = self.former_store(former).and_then(|mut store| {
            // What another log has taken since is that log's.
            if !self.writes_to(now, former, None, store.as_mut())? {
                store.take_over()?;
                store.remove()?;
            }
            Ok(())
        });
        left_behind(former, removed)
    }
}

/// What is left where a store could not be cleaned. Another log that has taken the store meanwhile has
/// taken with it what the sink had there, so that nothing is left.
fn left_behind(former: &SinkDefinition, removed: Result<(), SinkError>) -> Option<Remains> {
    match removed {
        Ok(()) | Err(SinkError::Store(StoreError::OtherLog { .. })) => None,
        Err(error) => Some(remains(former, &error)),
    }
}

/// What stays of a sink in a store that is on the machine of a lost node.
pub(crate) fn on_lost_node(definition: &SinkDefinition, node: u64) -> Remains {
    let why = format!("it is on the machine of node {node} of the cluster, which is out of reach");
    remains(definition, &why)
}

fn remains(definition: &SinkDefinition, error: &impl std::fmt::Display) -> Remains {
    let store = definition.target.place();
    tracing::warn!(
        sink = definition.name, store, %error,
        "a store that a sink no longer writes still says that its tables are that sink's; when it can be reached: onelog sinks forget, with the former definition"
    );
    Remains {
        store,
        why: error.to_string(),
    }
}
