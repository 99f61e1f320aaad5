//! A submitted request's answer, for threads that block and for tasks that await.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use onelog_record::{Committed, Refusal};
use tokio::sync::oneshot;

pub(crate) type Answer = Result<Committed, Refusal>;

/// The answer to a submitted request. Await it, or [`Ticket::wait`] for it.
#[derive(Debug)]
#[must_use = "without waiting for the answer nothing is known about the transaction"]
pub struct Ticket(Inner);

#[derive(Debug)]
enum Inner {
    Known(Option<Box<Answer>>),
    Pending(oneshot::Receiver<Answer>),
}

impl Ticket {
    pub(crate) fn known(answer: Answer) -> Self {
        Self(Inner::Known(Some(Box::new(answer))))
    }

    pub(crate) fn pending() -> (oneshot::Sender<Answer>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(Inner::Pending(receiver)))
    }

    /// Blocks until the answer is there. Must not be called from an async task.
    pub fn wait(self) -> Result<Committed, Refusal> {
        match self.0 {
            Inner::Known(answer) => taken(answer),
            Inner::Pending(receiver) => receiver.blocking_recv().unwrap_or_else(|_| Err(gone())),
        }
    }
}

impl Future for Ticket {
    type Output = Result<Committed, Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Inner::Known(answer) => Poll::Ready(taken(answer.take())),
            Inner::Pending(receiver) => Pin::new(receiver)
                .poll(context)
                .map(|answer| answer.unwrap_or_else(|_| Err(gone()))),
        }
    }
}

fn taken(answer: Option<Box<Answer>>) -> Answer {
    answer.map_or_else(|| Err(gone()), |answer| *answer)
}

fn gone() -> Refusal {
    Refusal::Stopped("the node stopped before the answer".to_owned())
}
