//! Opening: what the disks hold, whether it fits together, and what of it counts as committed.
//!
//! ```text
//!                 checkpoint        committed             last
//!   log   ├───────────┼───────────────┼─────────────────────┤
//!                     │    replayed   │  kept for a leader  │
//! ```
//!
//! - Where the members at the checkpoint are this node alone, everything that is durable here is
//!   committed, up to and with the first entry that changes the members: behind it others decide.
//! - Else it is what the hard state says, which is saved now and then, or the checkpoint, which may be
//!   beyond that.
//! - Of the changes of the members all but the last one are committed.
//! - A log that ends before what it once had committed or checkpointed has lost acknowledged entries:
//!   such a node must not vote, and does not start.

use std::sync::Arc;

use onelog_engine::{Members, MessageError, READ_REPLICA};
use onelog_log::{
    Disk, HARD_STATE_FILE, HardState, Log, LogOptions, LogReader, NewerFormat, Place,
    RESTORE_OR_REPLACE, ReadError, Recovery,
};
use onelog_record::{Index, NodeId, Position, Term};
use onelog_state::{Opened, State, StateOptions};

use crate::effects::warn_of_cut;
use crate::failure::Failure;
use crate::hard_state;
use crate::options::{FOUNDER, ReplicaOptions};
use crate::snapshots::REPLACED;

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
        "the state covers the log up to index {state}, but the log holds entries {first} to {last}: one of them is not from here or has lost data; {RESTORE_OR_REPLACE}"
    )]
    Mismatch {
        /// The state's last applied index.
        state: Index,
        first: Index,
        last: Index,
    },
    /// The log ends before what it once knew to be committed.
    #[error(
        "the log was committed up to index {committed}, but it ends at {last}: the disk has lost acknowledged entries; {RESTORE_OR_REPLACE}"
    )]
    LostTail { committed: Index, last: Index },
    /// The hard state is older than the log.
    #[error(
        "the hard state knows of term {term}, but entry {last}, the log's last one, is of term {found}: the file {HARD_STATE_FILE} is an earlier copy, and has forgotten what this node voted for since; {RESTORE_OR_REPLACE}. Where this folder has what no other one has, 'onelog restore --alone' makes a log of one node of it"
    )]
    OldHardState {
        term: Term,
        found: Term,
        last: Index,
    },
    /// The folder is that of another node.
    #[error(
        "the folder belongs to node {found}, and this is to be node {node}: correct the number, or use the folder of node {node}"
    )]
    OtherNode { found: u64, node: NodeId },
    /// The folder is that of a read replica.
    #[error(
        "the folder belongs to a read replica, which follows another server: start it with --follow and the address of that one. To make a log of its own of it, make a backup while it runs, and restore that"
    )]
    IsReadReplica,
    /// The folder of a node is to be that of a read replica.
    #[error(
        "the folder belongs to node {found}, and this is to be a read replica: start it without --follow, or give the read replica a folder of its own"
    )]
    NoReadReplica { found: u64 },
    /// The folder is that of another log.
    #[error(
        "the folder holds the log {found:032x}, and the cluster's is {log_id:032x}: correct the addresses of the members, or let the node join with an empty folder"
    )]
    OtherLog { found: u128, log_id: u128 },
    /// Who the members are cannot be read.
    #[error("who the members are cannot be read from the state: {0}; {RESTORE_OR_REPLACE}")]
    Members(#[from] MessageError),
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

/// Disks that were opened and fit together: the beginning of a replica.
#[derive(Debug)]
pub struct Recovered {
    pub(crate) options: ReplicaOptions,
    pub(crate) log: Log,
    pub(crate) recovery: Recovery,
    pub(crate) state: State,
    pub(crate) opened: Opened,
    pub(crate) hard_state: HardState,
    /// As of the state's checkpoint.
    pub(crate) members: Members,
    has_finished_install: bool,
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
        let (mut log, mut recovery) = Log::open(log_disk, log_options)?;
        let state_options = StateOptions {
            memtable_bytes: options.memtable_bytes,
            memtable_bytes_max: options.memtable_bytes_max,
            cache_bytes: options.cache_bytes,
            ids_max: options.ids_max,
            ..StateOptions::default()
        };
        let (state, opened) = State::open(state_disk, state_options)?;
        let has_finished_install = finish_install(&mut log, &mut recovery, &opened)?;
        check_fit(&recovery, &opened)?;
        let hard_state = hard_state::after(&recovery, &options);
        check_identity(&hard_state, &options)?;
        check_term(&hard_state, &recovery, &options)?;
        let committed = hard_state.commit;
        if committed > recovery.last_index {
            let last = recovery.last_index;
            return Err(StartError::LostTail { committed, last });
        }
        Ok(Self {
            members: members_of(&opened)?,
            has_finished_install,
            hard_state,
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

    /// The last entry that the log has.
    #[must_use]
    pub const fn last_index(&self) -> Index {
        self.recovery.last_index
    }

    /// Whether the log was made to begin behind a state of another node, whose installation a crash had
    /// cut short.
    #[must_use]
    pub const fn has_finished_install(&self) -> bool {
        self.has_finished_install
    }

    /// The oldest position that the log still has.
    #[must_use]
    pub const fn log_start(&self) -> Position {
        self.recovery.start
    }
}

/// A crash may have come between a state that was installed and its log: then the log begins behind
/// that state now.
fn finish_install(
    log: &mut Log,
    recovery: &mut Recovery,
    opened: &Opened,
) -> Result<bool, StartError> {
    let Some(installed) = opened.installed else {
        return Ok(false);
    };
    let place = Place {
        index: installed.index,
        term: installed.term,
        end: installed.end,
        checksum: installed.checksum,
    };
    if log.reader().place(place.index)? == Some(place) {
        return Ok(false);
    }
    tracing::info!(index = %place.index, "the log begins behind the state that was installed last");
    if let Some(cut) = log.restart_behind(place).map_err(Failure::from)? {
        warn_of_cut(&cut, REPLACED);
    }
    recovery.first_index = place.index.next();
    recovery.last_index = place.index;
    (recovery.start, recovery.end) = (place.end, place.end);
    recovery.terms = vec![(place.index, place.term)];
    Ok(true)
}

/// Who the members were at the checkpoint: where nothing says so, the one that began the log.
fn members_of(opened: &Opened) -> Result<Members, StartError> {
    match &opened.members {
        Some(bytes) => Ok(Members::decode(bytes.clone())?),
        None => Ok(Members::alone(FOUNDER)),
    }
}

fn check_identity(found: &HardState, options: &ReplicaOptions) -> Result<(), StartError> {
    let (node, log_id) = (options.node, options.new_log_id);
    match (options.is_read_replica(), found.node == READ_REPLICA.get()) {
        (false, true) => return Err(StartError::IsReadReplica),
        (true, false) => return Err(StartError::NoReadReplica { found: found.node }),
        _ => {}
    }
    if node != FOUNDER && found.log_id != log_id {
        let found = found.log_id;
        return Err(StartError::OtherLog { found, log_id });
    }
    if found.node != node.get() {
        let found = found.node;
        return Err(StartError::OtherNode { found, node });
    }
    Ok(())
}

/// A term is saved before any entry of it. A read replica never votes, and saves none.
fn check_term(
    hard_state: &HardState,
    recovery: &Recovery,
    options: &ReplicaOptions,
) -> Result<(), StartError> {
    let (term, last) = (hard_state.term, recovery.last_index);
    match recovery.terms.last() {
        Some(&(_, found)) if found > term && !options.is_read_replica() => {
            Err(StartError::OldHardState { term, found, last })
        }
        _ => Ok(()),
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
