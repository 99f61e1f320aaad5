//! Damage is distinguished from a torn tail: what was acknowledged is named and never served, what was not
//! is cut loudly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::damage::{Acknowledged, HEADER_BLOCK_BYTES};
use common::{LOG_ID, append, entries, entry, fresh, hard_state, open, read_all, size};
use onelog_log::frame::{self, FRAME_HEADER_BYTES, Salt};
use onelog_log::{CrashMode, Log, OpenError, SimulatedDisk};
use onelog_record::Index;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[test]
fn every_flipped_bit_of_a_frame_header_is_named_and_not_served() {
    for is_closed in [true, false] {
        let log = Acknowledged::new(is_closed);
        for place in [&log.places[12], log.places.last().unwrap()] {
            for bit in 0..FRAME_HEADER_BYTES * 8 {
                log.judge_flip(place, bit).unwrap();
            }
        }
    }
}

#[test]
fn random_flipped_bits_are_named_and_not_served() {
    let mut random = StdRng::seed_from_u64(7);
    for is_closed in [true, false] {
        let log = Acknowledged::new(is_closed);
        for _ in 0..size(1_000, 10_000) {
            let place = &log.places[random.random_range(0..log.places.len())];
            log.judge_flip(place, random.random_range(0..place.len * 8))
                .unwrap();
        }
    }
}

#[test]
fn a_flipped_bit_of_a_segment_header_is_named() {
    let log = Acknowledged::new(true);
    let names: Vec<&String> = log.files.keys().filter(|n| n.ends_with(".log")).collect();
    for name in names {
        for bit in (0..HEADER_BLOCK_BYTES * 8).step_by(size(97, 1) as usize) {
            let disk = log.disk();
            disk.flip(name, bit as u64);
            let refused = open(&disk).unwrap_err();
            let is_named =
                matches!(&refused, OpenError::Corrupt(c) if c.file == *name && c.at == 0);
            assert!(is_named, "{refused}");
        }
    }
}

/// Two groups in flight; the second reaches the disk, the first does not.
fn with_a_hole() -> (SimulatedDisk, Log) {
    let disk = SimulatedDisk::new(3);
    let mut log = fresh(&disk);
    append(&mut log, &entries(1, 1..=3, 600));
    let first = log.stage(&entries(1, 4..=5, 600)).unwrap();
    let second = log.stage(&entries(1, 6..=8, 600)).unwrap();
    second[0].run().unwrap();
    assert_eq!(log.flushed(second[0].number), Index(3));
    drop(first);
    (disk, log)
}

#[test]
fn a_torn_tail_is_cut_loudly_although_whole_frames_lie_behind_it() {
    let (disk, log) = with_a_hole();
    drop(log);
    disk.crash(CrashMode::LoseAll);
    let (mut log, recovery) = open(&disk).unwrap();
    let cut = recovery.cut.expect("loudly");
    assert_eq!((cut.index, recovery.last_index), (Index(4), Index(3)));
    assert!(cut.file.ends_with("-00000000000000000001.log"));
    assert!(cut.lost_bytes > 3 * 600, "{cut:?}");
    // The very same entries again: the old frames behind them must not count.
    append(&mut log, &entries(1, 4..=5, 600));
    drop(log);
    disk.crash(CrashMode::LoseAll);
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.cut, None);
    assert_eq!(read_all(&log), entries(1, 1..=5, 600));
}

#[test]
fn a_hole_below_the_watermark_of_a_later_frame_is_corruption() {
    let (disk, mut log) = with_a_hole();
    // The later frame was staged when entry 3 was known to be durable: now entry 3 is damaged.
    let later = log.stage(&[entry(1, 9, 10)]).unwrap();
    later[0].run().unwrap();
    drop(log);
    disk.crash(CrashMode::LoseAll);
    let name = "00000000000000000000-00000000000000000001.log";
    let whole = disk.files();
    let bytes = &whole[name];
    let salt = Salt::of(LOG_ID);
    let mut at = HEADER_BLOCK_BYTES;
    for _ in 0..2 {
        at += frame::decode(&bytes[at..], salt).unwrap().head.frame_len();
    }
    disk.flip(name, at as u64 * 8 + 1_000);
    let before = disk.files();
    let OpenError::Corrupt(fault) = open(&disk).unwrap_err() else {
        panic!("not named");
    };
    assert_eq!(
        (fault.file.as_str(), fault.at, fault.index),
        (name, at as u64, Index(3))
    );
    assert_eq!(disk.files(), before, "nothing was cut");
}

#[test]
fn frames_that_a_client_stored_are_no_evidence() {
    for (salt, is_evidence) in [
        (Salt::default(), false),
        (Salt::of(77), false),
        (Salt::of(LOG_ID), true),
    ] {
        let disk = SimulatedDisk::new(3);
        let mut log = fresh(&disk);
        append(&mut log, &entries(1, 1..=3, 100));
        drop(log);
        let mut forged = Vec::new();
        frame::encode(&entry(1, 900, 10), 5, Index(899), salt, &mut forged);
        let mut files = disk.files();
        let name = "00000000000000000000-00000000000000000001.log";
        let bytes = files.get_mut(name).unwrap();
        bytes[8_000..8_000 + forged.len()].copy_from_slice(&forged);
        let disk = SimulatedDisk::with_files(1, files);
        assert_eq!(open(&disk).is_err(), is_evidence);
    }
}

#[test]
fn entries_of_a_process_that_was_killed_are_durable_once_they_are_found() {
    let disk = SimulatedDisk::new(3);
    let mut log = fresh(&disk);
    append(&mut log, &entries(1, 1..=3, 100));
    let name = "00000000000000000000-00000000000000000001.log";
    let staged = log.stage(&entries(1, 4..=6, 100)).unwrap();
    // The write is done, the flush is not.
    disk.fail_at(disk.steps() + 1, onelog_log::Fault::Error);
    staged[0].run().unwrap_err();
    drop(log);
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.last_index, Index(6), "{name} still shows them");
    drop(log);
    disk.crash(CrashMode::LoseAll);
    let (log, _) = open(&disk).unwrap();
    assert_eq!(log.last_index(), Index(6));
}

#[test]
fn a_failed_flush_is_final() {
    let disk = SimulatedDisk::new(3);
    let mut log = fresh(&disk);
    append(&mut log, &entries(1, 1..=3, 100));
    let first = log.stage(&[entry(1, 4, 10)]).unwrap();
    let second = log.stage(&[entry(1, 5, 10)]).unwrap();
    disk.fail_at(disk.steps() + 1, onelog_log::Fault::Error);
    let error = first[0].run().unwrap_err();
    assert!(
        error.to_string().contains("00000000000000000001.log"),
        "{error}"
    );
    first[0].run().expect_err("never tried again");
    second[0].run().expect_err("nor anything behind it");
    assert!(log.stage(&[entry(1, 6, 10)]).is_err());
    assert!(log.save_hard_state(&hard_state(9)).is_err());
    assert_eq!(log.durable(), Index(3));
}
