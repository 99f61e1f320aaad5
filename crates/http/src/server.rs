//! The listener: accepts connections, bounds their number and their slowness, and closes them in
//! order at shutdown.
//!
//! Every connection is a task. Shutdown: no more is accepted, streams and waits end, connections
//! finish the request that they are at; what is left after `SHUTDOWN_GRACE_MS` is cut.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::response::IntoResponse as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use onelog::Node;
use onelog_sinks::Sinks;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::app::{App, busy};
use crate::forwarding;
use crate::options::{HttpOptions, SHUTDOWN_GRACE_MS};
use crate::router::router;
use crate::routes::Shared;

/// When no connection can be accepted (too many open files), the next try comes after this.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client that is turned away may take to read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// The first second of the year 10000, since 1970.
const YEAR_10000_S: u64 = 253_402_300_800;
/// How many clients over the limit are answered at once; the connections of others are cut.
const REFUSALS_MAX: usize = 64;

/// Serves a node and its sinks on `listener` until `shutdown` completes, then closes in order.
///
/// # Errors
/// When the listener has no local address.
pub async fn serve(
    node: Node,
    sinks: Sinks,
    options: HttpOptions,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!("HTTP is served on http://{address}");
    let door = Door {
        room: Arc::new(Semaphore::new(
            options.max_connections.min(Semaphore::MAX_PERMITS),
        )),
        refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
        http: protocol(&options),
        app: Arc::new(App::new(node, sinks, options)),
    };
    let router = Arc::new(router(Arc::clone(&door.app)));
    forwarding::answer_nodes(&door.app.node, &router);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => door.admit(&mut connections, stream, &router),
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    door.app.stop();
    let all = async { while connections.join_next().await.is_some() {} };
    let grace = Duration::from_millis(SHUTDOWN_GRACE_MS);
    if tokio::time::timeout(grace, all).await.is_err() {
        tracing::warn!("{} connections are cut at shutdown", connections.len());
        connections.shutdown().await;
    }
    Ok(())
}

struct Door {
    app: Shared,
    http: http1::Builder,
    room: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

fn protocol(options: &HttpOptions) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(options.header_timeout_ms));
    http
}

impl Door {
    fn admit(&self, connections: &mut JoinSet<()>, stream: TcpStream, router: &Router) {
        // Answers are small; waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        let why = if !can_be_dated(SystemTime::now()) {
            "the server's clock is before 1970 or after the year 9999, which no answer can say: set it"
                .to_owned()
        } else if let Ok(room) = Arc::clone(&self.room).try_acquire_owned() {
            connections.spawn(self.connection(stream, router.clone(), room));
            return;
        } else {
            let max = self.app.options.max_connections;
            format!("{max} connections are open already")
        };
        if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            connections.spawn(turn_away(stream, why, permit));
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        router: Router,
        room: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send + 'static {
        let service = TowerToHyperService::new(router);
        let serving = self.http.serve_connection(TokioIo::new(stream), service);
        let stopping = self.app.stopping();
        async move {
            let mut serving = pin!(serving);
            let ended = tokio::select! {
                ended = serving.as_mut() => ended,
                () = stopping => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!("a connection ended: {error}");
            }
            drop(room);
        }
    }
}

/// Whether the header `date` can say it: the library panics where it cannot.
fn can_be_dated(now: SystemTime) -> bool {
    let since_1970 = now.duration_since(UNIX_EPOCH);
    since_1970.is_ok_and(|since| since.as_secs() < YEAR_10000_S)
}

/// Answers a client that is not served, without reading its request.
async fn turn_away(mut stream: TcpStream, why: String, permit: OwnedSemaphorePermit) {
    let answer = busy(why).into_response();
    let sending = async {
        let (head, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX)
            .await
            .unwrap_or_default();
        let mut text = format!("HTTP/1.1 {}\r\n", head.status);
        for (name, value) in &head.headers {
            text += &format!("{name}: {}\r\n", value.to_str().unwrap_or_default());
        }
        text += &format!(
            "connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(text.as_bytes()).await?;
        stream.write_all(&body).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would take the answer back.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, sending).await;
    drop(permit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_1970_or_after_9999_cannot_be_said_in_an_answer() {
        let at = |since_s| UNIX_EPOCH + Duration::from_secs(since_s);
        assert!(can_be_dated(UNIX_EPOCH) && can_be_dated(at(YEAR_10000_S - 1)));
        assert!(!can_be_dated(UNIX_EPOCH - Duration::from_nanos(1)));
        assert!(!can_be_dated(at(YEAR_10000_S)));
    }
}
