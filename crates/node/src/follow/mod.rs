//! A read replica: a node that is no member of any cluster, takes the whole log from another server,
//! and answers reads (docs/decisions/0010-read-replicas.md).
//!
//! ```text
//!  source ── entries ──▶ onelog-follow ── Event::FromSource ──▶ replica: log, state
//!            pulses        checks the chain                       applied
//!                          waits until it is applied ◀────────────┘
//! ```
//!
//! One piece is on its way at a time: the disk sets the pace, and memory is bounded by it. How the
//! source is reached is not known here: [`Source`] is implemented by the program that opens the node.

mod start;
mod status;
mod thread;

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog_record::{Index, Position};
use parking_lot::{Condvar, Mutex};

pub use start::FollowError;
pub use status::{FollowState, FollowStatus};

pub(crate) use start::{begin, log_id};

use crate::cluster::Work;
use crate::node::Node;
use crate::shared::Shared;
use status::View;

/// How long the source may be silent: it sends a pulse each [`PULSE_EVERY`].
pub const SILENCE_MAX: Duration = Duration::from_secs(4);
/// How often a source says how far it is.
pub const PULSE_EVERY: Duration = Duration::from_secs(1);
/// How old what a source knows may be: longer than a chain of read replicas takes, each of which is a
/// pulse behind the one before it.
pub const AGE_MAX: Duration = Duration::from_secs(10);
/// How many clients may wait for the source's position at once.
const BARRIERS_MAX: usize = 256;
/// How long the source may take to say its position.
const BARRIER_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// The server that a read replica follows. Every call blocks.
pub trait Source: fmt::Debug + Send + Sync {
    /// Its address, for people, and for clients that want to write.
    fn address(&self) -> &str;

    /// The id of its log.
    ///
    /// # Errors
    /// When it does not answer.
    fn log_id(&self) -> Result<u128, SourceError>;

    /// Its log behind an entry with this checksum, as a stream without end. Reading from it MUST fail
    /// where nothing comes for [`SILENCE_MAX`].
    ///
    /// # Errors
    /// When it does not answer, or cannot send the log from there on.
    fn log(
        &self,
        log_id: u128,
        behind: Index,
        checksum: u32,
    ) -> Result<Box<dyn Read + Send>, SourceError>;

    /// The head of its last checkpoint.
    ///
    /// # Errors
    /// When it does not answer.
    fn state(&self) -> Result<Bytes, SourceError>;

    /// A piece of the checkpoint at `index`.
    ///
    /// # Errors
    /// When it does not answer, or no longer has that checkpoint.
    fn chunk(&self, index: Index, cursor: &[u8]) -> Result<Bytes, SourceError>;

    /// A position below which everything is that was acknowledged before this call.
    ///
    /// # Errors
    /// When it does not answer in time.
    fn position(&self, within: Duration) -> Result<Position, SourceError>;
}

/// The source did not do what it was asked for. The text is the whole reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It does not answer, or cannot now.
    #[error("{0}")]
    Away(String),
    /// It has less of the log than this node.
    #[error("{0}")]
    Behind(String),
    /// It no longer has what comes next.
    #[error("{0}")]
    Cut(String),
    /// It no longer has the checkpoint that is being taken in.
    #[error("{0}")]
    StateGone(String),
    #[error("{0}")]
    OtherLog(String),
    /// An entry that this node has is another one there.
    #[error("{0}")]
    OtherHistory(String),
}

/// What a read replica has beside what every node has.
#[derive(Debug)]
pub(crate) struct Following {
    source: Arc<dyn Source>,
    view: Mutex<View>,
    /// Requests the source's position.
    requests: Work,
    thread: Mutex<Option<JoinHandle<()>>>,
    is_stopping: Mutex<bool>,
    /// The same, for what requests the position.
    requests_no_more: Arc<AtomicBool>,
    stops: Condvar,
}

impl Following {
    /// Without its thread, which [`begin`] starts; `last` is the last entry that is here.
    pub(crate) fn new(source: &Arc<dyn Source>, last: Index) -> std::io::Result<Self> {
        Ok(Self {
            source: Arc::clone(source),
            view: Mutex::new(View::new(last > Index::ZERO)),
            requests: Work::start("onelog-request", BARRIERS_MAX)?,
            thread: Mutex::default(),
            is_stopping: Mutex::default(),
            requests_no_more: Arc::default(),
            stops: Condvar::new(),
        })
    }

    /// How long ago the server that writes the log was heard of, directly or through others.
    pub(crate) fn age_ms(&self) -> u32 {
        self.view.lock().age_ms()
    }

    fn is_stopping(&self) -> bool {
        *self.is_stopping.lock()
    }

    /// Waits, but not beyond the node's stop.
    fn pause(&self, pause: Duration) {
        let mut is_stopping = self.is_stopping.lock();
        if !*is_stopping {
            self.stops.wait_for(&mut is_stopping, pause);
        }
    }

    fn look(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock());
    }

    /// Begins to end what follows the source.
    pub(crate) fn begin_stop(&self) {
        *self.is_stopping.lock() = true;
        self.requests_no_more.store(true, Ordering::Relaxed);
        self.stops.notify_all();
    }

    /// Waits for that, once the engine's thread has ended.
    pub(crate) fn stop(&self) {
        self.begin_stop();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        self.requests.stop();
    }
}

impl Node {
    /// The address of the server that this one follows; `None` unless it is a read replica.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        let following = self.shared.following.as_ref()?;
        Some(following.source.address())
    }

    /// How following goes on; `None` unless this is a read replica.
    #[must_use]
    pub fn following(&self) -> Option<FollowStatus> {
        self.shared.following.as_ref().map(FollowStatus::of)
    }

    /// [`Node::read_barrier`] of a read replica: the source's position, once it is applied here.
    pub async fn source_barrier(&self, within: Duration) -> Result<Position, SourceError> {
        let shared = &self.shared;
        let Some(following) = &shared.following else {
            return Ok(self.position());
        };
        let deadline = Instant::now() + within;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let source = Arc::clone(&following.source);
        let requests_no_more = Arc::clone(&following.requests_no_more);
        let is_taken = following.requests.push(move || {
            let left = deadline.saturating_duration_since(Instant::now());
            let late = || {
                SourceError::Away(format!(
                    "the request did not reach {} in time",
                    source.address()
                ))
            };
            let answer = match left.is_zero() || requests_no_more.load(Ordering::Relaxed) {
                true => Err(late()),
                false => source.position(left.min(BARRIER_TIMEOUT_MAX)),
            };
            // The one that waited may have gone.
            let _ = sender.send(answer);
        });
        if !is_taken {
            return Err(SourceError::Away(format!(
                "{BARRIERS_MAX} clients wait for the position of {} already",
                following.source.address()
            )));
        }
        let stopped = || SourceError::Away("the node has stopped".to_owned());
        let position = receiver.await.map_err(|_| stopped())??;
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.wait_for(position, left).await;
        waited.map_err(|error| {
            SourceError::Away(format!(
                "the source is at position {position}, which is not here yet ({error})"
            ))
        })?;
        Ok(position)
    }
}

impl Shared {
    pub(crate) const fn is_read_replica(&self) -> bool {
        self.following.is_some()
    }
}
