//! What every handle of a node and its threads share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use onelog_log::LogReader;
use onelog_record::{Index, Position, Refusal};
use onelog_state::State;
use parking_lot::RwLock;

use crate::advance::Advance;
use crate::catalog::Catalog;
use crate::failure::Failure;
use crate::followers::Followers;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::shell::Reply;
use crate::ticket::Answer;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) state: State,
    pub(crate) reader: LogReader,
    pub(crate) advance: Advance,
    /// The index of the last applied entry: readers of the log go no further.
    pub(crate) applied_index: AtomicU64,
    pub(crate) log_start: AtomicU64,
    pub(crate) catalog: RwLock<Arc<Catalog>>,
    pub(crate) followers: Arc<Followers>,
    pub(crate) metrics: Metrics,
    pub(crate) queued_bytes: AtomicUsize,
    pub(crate) checkpoint_running: AtomicBool,
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
            advance: Advance::default(),
            applied_index: AtomicU64::new(0),
            log_start: AtomicU64::new(parts.log_start.get()),
            catalog: RwLock::new(Arc::new(Catalog::new())),
            followers: Arc::new(Followers::default()),
            metrics: Metrics::new(),
            queued_bytes: AtomicUsize::new(0),
            checkpoint_running: AtomicBool::new(false),
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

    /// Answers a request; whoever asked may have gone.
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
