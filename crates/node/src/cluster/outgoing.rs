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
//! lost. The checkpoint is kept until the follower says that it is done, requests nothing for a
//! while, or is another process than before: that one knows nothing of it.
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
#[derive(Debug)]
pub(crate) struct Outgoing<P = PinnedSnapshot> {
    next: AtomicU64,
    snapshots: Mutex<BTreeMap<u64, Arc<Sent<P>>>>,
    /// The process of each node that this one was connected to last.
    processes: Mutex<BTreeMap<NodeId, u64>>,
}

#[derive(Debug)]
struct Sent<P> {
    to: NodeId,
    pinned: P,
    progress: watch::Sender<Progress>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    touched: Instant,
    is_whole: Option<bool>,
}

impl<P> Default for Outgoing<P> {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(0),
            snapshots: Mutex::default(),
            processes: Mutex::default(),
        }
    }
}

impl<P> Outgoing<P> {
    fn add(&self, to: NodeId, pinned: P) -> (u64, Arc<Sent<P>>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let sent = Arc::new(Sent {
            to,
            pinned,
            progress: watch::Sender::new(Progress {
                touched: Instant::now(),
                is_whole: None,
            }),
        });
        self.snapshots.lock().insert(number, Arc::clone(&sent));
        (number, sent)
    }

    fn get(&self, number: u64, to: NodeId) -> Option<Arc<Sent<P>>> {
        let snapshots = self.snapshots.lock();
        let found = snapshots.get(&number).filter(|sent| sent.to == to);
        found.map(Arc::clone)
    }

    /// A node is connected. What was on its way to an earlier process of it is given up.
    pub(crate) fn met(&self, node: NodeId, process: u64) {
        let before = self.processes.lock().insert(node, process);
        if before.is_none_or(|before| before == process) {
            return;
        }
        for sent in self.snapshots.lock().values() {
            if sent.to == node {
                sent.ends(false);
            }
        }
    }
}

impl<P> Sent<P> {
    fn ends(&self, is_whole: bool) {
        self.progress.send_modify(|p| {
            p.is_whole.get_or_insert(is_whole);
        });
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
    let (number, sent) = cluster.outgoing.add(to, pinned);
    cluster.spawn(announce(Arc::clone(shared), number, sent));
}

async fn announce(shared: Arc<Shared>, number: u64, sent: Arc<Sent<PinnedSnapshot>>) {
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

/// Waits until the follower is done, is gone, or requests nothing for too long.
async fn until_fetched<P>(sent: &Sent<P>) -> bool {
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
        sent.ends(rest.first() == Some(&1));
    }
    reply.send(Bytes::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_on_its_way_to_a_process_ends_when_another_one_has_its_place() {
        // Given snapshots on their way to two nodes that are connected,
        let outgoing = Outgoing::default();
        let (restarted, other) = (NodeId(2), NodeId(3));
        for node in [restarted, other] {
            outgoing.met(node, 7);
        }
        let (_, to_restarted) = outgoing.add(restarted, ());
        let (_, to_other) = outgoing.add(other, ());
        // when the process of one of them connects again, then it goes on,
        outgoing.met(restarted, 7);
        assert_eq!(to_restarted.progress.borrow().is_whole, None);
        // and when another process has its number, then its snapshot is given up at once.
        outgoing.met(restarted, 8);
        assert!(!until_fetched(&to_restarted).await);
        assert_eq!(to_restarted.progress.borrow().is_whole, Some(false));
        assert_eq!(to_other.progress.borrow().is_whole, None);
    }
}
