//! What is shared about one connection between its task and those who use it: what waits to be sent,
//! and who waits for an answer.
//!
//! Invariant: a request is in `waiting` from the moment in which it is taken until it is answered,
//! gives up or the link is closed; all three under the one lock, so that each is answered once, and
//! none comes in behind the closing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog_record::NodeId;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::error::{RequestError, SendError};
use crate::figures::LaneCounters;
use crate::frame::{Frame, FrameKind};
use crate::lane::Lane;
use crate::limits::{REQUESTS_HELD_MAX, REQUESTS_SENT_MAX};
use crate::request::{Failure, Outcome};

#[derive(Debug)]
pub(crate) struct Link {
    pub node: NodeId,
    pub lane: Lane,
    /// Of the other side, as it was when they were connected.
    pub log_id: u128,
    pub counters: Arc<LaneCounters>,
    started: Instant,
    state: Mutex<State>,
    /// Something can be sent.
    wake: Notify,
    ended: Notify,
    /// When something was last heard, and when something sent was last taken, since the start.
    heard_us: AtomicU64,
    progressed_us: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    closed: Option<&'static str>,
    queue: VecDeque<Frame>,
    queue_bytes: usize,
    ping: Option<u64>,
    pong: Option<u64>,
    waiting: HashMap<u64, Waiting>,
    last_id: u64,
}

#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Outcome>,
    until: Instant,
    is_sent: bool,
}

impl Link {
    pub fn new(node: NodeId, lane: Lane, log_id: u128, counters: Arc<LaneCounters>) -> Self {
        Self {
            node,
            lane,
            log_id,
            counters,
            started: Instant::now(),
            state: Mutex::default(),
            wake: Notify::new(),
            ended: Notify::new(),
            heard_us: AtomicU64::new(0),
            progressed_us: AtomicU64::new(0),
        }
    }

    /// Queues a frame, if there is room.
    pub fn push(&self, frame: Frame) -> Result<(), SendError> {
        self.push_into(&mut self.state.lock(), frame)
    }

    /// Queues what is small and answers something, beyond the bounds of the queue by as much as the
    /// other side may wait for. One that lets more come and does not read it is cut off.
    pub fn push_small(&self, frame: Frame) {
        let mut state = self.state.lock();
        let (frames_max, _) = self.lane.queue_max();
        if state.queue.len() >= frames_max + REQUESTS_HELD_MAX {
            drop(state);
            self.close("the other side does not read its answers");
            return;
        }
        if state.closed.is_none() {
            self.enqueue(&mut state, frame);
        }
    }

    fn enqueue(&self, state: &mut State, frame: Frame) {
        if state.queue.is_empty() {
            // The time in which nothing was to be sent is none in which the other side took nothing.
            self.progressed();
        }
        state.queue_bytes += frame.size();
        state.queue.push_back(frame);
        self.wake.notify_one();
    }

    fn push_into(&self, state: &mut State, frame: Frame) -> Result<(), SendError> {
        let (is, max) = (frame.body.len(), self.lane.bytes_max());
        if is > max {
            return Err(SendError::TooLarge { is, max });
        }
        if state.closed.is_some() {
            return Err(SendError::NotConnected(self.node));
        }
        let (frames_max, bytes_max) = self.lane.queue_max();
        let is_full = state.queue.len() >= frames_max || state.queue_bytes + is > bytes_max;
        if is_full && !state.queue.is_empty() {
            return Err(SendError::Full);
        }
        self.enqueue(state, frame);
        Ok(())
    }

    /// Queues a request; its answer comes by the channel in any case.
    pub fn request(
        &self,
        topic: u16,
        body: Bytes,
        within: Duration,
    ) -> Result<oneshot::Receiver<Outcome>, SendError> {
        let mut state = self.state.lock();
        if state.waiting.len() >= REQUESTS_SENT_MAX {
            return Err(SendError::Full);
        }
        let id = state.last_id + 1;
        let frame = Frame {
            body,
            ..Frame::bare(FrameKind::Request, topic, id)
        };
        self.push_into(&mut state, frame)?;
        state.last_id = id;
        let (answer, receiver) = oneshot::channel();
        let now = Instant::now();
        let waiting = Waiting {
            answer,
            until: now.checked_add(within).unwrap_or(now),
            is_sent: false,
        };
        state.waiting.insert(id, waiting);
        Ok(receiver)
    }

