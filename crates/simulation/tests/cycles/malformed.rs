//! Histories that no recorder can have written: refused with the transaction's name.

use onelog_simulation::Moment;
use onelog_simulation::cycles::{HistoryError, Transaction, find};

use crate::history::{append, at, committed, replace};

#[track_caller]
fn refusal(transactions: &[Transaction]) -> (HistoryError, String) {
    let error = find(transactions).unwrap_err();
    let text = error.to_string();
    (error, text)
}

#[test]
fn a_value_that_is_written_twice_is_refused() {
    let history = [
        committed("T1", &[append("x", 1)]),
        committed("T2", &[append("x", 1)]),
    ];
    let (error, text) = refusal(&history);
    assert!(matches!(error, HistoryError::WrittenTwice { .. }));
    assert_eq!(
        text,
        "T1 and T2 both write 1 into x: every value must be written once"
    );
}

#[test]
fn an_end_before_the_begin_is_refused() {
    let (error, text) = refusal(&[at((5, 4), "T1", &[])]);
    assert!(matches!(error, HistoryError::EndBeforeBegin { .. }));
    assert!(text.contains("T1"), "{text}");
}

#[test]
fn an_answer_without_a_moment_is_refused() {
    let mut silent = at((5, 6), "T1", &[]);
    silent.end = None::<Moment>;
    let (error, text) = refusal(&[silent]);
    assert!(matches!(error, HistoryError::AnsweredWithoutEnd { .. }));
    assert!(text.contains("T1"), "{text}");
}

#[test]
fn a_replacement_without_a_read_is_refused() {
    let history = [committed("T1", &[append("x", 1), replace("x", 2)])];
    let (error, text) = refusal(&history);
    assert!(matches!(error, HistoryError::ReplacedUnread { .. }));
    assert!(text.contains("which list it follows"), "{text}");
}
