//! The thread `onelog-follow`: connects, takes what comes, and connects again.
//!
//! | met | what follows |
//! |---|---|
//! | the source is away, silent, cannot | again after a pause that doubles, for ever |
//! | it lacks what is here | the same |
//! | its log was cut | its last checkpoint is taken in place of state and log, then its log |
//! | a damaged piece | a new connection, from the last entry that is applied |
//! | it has another log, or another history | the end: nothing is changed |

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onelog_engine::MessageError;
use onelog_log::stream::{Decoder, Item, Pulse, StreamError};
use onelog_log::{Place, ReadError};
use onelog_record::{Entry, Index};
use onelog_replica::{Event, FromSource, with_read_replica};
use onelog_state::{Head, Import, ImportError};

use super::status::FollowState;
use super::{Following, SourceError};
use crate::shared::Shared;

/// The pause before the first new attempt; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How much is read at once; whole entries in it are made durable together.
const PIECE_BYTES: usize = 1 << 20;
/// When entries are handed to the replica again that it has not applied.
const REPORT_AGAIN: Duration = Duration::from_millis(200);
/// How long the replica may take to put a state in place.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a piece of a checkpoint is requested again while none comes.
const CHUNK_RETRY_FOR: Duration = Duration::from_secs(20);
const CHUNK_RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How often a piece of a checkpoint may come damaged in a row.
const DAMAGED_MAX: u32 = 3;

/// Why one connection has ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    #[error("what came is damaged: {0}")]
    Stream(#[from] StreamError),
    #[error("the log here cannot be read: {0}")]
    Log(#[from] ReadError),
    #[error("its checkpoint was not taken in: {0}")]
    Import(#[from] ImportError),
    #[error("the head of its checkpoint is damaged: {0}")]
    Head(String),
    #[error("the members in its checkpoint cannot be read: {0}")]
    Members(#[from] MessageError),
    #[error(
        "its checkpoint at entry {checkpoint} is not beyond entry {here}, which is the last one here"
    )]
    OldState { checkpoint: Index, here: Index },
    #[error("its checkpoint was not put in place within {} s", INSTALL_TIMEOUT.as_secs())]
    NotInstalled,
    #[error("the node stops")]
    Stopping,
}

impl Ended {
    fn state(&self) -> FollowState {
        match self {
            Self::Source(SourceError::OtherLog(_)) | Self::Stream(StreamError::OtherLog { .. }) => {
                FollowState::OtherLog
            }
            Self::Source(SourceError::OtherHistory(_)) => FollowState::OtherHistory,
            Self::Source(SourceError::Behind(_)) => FollowState::SourceBehind,
            _ => FollowState::SourceAway,
        }
    }
}

pub(super) fn run(shared: &Arc<Shared>) {
    let Some(following) = &shared.following else {
        return;
    };
    let mut thread = Thread {
        shared,
        following,
        pause: PAUSE_MIN,
    };
    while !following.is_stopping() {
        let ended = thread.follow();
        if matches!(ended, Ended::Stopping) || thread.note(&ended).is_final() {
            return;
        }
        following.pause(thread.pause);
        thread.pause = (thread.pause * 2).min(PAUSE_MAX);
    }
}

fn not_now(source: &str, state: FollowState, why: &str) {
    tracing::warn!(
        source,
        state = state.name(),
        why,
        "the source is not followed now"
    );
}

struct Thread<'s> {
    shared: &'s Arc<Shared>,
    following: &'s Following,
    pause: Duration,
}

