//! A whole server inside of the demonstration: node, sinks, HTTP on a loopback port.

use std::net::TcpListener;
use std::path::Path;

use onelog::{NewTable, Node, Options};
use onelog_http::HttpOptions;
use onelog_sinks::Sinks;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::DemoError;

const ANY_PORT: &str = "127.0.0.1:0";

/// A running server. `stop` ends it in order.
pub struct Server {
    pub node: Node,
    pub sinks: Sinks,
    pub url: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

/// This port, or a free one where it is taken.
fn listen(address: &str) -> Result<TcpListener, DemoError> {
    let listener = TcpListener::bind(address)
        .or_else(|_| TcpListener::bind(ANY_PORT))
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|error| DemoError::Failed(format!("cannot listen on {ANY_PORT}: {error}")))
}

impl Server {
    /// Starts a server with these tables.
    pub fn start(
        folder: &Path,
        address: &str,
        tables: &[&str],
        runtime: &Runtime,
    ) -> Result<Self, DemoError> {
        let failed = |error: &dyn std::fmt::Display| DemoError::Failed(error.to_string());
        let listener = listen(address)?;
        let address = listener.local_addr().map_err(|e| failed(&e))?;
        let node = Node::open(Options::new(folder)).map_err(|e| failed(&e))?;
        for table in tables {
            node.create_table_blocking(NewTable::keyed(*table))
                .map_err(|e| failed(&e))?;
        }
        let sinks = Sinks::start(node.clone(), onelog_stores::KINDS).map_err(|e| failed(&e))?;
        let (stop, stopped) = oneshot::channel();
        let serving = {
            let _inside = runtime.enter();
            let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| failed(&e))?;
            let (node, sinks) = (node.clone(), sinks.clone());
            runtime.spawn(async move {
                let stopped = async {
                    // A sender that is gone says stop as well.
                    let _ = stopped.await;
                };
                onelog_http::serve(node, sinks, HttpOptions::default(), listener, stopped).await
            })
        };
        Ok(Self {
            node,
            sinks,
            url: format!("http://{address}"),
            stop,
            serving,
        })
    }

    /// Ends HTTP, the sinks and the node, in this order.
    pub fn stop(self, runtime: &Runtime) -> Result<(), DemoError> {
        let _ = self.stop.send(());
        let served = runtime.block_on(self.serving);
        self.sinks.stop();
        let stopped = self.node.stop();
        match (served, stopped) {
            (Ok(Ok(())), Ok(())) => Ok(()),
            (Ok(Err(error)), _) => Err(DemoError::Failed(format!("HTTP failed: {error}"))),
            (Err(error), _) => Err(DemoError::Failed(format!("HTTP has ended early: {error}"))),
            (_, Err(error)) => Err(DemoError::Failed(error.to_string())),
        }
    }
}
