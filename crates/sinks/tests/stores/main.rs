//! What a sink does about records that its store refuses and about changes by hand, written once and
//! run through the runner on every real server.
//!
//! ```text
//!   shop.orders ──▶ node ──▶ sink ──▶ server ◀── rules, edits and looks by the server's own client
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adopting;
mod killed;
mod mysql;
mod parking;
mod postgres;
mod redis;
mod replacing;
mod rig;
mod search;
mod stopping;
mod upkeep;
mod world;

use onelog_testkit::{Kind, require};

use crate::rig::Rig;

/// Every story, one after the other, on one server.
fn tell(rig: &dyn Rig) {
    parking::what_is_refused_waits_and_is_replayed_when_the_record_or_the_store_is_mended(rig);
    parking::only_the_table_that_refuses_parks_the_record(rig);
    parking::a_backfill_parks_and_a_rebuild_tries_again(rig);
    adopting::rows_that_were_there_before_are_kept_until_the_definition_says_otherwise(rig);
    upkeep::changes_by_hand_are_found_and_undone_while_the_sink_goes_on(rig);
    upkeep::the_schedule_finds_a_change_by_hand_and_shows_it(rig);
    replacing::a_definition_changes_while_others_wait_for_its_sink(rig);
    stopping::a_refused_record_stops_its_sink_and_no_other(rig);
    killed::a_process_that_dies_while_it_parks_or_replays_loses_nothing(rig);
    parking::a_store_restored_from_before_a_replay_gets_the_rows_again(rig);
}

#[test]
fn postgres_passes_every_story() {
    require!(Kind::Postgres);
    let rig = postgres::PostgresRig::start();
    tell(&rig);
    postgres::what_is_refused_at_the_commit_waits_in_every_table(&rig);
}

#[test]
fn mariadb_passes_every_story() {
    require!(Kind::Mariadb);
    tell(&mysql::MysqlRig::start());
}

#[test]
fn redis_passes_every_story_with_strings() {
    require!(Kind::Redis);
    tell(&redis::RedisRig::start(redis::Shape::Strings));
}

#[test]
fn redis_passes_every_story_with_hashes() {
    require!(Kind::Redis);
    tell(&redis::RedisRig::start(redis::Shape::Hashes));
}

#[test]
fn opensearch_passes_every_story() {
    require!(Kind::OpenSearch);
    tell(&search::SearchRig::start());
}

/// Does nothing unless it was started by another test; see [`killed`].
#[test]
fn the_victim() {
    killed::live_and_die();
}
