//! Any node takes any request: one that does not lead hands it to the one that does.
//!
//! A request keeps its id through all attempts, made here where the client gave none, so it is carried
//! out once at most, whichever leaders it meets. Attempts end with an answer that a leader gives, or
//! when the request's time is over.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog_peers::{Lane, RequestError};
use onelog_record::{CommitRequest, NodeId, Position, Refusal, decode_answer};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};

use super::reply::Reply;
use super::view::View;
use super::{Cluster, wire};
use crate::driver::Command;
use crate::open::new_id;
use crate::shared::Shared;
use crate::ticket::{Answer, Ticket};

/// How long a request may take, over all attempts.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How many requests may be with other nodes.
const FORWARDS_MAX: usize = 8_192;
/// The pause before another attempt, unless who leads changes before.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a position that one node of a cluster has reported may be ahead of another, also of the
/// leader: an entry that a majority has flushed is applied there once its own disk has it as well.
pub const AHEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client should wait when no leader was found.
const RETRY_AFTER_MS: u64 = 500;

/// A client's request, for another attempt.
#[derive(Debug)]
pub(crate) struct Again {
    request: CommitRequest,
    fingerprint: u64,
    /// Whether the id was made here.
    is_own_id: bool,
    deadline: Instant,
}

/// What is with other nodes.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    now: Mutex<Amount>,
    ended: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    requests: usize,
    bytes: usize,
}

impl InFlight {
    fn enter(&self, bytes: usize, bytes_max: usize) -> bool {
        let mut now = self.now.lock();
        let has_room = now.requests < FORWARDS_MAX && now.bytes + bytes <= bytes_max;
        if has_room {
            now.requests += 1;
            now.bytes += bytes;
        }
        has_room
    }

    fn leave(&self, bytes: usize) {
        let mut now = self.now.lock();
        now.requests -= 1;
        now.bytes -= bytes;
        if now.requests == 0 {
            self.ended.notify_all();
        }
    }

    pub(crate) fn wait_until_none(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut now = self.now.lock();
        while now.requests > 0 {
            if self.ended.wait_until(&mut now, deadline).timed_out() {
                return;
            }
        }
    }
}