    /// What is to be sent next. A request is sent from here on.
    pub fn take(&self) -> Option<Frame> {
        let state = &mut *self.state.lock();
        if state.closed.is_some() {
            return None;
        }
        if let Some(id) = state.pong.take() {
            return Some(Frame::bare(FrameKind::Pong, 0, id));
        }
        if let Some(id) = state.ping.take() {
            return Some(Frame::bare(FrameKind::Ping, 0, id));
        }
        while let Some(frame) = state.queue.pop_front() {
            state.queue_bytes -= frame.size();
            if frame.kind == FrameKind::Request {
                let Some(waiting) = state.waiting.get_mut(&frame.id) else {
                    continue;
                };
                waiting.is_sent = true;
            }
            self.counters.sent(frame.size());
            return Some(frame);
        }
        None
    }

    /// Waits for the next frame to send. By the connection's task alone.
    pub async fn next(&self) -> Frame {
        loop {
            if let Some(frame) = self.take() {
                return frame;
            }
            self.wake.notified().await;
        }
    }

    /// An answer or a failure has come.
    pub fn answered(&self, frame: Frame) {
        let waiting = self.state.lock().waiting.remove(&frame.id);
        // One that has given up is not there any more.
        let Some(waiting) = waiting else {
            return;
        };
        let outcome = match frame.kind {
            FrameKind::Failure => Err(Failure::error_of(frame.topic)),
            _ => Ok(frame.body),
        };
        let _ = waiting.answer.send(outcome);
    }

    pub fn ping(&self) {
        self.state.lock().ping = Some(self.now_us());
        self.wake.notify_one();
    }

    pub fn pinged(&self, id: u64) {
        self.state.lock().pong = Some(id);
        self.wake.notify_one();
    }

    pub fn ponged(&self, id: u64) {
        let round_trip_us = self.now_us().saturating_sub(id);
        self.counters.round_trip(round_trip_us);
    }

    pub fn heard(&self, bytes: usize) {
        self.counters.received(bytes);
        self.heard_us.store(self.now_us(), Ordering::Relaxed);
    }

    pub fn progressed(&self) {
        self.progressed_us.store(self.now_us(), Ordering::Relaxed);
    }

    /// The process did not run for a while: that others were not heard then says nothing of them.
    pub fn forgive(&self) {
        self.heard_us.store(self.now_us(), Ordering::Relaxed);
        self.progressed();
    }

    pub fn unheard_for(&self) -> Duration {
        self.since(&self.heard_us)
    }

    pub fn stalled_for(&self) -> Duration {
        self.since(&self.progressed_us)
    }

    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    fn since(&self, at_us: &AtomicU64) -> Duration {
        let at_us = at_us.load(Ordering::Relaxed);
        Duration::from_micros(self.now_us().saturating_sub(at_us))
    }

    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// Gives up the requests whose time has passed.
    pub fn give_up(&self, now: Instant) {
        let mut state = self.state.lock();
        if state.waiting.is_empty() {
            return;
        }
        let late: Vec<Waiting> = state
            .waiting
            .extract_if(|_, waiting| waiting.until <= now)
            .map(|(_, waiting)| waiting)
            .collect();
        drop(state);
        for Waiting {
            answer, is_sent, ..
        } in late
        {
            let _ = answer.send(Err(RequestError::TimedOut { is_sent }));
        }
    }

    /// Ends the connection: its task ends, every request is answered, nothing more is taken. The
    /// first reason counts.
    pub fn close(&self, why: &'static str) {
        self.fail(why, why);
    }

    /// As [`Self::close`], with the reason that the requests are given.
    pub fn fail(&self, why: &'static str, detail: &str) {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(why);
        let waiting = std::mem::take(&mut state.waiting);
        let queue = std::mem::take(&mut state.queue);
        state.queue_bytes = 0;
        drop(state);
        self.ended.notify_one();
        let messages = queue.iter().filter(|f| f.kind == FrameKind::Message);
        self.counters.dropped(messages.count());
        for waiting in waiting.into_values() {
            let _ = waiting.answer.send(Err(RequestError::Lost {
                is_sent: waiting.is_sent,
                why: detail.to_owned(),
            }));
        }
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().closed.is_some()
    }

    /// Waits until another thread or task closes it. By the connection's task alone.
    pub async fn closed(&self) -> &'static str {
        loop {
            if let Some(why) = self.state.lock().closed {
                return why;
            }
            self.ended.notified().await;
        }
    }

    /// How many frames and bytes wait to be sent, and how many requests for an answer.
    pub fn load(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        (state.queue.len(), state.queue_bytes, state.waiting.len())
    }
}
