//! Of what is cut off the log's end a copy is kept, where it is much.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ops::ControlFlow;

use common::{LAST, LOG_ID, append, entries, fresh, long_log, open, read_all};
use onelog_log::frame::{self, Salt};
use onelog_log::{
    CUT_KEPT_ENTRIES_MIN, CUT_KEPT_FILES_MAX, Fault, Kept, SimulatedDisk, check, is_log_file,
};
use onelog_record::{Index, Term};

const HEADER_BLOCK_BYTES: usize = 4096;

fn copies(disk: &SimulatedDisk) -> Vec<String> {
    let names = disk.files().into_keys();
    names.filter(|name| name.ends_with(".kept")).collect()
}

#[test]
fn a_cut_of_many_entries_leaves_their_frames_in_a_file() {
    // Given a log of several segments,
    let disk = SimulatedDisk::new(1);
    let (mut log, all) = long_log(&disk);
    // when many of its entries are cut,
    let cut = log.cut_end(Index(20)).unwrap().unwrap();
    assert_eq!(
        (cut.from, cut.to, cut.count()),
        (Index(20), Index(LAST), 41)
    );
    assert_eq!((cut.first_term, cut.last_term), (Term(1), Term(1)));
    // then a file has all of them,
    let name = "cut-00000000000000000020-00000000000000000060-00000000000000000001.kept";
    assert_eq!(cut.kept, Kept::File(name.to_owned()));
    let bytes = &disk.files()[name];
    assert_eq!(&bytes[..5], b"OLSG\x01", "as a segment begins");
    let mut at = HEADER_BLOCK_BYTES;
    for expected in &all[19..] {
        let frame = frame::decode(&bytes[at..], Salt::of(LOG_ID)).unwrap();
        assert_eq!(frame.head.shared.index, expected.index);
        assert_eq!(frame.body, expected.body);
        at += frame.head.frame_len();
    }
    assert_eq!(at, bytes.len());
    // and it changes nothing for the log, which is opened with it and without it.
    append(&mut log, &entries(2, 20..=30, 100));
    let expected = read_all(&log);
    drop(log);
    let report = check(&disk, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(report.faults, []);
    let (log, _) = open(&disk).unwrap();
    assert_eq!(read_all(&log), expected);
    drop(log);
    assert_eq!(copies(&disk), [name]);
    assert!(is_log_file(name), "it is no foreign file");
    let mut files = disk.files();
    files.remove(name);
    let (log, _) = open(&SimulatedDisk::with_files(1, files)).unwrap();
    assert_eq!(read_all(&log), expected);
}

#[test]
fn terms_are_those_of_the_first_and_the_last_entry_that_is_cut() {
    let disk = SimulatedDisk::new(2);
    let mut log = fresh(&disk);
    append(&mut log, &entries(3, 1..=10, 300));
    append(&mut log, &entries(5, 11..=40, 300));
    for (from, first, last) in [(30, 5, 5), (11, 5, 7), (10, 3, 7), (1, 3, 7)] {
        let cut = log.cut_end(Index(from)).unwrap().unwrap();
        assert_eq!((cut.first_term, cut.last_term), (Term(first), Term(last)));
        append(&mut log, &entries(7, from..=40, 10));
    }
}

#[test]
fn a_few_entries_are_cut_without_a_copy() {
    let disk = SimulatedDisk::new(3);
    let (mut log, _) = long_log(&disk);
    let from = LAST - CUT_KEPT_ENTRIES_MIN + 2;
    let cut = log.cut_end(Index(from)).unwrap().unwrap();
    assert_eq!(cut.kept, Kept::Few);
    let from = from - CUT_KEPT_ENTRIES_MIN;
    let cut = log.cut_end(Index(from)).unwrap().unwrap();
    assert!(matches!(cut.kept, Kept::File(_)), "{}", cut.kept);
    assert_eq!(copies(&disk).len(), 1);
}

#[test]
fn there_are_no_more_copies_than_may_be_and_the_first_ones_stay() {
    let disk = SimulatedDisk::new(4);
    let (mut log, _) = long_log(&disk);
    let mut kept = Vec::new();
    for term in 2..=CUT_KEPT_FILES_MAX as u64 + 2 {
        let cut = log.cut_end(Index(30)).unwrap().unwrap();
        kept.push(cut.kept);
        append(&mut log, &entries(term, 30..=LAST, 20));
    }
    let last = kept.pop().unwrap();
    assert_eq!(last, Kept::TooMany);
    assert!(last.to_string().contains("remove them"), "{last}");
    let names = kept.into_iter().map(|kept| match kept {
        Kept::File(name) => name,
        other => panic!("{other}"),
    });
    assert_eq!(names.collect::<Vec<_>>(), copies(&disk));
}

#[test]
fn where_there_is_no_room_for_a_copy_the_end_is_cut_nevertheless() {
    let disk = SimulatedDisk::new(5);
    let (mut log, all) = long_log(&disk);
    disk.fail_at(disk.steps(), Fault::Full);
    let cut = log.cut_end(Index(20)).unwrap().unwrap();
    assert_eq!(cut.kept, Kept::NoRoom);
    assert_eq!(read_all(&log), all[..19]);
    assert_eq!(copies(&disk), [""; 0]);
}
