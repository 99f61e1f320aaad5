//! OpenSearch and Elasticsearch: one node without security, from the Maven artifacts that
//! `scripts/search-servers` assembled, started by a few lines of Java (`java/`).
//!
//! They have the modules for HTTP and for `_delete_by_query`; no scripts, no ingest pipelines, no
//! language analyzers.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::http;
use crate::kind::find_program;
use crate::node::{Node, Setup, data_folder};
use crate::server::{Server, serve_by_node};

const JVM_OPTIONS: [&str; 6] = [
    "-Xms512m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Dio.netty.noUnsafe=true",
    "-Dlog4j2.disable.jmx=true",
];

const SETTINGS: [&str; 7] = [
    "cluster.name=onelog",
    "discovery.type=single-node",
    "http.host=127.0.0.1",
    "transport.host=127.0.0.1",
    "transport.port=0",
    "cluster.routing.allocation.disk.threshold_enabled=false",
    "action.destructive_requires_name=false",
];

#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    folder: &'static str,
    main_class: &'static str,
}

pub(crate) const OPENSEARCH: Product = Product {
    folder: "opensearch",
    main_class: "OpenSearchNode",
};
pub(crate) const ELASTICSEARCH: Product = Product {
    folder: "elasticsearch",
    main_class: "ElasticsearchNode",
};

impl Product {
    pub(crate) fn name(self) -> &'static str {
        self.folder
    }

    /// Where it was assembled: beside this program in cargo's target folder.
    pub(crate) fn assembled(self) -> Option<PathBuf> {
        let program = std::env::current_exe().ok()?;
        let folder = program
            .ancestors()
            .map(|folder| folder.join("testkit").join(self.folder))
            .find(|folder| folder.join("form").is_file())?;
        folder.canonicalize().ok()
    }

    fn start(self, settings: &[&str]) -> Node {
        Node::start(
            self.folder,
            |folder| {
                for folder in [data_folder(folder), folder.join("tmp")] {
                    fs::create_dir(folder).expect("an own folder can be written to");
                }
            },
            |folder, port| self.setup(folder, port, settings),
        )
    }

    fn setup(self, folder: &Path, port: u16, settings: &[&str]) -> Setup {
        let assembled = self
            .assembled()
            .expect("tests ask first whether the server is there");
        // Unlike the port, the name tells whose server answers.
        let name = folder.display().to_string();
        let mut arguments: Vec<String> = JVM_OPTIONS.map(str::to_owned).into();
        let (java, settings): (Vec<&str>, Vec<&str>) =
            settings.iter().partition(|text| text.starts_with("-X"));
        arguments.extend(java.into_iter().map(str::to_owned));
        arguments.extend([
            format!("-XX:SharedArchiveFile={}/classes.jsa", assembled.display()),
            format!("-Djava.io.tmpdir={name}/tmp"),
            "-cp".to_owned(),
            class_path(&assembled),
            self.main_class.to_owned(),
            format!("path.home={name}"),
            format!("path.data={}", data_folder(folder).display()),
            format!("node.name={name}"),
            format!("http.port={port}"),
        ]);
        arguments.extend(
            SETTINGS
                .iter()
                .chain(&settings)
                .map(|&text| text.to_owned()),
        );
        Setup {
            path: find_program("java").expect("tests ask first whether Java is there"),
            arguments,
            user: None,
            stop_signal: Signal::TERM,
            answers: Box::new(move || is_ready(port, &name)),
        }
    }
}

/// All jars in a fixed order: the archive of loaded classes is only used with its own class path.
fn class_path(assembled: &Path) -> String {
    let mut jars: Vec<String> = fs::read_dir(assembled.join("lib"))
        .expect("an assembled server has a folder of jars")
        .filter_map(|entry| Some(entry.ok()?.path().to_str()?.to_owned()))
        .collect();
    jars.sort();
    jars.join(":")
}

/// Whether the server of this name answers and has all its data.
fn is_ready(port: u16, name: &str) -> Result<(), String> {
    let get = |path| match http::request(port, "GET", path, "") {
        Ok((200, answer)) => Ok(answer),
        Ok((status, answer)) => Err(format!("{status}: {answer}")),
        Err(error) => Err(error.to_string()),
    };
    let answer = get("/")?;
    if !answer.contains(&format!("\"{name}\"")) {
        return Err(format!("on port {port} is another server: {answer}"));
    }
    get("/_cluster/health?wait_for_status=yellow&timeout=5s").map(|_| ())
}

macro_rules! search_server {
    ($name:ident, $product:expr, $title:literal) => {
        #[doc = concat!("A server of ", $title, ".")]
        #[derive(Debug)]
        pub struct $name {
            node: Node,
        }

        impl $name {
            /// Starts an empty server.
            #[must_use]
            pub fn start() -> Self {
                Self::start_with(&[])
            }

            /// The same with settings as `name=value`, such as
            /// `cluster.max_shards_per_node=10`, and options of Java, such as `-Xmx2g`.
            #[must_use]
            pub fn start_with(settings: &[&str]) -> Self {
                let node = $product.start(settings);
                Self { node }
            }

            /// Sends a request with a body of JSON (or of lines of JSON); the status and the body
            /// of the answer.
            pub fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
                match http::request(self.node.port(), method, path, body) {
                    Ok(answer) => answer,
                    Err(error) => panic!("{method} {path}: {error}"),
                }
            }
        }

        impl Server for $name {
            fn url(&self) -> String {
                format!("http://127.0.0.1:{}", self.port())
            }

            serve_by_node!();
        }
    };
}

search_server!(OpenSearch, OPENSEARCH, "OpenSearch");
search_server!(Elasticsearch, ELASTICSEARCH, "Elasticsearch");
