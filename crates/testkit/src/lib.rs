//! Real servers for tests, on free loopback ports, in temporary folders, and a proxy that cuts
//! their connections. Linux only.
//!
//! Every server is a child of this process and dies with it, however it ends: by a death signal
//! (`spawner`) and by a guardian process that also removes the folders (`run_folder`).
//!
//! The caller is a test: whatever goes wrong here panics, with the tail of the server's log.
#![allow(clippy::expect_used, clippy::panic)]

mod certificates;
mod client;
mod folder_trace;
mod http;
mod kafka;
mod kind;
mod mariadb;
mod node;
mod pgbouncer;
mod port;
mod postgres;
mod process;
mod proxy;
mod redis;
mod redis_cluster;
mod run_folder;
mod search;
mod server;
mod spawner;
mod wait;

pub use certificates::{Authority, Certificates};
pub use folder_trace::{FolderTrace, trace_folders};
pub use kafka::kafka_python;
pub use kind::{Kind, available, must_run};
pub use mariadb::Mariadb;
pub use pgbouncer::PgBouncer;
pub use port::Port;
pub use postgres::Postgres;
pub use proxy::{Direction, Proxy};
pub use redis::Redis;
pub use redis_cluster::RedisCluster;
pub use search::{Elasticsearch, OpenSearch};
pub use server::{SavedData, Server};
pub use wait::until_ok;
