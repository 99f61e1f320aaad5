//! Damaged frames of this node's log, put back from another node that has the entry: before the log
//! is opened, while it is replayed, and when a reader meets one later.
//!
//! ```text
//!  damaged node                       any other one
//!  reads a frame that is damaged
//!     ── ENTRY: index ─────────────▶  reads its own, which is checked as ever
//!     ◀─ entry, checksum ──────────   or refuses
//!  the log puts it back, where its neighbours vouch for it, or it is committed
//! ```
//!
//! Until it is mended a node that starts takes no part in anything; a reader waits for a while. A log
//! that has lost its end is never mended.
//!
//! Threads: any that may block, one frame at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog_log::{Copied, Corruption, Disk, Log, MendError, OpenError as LogError, ReadError};
use onelog_peers::{Lane, Pending, Reply, RequestError};
use onelog_record::{Index, NodeId};
use onelog_replica::{Recovered, StartError};
use parking_lot::Mutex;

use super::{Cluster, ClusterError, wire};
use crate::open::OpenError;
use crate::shared::Shared;

/// How long one copy may take.
const COPY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a reader waits for a frame that is to be mended.
const READER_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// More frames are not put back one by one: a disk with so much damage is to be replaced.
const FRAMES_MAX: usize = 1_000;

/// What has been mended, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Mending {
    mended: AtomicU64,
    /// When mending failed last, and of which entry; held while a frame is mended.
    failed: Mutex<Option<(Index, Instant)>>,
}

impl Mending {
    /// How many frames were put back since the start.
    pub(crate) fn mended(&self) -> u64 {
        self.mended.load(Ordering::Relaxed)
    }
}

/// Why a frame was not put back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotMended {
    #[error(transparent)]
    Refused(MendError),
    #[error("no other node has given a copy within {seconds} s ({tried})")]
    NoCopy { seconds: u64, tried: String },
    #[error("more than {FRAMES_MAX} frames are damaged")]
    TooMany,
}

/// Opens what the disks hold, and puts back what is damaged. Blocks.
pub(crate) fn recover(
    cluster: &Cluster,
    log: &dyn Disk,
    timeout: Duration,
    open: impl Fn() -> Result<Recovered, StartError>,
) -> Result<Recovered, OpenError> {
    let node = cluster.node;
    for _ in 0..FRAMES_MAX {
        let fault = match open() {
            Err(StartError::Log(LogError::Corrupt(fault))) => fault,
            opened => return Ok(opened?),
        };
        tracing::error!(%fault, "the log is damaged; the node takes no part until other nodes have given it the entry");
        let put = |copied: &Copied| Log::mend(log, copied);
        let mended = Log::wound(log, fault.index)
            .map_err(NotMended::Refused)
            .and_then(|()| mend_in_order(cluster, fault.index, timeout, &put));
        mended.map_err(|why| damaged(node, fault, why))?;
    }
    Err(ClusterError::TooDamaged { node }.into())
}

fn damaged(node: NodeId, fault: Corruption, why: NotMended) -> ClusterError {
    match why {
        NotMended::Refused(MendError::LostTail { last, durable }) => ClusterError::LostTail {
            node,
            last,
            durable,
        },
        why @ NotMended::NoCopy { .. } => ClusterError::Damaged {
            node,
            fault,
            why: why.to_string(),
        },
        why => ClusterError::NotMended {
            node,
            fault,
            why: why.to_string(),
        },
    }
}

/// Reads the log; what turns out to be damaged is put back first, where there are other nodes.
/// Blocks.
pub(crate) fn read_mended<T>(
    shared: &Shared,
    read: impl Fn() -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    for _ in 0..FRAMES_MAX {
        let fault = match read() {
            Err(ReadError::Corrupt(fault)) => fault,
            read => return read,
        };
        if !mend(shared, &fault) {
            return Err(ReadError::Corrupt(fault));
        }
    }
    read()
}

/// Puts back a frame that a reader has found; answers whether it is whole now. Blocks.
pub(crate) fn mend(shared: &Shared, fault: &Corruption) -> bool {
    let Some(cluster) = &shared.cluster else {
        return false;
    };
    let mut failed = cluster.mending.failed.lock();
    let is_recent =
        |(index, at): (Index, Instant)| index == fault.index && at.elapsed() < READER_TIMEOUT;
    if failed.is_some_and(is_recent) || cluster.is_stopping() {
        return false;
    }
    tracing::error!(%fault, "the log is damaged; other nodes are to give this one the entry");
    let put = |copied: &Copied| shared.reader.mend(copied);
    match mend_in_order(cluster, fault.index, READER_TIMEOUT, &put) {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(index = %fault.index, %error, "a damaged entry was not mended");
            *failed = Some((fault.index, Instant::now()));
            false
        }
    }
}

