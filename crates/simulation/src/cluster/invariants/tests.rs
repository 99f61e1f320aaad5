//! Hand-made histories: good ones that pass, and a bad one for each way of being wrong.

use bytes::Bytes;
use onelog_record::{Entry, EntryHeader, EntryKind, Index, NodeId, Offset, Term};

use super::{Broken, Invariant, Invariants, LogChange, Print};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

fn entry(index: u64, term: u64, body: &'static str) -> Entry {
    Entry {
        term: Term(term),
        index: Index(index),
        header: EntryHeader::empty(EntryKind::NoOp, Offset(0)),
        body: Bytes::from_static(body.as_bytes()),
    }
}

fn append(all: &mut Invariants, node: NodeId, entry: &Entry) -> Result<(), Broken> {
    all.log_changed(node, &LogChange::Appended(Print::of(entry)))
}

fn invariant(result: Result<(), Broken>) -> Option<Invariant> {
    result.err().map(|broken| broken.invariant)
}

#[test]
fn a_term_has_one_leader() {
    let mut all = Invariants::default();
    assert_eq!(all.leads(ONE, Term(2)), Ok(()));
    assert_eq!(all.leads(ONE, Term(2)), Ok(()));
    assert_eq!(all.leads(TWO, Term(3)), Ok(()));
    let found = invariant(all.leads(TWO, Term(2)));
    assert_eq!(found, Some(Invariant::ElectionSafety));
}

#[test]
fn entries_of_one_index_and_term_are_one() {
    let mut all = Invariants::default();
    assert_eq!(append(&mut all, ONE, &entry(1, 1, "a")), Ok(()));
    assert_eq!(append(&mut all, TWO, &entry(1, 1, "a")), Ok(()));
    // Of another term it is another one.
    assert_eq!(append(&mut all, ONE, &entry(2, 1, "b")), Ok(()));
    assert_eq!(append(&mut all, TWO, &entry(2, 2, "c")), Ok(()));
    let found = append(&mut all, NodeId(3), &entry(2, 1, "other"));
    assert_eq!(invariant(found), Some(Invariant::LogMatching));
}

#[test]
fn what_is_before_an_entry_is_the_same_everywhere() {
    let mut all = Invariants::default();
    // Given a node whose tail of an old term was not cut,
    append(&mut all, ONE, &entry(1, 1, "a")).unwrap();
    append(&mut all, ONE, &entry(2, 2, "b")).unwrap();
    append(&mut all, TWO, &entry(1, 3, "old")).unwrap();
    // when it takes what the other has behind another entry,
    let found = append(&mut all, TWO, &entry(2, 2, "b"));
    // then that is found.
    assert_eq!(invariant(found), Some(Invariant::LogMatching));
}

#[test]
fn a_tail_that_was_cut_is_not_before_anything() {
    let mut all = Invariants::default();
    append(&mut all, ONE, &entry(1, 1, "a")).unwrap();
    append(&mut all, ONE, &entry(2, 3, "b")).unwrap();
    append(&mut all, TWO, &entry(1, 2, "old")).unwrap();
    all.log_changed(TWO, &LogChange::Cut(Index(1))).unwrap();
    append(&mut all, TWO, &entry(1, 1, "a")).unwrap();
    assert_eq!(append(&mut all, TWO, &entry(2, 3, "b")), Ok(()));
    // Nor is what a snapshot has replaced.
    append(&mut all, NodeId(3), &entry(1, 2, "old")).unwrap();
    all.log_changed(NodeId(3), &LogChange::Begins).unwrap();
    assert_eq!(append(&mut all, NodeId(3), &entry(2, 3, "b")), Ok(()));
}

