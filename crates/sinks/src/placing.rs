//! Where the sinks run. A node that is alone runs them all. In a cluster each runs on one node: the
//! leader, or the one that its definition names, as long as that one is there. A store that is on one
//! machine is that of the node that is named: its sink waits for that one, and runs on no other.
//!
//! - The definitions are the log's. Every node has them all, and follows what other nodes change.
//! - Each node decides for itself, by what it knows of the cluster. Two may believe for a moment that
//!   a sink is theirs: before a node takes a store over, a majority has confirmed that it is part of
//!   the cluster, and the takeover shuts the other one out by the epoch in the store.
//! - Where a sink does not run the log is kept for it from its floor on.
//!
//! Thread: `sinks-placing`, in a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog::{
    ClusterStatus, ClusterWatch, KeyRange, Node, Operation, Position, Predicate, Refusal,
};
use onelog_record::{Offset, TABLE_SINKS};
use onelog_store::SinkDefinition;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::{SinkError, SinksError};
use crate::floors;
use crate::handle::Work;
use crate::lifecycle::Leave;
use crate::permission;
use crate::progress::{Place, Progress, SinkState};
use crate::sinks::Inner;
use crate::stored::StoredSink;

/// For how long a node may be out of reach until the leader runs its sinks.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// How often connections are looked at, which nothing reports.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The shortest time between two looks at the definitions while the log grows.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(crate) struct Placing {
    bell: Arc<Notify>,
    /// Since when nodes that definitions name are out of reach.
    lost: Mutex<BTreeMap<u64, Instant>>,
    /// Threads of sinks that are no longer defined.
    leaving: Mutex<Vec<JoinHandle<()>>>,
}

impl Placing {
    pub(crate) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    pub(crate) fn take_leaving(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.leaving.lock())
    }

    fn leave(&self, thread: Option<JoinHandle<()>>) {
        let mut leaving = self.leaving.lock();
        leaving.retain(|thread| !thread.is_finished());
        leaving.extend(thread);
    }

    fn is_lost(&self, node: u64) -> bool {
        let lost = self.lost.lock();
        lost.get(&node)
            .is_some_and(|since| since.elapsed() >= LOST_AFTER)
    }

    /// Looks which of these nodes are connected.
    fn look_for(&self, wanted: &BTreeSet<u64>, cluster: &ClusterStatus) {
        let mut lost = self.lost.lock();
        lost.retain(|node, _| wanted.contains(node));
        for node in wanted {
            let mut members = cluster.members.iter();
            let is_connected = members.any(|member| member.node == *node && member.is_connected);
            if is_connected {
                lost.remove(node);
            } else {
                lost.entry(*node).or_insert_with(Instant::now);
            }
        }
    }
}

/// Where a sink runs that names this node, or none, and whose store may be on one machine.
fn place_in(
    cluster: &ClusterStatus,
    run_on: Option<u64>,
    is_on_one_machine: bool,
    is_lost: impl Fn(u64) -> bool,
) -> Place {
    let me = cluster.node;
    // Without a leader this node may be the only one that believes to be in the cluster.
    let Some(leader) = cluster.leader else {
        return Place::Elsewhere(None);
    };
    let is_member = |node: u64| cluster.members.iter().any(|member| member.node == node);
    match run_on {
        Some(node) if node == me && is_member(node) => Place::Here(Some(me)),
        Some(node) if is_member(node) && !is_lost(node) => Place::Elsewhere(Some(node)),
        Some(node) if is_on_one_machine => Place::Waits(node),
        _ if leader != me => Place::Elsewhere(Some(leader)),
        _ if cluster.leads => Place::Here(Some(me)),
        // It leads as soon as everything from before is applied.
        _ => Place::Elsewhere(None),
    }
}

impl Inner {
    pub(crate) fn place_of(&self, definition: &SinkDefinition) -> Place {
        match self.node.cluster() {
            None => Place::Here(None),
            Some(cluster) => self.place_by(&cluster, definition),
        }
    }

    fn place_by(&self, cluster: &ClusterStatus, definition: &SinkDefinition) -> Place {
        let is_on_one_machine = definition.target.kind().is_on_one_machine();
        place_in(cluster, definition.run_on, is_on_one_machine, |node| {
            self.placing.is_lost(node)
        })
    }

