//! Opening a node: its disks, its threads, and the replica that they drive until it leads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, unbounded};
use onelog_log::{Disk, FlushPool, LogOptions, RealDisk};
use onelog_replica::{
    ELECTION_MS, Event, FOUNDER, Outbox, READ_REPLICA, Recovered, ReplicaOptions, StartError,
};
use uuid::{NoContext, Timestamp, Uuid};

use crate::cluster::{self, ClusterError, Messages, Opening, check_alone};
use crate::copy::{UnfinishedCopy, check_finished};
use crate::driver::{CHECKPOINT_THREAD, Command, Completed, Driver, ENGINE_THREAD, PREPARE_THREAD};
use crate::folder::{FolderError, ForeignFiles, check_folder};
use crate::follow::{self, FollowError, Following};
use crate::options::Options;
use crate::queue::{Exit, queue};
use crate::shared::{Parts, Published, Shared};
use crate::space::{SpaceProbe, SpaceWatch};
use crate::stopping::Stopping;
use crate::worker::Worker;

/// Checkpoints yield to commits: a quarter of a core's share when both want one.
const CHECKPOINT_NICENESS: i32 = 6;

/// A node could not be opened. Nothing has been changed beyond what recovery logged.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be used.
    #[error("cannot use the folder {folder}: {cause}")]
    Folder {
        folder: String,
        cause: std::io::Error,
    },
    #[error(transparent)]
    Foreign(#[from] ForeignFiles),
    #[error(transparent)]
    Unfinished(#[from] UnfinishedCopy),
    /// The disks cannot be recovered, or do not fit together.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The node cannot take part in its cluster, or not without one.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The node cannot follow another server.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(std::io::Error),
}

impl From<FolderError> for OpenError {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::Foreign(foreign) => Self::Foreign(foreign),
            FolderError::Io { folder, cause } => Self::Folder { folder, cause },
        }
    }
}

/// A running node's handles.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) shared: Arc<Shared>,
    pub(crate) thread: std::thread::JoinHandle<()>,
}

pub(crate) fn open(options: Options) -> Result<Running, OpenError> {
    check_finished(&options.folder)?;
    check_folder(&options.folder)?;
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
    let (opening, log_id) = whose_log(&*log_disk, &options)?;
    let replica_options = replica_options(&options, log_id);
    let probe = SpaceProbe::new([Arc::clone(&log_disk), Arc::clone(&state_disk)]);
    let recover = || {
        let (log, state) = (Arc::clone(&log_disk), Arc::clone(&state_disk));
        Recovered::open(log, state, replica_options.clone())
    };
    let recovered = match (&opening, &options.cluster) {
        (Some(Opening { cluster, .. }), Some(members)) => {
            cluster::recover(cluster, &*log_disk, members.start_timeout, recover)?
        }
        _ => recover()?,
    };
    let (inbox, messages, cluster) = match opening {
        Some(opening) => {
            opening.cluster.peers.set_log_id(recovered.log_id());
            let Opening {
                inbox,
                messages,
                cluster,
                ..
            } = opening;
            (Some(inbox), Some(messages), Some(cluster))
        }
        None => (None, None, None),
    };
    let following = options.follow.as_ref();
    let following = following.map(|source| Following::new(source, recovered.last_index()));
    let following = following.transpose().map_err(OpenError::Thread)?;
    let (commands, waiting) = queue(options.queue_requests_max);
    let (complete, completed) = unbounded();
    let shared = Arc::new(Shared::new(Parts {
        reader: recovered.reader(),
        state: recovered.state(),
        log_id: recovered.log_id(),
        log_start: recovered.log_start(),
        options,
        commands,
        cluster,
        following,
        complete: complete.clone(),
    }));
    let inputs = Inputs {
        commands: waiting,
        messages,
        complete,
        completed,
    };
    let driver = driver(&shared, recovered, inputs, probe)?;
    if let Some(inbox) = inbox {
        inbox.attach(&shared);
    }
    match start(&shared, driver) {
        Ok(thread) => Ok(Running { shared, thread }),
        Err(error) => {
            if let Some(cluster) = &shared.cluster {
                cluster.stop();
            }
            if let Some(following) = &shared.following {
                following.stop();
            }
            Err(error)
        }
    }
}

/// The connections to other nodes, where there are any, and the id of the log; `None` where this node
/// begins one.
fn whose_log(
    log: &dyn Disk,
    options: &Options,
) -> Result<(Option<Opening>, Option<u128>), OpenError> {
    match (&options.cluster, &options.follow) {
        (Some(_), Some(_)) => Err(FollowError::InCluster.into()),
        (Some(cluster), None) => {
            let opening = Opening::begin(log, cluster)?;
            let log_id = opening.log_id;
            Ok((Some(opening), log_id))
        }
        (None, Some(source)) => Ok((None, Some(follow::log_id(log, &**source)?))),
        (None, None) => {
            check_alone(log)?;
            Ok((None, None))
        }
    }
}

