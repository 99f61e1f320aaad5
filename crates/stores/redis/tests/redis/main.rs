//! Redis against the contract of every store, and what is its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod harness;
mod keys;
mod partitions;
mod repairs;
mod server;
mod takeovers;
mod templates;
mod values;

use onelog_store::conformance;
use onelog_testkit::{Kind, require};

use self::harness::{OneServer, RedisShape};

#[test]
fn redis_keeps_the_contract_of_every_store_with_strings() {
    require!(Kind::Redis);
    conformance::all(&|| Box::new(OneServer::new()));
}

#[test]
fn redis_keeps_the_contract_of_every_store_with_hashes() {
    require!(Kind::Redis);
    conformance::all(&|| Box::new(OneServer::with(RedisShape::Hash, None)));
}

#[test]
fn one_server_with_partitions_keeps_the_contract_too() {
    require!(Kind::Redis);
    conformance::all(&|| Box::new(OneServer::with(RedisShape::String, Some(7))));
}
