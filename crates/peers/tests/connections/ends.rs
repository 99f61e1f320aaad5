//! Peers that are removed, re-addressed and replaced; stopping.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use onelog_peers::{AddressError, Handler, Lane, Peers, Reply, SendError};
use onelog_record::NodeId;

use crate::rig::{ECHO, Event, HOLD, LONG, Node, Raw, options};

const TWO: NodeId = NodeId(2);
const LANE: Lane = Lane::Control;

#[test]
fn a_removed_peer_is_disconnected_both_ways() {
    let (one, two) = (Node::start(1), Node::start(2));
    one.connect(&two);
    two.connect(&one);
    let asked = one.peers.request(TWO, LANE, HOLD, Bytes::new(), LONG);
    two.recorder
        .wait_for("request", |seen| (!seen.held.is_empty()).then_some(()));
    one.recorder.seen().refused.push(TWO);
    one.peers.remove(TWO);
    assert!(asked.wait().unwrap_err().may_be_done());
    let sent = one.peers.send(TWO, LANE, 1, Bytes::new());
    assert_eq!(sent, Err(SendError::NotAPeer(TWO)));
    two.wait_for_error(NodeId(1), LANE, "refused: node 2 is no member here");
    assert!(one.peers.figures().peers.is_empty());
    two.wait_for_figures(|figures| figures.incoming.is_empty());
    // And it can be added again
    one.recorder.seen().refused.clear();
    one.connect(&two);
    two.wait_connected(NodeId(1));
}

#[test]
fn a_peer_with_another_address_is_connected_there() {
    let (one, before, after) = (Node::start(1), Node::start(2), Node::start(2));
    one.connect(&before);
    one.set(TWO, before.address());
    assert_eq!(
        one.lane(TWO, LANE).lost,
        0,
        "the same address changes nothing"
    );
    one.set(TWO, after.address());
    after.wait_for_figures(|figures| figures.incoming.len() == 2);
    before.wait_for_figures(|figures| figures.incoming.is_empty());
    // Also while the address leads nowhere
    one.set(TWO, "127.0.0.1:1".parse().unwrap());
    one.wait_for_error(TWO, LANE, "connecting to 127.0.0.1:1");
    one.set(TWO, after.address());
    one.wait_connected(TWO);
}

#[test]
fn a_newer_connection_replaces_the_older_one_of_the_same_lane() {
    let one = Node::start(1);
    let mut older = Raw::greeted(&one, 2, LANE);
    let mut other_lane = Raw::greeted(&one, 2, Lane::Bulk);
    let mut newer = Raw::greeted(&one, 2, LANE);
    older.wait_for_end();
    let frame = |topic| onelog_peers::frame::Frame {
        topic,
        ..onelog_peers::frame::Frame::bare(onelog_peers::frame::FrameKind::Message, 0, 0)
    };
    for (topic, raw) in (1..).zip([&mut newer, &mut other_lane]) {
        raw.send(&frame(topic));
        let event = Event::Message(TWO, topic, Bytes::new());
        one.recorder.wait_for_event(&event);
    }
    one.wait_for_figures(|figures| figures.incoming.len() == 2);
}

#[test]
fn a_peer_that_comes_back_is_connected_again() {
    let (one, two) = (Node::start(1), Node::start(2));
    one.connect(&two);
    let address = two.address();
    drop(two);
    one.wait_for_error(TWO, LANE, "connecting to");
    let two = Node::start_with({
        let mut options = options(2);
        options.listen = address;
        options
    });
    one.wait_connected(TWO);
    let answer = one.peers.request(TWO, LANE, ECHO, Bytes::new(), LONG);
    assert!(answer.wait().is_ok());
    drop(two);
}

#[test]
fn stopping_answers_every_request() {
    let (one, two) = (Node::start(1), Node::start(2));
    one.connect(&two);
    let pending: Vec<_> = (0..100)
        .map(|_| one.peers.request(TWO, LANE, HOLD, Bytes::new(), LONG))
        .collect();
    one.peers.stop();
    for pending in pending {
        pending.wait().unwrap_err();
    }
    let sent = one.peers.send(TWO, LANE, 1, Bytes::new());
    assert_eq!(sent, Err(SendError::Stopped));
    let asked = one.peers.request(TWO, LANE, ECHO, Bytes::new(), LONG);
    assert_eq!(asked.wait(), Err(SendError::Stopped.into()));
    assert_eq!(
        one.peers.set(NodeId(3), "127.0.0.1:1"),
        Err(AddressError::Stopped)
    );
    one.peers.stop();
    two.wait_for_figures(|figures| figures.incoming.is_empty());
    // Answers for a node that is gone go nowhere
    for reply in std::mem::take(&mut two.recorder.seen().held) {
        reply.send(Bytes::new());
    }
}

#[test]
fn stopping_under_load_ends_whatever_the_moment() {
    let two = Node::start(2);
    for round in 0..30 {
        // Given a node that is connecting, or under load already
        let one = Node::start(1);
        one.set(TWO, two.address());
        two.set(NodeId(1), one.address());
        let answered = AtomicUsize::new(0);
        let stops = AtomicBool::new(false);
        thread::scope(|scope| {
            for lane in Lane::ALL {
                let (peers, answered, stops) = (&one.peers, &answered, &stops);
                scope.spawn(move || {
                    let body = Bytes::from(vec![0; 40_000]);
                    let mut pending = Vec::new();
                    while !stops.load(Ordering::Relaxed) {
                        let _ = peers.send(TWO, lane, 9, body.clone());
                        let topic = [ECHO, HOLD][pending.len() % 2];
                        pending.push(peers.request(TWO, lane, topic, body.clone(), LONG));
                        if pending.len() > 200 {
                            answered.fetch_add(100, Ordering::Relaxed);
                            pending.drain(..100).step_by(2).for_each(|pending| {
                                let _ = pending.wait();
                            });
                        }
                    }
                    // Then every request is answered, long before its time
                    for pending in pending {
                        let _ = pending.wait();
                    }
                });
            }
            if round % 3 > 0 {
                two.wait_until(|| answered.load(Ordering::Relaxed) >= 200 * (round % 3));
            }
            // When it stops
            one.peers.stop();
            stops.store(true, Ordering::Relaxed);
        });
        let figures = one.peers.figures();
        assert_eq!((figures.peers.len(), figures.incoming.len()), (0, 0));
        two.recorder.seen().held.clear();
        two.recorder.seen().events.clear();
    }
}

/// Stops the connections from inside of them, and lets the last handle go there.
#[derive(Default)]
struct StopsThem(std::sync::Mutex<Option<Peers>>);

impl Handler for StopsThem {
    fn message(&self, _from: NodeId, _topic: u16, _bytes: Bytes) {
        let peers = self.0.lock().unwrap().take();
        if let Some(peers) = peers {
            peers.stop();
        }
    }

    fn request(&self, _from: NodeId, _topic: u16, _bytes: Bytes, reply: Reply) {
        reply.refuse();
    }
}

#[test]
fn the_connections_can_be_stopped_from_inside_of_them() {
    let one = Node::start(1);
    let handler = Arc::new(StopsThem::default());
    let two = Peers::start(options(2), Arc::<StopsThem>::clone(&handler)).unwrap();
    let address = two.local_address();
    *handler.0.lock().unwrap() = Some(two);
    one.set(TWO, address);
    one.wait_connected(TWO);
    one.peers.send(TWO, LANE, 1, Bytes::new()).unwrap();
    one.wait_for_error(TWO, LANE, "connecting to");
}
