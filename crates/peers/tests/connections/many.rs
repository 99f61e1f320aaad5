//! Many peers at once.

use bytes::Bytes;
use onelog_peers::Lane;
use onelog_record::NodeId;

use crate::rig::{ECHO, LONG, Node, options};

#[test]
fn a_hundred_peers_find_a_node_again_that_was_away() {
    // Given a node to which a hundred others are connected
    let one = Node::start(1);
    let address = one.address();
    let others: Vec<Node> = (2..102).map(Node::start).collect();
    for other in &others {
        other.set(NodeId(1), address);
    }
    one.wait_for_figures(|figures| figures.incoming.len() == 200);
    // When it goes and comes back
    drop(one);
    for other in &others {
        other.wait_for_error(NodeId(1), Lane::Control, "connecting to");
    }
    let one = Node::start_with({
        let mut options = options(1);
        options.listen = address;
        options
    });
    // Then all of them are connected again, and it answers each
    one.wait_for_figures(|figures| figures.incoming.len() == 200);
    for other in &others {
        other.wait_connected(NodeId(1));
        let asked = other
            .peers
            .request(NodeId(1), Lane::Bulk, ECHO, Bytes::new(), LONG);
        assert!(asked.wait().is_ok());
    }
}

#[test]
fn a_node_calls_many_peers() {
    let one = Node::start(1);
    let others: Vec<Node> = (2..30).map(Node::start).collect();
    for other in &others {
        one.set(other.id, other.address());
    }
    for other in &others {
        one.wait_connected(other.id);
    }
    let figures = one.peers.figures();
    assert_eq!(figures.peers.len(), others.len());
    for other in others.iter().step_by(2) {
        one.peers.remove(other.id);
        other.wait_for_figures(|figures| figures.incoming.is_empty());
    }
    assert_eq!(one.peers.figures().peers.len(), others.len() / 2);
}
