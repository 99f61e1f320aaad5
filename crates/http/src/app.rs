//! What every request shares, and the bounds that all of them share.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use onelog::{AHEAD_TIMEOUT, Catalog, Node, SnapshotError, TableDefinition, WaitError};
use onelog_record::{Position, TableId, ValueKind, code};
use onelog_sinks::Sinks;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::errors::{ApiError, TableNames};
use crate::options::{
    BLOCKING_CALLS_MAX, DRY_RUNS_MAX, HttpOptions, REPLICA_STREAMS_MAX, VERIFICATIONS_MAX,
};
use crate::routes::replica::Replicas;
use onelog_request::{KnownTable, Tables};

/// The delay before the next try of a request that found no room.
const RETRY_AFTER_MS: u64 = 1_000;

/// The state of the door.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) node: Node,
    pub(crate) sinks: Sinks,
    pub(crate) options: HttpOptions,
    pub(crate) bodies: Semaphore,
    blocking: Arc<Semaphore>,
    verifications: Arc<Semaphore>,
    dry_runs: Arc<Semaphore>,
    log_streams: Arc<Semaphore>,
    pub(crate) replicas: Replicas,
    stop: watch::Sender<bool>,
}

impl App {
    pub(crate) fn new(node: Node, sinks: Sinks, options: HttpOptions) -> Self {
        Self {
            node,
            sinks,
            bodies: Semaphore::new(options.bodies_bytes_max.min(Semaphore::MAX_PERMITS)),
            blocking: Arc::new(Semaphore::new(BLOCKING_CALLS_MAX)),
            verifications: Arc::new(Semaphore::new(VERIFICATIONS_MAX)),
            dry_runs: Arc::new(Semaphore::new(DRY_RUNS_MAX)),
            log_streams: Arc::new(Semaphore::new(
                options.log_streams_max.min(Semaphore::MAX_PERMITS),
            )),
            replicas: Replicas::new(REPLICA_STREAMS_MAX),
            stop: watch::Sender::new(false),
            options,
        }
    }

    /// Ends every wait and every stream.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Completes when the door closes.
    pub(crate) fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.stop.subscribe();
        async move {
            // The sender lives as long as the door; without it the door is closed as well.
            let _ = stop.wait_for(|stopped| *stopped).await;
        }
    }

    /// Waits for `work`, but not beyond the closing of the door.
    pub(crate) async fn until_stopped<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, ApiError> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.stopping() => Err(ApiError::stopped("the server is shutting down")),
        }
    }

    /// Waits for `work` as long as a request may take.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, ApiError> {
        let timeout_ms = self.options.request_timeout_ms;
        let answer = tokio::time::timeout(Duration::from_millis(timeout_ms), work).await;
        answer.map_err(|_| {
            let message = format!(
                "no answer within {timeout_ms} ms; whether a transaction took place is not known: repeat it under the same id"
            );
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, "request_timeout", message)
                .with(|body| body.timeout_ms = Some(timeout_ms))
        })
    }

    /// Runs a call that may read files, off the tasks that serve connections. Only so many run
    /// at once; others wait for their turn.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = Arc::clone(&self.blocking).acquire_owned();
        let permit = self
            .in_time(self.until_stopped(turn))
            .await
            .map_err(|_| busy("too many calls that read files are waiting"))??;
        let permit = permit.map_err(ApiError::internal)?;
        self.off_thread(permit, call).await
    }

    /// Runs a verification: as `blocking`, but it may take long, so that few may run and none waits.
    pub(crate) async fn verification<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = Arc::clone(&self.verifications)
            .try_acquire_owned()
            .map_err(|_| busy("other verifications are running"))?;
        self.off_thread(permit, call).await
    }

    /// Runs a dry run: as a verification, it keeps nobody else from reading files.
    pub(crate) async fn dry_run<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = Arc::clone(&self.dry_runs)
            .try_acquire_owned()
            .map_err(|_| busy("other dry runs are running"))?;
        self.off_thread(permit, call).await
    }

    async fn off_thread<T: Send + 'static>(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        call: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let app = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let result = call(&app);
            drop(permit);
            result
        });
        work.await.map_err(|error| {
            ApiError::internal(format!("a call into the node did not finish: {error}"))
        })
    }

    /// A permit for one more reader of the log.
    pub(crate) fn log_stream(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.log_streams)
            .try_acquire_owned()
            .map_err(|_| {
                let max = self.options.log_streams_max;
                busy(format!("{max} readers of the log are connected already"))
            })
    }

    /// Waits until the node has reached a position.
    pub(crate) async fn wait_for(
        &self,
        position: Position,
        timeout: Duration,
    ) -> Result<(), ApiError> {
        if self.node.position() >= position {
            return Ok(());
        }
        let waited = self
            .until_stopped(self.node.wait_for(position, timeout))
            .await?;
        match waited {
            Ok(()) => Ok(()),
            Err(WaitError::TimedOut { position: reached }) => {
                let message = format!(
                    "position {position} was not reached within {} ms; the node is at {reached}",
                    timeout.as_millis()
                );
                Err(
                    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "wait_timed_out", message)
                        .with(|body| body.position = Some(Some(reached))),
                )
            }
            Err(WaitError::Stopped) => Err(ApiError::stopped("the node has stopped")),
        }
    }

    /// Gives a node of several a moment to get to a position that it is asked to read at: another one
    /// may have reported it. Whether it got there is for the reading to find out.
    pub(crate) async fn catch_up_with(&self, position: Position) {
        if is_one_of_several(&self.node) {
            let _ = self.wait_for(position, AHEAD_TIMEOUT).await;
        }
    }

    /// The live table that a path names.
    pub(crate) fn table(&self, name: &str) -> Result<Arc<TableDefinition>, ApiError> {
        let catalog = self.node.catalog();
        catalog
            .by_name(name)
            .map(Arc::clone)
            .ok_or_else(|| ApiError::unknown_table(name, catalog.nearest(name)))
    }
}