#[test]
fn what_the_first_node_did_not_show_a_later_one_does() {
    let mut all = Invariants::default();
    // Given an entry that was seen without the one before it, and then with it,
    append(&mut all, ONE, &entry(2, 2, "b")).unwrap();
    append(&mut all, TWO, &entry(1, 1, "a")).unwrap();
    append(&mut all, TWO, &entry(2, 2, "b")).unwrap();
    // when a third node has another one before it, then that is found.
    append(&mut all, NodeId(3), &entry(1, 2, "c")).unwrap();
    let found = append(&mut all, NodeId(3), &entry(2, 2, "b"));
    assert_eq!(invariant(found), Some(Invariant::LogMatching));
}

#[test]
fn a_leader_has_what_is_committed() {
    let mut all = Invariants::default();
    all.applied(ONE, Term(2), &entry(1, 1, "a")).unwrap();
    all.applied(ONE, Term(2), &entry(2, 2, "b")).unwrap();
    let whole = |index: Index| Some(Term(index.get()));
    assert_eq!(all.holds_committed(TWO, Term(3), Index(1), whole), Ok(()));
    let short = |index: Index| (index == Index(1)).then_some(Term(1));
    let found = all.holds_committed(TWO, Term(3), Index(1), short);
    assert_eq!(invariant(found), Some(Invariant::LeaderCompleteness));
    let other = |_: Index| Some(Term(1));
    let found = all.holds_committed(TWO, Term(3), Index(1), other);
    assert_eq!(invariant(found), Some(Invariant::LeaderCompleteness));
}

#[test]
fn a_leader_of_an_old_term_may_lack_what_was_committed_since() {
    let mut all = Invariants::default();
    all.applied(ONE, Term(2), &entry(1, 1, "a")).unwrap();
    all.applied(ONE, Term(5), &entry(2, 5, "b")).unwrap();
    let short = |index: Index| (index == Index(1)).then_some(Term(1));
    assert_eq!(all.holds_committed(TWO, Term(4), Index(1), short), Ok(()));
    let found = all.holds_committed(TWO, Term(5), Index(1), short);
    assert_eq!(invariant(found), Some(Invariant::LeaderCompleteness));
}

#[test]
fn what_came_with_a_snapshot_need_not_be_in_the_log() {
    let mut all = Invariants::default();
    all.applied(ONE, Term(2), &entry(1, 1, "a")).unwrap();
    let nothing = |_: Index| None;
    assert_eq!(all.holds_committed(TWO, Term(3), Index(2), nothing), Ok(()));
}

#[test]
fn an_index_is_applied_as_one_entry() {
    let mut all = Invariants::default();
    assert_eq!(all.applied(ONE, Term(1), &entry(1, 1, "a")), Ok(()));
    assert_eq!(all.applied(TWO, Term(1), &entry(1, 1, "a")), Ok(()));
    let found = all.applied(TWO, Term(1), &entry(1, 1, "b"));
    assert_eq!(invariant(found), Some(Invariant::StateMachineSafety));
    let found = all.applied(TWO, Term(2), &entry(1, 2, "a"));
    assert_eq!(invariant(found), Some(Invariant::StateMachineSafety));
    assert_eq!(all.committed().len(), 1);
}

#[test]
fn what_was_cut_does_not_come_back_by_itself() {
    let mut all = Invariants::default();
    let old = entry(1, 1, "a");
    append(&mut all, ONE, &old).unwrap();
    all.log_changed(ONE, &LogChange::Cut(Index(1))).unwrap();
    all.log_changed(ONE, &LogChange::Begins).unwrap();
    let recovered = LogChange::Recovered(Print::of(&old));
    let found = all.log_changed(ONE, &recovered);
    assert_eq!(invariant(found), Some(Invariant::CutIsFinal));
    // A later leader may bring it again.
    append(&mut all, ONE, &old).unwrap();
    assert_eq!(all.log_changed(ONE, &recovered), Ok(()));
}

#[test]
fn a_follower_is_sent_nothing_that_it_is_known_to_have() {
    assert_eq!(Invariants::sends(TWO, Index(6), Index(5)), Ok(()));
    let found = invariant(Invariants::sends(TWO, Index(5), Index(5)));
    assert_eq!(found, Some(Invariant::NextBehindMatch));
}
