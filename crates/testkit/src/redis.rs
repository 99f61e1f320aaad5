//! Redis: an append-only file, written before every answer; nothing is evicted.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::client;
use crate::kind::find_program;
use crate::node::{Node, Setup, data_folder};
use crate::port::Port;
use crate::server::{Server, serve_by_node};

const OPTIONS: [&str; 7] = [
    "bind=127.0.0.1",
    "daemonize=no",
    "save=",
    "appendonly=yes",
    "appendfsync=everysec",
    "maxmemory-policy=noeviction",
    "databases=16",
];

#[derive(Debug)]
pub struct Redis {
    node: Node,
    /// On which the nodes of a cluster talk to each other.
    bus: Option<Port>,
}

impl Redis {
    /// Starts an empty server.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings of `redis.conf` as `name=value`, such as
    /// `maxmemory-policy=allkeys-lru`.
    #[must_use]
    pub fn start_with(options: &[&str]) -> Self {
        Self::launch(None, options)
    }

    /// A node of a cluster, which knows of no other yet.
    pub(crate) fn start_node(options: &[&str]) -> Self {
        let bus = Port::take();
        let bus_option = format!("cluster-port={}", bus.number());
        let mut all = vec![
            "cluster-enabled=yes",
            "cluster-announce-ip=127.0.0.1",
            "cluster-node-timeout=2000",
            &bus_option,
        ];
        all.extend(options);
        Self::launch(Some(bus), &all)
    }

    fn launch(bus: Option<Port>, options: &[&str]) -> Self {
        let node = Node::start(
            "redis",
            |folder| fs::create_dir(data_folder(folder)).expect("an own folder can be written to"),
            |folder, port| setup(folder, port, options),
        );
        Self { node, bus }
    }

    /// Runs one command by `redis-cli`; an array's items are lines. Panics when the server refuses.
    pub fn command(&self, command: &[&str]) -> String {
        match query(self.node.folder(), self.node.port(), command) {
            Ok(answer) => answer,
            Err(problem) => panic!("{problem}"),
        }
    }

    pub(crate) fn restore_from(&self, folder: &Path) {
        self.node.restore_data(folder);
    }

    pub(crate) fn bus_port(&self) -> u16 {
        self.bus.as_ref().map_or(0, Port::number)
    }
}

impl Server for Redis {
    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    serve_by_node!();
}

fn setup(folder: &Path, port: u16, options: &[&str]) -> Setup {
    let data = data_folder(folder).display().to_string();
    let mut arguments = vec![
        "--port".into(),
        port.to_string(),
        "--dir".into(),
        data.clone(),
    ];
    for option in OPTIONS.iter().chain(options) {
        let (name, value) = option
            .split_once('=')
            .unwrap_or_else(|| panic!("'{option}' is not name=value"));
        arguments.push(format!("--{name}"));
        arguments.push(value.to_owned());
    }
    let folder = folder.to_owned();
    Setup {
        path: find_program("redis-server").expect("tests ask first whether Redis is there"),
        arguments,
        user: None,
        stop_signal: Signal::TERM,
        answers: Box::new(move || {
            // It refuses this one while it reads its file.
            query(&folder, port, &["DBSIZE"])?;
            let answer = query(&folder, port, &["CONFIG", "GET", "dir"])?;
            if answer.lines().nth(1) == Some(data.as_str()) {
                return Ok(());
            }
            Err(format!(
                "the server on port {port} has its data in {answer}"
            ))
        }),
    }
}

fn query(folder: &Path, port: u16, command: &[&str]) -> Result<String, String> {
    let port = port.to_string();
    let mut arguments = vec!["-e", "-h", "127.0.0.1", "-p", &port];
    arguments.extend(command);
    client::run("redis-cli", folder, &arguments)
}
