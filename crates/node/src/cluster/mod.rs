//! One of several nodes: connections to the others, messages and snapshots on their way, requests that
//! are for the leader, addresses.
//!
//! What decides is in the replica; here bytes and waiting are looked after. Threads beside those of the
//! connections: `onelog-cluster` runs what waits for other nodes; `onelog-fetch` reads the log for
//! followers; `onelog-export` and `onelog-import` carry snapshots.

mod addresses;
mod calls;
mod change;
mod forward;
mod inbox;
mod incoming;
mod joining;
mod members;
mod mending;
mod newcomer;
mod not_following;
mod options;
mod outgoing;
mod reply;
mod sending;
mod start;
mod status;
mod view;
mod watch;
mod wire;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use onelog_peers::Peers;
use onelog_record::NodeId;
use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Builder, Handle, Runtime};

pub use calls::{Answering, CallError, Subject};
pub use change::MembersChangeError;
pub use forward::AHEAD_TIMEOUT;
pub use options::{
    ClusterOptions, ELECTION_MS, ELECTION_MS_MAX, ELECTION_MS_MIN, Join, START_TIMEOUT,
};
pub use start::ClusterError;
pub use status::{ClusterStatus, MemberStatus};
pub use watch::ClusterWatch;

pub(crate) use addresses::{keep, refresh};
pub(crate) use forward::{again, submit};
pub(crate) use inbox::Messages;
pub(crate) use mending::{mend, read_mended, recover};
pub(crate) use outgoing::send as send_snapshot;
pub(crate) use reply::{Reply, answer_bytes, no_barrier};
pub(crate) use sending::{send, send_digests};
pub(crate) use start::{Opening, Own, check_alone, own_log};
pub(crate) use view::View;

use crate::worker::Worker;

/// How many reads of the log for followers may wait: more than there are members.
const FETCHES_MAX: usize = 64;
/// How long a stopping node waits for the answers of other nodes that its clients wait for.
const FORWARDS_TIMEOUT: Duration = Duration::from_secs(3);
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(2);

/// A worker that ends before its node's last handle does.
#[derive(Debug)]
pub(crate) struct Work(Mutex<Option<Worker>>);

impl Work {
    pub(crate) fn start(name: &str, jobs_max: usize) -> std::io::Result<Self> {
        let worker = Worker::start_with(name, jobs_max)?;
        Ok(Self(Mutex::new(Some(worker))))
    }

    pub(crate) fn push(&self, job: impl FnOnce() + Send + 'static) -> bool {
        let worker = self.0.lock();
        worker.as_ref().is_some_and(|worker| worker.push(job))
    }

    /// Waits for the job that runs, and for those that were handed over.
    pub(crate) fn stop(&self) {
        let worker = self.0.lock().take();
        drop(worker);
    }
}

/// What a node has of its cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) node: NodeId,
    /// Where other nodes reach this one.
    own_address: String,
    pub(crate) peers: Peers,
    pub(crate) views: view::Views,
    pub(crate) fetcher: Work,
    addresses: addresses::Addresses,
    calls: calls::Calls,
    in_flight: forward::InFlight,
    outgoing: outgoing::Outgoing,
    incoming: incoming::Incoming,
    /// Held by the change of the members that this node makes as the leader: each rests on what the
    /// one before has recorded.
    changing: tokio::sync::Mutex<()>,
    not_following: not_following::NotFollowing,
    /// Why this node has not become what it wants to be.
    join_error: Mutex<Option<String>>,
    mending: mending::Mending,
    exporter: Work,
    importer: Work,
    runtime: Mutex<Option<Runtime>>,
    handle: Handle,
    is_stopping: Mutex<bool>,
    stops: Condvar,
}

impl Cluster {
    fn new(options: &ClusterOptions, peers: Peers) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("onelog-cluster")
            .enable_time()
            .build()?;
        Ok(Self {
            node: options.node,
            own_address: (options.address.clone())
                .unwrap_or_else(|| peers.local_address().to_string()),
            peers,
            views: view::Views::default(),
            fetcher: Work::start("onelog-fetch", FETCHES_MAX)?,
            addresses: addresses::Addresses::new(&options.peers),
            calls: calls::Calls::default(),
            in_flight: forward::InFlight::default(),
            outgoing: outgoing::Outgoing::default(),
            incoming: incoming::Incoming::default(),
            changing: tokio::sync::Mutex::default(),
            not_following: not_following::NotFollowing::default(),
            join_error: Mutex::default(),
            mending: mending::Mending::default(),
            exporter: Work::start("onelog-export", FETCHES_MAX)?,
            importer: Work::start("onelog-import", 1)?,
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
            is_stopping: Mutex::new(false),
            stops: Condvar::new(),
        })
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(task);
    }

    /// The members, their addresses or who leads may have changed: connections follow.
    pub(crate) fn look_at_addresses(&self) {
        self.addresses.changed.notify_one();
    }

    fn is_stopping(&self) -> bool {
        *self.is_stopping.lock()
    }

    /// Waits on a thread of its own, but not beyond the node's stop.
    fn pause(&self, pause: Duration) {
        let mut is_stopping = self.is_stopping.lock();
        if !*is_stopping {
            self.stops.wait_for(&mut is_stopping, pause);
        }
    }

    /// Ends everything, once the engine's thread has ended. Clients that wait for other nodes are given
    /// a while.
    pub(crate) fn stop(&self) {
        *self.is_stopping.lock() = true;
        self.stops.notify_all();
        self.in_flight.wait_until_none(FORWARDS_TIMEOUT);
        self.peers.stop();
        for work in [&self.fetcher, &self.exporter, &self.importer] {
            work.stop();
        }
        let Some(runtime) = self.runtime.lock().take() else {
            return;
        };
        // A thread of a runtime must not wait for the end of one.
        match Handle::try_current() {
            Ok(_) => runtime.shutdown_background(),
            Err(_) => runtime.shutdown_timeout(RUNTIME_TIMEOUT),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The runtime must not be dropped inside another one.
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits with a client's own time limit on any thread that is no task.
pub(crate) fn block_on<R: Send + 'static>(
    cluster: &Cluster,
    task: impl Future<Output = R> + Send + 'static,
) -> Option<R> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    cluster.spawn(async move {
        let _ = sender.send(task.await);
    });
    receiver.blocking_recv().ok()
}

/// Runs what serves the cluster in the background.
pub(crate) fn begin(shared: &Arc<crate::shared::Shared>) {
    if let Some(cluster) = &shared.cluster {
        refresh(shared, cluster);
        cluster.spawn(keep(Arc::clone(shared)));
        cluster.spawn(joining::notice_removal(Arc::clone(shared)));
        cluster.spawn(not_following::keep_saying(Arc::clone(shared)));
        let join = (shared.options.cluster.as_ref()).and_then(|options| options.join);
        if let Some(join) = join {
            cluster.spawn(joining::join(Arc::clone(shared), join));
        }
    }
}
