//! `onelog serve`.
//!
//! Order at the start: settings, the port, the node (which recovers), the sinks, what the
//! configuration declares, HTTP, then the line that says ready. A node of a cluster may wait long for a
//! leader, so there what is declared is made in the background, and HTTP says what it waits for; already
//! while it opens, for it may wait for other nodes, HTTP says that it lives and starts. At the
//! end the other way round. A second signal ends the process at once: the log is made for that.

mod declared;
mod declaring;
#[cfg(feature = "kafka")]
mod kafka;
mod source;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use onelog::{Node, OpenError};
use onelog_command::{CommandError, Context, NoServer};
use onelog_http::HttpOptions;
use onelog_sinks::Sinks;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{self, Flags, LogFormat, Settings};

use declaring::Declaring;
use source::HttpSource;

/// The exit status after a second signal, as shells report an interrupt.
const STATUS_INTERRUPTED: i32 = 130;
/// How often the node is checked for a failure.
const WATCH_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    _no_server: NoServer,
    /// The configuration file; onelog.toml in this folder, if it is there
    #[arg(
        long,
        value_name = "FILE",
        env = "ONELOG_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CommandError> {
    let settings = config::load(args.config.as_deref(), &args.flags)?;
    start_logging(&settings);
    let listener = listen(&settings.listen, "--listen")?;
    #[cfg(feature = "kafka")]
    let kafka = kafka::Door::bind(&settings)?;
    let runtime = runtime()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let node = open(&settings, &runtime, &listener, &mut signals)?;
    let memory = settings.sinks_memory_bytes;
    let sinks = Sinks::start_within(node.clone(), onelog_stores::KINDS, memory)
        .map_err(|error| CommandError::Failed(format!("the sinks cannot start: {error}")))?;
    let server = Server {
        node,
        sinks,
        settings,
        #[cfg(feature = "kafka")]
        kafka,
    };
    match server.declare() {
        Ok(declaring) => server.run(runtime, listener, signals, declaring, context.json),
        Err(error) => {
            server.sinks.stop();
            // Why the start has failed is what counts.
            let _ = server.node.stop();
            Err(error)
        }
    }
}

fn start_logging(settings: &Settings) {
    let filter: Targets = settings.log_level.parse().unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let log = tracing_subscriber::registry().with(filter);
    match settings.log_format {
        LogFormat::Json => log.with(lines.json()).init(),
        LogFormat::Text => {
            use std::io::IsTerminal;
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            log.with(lines.with_ansi(colours)).init();
        }
    }
}

/// Opens the node. One that waits for its cluster, or for the server that it follows, ends at a signal:
/// nothing was acknowledged yet.
fn open(
    settings: &Settings,
    runtime: &Runtime,
    listener: &TcpListener,
    signals: &mut Signals,
) -> Result<Node, CommandError> {
    let mut options = settings.node.clone();
    if let Some(url) = &settings.follow {
        let source = HttpSource::new(url)?;
        if listener
            .local_addr()
            .is_ok_and(|own| source.is_served_by(own))
        {
            return Err(CommandError::Usage(format!(
                "--follow {url} leads to this server itself: give the address of the server that has the log"
            )));
        }
        options.follow = Some(Arc::new(source));
    }
    let failed = |error: OpenError| CommandError::Failed(error.to_string());
    if options.cluster.is_none() && options.follow.is_none() {
        return Node::open(options).map_err(failed);
    }
    let (sender, opened) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("onelog-open".to_owned())
        .spawn(move || {
            let _ = sender.send(Node::open(options));
        })
        .map_err(|error| CommandError::Failed(format!("cannot start threads: {error}")))?;
    let opened = async {
        tokio::select! {
            opened = opened => opened,
            () = signals.next() => {
                tracing::info!("stopped before the node was open");
                std::process::exit(0);
            }
        }
    };
    match runtime.block_on(onelog_http::serve_starting(listener, opened)) {
        Ok(Ok(opened)) => opened.map_err(failed),
        Err(error) => Err(CommandError::Failed(format!("HTTP failed: {error}"))),
        Ok(Err(_)) => Err(CommandError::Failed(
            "the thread that opens the node has ended".to_owned(),
        )),
    }
}