    /// That a sink's record is what this node knows of it, and what follows it: that its right to take
    /// a store is used up is known to the record alone.
    pub(crate) fn unchanged(
        &self,
        name: &str,
        next: Operation,
    ) -> Result<(Predicate, Operation), SinkError> {
        let row = self.node.snapshot().get(TABLE_SINKS, name.as_bytes());
        let Some(row) = row.map_err(|cause| SinkError::Read { cause })? else {
            return Ok((Predicate::Exists, next));
        };
        let next = match next {
            Operation::Put(record) => Operation::Put(permission::carried(&row.value, record)),
            other => other,
        };
        let version = Predicate::Version(row.version);
        if self.node.cluster().is_none() {
            return Ok((version, next));
        }
        let stored = StoredSink::read(self.kinds, &row.value)?;
        let sinks = self.sinks.lock();
        match sinks.get(name) {
            Some(handle) if !handle.is_same(&stored) => Err(SinkError::Busy {
                name: name.to_owned(),
            }),
            _ => Ok((version, next)),
        }
    }

    /// Knows what was defined on any node before this call. `changing` MUST be held.
    pub(crate) fn catch_up(&self) -> Result<(), Refusal> {
        if self.node.cluster().is_none() {
            return Ok(());
        }
        self.node.read_barrier_blocking()?;
        if let Err(error) = self.follow_definitions() {
            tracing::warn!(%error, "the definitions of the sinks cannot be read");
        }
        Ok(())
    }

    /// Takes in the definitions that are here, unless others are being changed.
    pub(crate) fn try_catch_up(&self) -> bool {
        let changing = self.changing.try_lock();
        changing.is_some_and(|_changing| self.follow_definitions().is_ok())
    }

    /// Brings the sinks here in line with the definitions and the cluster. Answers whether that has to
    /// be done again soon.
    fn reconcile(&self) -> bool {
        let Some(cluster) = self.node.cluster() else {
            return false;
        };
        self.send_away(&cluster);
        // A change may wait for a store.
        let Some(_changing) = self.changing.try_lock() else {
            return true;
        };
        if let Err(error) = self.follow_definitions() {
            tracing::warn!(%error, "the definitions of the sinks cannot be read; tried again");
            return true;
        }
        self.place_all(&cluster);
        false
    }

    /// Ends what no longer runs here, before anything that could wait.
    fn send_away(&self, cluster: &ClusterStatus) {
        let mut sinks = self.sinks.lock();
        let named = sinks.values().filter_map(|handle| handle.definition.run_on);
        self.placing.look_for(&named.collect(), cluster);
        for (name, handle) in sinks.iter_mut() {
            let place = self.place_by(cluster, &handle.definition);
            if let Place::Here(_) = place {
                continue;
            }
            if handle.work() == Work::Runs {
                let runs_on = match place {
                    Place::Elsewhere(node) => node,
                    Place::Here(_) | Place::Waits(_) => None,
                };
                tracing::info!(sink = name, runs_on, "a sink no longer runs on this node");
            }
            if let Place::Waits(node) = place
                && handle.progress.place() != place
            {
                tracing::warn!(
                    sink = name,
                    node,
                    "a sink waits for the node that has its store, which is out of reach or no member"
                );
            }
            handle.send_away();
            handle.progress.set_place(place);
        }
    }

    fn follow_definitions(&self) -> Result<(), onelog::ReadError> {
        let rows = rows(&self.node)?;
        self.end_deleted(&rows);
        for (name, (version, value)) in rows {
            let known = self.sinks.lock().get(&name).map(|handle| handle.version);
            if known == Some(Some(version)) {
                continue;
            }
            match StoredSink::read(self.kinds, &value) {
                Ok(sink) => self.follow_definition(name, version, sink),
                Err(error) => self.hold_log_for(&name, &error),
            }
        }
        Ok(())
    }

