//! Requests: the side that waits for an answer, and the side that gives one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::{RequestError, SendError};
use crate::frame::{Frame, FrameKind};
use crate::limits::{REQUEST_BYTES_HELD_MAX, REQUESTS_HELD_MAX};
use crate::link::Link;

pub(crate) type Outcome = Result<Bytes, RequestError>;

/// The answer to a request. Await it, or [`Pending::wait`] for it. It comes in any case: an error at
/// the latest when the time of the request has passed or the connections are stopped.
#[derive(Debug)]
#[must_use = "nothing is known about a request before its answer"]
pub struct Pending(Result<oneshot::Receiver<Outcome>, SendError>);

impl Pending {
    pub(crate) fn new(sent: Result<oneshot::Receiver<Outcome>, SendError>) -> Self {
        Self(sent)
    }

    /// Blocks until the answer is there. Must not be called from an async task.
    ///
    /// # Errors
    /// Why there is none.
    pub fn wait(self) -> Result<Bytes, RequestError> {
        match self.0 {
            Ok(receiver) => receiver.blocking_recv().unwrap_or_else(|_| Err(gone())),
            Err(error) => Err(error.into()),
        }
    }
}

impl Future for Pending {
    type Output = Result<Bytes, RequestError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(receiver) => Pin::new(receiver)
                .poll(context)
                .map(|outcome| outcome.unwrap_or_else(|_| Err(gone()))),
            Err(error) => Poll::Ready(Err((*error).into())),
        }
    }
}

fn gone() -> RequestError {
    RequestError::Lost {
        is_sent: true,
        why: "the connections were stopped".to_owned(),
    }
}

/// Why a request has no answer, as it travels in the topic of a failure. The numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Failure {
    Busy = 1,
    Refused = 2,
    Unanswered = 3,
    AnswerDropped = 4,
}

impl Failure {
    pub fn error_of(number: u16) -> RequestError {
        match number {
            1 => RequestError::Busy,
            2 => RequestError::Refused,
            4 => RequestError::AnswerDropped,
            // Of one that is not known it is not known either whether it was carried out.
            _ => RequestError::Unanswered,
        }
    }

    pub fn to_frame(self, id: u64) -> Frame {
        Frame::bare(FrameKind::Failure, self as u16, id)
    }
}

/// How much of one connection is without an answer.
#[derive(Debug, Default)]
pub(crate) struct Held {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// Takes the answer to one request. Dropped without one, the other node hears that there is none.
#[derive(Debug)]
pub struct Reply {
    link: Arc<Link>,
    held: Arc<Held>,
    id: u64,
    topic: u16,
    bytes: usize,
    is_done: bool,
}

impl Reply {
    /// Holds a request of so many bytes, or says that there are too many.
    pub(crate) fn take(link: &Arc<Link>, held: &Arc<Held>, request: &Frame) -> Option<Self> {
        let bytes = request.body.len();
        let has_room = held.requests.load(Ordering::Relaxed) < REQUESTS_HELD_MAX
            && held.bytes.load(Ordering::Relaxed) + bytes <= REQUEST_BYTES_HELD_MAX;
        if !has_room {
            return None;
        }
        // Only the connection's own task adds, so nothing is passed between look and count.
        held.requests.fetch_add(1, Ordering::Relaxed);
        held.bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(Self {
            link: Arc::clone(link),
            held: Arc::clone(held),
            id: request.id,
            topic: request.topic,
            bytes,
            is_done: false,
        })
    }

    /// Answers. Where the connection has ended nothing is sent: the other node knows.
    pub fn send(mut self, answer: Bytes) {
        self.is_done = true;
        let frame = Frame {
            body: answer,
            ..Frame::bare(FrameKind::Answer, self.topic, self.id)
        };
        if let Err(SendError::Full | SendError::TooLarge { .. }) = self.link.push(frame) {
            self.fail(Failure::AnswerDropped);
        }
    }

    /// Answers that the request is not taken, and was not carried out.
    pub fn refuse(mut self) {
        self.is_done = true;
        self.fail(Failure::Refused);
    }

    fn fail(&self, failure: Failure) {
        self.link.push_small(failure.to_frame(self.id));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.is_done {
            self.fail(Failure::Unanswered);
        }
        self.held.requests.fetch_sub(1, Ordering::Relaxed);
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
