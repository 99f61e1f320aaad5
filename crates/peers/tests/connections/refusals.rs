//! Who is not connected, and that both sides see why.

use std::net::SocketAddr;

use onelog_peers::frame::{Frame, FrameKind};
use onelog_peers::greeting::Versions;
use onelog_peers::{AddressError, Lane, NO_LOG, Peers, StartError};
use onelog_record::NodeId;

use crate::rig::{Event, Node, Raw, greeting, options};

const LANE: Lane = Lane::Control;

/// The caller hears why, and the called node counts it.
#[track_caller]
fn assert_refused(caller: &Node, wanted: u64, called: &Node, why: &str) {
    caller.set(NodeId(wanted), called.address());
    for lane in Lane::ALL {
        caller.wait_for_error(NodeId(wanted), lane, &format!("refused: {why}"));
    }
    called.wait_for_figures(|figures| figures.refused >= 2);
    assert!(called.peers.figures().incoming.is_empty());
    assert!(!caller.lane(NodeId(wanted), LANE).is_connected);
}

#[test]
fn a_node_of_another_log_is_refused() {
    let ours = Node::start(1);
    let theirs = Node::start_with({
        let mut options = options(2);
        options.log_id = 0xb;
        options
    });
    let why = format!(
        "node 2 has the log {:032x}, this node 1 has {:032x}",
        0xb, 0xa
    );
    assert_refused(&theirs, 1, &ours, &why);
    // Also where a node of its own log has that number, or another one is wanted.
    for (number, wanted) in [(1, 3), (2, 1)] {
        let ours = Node::start(number);
        let why = format!("node 2 has the log {:032x}, this node {number}", 0xb);
        assert_refused(&theirs, wanted, &ours, &why);
    }
}

#[test]
fn an_address_that_leads_to_another_node_is_refused() {
    let (one, two) = (Node::start(1), Node::start(2));
    let why = "the address leads to node 2, wanted is node 3";
    assert_refused(&one, 3, &two, why);
}

#[test]
fn a_node_that_finds_itself_is_refused() {
    let one = Node::start(1);
    one.set(NodeId(2), one.address());
    let why = "the address of a peer leads to node 1 itself";
    one.wait_for_error(NodeId(2), LANE, why);
    assert_eq!(
        one.peers.set(NodeId(1), "127.0.0.1:1"),
        Err(AddressError::Itself(NodeId(1)))
    );
}

#[test]
fn two_nodes_with_one_number_are_refused() {
    let (one, again) = (Node::start(1), Node::start(1));
    assert_refused(&again, 2, &one, "two processes are node 1");
}

#[test]
fn of_two_processes_with_one_number_the_one_that_was_here_first_stays_connected() {
    // Given a process of node 2 that is connected
    let (one, first) = (Node::start(1), Node::start(2));
    first.connect(&one);
    // When another one calls with that number
    let second = Node::start(2);
    second.set(NodeId(1), one.address());
    // Then it hears what to do, and where both are
    let (at, second_at) = (first.address(), second.address());
    let what = format!(
        "refused: two processes are node 2: stop the wrong one, or give it a number of its own; \
         they are at {at} and {second_at}"
    );
    for lane in Lane::ALL {
        second.wait_for_error(NodeId(1), lane, &what);
    }
    // And the first one has not noticed anything, which the called node shows
    for lane in Lane::ALL {
        let lane = first.lane(NodeId(1), lane);
        assert_eq!((lane.is_connected, lane.lost), (true, 0), "{lane:?}");
    }
    let other = Some(second_at.to_string());
    let figures = one.peers.figures();
    assert!(
        figures.incoming.iter().any(|from| from.other == other),
        "{figures:?}"
    );
    // And when the first one ends, the second one is connected.
    drop(first);
    second.wait_connected(NodeId(1));
    one.wait_for_figures(|figures| figures.incoming.iter().all(|from| from.other.is_none()));
}

#[test]
fn two_processes_with_one_number_never_have_one_lane_each() {
    let one = Node::start(1);
    let mut first = Raw::greeted(&one, 2, Lane::Control);
    let mut second = Raw::connect(one.address());
    let mut theirs = greeting(2, 1, Lane::Bulk);
    theirs.process += 1;
    second.send(&theirs.to_frame());
    let refusal = second.next().expect("a refusal");
    assert_eq!((refusal.kind, refusal.topic), (FrameKind::Refusal, 5));
    drop(second);
    first.send(&Frame::bare(FrameKind::Message, 9, 0));
    let event = Event::Message(NodeId(2), 9, Default::default());
    one.recorder.wait_for_event(&event);
}

#[test]
fn a_process_that_is_gone_without_a_word_keeps_its_successor_out_only_until_that_shows() {
    let one = Node::start_with({
        let mut options = options(1);
        options.timing.silence = 3 * options.timing.ping;
        options
    });
    let _silent = Raw::greeted(&one, 2, LANE);
    let successor = Node::start(2);
    successor.connect(&one);
}

