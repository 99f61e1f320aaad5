//! One bad history for each anomaly: it is found, and called by its name and by no other.

use onelog_simulation::cycles::{Kind, Transaction};

use crate::history::{append, at, committed, read, refused, replace, the_only, unknown};

#[test]
fn two_writers_that_each_wrote_over_the_other_are_a_write_cycle() {
    let history = [
        committed("T1", &[append("x", 1), append("y", 1)]),
        committed("T2", &[append("x", 2), append("y", 2)]),
        committed("T3", &[read("x", &[1, 2])]),
        committed("T4", &[read("y", &[2, 1])]),
    ];
    let found = the_only(Kind::G0, &history);
    assert_eq!(found.summary, "T1 -[ww on x]-> T2 -[ww on y]-> T1");
    assert_eq!(found.transactions, [0, 1]);
    assert!(
        found
            .to_string()
            .contains("in x, T1 wrote 1 and T2 wrote 2 later"),
        "{found}"
    );
}

#[test]
fn appends_that_stand_between_those_of_another_are_a_write_cycle() {
    let history = [
        committed("T1", &[append("x", 1), append("x", 3)]),
        committed("T2", &[append("x", 2)]),
        committed("T3", &[read("x", &[1, 2, 3])]),
    ];
    the_only(Kind::G0, &history);
}

#[test]
fn a_value_of_a_refused_transaction_is_an_aborted_read() {
    let history = [
        refused("T1", &[append("x", 1)]),
        committed("T2", &[read("x", &[1])]),
    ];
    let found = the_only(Kind::G1a, &history);
    assert_eq!(found.transactions, [1, 0]);
}

#[test]
fn a_part_of_what_one_transaction_wrote_is_an_intermediate_read() {
    let history = [
        committed("T1", &[append("x", 1), append("x", 2)]),
        committed("T2", &[read("x", &[1])]),
        committed("T3", &[read("x", &[1, 2])]),
    ];
    the_only(Kind::G1b, &history);
}

#[test]
fn two_that_read_each_others_writes_are_a_circular_flow() {
    let history = [
        committed("T1", &[append("x", 1), read("y", &[1])]),
        committed("T2", &[append("y", 1), read("x", &[1])]),
    ];
    let found = the_only(Kind::G1c, &history);
    assert_eq!(found.summary, "T1 -[wr on x]-> T2 -[wr on y]-> T1");
}

#[test]
fn half_of_another_transaction_is_read_skew() {
    let history = [
        committed("T1", &[append("x", 1), append("y", 1)]),
        committed("T2", &[read("x", &[1]), read("y", &[])]),
        committed("T3", &[read("y", &[1])]),
    ];
    let found = the_only(Kind::GSingle, &history);
    assert!(found.summary.contains("T2 -[rw on y]-> T1"), "{found}");
    assert!(found.summary.contains("T1 -[wr on x]-> T2"), "{found}");
}

#[test]
fn half_of_a_transaction_is_read_skew_even_if_no_read_shows_the_rest() {
    let history = [
        committed("T1", &[append("x", 1), append("y", 1)]),
        committed("T2", &[read("x", &[1]), read("y", &[])]),
    ];
    the_only(Kind::GSingle, &history);
}

#[test]
fn two_that_each_overlook_the_others_write_are_write_skew() {
    let history = [
        committed("T1", &[read("x", &[]), append("y", 1)]),
        committed("T2", &[read("y", &[]), append("x", 1)]),
        committed("T3", &[read("x", &[1]), read("y", &[1])]),
    ];
    let found = the_only(Kind::G2Item, &history);
    assert_eq!(found.summary, "T1 -[rw on x]-> T2 -[rw on y]-> T1");
}

#[test]
fn writes_that_no_read_shows_can_be_write_skew_too() {
    let history = [
        committed("T1", &[read("x", &[]), append("y", 1)]),
        committed("T2", &[read("y", &[]), append("x", 1)]),
    ];
    the_only(Kind::G2Item, &history);
}

#[test]
fn a_fork_seen_by_two_readers_is_write_skew() {
    let history = [
        committed("T1", &[append("x", 1)]),
        committed("T2", &[append("y", 1)]),
        committed("T3", &[read("x", &[1]), read("y", &[])]),
        committed("T4", &[read("x", &[]), read("y", &[1])]),
    ];
    let found = the_only(Kind::G2Item, &history);
    assert_eq!(found.transactions.len(), 4, "{found}");
}

fn updated_twice(shown: &[u64]) -> Vec<Transaction> {
    vec![
        committed("T0", &[append("x", 1)]),
        committed("T1", &[read("x", &[1]), append("x", 2)]),
        committed("T2", &[read("x", &[1]), append("x", 3)]),
        committed("T3", &[read("x", shown)]),
    ]
}

