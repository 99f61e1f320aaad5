//! Starting: replay what the log has beyond the state's checkpoint, then lead, or wait for a leader.
//!
//! ```text
//!  open ──▶ begin ──▶ start_more ─┬▶ More   (replayed a piece: report completions, call again)
//!                         ▲       ├▶ Waits  (a checkpoint or the first flush must end first)
//!                         └───────┴▶ Ready  (events are taken)
//! ```
//!
//! While it replays, the engine's consensus only keeps the members. That which takes part is made
//! afterwards, when it is known who the members are and what of the log is committed.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use onelog_commit::{Remembered, ValidatorOptions, ViewError};
use onelog_engine::{Applied, Engine, EngineError, EngineOptions, Members, Raft, RaftOptions};
use onelog_log::HardState;
use onelog_record::{Entry, EntryKind, Index, KeyRange, Op, Position, Record, TABLE_TABLES, Term};
use onelog_state::{Opened, State};

use crate::catalog::Catalog;
use crate::checkpoints::Checkpoints;
use crate::cluster::Cluster;
use crate::digests::Digests;
use crate::events::Now;
use crate::failure::Failure;
use crate::followers::Followers;
use crate::jobs::Outbox;
use crate::log_clock::LogClock;
use crate::observer::Observer;
use crate::opening::{Recovered, StartError};
use crate::options::ReplicaOptions;
use crate::planted::{self, Bug};
use crate::replica::Replica;
use crate::retention::Retention;
use crate::space::Space;

/// How many bytes of the log are read at once while replaying.
const REPLAY_BYTES: usize = 16 << 20;

/// How much of what is not applied is in memory, as a part of the memory of all memtables.
const UNAPPLIED_PART: usize = 8;

/// What is left to do before events are taken.
#[derive(Debug)]
pub(crate) struct Startup {
    from: Position,
    next: Index,
    /// Everything up to here is committed, and replayed.
    committed: Index,
    /// The last entry of the log.
    last: Index,
    /// From which index on each term holds.
    terms: Vec<(Index, Term)>,
    /// Whether `committed` is the end of the log because this node is alone: an entry that changes the
    /// members ends that.
    is_alone: bool,
    has_replayed: bool,
    has_campaigned: bool,
}

impl Startup {
    fn new(recovered: &Recovered) -> Self {
        let (recovery, hard_state) = (&recovered.recovery, &recovered.hard_state);
        let applied = recovered.opened.applied;
        let is_alone = recovered.members == Members::alone(recovered.options.node);
        let mut terms = recovery.terms.clone();
        // The term before the log's first entry: a follower that lacks that one is known by it.
        let is_before = applied.index > Index::ZERO && applied.index.next() == recovery.first_index;
        if is_before
            && terms
                .first()
                .is_none_or(|(first, _)| *first > applied.index)
        {
            terms.insert(0, (applied.index, applied.term));
        }
        let mut startup = Self {
            from: applied.position,
            next: applied.index.next(),
            committed: recovery.last_index,
            last: recovery.last_index,
            terms,
            is_alone,
            has_replayed: false,
            has_campaigned: false,
        };
        if !is_alone && !recovered.options.is_read_replica() {
            startup.among_others(applied.index, hard_state.commit);
        }
        startup
    }

    /// Up to `known` everything is committed, and up to what was saved.
    fn among_others(&mut self, known: Index, saved: Index) {
        self.is_alone = false;
        self.committed = match () {
            () if planted::is(Bug::DurableIsCommitted) => self.last,
            () if planted::is(Bug::CommitBehindCheckpoint) => saved,
            () => saved.max(known).min(self.last),
        };
    }
}

/// How a start goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartProgress {
    /// It has ended. Where this node is the only voter, it leads and admits requests; else it hears of
    /// a leader, or becomes one, later.
    Ready,
    /// There is more to do: report what has ended, and call again.
    More,
    /// A job must end first.
    Waits,
}

impl Recovered {
    /// A replica at the state's checkpoint. [`Replica::start_more`] leads it
    /// on.
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
        let startup = Startup::new(&self);
        let parts = RaftParts {
            members: &self.members,
            committed: (startup.last, self.recovery.end.max(applied.position)),
            first: self.log.first_index(),
            uncommitted: Vec::new(),
        };
        let raft = raft(&self.options, &self.hard_state, &startup.terms, parts)?;
        let engine = engine(&self.options, &self.opened, applied, raft);
        let catalog = Arc::new(load_catalog(&self.state)?);
        observer.catalog_changed(&catalog);
        observer.members_changed(applied.index, &self.members);
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
            startup,
            effects: Vec::new(),
            queue: VecDeque::new(),
            cluster: Cluster::new(&self.options, self.members.clone()),
            arrived: None,
            view: None,
            flushes_in_flight: 0,
            is_preparing: false,
            prepare_from_ms: 0,
            is_saving: false,
            unsaved_bytes: 0,
            saved_at_ms: now.monotonic_ms,
            turn_bytes: 0,
            space: Space::default(),
            log_clock: LogClock::default(),
            checkpoints: Checkpoints::at(applied.index, self.members, now),
            digests: Digests::default(),
            retention: Retention {
                is_running: false,
                considered_at_ms: now.monotonic_ms,
                complained_at_ms: None,
                defined: None,
            },
            taken: 0,
            turn_began_at_step: 0,
            ticked_at_ms: now.monotonic_ms,
            is_stopping: false,
            options: self.options,
        })
    }
}

