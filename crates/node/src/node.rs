//! The handle of a node.

use std::sync::Arc;
use std::time::Duration;

use onelog_record::{CommitRequest, Position, Refusal};
use onelog_replica::{Catalog, Follower};
use onelog_state::{Snapshot, SnapshotError};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::applied_position::WaitError;
use crate::cluster::{Reply, submit};
use crate::driver::Command;
use crate::open::{OpenError, Running, open};
use crate::options::Options;
use crate::shared::Shared;
use crate::status::Status;
use crate::ticket::Ticket;

/// A node: cheap to clone, safe to share between threads. The node stops on request or
/// when the last handle goes.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) shared: Arc<Shared>,
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// The node had failed before it was stopped, or failed while stopping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node did not stop cleanly: {0}")]
pub struct StopError(pub String);

impl Node {
    /// Opens the node of a folder, which is made when missing: recovers the log, replays it over
    /// the state, and leads. Blocks until requests are admitted; with other nodes
    /// ([`Options::cluster`]), until this one takes part, whichever leads.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        Ok(Self::from_running(open(options)?))
    }

    /// Opens a node on other disks than the real one.
    pub fn open_on(
        log: Arc<dyn onelog_log::Disk>,
        state: Arc<dyn onelog_log::Disk>,
        options: Options,
    ) -> Result<Self, OpenError> {
        Ok(Self::from_running(crate::open::open_on(
            log, state, options,
        )?))
    }

    fn from_running(running: Running) -> Self {
        let handle = Handle {
            shared: Arc::clone(&running.shared),
            thread: Mutex::new(Some(running.thread)),
        };
        Self {
            shared: running.shared,
            handle: Arc::new(handle),
        }
    }

    /// Submits a transaction. Never waits: a full queue answers `Overloaded`. What it puts is checked
    /// against the schemas of its tables here, on the caller's thread. The tables of onelog itself
    /// cannot be written.
    pub fn submit(&self, request: CommitRequest) -> Ticket {
        match request.check_tables() {
            Ok(()) => self.submit_system(request),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// [`Node::submit`] for the crates of onelog, which keep definitions and notes in tables of their
    /// own. What the node could not apply is refused here too, whatever it is.
    pub fn submit_system(&self, request: CommitRequest) -> Ticket {
        if let Some(cluster) = &self.shared.cluster {
            let submitted = submit(&self.shared, cluster, request);
            return submitted.unwrap_or_else(|refusal| self.refuse(refusal));
        }
        let fingerprint = if request.id.is_some() {
            request.fingerprint()
        } else {
            0
        };
        let (sender, ticket) = Ticket::pending();
        let reply = Reply::Client(sender, None);
        self.shared.enqueue(request, fingerprint, reply);
        ticket
    }

    fn refuse(&self, refusal: Refusal) -> Ticket {
        self.shared.count(&refusal);
        Ticket::known(Err(refusal))
    }

    /// The applied position: everything below it is committed, durable and readable.
    #[must_use]
    pub fn position(&self) -> Position {
        self.shared.applied_position.position()
    }

    /// The oldest position whose records the log still has.
    #[must_use]
    pub fn log_start(&self) -> Position {
        self.shared.log_start()
    }

    /// The random id of this log, the same for as long as it lives.
    #[must_use]
    pub fn log_id(&self) -> u128 {
        self.shared.log_id
    }

    /// The state at the applied position. It never changes, however long it is held.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.state.snapshot()
    }

    /// The state at a recent position.
    pub fn snapshot_at(&self, at: Position) -> Result<Snapshot, SnapshotError> {
        self.shared.state.snapshot_at(at)
    }

    /// Waits until `position` is applied.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        self.shared.applied_position.wait(position, timeout).await
    }

    /// [`Node::wait_for`] for threads that block.
    pub fn wait_for_blocking(
        &self,
        position: Position,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        self.shared
            .applied_position
            .wait_blocking(position, timeout)
    }

    /// The tables, as of a position that is at least the one read before.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.catalog()
    }

    /// Holds the log's retention back at `position`.
    #[must_use]
    pub fn follower(&self, name: &str, position: Position) -> Follower {
        self.shared.followers.join(name, position)
    }

    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.shared)
    }

    /// All figures as Prometheus text.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        let metrics = &self.shared.metrics;
        metrics.position.set(self.position().get() as i64);
        metrics.log_start.set(self.log_start().get() as i64);
        metrics.queue.set(self.shared.commands.len() as i64);
        let status = self.status();
        metrics
            .log_ahead_ms
            .set(i64::try_from(status.log_ahead_ms).unwrap_or(i64::MAX));
        metrics.memtable_bytes.set(status.memtable_bytes as i64);
        if let Some(cluster) = &status.cluster {
            metrics.show_cluster(cluster);
        }
        if let Some(disk) = status.disk {
            metrics.disk_free_bytes.set(disk.free_bytes as i64);
            metrics.disk_needed_bytes.set(disk.needed_bytes as i64);
            metrics.read_only.set(disk.read_only.into());
        }
        metrics.text()
    }

    /// Where others register their own figures.
    #[must_use]
    pub fn registry(&self) -> &Mutex<Registry> {
        &self.shared.metrics.registry
    }

    /// Why the node stopped by itself, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// Stops the node: requests in the queue are still decided and answered, everything is
    /// flushed and checkpointed. Idempotent.
    pub fn stop(&self) -> Result<(), StopError> {
        self.handle.stop();
        self.shared
            .failure()
            .map_or(Ok(()), |reason| Err(StopError(reason)))
    }
}

impl Handle {
    fn stop(&self) {
        let mut thread = self.thread.lock();
        if let Some(thread) = thread.take() {
            if let Some(following) = &self.shared.following {
                following.begin_stop();
            }
            // An engine that has failed is gone already, with its end of the queue.
            self.shared.commands.send(Command::Stop);
            let _ = thread.join();
            if let Some(cluster) = &self.shared.cluster {
                cluster.stop();
            }
            if let Some(following) = &self.shared.following {
                following.stop();
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}
