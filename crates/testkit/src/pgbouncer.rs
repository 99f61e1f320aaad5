//! PgBouncer in front of a PostgreSQL server: a pool that hands sessions of the server to its
//! clients, by default for one transaction each, every time another one.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::kind::find_program;
use crate::node::{Node, Setup, data_folder};
use crate::postgres::{Postgres, USER, query};
use crate::server::{Server, serve_by_node};
use crate::spawner::User;

#[derive(Debug)]
pub struct PgBouncer {
    node: Node,
}

impl PgBouncer {
    /// Starts a pool with settings of `pgbouncer.ini`, such as `default_pool_size=1`.
    #[must_use]
    pub fn in_front_of(server: &Postgres, options: &[&str]) -> Self {
        let server_port = server.port();
        let node = Node::start(
            "pgbouncer",
            |folder| fs::create_dir(data_folder(folder)).expect("an own folder can be written to"),
            |folder, port| setup(folder, port, server_port, options),
        );
        Self { node }
    }

    /// Runs SQL by `psql` through the pool, as [`Postgres::sql`] does.
    pub fn sql(&self, statements: &str) -> String {
        match query(self.node.folder(), self.node.port(), statements) {
            Ok(rows) => rows,
            Err(problem) => panic!("{problem}"),
        }
    }
}

impl Server for PgBouncer {
    fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/postgres", self.port())
    }

    serve_by_node!();
}

fn setup(folder: &Path, port: u16, server_port: u16, options: &[&str]) -> Setup {
    let file = folder.join("pgbouncer.ini");
    let text = format!(
        "[databases]\n\
         postgres = host=127.0.0.1 port={server_port} dbname=postgres user={USER}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = transaction\nserver_round_robin = 1\n{}\n",
        options.join("\n")
    );
    fs::write(&file, text).expect("an own folder can be written to");
    let folder = folder.to_owned();
    Setup {
        path: find_program("pgbouncer").expect("tests ask first whether PgBouncer is there"),
        arguments: vec![file.display().to_string()],
        user: User::for_servers(),
        stop_signal: Signal::INT,
        answers: Box::new(move || {
            let ask = |port| query(&folder, port, "SHOW data_directory");
            let (behind, answer) = (ask(server_port)?, ask(port)?);
            if behind == answer {
                return Ok(());
            }
            Err(format!("the pool on port {port} leads to {answer}"))
        }),
    }
}
