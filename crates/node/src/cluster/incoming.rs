//! A leader's snapshot on its way to this node: see `outgoing`. Each piece is requested, again where
//! the answer got lost, and written at once; memory holds one of them.
//!
//! Threads: one snapshot at a time, on `onelog-import`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog_peers::{Lane, Reply, RequestError};
use onelog_record::NodeId;
use onelog_replica::{ArrivedSnapshot, Event};
use onelog_state::{Import, ImportError};

use super::Cluster;
use super::wire::{self, Announced};
use crate::shared::Shared;

/// How long one piece may take.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long pieces are requested again while none comes.
const RETRY_FOR: Duration = Duration::from_secs(20);
/// The pause before a piece is requested again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The pause after a state that could not be taken in, before the leader hears of it and sends another:
/// a full disk does not get room meanwhile.
const FAILED_PAUSE: Duration = Duration::from_secs(5);
/// How often a piece may come damaged in a row.
const DAMAGED_MAX: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct Incoming {
    is_busy: AtomicBool,
}

/// Why a snapshot was not taken in.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error("a piece did not come: {0}")]
    Request(#[from] RequestError),
    #[error("the node stops")]
    Stopping,
}

/// A leader has a snapshot for this node.
pub(crate) fn announced(shared: &Arc<Shared>, from: NodeId, bytes: Bytes, reply: Reply) {
    let Some(cluster) = &shared.cluster else {
        return reply.refuse();
    };
    let announced = match Announced::decode(bytes) {
        Ok(announced) => announced,
        Err(error) => {
            tracing::warn!(%from, %error, "the head of a snapshot is malformed");
            return reply.refuse();
        }
    };
    let message = &announced.message;
    let is_for_me =
        message.to() == cluster.node && message.from() == from && message.snapshot().is_some();
    if !is_for_me || cluster.incoming.is_busy.swap(true, Ordering::AcqRel) {
        return reply.refuse();
    }
    let job_of = Arc::clone(shared);
    let is_taken = cluster
        .importer
        .push(move || take_in(&job_of, from, announced));
    if is_taken {
        reply.send(Bytes::new());
    } else {
        cluster.incoming.is_busy.store(false, Ordering::Release);
        reply.refuse();
    }
}

fn take_in(shared: &Arc<Shared>, from: NodeId, announced: Announced) {
    let Some(cluster) = &shared.cluster else {
        return;
    };
    let number = announced.number;
    let index = announced.head.applied.index;
    tracing::info!(%from, %index, "take in another node's state: this one lacks what the log no longer has");
    let result = fetch(shared, cluster, from, announced);
    let is_whole = result.is_ok();
    match result {
        Ok(arrived) => {
            cluster.not_following.taken_in();
            shared.report(Event::Snapshot(Box::new(arrived)));
        }
        Err(FetchError::Stopping) => {}
        Err(error) => {
            tracing::warn!(%from, %error, "another node's state was not taken in");
            let why = format!("snapshot of node {from} not taken in: {error}");
            let position = shared.applied_position.position();
            cluster.not_following.refused(&why, position);
            cluster.pause(FAILED_PAUSE);
        }
    }
    cluster.incoming.is_busy.store(false, Ordering::Release);
    let bytes = wire::numbered(number, &[is_whole.into()]);
    let done = cluster
        .peers
        .request(from, Lane::Bulk, wire::FETCHED, bytes, CHUNK_TIMEOUT);
    if let Err(error) = done.wait() {
        tracing::debug!(%from, %error, "the leader did not hear that its snapshot was taken in");
    }
}

fn fetch(
    shared: &Shared,
    cluster: &Cluster,
    from: NodeId,
    announced: Announced,
) -> Result<ArrivedSnapshot, FetchError> {
    let Announced {
        number,
        message,
        head,
    } = announced;
    let mut import = Import::begin(&shared.state, head.clone())?;
    let (mut heard, mut damaged) = (Instant::now(), 0);
    while let Some(cursor) = import.wanted() {
        if cluster.is_stopping() {
            return Err(FetchError::Stopping);
        }
        let bytes = wire::numbered(number, &cursor);
        let answer = cluster
            .peers
            .request(from, Lane::Bulk, wire::CHUNK, bytes, CHUNK_TIMEOUT);
        match answer.wait() {
            Ok(chunk) => {
                heard = Instant::now();
                match import.put(&chunk) {
                    Ok(()) => damaged = 0,
                    Err(error) if error.can_be_requested_again() && damaged < DAMAGED_MAX => {
                        damaged += 1;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Err(RequestError::Refused) => return Err(RequestError::Refused.into()),
            Err(error) if heard.elapsed() > RETRY_FOR => return Err(error.into()),
            Err(_) => cluster.pause(RETRY_PAUSE),
        }
    }
    let imported = import.finish()?;
    Ok(ArrivedSnapshot {
        message,
        head,
        imported,
    })
}
