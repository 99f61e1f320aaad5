//! Every fault of a store or of onelog, on real servers: after each the store equals the log, no
//! row was applied twice, and no reader ever saw half a transaction.
//!
//! ```text
//!   transfers ──▶ node ──▶ sink ──▶ proxy ──▶ server ◀── watcher: the sum of all accounts
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod elasticsearch;
mod mysql;
mod postgres;
mod redis;
mod rig;
mod rounds;
mod victim;
mod watcher;
mod world;

use onelog_testkit::{Kind, OpenSearch, require};

use crate::rig::Rig;
use crate::world::World;

/// Runs every fault on one store, one after the other.
fn suffer(rig: &dyn Rig) {
    let mut world = World::new(rig);
    rounds::onelog_is_killed_at_each_place(&mut world);
    rounds::the_store_is_killed_under_load(&mut world);
    rounds::the_answer_of_a_commit_is_lost(&mut world);
    rounds::the_store_hangs_and_comes_back(&mut world);
    rounds::the_store_refuses(&mut world);
    rounds::the_store_goes_back_in_time(&mut world);
    rounds::two_processes_feed_one_store(&mut world);
    world.end();
}

#[test]
fn postgres_survives_every_fault() {
    require!(Kind::Postgres);
    suffer(&postgres::PostgresRig::start());
}

#[test]
fn mariadb_survives_every_fault() {
    require!(Kind::Mariadb);
    suffer(&mysql::MysqlRig::start());
}

#[test]
fn redis_survives_every_fault() {
    require!(Kind::Redis);
    suffer(&redis::RedisRig::start());
}

#[test]
fn opensearch_survives_every_fault() {
    require!(Kind::OpenSearch);
    suffer(&elasticsearch::ElasticsearchRig::start(Box::new(
        OpenSearch::start(),
    )));
}

/// Does nothing unless it was started by another test; see [`victim`].
#[test]
fn the_victim() {
    victim::live_and_die();
}
