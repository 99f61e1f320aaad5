//! What a follower lacks: how it is sent, stored, confirmed, applied.

use super::*;

#[test]
fn what_a_follower_lacks_leaves_in_messages_that_it_can_read() {
    // Given a leader with a learner, and more entries behind the change than one message may have,
    let mut raft = leader();
    let learner = NodeId(2);
    raft.propose_members(&[MemberChange::Learner(learner)])
        .unwrap();
    let change = all(&mut raft).entries.pop().unwrap();
    raft.stored(change.index);
    let committed = polled(&mut raft).committed;
    raft.change_members(&committed[0]).unwrap();
    raft.applied(change.index);
    let payload = Entry {
        term: Term(1),
        index: Index(0),
        header: EntryHeader::empty(EntryKind::Transactions, onelog_record::Offset(0)),
        body: Bytes::new(),
    };
    for _ in 0..(1 << 16) + 10 {
        raft.propose(payload.payload()).unwrap();
        all(&mut raft);
        raft.stored(raft.last_appended);
        all(&mut raft);
    }
    let last = raft.last_appended;
    // when the learner has confirmed the change,
    let answer = eraftpb::Message {
        msg_type: MessageType::MsgAppendResponse,
        from: learner.get(),
        to: 1,
        term: 1,
        index: change.index.get(),
        ..eraftpb::Message::default()
    };
    raft.step(Message(answer)).unwrap();
    // then it is sent all of them, in messages that can be read.
    let sent = all(&mut raft).messages;
    let mut next = change.index.next();
    for message in sent {
        let read = Message::decode(message.encode().into()).unwrap();
        for entry in read.0.entries.iter() {
            assert_eq!(entry.index, next.get());
            next = next.next();
        }
    }
    assert_eq!(next, last.next());
}

