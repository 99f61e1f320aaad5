//! What every handle of a node and its threads share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use onelog_log::LogReader;
use onelog_record::{Entry, EntryKind, Index, Position, Refusal};
use onelog_replica::{Catalog, Failure, Followers, Now, Observer, SpaceReport};
use onelog_state::{CheckpointReport, State};
use parking_lot::{Mutex, RwLock};

use crate::applied_position::AppliedPosition;
use crate::driver::Reply;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::ticket::Answer;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) state: State,
    pub(crate) reader: LogReader,
    pub(crate) applied_position: AppliedPosition,
    /// The index of the last applied entry: readers of the log go no further.
    pub(crate) applied_index: AtomicU64,
    pub(crate) log_start: AtomicU64,
    pub(crate) catalog: RwLock<Arc<Catalog>>,
    pub(crate) followers: Arc<Followers>,
    pub(crate) metrics: Metrics,
    pub(crate) queued_bytes: AtomicUsize,
    pub(crate) checkpoint_running: AtomicBool,
    pub(crate) space: Mutex<Option<SpaceReport>>,
    pub(crate) log_id: u128,
    pub(crate) started: Instant,
    failure: OnceLock<String>,
}

/// What a node is opened with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) options: Options,
    pub(crate) state: State,
    pub(crate) reader: LogReader,
    pub(crate) log_id: u128,
    pub(crate) log_start: Position,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            options: parts.options,
            state: parts.state,
            reader: parts.reader,
            applied_position: AppliedPosition::default(),
            applied_index: AtomicU64::new(0),
            log_start: AtomicU64::new(parts.log_start.get()),
            catalog: RwLock::default(),
            followers: Arc::new(Followers::default()),
            metrics: Metrics::new(),
            queued_bytes: AtomicUsize::new(0),
            checkpoint_running: AtomicBool::new(false),
            space: Mutex::default(),
            log_id: parts.log_id,
            started: Instant::now(),
            failure: OnceLock::new(),
        }
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read())
    }

    pub(crate) fn applied_index(&self) -> Index {
        Index(self.applied_index.load(Ordering::Acquire))
    }

    pub(crate) fn log_start(&self) -> Position {
        Position(self.log_start.load(Ordering::Acquire))
    }

    pub(crate) fn fail(&self, failure: &Failure) {
        // Only the first failure is the cause.
        let _ = self.failure.set(failure.to_string());
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    pub(crate) fn stop_reason(&self) -> String {
        self.failure()
            .unwrap_or_else(|| "it was shut down".to_owned())
    }

    /// The time as the replica counts it.
    pub(crate) fn now(&self) -> Now {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            monotonic_ms: self.uptime_ms(),
            unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// [`Now::monotonic_ms`], which counts from the node's opening.
    pub(crate) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Answers a request; its client may have gone.
    pub(crate) fn reply(&self, reply: Reply, answer: Answer) {
        if let Err(refusal) = &answer {
            self.count(refusal);
        }
        let _ = reply.send(answer);
    }

    pub(crate) fn count(&self, refusal: &Refusal) {
        if let Refusal::Conflict { table, .. } = refusal {
            let catalog = self.catalog();
            let name = catalog
                .by_id(*table)
                .map_or("?", |table| table.name.as_str());
            self.metrics.conflict(name);
        }
        self.metrics.refusal(refusal.code());
    }
}

/// Makes what the replica does known to the node's readers.
#[derive(Debug)]
pub(crate) struct Published(pub(crate) Arc<Shared>);

impl Published {
    fn position(&self, index: Index, end: Position) {
        self.0.applied_index.store(index.get(), Ordering::Release);
        self.0.applied_position.set(end);
    }
}

impl Observer for Published {
    fn decided(&mut self, steps: u64) {
        let counter = &self.0.metrics.decision_steps;
        counter.inc_by(steps - counter.get());
    }

    fn appended(&mut self, entry: &Entry) {
        let metrics = &self.0.metrics;
        metrics.log_bytes.inc_by(entry.body.len() as u64);
        if entry.header.kind == EntryKind::Transactions {
            metrics
                .group_transactions
                .observe(f64::from(entry.header.transaction_count));
            metrics.group_bytes.observe(entry.body.len() as f64);
        }
    }

    fn catalog_changed(&mut self, catalog: &Arc<Catalog>) {
        *self.0.catalog.write() = Arc::clone(catalog);
    }

    fn applied(&mut self, entry: &Entry) {
        if entry.header.kind == EntryKind::Transactions {
            let metrics = &self.0.metrics;
            metrics
                .commits
                .inc_by(u64::from(entry.header.transaction_count));
            metrics.records.inc_by(u64::from(entry.header.record_count));
        }
        self.position(entry.index, entry.header.end());
    }

    fn replayed(&mut self, index: Index, end: Position) {
        self.position(index, end);
    }

    fn checkpoint_started(&mut self) {
        self.0.checkpoint_running.store(true, Ordering::Relaxed);
    }

    fn checkpoint_ended(&mut self, report: Option<&CheckpointReport>) {
        self.0.checkpoint_running.store(false, Ordering::Relaxed);
        if let Some(report) = report {
            self.0.metrics.checkpoint(report.duration);
        }
    }

    fn space_changed(&mut self, report: SpaceReport) {
        *self.0.space.lock() = Some(report);
    }

    fn log_start_moved(&mut self, start: Position) {
        self.0.log_start.store(start.get(), Ordering::Release);
    }
}
