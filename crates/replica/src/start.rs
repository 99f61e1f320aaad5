//! Starting: recover the log, open the state, replay what lies between, lead.
//!
//! ```text
//!  open ──▶ begin ──▶ start_more ─┬▶ More   (replayed a piece: report completions, call again)
//!                         ▲       ├▶ Waits  (a checkpoint or the first flush must end first)
//!                         └───────┴▶ Ready  (requests are admitted)
//! ```

use std::sync::Arc;

use bytes::Bytes;
use onelog_commit::{Remembered, ValidatorOptions, ViewError};
use onelog_engine::{
    Applied, ConsensusError, Engine, EngineError, EngineOptions, Members, Raft, RaftOptions,
};
use onelog_log::{Disk, HardState, Log, LogOptions, LogReader, NewerFormat, ReadError, Recovery};
use onelog_record::{Index, KeyRange, NodeId, Op, Position, Record, TABLE_TABLES};
use onelog_state::{Opened, State, StateOptions};

use crate::catalog::Catalog;
use crate::checkpoints::Checkpoints;
use crate::events::Now;
use crate::failure::Failure;
use crate::followers::Followers;
use crate::hard_state;
use crate::jobs::Outbox;
use crate::observer::Observer;
use crate::options::{NODE, ReplicaOptions};
use crate::planted::{self, Bug};
use crate::replica::Replica;
use crate::retention::Retention;
use crate::space::Space;

/// How many bytes of the log are read at once while replaying.
const REPLAY_BYTES: usize = 16 << 20;

/// A replica could not be started. Nothing has been changed beyond what recovery logged.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be recovered.
    #[error(transparent)]
    Log(#[from] onelog_log::OpenError),
    /// The files were made by a newer version of onelog.
    #[error(transparent)]
    Newer(NewerFormat),
    /// The state cannot be opened.
    #[error("the state cannot be opened: {0}")]
    State(#[source] onelog_state::OpenError),
    /// Log and state do not fit together.
    #[error(
        "the state covers the log up to index {state}, but the log holds entries {first} to {last}: one of them is not from here or has lost data; restore both from the same backup"
    )]
    Mismatch {
        /// The state's last applied index.
        state: Index,
        first: Index,
        last: Index,
    },
    /// The log could not be read while replaying.
    #[error("the log could not be replayed: {0}")]
    Replay(#[from] ReadError),
    /// Something failed while starting.
    #[error(transparent)]
    Start(#[from] Failure),
}

impl From<onelog_state::OpenError> for StartError {
    fn from(error: onelog_state::OpenError) -> Self {
        match error {
            onelog_state::OpenError::Newer(newer) => Self::Newer(newer),
            other => Self::State(other),
        }
    }
}

/// What is left to do before requests are admitted.
#[derive(Debug)]
pub(crate) struct Startup {
    from: Position,
    next: Index,
    last: Index,
    has_campaigned: bool,
}

/// How a start goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartProgress {
    /// Requests are admitted.
    Ready,
    /// There is more to do: report what has ended, and call again.
    More,
    /// A job must end first.
    Waits,
}

/// Disks that were opened and fit together: the beginning of a replica.
#[derive(Debug)]
pub struct Recovered {
    options: ReplicaOptions,
    log: Log,
    recovery: Recovery,
    state: State,
    opened: Opened,
    hard_state: HardState,
}

impl Recovered {
    /// Recovers the log and opens the state. Blocks.
    ///
    /// # Errors
    /// When either is damaged, or they do not belong together.
    pub fn open(
        log_disk: Arc<dyn Disk>,
        state_disk: Arc<dyn Disk>,
        options: ReplicaOptions,
    ) -> Result<Self, StartError> {
        let log_options = LogOptions {
            segment_bytes: options.segment_bytes,
            index_every_bytes: options.index_every_bytes,
            ..LogOptions::default()
        };
        let (log, recovery) = Log::open(log_disk, log_options)?;
        let state_options = StateOptions {
            memtable_bytes: options.memtable_bytes,
            memtable_bytes_max: options.memtable_bytes_max,
            cache_bytes: options.cache_bytes,
            ids_max: options.ids_max,
            ..StateOptions::default()
        };
        let (state, opened) = State::open(state_disk, state_options)?;
        check_fit(&recovery, &opened)?;
        Ok(Self {
            hard_state: hard_state::after(&recovery, options.new_log_id),
            options,
            log,
            recovery,
            state,
            opened,
        })
    }

