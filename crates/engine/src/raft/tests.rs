//! One voter, and what a message of another one does to it.

use ::raft::Storage as _;
use ::raft::eraftpb::{self, MessageType};
use bytes::Bytes;
use onelog_record::{EntryHeader, EntryKind};

use super::*;

mod behind;
mod diverged;

/// Of entries of this size more than may stay in memory unapplied.
const LARGE: usize = 1 << 20;

fn alone() -> RaftOptions {
    RaftOptions {
        node: NodeId(1),
        members: Members::alone(NodeId(1)),
        term: Term(0),
        vote: 0,
        first: Index(1),
        terms: Vec::new(),
        committed: Index(0),
        committed_end: Position(0),
        uncommitted: Vec::new(),
        unapplied_bytes_max: 32 * LARGE,
        seed: 1,
    }
}

fn voter() -> Raft {
    Raft::new(&alone()).unwrap()
}

fn all(raft: &mut Raft) -> Progress {
    let mut all = polled(raft);
    if raft.commit(usize::MAX) {
        let more = polled(raft);
        all.committed.extend(more.committed);
        all.messages.extend(more.messages);
    }
    if let Some(last) = all.committed.last() {
        raft.applied(last.index);
    }
    all
}

fn polled(raft: &mut Raft) -> Progress {
    let mut all = Progress::default();
    while let Some(next) = raft.poll().unwrap() {
        all.lost_leadership = all.lost_leadership.or(next.lost_leadership);
        all.vote = all.vote.or(next.vote);
        all.cut = all.cut.or(next.cut);
        all.entries.extend(next.entries);
        all.committed.extend(next.committed);
        all.messages.extend(next.messages);
        all.barriers.extend(next.barriers);
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
        unapplied_bytes_max: 32 * LARGE,
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

/// A number that no member has.
const OUTSIDE: NodeId = NodeId(9);

fn outsider() -> Raft {
    outsider_with(Vec::new())
}

fn outsider_with(uncommitted: Vec<Entry>) -> Raft {
    Raft::new(&RaftOptions {
        node: OUTSIDE,
        members: Members::of([NodeId(1)]),
        term: uncommitted.last().map_or(Term(0), |entry| entry.term),
        uncommitted,
        ..alone()
    })
    .unwrap()
}

/// Committed entries up to `last`, as the leader of `term` would send them behind the one at `before`.
fn append(before: (Index, Term), term: Term, last: u64) -> Message {
    let entry = |index| Entry {
        term,
        index: Index(index),
        header: EntryHeader::empty(EntryKind::NoOp, onelog_record::Offset(0)),
        body: Bytes::new(),
    };
    let indexes = before.0.get() + 1..=last;
    let entries: Vec<_> = indexes.map(|i| to_raft(&entry(i)).unwrap()).collect();
    Message(eraftpb::Message {
        msg_type: MessageType::MsgAppend,
        from: 1,
        to: OUTSIDE.get(),
        term: term.get(),
        index: before.0.get(),
        log_term: before.1.get(),
        commit: last,
        entries: entries.into(),
        ..eraftpb::Message::default()
    })
}

#[test]
fn a_node_that_is_no_member_takes_what_is_committed_and_never_seeks_the_leadership() {
    // Given a node that is no member, and is sent committed entries of two terms,
    let mut raft = outsider();
    let sent = [
        append((Index(0), Term(0)), Term(1), 2),
        append((Index(2), Term(1)), Term(3), 3),
    ];
    let mut committed = Vec::new();
    for message in sent {
        raft.step(message).unwrap();
        let progress = all(&mut raft);
        assert_eq!(progress.cut, None);
        committed.extend(progress.committed);
        raft.stored(raft.last_appended);
        committed.extend(all(&mut raft).committed);
    }
    // Then it applies each of them once,
    let indexes: Vec<u64> = committed.iter().map(|entry| entry.index.get()).collect();
    assert_eq!(indexes, [1, 2, 3]);
    // and without a word from another node it asks for no vote.
    for _ in 0..10 * ELECTION_TICKS {
        raft.tick().unwrap();
        let progress = all(&mut raft);
        assert_eq!(progress.vote, None);
        assert!(progress.messages.is_empty());
    }
    assert_eq!(raft.term(), Term(3));
}

#[test]
fn a_snapshot_is_installed_where_its_members_have_the_node_and_only_there() {
    for (learners, is_taken) in [(vec![], false), (vec![OUTSIDE], true)] {
        let mut raft = outsider();
        let mut members = Members::of([NodeId(1)]);
        members.learners.extend(learners);
        let mark = SnapshotMark {
            index: Index(9),
            term: Term(2),
            end: Position(5),
            members,
        };
        let mut announced = eraftpb::Message {
            msg_type: MessageType::MsgSnapshot,
            from: 1,
            to: OUTSIDE.get(),
            term: 3,
            ..eraftpb::Message::default()
        };
        announced.set_snapshot(mark.to_raft());
        raft.step(Message(announced)).unwrap();
        let mut installed = None;
        while let Some(progress) = raft.poll().unwrap() {
            installed = installed.or(progress.install);
        }
        assert_eq!(installed, is_taken.then_some(mark));
    }
}

#[test]
fn what_a_node_that_is_no_member_had_is_committed_by_a_message_without_entries() {
    // Given such a node that starts again, with entries that are not known to be committed,
    let (last, term) = (Index(3), Term(2));
    let entry = |index| Entry {
        term,
        index: Index(index),
        header: EntryHeader::empty(EntryKind::NoOp, onelog_record::Offset(0)),
        body: Bytes::new(),
    };
    let mut raft = outsider_with((1..=3).map(entry).collect());
    assert!(all(&mut raft).committed.is_empty());
    // when a message says that its last one is,
    raft.step(append((last, term), term, last.get())).unwrap();
    // then it applies them, and cuts and appends nothing.
    let progress = all(&mut raft);
    assert_eq!((progress.cut, progress.entries.len()), (None, 0));
    assert_eq!(progress.committed, (1..=3).map(entry).collect::<Vec<_>>());
}

#[test]
fn a_node_that_is_no_member_stays_a_learner_of_its_own_through_changes_of_the_members() {
    // Given a node that has added itself to the members of a state that it took in,
    let mut raft = outsider();
    let mut members = Members::of([NodeId(1)]);
    members.learners.insert(OUTSIDE);
    let mark = SnapshotMark {
        index: Index(9),
        term: Term(2),
        end: Position(5),
        members,
    };
    let mut announced = eraftpb::Message {
        msg_type: MessageType::MsgSnapshot,
        from: 1,
        to: OUTSIDE.get(),
        term: 2,
        ..eraftpb::Message::default()
    };
    announced.set_snapshot(mark.to_raft());
    raft.step(Message(announced)).unwrap();
    all(&mut raft);
    raft.installed();
    // when entries change the members of the source,
    let steps = [
        vec![MemberChange::Learner(NodeId(2))],
        vec![MemberChange::Voter(NodeId(2))],
        vec![
            MemberChange::Learner(NodeId(3)),
            MemberChange::Remove(NodeId(1)),
        ],
        vec![],
    ];
    let mut met = Vec::new();
    for (index, changes) in (10..).zip(steps) {
        let entry = Entry {
            term: Term(2),
            index: Index(index),
            header: EntryHeader::empty(EntryKind::Membership, onelog_record::Offset(5)),
            body: members::encode_changes(&changes).into(),
        };
        met.push(raft.change_members(&entry).unwrap());
    }
    // then it is a learner still, beside those that they leave.
    assert!(
        met.iter()
            .all(|members| members.learners.contains(&OUTSIDE))
    );
    let left = met.pop().unwrap();
    assert_eq!(left.voters, [NodeId(2)].into());
    assert_eq!(left.learners, [NodeId(3), OUTSIDE].into());
}

#[test]
fn a_node_that_is_no_member_makes_messages_only_of_what_goes_on_with_its_log() {
    // Given such a node, and entries of its source,
    let mut raft = outsider();
    let entries = |indexes: std::ops::RangeInclusive<u64>, term| -> Vec<Entry> {
        let entry = |index| Entry {
            term: Term(term),
            index: Index(index),
            header: EntryHeader::empty(EntryKind::NoOp, onelog_record::Offset(0)),
            body: Bytes::new(),
        };
        indexes.map(entry).collect()
    };
    let message = |raft: &Raft, entries: &[Entry]| {
        let made = raft.message_of_committed(NodeId(1), entries);
        made.unwrap()
    };
    // then those behind a gap make none, and the first ones that of a leader which has them;
    assert_eq!(message(&raft, &entries(2..=2, 1)), None);
    assert_eq!(message(&raft, &[]), None);
    let first = message(&raft, &entries(1..=2, 1));
    assert_eq!(first, Some(append((Index(0), Term(0)), Term(1), 2)));
    raft.step(first.unwrap()).unwrap();
    all(&mut raft);
    raft.stored(Index(2));
    all(&mut raft);
    // nor do those that it has, or that would replace some of them.
    assert_eq!(message(&raft, &entries(1..=2, 1)), None);
    assert_eq!(message(&raft, &entries(2..=3, 1)), None);
    // When it has saved a term of which it has lost the entries,
    let heartbeat = eraftpb::Message {
        msg_type: MessageType::MsgHeartbeat,
        from: 1,
        to: OUTSIDE.get(),
        term: 7,
        ..eraftpb::Message::default()
    };
    raft.step(Message(heartbeat)).unwrap();
    assert_eq!(all(&mut raft).vote, Some((Term(7), 0)));
    // then it takes entries of an older one all the same,
    let third = message(&raft, &entries(3..=3, 4)).unwrap();
    raft.step(third).unwrap();
    assert_eq!(all(&mut raft).entries.len(), 1);
    raft.stored(Index(3));
    assert_eq!(all(&mut raft).committed, entries(3..=3, 4));
    // and a state.
    let mut members = Members::of([NodeId(1)]);
    members.learners.insert(OUTSIDE);
    let mark = SnapshotMark {
        index: Index(9),
        term: Term(5),
        end: Position(0),
        members,
    };
    let announced = raft.message_of_state(NodeId(1), &mark);
    raft.step(announced).unwrap();
    assert_eq!(raft.poll().unwrap().unwrap().install, Some(mark));
}