    fn end_deleted(&self, rows: &BTreeMap<String, (Offset, Bytes)>) {
        self.foreign
            .lock()
            .retain(|name, _| rows.contains_key(name));
        let mut sinks = self.sinks.lock();
        sinks.retain(|name, handle| {
            let is_defined = rows.contains_key(name);
            if !is_defined {
                tracing::info!(sink = name, "a sink was deleted on another node");
                self.placing.leave(handle.leave(Leave::Stop));
            }
            is_defined
        });
    }

    fn follow_definition(&self, name: String, version: Offset, sink: StoredSink) {
        {
            let mut sinks = self.sinks.lock();
            if let Some(handle) = sinks.get_mut(&name) {
                handle.version = Some(version);
                if let Some(verified) = &sink.verified
                    && handle.progress.verified().as_ref() != Some(verified)
                {
                    handle.progress.set_verified(verified.clone());
                }
                if !handle.is_same(&sink) {
                    tracing::info!(sink = name, "the definition was changed on another node");
                    handle.change(sink);
                }
                return;
            }
        }
        let floor = floors::of(&self.node, &name).unwrap_or_else(|| self.node.log_start());
        if let Err(error) = self.begin(sink, floor, Arc::new(Progress::new())) {
            tracing::error!(sink = name, %error, "a sink cannot be started");
        }
    }

    fn hold_log_for(&self, name: &str, error: &onelog_mapping::DefinitionError) {
        let mut foreign = self.foreign.lock();
        if !foreign.contains_key(name) {
            tracing::error!(sink = name, %error, "the definition of a sink cannot be read");
            let hold = onelog::sink_follower(name);
            let follower = self.node.follower(&hold, self.node.log_start());
            foreign.insert(name.to_owned(), follower);
        }
    }

    /// Starts what runs here from now on.
    fn place_all(&self, cluster: &ClusterStatus) {
        let mut starting = Vec::new();
        {
            let mut sinks = self.sinks.lock();
            for handle in sinks.values_mut() {
                let place = self.place_by(cluster, &handle.definition);
                let Place::Here(_) = place else { continue };
                if matches!(handle.work(), Work::Absent | Work::Left) {
                    starting.push((place, handle.found()));
                } else if handle.work() == Work::Runs {
                    handle.progress.set_place(place);
                }
            }
        }
        for (place, found) in starting {
            let name = found.definition.name.clone();
            tracing::info!(sink = name, "a sink runs on this node");
            let definition = &found.definition;
            if definition.target.kind().is_on_one_machine() && definition.run_on.is_none() {
                tracing::warn!(
                    sink = name,
                    "it came with the leadership, and its store is one of this machine, perhaps another than before: give it a node (onelog sinks replace, with 'run_on')"
                );
            }
            found.progress.set_place(place);
            found.progress.revive(SinkState::Starting);
            found.progress.set_position(None);
            let from = found.retention.position();
            if let Err(error) = self.spawn(found.stored(), from, found.progress) {
                tracing::error!(sink = name, %error, "a sink cannot be started");
            }
        }
    }
}

/// The records of all definitions.
fn rows(node: &Node) -> Result<BTreeMap<String, (Offset, Bytes)>, onelog::ReadError> {
    let all = KeyRange {
        table: TABLE_SINKS,
        from: Bytes::new(),
        to: None,
    };
    let rows = node.snapshot().scan(&all, false)?;
    rows.map(|row| {
        let row = row?;
        let name = String::from_utf8_lossy(&row.key).into_owned();
        Ok((name, (row.version, row.value)))
    })
    .collect()
}

/// Follows the cluster and the definitions, where there is a cluster.
pub(crate) fn start(inner: &Arc<Inner>) -> Result<(), SinksError> {
    let Some(watch) = inner.node.watch_cluster() else {
        return Ok(());
    };
    let name = "sinks-placing";
    let failed = |cause| SinksError::Thread {
        name: name.to_owned(),
        cause,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(failed)?;
    let (weak, bell) = (Arc::downgrade(inner), inner.placing.bell());
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || runtime.block_on(follow(weak, bell, watch)))
        .map_err(failed)?;
    inner.helpers.lock().push(thread);
    Ok(())
}

