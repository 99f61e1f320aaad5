//! Snapshots on their way to followers that need what the log no longer has.
//!
//! ```text
//!  leader                                      follower
//!  pin the checkpoint ── SNAPSHOT: head ─────▶ begins an import, or refuses
//!                     ◀─ CHUNK: cursor ───────
//!                     ── piece ──────────────▶ …until everything is there
//!                     ◀─ FETCHED ─────────────
//!  Event::SnapshotSent                         Event::Snapshot
//! ```
//!
//! The follower requests each piece, so that its disk sets the pace, and again where an answer got
//! lost. The checkpoint is kept until the follower says that it is done, or requests nothing for a
//! while.
//!
//! Threads: pinning and reading on `onelog-export`; waiting on the runtime of the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog_peers::{Lane, Reply};
use onelog_record::NodeId;
use onelog_replica::{Event, PinnedSnapshot, SendSnapshot};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::wire;
use crate::shared::Shared;

/// How long the follower may take to begin.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the checkpoint is kept while nothing of it is requested.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The snapshots that are being sent, at most one to each follower.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    next: AtomicU64,
    snapshots: Mutex<BTreeMap<u64, Arc<Sent>>>,
}

#[derive(Debug)]
struct Sent {
    to: NodeId,
    pinned: PinnedSnapshot,
    progress: watch::Sender<Progress>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    touched: Instant,
    is_whole: Option<bool>,
}

impl Outgoing {
    fn get(&self, number: u64, to: NodeId) -> Option<Arc<Sent>> {
        let snapshots = self.snapshots.lock();
        let found = snapshots.get(&number).filter(|sent| sent.to == to);
        found.map(Arc::clone)
    }
}

/// Sends the last checkpoint to a follower; its end is reported.
pub(crate) fn send(shared: &Arc<Shared>, snapshot: SendSnapshot) {
    let Some(cluster) = &shared.cluster else {
        return;
    };
    let to = snapshot.to();
    let job_of = Arc::clone(shared);
    let is_taken = cluster.exporter.push(move || begin(&job_of, snapshot));
    if !is_taken {
        ended(shared, to, false);
    }
}

fn begin(shared: &Arc<Shared>, snapshot: SendSnapshot) {
    let to = snapshot.to();
    let pinned = match snapshot.pin() {
        Ok(Some(pinned)) => pinned,
        Ok(None) => return ended(shared, to, false),
        Err(error) => {
            tracing::warn!(%to, %error, "the state cannot be read for another node");
            return ended(shared, to, false);
        }
    };
    let Some(cluster) = &shared.cluster else {
        return;
    };
    let number = cluster.outgoing.next.fetch_add(1, Ordering::Relaxed);
    let sent = Arc::new(Sent {
        to,
        pinned,
        progress: watch::Sender::new(Progress {
            touched: Instant::now(),
            is_whole: None,
        }),
    });
    let snapshots = &cluster.outgoing.snapshots;
    snapshots.lock().insert(number, Arc::clone(&sent));
    cluster.spawn(announce(Arc::clone(shared), number, sent));
}

async fn announce(shared: Arc<Shared>, number: u64, sent: Arc<Sent>) {
    let Some(cluster) = &shared.cluster else {
        return;
    };
    let to = sent.to;
    let index = sent.pinned.head.applied.index;
    tracing::info!(%to, %index, "send the last checkpoint to another node");
    let bytes = wire::announcement(number, &sent.pinned.message, &sent.pinned.head);
    let answer = cluster
        .peers
        .request(to, Lane::Bulk, wire::SNAPSHOT, bytes, BEGIN_TIMEOUT);
    let is_whole = match answer.await {
        Ok(_) => until_fetched(&sent).await,
        Err(error) => {
            tracing::info!(%to, %error, "the other node does not take the checkpoint now");
            false
        }
    };
    cluster.outgoing.snapshots.lock().remove(&number);
    ended(&shared, to, is_whole);
}

/// Waits until the follower is done, or requests nothing for too long.
async fn until_fetched(sent: &Sent) -> bool {
    let mut progress = sent.progress.subscribe();
    loop {
        let Progress { touched, is_whole } = *progress.borrow_and_update();
        if let Some(is_whole) = is_whole {
            return is_whole;
        }
        let left = IDLE_TIMEOUT.saturating_sub(touched.elapsed());
        if left.is_zero()
            || tokio::time::timeout(left, progress.changed())
                .await
                .is_err()
        {
            tracing::warn!(to = %sent.to, "the other node requests nothing more of the checkpoint");
            return false;
        }
    }
}

fn ended(shared: &Shared, to: NodeId, is_whole: bool) {
    shared.report(Event::SnapshotSent { to, is_whole });
}

/// A follower requests the next piece.
pub(crate) fn chunk(shared: &Arc<Shared>, from: NodeId, bytes: Bytes, reply: Reply) {
    let Some(cluster) = &shared.cluster else {
        return reply.refuse();
    };
    let found = wire::split_numbered(bytes)
        .ok()
        .and_then(|(number, cursor)| {
            let sent = cluster.outgoing.get(number, from)?;
            Some((sent, cursor))
        });
    let Some((sent, cursor)) = found else {
        return reply.refuse();
    };
    sent.progress.send_modify(|p| p.touched = Instant::now());
    // Where it does not fit, the reply is dropped; the follower requests it again.
    let _ = cluster
        .exporter
        .push(move || match sent.pinned.export.chunk(&cursor) {
            Ok(chunk) => reply.send(chunk.into()),
            Err(error) => {
                tracing::warn!(to = %sent.to, %error, "a piece of the checkpoint cannot be read");
                reply.refuse();
            }
        });
}

/// A follower is done: `number u64 | is_whole u8`.
pub(crate) fn fetched(shared: &Arc<Shared>, from: NodeId, bytes: Bytes, reply: Reply) {
    let Some(cluster) = &shared.cluster else {
        return reply.refuse();
    };
    if let Ok((number, rest)) = wire::split_numbered(bytes)
        && let Some(sent) = cluster.outgoing.get(number, from)
    {
        let is_whole = rest.first() == Some(&1);
        sent.progress.send_modify(|p| p.is_whole = Some(is_whole));
    }
    reply.send(Bytes::new());
}
