//! Requests between the programs that use the nodes of a cluster: bytes that the nodes carry and do not
//! read. What one node runs for all, any other node can be called about.
//!
//! Both sides are bounded. A call is made once at most; whether one without an answer was carried out
//! is not known. What is called about has a topic of its own, with one answerer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onelog_peers::{Lane, Reply as PeerReply};
use onelog_record::NodeId;
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::wire;
use crate::Node;
use crate::shared::Shared;

/// How many calls a node makes, and answers, at once; fewer than the requests that a connection takes,
/// which others need as well.
const CALLS_MAX: usize = 256;
/// How long a call may take: a store of many rows is compared with the log meanwhile.
const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// What a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The sinks of both nodes speak with each other: at most 64 KiB each way.
    Sinks,
    /// A client's request is carried out by the other node: at most 36 MiB each way.
    Requests,
}

impl Subject {
    const ALL: [Self; 2] = [Self::Sinks, Self::Requests];

    const fn topic(self) -> u16 {
        match self {
            Self::Sinks => wire::CALL,
            Self::Requests => wire::REQUEST,
        }
    }

    const fn lane(self) -> Lane {
        match self {
            Self::Sinks => Lane::Control,
            Self::Requests => Lane::Bulk,
        }
    }
}

/// What answers a call: bytes, or nothing where it cannot be answered. Must not block.
pub type Answering = Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>;

type Answers = dyn Fn(Bytes) -> Answering + Send + Sync;

/// A node was called and gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("this node is alone")]
    Alone,
    #[error("too many calls to other nodes go on at once")]
    TooMany,
    #[error("node {node}: {why}")]
    Failed { node: NodeId, why: String },
    #[error("the node has stopped")]
    Stopped,
}

pub(crate) struct Calls {
    answers: RwLock<[Option<Arc<Answers>>; Subject::ALL.len()]>,
    made: Arc<Semaphore>,
    answered: Arc<Semaphore>,
}

impl Default for Calls {
    fn default() -> Self {
        let room = || Arc::new(Semaphore::new(CALLS_MAX));
        Self {
            answers: RwLock::default(),
            made: room(),
            answered: room(),
        }
    }
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calls")
    }
}

fn enter(room: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(room).try_acquire_owned().ok()
}

/// Another node calls.
pub(crate) fn serve(shared: &Arc<Shared>, subject: Subject, bytes: Bytes, reply: PeerReply) {
    let Some(cluster) = &shared.cluster else {
        return reply.refuse();
    };
    let answers = cluster.calls.answers.read()[subject as usize].clone();
    let (Some(answers), Some(entered)) = (answers, enter(&cluster.calls.answered)) else {
        return reply.refuse();
    };
    cluster.spawn(async move {
        // Dropped, the reply says that there is none.
        if let Some(answer) = answers(bytes).await {
            reply.send(answer);
        }
        drop(entered);
    });
}

impl Node {
    /// Answers what other nodes of the cluster [call](Node::call) this one about. One answerer of a
    /// subject at a time; it must not keep the node alive.
    pub fn answer_calls(
        &self,
        subject: Subject,
        answers: impl Fn(Bytes) -> Answering + Send + Sync + 'static,
    ) {
        if let Some(cluster) = &self.shared.cluster {
            cluster.calls.answers.write()[subject as usize] = Some(Arc::new(answers));
        }
    }

    /// Calls another node; answers within the time, or soon after.
    pub async fn call(
        &self,
        node: NodeId,
        subject: Subject,
        bytes: Bytes,
        within: Duration,
    ) -> Result<Bytes, CallError> {
        let Some(cluster) = &self.shared.cluster else {
            return Err(CallError::Alone);
        };
        let entered = enter(&cluster.calls.made).ok_or(CallError::TooMany)?;
        let within = within.min(CALL_TIMEOUT_MAX);
        let pending = cluster
            .peers
            .request(node, subject.lane(), subject.topic(), bytes, within);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        cluster.spawn(async move {
            let _ = sender.send(pending.await);
            drop(entered);
        });
        let answer = receiver.await.map_err(|_| CallError::Stopped)?;
        answer.map_err(|error| CallError::Failed {
            node,
            why: error.to_string(),
        })
    }
}