async fn follow(sinks: Weak<Inner>, bell: Arc<Notify>, mut watch: ClusterWatch) {
    loop {
        let (node, seen, is_unfinished) = {
            let inner = sinks.upgrade();
            let Some(inner) = inner.filter(|inner| !inner.stopping.load(Ordering::Acquire)) else {
                return;
            };
            let seen = inner.node.position();
            (inner.node.clone(), seen, inner.reconcile())
        };
        let next = Position(seen.get() + 1);
        let grown = async {
            // A node that has stopped grows no more.
            if node.wait_for(next, LOOK_EVERY).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let is_grown = tokio::select! {
            biased;
            () = bell.notified() => false,
            () = watch.changed() => false,
            () = grown => true,
            () = tokio::time::sleep(if is_unfinished { PAUSE } else { LOOK_EVERY }) => false,
        };
        drop(node);
        if is_grown {
            // Records come in numbers; leaders and sinks do not.
            tokio::select! {
                biased;
                () = bell.notified() => {}
                () = watch.changed() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use onelog::MemberStatus;

    use super::*;

    fn cluster(node: u64, leader: Option<u64>) -> ClusterStatus {
        let member = |node| MemberStatus {
            node,
            is_voter: true,
            address: None,
            is_connected: true,
            last_error: None,
            other_address: None,
            matched: None,
            is_active: None,
            takes_snapshot: None,
            not_following: None,
        };
        ClusterStatus {
            node,
            address: String::new(),
            term: 7,
            leader,
            leads: leader == Some(node),
            is_member: true,
            is_changing: false,
            is_removed: false,
            join_error: None,
            not_following: None,
            mended_frames: 0,
            disk_full: false,
            members: vec![member(1), member(2), member(3)],
        }
    }

    #[test]
    fn a_sink_runs_on_the_leader_or_on_the_node_that_it_names_while_that_is_there() {
        let (here, elsewhere) = (Place::Here, Place::Elsewhere);
        let place = |node, leader, run_on, lost| {
            place_in(&cluster(node, leader), run_on, false, |node| {
                Some(node) == lost
            })
        };
        assert_eq!(place(1, Some(1), None, None), here(Some(1)));
        assert_eq!(place(2, Some(1), None, None), elsewhere(Some(1)));
        // No leader is known, perhaps because this node is cut off.
        assert_eq!(place(2, None, None, None), elsewhere(None));
        assert_eq!(place(3, None, Some(3), None), elsewhere(None));
        assert_eq!(place(3, Some(1), Some(3), None), here(Some(3)));
        assert_eq!(place(1, Some(1), Some(3), None), elsewhere(Some(3)));
        // It is out of reach, or no member.
        assert_eq!(place(1, Some(1), Some(3), Some(3)), here(Some(1)));
        assert_eq!(place(1, Some(1), Some(9), None), here(Some(1)));
        assert_eq!(place(2, Some(1), Some(9), None), elsewhere(Some(1)));
        let begins = ClusterStatus {
            leads: false,
            ..cluster(1, Some(1))
        };
        assert_eq!(place_in(&begins, None, false, |_| false), elsewhere(None));
    }

    #[test]
    fn a_store_on_one_machine_waits_for_the_node_that_it_names_and_else_moves_with_the_leader() {
        let (here, elsewhere) = (Place::Here, Place::Elsewhere);
        let place = |node, leader, run_on, lost| {
            place_in(&cluster(node, leader), run_on, true, |node| {
                Some(node) == lost
            })
        };
        assert_eq!(place(3, Some(1), Some(3), None), here(Some(3)));
        assert_eq!(place(1, Some(1), Some(3), None), elsewhere(Some(3)));
        // It is out of reach, or no member (any more), as seen by the leader, another one, and itself.
        assert_eq!(place(1, Some(1), Some(3), Some(3)), Place::Waits(3));
        assert_eq!(place(2, Some(1), Some(3), Some(3)), Place::Waits(3));
        assert_eq!(place(1, Some(1), Some(9), None), Place::Waits(9));
        assert_eq!(place(9, Some(1), Some(9), None), Place::Waits(9));
        assert_eq!(place(3, None, Some(3), None), elsewhere(None));
        assert_eq!(place(1, Some(1), None, None), here(Some(1)));
        assert_eq!(place(2, Some(1), None, None), elsewhere(Some(1)));
    }
}
