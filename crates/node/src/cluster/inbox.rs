//! What comes from other nodes: messages for the engine's thread, requests for whom they concern.
//!
//! It runs on the threads of the connections and waits for nothing. A message that finds no room is
//! dropped: Raft sends it again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use onelog_engine::Message;
use onelog_peers::{Handler, Lane, NO_LOG, Reply as PeerReply};
use onelog_record::{CommitRequest, NodeId};
use onelog_replica::Event;
use parking_lot::{Condvar, Mutex};

use super::addresses::GREETED_MAX;
use super::reply::Reply;
use super::wire;
use super::{calls, change, incoming, joining, mending, newcomer, not_following, outgoing};
use crate::driver::Command;
use crate::shared::Shared;

/// How many messages of other nodes may wait for the engine's thread.
const MESSAGES_MAX: usize = 4_096;
/// How many bytes of them.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The logs that the peers have which have answered: [`NO_LOG`] where one has none yet.
pub(crate) type Logs = BTreeMap<NodeId, u128>;

#[derive(Debug)]
pub(crate) struct Inbox {
    node: NodeId,
    logs: Mutex<Logs>,
    answered: Condvar,
    messages: Sender<(Message, usize)>,
    message_bytes: Arc<AtomicUsize>,
    shared: OnceLock<Weak<Shared>>,
    /// What nodes said of their addresses before this one was opened: they stay connected, and say it
    /// once.
    early: Mutex<BTreeMap<NodeId, String>>,
}

/// The end from which the engine's thread takes messages.
#[derive(Debug)]
pub(crate) struct Messages {
    receiver: Receiver<(Message, usize)>,
    bytes: Arc<AtomicUsize>,
}

impl Messages {
    pub(crate) const fn receiver(&self) -> &Receiver<(Message, usize)> {
        &self.receiver
    }

    pub(crate) fn taken(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Inbox {
    pub(crate) fn new(node: NodeId) -> (Arc<Self>, Messages) {
        let (messages, receiver) = bounded(MESSAGES_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let inbox = Self {
            node,
            logs: Mutex::default(),
            answered: Condvar::new(),
            messages,
            message_bytes: Arc::clone(&bytes),
            shared: OnceLock::new(),
            early: Mutex::default(),
        };
        (Arc::new(inbox), Messages { receiver, bytes })
    }

    /// From now on messages and requests are taken.
    pub(crate) fn attach(&self, shared: &Arc<Shared>) {
        let mut early = self.early.lock();
        let _ = self.shared.set(Arc::downgrade(shared));
        let cluster = shared.cluster.as_ref();
        for (from, address) in std::mem::take(&mut *early) {
            let Some(cluster) = cluster else { continue };
            let is_member = cluster.views.is_member(from);
            let _ = cluster.addresses.greeted(from, &address, is_member);
        }
    }

    /// Waits until `done` says of the peers' logs that they are enough; what they are then.
    pub(crate) fn wait_for_logs(&self, timeout: Duration, done: impl Fn(&Logs) -> bool) -> Logs {
        let deadline = Instant::now() + timeout;
        let mut logs = self.logs.lock();
        while !done(&logs) {
            if self.answered.wait_until(&mut logs, deadline).timed_out() {
                break;
            }
        }
        logs.clone()
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.get()?.upgrade()
    }

    /// At most one in memory for each checkpoint that another node makes.
    fn digests(&self, from: NodeId, bytes: Bytes) {
        match (self.shared(), wire::decode_digests(bytes)) {
            (Some(shared), Ok(digests)) => shared.report(Event::Digests { from, digests }),
            (None, _) => {}
            (_, Err(error)) => {
                tracing::warn!(%from, %error, "the digests of another node are malformed");
            }
        }
    }

    fn raft_message(&self, from: NodeId, bytes: Bytes) {
        let size = bytes.len();
        let message = match Message::decode(bytes) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(%from, %error, "a message of another node is malformed");
                return;
            }
        };
        // One that announces a snapshot comes with that.
        let is_for_me = message.to() == self.node && message.from() == from;
        if !is_for_me || message.snapshot().is_some() {
            return;
        }
        let waiting = self.message_bytes.fetch_add(size, Ordering::Relaxed);
        let has_room = waiting + size <= MESSAGE_BYTES_MAX || waiting == 0;
        if !has_room || self.messages.try_send((message, size)).is_err() {
            self.message_bytes.fetch_sub(size, Ordering::Relaxed);
        }
    }
}

impl Handler for Inbox {
    fn admits(&self, from: NodeId, address: &str) -> bool {
        let mut early = self.early.lock();
        let shared = self.shared();
        if let Some(cluster) = shared.as_ref().and_then(|shared| shared.cluster.as_ref()) {
            let is_member = cluster.views.is_member(from);
            return cluster.addresses.greeted(from, address, is_member);
        }
        if early.len() < GREETED_MAX || early.contains_key(&from) {
            early.insert(from, address.to_owned());
        }
        true
    }

