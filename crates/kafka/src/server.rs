//! The listener: accepts connections, bounds their number, and closes them in order at shutdown.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use onelog::Node;
use onelog_sinks::Sinks;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::door::Door;
use crate::options::{ACCEPT_PAUSE, KafkaOptions, SHUTDOWN_GRACE};

/// Serves a node on `listener` until `shutdown` completes, then closes in order.
///
/// # Errors
/// When the listener has no local address.
pub async fn serve(
    node: Node,
    sinks: Sinks,
    options: KafkaOptions,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let room = Arc::new(Semaphore::new(
        options.max_connections.min(Semaphore::MAX_PERMITS),
    ));
    let door = Door::new(node, sinks, options, address);
    let advertised = &door.advertised;
    tracing::info!("Kafka clients are served on {address}, and sent to {advertised}");
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match Arc::clone(&room).try_acquire_owned() {
                    Ok(permit) => {
                        let connection = Connection::new(Arc::clone(&door), stream, peer, permit);
                        connections.spawn(connection.run());
                    }
                    Err(_) => tracing::warn!(
                        "the Kafka client {peer} is turned away: {} connections are open already",
                        door.options.max_connections
                    ),
                },
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    door.stop();
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, all).await.is_err() {
        tracing::warn!(
            "{} connections of Kafka clients are cut at shutdown",
            connections.len()
        );
        connections.shutdown().await;
    }
    Ok(())
}