/// Takes the port, before anything else is touched.
pub fn listen(address: &str, flag: &str) -> Result<TcpListener, CommandError> {
    let failed = |error: io::Error| {
        let text = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "{address} is in use by another process: stop that one, or listen elsewhere with {flag} (port 0 takes a free one)"
            ),
            io::ErrorKind::AddrNotAvailable => {
                format!("{address} is not an address of this machine")
            }
            io::ErrorKind::PermissionDenied => {
                format!("listening on {address} is not permitted; choose a port above 1023")
            }
            _ => format!("cannot listen on {address}: {error}"),
        };
        CommandError::Failed(text)
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// The runtime of HTTP and of waiting.
pub fn runtime() -> Result<Runtime, CommandError> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("onelog-http")
        .build()
        .map_err(|error| CommandError::Failed(format!("cannot start threads: {error}")))
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes both signals over. Must be called inside a runtime.
    pub fn new() -> Result<Self, CommandError> {
        let take = |kind| {
            signal(kind)
                .map_err(|error| CommandError::Failed(format!("cannot wait for signals: {error}")))
        };
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Completes when the node has stopped by itself.
async fn failed(node: &Node) {
    // Waiting for a position would wake up at every commit.
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    while node.failure().is_none() {
        ticks.tick().await;
    }
}

struct Server {
    node: Node,
    sinks: Sinks,
    settings: Settings,
    #[cfg(feature = "kafka")]
    kafka: Option<kafka::Door>,
}

impl Server {
    /// Makes what is declared; where it may have to wait for a leader, meanwhile.
    fn declare(&self) -> Result<Option<Declaring>, CommandError> {
        let declared = &self.settings.declared;
        if self.settings.node.cluster.is_none() {
            declared::apply(declared, &self.node, &self.sinks)?;
            return Ok(None);
        }
        let begun = Declaring::begin(declared.clone(), self.node.clone(), self.sinks.clone());
        begun.map_err(|error| CommandError::Failed(format!("cannot start threads: {error}")))
    }

    fn run(
        #[cfg_attr(not(feature = "kafka"), allow(unused_mut))] mut self,
        runtime: Runtime,
        listener: TcpListener,
        mut signals: Signals,
        declaring: Option<Declaring>,
        as_json: bool,
    ) -> Result<ExitCode, CommandError> {
        let address = listener
            .local_addr()
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        let node = self.node.clone();
        let shutdown = async move {
            tokio::select! {
                () = signals.next() => tracing::info!("stopping"),
                () = failed(&node) => tracing::error!("the node has failed, stopping"),
            }
            tokio::spawn(async move {
                signals.next().await;
                std::process::exit(STATUS_INTERRUPTED);
            });
        };
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            self.announce(address, as_json);
            #[cfg(feature = "kafka")]
            let kafka = self.kafka.take().map(|door| {
                let declared = self.settings.declared.names().tables;
                door.serve(self.node.clone(), self.sinks.clone(), declared)
            });
            let served = onelog_http::serve(
                self.node.clone(),
                self.sinks.clone(),
                self.http_options(),
                listener,
                shutdown,
            )
            .await;
            #[cfg(feature = "kafka")]
            if let Some(serving) = kafka {
                serving.end().await;
            }
            served
        });
        let declaring = declaring.map(Declaring::end);
        self.sinks.stop();
        let stopped = self.node.stop();
        if let Some(declaring) = declaring {
            let _ = declaring.join();
        }
        let reason = match (self.node.failure(), served, stopped) {
            (Some(reason), _, _) => reason,
            (None, Err(error), _) => format!("HTTP failed: {error}"),
            (None, Ok(()), Err(error)) => error.to_string(),
            (None, Ok(()), Ok(())) => {
                tracing::info!(position = %self.node.position(), "stopped");
                return Ok(ExitCode::SUCCESS);
            }
        };
        Err(CommandError::Failed(format!(
            "the server has stopped: {reason}"
        )))
    }

    fn http_options(&self) -> HttpOptions {
        HttpOptions {
            declared: self.settings.declared.names(),
            ..self.settings.http.clone()
        }
    }

    fn announce(&self, address: SocketAddr, as_json: bool) {
        let folder = self.settings.node.folder.display();
        let position = self.node.position();
        let cluster = self.node.cluster();
        let line = match as_json {
            true => {
                let mut line = json!({
                    "ready": true,
                    "url": format!("http://{address}"),
                    "folder": folder.to_string(),
                    "position": position,
                });
                if let Some(cluster) = cluster {
                    line["node"] = json!(cluster.node);
                    line["peer_address"] = json!(cluster.address);
                }
                if let Some(source) = self.node.source() {
                    line["follows"] = json!(source);
                }
                #[cfg(feature = "kafka")]
                if let Some(door) = &self.kafka {
                    line["kafka"] = json!(door.address());
                }
                line.to_string()
            }
            false => {
                let node = cluster.map_or_else(String::new, |cluster| {
                    format!(", node {} at {}", cluster.node, cluster.address)
                });
                let source = self.node.source();
                let follows =
                    source.map_or_else(String::new, |source| format!(", follows {source}"));
                #[cfg(feature = "kafka")]
                let kafka = (self.kafka.as_ref())
                    .map_or_else(String::new, |door| format!(", Kafka at {}", door.address()));
                #[cfg(not(feature = "kafka"))]
                let kafka = "";
                format!(
                    "onelog is ready: http://{address}{kafka}, folder {folder}, position {position}{node}{follows}"
                )
            }
        };
        // A server whose standard output is closed serves all the same.
        let _ = writeln!(io::stdout(), "{line}");
        let _ = io::stdout().flush();
    }
}
