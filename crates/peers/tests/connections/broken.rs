//! Connections that are cut, damaged, silent or full of what does not belong there.

use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use onelog_peers::Lane;
use onelog_peers::frame::{Frame, FrameKind};
use onelog_peers::limits::BULK_BYTES_MAX;
use onelog_record::NodeId;
use onelog_testkit::{Direction, Proxy};

use crate::rig::{ECHO, Event, HOLD, LONG, Node, Raw, greeting, options, timing};

const TWO: NodeId = NodeId(2);
const LANE: Lane = Lane::Bulk;

fn message(topic: u16) -> Frame {
    Frame {
        topic,
        body: Bytes::from_static(b"message"),
        ..Frame::bare(FrameKind::Message, 0, 0)
    }
}

/// What a node does with a connection of node 2 whose bytes go wrong: it is closed, counted, and the
/// node serves others.
fn assert_closes(bytes: &[u8]) {
    let one = Node::start(1);
    let mut raw = Raw::greeted(&one, 2, LANE);
    raw.send(&message(1));
    raw.send_bytes(bytes);
    raw.wait_for_end();
    let whole = Event::Message(TWO, 1, Bytes::from_static(b"message"));
    one.recorder.wait_for_event(&whole);
    one.wait_for_figures(|figures| figures.damaged == 1 && figures.incoming.is_empty());
    let mut other = Raw::greeted(&one, 3, LANE);
    other.send(&message(2));
    let event = Event::Message(NodeId(3), 2, Bytes::from_static(b"message"));
    one.recorder.wait_for_event(&event);
    assert_eq!(one.peers.figures().damaged, 1);
}

#[test]
fn a_damaged_frame_closes_its_connection() {
    let mut damaged = message(2).encode();
    *damaged.last_mut().unwrap() ^= 1;
    assert_closes(&damaged);
}

#[test]
fn garbage_closes_its_connection() {
    assert_closes(&[0xa5; 1000]);
    assert_closes(&[0; 1000]);
}

#[test]
fn a_huge_length_closes_its_connection_before_its_bytes_come() {
    for length in [BULK_BYTES_MAX as u32 + 1, u32::MAX] {
        let mut head = message(2).head();
        head[4..8].copy_from_slice(&length.to_le_bytes());
        assert_closes(&head);
    }
}

#[test]
fn a_frame_that_does_not_belong_there_closes_its_connection() {
    for kind in [FrameKind::Greeting, FrameKind::Answer, FrameKind::Failure] {
        assert_closes(&Frame::bare(kind, 1, 1).encode());
    }
}