    /// A handle for readers of the state on any thread.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// A handle for readers of the log on any thread. They must go no further than what is applied.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        self.log.reader()
    }

    /// The random id of this log, the same for as long as it lives.
    #[must_use]
    pub const fn log_id(&self) -> u128 {
        self.hard_state.log_id
    }

    /// The oldest position that the log still has.
    #[must_use]
    pub const fn log_start(&self) -> Position {
        self.recovery.start
    }

    /// A replica at the state's checkpoint. [`Replica::start_more`] leads it on.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn begin<T, O: Observer>(
        self,
        mut observer: O,
        followers: Arc<Followers>,
        now: Now,
    ) -> Result<Replica<T, O>, StartError> {
        let applied = Applied {
            position: self.opened.applied.position,
            index: self.opened.applied.index,
            term: self.opened.applied.term,
            // The clock may have been set back since, and the log may have been cut.
            timestamp_ms: (self.opened.applied.timestamp_ms).max(self.recovery.timestamp_ms),
        };
        let engine = self.engine(applied)?;
        let catalog = Arc::new(load_catalog(&self.state)?);
        observer.catalog_changed(&catalog);
        observer.replayed(applied.index, applied.position);
        Ok(Replica {
            observer,
            engine,
            reader: self.log.reader(),
            log: self.log,
            state: self.state,
            hard_state: self.hard_state,
            catalog,
            followers,
            startup: Startup {
                from: applied.position,
                next: applied.index.next(),
                last: self.recovery.last_index,
                has_campaigned: false,
            },
            effects: Vec::new(),
            view: None,
            flushes_in_flight: 0,
            is_preparing: false,
            is_saving: false,
            space: Space::default(),
            checkpoints: Checkpoints {
                is_running: false,
                unfinished: None,
                begun_with: None,
                considered_at_ms: now.monotonic_ms,
                covered: applied.index,
                kept_since_ms: None,
            },
            retention: Retention {
                is_running: false,
                considered_at_ms: now.monotonic_ms,
                complained_at_ms: None,
            },
            taken: 0,
            turn_began_at_step: 0,
            ticked_at_ms: now.monotonic_ms,
            is_stopping: false,
            options: self.options,
        })
    }

    fn engine<T>(&self, applied: Applied) -> Result<Engine<T>, Failure> {
        let recovery = &self.recovery;
        let mut terms = recovery.terms.clone();
        if terms.is_empty() && applied.index > Index::ZERO {
            terms.push((applied.index, applied.term));
        }
        // With one voter whatever is durable here is committed.
        let raft = Raft::new(&RaftOptions {
            node: NodeId(NODE),
            members: Members::alone(NodeId(NODE)),
            term: self.hard_state.term,
            vote: self.hard_state.vote,
            first: recovery.first_index,
            terms,
            committed: recovery.last_index,
            committed_end: recovery.end.max(applied.position),
            uncommitted: Vec::new(),
            seed: 0,
        })
        .map_err(|cause: ConsensusError| Failure::Engine(cause.into()))?;
        let options = EngineOptions {
            compression: self.options.compression,
            validator: ValidatorOptions {
                window_writes_max: self.options.window_writes_max,
                ids_max: self.options.ids_max,
            },
        };
        let ids = self.opened.ids.iter().map(|id| Remembered {
            position: id.position,
            id: id.id,
            fingerprint: id.fingerprint,
            records: id.records,
        });
        Ok(Engine::new(options, raft, applied, ids))
    }
}

/// The state may be behind the log, which then replays; it may never be ahead of it, and there may
/// be no gap between them.
fn check_fit(recovery: &Recovery, opened: &Opened) -> Result<(), StartError> {
    let state = opened.applied.index;
    if state > recovery.last_index || state.next() < recovery.first_index {
        return Err(StartError::Mismatch {
            state,
            first: recovery.first_index,
            last: recovery.last_index,
        });
    }
    Ok(())
}

fn load_catalog(state: &State) -> Result<Catalog, Failure> {
    let all = KeyRange {
        table: TABLE_TABLES,
        from: Bytes::new(),
        to: None,
    };
    let unreadable = |cause: onelog_state::ReadError| {
        Failure::Engine(EngineError::View(ViewError(Box::new(cause))))
    };
    let mut catalog = Catalog::new();
    for row in state.snapshot().scan(&all, false).map_err(unreadable)? {
        let row = row.map_err(unreadable)?;
        let record = Record {
            offset: row.version,
            op: Op::Put,
            table: TABLE_TABLES,
            key: row.key,
            value: Some(row.value),
            headers: Vec::new(),
        };
        catalog.apply(&record)?;
    }
    Ok(catalog)
}

impl<T, O: Observer> Replica<T, O> {
    /// Goes on with the start: applies what the log has beyond the checkpoint, a piece with each
    /// call, then seeks the leadership and waits until the first entry of the new term is durable.
    ///
    /// # Errors
    /// Final.
    pub fn start_more(
        &mut self,
        now: Now,
        out: &mut Outbox<T>,
    ) -> Result<StartProgress, StartError> {
        if self.startup.next <= self.startup.last {
            if !self.checkpoints.is_running && self.state.wants_checkpoint() {
                self.start_checkpoint(now, out);
            }
            if self.state.is_full() && self.checkpoints.is_running {
                return Ok(StartProgress::Waits);
            }
            self.replay_piece()?;
            return Ok(StartProgress::More);
        }
        if !self.startup.has_campaigned {
            self.startup.has_campaigned = true;
            self.engine
                .campaign(&mut self.effects)
                .map_err(Failure::from)?;
            self.carry_out(out)?;
        }
        Ok(if self.engine.admits() {
            StartProgress::Ready
        } else {
            StartProgress::Waits
        })
    }

    fn replay_piece(&mut self) -> Result<(), StartError> {
        let (next, last) = (self.startup.next, self.startup.last);
        let entries = self.reader.entries(next, last.next(), REPLAY_BYTES)?;
        assert!(
            !entries.is_empty(),
            "recovery has read every entry up to the last one"
        );
        for mut entry in entries {
            self.startup.next = entry.index.next();
            if planted::is(Bug::ReplayShort) && entry.index == last {
                entry = planted::without_transactions(&entry);
            }
            self.engine
                .replay(entry, &mut self.effects)
                .map_err(Failure::from)?;
        }
        self.apply_replayed()?;
        if self.startup.next > last {
            let (from, to) = (self.startup.from, self.engine.applied().position);
            tracing::info!(%from, %to, "replayed the log");
        }
        Ok(())
    }
}
