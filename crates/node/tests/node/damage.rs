//! Bytes of the state's file that have changed on the disk.

use std::fs;
use std::os::unix::fs::FileExt;

use super::*;

const VALUE: &str = "a value that is nowhere else";

/// Changes one byte wherever a file has these.
fn change(file: &std::path::Path, needle: &[u8]) {
    let bytes = fs::read(file).unwrap();
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    let places: Vec<usize> = (0..bytes.len() - needle.len())
        .filter(|at| bytes[*at..].starts_with(needle))
        .collect();
    assert!(!places.is_empty(), "the row is in the file");
    for at in places {
        file.write_all_at(&[bytes[at] ^ 0x20], at as u64).unwrap();
    }
}

#[test]
fn a_changed_byte_of_the_state_is_never_served_and_stops_the_node() {
    // Given a node that has a row in its state's file, and nothing of that in memory,
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let t = table(&node, "t");
    let filler = "x".repeat(1_000);
    for n in 0..100 {
        node.submit(put(t, &format!("k{n:03}"), &filler))
            .wait()
            .unwrap();
    }
    node.submit(put(t, "z", VALUE)).wait().unwrap();
    node.stop().unwrap();
    drop(node);
    let node = Node::open(Options {
        cache_bytes: 0,
        ..small(&folder)
    })
    .unwrap();
    // when one byte of it changes,
    change(&folder.path().join("state/state.redb"), VALUE.as_bytes());

    // then reading it fails, with the place and what to do,
    let failed = node.snapshot().get(t, b"z").unwrap_err().to_string();
    assert!(
        failed.contains("the state file is damaged: page"),
        "{failed}"
    );
    assert!(failed.contains("state.redb, at byte"), "{failed}");
    assert!(failed.contains("move the folder 'state' away"), "{failed}");
    // as does reading anything else, and a backup,
    let other = node.snapshot().get(t, b"k001").unwrap_err().to_string();
    assert_eq!(other, failed);
    let elsewhere = tempfile::tempdir().unwrap();
    let into = elsewhere.path().join("backup");
    let backup = node.backup(&into).unwrap_err().to_string();
    assert!(backup.ends_with(&failed), "{backup}");
    // and the node stops with that reason.
    let refused = node.submit(put(t, "k", "2")).wait().unwrap_err();
    assert!(matches!(refused, Refusal::Stopped { .. }), "{refused:?}");
    assert_eq!(node.failure().unwrap(), failed);
    drop(node);

    // What it says helps.
    fs::remove_dir_all(folder.path().join("state")).unwrap();
    let node = Node::open(small(&folder)).unwrap();
    assert_eq!(value(&node, t, "z").as_deref(), Some(VALUE));
}
