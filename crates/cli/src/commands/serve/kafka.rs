//! The door for Kafka clients beside HTTP: its port is taken before the node is opened, and it is
//! served until HTTP has ended.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

use onelog::Node;
use onelog_command::CommandError;
use onelog_kafka::KafkaOptions;
use onelog_sinks::Sinks;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::Settings;

use super::listen;

/// A port for Kafka clients, not served yet.
pub struct Door {
    listener: TcpListener,
    address: SocketAddr,
    options: KafkaOptions,
}

/// A door that is served.
pub struct Serving {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Door {
    /// Takes the port, where the settings name one.
    pub fn bind(settings: &Settings) -> Result<Option<Self>, CommandError> {
        let options = settings.kafka.options().map_err(CommandError::Usage)?;
        let Some(options) = options else {
            return Ok(None);
        };
        let listener = listen(&options.listen.to_string(), "--kafka")?;
        let address = listener
            .local_addr()
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        Ok(Some(Self {
            listener,
            address,
            options,
        }))
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves it as a task of this runtime.
    pub fn serve(self, node: Node, sinks: Sinks, declared: BTreeMap<String, String>) -> Serving {
        let options = KafkaOptions {
            declared,
            ..self.options
        };
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            let served = async {
                let listener = tokio::net::TcpListener::from_std(self.listener)?;
                let shutdown = async { drop(ended.await) };
                onelog_kafka::serve(node, sinks, options, listener, shutdown).await
            };
            if let Err(error) = served.await {
                tracing::error!("Kafka clients are not served: {error}");
            }
        });
        Serving { end, task }
    }
}

impl Serving {
    /// Closes it in order.
    pub async fn end(self) {
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}
