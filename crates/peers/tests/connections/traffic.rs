//! Messages and requests between nodes that are connected.

use std::time::Duration;

use bytes::Bytes;
use onelog_peers::frame::{Frame, FrameKind};
use onelog_peers::limits::{CONTROL_BYTES_MAX, REQUESTS_HELD_MAX, REQUESTS_SENT_MAX};
use onelog_peers::{Lane, RequestError, SendError};
use onelog_record::NodeId;

use crate::rig::{DROP, ECHO, Event, HOLD, LENGTH, LONG, Node, REFUSE, Raw};

const TWO: NodeId = NodeId(2);

fn pair() -> (Node, Node) {
    let (one, two) = (Node::start(1), Node::start(2));
    one.connect(&two);
    (one, two)
}

fn large(len: usize) -> Bytes {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[test]
fn messages_of_a_lane_arrive_in_order() {
    let (one, two) = pair();
    let sizes = [
        0,
        1,
        100,
        16 << 10,
        (16 << 10) + 1,
        64 << 10,
        1 << 20,
        3,
        36 << 20,
        7,
    ];
    for (topic, size) in (0..).zip(sizes) {
        one.peers.send(TWO, Lane::Bulk, topic, large(size)).unwrap();
    }
    let messages = two.recorder.wait_for("messages", |seen| {
        let messages: Vec<Event> = seen.events.clone();
        (messages.len() == sizes.len()).then_some(messages)
    });
    for ((topic, size), message) in (0..).zip(sizes).zip(messages) {
        assert!(
            message == Event::Message(NodeId(1), topic, large(size)),
            "{topic}"
        );
    }
    let figures = one.lane(TWO, Lane::Bulk);
    assert_eq!((figures.sent, figures.dropped), (sizes.len() as u64, 0));
    assert!(figures.sent_bytes > 37 << 20);
}

#[test]
fn a_heartbeat_does_not_wait_behind_large_data() {
    // Given a peer that reads nothing of what it is sent in bulk
    let one = Node::start(1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    one.set(TWO, listener.local_addr().unwrap());
    let mut lanes = [Raw::called(&listener, 2), Raw::called(&listener, 2)];
    lanes.sort_by_key(|(_, theirs)| theirs.lane);
    let [(control, _), (bulk, _)] = &mut lanes;
    one.wait_connected(TWO);
    // When so much is sent that no more is taken
    let refused = loop {
        let sent = one.peers.send(TWO, Lane::Bulk, 1, large(8 << 20));
        if let Err(refused) = sent {
            break refused;
        }
    };
    assert_eq!(refused, SendError::Full);
    assert_eq!(
        one.lane(TWO, Lane::Bulk).dropped,
        1,
        "the caller and the figures know"
    );
    // Then what is small arrives all the same
    one.peers
        .send(TWO, Lane::Control, 2, Bytes::from_static(b"beat"))
        .unwrap();
    let beat = loop {
        let frame = control.next().expect("a frame");
        if frame.kind == FrameKind::Message {
            break frame;
        }
    };
    assert_eq!(beat.body, "beat");
    assert!(bulk.next().is_some());
}

#[test]
fn what_is_too_large_for_its_lane_is_refused_at_once() {
    let (one, two) = pair();
    let is = CONTROL_BYTES_MAX + 1;
    let too_large = SendError::TooLarge {
        is,
        max: CONTROL_BYTES_MAX,
    };
    let sent = one.peers.send(TWO, Lane::Control, 1, large(is));
    assert_eq!(sent, Err(too_large));
    let asked = one.peers.request(TWO, Lane::Control, ECHO, large(is), LONG);
    assert_eq!(asked.wait(), Err(too_large.into()));
    // And an answer that is too large for the lane is an error that says so
    let len = Bytes::copy_from_slice(&(is as u64).to_le_bytes());
    let asked = one.peers.request(TWO, Lane::Control, LENGTH, len, LONG);
    let error = asked.wait().unwrap_err();
    assert_eq!(error, RequestError::AnswerDropped);
    assert!(error.may_be_done());
    drop(two);
}

#[test]
fn requests_are_answered_in_any_order() {
    let (one, two) = pair();
    let first = one.peers.request(TWO, Lane::Bulk, HOLD, Bytes::new(), LONG);
    for number in 0..50_u64 {
        let bytes = Bytes::copy_from_slice(&number.to_le_bytes());
        let answer = one
            .peers
            .request(TWO, Lane::Bulk, ECHO, bytes.clone(), LONG);
        assert_eq!(answer.wait(), Ok(bytes));
    }
    let reply = two.recorder.wait_for("request", |seen| seen.held.pop());
    reply.send(Bytes::from_static(b"late"));
    assert_eq!(first.wait(), Ok(Bytes::from_static(b"late")));
    assert_eq!(one.lane(TWO, Lane::Bulk).unanswered, 0);
}

#[test]
fn requests_await_as_well_as_they_block() {
    let (one, _two) = pair();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let answer = runtime.unwrap().block_on(async {
        one.peers
            .request(TWO, Lane::Control, ECHO, Bytes::from_static(b"x"), LONG)
            .await
    });
    assert_eq!(answer, Ok(Bytes::from_static(b"x")));
}

#[test]
fn a_request_without_an_answer_says_whether_it_may_be_done() {
    let (one, two) = pair();
    let asked = |topic, within| {
        let pending = one
            .peers
            .request(TWO, Lane::Control, topic, Bytes::new(), within);
        let error = pending.wait().unwrap_err();
        let may_be_done = error.may_be_done();
        (error, may_be_done)
    };
    assert_eq!(asked(REFUSE, LONG), (RequestError::Refused, false));
    assert_eq!(asked(DROP, LONG), (RequestError::Unanswered, true));
    let short = Duration::from_millis(1);
    let (error, _) = asked(HOLD, short);
    assert!(matches!(error, RequestError::TimedOut { .. }));
    let unknown = one
        .peers
        .request(NodeId(9), Lane::Control, ECHO, Bytes::new(), LONG);
    assert_eq!(unknown.wait(), Err(SendError::NotAPeer(NodeId(9)).into()));
    drop(two);
    one.wait_until(|| !one.lane(TWO, Lane::Control).is_connected);
    let sent = one.peers.send(TWO, Lane::Control, 1, Bytes::new());
    assert_eq!(sent, Err(SendError::NotConnected(TWO)));
}

#[test]
fn a_broken_connection_fails_all_of_its_requests_at_once() {
    // Given requests that the other node holds, and one that is still queued behind a full socket
    let one = Node::start(1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    one.set(TWO, listener.local_addr().unwrap());
    let mut lanes = [Raw::called(&listener, 2), Raw::called(&listener, 2)];
    lanes.sort_by_key(|(_, theirs)| theirs.lane);
    let [_control, (mut bulk, _)] = lanes;
    one.wait_connected(TWO);
    let sent: Vec<_> = (0..10)
        .map(|_| one.peers.request(TWO, Lane::Bulk, HOLD, Bytes::new(), LONG))
        .collect();
    let mut requests = 0;
    while requests < 10 {
        let frame = bulk.next().expect("a frame");
        requests += usize::from(frame.kind == FrameKind::Request);
    }
    while one.peers.send(TWO, Lane::Bulk, 1, large(8 << 20)).is_ok() {}
    let queued = one.peers.request(TWO, Lane::Bulk, HOLD, Bytes::new(), LONG);
    // When the connection breaks
    drop(bulk);
    // Then all of them know at once, and whether they may be done
    for pending in sent {
        let error = pending.wait().unwrap_err();
        assert!(
            matches!(error, RequestError::Lost { is_sent: true, .. }),
            "{error:?}"
        );
        assert!(error.may_be_done());
    }
    let error = queued.wait().unwrap_err();
    assert!(!error.may_be_done(), "{error:?}");
    let lost = Event::Lost(TWO, Lane::Bulk);
    one.recorder.wait_for_event(&lost);
    assert!(
        one.lane(TWO, Lane::Bulk).dropped >= 2,
        "queued messages are lost"
    );
}

#[test]
fn only_so_many_requests_wait_for_an_answer() {
    let (one, two) = pair();
    let pending: Vec<_> = (0..REQUESTS_SENT_MAX)
        .map(|_| one.peers.request(TWO, Lane::Bulk, HOLD, Bytes::new(), LONG))
        .collect();
    let one_more = one.peers.request(TWO, Lane::Bulk, ECHO, Bytes::new(), LONG);
    assert_eq!(one_more.wait(), Err(SendError::Full.into()));
    two.recorder.wait_for("requests", |seen| {
        (seen.held.len() == REQUESTS_SENT_MAX).then_some(())
    });
    let held = std::mem::take(&mut two.recorder.seen().held);
    for reply in held {
        reply.send(Bytes::new());
    }
    for pending in pending {
        assert_eq!(pending.wait(), Ok(Bytes::new()));
    }
}

#[test]
fn a_node_that_sends_more_requests_than_may_be_held_hears_that_it_is_busy() {
    // Given a peer that does not count its requests
    let one = Node::start(1);
    let mut raw = Raw::greeted(&one, 2, Lane::Bulk);
    let request = |id| Frame {
        id,
        ..Frame::bare(FrameKind::Request, HOLD, 0)
    };
    let last = REQUESTS_HELD_MAX as u64 + 1;
    for id in 1..=last {
        raw.send(&request(id));
    }
    let busy = loop {
        let frame = raw.next().expect("a frame");
        if frame.kind == FrameKind::Failure {
            break frame;
        }
    };
    assert_eq!((busy.topic, busy.id), (1, last));
    // When one of them is answered, there is room again
    let reply = one.recorder.seen().held.pop().unwrap();
    reply.send(Bytes::new());
    raw.send(&Frame {
        topic: ECHO,
        ..request(last + 1)
    });
    let answer = loop {
        let frame = raw.next().expect("a frame");
        if frame.id == last + 1 && frame.kind != FrameKind::Ping {
            break frame;
        }
    };
    assert_eq!(answer.kind, FrameKind::Answer);
}

#[test]
fn pings_measure_the_round_trip() {
    let (one, two) = pair();
    let figures = |lane| one.lane(TWO, lane);
    for lane in Lane::ALL {
        one.wait_until(|| figures(lane).round_trip_us.is_some());
        assert!(figures(lane).connected_since_ms.is_some());
        assert!(figures(lane).received_bytes > 0);
    }
    let incoming = two.peers.figures().incoming;
    assert_eq!(incoming.len(), 2);
    assert_eq!(incoming[0].address, one.address().to_string());
}
