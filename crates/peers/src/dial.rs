//! This node's connection to one peer on one lane: made, kept, and made again.
//!
//! Each direction has connections of its own: a node calls for what it sends and for its requests;
//! answers come back by the connection of their request. So a newer connection of a process always
//! replaces its older one, and two nodes that call each other at once have nothing to agree on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onelog_record::NodeId;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::connection::{self, Open};
use crate::error::ConnectionError;
use crate::figures::{LaneCounters, LaneFigures};
use crate::frame::{Frame, FrameKind};
use crate::greeting::{Greeting, Refusal};
use crate::lane::Lane;
use crate::link::Link;
use crate::options::Timing;
use crate::seen::Seen;
use crate::shared::Shared;

/// One lane to a peer, also while it is not connected.
#[derive(Debug)]
pub(crate) struct PeerLane {
    pub node: NodeId,
    pub lane: Lane,
    slot: Mutex<Slot>,
    counters: Arc<LaneCounters>,
    /// The peer has called: it runs, so the next attempt need not wait.
    wake: Notify,
    last_error: Mutex<Option<String>>,
    /// Whether the last attempt was refused because this node is no member there.
    is_not_admitted: AtomicBool,
    is_refused: AtomicBool,
    /// What was logged; both lanes to a peer share it, since they mostly fail alike.
    seen: Arc<Seen>,
}

#[derive(Debug)]
enum Slot {
    Empty,
    Connected(Arc<Link>),
    /// The peer was removed, or all is stopped.
    Ended,
}

impl PeerLane {
    pub fn new(node: NodeId, lane: Lane, seen: Arc<Seen>) -> Self {
        Self {
            node,
            lane,
            slot: Mutex::new(Slot::Empty),
            counters: Arc::default(),
            wake: Notify::new(),
            last_error: Mutex::default(),
            is_not_admitted: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
            seen,
        }
    }

    pub fn link(&self) -> Option<Arc<Link>> {
        match &*self.slot.lock() {
            Slot::Connected(link) => Some(Arc::clone(link)),
            Slot::Empty | Slot::Ended => None,
        }
    }

    pub fn wake(&self) {
        self.wake.notify_one();
    }

    pub fn count_dropped(&self) {
        self.counters.dropped(1);
    }

    /// Ends the connection for good: no other one follows.
    pub fn end(&self, why: &'static str) {
        let slot = std::mem::replace(&mut *self.slot.lock(), Slot::Ended);
        if let Slot::Connected(link) = slot {
            link.close(why);
        }
    }

    fn is_ended(&self) -> bool {
        matches!(*self.slot.lock(), Slot::Ended)
    }

    pub fn figures(&self) -> LaneFigures {
        let mut figures = self.counters.figures();
        figures.last_error.clone_from(&self.last_error.lock());
        figures.is_not_admitted = self.is_not_admitted.load(Ordering::Relaxed);
        figures.is_refused = self.is_refused.load(Ordering::Relaxed);
        match self.link() {
            None => figures.connected_since_ms = None,
            Some(link) => {
                figures.is_connected = true;
                figures.log_id = Some(link.log_id);
                (figures.queued, figures.queued_bytes, figures.unanswered) = link.load();
            }
        }
        figures
    }

    fn failed(&self, error: &ConnectionError, address: &str) {
        let is_not_admitted =
            matches!(error, ConnectionError::Refused(refusal) if refusal.is_not_admitted());
        self.is_not_admitted
            .store(is_not_admitted, Ordering::Relaxed);
        self.is_refused.store(error.is_refusal(), Ordering::Relaxed);
        let error = error.to_string();
        let (node, lane) = (self.node, self.lane.name());
        if self.seen.is_new(&error) {
            tracing::warn!("node {node} at {address} is not connected: {error}");
        } else {
            tracing::debug!("node {node} at {address} is not connected, lane {lane}: {error}");
        }
        *self.last_error.lock() = Some(error);
    }
}

/// Is there while a connection is; dropped, by whatever, it ends all that belongs to the connection.
struct Connected<'a> {
    shared: &'a Shared,
    peer: &'a PeerLane,
    link: Arc<Link>,
    is_reported: bool,
}

