//! What a sink does about records that its store refuses and about changes by hand, written once and
//! run through the runner on every real server.
//!
//! ```text
//!   shop.orders ──▶ node ──▶ sink ──▶ server ◀── rules, edits and looks by the server's own client
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adopting;
mod cut;
mod failover;
mod killed;
mod mysql;
mod narrowing;
mod parking;
mod postgres;
mod redis;
mod refusing;
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
    parking::many_refusals_in_one_batch_cost_a_few_attempts(rig);
    parking::many_rows_that_a_backfill_cannot_load_cost_a_few_attempts(rig);
    parking::a_backfill_parks_and_a_rebuild_tries_again(rig);
    parking::parked_rows_that_refer_to_each_other_are_replayed_by_one_call(rig);
    cut::rows_of_what_is_parked_are_treated_as_in_every_backfill(rig);
    refusing::what_a_users_table_refuses_in_a_backfill_is_parked_once(rig);
    refusing::the_rows_of_what_a_backfill_refuses_stay_as_they_are(rig);
    adopting::rows_that_were_there_before_are_kept_until_the_definition_says_otherwise(rig);
    adopting::what_is_written_while_a_users_table_is_backfilled_first_is_kept(rig);
    adopting::what_is_written_while_a_sinks_own_table_is_made_anew_is_not_dropped_unasked(rig);
    adopting::what_a_deleted_sink_left_is_asked_for_as_any_table_that_is_there(rig);
    adopting::a_table_that_a_definition_left_is_asked_for_when_it_comes_back(rig);
    adopting::a_key_gets_another_type_which_some_keys_do_not_have(rig);
    upkeep::changes_by_hand_are_found_and_undone_while_the_sink_goes_on(rig);
    upkeep::a_rebuild_of_many_rows_that_the_log_has_asks_nothing(rig);
    upkeep::the_schedule_finds_a_change_by_hand_and_shows_it(rig);
    narrowing::a_column_that_is_narrowed_stops_its_sink_by_name(rig);
    replacing::a_definition_changes_while_others_wait_for_its_sink(rig);
    replacing::a_dry_run_says_that_the_store_follows_another_log(rig);
    stopping::a_refused_record_stops_its_sink_and_no_other(rig);
    failover::a_store_that_takes_no_writes_for_a_while_is_waited_for(rig);
    failover::a_store_that_refuses_the_login_for_a_while_is_waited_for(rig);
    killed::a_process_that_dies_while_it_parks_or_replays_loses_nothing(rig);
    parking::a_store_restored_from_before_a_replay_gets_the_rows_again(rig);
}

#[test]
fn postgres_passes_every_story() {
    require!(Kind::Postgres);
    let rig = postgres::PostgresRig::start();
    // Each refused one costs three windows at most: it ends one, what was before it goes again, and
    // it fails alone. The next windows are small.
    parking::many_duplicates_in_one_batch_are_parked_alone(&rig, "window", 3 * 600 + 100);
    postgres::a_rule_that_is_checked_at_the_commit_parks_the_row_alone(&rig);
    postgres::what_a_deferred_key_refuses_is_parked_alone(&rig);
    postgres::a_refused_row_of_an_exchange_of_unique_values_takes_no_row_with_it(&rig);
    postgres::what_jsonb_or_an_index_refuses_in_a_backfill_is_parked(&rig);
    tell(&rig);
    postgres::a_store_that_is_put_back_under_its_sink_is_followed_from_there(&rig);
    postgres::a_standby_is_waited_for_or_another_host_is_taken(&rig);
}

#[test]
fn mariadb_passes_every_story() {
    require!(Kind::Mariadb);
    let rig = mysql::MysqlRig::start();
    stopping::a_sink_of_a_server_that_does_not_answer_is_deleted_and_what_stays_is_said(&rig);
    parking::many_duplicates_in_one_batch_are_parked_alone(&rig, "transaction", 6);
    tell(&rig);
}

#[test]
fn redis_passes_every_story_with_strings() {
    require!(Kind::Redis);
    let rig = redis::RedisRig::start(redis::Shape::Strings);
    stopping::a_sink_of_a_server_that_does_not_answer_is_deleted_and_what_stays_is_said(&rig);
    redis::the_sink_follows_a_failover_to_the_replica(&rig);
    tell(&rig);
    redis::another_template_asks_before_it_takes_many_keys_away(&rig);
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
