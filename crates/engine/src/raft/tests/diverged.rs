//! A log that is not the one of the others.

use super::*;

/// A leader of three, in term 2, with its own first entry.
fn leader_of_three() -> Raft {
    let mut raft = Raft::new(&RaftOptions {
        members: Members::of([NodeId(1), NodeId(2), NodeId(3)]),
        term: Term(1),
        ..alone()
    })
    .unwrap();
    raft.campaign().unwrap();
    all(&mut raft);
    for msg_type in [
        MessageType::MsgRequestPreVoteResponse,
        MessageType::MsgRequestVoteResponse,
    ] {
        let vote = eraftpb::Message {
            msg_type,
            ..answer_of_two()
        };
        raft.step(Message(vote)).unwrap();
        all(&mut raft);
    }
    assert!(raft.leads());
    raft.stored(Index(1));
    all(&mut raft);
    raft
}

fn answer_of_two() -> eraftpb::Message {
    eraftpb::Message {
        msg_type: MessageType::MsgAppendResponse,
        from: 2,
        to: 1,
        term: 2,
        ..eraftpb::Message::default()
    }
}

#[test]
fn a_leader_stops_when_a_follower_confirms_more_than_its_log_has() {
    for (answer, confirmed) in [
        (
            eraftpb::Message {
                index: 9,
                commit: 9,
                ..answer_of_two()
            },
            Index(9),
        ),
        (
            eraftpb::Message {
                index: 1,
                reject: true,
                reject_hint: 1,
                log_term: 1,
                commit: 5,
                ..answer_of_two()
            },
            Index(5),
        ),
    ] {
        let mut raft = leader_of_three();
        let error = raft.step(Message(answer)).unwrap_err();
        assert!(
            matches!(
                error,
                ConsensusError::FollowerAhead {
                    node: NodeId(2),
                    confirmed: found,
                    last: Index(1),
                } if found == confirmed
            ),
            "{error}"
        );
        assert_eq!(raft.committed(), Index(0), "it is not counted");
    }
}

#[test]
fn what_a_leader_of_an_earlier_term_was_sent_proves_nothing() {
    let mut raft = leader_of_three();
    let late = eraftpb::Message {
        term: 1,
        index: 9,
        ..answer_of_two()
    };
    raft.step(Message(late)).unwrap();
    let heard = eraftpb::Message {
        index: 1,
        ..answer_of_two()
    };
    raft.step(Message(heard)).unwrap();
    all(&mut raft);
    assert_eq!(raft.committed(), Index(1));
}