type Put<'a> = &'a dyn Fn(&Copied) -> Result<(), MendError>;

/// Puts back a frame, and those before it in its segment that are damaged as well.
fn mend_in_order(
    cluster: &Cluster,
    index: Index,
    timeout: Duration,
    put: Put<'_>,
) -> Result<(), NotMended> {
    let mut next = index;
    for _ in 0..FRAMES_MAX {
        match mend_one(cluster, next, timeout, put) {
            Ok(()) if next == index => return Ok(()),
            Ok(()) => next = index,
            Err(NotMended::Refused(MendError::Before(earlier))) => next = earlier.index,
            Err(error) => return Err(error),
        }
    }
    Err(NotMended::TooMany)
}

fn mend_one(
    cluster: &Cluster,
    index: Index,
    timeout: Duration,
    put: Put<'_>,
) -> Result<(), NotMended> {
    let began = Instant::now();
    let mut tried = BTreeMap::new();
    loop {
        for peer in cluster.peers.figures().peers {
            let why = match copy_of(cluster, peer.node, index) {
                Err(why) => why,
                Ok(copied) => match put(&copied) {
                    Ok(()) => {
                        cluster.mending.mended.fetch_add(1, Ordering::Relaxed);
                        return Ok(());
                    }
                    Err(MendError::Whole(_)) => return Ok(()),
                    // Another node may have the right one, or this one later.
                    Err(why @ (MendError::Other { .. } | MendError::NotCommitted(_))) => {
                        why.to_string()
                    }
                    Err(final_one) => return Err(NotMended::Refused(final_one)),
                },
            };
            tried.insert(peer.node, why);
        }
        if began.elapsed() >= timeout || cluster.is_stopping() {
            let each = tried
                .iter()
                .map(|(node, why)| format!("node {node}: {why}"));
            return Err(NotMended::NoCopy {
                seconds: timeout.as_secs(),
                tried: each.collect::<Vec<_>>().join("; "),
            });
        }
        cluster.pause(RETRY_PAUSE);
    }
}

fn copy_of(cluster: &Cluster, from: NodeId, index: Index) -> Result<Copied, String> {
    let body = wire::numbered(index.get(), &[]);
    let request = cluster
        .peers
        .request(from, Lane::Bulk, wire::ENTRY, body, COPY_TIMEOUT);
    let bytes = answer_of(cluster, request).map_err(|error| match error {
        RequestError::Refused => "it does not have the entry".to_owned(),
        error => error.to_string(),
    })?;
    match wire::decode_copied(bytes) {
        Ok(copied) if copied.entry.index == index => Ok(copied),
        Ok(_) => Err("it has given another entry".to_owned()),
        Err(error) => Err(format!("its answer is malformed: {error}")),
    }
}

/// Waits on any thread, one of a runtime too.
pub(super) fn answer_of(cluster: &Cluster, request: Pending) -> Result<Bytes, RequestError> {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    cluster.spawn(async move {
        let _ = sender.send(request.await);
    });
    receiver.recv().unwrap_or_else(|_| {
        Err(RequestError::Lost {
            is_sent: true,
            why: "the node stops".to_owned(),
        })
    })
}

/// Another node lacks an entry: its frame there is damaged.
pub(crate) fn serve(shared: &Arc<Shared>, from: NodeId, bytes: Bytes, reply: Reply) {
    let (Some(cluster), Ok((index, _))) = (&shared.cluster, wire::split_numbered(bytes)) else {
        return reply.refuse();
    };
    let index = Index(index);
    let job_of = Arc::clone(shared);
    // Where it does not fit, the reply is dropped; the other node requests it again.
    let _ = cluster.exporter.push(move || {
        let committed = job_of.applied_index();
        match job_of.reader.copied(index, committed) {
            Ok(Some(copied)) => {
                tracing::warn!(%from, %index, "give another node an entry that is damaged there");
                reply.send(wire::copied(&copied));
            }
            Ok(None) => reply.refuse(),
            Err(error) => {
                tracing::error!(%from, %error, "an entry that is damaged on another node cannot be read here");
                reply.refuse();
            }
        }
    });
}
