//! One voter, and what a message of another one does to it.

use ::raft::Storage as _;
use ::raft::eraftpb::{self, MessageType};
use bytes::Bytes;
use onelog_record::{EntryHeader, EntryKind};

use super::*;

fn voter() -> Raft {
    Raft::new(&RaftOptions {
        node: NodeId(1),
        members: Members::alone(NodeId(1)),
        term: Term(0),
        vote: 0,
        first: Index(1),
        terms: Vec::new(),
        committed: Index(0),
        committed_end: Position(0),
        uncommitted: Vec::new(),
        seed: 1,
    })
    .unwrap()
}

fn all(raft: &mut Raft) -> Progress {
    let mut all = Progress::default();
    while let Some(next) = raft.poll().unwrap() {
        all.lost_leadership = all.lost_leadership.or(next.lost_leadership);
        all.vote = all.vote.or(next.vote);
        all.entries.extend(next.entries);
        all.committed.extend(next.committed);
        all.messages.extend(next.messages);
        all.barriers.extend(next.barriers);
    }
    if let Some(last) = all.committed.last() {
        raft.applied(last.index);
    }
    all
}

fn leader() -> Raft {
    let mut raft = voter();
    raft.campaign().unwrap();
    let started = all(&mut raft);
    assert_eq!(started.vote, Some((Term(1), 1)));
    assert_eq!(started.entries.len(), 1, "its own first entry");
    raft.stored(Index(1));
    assert_eq!(all(&mut raft).committed.len(), 1);
    raft
}

#[test]
fn one_voter_keeps_its_leadership_however_much_time_passes() {
    let mut raft = leader();
    for _ in 0..10 * ELECTION_TICKS {
        raft.tick().unwrap();
        let progress = all(&mut raft);
        assert_eq!(progress.lost_leadership, None);
        assert_eq!(progress.vote, None, "no further election");
    }
    assert!(raft.leads());
    assert_eq!(raft.term(), Term(1));
}

#[test]
fn one_voter_that_never_campaigned_does_so_when_its_time_is_over() {
    let mut raft = voter();
    for _ in 0..=2 * ELECTION_TICKS {
        raft.tick().unwrap();
    }
    assert_eq!(all(&mut raft).vote, Some((Term(1), 1)));
    assert!(raft.leads());
}

#[test]
fn a_barrier_of_one_voter_is_what_is_committed_not_what_is_appended() {
    let mut raft = leader();
    let entry = Entry {
        term: Term(1),
        index: Index(2),
        header: EntryHeader::empty(EntryKind::Transactions, onelog_record::Offset(0)),
        body: Bytes::new(),
    };
    raft.propose(entry.payload()).unwrap();
    assert_eq!(all(&mut raft).entries.len(), 1);
    raft.read_barrier(7);
    assert_eq!(all(&mut raft).barriers, [(7, Index(1))]);
    raft.stored(Index(2));
    all(&mut raft);
    raft.read_barrier(8);
    assert_eq!(all(&mut raft).barriers, [(8, Index(2))]);
}

#[test]
fn a_leader_of_a_later_term_ends_the_leadership_and_it_is_said_once() {
    let mut raft = leader();
    let heartbeat = eraftpb::Message {
        msg_type: MessageType::MsgHeartbeat,
        from: 2,
        to: 1,
        term: 5,
        ..eraftpb::Message::default()
    };
    raft.step(Message(heartbeat)).unwrap();
    let progress = all(&mut raft);
    assert_eq!(progress.lost_leadership, Some(Term(1)));
    assert!(!raft.leads());
    assert_eq!(raft.term(), Term(5));
    assert_eq!(all(&mut raft).lost_leadership, None);
}

#[test]
fn what_waits_behind_an_installation_leaves_when_that_is_done() {
    // Given a node that is to install a snapshot,
    let mut raft = voter();
    let mark = SnapshotMark {
        index: Index(9),
        term: Term(2),
        end: Position(5),
        members: Members::of([NodeId(1), NodeId(2)]),
    };
    let mut announced = eraftpb::Message {
        msg_type: MessageType::MsgSnapshot,
        from: 2,
        to: 1,
        term: 3,
        ..eraftpb::Message::default()
    };
    announced.set_snapshot(mark.to_raft());
    raft.step(Message(announced)).unwrap();
    assert_eq!(raft.poll().unwrap().unwrap().install, Some(mark));
    all(&mut raft);
    // and that is heard of meanwhile,
    let heartbeat = eraftpb::Message {
        msg_type: MessageType::MsgHeartbeat,
        from: 2,
        to: 1,
        term: 3,
        ..eraftpb::Message::default()
    };
    raft.step(Message(heartbeat)).unwrap();
    assert!(all(&mut raft).messages.is_empty());
    // when it is installed, without a flush of anything else,
    raft.installed();
    // then it answers both.
    let sent = all(&mut raft).messages;
    assert_eq!(sent.len(), 2, "{sent:?}");
}

#[test]
fn the_terms_of_what_is_not_committed_are_known_once() {
    // Given a log of which only the first two entries are known to be committed,
    let entry = |index, term| Entry {
        term: Term(term),
        index: Index(index),
        header: EntryHeader::empty(EntryKind::NoOp, onelog_record::Offset(index - 1)),
        body: Bytes::new(),
    };
    let raft = Raft::new(&RaftOptions {
        node: NodeId(1),
        members: Members::of([NodeId(1), NodeId(2), NodeId(3)]),
        term: Term(9),
        vote: 0,
        first: Index(1),
        terms: [(1, 1), (4, 2), (6, 4)]
            .map(|(i, t)| (Index(i), Term(t)))
            .into(),
        committed: Index(2),
        committed_end: Position(2),
        uncommitted: [(3, 1), (4, 2), (5, 2), (6, 4)]
            .map(|(i, t)| entry(i, t))
            .into(),
        seed: 1,
    });
    let mut raft = raft.unwrap();
    let terms = |raft: &Raft, last| -> Vec<u64> {
        let store = raft.raw.store();
        (1..=last).map(|index| store.term(index).unwrap()).collect()
    };
    assert_eq!(terms(&raft, 6), [1, 1, 1, 2, 2, 4]);
    // when a later leader has others from the fourth on, then those of before are forgotten.
    let store = raft.raw.mut_store();
    store.cut_end(4);
    for index in 4..=9 {
        let later = to_raft(&entry(index, 9)).unwrap();
        store.push(later, Position(index));
    }
    assert_eq!(terms(&raft, 9), [1, 1, 1, 9, 9, 9, 9, 9, 9]);
}
