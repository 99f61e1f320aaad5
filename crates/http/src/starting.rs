//! What is answered before there is a node: one of a cluster may wait long for its peers.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::api::Health;
use crate::app::busy;
use crate::routes::{Answer, json, system};
use crate::server::ACCEPT_PAUSE;

/// More connections at once are closed.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long answers may take that are on their way when the node is open.
const GRACE: Duration = Duration::from_secs(1);

const WHY: &str = "the node starts: it waits for other nodes of its cluster, or recovers its log";

/// Answers on `listener` that the process lives and is not ready, until `opened` completes.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve_starting<T>(
    listener: &std::net::TcpListener,
    opened: impl Future<Output = T>,
) -> io::Result<T> {
    let listener = TcpListener::from_std(listener.try_clone()?)?;
    let router = Router::new()
        .route("/healthz", get(system::healthz))
        .route("/readyz", get(readyz))
        .fallback(|| async { busy(WHY) });
    let mut http = http1::Builder::new();
    // Each connection has one request: the next one is for the node.
    http.keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut opened = pin!(opened);
    let done = loop {
        tokio::select! {
            biased;
            done = &mut opened => break done,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                        continue;
                    };
                    let service = TowerToHyperService::new(router.clone());
                    let serving = http.serve_connection(TokioIo::new(stream), service);
                    connections.spawn(async move {
                        if let Err(error) = serving.await {
                            tracing::debug!("a connection ended: {error}");
                        }
                        drop(permit);
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    };
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, all).await;
    Ok(done)
}

async fn readyz() -> Answer {
    let health = Health {
        status: "starting",
        failure: Some(WHY),
    };
    json(StatusCode::SERVICE_UNAVAILABLE, &health)
}
