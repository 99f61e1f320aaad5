//! Histories in which nothing is wrong, though some look as if.

use crate::history::{append, assert_good, at, committed, read, refused, replace, unknown};

#[test]
fn nothing_is_good() {
    assert_good(&[]);
}

#[test]
fn a_serial_history_is_good() {
    assert_good(&[
        at((0, 1), "T1", &[append("x", 1), append("y", 1)]),
        at((2, 3), "T2", &[read("x", &[1]), append("x", 2)]),
        at((4, 5), "T3", &[read("x", &[1, 2]), read("y", &[1])]),
    ]);
}

#[test]
fn overlapping_transactions_may_take_effect_in_any_order() {
    assert_good(&[
        at((0, 9), "T1", &[append("x", 1)]),
        at((1, 8), "T2", &[append("x", 2)]),
        at((2, 7), "T3", &[read("x", &[])]),
        at((3, 8), "T4", &[read("x", &[2])]),
        at((10, 11), "T5", &[read("x", &[2, 1])]),
    ]);
}

#[test]
fn a_moment_that_two_share_orders_nothing() {
    assert_good(&[
        at((0, 5), "T1", &[append("x", 1)]),
        at((5, 6), "T2", &[read("x", &[])]),
    ]);
}

#[test]
fn refused_transactions_have_no_effect() {
    assert_good(&[
        at((0, 1), "T1", &[append("x", 1)]),
        refused("T2", &[read("x", &[]), append("x", 2)]),
        at((2, 3), "T3", &[read("x", &[1])]),
    ]);
}

#[test]
fn an_unanswered_transaction_may_take_effect_late_or_never() {
    assert_good(&[
        unknown(0, "T1", &[append("x", 1)]),
        unknown(0, "T2", &[append("x", 2)]),
        at((2, 3), "T3", &[read("x", &[])]),
        at((4, 5), "T4", &[read("x", &[2])]),
        at((6, 7), "T5", &[read("x", &[2])]),
    ]);
}

#[test]
fn a_read_of_an_old_state_may_be_old() {
    let mut old = at((4, 5), "T3", &[read("x", &[1])]);
    old.is_timed = false;
    assert_good(&[
        at((0, 1), "T1", &[append("x", 1)]),
        at((2, 3), "T2", &[append("x", 2)]),
        old,
        at((6, 7), "T4", &[read("x", &[1, 2])]),
    ]);
}

#[test]
fn a_transaction_finds_its_own_writes() {
    assert_good(&[
        at((0, 1), "T1", &[append("x", 1), append("x", 2)]),
        at(
            (2, 3),
            "T2",
            &[append("x", 3), read("x", &[1, 2, 3]), append("x", 4)],
        ),
        at((4, 5), "T3", &[read("x", &[1, 2, 3, 4])]),
    ]);
}

#[test]
fn replacements_follow_what_they_read() {
    assert_good(&[
        at((0, 1), "T1", &[append("x", 1)]),
        at(
            (2, 3),
            "T2",
            &[read("x", &[1]), replace("x", 2), append("x", 3)],
        ),
        at((2, 9), "T3", &[read("x", &[1])]),
        at((4, 5), "T4", &[append("x", 4)]),
        at((6, 7), "T5", &[read("x", &[2, 3, 4]), replace("x", 5)]),
        at((8, 9), "T6", &[read("x", &[5])]),
    ]);
}

#[test]
fn a_list_may_be_replaced_twice_in_one_transaction() {
    let twice = [
        read("x", &[]),
        replace("x", 1),
        append("x", 2),
        replace("x", 3),
        read("x", &[3]),
    ];
    assert_good(&[
        at((0, 1), "T1", &twice),
        at((2, 3), "T2", &[read("x", &[3])]),
    ]);
}

#[test]
fn one_update_of_a_version_is_no_lost_update_beside_blind_writes() {
    assert_good(&[
        committed("T1", &[read("x", &[]), append("x", 1)]),
        committed("T2", &[append("x", 2)]),
        committed("T3", &[append("x", 3)]),
    ]);
}