#[test]
fn a_follower_confirms_what_is_durable_before_it_is_applied_and_applies_it_in_pieces() {
    // Given a node that has been sent ten committed entries,
    let mut raft = outsider();
    let header = EntryHeader::empty(EntryKind::Transactions, onelog_record::Offset(0));
    let mut message = append((Index(0), Term(0)), Term(1), 10);
    for entry in message.0.entries.iter_mut() {
        entry.data = header.encode().to_vec().into();
    }
    raft.step(message).unwrap();
    assert_eq!(polled(&mut raft).entries.len(), 10);
    // when they are durable,
    raft.stored(Index(10));
    let progress = polled(&mut raft);
    // then it says so, and applies none before it is requested,
    let answer = &progress.messages[0].0;
    assert_eq!((answer.index, answer.reject), (10, false));
    assert!(progress.committed.is_empty());
    // and then as many as are requested, one at least.
    let mut applied = Vec::new();
    while raft.commit(0) {
        let committed = polled(&mut raft).committed;
        raft.applied(committed[0].index);
        assert_eq!(raft.has_more_committed(), committed[0].index < Index(10));
        applied.extend(committed.iter().map(|entry| entry.index.get()));
    }
    assert_eq!(applied, (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_follower_does_not_commit_what_a_message_that_it_refused_says() {
    // Given a node with entries of an old term,
    let entry = |index| Entry {
        term: Term(1),
        index: Index(index),
        header: EntryHeader::empty(EntryKind::NoOp, onelog_record::Offset(0)),
        body: Bytes::new(),
    };
    let mut raft = outsider_with((1..=5).map(entry).collect());
    // when a later leader says that others are committed, behind one that this node does not have,
    raft.step(append((Index(5), Term(2)), Term(2), 7)).unwrap();
    // then it commits nothing.
    let progress = polled(&mut raft);
    assert!(progress.messages.iter().any(|message| message.0.reject));
    assert!(!raft.commit(usize::MAX));
}

fn large(index: u64) -> Entry {
    Entry {
        term: Term(1),
        index: Index(index),
        header: EntryHeader::empty(EntryKind::Transactions, onelog_record::Offset(0)),
        body: vec![7; LARGE].into(),
    }
}

#[test]
fn what_a_follower_has_stored_and_cannot_apply_yet_leaves_memory_and_is_read_again() {
    // Given a voter that has stored much more of what is committed than it has applied,
    let node = NodeId(2);
    let mut raft = Raft::new(&RaftOptions {
        node,
        members: Members::of([NodeId(1), node]),
        term: Term(1),
        ..alone()
    })
    .unwrap();
    let last = 100;
    let mut fetches = VecDeque::new();
    for index in 1..=last {
        let before = (Index(index - 1), Term(u64::from(index > 1)));
        let mut message = append(before, Term(1), index);
        message.0.to = node.get();
        message.0.entries = vec![to_raft(&large(index)).unwrap()].into();
        raft.step(message).unwrap();
        polled(&mut raft);
        raft.stored(Index(index));
        while let Some(progress) = raft.poll().unwrap() {
            fetches.extend(progress.fetches);
        }
    }
    let memory = |raft: &Raft| raft.raw.store().bytes_behind(0);
    assert!(memory(&raft) < 40 * LARGE, "{}", memory(&raft));
    assert!(raft.backlog_bytes() >= last as usize * LARGE);
    // when its leader is silent for long, then it does not seek the leadership,
    for _ in 0..3 * ELECTION_TICKS {
        raft.tick().unwrap();
        assert!(polled(&mut raft).messages.is_empty());
    }
    // but applies all of it, in order and once,
    let mut applied = Vec::new();
    while applied.len() < last as usize {
        if let Some(Fetch { id, indexes, .. }) = fetches.pop_front() {
            let until = indexes.end.get().min(indexes.start.get() + 4);
            let entries: Vec<Entry> = (indexes.start.get()..until).map(large).collect();
            raft.fetched(id, &entries).unwrap();
        }
        raft.commit(2 * LARGE);
        while let Some(progress) = raft.poll().unwrap() {
            fetches.extend(progress.fetches);
            applied.extend(progress.committed.iter().map(|entry| entry.index.get()));
            if let Some(last) = progress.committed.last() {
                raft.applied(last.index);
            }
        }
    }
    assert_eq!(applied, (1..=last).collect::<Vec<_>>());
    assert_eq!(raft.backlog_bytes(), 0);
    // and seeks it then.
    for _ in 0..2 * ELECTION_TICKS {
        raft.tick().unwrap();
    }
    assert!(!polled(&mut raft).messages.is_empty());
}

#[test]
fn a_refusal_that_comes_late_does_not_go_back_behind_what_was_confirmed() {
    // Given a follower that has confirmed an entry, and could not be reached afterwards,
    let mut raft = leader();
    let learner = NodeId(2);
    raft.propose_members(&[MemberChange::Learner(learner)])
        .unwrap();
    let change = all(&mut raft).entries.pop().unwrap();
    raft.stored(change.index);
    let committed = polled(&mut raft).committed;
    raft.change_members(&committed[0]).unwrap();
    raft.applied(change.index);
    let answer = |reject| {
        Message(eraftpb::Message {
            msg_type: MessageType::MsgAppendResponse,
            from: learner.get(),
            to: 1,
            term: 1,
            index: change.index.get(),
            reject,
            ..eraftpb::Message::default()
        })
    };
    raft.step(answer(false)).unwrap();
    raft.unreachable(learner);
    assert_eq!(raft.peers()[0].matched, change.index);
    // when it had refused that entry before, and says so only now,
    raft.step(answer(true)).unwrap();
    // then it is sent what comes behind.
    assert_eq!(raft.next_of(learner), Some(change.index.next()));
}

#[test]
fn what_is_committed_at_once_is_applied_in_pieces_of_bounded_size() {
    // Given a leader that has appended much more than one piece may have,
    let mut raft = leader();
    let count = 3 * COMMITTED_BYTES_MAX / LARGE as u64;
    for index in 2..count + 2 {
        raft.propose(large(index).payload()).unwrap();
        polled(&mut raft);
    }
    // when one flush makes all of it durable, and so committed,
    raft.stored(Index(count + 1));
    // then no piece is larger than it may be, and nothing is left out.
    let (mut applied, mut pieces) = (Vec::new(), 0);
    while let Some(progress) = raft.poll().unwrap() {
        let Some(last) = progress.committed.last() else {
            continue;
        };
        let bytes: usize = progress.committed.iter().map(|e| e.body.len()).sum();
        assert!(bytes as u64 <= COMMITTED_BYTES_MAX, "{bytes}");
        raft.applied(last.index);
        applied.extend(progress.committed.iter().map(|entry| entry.index.get()));
        pieces += 1;
    }
    assert_eq!(applied, (2..count + 2).collect::<Vec<_>>());
    assert!(pieces > 3, "{pieces}");
}