fn start(shared: &Arc<Shared>, mut driver: Driver) -> Result<JoinHandle<()>, OpenError> {
    cluster::begin(shared);
    driver.start()?;
    follow::begin(shared).map_err(OpenError::Thread)?;
    std::thread::Builder::new()
        .name(ENGINE_THREAD.to_owned())
        .spawn(move || driver.run())
        .map_err(OpenError::Thread)
}

/// What the engine's thread hears.
struct Inputs {
    commands: Exit<Command>,
    messages: Option<Messages>,
    complete: Sender<Completed>,
    completed: Receiver<Completed>,
}

fn replica_options(options: &Options, log_id: Option<u128>) -> ReplicaOptions {
    ReplicaOptions {
        node: match (&options.cluster, &options.follow) {
            (Some(cluster), _) => cluster.node,
            (None, Some(_)) => READ_REPLICA,
            (None, None) => FOUNDER,
        },
        new_log_id: log_id.unwrap_or_else(|| rand::random::<u128>().max(1)),
        election_ms: (options.cluster.as_ref()).map_or(ELECTION_MS, |cluster| cluster.election_ms),
        segment_bytes: options.segment_bytes,
        index_every_bytes: LogOptions::default().index_every_bytes,
        memtable_bytes: options.memtable_bytes,
        memtable_bytes_max: options.memtable_bytes_max,
        cache_bytes: options.cache_bytes,
        checkpoint_interval_ms: options.checkpoint_interval_ms,
        snapshot_age_ms_max: options.snapshot_age_ms_max,
        retain_bytes: options.retain_bytes,
        retain_ms: options.retain_ms,
        retain_past_followers: options.retain_past_followers,
        disk_reserve_bytes: options.disk_reserve_bytes,
        disk_warning_bytes: options.disk_warning_bytes,
        compression: options.compression,
        flushes_in_flight: options.flushes_in_flight,
        ids_max: options.ids_max,
        window_writes_max: options.window_writes_max,
    }
}

fn driver(
    shared: &Arc<Shared>,
    recovered: Recovered,
    inputs: Inputs,
    probe: SpaceProbe,
) -> Result<Driver, OpenError> {
    let now = shared.now();
    let published = Published(Arc::clone(shared));
    let replica = recovered.begin(published, Arc::clone(&shared.followers), now)?;
    let Inputs {
        commands,
        messages,
        complete,
        completed,
    } = inputs;
    let on_flush = complete.clone();
    let flush_seconds = shared.metrics.flush_seconds.clone();
    let pool = FlushPool::start(
        shared.options.flushes_in_flight,
        move |number, result, duration| {
            flush_seconds.observe(duration.as_secs_f64());
            let _ = on_flush.send(Ok(Event::Flushed { number, result }));
        },
    )
    .map_err(OpenError::Thread)?;
    Ok(Driver {
        shared: Arc::clone(shared),
        replica,
        outbox: Outbox::default(),
        pool,
        commands,
        messages,
        completed,
        complete,
        unreachable: BTreeSet::new(),
        flushing: 0,
        stopping: Stopping::No,
        checkpointer: Worker::start_nice(CHECKPOINT_THREAD, CHECKPOINT_NICENESS)
            .map_err(OpenError::Thread)?,
        space: SpaceWatch::new(probe, now),
        preparer: Worker::start(PREPARE_THREAD).map_err(OpenError::Thread)?,
        now,
    })
}

/// An id for a request that came without one.
pub(crate) fn new_id() -> onelog_record::TxnId {
    id_at(SystemTime::now())
}

/// The random part makes ids distinct; the time orders them, as well as the clock can.
fn id_at(now: SystemTime) -> onelog_record::TxnId {
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = Timestamp::from_unix(NoContext, since_1970.as_secs(), since_1970.subsec_nanos());
    onelog_record::TxnId(Uuid::new_v7(at).as_u128())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn ids_are_made_whatever_the_clock_says() {
        /// About so many seconds are 9,000 years.
        const LONG: Duration = Duration::from_secs(9_000 * 31_557_600);
        let clocks = [
            UNIX_EPOCH - LONG,
            UNIX_EPOCH - Duration::from_nanos(1),
            UNIX_EPOCH,
        ];
        let clocks = clocks.into_iter().chain([UNIX_EPOCH + LONG]);
        let ids: Vec<_> = clocks.flat_map(|at| [id_at(at), id_at(at)]).collect();
        let distinct: HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert!(ids.iter().all(|id| id.0 >> 76 & 15 == 7), "{ids:?}");
    }
}