impl Thread<'_> {
    /// Follows until something is in the way.
    fn follow(&mut self) -> Ended {
        let followed = self.place().and_then(|place| match self.read_log(place) {
            Err(Ended::Source(SourceError::Cut(why))) => {
                self.restart(why)?;
                self.read_log(self.place()?)
            }
            other => other,
        });
        match followed {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    /// Shows why a connection has ended; says it in the log when that is news.
    fn note(&self, ended: &Ended) -> FollowState {
        let (state, why) = (ended.state(), ended.to_string());
        let source = self.following.source.address();
        let is_new = {
            let mut view = self.following.view.lock();
            if matches!(ended, Ended::Stream(_) | Ended::Head(_) | Ended::Import(_)) {
                view.damaged += 1;
            }
            view.set(state, Some(why.clone()))
        };
        match (is_new, state.is_final()) {
            (false, _) => {}
            (true, false) => not_now(source, state, &why),
            (true, true) => tracing::error!(
                %source,
                state = state.name(),
                %why,
                "the source is not followed any more: give the read replica the address of its own source, or an empty folder"
            ),
        }
        state
    }

    /// The last entry that is applied, which is durable: the log ends there, since one piece at a time
    /// is taken.
    fn place(&self) -> Result<Place, Ended> {
        let index = self.shared.applied_index();
        let place = self.shared.reader.place(index)?;
        place.ok_or_else(|| {
            let text = format!("the log here has no place at entry {index}");
            Ended::Lost(io::Error::other(text))
        })
    }

    fn read_log(&mut self, place: Place) -> Result<std::convert::Infallible, Ended> {
        let log_id = self.shared.log_id;
        let source = &self.following.source;
        let mut stream = source.log(log_id, place.index, place.checksum)?;
        let mut decoder = Decoder::new(log_id, place);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            if self.following.is_stopping() {
                return Err(Ended::Stopping);
            }
            let count = stream.read(&mut piece)?;
            if count == 0 {
                let ended = io::Error::new(io::ErrorKind::UnexpectedEof, "it was closed");
                return Err(ended.into());
            }
            let mut left = &piece[..count];
            let (mut entries, mut pulse) = (Vec::new(), None);
            while let Some(item) = decoder.next(&mut left)? {
                match item {
                    Item::Entry(entry) => entries.push(entry),
                    Item::Pulse(latest) => pulse = Some(latest),
                }
            }
            self.take(&entries)?;
            if let Some(pulse) = pulse {
                self.hear(pulse);
            }
        }
    }

    fn hear(&mut self, pulse: Pulse) {
        self.pause = PAUSE_MIN;
        let here = self.shared.applied_position.position();
        let mut view = self.following.view.lock();
        let is_new = view.hear(pulse.position, pulse.age_ms, here);
        let (state, why) = (view.state, view.why.clone().unwrap_or_default());
        drop(view);
        let source = self.following.source.address();
        match (is_new, state) {
            (false, _) => {}
            (true, FollowState::Following) => {
                tracing::info!(%source, from = %self.shared.applied_index(), "follows");
            }
            (true, _) => not_now(source, state, &why),
        }
    }

    /// Hands entries to the replica, and waits until they are applied.
    fn take(&self, entries: &[Entry]) -> Result<(), Ended> {
        let Some(last) = entries.last() else {
            return Ok(());
        };
        loop {
            self.report(FromSource::Entries(entries.to_vec()));
            match self.wait_for(last.index, REPORT_AGAIN) {
                Some(applied) => return applied,
                // A full memtable or disk makes the replica drop what it is handed.
                None => continue,
            }
        }
    }

    fn report(&self, brought: FromSource) {
        self.shared.report(Event::FromSource(Box::new(brought)));
    }

    /// `None` when the time is over first.
    fn wait_for(&self, index: Index, within: Duration) -> Option<Result<(), Ended>> {
        let applied = &self.shared.applied_position;
        let ready = || match self.shared.applied_index() >= index {
            true => Some(Ok(())),
            false => applied.is_stopped().then_some(Err(Ended::Stopping)),
        };
        applied.until_blocking(ready, within)
    }

    /// Takes the source's last checkpoint in place of state and log.
    fn restart(&mut self, why: String) -> Result<(), Ended> {
        let source = &self.following.source;
        let head = source.state()?;
        let head = Head::decode(&head).map_err(|error| Ended::Head(error.to_string()))?;
        let (checkpoint, here) = (head.applied.index, self.shared.applied_index());
        if checkpoint <= here {
            return Err(Ended::OldState { checkpoint, here });
        }
        let head = with_read_replica(head)?;
        tracing::warn!(source = source.address(), %why, index = %checkpoint, "takes the source's state in place of what is here");
        self.following.look(|view| {
            view.set(FollowState::RestartingFromState, Some(why));
        });
        let mut import = Import::begin(&self.shared.state, head.clone())?;
        self.fetch(&mut import)?;
        let imported = import.finish()?;
        self.report(FromSource::State { head, imported });
        let installed = self.wait_for(checkpoint, INSTALL_TIMEOUT);
        installed.unwrap_or(Err(Ended::NotInstalled))?;
        self.following.look(|view| view.restarts += 1);
        Ok(())
    }

    fn fetch(&self, import: &mut Import) -> Result<(), Ended> {
        let source = &self.following.source;
        let index = import.head().applied.index;
        let (mut heard, mut damaged) = (Instant::now(), 0);
        while let Some(cursor) = import.wanted() {
            if self.following.is_stopping() {
                return Err(Ended::Stopping);
            }
            match source.chunk(index, &cursor) {
                Ok(chunk) => {
                    heard = Instant::now();
                    match import.put(&chunk) {
                        Ok(()) => damaged = 0,
                        Err(error) if error.can_be_requested_again() && damaged < DAMAGED_MAX => {
                            damaged += 1;
                        }
                        Err(error) => return Err(error.into()),
                    }
                    let (rows, _) = import.taken();
                    self.following.look(|view| view.rows = Some(rows));
                }
                Err(SourceError::Away(_)) if heard.elapsed() < CHUNK_RETRY_FOR => {
                    self.following.pause(CHUNK_RETRY_PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