impl<'a> Connected<'a> {
    fn new(
        shared: &'a Shared,
        peer: &'a PeerLane,
        link: &Arc<Link>,
        process: u64,
        greeted_with: u128,
    ) -> Self {
        let mut connected = Self {
            shared,
            peer,
            link: Arc::clone(link),
            is_reported: false,
        };
        let mut slot = peer.slot.lock();
        match *slot {
            Slot::Ended => {
                drop(slot);
                link.close("it is not wanted any more");
            }
            Slot::Empty | Slot::Connected(_) => {
                *slot = Slot::Connected(Arc::clone(link));
                drop(slot);
                link.counters.connected();
                if peer.seen.is_new(peer.lane.name()) {
                    tracing::info!("connected to node {}, lane {}", peer.node, peer.lane.name());
                }
                connected.is_reported = true;
                let handler = &shared.handler;
                handler.connected(peer.node, peer.lane, link.log_id, process);
            }
        }
        // Either this sees the new id, or the one that sets it sees this connection.
        shared.close_if_greeted_otherwise(link, greeted_with);
        connected
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.link.close("the connection was given up");
        let mut slot = self.peer.slot.lock();
        if !matches!(*slot, Slot::Ended) {
            *slot = Slot::Empty;
        }
        drop(slot);
        self.link.counters.lost.fetch_add(1, Ordering::Relaxed);
        if self.link.age() >= self.shared.timing.steady {
            self.peer.seen.forget();
        }
        if self.is_reported {
            self.shared.handler.lost(self.peer.node, self.peer.lane);
        }
    }
}

/// Connects again and again until the peer is removed.
pub(crate) async fn keep_connected(
    shared: Arc<Shared>,
    peer: Arc<PeerLane>,
    mut address: watch::Receiver<String>,
) {
    let mut pause = Pause::new(&shared.timing);
    loop {
        let target = address.borrow_and_update().clone();
        let ended = tokio::select! {
            ended = connect_once(&shared, &peer, &target) => Some(ended),
            changed = address.changed() => match changed {
                Ok(()) => None,
                Err(_) => return,
            },
        };
        let Some((error, was_steady)) = ended else {
            pause = Pause::new(&shared.timing);
            continue;
        };
        if peer.is_ended() {
            return;
        }
        peer.failed(&error, &target);
        if was_steady {
            pause = Pause::new(&shared.timing);
        }
        tokio::select! {
            () = sleep(pause.next()) => {}
            () = peer.wake.notified() => {}
            changed = address.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Why the connection ended or could not be made, and whether it was one that worked.
async fn connect_once(shared: &Shared, peer: &PeerLane, address: &str) -> (ConnectionError, bool) {
    peer.counters.attempts.fetch_add(1, Ordering::Relaxed);
    let ours = shared.greeting(peer.node, peer.lane);
    let (open, theirs) = match greet(shared, address, &ours).await {
        Ok(greeted) => greeted,
        Err(error) => return (error, false),
    };
    let counters = Arc::clone(&peer.counters);
    let link = Arc::new(Link::new(peer.node, peer.lane, theirs.log_id, counters));
    let _connected = Connected::new(shared, peer, &link, theirs.process, ours.log_id);
    let error = open
        .run(&link, &shared.timing, |frame| take(&link, frame))
        .await;
    link.fail("the connection ended", &error.to_string());
    (error, link.age() >= shared.timing.steady)
}

async fn greet(
    shared: &Shared,
    address: &str,
    ours: &Greeting,
) -> Result<(Open, Greeting), ConnectionError> {
    let timing = &shared.timing;
    let configs = shared.tls.as_ref().map(|tls| tls.configs());
    let mut open = connection::call(address, ours.to, configs, timing).await?;
    let greetings = async {
        open.send(&ours.to_frame()).await?;
        open.greeting().await
    };
    let theirs = timeout(timing.greeting, greetings)
        .await
        .map_err(|_| ConnectionError::NoGreeting(timing.greeting.as_millis()))??;
    if let Err(refusal) = theirs.check(ours) {
        open.refuse(&refusal, timing.greeting).await;
        return Err(refusal.into());
    }
    Ok((open, theirs))
}

fn take(link: &Link, frame: Frame) -> Result<(), ConnectionError> {
    match frame.kind {
        FrameKind::Answer | FrameKind::Failure => link.answered(frame),
        FrameKind::Ping => link.pinged(frame.id),
        FrameKind::Pong => link.ponged(frame.id),
        FrameKind::Refusal => return Err(Refusal::of_frame(&frame).into()),
        other => return Err(ConnectionError::Unexpected(other)),
    }
    Ok(())
}

/// How long to wait before the next attempt.
struct Pause {
    next: Duration,
    longest: Duration,
}

impl Pause {
    fn new(timing: &Timing) -> Self {
        Self {
            next: timing.pause_shortest,
            longest: timing.pause_longest,
        }
    }

    /// Of many nodes that have lost the same peer not all come back at once.
    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_cut_by_at_most_a_half() {
        let timing = Timing::default();
        let mut pause = Pause::new(&timing);
        let mut whole = timing.pause_shortest;
        for _ in 0..20 {
            let next = pause.next();
            assert!(next >= whole / 2 && next <= whole, "{next:?} of {whole:?}");
            whole = (whole * 2).min(timing.pause_longest);
        }
        assert_eq!(whole, timing.pause_longest);
    }
}