    fn message(&self, from: NodeId, topic: u16, bytes: Bytes) {
        match topic {
            wire::RAFT if self.shared.get().is_some() => self.raft_message(from, bytes),
            wire::DIGESTS => self.digests(from, bytes),
            wire::NOT_FOLLOWING => {
                let shared = self.shared();
                if let Some(cluster) = shared.as_ref().and_then(|shared| shared.cluster.as_ref()) {
                    not_following::heard(cluster, from, &bytes);
                }
            }
            _ => {}
        }
    }

    fn request(&self, from: NodeId, topic: u16, bytes: Bytes, reply: PeerReply) {
        let Some(shared) = self.shared() else {
            return reply.refuse();
        };
        match topic {
            wire::COMMIT => commit(&shared, from, bytes, reply),
            wire::BARRIER => {
                // Where it does not fit, the reply is dropped and says so.
                let command = Command::Barrier(Reply::PeerBarrier(Box::new(reply)));
                let _ = shared.commands.try_send(command);
            }
            wire::MEMBERS => change::serve(shared, bytes, reply),
            wire::JOIN => joining::serve(shared, from, bytes, reply),
            wire::SNAPSHOT => incoming::announced(&shared, from, bytes, reply),
            wire::CHUNK => outgoing::chunk(&shared, from, bytes, reply),
            wire::CALL => calls::serve(&shared, calls::Subject::Sinks, bytes, reply),
            wire::REQUEST => calls::serve(&shared, calls::Subject::Requests, bytes, reply),
            wire::FETCHED => outgoing::fetched(&shared, from, bytes, reply),
            wire::NEWCOMER => newcomer::serve(&shared, bytes, reply),
            wire::ENTRY => mending::serve(&shared, from, bytes, reply),
            _ => reply.refuse(),
        }
    }

    fn connected(&self, to: NodeId, _lane: Lane, log_id: u128, process: u64) {
        let shared = self.shared();
        if let Some(cluster) = shared.as_ref().and_then(|shared| shared.cluster.as_ref()) {
            cluster.outgoing.met(to, process);
        }
        let mut logs = self.logs.lock();
        let known = logs.entry(to).or_insert(NO_LOG);
        if log_id != NO_LOG {
            *known = log_id;
        }
        self.answered.notify_all();
    }
}

fn commit(shared: &Arc<Shared>, from: NodeId, bytes: Bytes, reply: PeerReply) {
    let request = match CommitRequest::decode(bytes) {
        Ok(request) => request,
        Err(error) => {
            tracing::warn!(%from, %error, "a transaction of another node is malformed");
            return reply.refuse();
        }
    };
    if request.id.is_none() {
        return reply.refuse();
    }
    let fingerprint = request.fingerprint();
    shared.enqueue(request, fingerprint, Reply::Peer(Box::new(reply)));
}
