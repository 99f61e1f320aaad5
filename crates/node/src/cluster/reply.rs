//! By which those are answered who wait for the engine's thread: clients of this node, and other
//! nodes on behalf of theirs.

use bytes::Bytes;
use onelog_engine::{Members, MembersError};
use onelog_record::{Position, Refusal, encode_answer};
use onelog_replica::TransferError;
use tokio::sync::oneshot;

use super::forward::Again;
use super::wire;
use crate::ticket;

/// The answer of a leader to a read barrier.
pub(crate) type Barrier = Result<Position, Refusal>;

/// Small: the queue has thousands of places.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A client of this node. With others, its request can be sent to another leader.
    Client(oneshot::Sender<ticket::Answer>, Option<Box<Again>>),
    /// Another node's client.
    Peer(Box<onelog_peers::Reply>),
    Barrier(oneshot::Sender<Barrier>),
    PeerBarrier(Box<onelog_peers::Reply>),
    Members(oneshot::Sender<Result<Members, MembersError>>),
    Transfer(oneshot::Sender<Result<(), TransferError>>),
    /// The leadership is handed on because this node stops.
    HandOver,
}

impl Reply {
    /// The node stops; what became of the request is not known.
    pub(crate) fn stopped(self, reason: &str) {
        let refusal = || Refusal::Stopped(reason.to_owned());
        match self {
            Self::Client(sender, _) => drop(sender.send(Err(refusal()))),
            Self::Peer(reply) => reply.send(answer_bytes(&Err(refusal()))),
            Self::Barrier(sender) => drop(sender.send(Err(refusal()))),
            // Dropped, it says that there is no answer.
            Self::PeerBarrier(_) | Self::Members(_) | Self::Transfer(_) | Self::HandOver => {}
        }
    }

    pub(crate) fn members(self, answer: Result<Members, MembersError>) {
        if let Self::Members(sender) = self {
            let _ = sender.send(answer);
        }
    }

    pub(crate) fn transferred(self, answer: Result<(), TransferError>) {
        if let Self::Transfer(sender) = self {
            let _ = sender.send(answer);
        }
    }

    pub(crate) fn readable(self, position: Position) {
        match self {
            Self::Barrier(sender) => drop(sender.send(Ok(position))),
            Self::PeerBarrier(reply) => reply.send(wire::barrier_answer(Some(position))),
            _ => {}
        }
    }
}

/// The answer to a transaction as it travels.
pub(crate) fn answer_bytes(answer: &ticket::Answer) -> Bytes {
    encode_answer(answer).into()
}

/// The answer to a barrier of a node that does not lead.
pub(crate) fn no_barrier() -> Bytes {
    wire::barrier_answer(None)
}
