//! Opening a node: recover the log, open the state, replay what lies between, lead.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{bounded, unbounded};
use onelog_commit::{Remembered, ValidatorOptions};
use onelog_engine::{Applied, Engine, EngineOptions, Raft, RaftOptions};
use onelog_log::{Disk, FlushPool, HardState, HardStateRead, Log, LogOptions, RealDisk, Recovery};
use onelog_record::{Index, KeyRange, TABLE_TABLES, Term};
use onelog_state::{Opened, State, StateOptions};

use crate::catalog::{Catalog, CatalogError};
use crate::failure::Failure;
use crate::options::Options;
use crate::retention::Retention;
use crate::shared::{Parts, Shared};
use crate::shell::{Command, Completion, Reply, Shell};
use crate::worker::Worker;

/// This node's number in its cluster of one.
pub(crate) const NODE: u64 = 1;
/// Checkpoints yield to commits: a quarter of a core's share when both want one.
const CHECKPOINT_NICENESS: i32 = 6;
/// How many bytes of the log are read at once while replaying.
const REPLAY_BYTES: usize = 16 << 20;

/// A node could not be opened. Nothing has been changed beyond what recovery logged.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be used.
    #[error("cannot use the folder {folder}: {cause}")]
    Folder {
        /// Which folder.
        folder: String,
        /// Why.
        cause: std::io::Error,
    },
    /// The log cannot be recovered.
    #[error(transparent)]
    Log(#[from] onelog_log::OpenError),
    /// The state cannot be opened.
    #[error(
        "the state cannot be opened: {0}; the log can rebuild it when it reaches back to offset 0: move the folder 'state' away and start again"
    )]
    State(#[from] onelog_state::OpenError),
    /// Log and state do not fit together.
    #[error(
        "the state covers the log up to index {state}, but the log holds entries {first} to {last}: one of them is not from here or has lost data; restore both from the same backup"
    )]
    Mismatch {
        /// The state's last applied index.
        state: Index,
        /// The log's first index.
        first: Index,
        /// The log's last index.
        last: Index,
    },
    /// The log could not be read while replaying.
    #[error("the log could not be replayed: {0}")]
    Replay(#[from] onelog_log::ReadError),
    /// Something failed while starting.
    #[error(transparent)]
    Start(#[from] Failure),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(std::io::Error),
    /// A random number is needed for the log's id.
    #[error("the hard state could not be saved: {0}")]
    HardState(std::io::Error),
}

/// A running node's handles.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: crossbeam_channel::Sender<Command>,
    pub(crate) thread: std::thread::JoinHandle<()>,
}

pub(crate) fn open(options: Options) -> Result<Running, OpenError> {
    let disk = |name: &str| {
        let folder = options.folder.join(name);
        RealDisk::open(&folder)
            .map(|disk| Arc::new(disk) as Arc<dyn Disk>)
            .map_err(|cause| OpenError::Folder {
                folder: folder.display().to_string(),
                cause,
            })
    };
    let (log_disk, state_disk) = (disk("log")?, disk("state")?);
    open_on(log_disk, state_disk, options)
}

/// Opens a node on any disks.
pub(crate) fn open_on(
    log_disk: Arc<dyn Disk>,
    state_disk: Arc<dyn Disk>,
    options: Options,
) -> Result<Running, OpenError> {
    let log_options = LogOptions {
        segment_bytes: options.segment_bytes,
        ..LogOptions::default()
    };
    let (log, recovery) = Log::open(log_disk, log_options)?;
    let state_options = StateOptions {
        memtable_bytes: options.memtable_bytes,
        memtable_bytes_max: options.memtable_bytes_max,
        cache_bytes: options.cache_bytes,
        snapshot_age_max_ms: options.snapshot_age_ms_max,
        ids_max: options.ids_max,
        ..StateOptions::default()
    };
    let (state, opened) = State::open(state_disk, state_options)?;
    check_fit(&recovery, &opened)?;
    let hard_state = hard_state(&recovery);
    let shared = Arc::new(Shared::new(Parts {
        reader: log.reader(),
        state,
        log_id: hard_state.log_id,
        log_start: recovery.start,
        options,
    }));
    let (commands, waiting) = bounded(shared.options.queue_requests_max);
    let mut shell = shell(&shared, log, hard_state, waiting, &recovery, opened)?;
    load_catalog(&shared)?;
    replay(&mut shell, recovery.last_index)?;
    let thread = std::thread::Builder::new()
        .name("onelog-engine".to_owned())
        .spawn(move || shell.run())
        .map_err(OpenError::Thread)?;
    Ok(Running {
        shared,
        commands,
        thread,
    })
}

/// The state may be behind the log, which then replays; it may never be ahead of it, and there may
/// be no gap between them.
fn check_fit(recovery: &Recovery, opened: &Opened) -> Result<(), OpenError> {
    let state = opened.applied.index;
    if state > recovery.last_index || state.next() < recovery.first_index {
        return Err(OpenError::Mismatch {
            state,
            first: recovery.first_index,
            last: recovery.last_index,
        });
    }
    Ok(())
}

