//! Starts servers, prints their addresses, and ends them when the input ends: for benchmarks and
//! for trying things by hand. Unlike in tests they write through to the disk.
//!
//! ```text
//! cargo run -p onelog-testkit --example servers -- postgres mariadb redis opensearch
//! ```

use std::io::Read as _;

use onelog_testkit::{Mariadb, OpenSearch, Postgres, Redis, Server};

const POSTGRES: [&str; 3] = ["fsync=on", "shared_buffers=512MB", "max_wal_size=4GB"];
const MARIADB: [&str; 4] = [
    "innodb-flush-log-at-trx-commit=1",
    "innodb-flush-method=fsync",
    "innodb-buffer-pool-size=1G",
    "innodb-log-file-size=1G",
];
const OPENSEARCH: [&str; 2] = ["-Xms2g", "-Xmx2g"];
const KINDS: [&str; 4] = ["postgres", "mariadb", "redis", "opensearch"];

fn main() {
    let named: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = named.iter().find(|name| !KINDS.contains(&name.as_str())) {
        eprintln!(
            "there is no server '{unknown}'; there are: {}",
            KINDS.join(", ")
        );
        std::process::exit(2);
    }
    let start = |name: &str| -> Box<dyn Server> {
        match name {
            "postgres" => Box::new(Postgres::start_with(&POSTGRES)),
            "mariadb" => Box::new(Mariadb::start_with(&MARIADB)),
            "redis" => Box::new(Redis::start()),
            _ => Box::new(OpenSearch::start_with(&OPENSEARCH)),
        }
    };
    let servers: Vec<_> = named.iter().map(|name| start(name)).collect();
    for server in &servers {
        println!("{}", server.url());
    }
    println!("running until the input ends (Ctrl-D)");
    // What was typed means nothing.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
