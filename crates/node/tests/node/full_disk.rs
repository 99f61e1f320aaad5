//! A node whose disk fills up: the room is what the simulated disk says.

use std::sync::Arc;
use std::time::Instant;

use onelog_log::SimulatedDisk;

use super::*;

/// Nothing takes as long on a node that looks at its disk at all.
const FOR_EVER: Duration = Duration::from_secs(60);

fn becomes(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < FOR_EVER, "{what} never comes");
        std::thread::yield_now();
    }
}

#[test]
fn a_node_is_read_only_below_its_reserve_and_says_so_until_there_is_room() {
    // Given a node on a disk with room,
    let disk = SimulatedDisk::new(1);
    disk.set_free_bytes(1 << 30);
    let state = Arc::new(SimulatedDisk::new(2));
    let options = Options {
        segment_bytes: 1 << 20,
        disk_reserve_bytes: 8 << 20,
        ..Options::new("in memory")
    };
    let node = Node::open_on(Arc::new(disk.clone()), state.clone(), options.clone()).unwrap();
    let t = table(&node, "t");
    let id = node.submit(put(t, "k", "1")).wait().unwrap().id;
    let is_read_only = |node: &Node| node.status().disk.unwrap().read_only;
    assert!(!is_read_only(&node));
    // when other programs fill it,
    disk.set_free_bytes(7 << 20);
    becomes("the refusal", || is_read_only(&node));
    // then writes are refused with the reason, and everything else goes on.
    let refused = node.submit(put(t, "k", "2")).wait().unwrap_err();
    assert_eq!(refused.code(), "disk_full");
    assert!(
        refused.to_string().contains("7340032 bytes are free"),
        "{refused}"
    );
    let refused = node
        .create_table_blocking(NewTable::keyed("u"))
        .unwrap_err();
    assert!(
        refused.to_string().contains("the disk is nearly full"),
        "{refused}"
    );
    assert_eq!(value(&node, t, "k").unwrap(), "1");
    assert!(node.read_log(Position::ZERO, 1 << 20).is_ok());
    let metrics = node.metrics_text();
    assert!(metrics.contains("onelog_read_only 1"), "{metrics}");
    assert!(
        metrics.contains("onelog_disk_free_bytes 7340032"),
        "{metrics}"
    );
    assert_eq!(node.failure(), None);
    // It is so after a restart as well, where a repeated request has its answer,
    node.stop().unwrap();
    drop(node);
    let node = Node::open_on(Arc::new(disk.clone()), state, options).unwrap();
    assert!(is_read_only(&node));
    let repeated = CommitRequest {
        id: Some(id),
        ..put(t, "k", "1")
    };
    assert!(!matches!(
        node.submit(repeated).wait(),
        Err(Refusal::DiskFull { .. })
    ));
    assert_eq!(value(&node, t, "k").unwrap(), "1");
    // and ends by itself.
    disk.set_free_bytes(20 << 20);
    becomes("the end of it", || !is_read_only(&node));
    node.submit(put(t, "k", "3")).wait().unwrap();
    assert_eq!(value(&node, t, "k").unwrap(), "3");
}
