//! Files of a newer version are refused by that name, and never called damaged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use common::damage::Acknowledged;
use common::open;
use onelog_log::{SimulatedDisk, check};

const SLOT_BYTES: usize = 4096;
const FORMAT_AT: usize = 4;
/// A byte that the checksums of this version cover.
const COVERED_AT: usize = 40;

/// Makes the block at `at` one of the next format, which has another layout.
fn make_newer(file: &mut [u8], at: usize) {
    file[at + FORMAT_AT] += 1;
    file[at + COVERED_AT] ^= 0xff;
}

fn first_segment(files: &BTreeMap<String, Vec<u8>>) -> String {
    let mut names = files.keys().filter(|name| name.ends_with(".log"));
    names.next().unwrap().clone()
}

/// Opening and checking refuse these files as a newer version's, and change none.
fn is_refused_as_newer(files: BTreeMap<String, Vec<u8>>, file: &str) {
    let disk = SimulatedDisk::with_files(1, files.clone());
    let Err(refused) = open(&disk) else {
        panic!("a log of a newer version is opened");
    };
    let checked = check(&disk, &mut |_| ControlFlow::Continue(())).unwrap_err();
    for text in [refused.to_string(), checked.to_string()] {
        assert!(text.contains("newer version of onelog"), "{text}");
        assert!(text.contains(file) && text.contains("format 2"), "{text}");
        assert!(!text.contains("corrupt"), "{text}");
    }
    assert_eq!(disk.files(), files);
}

#[test]
fn a_hard_state_of_a_newer_version_is_called_newer() {
    for is_closed in [true, false] {
        let mut files = Acknowledged::new(is_closed).files;
        let slots = files.get_mut("hard-state").unwrap();
        make_newer(slots, 0);
        make_newer(slots, SLOT_BYTES);
        is_refused_as_newer(files, "hard-state");
    }
}

#[test]
fn a_hard_state_whose_upgrade_was_cut_short_is_called_newer() {
    // A slot of this version's may be whole, but what the newer version has done since is unknown.
    for place in 0..2 {
        let mut files = Acknowledged::new(true).files;
        let slots = files.get_mut("hard-state").unwrap();
        make_newer(slots, place * SLOT_BYTES);
        is_refused_as_newer(files, "hard-state");
    }
}

#[test]
fn a_damaged_format_number_in_one_slot_is_mended_from_the_other() {
    for place in 0..2 {
        let files = Acknowledged::new(true).files;
        let disk = SimulatedDisk::with_files(1, files);
        disk.flip(
            "hard-state",
            ((place * SLOT_BYTES + FORMAT_AT) * 8 + 1) as u64,
        );
        open(&disk).unwrap();
    }
}

#[test]
fn a_segment_of_a_newer_version_is_called_newer() {
    for is_closed in [true, false] {
        let mut files = Acknowledged::new(is_closed).files;
        let name = first_segment(&files);
        make_newer(files.get_mut(&name).unwrap(), 0);
        is_refused_as_newer(files, &name);
    }
}

#[test]
fn an_index_of_a_newer_version_is_made_anew() {
    let log = Acknowledged::new(true);
    let mut files = log.files.clone();
    let indexes: Vec<String> = files
        .keys()
        .filter(|n| n.ends_with(".index"))
        .cloned()
        .collect();
    assert!(!indexes.is_empty());
    for name in indexes {
        make_newer(files.get_mut(&name).unwrap(), 0);
    }
    let disk = SimulatedDisk::with_files(1, files);
    let (opened, _) = open(&disk).unwrap();
    assert_eq!(common::read_all(&opened), log.all);
}