/// One request that is with another node; gone when it is dropped.
struct Entered {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Entered {
    fn new(shared: &Arc<Shared>, bytes: usize) -> Option<Self> {
        let in_flight = &shared.cluster.as_ref()?.in_flight;
        let has_room = in_flight.enter(bytes, shared.options.queue_bytes_max);
        has_room.then(|| Self {
            shared: Arc::clone(shared),
            bytes,
        })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(cluster) = &self.shared.cluster {
            cluster.in_flight.leave(self.bytes);
        }
    }
}

/// Submits a transaction to whichever node leads.
pub(crate) fn submit(
    shared: &Arc<Shared>,
    cluster: &Cluster,
    request: CommitRequest,
) -> Result<Ticket, Refusal> {
    request.check_limits()?;
    let is_own_id = request.id.is_none();
    let id = request.id.unwrap_or_else(new_id);
    let fingerprint = request.fingerprint();
    let with_id = CommitRequest {
        id: Some(id),
        ..request.clone()
    };
    let later = Again {
        request: with_id,
        fingerprint,
        is_own_id,
        deadline: Instant::now() + REQUEST_TIMEOUT,
    };
    let (sender, ticket) = Ticket::pending();
    if cluster.views.role().admits {
        let reply = Reply::Client(sender, Some(Box::new(later)));
        shared.enqueue_as(id, fingerprint, request, reply);
        return Ok(ticket);
    }
    if shared.applied_position.is_stopped() {
        return Err(Refusal::Stopped(shared.stop_reason()));
    }
    match Entered::new(shared, later.request.size()) {
        Some(entered) => cluster.spawn(attempt(entered, later, sender, false)),
        None => return Err(overloaded("too many requests wait for the leader")),
    }
    Ok(ticket)
}

/// A request that was answered here needs another attempt: this node does not lead any more, or has not
/// applied what the client has read elsewhere.
pub(crate) fn again(
    shared: &Arc<Shared>,
    later: Again,
    sender: oneshot::Sender<Answer>,
    may_be_done: bool,
) {
    let Some(cluster) = &shared.cluster else {
        return;
    };
    match Entered::new(shared, later.request.size()) {
        Some(entered) => cluster.spawn(attempt(entered, later, sender, may_be_done)),
        None => drop(sender.send(Err(Refusal::NotLeader))),
    }
}

async fn attempt(
    entered: Entered,
    later: Again,
    sender: oneshot::Sender<Answer>,
    may_be_done: bool,
) {
    let shared = Arc::clone(&entered.shared);
    let forwarding = Forwarding {
        shared: &shared,
        deadline: later.deadline,
        may_be_done,
    };
    let answer = commit(forwarding, &later).await;
    // What is still in flight counts until its client is answered.
    if let Err(refusal) = &answer {
        shared.count(refusal);
    }
    let _ = sender.send(answer);
    drop(entered);
}

async fn commit(mut forwarding: Forwarding<'_>, later: &Again) -> Answer {
    let bytes = Bytes::from(later.request.encode());
    let began = Instant::now();
    loop {
        let answer = match forwarding.leader().await {
            Leader::Here => {
                let (sender, receiver) = oneshot::channel();
                let reply = Reply::Client(sender, None);
                let (shared, request) = (forwarding.shared, later.request.clone());
                shared.enqueue(request, later.fingerprint, reply);
                let answer = forwarding.until_over(receiver).await.and_then(Result::ok);
                forwarding.may_be_done |= answer.is_none();
                answer
            }
            Leader::At(node, cluster) => {
                let within = forwarding.left();
                let sent =
                    cluster
                        .peers
                        .request(node, Lane::Bulk, wire::COMMIT, bytes.clone(), within);
                let answer = forwarding.while_leading(node, sent).await;
                forwarding.heard(answer).map(|bytes| {
                    // One that cannot be read may be of a newer version: it may have been done.
                    decode_answer(bytes).unwrap_or(Err(Refusal::NotLeader))
                })
            }
            Leader::None => {
                return Err(forwarding.given_up());
            }
        };
        match answer {
            Some(Err(Refusal::IdExpired { floor, .. }))
                if later.is_own_id && !forwarding.may_be_done =>
            {
                return Err(too_old(&later.request, floor));
            }
            Some(Err(Refusal::NotLeader | Refusal::Stopped(_))) => forwarding.may_be_done = true,
            // They are answered before it is looked for the id: an earlier attempt may be in the log.
            Some(Err(Refusal::Overloaded { .. } | Refusal::DiskFull { .. }))
                if forwarding.may_be_done => {}
            // What this node has applied is committed: the leader gets there.
            Some(Err(Refusal::SnapshotInFuture { read_position, .. }))
                if read_position <= forwarding.shared.applied_position.position()
                    || began.elapsed() < AHEAD_TIMEOUT => {}
            None => {}
            Some(answer) => return answer,
        }
        forwarding.pause().await;
    }
}

/// The id is new, so nothing was carried out; what was read is too old to be checked.
fn too_old(request: &CommitRequest, floor: Position) -> Refusal {
    Refusal::SnapshotTooOld {
        read_position: request.read_position.unwrap_or_default(),
        floor,
    }
}

fn overloaded(reason: &'static str) -> Refusal {
    Refusal::Overloaded {
        reason: reason.into(),
        retry_after_ms: RETRY_AFTER_MS,
    }
}

/// A request that looks for a leader.
pub(super) struct Forwarding<'s> {
    shared: &'s Arc<Shared>,
    deadline: Instant,
    /// Whether any node may have carried it out.
    may_be_done: bool,
}

/// Where a request goes next.
pub(super) enum Leader<'s> {
    Here,
    At(NodeId, &'s Cluster),
    /// The time of the request is over, or this node was removed.
    None,
}

impl<'s> Forwarding<'s> {
    pub(super) fn new(shared: &'s Arc<Shared>) -> Self {
        Self {
            shared,
            deadline: Instant::now() + REQUEST_TIMEOUT,
            may_be_done: false,
        }
    }

    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn views(&self) -> Option<watch::Receiver<View>> {
        Some(self.shared.cluster.as_ref()?.views.subscribe())
    }

