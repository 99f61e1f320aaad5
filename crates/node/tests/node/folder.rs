//! What may be in the folder of a node.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use onelog_log::{HardState, Log, LogOptions, RealDisk};
use onelog_record::{Entry, EntryHeader, EntryKind, Index, Offset, Term};
use onelog_testkit::trace_folders;

use super::*;

fn refusal(folder: &Path) -> String {
    Node::open(Options::new(folder)).unwrap_err().to_string()
}

fn names(folder: &Path) -> Vec<String> {
    let items = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = items
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_folder_of_other_files_is_refused_by_their_names_and_nothing_is_changed() {
    let folder = folder();
    fs::write(folder.path().join("thesis.doc"), "years of work").unwrap();
    fs::create_dir(folder.path().join("photos")).unwrap();

    let refused = refusal(folder.path());

    assert!(refused.contains("photos, thesis.doc"), "{refused}");
    assert!(refused.contains("choose an empty"), "{refused}");
    assert_eq!(names(folder.path()), ["photos", "thesis.doc"]);
}

#[test]
fn a_folder_whose_log_is_of_another_program_is_refused() {
    let folder = folder();
    fs::create_dir(folder.path().join("log")).unwrap();
    for n in 0..20 {
        fs::write(folder.path().join(format!("log/day-{n:02}.log")), "GET /").unwrap();
    }

    let refused = refusal(folder.path());

    assert!(refused.contains("log/day-07.log and 12 more"), "{refused}");
    assert_eq!(names(folder.path()), ["log"]);
    assert_eq!(names(&folder.path().join("log")).len(), 20);

    // A file in the place of a folder is not ours either.
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("state"), "running").unwrap();
    let refused = refusal(other.path());
    assert!(refused.contains("other files: state"), "{refused}");
}

#[test]
fn an_empty_folder_and_what_file_systems_put_there_are_fine() {
    let folder = folder();
    for name in ["lost+found", ".snapshot", ".Trash-1000"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::create_dir_all(folder.path().join("log/lost+found")).unwrap();
    Node::open(small(&folder)).unwrap().stop().unwrap();
    Node::open(small(&folder)).unwrap().stop().unwrap();
}

#[test]
fn a_start_that_was_cut_short_is_no_reason_to_refuse() {
    let folder = folder();
    for name in ["log", "state"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("LOCK"), "").unwrap();
    }
    fs::write(folder.path().join("log/hard-state.new"), "").unwrap();
    fs::write(folder.path().join("state/state.redb.new"), "half").unwrap();
    Node::open(small(&folder)).unwrap();
}

#[test]
fn a_log_is_opened_although_a_file_came_into_its_folder_later() {
    let folder = folder();
    let node = Node::open(small(&folder)).unwrap();
    let t = table(&node, "t");
    node.submit(put(t, "k", "1")).wait().unwrap();
    node.stop().unwrap();
    drop(node);
    fs::write(folder.path().join("notes.txt"), "do not delete").unwrap();

    let node = Node::open(small(&folder)).unwrap();

    assert_eq!(value(&node, t, "k").unwrap(), "1");
    assert!(folder.path().join("notes.txt").exists());
}

#[test]
fn a_backup_goes_into_a_new_file_system_but_not_among_other_files() {
    let folder = folder();
    let node = Node::open(Options::new(folder.path().join("data"))).unwrap();
    let into = folder.path().join("disk");
    fs::create_dir_all(into.join("lost+found")).unwrap();
    node.backup(&into).unwrap();
    Node::open(Options::new(&into)).unwrap();

    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.doc"), "").unwrap();
    let refused = node.backup(&other).unwrap_err().to_string();
    assert!(refused.contains("thesis.doc"), "{refused}");
}

