//! What every handle of a node and its threads share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::Sender;
use onelog_engine::{Members, PeerProgress, Prepared, Submission};
use onelog_log::LogReader;
use onelog_record::{CommitRequest, Entry, EntryKind, Index, Position, Refusal, TxnId};
use onelog_replica::{
    Catalog, DigestAt, Event, Failure, Followers, Now, Observer, Request, Role, SpaceReport,
};
use onelog_state::{CheckpointReport, State};
use parking_lot::{Mutex, RwLock};

use crate::applied_position::AppliedPosition;
use crate::cluster::{self, Cluster, Reply, View, answer_bytes};
use crate::driver::{Command, Completed};
use crate::follow::Following;
use crate::metrics::Metrics;
use crate::open::new_id;
use crate::options::Options;
use crate::queue::{Entrance, NotQueued};
use crate::ticket::Answer;

/// How long a client should wait when a queue is full.
const RETRY_AFTER_MS: u64 = 50;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) state: State,
    pub(crate) reader: LogReader,
    pub(crate) applied_position: AppliedPosition,
    /// The index of the last applied entry: readers of the log go no further.
    pub(crate) applied_index: AtomicU64,
    pub(crate) log_start: AtomicU64,
    /// By how many milliseconds the log's last timestamp is ahead of this node's clock.
    pub(crate) log_ahead_ms: AtomicU64,
    pub(crate) catalog: RwLock<Arc<Catalog>>,
    pub(crate) followers: Arc<Followers>,
    pub(crate) metrics: Metrics,
    pub(crate) queued_bytes: AtomicUsize,
    pub(crate) checkpoint_running: AtomicBool,
    pub(crate) space: Mutex<Option<SpaceReport>>,
    pub(crate) log_id: u128,
    pub(crate) started: Instant,
    /// Requests for the engine's thread.
    pub(crate) commands: Entrance<Command>,
    /// Other nodes, where there are any.
    pub(crate) cluster: Option<Cluster>,
    /// The server that this one follows, where it is a read replica.
    pub(crate) following: Option<Following>,
    /// What has ended, for the engine's thread.
    complete: Sender<Completed>,
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
    pub(crate) commands: Entrance<Command>,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) following: Option<Following>,
    pub(crate) complete: Sender<Completed>,
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
            log_ahead_ms: AtomicU64::new(0),
            catalog: RwLock::default(),
            followers: Arc::new(Followers::default()),
            metrics: Metrics::new(parts.cluster.is_some()),
            queued_bytes: AtomicUsize::new(0),
            checkpoint_running: AtomicBool::new(false),
            space: Mutex::default(),
            log_id: parts.log_id,
            commands: parts.commands,
            cluster: parts.cluster,
            following: parts.following,
            complete: parts.complete,
            started: Instant::now(),
            failure: OnceLock::new(),
        }
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read())
    }

    pub(crate) fn applied_index(&self) -> Index {
        Index(self.applied_index.load(Ordering::SeqCst))
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

    /// Answers a request; its client may have gone. With other nodes, one that met the end of this
    /// node's leadership goes on to the next leader, and one that has read what this node has not
    /// applied yet is tried again.
    pub(crate) fn reply(self: &Arc<Self>, reply: Reply, answer: Answer) {
        let is_lost = matches!(answer, Err(Refusal::NotLeader));
        let is_ahead = matches!(answer, Err(Refusal::SnapshotInFuture { .. }));
        match reply {
            Reply::Client(sender, Some(later)) if is_lost || is_ahead => {
                cluster::again(self, *later, sender, is_lost);
            }
            Reply::Client(sender, _) => {
                if let Err(refusal) = &answer {
                    self.count(refusal);
                }
                let _ = sender.send(answer);
            }
            Reply::Peer(reply) => reply.send(answer_bytes(&answer)),
            Reply::Barrier(sender) => {
                let _ = sender.send(answer.map(|committed| committed.position));
            }
            Reply::PeerBarrier(reply) => reply.send(cluster::no_barrier()),
            Reply::Members(_) | Reply::Transfer(_) | Reply::HandOver => {}
        }
    }

    /// Puts a request with its id into the engine's queue.
    pub(crate) fn enqueue(
        self: &Arc<Self>,
        request: CommitRequest,
        fingerprint: u64,
        reply: Reply,
    ) {
        let id = request.id.unwrap_or_else(new_id);
        self.enqueue_as(id, fingerprint, request, reply)
    }

    /// Puts a request into the engine's queue, or answers why not.
    pub(crate) fn enqueue_as(
        self: &Arc<Self>,
        id: TxnId,
        fingerprint: u64,
        request: CommitRequest,
        reply: Reply,
    ) {
        if let Err(error) = request.check_limits() {
            return self.reply(reply, Err(error.into()));
        }
        let bytes = request.size();
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if queued + bytes > self.options.queue_bytes_max {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let refusal = overloaded("the queue of requests holds too many bytes");
            return self.reply(reply, Err(refusal));
        }
        // Here, where others do not wait for it.
        let prepared = Prepared::of(&request, &*self.catalog());
        let submission = Submission {
            prepared,
            id,
            fingerprint,
            request,
            ticket: reply,
        };
        let request = Request {
            submission,
            queued_at_ms: self.uptime_ms(),
            bytes,
        };
        let queued = self.commands.try_send(Command::Submit(Box::new(request)));
        if let Err((refused, command)) = queued {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            if let Command::Submit(request) = command {
                self.reply(request.submission.ticket, Err(self.not_queued(refused)));
            }
        }
    }

    pub(crate) fn not_queued(&self, refused: NotQueued) -> Refusal {
        match refused {
            NotQueued::Full => overloaded("the queue of requests is full"),
            NotQueued::Closed => Refusal::Stopped(self.stop_reason()),
        }
    }

    /// Something has ended that the engine's thread waits for.
    pub(crate) fn report(&self, event: Event<Reply>) {
        let _ = self.complete.send(Ok(event));
    }

    /// A job of the cluster has ended, or its thread has panicked.
    pub(crate) fn report_end(&self, ended: Completed) {
        let _ = self.complete.send(ended);
    }

    /// The engine's thread has ended.
    pub(crate) fn lead_no_more(&self) {
        self.look(|view| {
            view.role.leads = false;
            view.role.admits = false;
        });
    }

    fn look(&self, change: impl FnOnce(&mut View)) {
        if let Some(cluster) = &self.cluster {
            cluster.views.change(change);
        }
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

fn overloaded(reason: &'static str) -> Refusal {
    Refusal::Overloaded {
        reason: reason.into(),
        retry_after_ms: RETRY_AFTER_MS,
    }
}

/// Makes what the replica does known to the node's readers.
#[derive(Debug)]
pub(crate) struct Published(pub(crate) Arc<Shared>);

impl Published {
    fn position(&self, index: Index, end: Position) {
        self.0.applied_index.store(index.get(), Ordering::SeqCst);
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

    fn installed(&mut self, index: Index, end: Position) {
        self.position(index, end);
    }

    fn role_changed(&mut self, role: Role) {
        tracing::info!(term = %role.term, leader = role.leader.map(|node| node.get()), leads = role.leads, "who leads");
        self.0.look(|view| view.role = role);
        if let Some(cluster) = &self.0.cluster {
            cluster.look_at_addresses();
        }
    }

    fn members_changed(&mut self, _index: Index, members: &Members) {
        self.0.look(|view| view.members = members.clone());
        if let Some(cluster) = &self.0.cluster {
            cluster.look_at_addresses();
        }
    }

    fn peers_progressed(&mut self, peers: &[PeerProgress]) {
        self.0.look(|view| view.progress = peers.to_vec());
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

    fn digests_known(&mut self, digests: &[DigestAt]) {
        if let Some(cluster) = &self.0.cluster {
            cluster::send_digests(cluster, digests);
        }
    }

    fn space_changed(&mut self, report: SpaceReport) {
        if let Some(cluster) = &self.0.cluster {
            cluster.set_full(report.is_read_only);
        }
        *self.0.space.lock() = Some(report);
    }

    fn log_ahead(&mut self, ahead_ms: u64) {
        self.0.log_ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    fn log_start_moved(&mut self, start: Position) {
        self.0.log_start.store(start.get(), Ordering::Release);
    }
}