    /// Waits until it is known who leads.
    pub(super) async fn leader(&self) -> Leader<'s> {
        let (Some(cluster), Some(mut views)) = (&self.shared.cluster, self.views()) else {
            return Leader::None;
        };
        // Where the engine's thread has ended, this node leads no more, whatever the view says.
        let has_stopped = self.shared.applied_position.is_stopped();
        let known = views.wait_for(|view| match view.role.leader {
            _ if view.is_removed => true,
            Some(leader) if leader == cluster.node => view.role.admits && !has_stopped,
            leader => leader.is_some(),
        });
        let role = match tokio::time::timeout(self.left(), known).await {
            Ok(Ok(view)) if !view.is_removed => view.role,
            _ => return Leader::None,
        };
        match role.leader {
            _ if self.left().is_zero() => Leader::None,
            Some(leader) if leader != cluster.node => Leader::At(leader, cluster),
            _ => Leader::Here,
        }
    }

    /// Gives up waiting for a node that no longer leads.
    pub(super) async fn while_leading<R>(
        &self,
        node: NodeId,
        answer: impl Future<Output = Result<R, RequestError>>,
    ) -> Option<Result<R, RequestError>> {
        let mut views = self.views()?;
        let other = views.wait_for(|view| {
            view.is_removed || view.role.leader.is_some_and(|leader| leader != node)
        });
        tokio::select! {
            answer = answer => Some(answer),
            _ = other => None,
        }
    }

    async fn until_over<R>(&self, answer: impl Future<Output = R>) -> Option<R> {
        tokio::time::timeout(self.left(), answer).await.ok()
    }

    /// What came from another node; without an answer it may have been carried out there.
    pub(super) fn heard<R>(&mut self, answer: Option<Result<R, RequestError>>) -> Option<R> {
        match answer {
            Some(Ok(answer)) => return Some(answer),
            Some(Err(error)) => self.may_be_done |= error.may_be_done(),
            None => self.may_be_done = true,
        }
        None
    }

    /// Waits a little, or until another node leads.
    pub(super) async fn pause(&self) {
        let Some(mut views) = self.views() else {
            return;
        };
        let leader = views.borrow_and_update().role.leader;
        let changed = views.wait_for(|view| view.role.leader != leader);
        let _ = tokio::time::timeout(PAUSE.min(self.left()), changed).await;
    }

    pub(super) const fn may_be_done(&self) -> bool {
        self.may_be_done
    }

    /// A leader has taken it, and its answer does not say what became of it.
    pub(super) const fn is_perhaps_done(&mut self) {
        self.may_be_done = true;
    }

    /// The time is over without an answer.
    pub(super) fn given_up(&self) -> Refusal {
        match self.may_be_done {
            true => Refusal::NotLeader,
            false => Refusal::NoLeader,
        }
    }
}

/// A position at which a read sees everything that was acknowledged anywhere before this call. It is
/// applied here.
pub(crate) async fn read_barrier(shared: Arc<Shared>) -> Result<Position, Refusal> {
    let mut forwarding = Forwarding::new(&shared);
    let position = loop {
        let answer = match forwarding.leader().await {
            Leader::Here => {
                let (sender, receiver) = oneshot::channel();
                let command = Command::Barrier(Reply::Barrier(sender));
                match shared.commands.try_send(command) {
                    Ok(()) => forwarding.until_over(receiver).await.and_then(Result::ok),
                    Err((refused, _)) => Some(Err(shared.not_queued(refused))),
                }
            }
            Leader::At(node, cluster) => {
                let within = forwarding.left();
                let empty = Bytes::new();
                let sent = cluster
                    .peers
                    .request(node, Lane::Control, wire::BARRIER, empty, within);
                let answer = forwarding.while_leading(node, sent).await;
                let answer = forwarding.heard(answer);
                let position = answer.and_then(|bytes| wire::decode_barrier_answer(bytes).ok());
                position.flatten().map(Ok)
            }
            Leader::None => return Err(Refusal::NoLeader),
        };
        match answer {
            Some(Err(Refusal::NotLeader)) | None => forwarding.pause().await,
            Some(answer) => break answer?,
        }
    };
    let applied = shared
        .applied_position
        .wait(position, forwarding.left())
        .await;
    match applied {
        Ok(()) => Ok(position),
        Err(crate::WaitError::Stopped) => Err(Refusal::Stopped(shared.stop_reason())),
        Err(crate::WaitError::TimedOut { .. }) => Err(overloaded("this node is behind the leader")),
    }
}