pub(crate) fn busy(reason: impl std::fmt::Display) -> ApiError {
    ApiError::overloaded(reason, RETRY_AFTER_MS)
}

/// The answer to a read at a position that cannot be read.
pub(crate) fn unreadable(node: &Node, at: Position, error: &SnapshotError) -> ApiError {
    match error {
        SnapshotError::TooOld { floor, .. } => {
            let kept_s = node.status().limits.snapshot_age_ms_max as f64 / 1000.0;
            let message = format!(
                "at: position {at} is too old to be read; the oldest that can be is {floor}. An old state stays readable until the second checkpoint behind it, and at most {kept_s} s behind the first one (the setting snapshot_age_ms_max); what was written when is in the log"
            );
            ApiError::new(StatusCode::GONE, code::SNAPSHOT_TOO_OLD, message)
                .with(|body| body.floor = Some(*floor))
        }
        SnapshotError::InFuture { latest, .. } => {
            let message = format!(
                "at: position {at} lies in the future, {}; 'after' waits for a position",
                log_end(node, *latest)
            );
            ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                code::POSITION_IN_FUTURE,
                message,
            )
            .at("at".to_owned())
            .with(|body| body.latest = Some(*latest))
        }
    }
}

/// Whether other nodes may have more of the log than this one.
fn is_one_of_several(node: &Node) -> bool {
    node.cluster().is_some() || node.following().is_some()
}

/// Where the log ends, for messages.
pub(crate) fn log_end(node: &Node, latest: Position) -> String {
    match is_one_of_several(node) {
        true => format!(
            "this node has the log up to {latest}; if another node reported that position, this one is behind: request it again, or read there"
        ),
        false => format!("the log ends at {latest}"),
    }
}

/// The catalog as parsing needs it.
pub(crate) struct CatalogTables<'c>(pub(crate) &'c Catalog);

impl Tables for CatalogTables<'_> {
    fn table(&self, name: &str) -> Option<KnownTable> {
        self.0.by_name(name).map(|table| KnownTable {
            id: table.id,
            kind: table.kind,
            value: table.value,
        })
    }

    fn nearest(&self, name: &str) -> Option<String> {
        self.0.nearest(name).map(str::to_owned)
    }
}

impl TableNames for Catalog {
    fn describe(&self, table: TableId) -> (String, ValueKind) {
        match self.by_id(table) {
            Some(table) => (table.name.clone(), table.value),
            None => (format!("#{table}"), ValueKind::Bytes),
        }
    }
}