#[test]
fn a_called_node_that_answers_what_was_not_asked_changes_nothing() {
    let one = Node::start(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    one.set(TWO, listener.local_addr().unwrap());
    let (mut raw, theirs) = Raw::called(&listener, 2);
    raw.send(&Frame::bare(FrameKind::Answer, 1, 77));
    raw.send(&message(1));
    raw.wait_for_end();
    one.wait_for_error(
        TWO,
        theirs.lane,
        "a frame of kind Message does not belong there",
    );
    assert_eq!(
        one.recorder.seen().events.iter().filter(is_message).count(),
        0
    );
}

fn is_message(event: &&Event) -> bool {
    matches!(event, Event::Message(..))
}

#[test]
fn a_large_greeting_is_refused() {
    let one = Node::start(1);
    let mut raw = Raw::connect(one.address());
    raw.send(&Frame {
        body: vec![0; 513].into(),
        ..Frame::bare(FrameKind::Greeting, 0, 0)
    });
    raw.wait_for_end();
    one.wait_for_figures(|figures| figures.damaged == 1);
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let one = Node::start_with({
        let mut options = options(1);
        options.timing.greeting = Duration::from_millis(50);
        options
    });
    let mut silent = Raw::connect(one.address());
    let mut half = Raw::connect(one.address());
    half.send_bytes(&greeting(2, 1, LANE).to_frame().encode()[..30]);
    assert_eq!(silent.next(), None);
    assert_eq!(half.next(), None);
    one.wait_for_figures(|figures| figures.refused == 2);
}

#[test]
fn a_node_that_falls_silent_is_noticed_on_both_sides() {
    let impatient = |node| {
        let mut options = options(node);
        options.timing.silence = Duration::from_millis(300);
        Node::start_with(options)
    };
    // A called node that stops, with a request that it has
    let one = impatient(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    one.set(TWO, listener.local_addr().unwrap());
    let (mut raw, theirs) = Raw::called(&listener, 2);
    one.wait_until(|| one.lane(TWO, theirs.lane).is_connected);
    let asked = one
        .peers
        .request(TWO, theirs.lane, HOLD, Bytes::new(), LONG);
    let error = asked.wait().unwrap_err();
    assert!(
        error.to_string().contains("nothing was heard for"),
        "{error}"
    );
    raw.wait_for_end();
    // A caller that stops
    let mut raw = Raw::greeted(&one, 3, LANE);
    one.wait_for_figures(|figures| figures.incoming.len() == 1);
    raw.wait_for_end();
    one.wait_for_figures(|figures| figures.incoming.is_empty());
}

#[test]
fn a_peer_that_lives_and_reads_nothing_is_given_up() {
    let one = Node::start_with({
        let mut options = options(1);
        options.timing.stall = Duration::from_millis(300);
        options
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    one.set(TWO, listener.local_addr().unwrap());
    let mut lanes = [Raw::called(&listener, 2), Raw::called(&listener, 2)];
    lanes.sort_by_key(|(_, theirs)| theirs.lane);
    let [_control, (mut bulk, _)] = lanes;
    one.wait_connected(TWO);
    let body = Bytes::from(vec![0; 16 << 20]);
    while one.peers.send(TWO, LANE, 1, body.clone()).is_ok() {}
    one.wait_until(|| {
        bulk.send(&Frame::bare(FrameKind::Ping, 0, 1));
        !one.lane(TWO, LANE).is_connected
    });
    one.wait_for_error(TWO, LANE, "the other side has read nothing for");
}

#[test]
fn a_caller_that_does_not_read_its_answers_is_cut_off() {
    let one = Node::start(1);
    let mut raw = Raw::greeted(&one, 2, LANE);
    raw.stream
        .set_write_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let request = Frame {
        topic: crate::rig::LENGTH,
        id: 1,
        body: Bytes::copy_from_slice(&u64::to_le_bytes(30 << 20)),
        ..Frame::bare(FrameKind::Request, 0, 0)
    };
    let bytes = request.encode().repeat(100);
    one.wait_until(|| {
        raw.send_bytes(&bytes);
        let dropped = one.peers.figures().incoming.is_empty();
        dropped && !one.recorder.seen().events.is_empty()
    });
}

#[test]
fn a_connection_that_is_cut_inside_a_frame_delivers_nothing_of_it() {
    // Given two nodes with a proxy between them
    let (one, two) = (Node::start(1), Node::start(2));
    let proxy = Proxy::to(two.address());
    one.set(TWO, proxy.address());
    one.wait_connected(TWO);
    let whole: Bytes = (0..3_000_000_u32).map(|at| at as u8).collect();
    let mut cuts = 0;
    for after in [1, 19, 20, 21, 70_000, 1_500_000, 2_999_999] {
        one.wait_connected(TWO);
        // When it cuts in the middle of what is sent
        proxy.cut_after_bytes(Direction::ToServer, after);
        let asked = one.peers.request(TWO, LANE, ECHO, whole.clone(), LONG);
        cuts += 1;
        proxy.wait_for_cuts(cuts);
        // Then the request fails, or was not sent
        assert!(asked.wait().is_err(), "cut after {after}");
        cuts = proxy.cuts();
        // And they are connected again
        one.wait_until(|| {
            let asked = one.peers.request(TWO, LANE, ECHO, Bytes::new(), LONG);
            asked.wait().is_ok()
        });
    }
    assert_eq!(two.peers.figures().damaged, 0, "a cut is no damage");
    assert!(one.lane(TWO, LANE).lost >= 7);
}

#[test]
fn an_answer_that_is_lost_is_one_that_may_be_done() {
    let (one, two) = (Node::start(1), Node::start(2));
    let proxy = Proxy::to(two.address());
    one.set(TWO, proxy.address());
    one.wait_connected(TWO);
    proxy.cut_answer_after(b"unmistakable");
    let body = Bytes::from_static(b"unmistakable");
    let error = one.peers.request(TWO, LANE, ECHO, body, LONG).wait();
    assert!(error.unwrap_err().may_be_done());
}

#[test]
fn timings_of_these_tests_differ_from_the_defaults_in_lengths_alone() {
    let defaults = onelog_peers::Timing::default();
    assert!(timing().pause_longest < defaults.pause_longest);
    assert!(defaults.ping * 3 < defaults.silence, "a ping may come late");
    assert!(defaults.silence <= Duration::from_secs(5));
}