#[test]
fn a_folder_of_a_newer_version_says_so() {
    // Given a folder whose hard state is of the next format, with another layout,
    let folder = folder();
    Node::open(small(&folder)).unwrap().stop().unwrap();
    let path = folder.path().join("log/hard-state");
    let mut bytes = fs::read(&path).unwrap();
    for slot in [0, 4096] {
        bytes[slot + 4] = 2;
        bytes[slot + 16..slot + 32].fill(0xee);
    }
    fs::write(&path, &bytes).unwrap();
    // then it is refused by that name, and stays as it is.
    let refused = refusal(folder.path());
    assert!(refused.contains("newer version of onelog"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), bytes);

    // The same for the state alone.
    let folder = tempfile::tempdir().unwrap();
    Node::open(small(&folder)).unwrap().stop().unwrap();
    let path = folder.path().join("state/state.redb");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4] = 4;
    bytes[8..4096].fill(0xee);
    fs::write(&path, &bytes).unwrap();
    let refused = refusal(folder.path());
    assert!(refused.contains("newer version of onelog"), "{refused}");
    assert!(!refused.contains("move the folder"), "{refused}");
}

#[test]
fn a_new_folder_is_there_after_a_power_loss_with_all_that_lead_to_it() {
    let folder = folder();
    let data = folder.path().join("srv/shop/data");

    let (node, trace) = trace_folders(|| Node::open(Options::new(&data)).unwrap());

    let made = [
        "srv",
        "srv/shop",
        "srv/shop/data",
        "srv/shop/data/log",
        "srv/shop/data/state",
    ];
    assert_eq!(trace.made, made.map(|name| folder.path().join(name)).into());
    assert!(trace.at_risk.is_empty(), "{trace:?}");

    let into = folder.path().join("backups/today");
    let (made, trace) = trace_folders(|| node.backup(&into));
    made.unwrap();
    assert_eq!(trace.made.len(), 4, "{trace:?}");
    assert!(trace.at_risk.is_empty(), "{trace:?}");
}

#[test]
fn a_damaged_state_file_says_once_what_to_do() {
    let folder = folder();
    Node::open(Options::new(folder.path()))
        .unwrap()
        .stop()
        .unwrap();
    let file = folder.path().join("state/state.redb");
    let mut bytes = fs::read(&file).unwrap();
    // How the B-tree begins, behind the header page and the first checksum pages.
    bytes[3 * 4096..4 * 4096].fill(0xee);
    for damaged in [&bytes[..], b"too short"] {
        fs::write(&file, damaged).unwrap();
        let refused = refusal(folder.path());
        assert_eq!(refused.matches("start again").count(), 1, "{refused}");
        assert!(
            refused.contains("move the folder 'state' away"),
            "{refused}"
        );
    }
    // And that helps.
    fs::remove_dir_all(folder.path().join("state")).unwrap();
    Node::open(Options::new(folder.path()))
        .unwrap()
        .stop()
        .unwrap();
}

#[test]
fn the_folder_of_a_member_of_a_cluster_is_refused_before_anything_is_written() {
    // Given a log with a first entry and one that makes node 2 a learner,
    let folder = folder();
    let disk = RealDisk::open(folder.path().join("log")).unwrap();
    let (mut log, _) = Log::open(Arc::new(disk), LogOptions::default()).unwrap();
    let hard_state = HardState {
        term: Term(1),
        vote: 1,
        log_id: 7,
        node: 1,
        ..HardState::default()
    };
    log.save_hard_state(&hard_state).unwrap();
    let learner = Bytes::from_static(&[2, 2, 0, 0, 0, 0, 0, 0, 0]);
    let entry = |index, kind, body: Bytes| Entry {
        term: Term(1),
        index: Index(index),
        header: EntryHeader {
            raw_len: body.len() as u32,
            ..EntryHeader::empty(kind, Offset(0))
        },
        body,
    };
    let entries = [
        entry(1, EntryKind::NoOp, Bytes::new()),
        entry(2, EntryKind::Membership, learner),
    ];
    for flush in log.stage(&entries).unwrap() {
        flush.run().unwrap();
        log.flushed(flush.number);
    }
    log.close(&hard_state).unwrap();
    drop(log);
    // when a single node is opened there,
    let refused = refusal(folder.path());
    // then it says why, and has added nothing to the log.
    assert!(refused.contains("node 1 of a cluster"), "{refused}");
    let disk = RealDisk::open(folder.path().join("log")).unwrap();
    let (_, recovery) = Log::open(Arc::new(disk), LogOptions::default()).unwrap();
    assert_eq!(recovery.last_index, Index(2));
}
