//! A leader that does not know that the others have another one. The planted bugs need this story too.

use bytes::Bytes;
use onelog_record::{CommitRequest, Guard, NodeId, PointRead, Predicate, TxnId};
use onelog_replica::Answer;
use onelog_simulation::cluster::{TABLE, World, node};

/// Of the requests to the deposed leader.
pub const TICKETS: [u32; 2] = [100, 101];

/// A deposed leader is to say that a key was not written since, and that it is not there; what it says
/// while it hears of nothing.
pub fn requests_to_a_deposed_leader() -> (World, Vec<(NodeId, Answer<u32>)>) {
    // Given a leader that does not know that the others have another one, which has made a key,
    let mut world = World::of(3, 17);
    world.isolate(node(1));
    for _ in 0..40 {
        for id in [node(2), node(3)] {
            world.get(id).tick();
        }
        world.settle();
    }
    let mut new = [node(2), node(3)].into_iter();
    let new = new.rfind(|id| world.nodes[id].admits());
    let new = new.expect("one leads");
    world.put(new, 1);
    world.settle();
    assert!(world.is_acknowledged(1) && world.nodes[&node(1)].admits());
    // when the old one is requested to say what it cannot know.
    let table = world.table(node(1), TABLE).unwrap();
    let key = Bytes::from("k1");
    let is_unchanged = CommitRequest {
        read_position: Some(world.nodes[&node(1)].replica().applied().position),
        point_reads: vec![PointRead {
            table,
            key: key.clone(),
        }],
        ..CommitRequest::default()
    };
    let must_exist = CommitRequest {
        guards: vec![Guard {
            table,
            key,
            predicate: Predicate::Exists,
        }],
        ..CommitRequest::default()
    };
    world.heard.clear();
    for (ticket, request) in TICKETS.into_iter().zip([is_unchanged, must_exist]) {
        let id = TxnId(u128::from(ticket));
        world.get(node(1)).submit(ticket, id, request);
    }
    world.settle();
    let said = std::mem::take(&mut world.heard);
    (world, said)
}
