//! Copies of a running node.

use super::*;

#[test]
fn a_backup_can_be_made_before_the_first_checkpoint() {
    let folder = folder();
    let node = Node::open(Options::new(folder.path().join("data"))).unwrap();
    let t = table(&node, "t");
    node.submit(put(t, "k", "1")).wait().unwrap();

    let into = folder.path().join("copy");
    let position = node.backup(&into).unwrap();

    assert_eq!(position, node.position());
    let copy = Node::open(Options::new(&into)).unwrap();
    assert_eq!(copy.position(), position);
    assert_eq!(value(&copy, t, "k").unwrap(), "1");
}

#[test]
fn a_backup_into_the_folder_of_the_node_is_refused_before_anything_is_written() {
    // Given a node whose log is on another disk, and other names for its folder,
    let folder = folder();
    let data = folder.path().join("data");
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir_all(&elsewhere).unwrap();
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(&elsewhere, data.join("log")).unwrap();
    std::os::unix::fs::symlink(&data, folder.path().join("link")).unwrap();
    let node = Node::open(Options::new(&data)).unwrap();
    let t = table(&node, "t");
    node.submit(put(t, "k", "1")).wait().unwrap();
    let listed = || {
        let inside = [&data, &data.join("state"), &elsewhere];
        inside.map(|folder| onelog::entries(folder).unwrap())
    };
    let before = listed();

    // when a backup is to go into it or around it, by whatever name, then that is refused
    for (into, how) in [
        ("data", "is the folder"),
        ("data/new", "is inside of"),
        ("data/new/deep", "is inside of"),
        ("data/state/new", "is inside of"),
        ("data/log/new", "is inside of"),
        ("elsewhere/new", "is inside of"),
        ("link/new", "is inside of"),
        ("other/../data/new", "is inside of"),
        (".", "is around"),
    ] {
        let error = node.backup(&folder.path().join(into)).unwrap_err();
        assert!(matches!(error, BackupError::Apart(_)), "{into}: {error}");
        let said = error.to_string();
        assert!(said.contains(how), "{into}: {said}");
        assert!(said.contains("choose a folder elsewhere"), "{into}: {said}");
    }
    // and nothing was written; and one beside it, with a name that begins alike, is made.
    assert_eq!(listed(), before);
    node.backup(&folder.path().join("data-copy")).unwrap();
    node.backup(&folder.path().join("data/../copies/monday"))
        .unwrap();
}

#[test]
fn a_backup_has_everything_below_its_position_and_is_a_log_of_its_own() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let t = table(&node, "t");
    let text = format!("\"{}\"", "x".repeat(1000));
    let mut id = None;
    for n in 0..500 {
        id = Some(
            node.submit(put(t, &format!("k{n}"), &text))
                .wait()
                .unwrap()
                .id,
        );
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let into = elsewhere.path().join("copy");
    let position = node.backup(&into).unwrap();
    assert_eq!(position, node.position());
    assert!(
        node.backup(&into).is_err(),
        "a folder that is not empty is refused"
    );

    let copy = Node::open(Options::new(&into)).unwrap();
    assert_eq!(copy.position(), position);
    assert_ne!(copy.log_id(), node.log_id());
    assert_eq!(value(&copy, t, "k499").unwrap(), text);
    let all = KeyRange {
        table: t,
        from: Bytes::new(),
        to: None,
    };
    assert_eq!(copy.snapshot().scan(&all, false).unwrap().count(), 500);
    let retried = CommitRequest {
        id,
        ..put(t, "other", "1")
    };
    assert!(
        matches!(copy.submit(retried).wait(), Err(Refusal::IdMismatch { .. })),
        "ids are remembered"
    );
}

#[test]
fn a_backup_that_was_not_finished_is_never_taken_for_a_shorter_one() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let t = table(&node, "t");
    let text = format!("\"{}\"", "x".repeat(1000));
    for n in 0..500 {
        node.submit(put(t, &format!("k{n}"), &text)).wait().unwrap();
    }
    // The copy reads what it cannot verify, somewhere in its middle.
    let log = folder.path().join("log");
    let mut segments: Vec<_> = std::fs::read_dir(&log)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    segments.sort();
    assert!(segments.len() > 2, "{segments:?}");
    let middle = &segments[segments.len() - 2];
    let mut bytes = std::fs::read(middle).unwrap();
    let at = bytes.len() / 2;
    bytes[at..at + 64].fill(0xee);
    std::fs::write(middle, bytes).unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    let into = elsewhere.path().join("copy");
    let error = node.backup(&into).unwrap_err();

    assert!(matches!(error, BackupError::Read(_)), "{error}");
    // What was written takes no room any more,
    let left: Vec<_> = std::fs::read_dir(&into)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let [log] = &left[..] else {
        panic!("{left:?}");
    };
    assert_eq!(std::fs::read_dir(log).unwrap().count(), 0);
    // and what is left is not begun with.
    let refused = Node::open(Options::new(&into)).unwrap_err();
    assert!(refused.to_string().contains("interrupted"), "{refused}");
}