fn hard_state(recovery: &Recovery) -> HardState {
    match &recovery.hard_state {
        HardStateRead::Present(found) => HardState {
            clean: false,
            ..*found
        },
        HardStateRead::Empty => HardState {
            term: Term::ZERO,
            vote: 0,
            commit: Index::ZERO,
            durable: Index::ZERO,
            clean: false,
            log_id: rand::random::<u128>().max(1),
            node: NODE,
        },
    }
}

fn shell(
    shared: &Arc<Shared>,
    log: Log,
    hard_state: HardState,
    commands: crossbeam_channel::Receiver<Command>,
    recovery: &Recovery,
    opened: Opened,
) -> Result<Shell, OpenError> {
    let options = &shared.options;
    let term_of_last = recovery.terms.last().map_or(Term::ZERO, |(_, term)| *term);
    // With one voter whatever is durable here is committed.
    let consensus = RaftOptions {
        node: NODE,
        voters: vec![NODE],
        term: hard_state.term,
        vote: hard_state.vote,
        committed: recovery.last_index,
        committed_term: if recovery.last_index == opened.applied.index {
            opened.applied.term.max(term_of_last)
        } else {
            term_of_last
        },
        committed_end: recovery.end.max(opened.applied.position),
        uncommitted: Vec::new(),
    };
    let raft = Raft::new(&consensus).map_err(|cause| Failure::Engine(cause.into()))?;
    let engine_options = EngineOptions {
        compression: options.compression,
        validator: ValidatorOptions {
            window_writes_max: options.window_writes_max,
            ids_max: options.ids_max,
        },
    };
    let applied = Applied {
        position: opened.applied.position,
        index: opened.applied.index,
        term: opened.applied.term,
    };
    let ids = opened.ids.into_iter().map(|id| Remembered {
        position: id.position,
        id: id.id,
        fingerprint: id.fingerprint,
        records: id.records,
    });
    let engine = Engine::<Reply>::new(engine_options, raft, applied, ids);
    let (complete, completed) = unbounded();
    let on_flush = complete.clone();
    let pool = FlushPool::start(
        options.flushes_in_flight,
        move |number, result, duration| {
            let _ = on_flush.send(Completion::Flushed(number, result, duration));
        },
    )
    .map_err(OpenError::Thread)?;
    Ok(Shell {
        shared: Arc::clone(shared),
        engine,
        log,
        hard_state,
        pool,
        commands,
        completed,
        complete,
        checkpointer: Worker::start_nice("onelog-checkpoint", CHECKPOINT_NICENESS)
            .map_err(OpenError::Thread)?,
        preparer: Worker::start("onelog-prepare").map_err(OpenError::Thread)?,
        effects: Vec::new(),
        in_flight: 0,
        checkpointing: false,
        preparing: false,
        last_checkpoint: Instant::now(),
        checkpointed: applied.index,
        retention: Retention::default(),
        stopping: false,
    })
}

fn load_catalog(shared: &Shared) -> Result<(), OpenError> {
    let all = KeyRange {
        table: TABLE_TABLES,
        from: bytes::Bytes::new(),
        to: None,
    };
    let mut catalog = Catalog::new();
    let rows = shared
        .state
        .snapshot()
        .scan(&all, false)
        .map_err(read_failure)?;
    for row in rows {
        let row = row.map_err(read_failure)?;
        let record = onelog_record::Record {
            offset: row.version,
            op: onelog_record::Op::Put,
            table: TABLE_TABLES,
            key: row.key,
            value: Some(row.value),
            headers: Vec::new(),
        };
        catalog
            .apply(&record)
            .map_err(|cause: CatalogError| Failure::Catalog(cause))?;
    }
    *shared.catalog.write() = Arc::new(catalog);
    Ok(())
}

fn read_failure(cause: onelog_state::ReadError) -> OpenError {
    Failure::Engine(onelog_commit::ViewError(Box::new(cause)).into()).into()
}

/// Applies what the log has beyond the checkpoint, then stands for election and waits until the
/// first entry of the new term is durable: from then on requests are admitted.
fn replay(shell: &mut Shell, last: Index) -> Result<(), OpenError> {
    let from = shell.engine.applied();
    shell.shared.advance.set(from.position);
    shell
        .shared
        .applied_index
        .store(from.index.get(), std::sync::atomic::Ordering::Release);
    let mut at = from.index.next();
    while at <= last {
        let entries = shell.shared.reader.entries(at, last.next(), REPLAY_BYTES)?;
        for entry in entries {
            at = entry.index.next();
            shell
                .engine
                .replay(entry, &mut shell.effects)
                .map_err(Failure::from)?;
        }
        shell.carry_out_replay()?;
        shell.make_room()?;
    }
    if last > from.index {
        tracing::info!(from = %from.position, to = %shell.engine.applied().position, "replayed the log");
    }
    shell
        .engine
        .campaign(&mut shell.effects)
        .map_err(Failure::from)?;
    shell.carry_out()?;
    while !shell.engine.admits() {
        shell.wait_for_completion()?;
    }
    Ok(())
}

/// An id for a request that came without one.
pub(crate) fn new_id() -> onelog_record::TxnId {
    onelog_record::TxnId(uuid::Uuid::now_v7().as_u128())
}
