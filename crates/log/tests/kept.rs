//! Of what is cut off the log's end a copy is kept, where it is much.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ops::ControlFlow;

use common::restart::behind;
use common::{LAST, LOG_ID, append, entries, fresh, hard_state, long_log, open, read_all};
use onelog_log::frame::{self, Salt};
use onelog_log::{
    CUT_KEPT_ENTRIES_MIN, CUT_KEPT_FILES_MAX, CutEntries, Fault, HardState, Kept, Place,
    SimulatedDisk, check, is_log_file,
};
use onelog_record::{Entry, Index, Term};

const HEADER_BLOCK_BYTES: usize = 4096;

fn copies(disk: &SimulatedDisk) -> Vec<String> {
    let names = disk.files().into_keys();
    names.filter(|name| name.ends_with(".kept")).collect()
}

/// The file holds just these entries.
#[track_caller]
fn assert_holds(disk: &SimulatedDisk, name: &str, expected: &[Entry]) {
    let bytes = &disk.files()[name];
    assert_eq!(&bytes[..5], b"OLSG\x01", "as a segment begins");
    let mut at = HEADER_BLOCK_BYTES;
    for expected in expected {
        let frame = frame::decode(&bytes[at..], Salt::of(LOG_ID)).unwrap();
        assert_eq!(frame.head.shared.index, expected.index);
        assert_eq!(frame.body, expected.body);
        at += frame.head.frame_len();
    }
    assert_eq!(at, bytes.len());
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
    assert_holds(&disk, name, &all[19..]);
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

/// What begins anew behind `at` loses of a long log that is known to be committed up to `commit`.
#[track_caller]
fn lost(disk: &SimulatedDisk, commit: u64, at: Place) -> Option<CutEntries> {
    let (mut log, all) = long_log(disk);
    let committed = HardState {
        commit: Index(commit),
        ..hard_state(1)
    };
    log.save_hard_state(&committed).unwrap();
    let cut = log.restart_behind(at).unwrap();
    assert_eq!((log.last_index(), log.end()), (at.index, at.end));
    if let Some(CutEntries {
        from,
        kept: Kept::File(name),
        ..
    }) = &cut
    {
        assert_holds(disk, name, &all[from.0 as usize - 1..]);
    }
    assert_eq!(
        copies(disk).len(),
        cut.iter()
            .filter(|cut| matches!(cut.kept, Kept::File(_)))
            .count()
    );
    cut
}

/// A place of a long log itself.
fn place_of(index: u64) -> Place {
    let disk = SimulatedDisk::new(6);
    let (log, _) = long_log(&disk);
    log.reader().place(Index(index)).unwrap().unwrap()
}

#[test]
fn what_a_log_that_begins_anew_has_otherwise_or_beyond_is_copied() {
    let span = |cut: Option<CutEntries>| cut.map(|cut| (cut.from.0, cut.to.0, cut.kept));
    let file = |from: u64| {
        let name = format!("cut-{from:020}-{LAST:020}-{:020}.kept", 1);
        Some((from, LAST, Kept::File(name)))
    };
    // Given another entry at the place: what is not known to be committed may be other as well.
    let lost_at = |commit, at| span(lost(&SimulatedDisk::new(7), commit, at));
    assert_eq!(lost_at(30, behind(50)), file(31));
    assert_eq!(lost_at(0, behind(LAST)), file(1));
    assert_eq!(lost_at(40, behind(40)), file(40));
    assert_eq!(lost_at(50, behind(55)), Some((51, LAST, Kept::Few)));
    // Given the very entry: what lies behind it is lost.
    assert_eq!(lost_at(0, place_of(40)), file(41));
    assert_eq!(lost_at(0, place_of(50)), Some((51, LAST, Kept::Few)));
    assert_eq!(lost_at(0, place_of(LAST)), None);
    // Given a log that ends before, and not in a later term, nothing says that it is another one.
    assert_eq!(lost_at(0, behind(LAST + 1)), None);
    assert_eq!(lost_at(30, behind(LAST + 40)), None);
    let of_an_earlier_term = Place {
        term: Term::ZERO,
        ..behind(LAST + 40)
    };
    assert_eq!(lost_at(30, of_an_earlier_term), file(31));
}

#[test]
fn a_log_that_cannot_be_read_begins_anew_nevertheless() {
    let begun_anew = |commit: u64| {
        // Given a first segment in which nothing can be read,
        let disk = SimulatedDisk::new(8);
        let (mut log, _) = long_log(&disk);
        let committed = HardState {
            commit: Index(commit),
            ..hard_state(1)
        };
        log.save_hard_state(&committed).unwrap();
        let names = disk.files().into_keys();
        let first = names.filter(|name| name.ends_with(".log")).min().unwrap();
        disk.replace(&first, HEADER_BLOCK_BYTES, &[0xff; 8_000]);
        // when the log begins anew behind another entry of it, then it does,
        let cut = log.restart_behind(behind(commit + 1)).unwrap().unwrap();
        assert_eq!((cut.from, cut.to), (Index(commit + 1), Index(LAST)));
        assert_eq!(log.first_index(), Index(commit + 2));
        cut.kept
    };
    // with a copy where that needs no reading of entries, and without one where it does.
    let kept: Vec<_> = (0..8).map(begun_anew).collect();
    assert!(matches!(kept[0], Kept::File(_)), "{kept:?}");
    assert!(kept.contains(&Kept::Unreadable), "{kept:?}");
}

#[test]
fn where_there_is_no_room_for_a_copy_a_log_begins_anew_nevertheless() {
    // Given a disk that becomes full at each step in turn,
    let mut kept = Vec::new();
    for step in 0.. {
        let disk = SimulatedDisk::new(10);
        let (mut log, _) = long_log(&disk);
        disk.fail_at(disk.steps() + step, Fault::Full);
        let restarted = log.restart_behind(behind(LAST));
        if !disk.is_full() {
            break;
        }
        kept.extend(restarted.ok().flatten().map(|cut| cut.kept));
    }
    // then room for the new log alone is enough.
    assert!(kept.contains(&Kept::NoRoom), "{kept:?}");
}
