//! The bounded queue between the handles of a node and its engine's thread.
//!
//! A channel alone loses requests: what enters between the receiver's last look and its end stays
//! inside for as long as handles live, and its clients wait for ever. So a sender holds the gate open
//! while it sends, and closing waits for the senders inside: what entered before is still taken,
//! nothing enters behind. Dropping the exit closes the gate too, so a panic of the engine's thread
//! drops every request, and their tickets fail.

use crate::sync::{Arc, Receiver, RwLock, Sender, TrySendError, bounded};

/// Why a request was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotQueued {
    Full,
    /// Nothing is taken any more.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Entrance<T> {
    sender: Sender<T>,
    is_closed: Arc<RwLock<bool>>,
}

#[derive(Debug)]
pub(crate) struct Exit<T> {
    receiver: Receiver<T>,
    is_closed: Arc<RwLock<bool>>,
}

/// A queue of at most so many places.
pub(crate) fn queue<T>(places: usize) -> (Entrance<T>, Exit<T>) {
    let (sender, receiver) = bounded(places);
    let is_closed = Arc::new(RwLock::new(false));
    let entrance = Entrance {
        sender,
        is_closed: Arc::clone(&is_closed),
    };
    (
        entrance,
        Exit {
            receiver,
            is_closed,
        },
    )
}

impl<T> Entrance<T> {
    /// Puts something in, without waiting for room.
    pub(crate) fn try_send(&self, item: T) -> Result<(), (NotQueued, T)> {
        let is_closed = self.is_closed.read();
        if *is_closed {
            return Err((NotQueued::Closed, item));
        }
        self.sender.try_send(item).map_err(|refused| match refused {
            TrySendError::Full(item) => (NotQueued::Full, item),
            TrySendError::Disconnected(item) => (NotQueued::Closed, item),
        })
    }

    /// Puts something in, and waits for room where there is none; `false` when the exit is gone.
    /// Whether it is ever taken is not known: for what needs no answer.
    pub(crate) fn send(&self, item: T) -> bool {
        self.sender.send(item).is_ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.sender.len()
    }
}

impl<T> Exit<T> {
    pub(crate) const fn receiver(&self) -> &Receiver<T> {
        &self.receiver
    }

    /// Takes in nothing further; answers what is inside.
    pub(crate) fn close(&self) -> Vec<T> {
        *self.is_closed.write() = true;
        self.receiver.try_iter().collect()
    }
}

impl<T> Drop for Exit<T> {
    fn drop(&mut self) {
        drop(self.close());
    }
}
