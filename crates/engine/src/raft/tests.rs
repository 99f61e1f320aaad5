//! One voter, and what a message of another one does to it.

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