/// Up to where entries are committed because a change of the members comes behind them.
///
/// A leader proposes a change only when it has applied the one before. So of the changes in a log only
/// the last one may be open, and who the members are is at most one change behind: the majorities
/// before and after one change overlap, and those before and after two need not.
fn committed_by_changes(entries: &[Entry]) -> Option<Index> {
    let changes = entries.iter().rev();
    let mut changes = changes.filter(|entry| entry.header.kind == EntryKind::Membership);
    changes.nth(1).map(|entry| entry.index)
}

/// What differs between the consensus of a replay and that of a member.
struct RaftParts<'m> {
    members: &'m Members,
    /// The last committed entry, and the position behind it.
    committed: (Index, Position),
    first: Index,
    uncommitted: Vec<Entry>,
}

fn raft(
    options: &ReplicaOptions,
    hard_state: &HardState,
    terms: &[(Index, Term)],
    parts: RaftParts<'_>,
) -> Result<Raft, Failure> {
    let node = options.node;
    let made = Raft::new(&RaftOptions {
        node,
        members: parts.members.clone(),
        term: hard_state.term,
        vote: hard_state.vote,
        first: parts.first,
        terms: terms.to_vec(),
        committed: parts.committed.0,
        committed_end: parts.committed.1,
        uncommitted: parts.uncommitted,
        unapplied_bytes_max: options.memtable_bytes_max / UNAPPLIED_PART,
        // Another one for each node and each start.
        seed: hard_state.log_id as u64 ^ node.get() << 32 ^ hard_state.term.get(),
    });
    made.map_err(|cause| Failure::Engine(cause.into()))
}

fn engine<T>(options: &ReplicaOptions, opened: &Opened, applied: Applied, raft: Raft) -> Engine<T> {
    let options = EngineOptions {
        compression: options.compression,
        validator: ValidatorOptions {
            window_writes_max: options.window_writes_max,
            ids_max: options.ids_max,
        },
    };
    Engine::new(options, raft, applied, remembered(opened))
}

/// The ids that a state remembers, as the engine takes them.
pub(crate) fn remembered(opened: &Opened) -> impl Iterator<Item = Remembered> {
    opened.ids.iter().map(|id| Remembered {
        position: id.position,
        id: id.id,
        fingerprint: id.fingerprint,
        records: id.records,
    })
}

pub(crate) fn load_catalog(state: &State) -> Result<Catalog, Failure> {
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

impl<T, O> Replica<T, O> {
    /// Whether everything that is committed is applied: [`Replica::members`] says who takes part.
    #[must_use]
    pub const fn has_replayed(&self) -> bool {
        self.startup.has_replayed
    }
}

impl<T, O: Observer> Replica<T, O> {
    /// Goes on with the start: applies what is committed beyond the checkpoint, a piece with each
    /// call. The only voter then seeks the leadership, and waits until the first entry of the new term
    /// is durable.
    ///
    /// # Errors
    /// Final.
    pub fn start_more(
        &mut self,
        now: Now,
        out: &mut Outbox<T>,
    ) -> Result<StartProgress, StartError> {
        if self.startup.next <= self.startup.committed {
            if !self.checkpoints.is_running && self.state.wants_checkpoint() {
                self.start_checkpoint(now, out);
            }
            if self.state.is_full() && self.checkpoints.is_running {
                return Ok(StartProgress::Waits);
            }
            self.replay_piece()?;
            return Ok(StartProgress::More);
        }
        if !self.startup.has_replayed {
            self.end_replay()?;
            return Ok(StartProgress::More);
        }
        if !self.cluster.is_only_voter() {
            return Ok(StartProgress::Ready);
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
        let (next, committed) = (self.startup.next, self.startup.committed);
        let entries = self.reader.entries(next, committed.next(), REPLAY_BYTES)?;
        assert!(
            !entries.is_empty(),
            "recovery has read every entry up to the last one"
        );
        for mut entry in entries {
            self.startup.next = entry.index.next();
            if planted::is(Bug::ReplayShort) && entry.index == committed {
                entry = planted::without_transactions(&entry);
            }
            let (index, kind) = (entry.index, entry.header.kind);
            self.engine
                .replay(entry, &mut self.effects)
                .map_err(Failure::from)?;
            if kind == EntryKind::Membership && self.startup.is_alone {
                self.startup.among_others(index, self.hard_state.commit);
            }
            if self.startup.next > self.startup.committed {
                break;
            }
        }
        self.apply_replayed()?;
        Ok(())
    }

    /// Everything that is committed is applied. From here on this node takes part; unless the rest of
    /// the log says that more is committed.
    fn end_replay(&mut self) -> Result<(), StartError> {
        let applied = self.engine.applied();
        let (from, last) = (self.startup.from, self.startup.last);
        let mut uncommitted = Vec::new();
        let mut next = applied.index.next();
        while next <= last {
            let entries = self.reader.entries(next, last.next(), REPLAY_BYTES)?;
            assert!(
                !entries.is_empty(),
                "recovery has read every entry up to the last one"
            );
            next = Index(next.get() + entries.len() as u64);
            uncommitted.extend(entries);
        }
        if let Some(known) = committed_by_changes(&uncommitted)
            && !planted::is(Bug::ChangesNotLookedFor)
        {
            self.startup.committed = known;
            return Ok(());
        }
        self.startup.has_replayed = true;
        tracing::info!(%from, to = %applied.position, "replayed the log");
        let parts = RaftParts {
            members: &self.cluster.members,
            committed: (self.startup.committed, applied.position),
            first: self.log.first_index(),
            uncommitted,
        };
        let terms = std::mem::take(&mut self.startup.terms);
        self.engine
            .take_part(raft(&self.options, &self.hard_state, &terms, parts)?);
        self.offer_snapshot();
        Ok(())
    }
}