#[test]
fn two_updates_of_one_version_are_a_lost_update() {
    for shown in [&[1, 2, 3][..], &[1, 3, 2], &[1, 3], &[1]] {
        let found = the_only(Kind::LostUpdate, &updated_twice(shown));
        assert_eq!(found.summary, "T1 -[rw on x]-> T2 -[rw on x]-> T1");
        assert!(found.to_string().contains("read x up to 1, and wrote it"));
    }
}

#[test]
fn two_replacements_of_one_list_are_a_lost_update() {
    let history = [
        committed("T0", &[append("x", 1)]),
        committed("T1", &[read("x", &[1]), replace("x", 2)]),
        committed("T2", &[read("x", &[1]), replace("x", 3)]),
        committed("T3", &[read("x", &[3])]),
    ];
    the_only(Kind::LostUpdate, &history);
}

#[test]
fn a_value_that_a_replacement_overlooked_is_read_skew() {
    let history = [
        committed("T0", &[append("x", 1)]),
        committed("T1", &[append("x", 2)]),
        committed("T2", &[read("x", &[1]), replace("x", 3)]),
        committed("T3", &[read("x", &[1, 2])]),
    ];
    the_only(Kind::GSingle, &history);
}

#[test]
fn a_value_twice_in_a_list_is_a_duplicate() {
    let history = [
        committed("T1", &[append("x", 1)]),
        committed("T2", &[read("x", &[1, 1])]),
    ];
    the_only(Kind::Duplicate, &history);
}

#[test]
fn a_value_that_no_transaction_wrote_is_found() {
    let history = [
        committed("T1", &[append("y", 7)]),
        committed("T2", &[read("x", &[7])]),
    ];
    the_only(Kind::Unwritten, &history);
}

#[test]
fn two_reads_that_disagree_about_the_past_have_incompatible_orders() {
    let history = [
        committed("T1", &[append("x", 1)]),
        committed("T2", &[append("x", 2)]),
        committed("T3", &[append("x", 3)]),
        committed("T4", &[read("x", &[1, 2])]),
        committed("T5", &[read("x", &[1, 3])]),
    ];
    the_only(Kind::IncompatibleOrder, &history);
}

#[test]
fn two_first_values_of_one_list_are_incompatible_orders() {
    let history = [
        committed("T1", &[append("x", 1)]),
        committed("T2", &[append("x", 2)]),
        committed("T3", &[read("x", &[1])]),
        committed("T4", &[read("x", &[2])]),
    ];
    the_only(Kind::IncompatibleOrder, &history);
}

#[test]
fn replacements_of_different_versions_of_one_list_are_incompatible_orders() {
    let history = [
        committed("T0", &[append("x", 1)]),
        committed("T1", &[read("x", &[1]), replace("x", 3)]),
        committed("T2", &[append("x", 2)]),
        committed("T3", &[read("x", &[1, 2]), replace("x", 4)]),
    ];
    let found = onelog_simulation::cycles::find(&history).unwrap();
    let incompatible = found.iter().any(|a| a.kind == Kind::IncompatibleOrder);
    assert!(incompatible, "{}", crate::history::print(&found));
}

#[test]
fn a_replacement_behind_what_it_replaced_is_incompatible_orders() {
    let history = [
        committed("T0", &[append("x", 1)]),
        committed("T1", &[read("x", &[1]), replace("x", 2)]),
        committed("T2", &[read("x", &[1, 2])]),
    ];
    the_only(Kind::IncompatibleOrder, &history);
}

#[test]
fn the_writes_of_one_transaction_out_of_order_are_incompatible_orders() {
    for shown in [&[2, 1][..], &[2]] {
        let history = [
            committed("T1", &[append("x", 1), append("x", 2)]),
            committed("T2", &[read("x", shown)]),
        ];
        let found = onelog_simulation::cycles::find(&history).unwrap();
        let incompatible = found.iter().any(|a| a.kind == Kind::IncompatibleOrder);
        assert!(incompatible, "{}", crate::history::print(&found));
    }
}

#[test]
fn a_transaction_that_does_not_find_its_own_write_is_internally_inconsistent() {
    let own = [
        vec![append("x", 1), read("x", &[])],
        vec![read("x", &[]), append("x", 1), read("x", &[])],
        vec![
            read("x", &[]),
            replace("x", 1),
            append("x", 2),
            read("x", &[1]),
        ],
        vec![read("x", &[1]), append("x", 1)],
    ];
    for operations in own {
        the_only(Kind::Internal, &[committed("T1", &operations)]);
    }
}