#[test]
fn a_node_that_is_not_admitted_is_refused_until_it_is() {
    let (one, two) = (Node::start(1), Node::start(2));
    two.recorder.seen().refused.push(NodeId(1));
    assert_refused(&one, 2, &two, "node 1 is no member here");
    two.recorder.seen().refused.clear();
    one.wait_connected(NodeId(2));
}

#[test]
fn a_caller_of_an_incompatible_version_is_refused() {
    let one = Node::start(1);
    for (oldest, newest) in [(2, 9), (0, 0)] {
        let mut raw = Raw::connect(one.address());
        let mut theirs = greeting(2, 1, LANE);
        theirs.versions = Versions { oldest, newest };
        raw.send(&theirs.to_frame());
        let refusal = raw.next().expect("a refusal");
        assert_eq!((refusal.kind, refusal.topic), (FrameKind::Refusal, 3));
        let text = String::from_utf8(refusal.body.to_vec()).unwrap();
        let expected = format!("node 2 speaks the versions {oldest}..={newest}");
        assert!(text.starts_with(&expected), "{text}");
        assert_eq!(raw.next(), None, "the connection is closed");
    }
}

#[test]
fn a_called_node_hears_why_the_caller_does_not_want_it() {
    // Given a node that answers with another number than the one that is wanted
    let one = Node::start(1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    one.set(NodeId(2), listener.local_addr().unwrap());
    // When it is called
    let (mut raw, _) = Raw::called(&listener, 3);
    // Then both know
    let refusal = raw.next().expect("a refusal");
    assert_eq!((refusal.kind, refusal.topic), (FrameKind::Refusal, 2));
    assert_eq!(
        refusal.body,
        "the address leads to node 3, wanted is node 2"
    );
    one.wait_for_error(NodeId(2), LANE, "refused: the address leads to node 3");
}

#[test]
fn a_client_of_another_protocol_is_refused() {
    let one = Node::start(1);
    let mut http = Raw::connect(one.address());
    http.send_bytes(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(http.next(), None);
    let mut other = Raw::connect(one.address());
    other.send(&Frame {
        body: vec![1; 60].into(),
        ..Frame::bare(FrameKind::Greeting, 0, 0)
    });
    let refusal = other.next().expect("a refusal");
    assert_eq!(
        refusal.body,
        "it does not speak the protocol of onelog's peers"
    );
    one.wait_for_figures(|figures| figures.refused == 2 && figures.damaged == 1);
}

#[test]
fn a_node_without_a_log_learns_the_id_from_its_peers() {
    // Given a node that has no log yet, and one that has
    let (one, joiner) = (
        Node::start(1),
        Node::start_with({
            let mut options = options(2);
            options.log_id = NO_LOG;
            options
        }),
    );
    // When they are connected
    joiner.connect(&one);
    one.connect(&joiner);
    // Then it learns the id
    let learned = Event::Connected(NodeId(1), LANE, 0xa);
    joiner.recorder.wait_for_event(&learned);
    let unknown = Event::Connected(NodeId(2), LANE, NO_LOG);
    one.recorder.wait_for_event(&unknown);
    // And with the id, it keeps the connections that it has made
    joiner.peers.set_log_id(0xa);
    assert_eq!(joiner.lane(NodeId(1), LANE).lost, 0);
    // And with another one it is refused from then on
    joiner.peers.set_log_id(0xb);
    joiner.wait_for_error(NodeId(1), LANE, "refused: node 2 has the log");
    one.wait_for_error(NodeId(2), LANE, "refused: node 1 has the log");
}

#[test]
fn without_certificates_only_this_machine_is_reached() {
    let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let started = Peers::start(
        {
            let mut options = options(1);
            options.listen = everywhere;
            options
        },
        Node::start(9).recorder,
    );
    assert!(matches!(started, Err(StartError::PlainText(address)) if address == everywhere));
    let one = Node::start(1);
    one.set(NodeId(2), "192.0.2.1:7071".parse().unwrap());
    one.wait_for_error(NodeId(2), LANE, "192.0.2.1:7071 is on another machine");
}

#[test]
fn what_is_no_address_is_refused_at_once() {
    let one = Node::start(1);
    for address in [
        "",
        "host",
        "host:",
        ":1",
        "host:0",
        "host:70000",
        "a b:1",
        "h\n:1",
    ] {
        let refused = one.peers.set(NodeId(2), address);
        assert_eq!(refused, Err(AddressError::Form(address.to_owned())));
    }
    let long = format!("{}:1", "h".repeat(300));
    assert!(one.peers.set(NodeId(2), &long).is_err());
    assert!(matches!(
        Peers::start(options(0), Node::start(9).recorder),
        Err(StartError::NodeZero)
    ));
}