#[test]
fn a_list_that_changes_within_a_transaction_is_internally_inconsistent() {
    let history = [
        committed("T1", &[append("x", 1)]),
        committed("T2", &[read("x", &[]), read("x", &[1])]),
    ];
    the_only(Kind::Internal, &history);
}

#[test]
fn a_read_that_misses_what_was_answered_before_is_stale() {
    let history = [
        at((0, 1), "T1", &[append("x", 1)]),
        at((2, 3), "T2", &[read("x", &[])]),
        at((4, 5), "T3", &[read("x", &[1])]),
    ];
    let found = the_only(Kind::StaleRead, &history);
    assert!(found.summary.contains("T2 -[rw on x]-> T1"), "{found}");
    assert!(found.summary.contains("T1 -[real time]-> T2"), "{found}");
}

#[test]
fn an_acknowledged_write_that_is_never_seen_again_makes_the_next_read_stale() {
    let history = [
        at((0, 1), "T0", &[append("x", 1)]),
        at((2, 3), "T1", &[append("x", 2)]),
        at((4, 5), "T2", &[read("x", &[1])]),
    ];
    let found = the_only(Kind::StaleRead, &history);
    assert!(found.to_string().contains("T1 wrote 2 later"), "{found}");
}

#[test]
fn a_client_that_does_not_find_its_own_write_sees_its_session_broken() {
    let mut history = vec![
        at((0, 1), "T1", &[append("x", 1)]),
        at((2, 3), "T2", &[read("x", &[])]),
    ];
    history[1].client = history[0].client;
    let found = the_only(Kind::StaleRead, &history);
    assert!(found.summary.contains("T1 -[session]-> T2"), "{found}");
}

#[test]
fn what_is_read_before_it_is_written_contradicts_real_time() {
    let history = [
        at((0, 1), "T1", &[read("x", &[1])]),
        at((2, 3), "T2", &[append("x", 1)]),
    ];
    the_only(Kind::RealTime, &history);
}

#[test]
fn writes_in_another_order_than_they_were_answered_contradict_real_time() {
    let history = [
        at((0, 1), "T1", &[append("x", 1)]),
        at((2, 3), "T2", &[append("x", 2)]),
        at((0, 5), "T3", &[read("x", &[2, 1])]),
    ];
    the_only(Kind::RealTime, &history);
}

#[test]
fn an_old_read_must_still_show_one_moment() {
    let mut half = at((9, 10), "T2", &[read("x", &[1]), read("y", &[])]);
    half.is_timed = false;
    let history = [at((0, 1), "T1", &[append("x", 1), append("y", 1)]), half];
    the_only(Kind::GSingle, &history);
}

#[test]
fn an_unanswered_transaction_that_was_seen_did_commit() {
    let history = [
        unknown(0, "T1", &[append("x", 1), append("y", 1)]),
        at((2, 3), "T2", &[read("x", &[1])]),
        at((4, 5), "T3", &[read("y", &[])]),
    ];
    the_only(Kind::StaleRead, &history);
}

#[test]
fn what_an_unanswered_transaction_read_shows_that_another_one_committed() {
    let history = [
        unknown(0, "T1", &[append("x", 1), append("z", 1)]),
        unknown(0, "T2", &[read("x", &[1]), append("y", 1)]),
        at((2, 3), "T3", &[read("y", &[1]), read("z", &[])]),
    ];
    the_only(Kind::GSingle, &history);
}

#[test]
fn of_a_long_cycle_the_shortest_is_shown() {
    // Given a ring of readers that each overlook the next one's write, and a short cut in it
    let ring = 20;
    let key = |n: u64| format!("k{}", n % ring);
    let mut history: Vec<Transaction> = (0..ring)
        .map(|n| {
            let operations = [read(&key(n + 1), &[]), append(&key(n), n)];
            committed(&format!("T{n}"), &operations)
        })
        .collect();
    history[5].operations.push(read(&key(1), &[]));

    // Then the short cut is taken
    let found = the_only(Kind::G2Item, &history);
    assert_eq!(found.transactions.len(), 5, "{found}");
}

#[test]
fn a_thousand_lost_updates_are_reported_as_a_few() {
    let history: Vec<Transaction> = (0..1_000)
        .flat_map(|n| {
            let key = format!("k{n}");
            let update = |value| [read(&key, &[]), append(&key, value)];
            [
                committed(&format!("A{n}"), &update(1)),
                committed(&format!("B{n}"), &update(2)),
            ]
        })
        .collect();
    let found = onelog_simulation::cycles::find(&history).unwrap();
    assert_eq!(found.len(), onelog_simulation::cycles::KEPT_MAX);
}
