//! What every disk must do, run on the real and on the simulated one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::ErrorKind;
use std::sync::Arc;

use onelog_log::{CrashMode, Disk, Fault, RealDisk, SECTOR_BYTES, SimulatedDisk};

type Conformance = (&'static str, fn(&Arc<dyn Disk>));

const CONFORMANCE: [Conformance; 6] = [
    ("a created file is zeros of its length", |disk| {
        let file = disk.create("a", 5_000).unwrap();
        assert_eq!(file.len().unwrap(), 5_000);
        let mut bytes = vec![1; 6_000];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), 5_000);
        assert!(bytes[..5_000].iter().all(|b| *b == 0));
    }),
    ("names are kept apart", |disk| {
        assert_eq!(disk.open("a").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(disk.remove("a").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            disk.rename("a", "b").unwrap_err().kind(),
            ErrorKind::NotFound
        );
        disk.create("a", 0).unwrap();
        assert_eq!(
            disk.create("a", 0).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        disk.create("b", 0).unwrap();
        let mut names = disk.list().unwrap();
        names.sort();
        assert_eq!(names, ["a", "b"]);
        disk.remove("b").unwrap();
        disk.sync_folder().unwrap();
        assert_eq!(disk.list().unwrap(), ["a"]);
    }),
    (
        "a write is read back, anywhere and beyond the end",
        |disk| {
            let file = disk.create("a", 1_000).unwrap();
            file.write_all_at(510, b"across a sector").unwrap();
            file.write_all_at(2_000, b"far").unwrap();
            file.sync_data().unwrap();
            let again = disk.open("a").unwrap();
            assert_eq!(again.len().unwrap(), 2_003);
            let mut bytes = [9; 15];
            assert_eq!(again.read_at(510, &mut bytes).unwrap(), 15);
            assert_eq!(&bytes, b"across a sector");
            assert_eq!(again.read_at(1_990, &mut bytes).unwrap(), 13);
            assert_eq!(&bytes[..13], b"\0\0\0\0\0\0\0\0\0\0far");
            assert_eq!(again.read_at(2_003, &mut bytes).unwrap(), 0);
            assert_eq!(again.read_at(9_999, &mut bytes).unwrap(), 0);
        },
    ),
    ("a length is set both ways", |disk| {
        let file = disk.create("a", 100).unwrap();
        file.write_all_at(0, &[7; 100]).unwrap();
        file.set_len(50).unwrap();
        file.set_len(80).unwrap();
        let mut bytes = [9; 100];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), 80);
        assert_eq!(bytes[..50], [7; 50]);
        assert_eq!(bytes[50..80], [0; 30]);
    }),
    ("a rename replaces and handles stay good", |disk| {
        let file = disk.create("a", 3).unwrap();
        disk.create("b", 9).unwrap();
        disk.rename("a", "b").unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        file.write_all_at(0, b"xyz").unwrap();
        let mut bytes = [0; 9];
        assert_eq!(disk.open("b").unwrap().read_at(0, &mut bytes).unwrap(), 3);
        assert_eq!(&bytes[..3], b"xyz");
        disk.remove("b").unwrap();
        file.write_all_at(0, b"uvw").unwrap();
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), 3);
    }),
    ("threads write beside each other", |disk| {
        let file = disk.create("a", 4_096).unwrap();
        std::thread::scope(|scope| {
            for number in 0..4u8 {
                let file = &file;
                scope.spawn(move || {
                    for place in 0..256 {
                        let at = place * 16 + u64::from(number) * 4;
                        file.write_all_at(at, &[number + 1; 4]).unwrap();
                    }
                });
            }
        });
        let mut bytes = vec![0; 4_096];
        file.read_at(0, &mut bytes).unwrap();
        let expected: Vec<u8> = (0..4_096).map(|at| (at / 4 % 4) as u8 + 1).collect();
        assert_eq!(bytes, expected);
    }),
];

#[test]
fn the_real_disk_conforms() {
    for (name, test) in CONFORMANCE {
        println!("{name}");
        let folder = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path().join("deep/er")).unwrap());
        test(&disk);
    }
}

#[test]
fn the_simulated_disk_conforms() {
    for (name, test) in CONFORMANCE {
        println!("{name}");
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new(1));
        test(&disk);
    }
}

/// A file of four sectors of ones, flushed, then overwritten with twos and threes.
fn written(seed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed);
    let file = disk.create("a", 0).unwrap();
    file.write_all_at(0, &[1; 4 * SECTOR_BYTES]).unwrap();
    file.sync_data().unwrap();
    disk.sync_folder().unwrap();
    file.write_all_at(0, &[2; 3 * SECTOR_BYTES]).unwrap();
    file.write_all_at(0, &[3; 2 * SECTOR_BYTES]).unwrap();
    disk
}

/// What each sector holds after a crash.
fn sectors(disk: &SimulatedDisk) -> Vec<u8> {
    let bytes = &disk.files()["a"];
    bytes
        .chunks(SECTOR_BYTES)
        .map(|sector| {
            assert!(sector.iter().all(|b| *b == sector[0]), "sectors are whole");
            sector[0]
        })
        .collect()
}

#[test]
fn a_crash_leaves_what_its_mode_says() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        for mode in CrashMode::ALL {
            let disk = written(seed);
            disk.crash(mode);
            let found = sectors(&disk);
            assert_eq!(found[3], 1, "never written since the flush");
            match mode {
                CrashMode::LoseAll => assert_eq!(found, [1; 4]),
                CrashMode::RandomPart => assert!(found[2] <= 2),
                CrashMode::TearLast => {
                    assert_eq!(found[2], 2);
                    assert!(
                        found[0] >= found[1] && found[1] >= 2,
                        "a first part: {found:?}"
                    );
                }
                CrashMode::Reorder => assert_eq!(found[0], found[1], "whole writes"),
            }
            seen.insert(format!("{mode:?} {found:?}"));
        }
    }
    assert_eq!(
        seen.len(),
        1 + 18 + 3 + 4,
        "everything that can happen does: {seen:?}"
    );
}

#[test]
fn names_come_or_go_unless_the_folder_was_flushed() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed);
        disk.create("kept", 1).unwrap();
        disk.sync_folder().unwrap();
        disk.create("new", 1).unwrap();
        disk.remove("kept").unwrap();
        disk.crash(CrashMode::RandomPart);
        seen.insert(disk.list().unwrap());
    }
    assert_eq!(seen.len(), 4);
}

#[test]
fn what_a_failed_flush_should_have_saved_never_is() {
    let disk = written(1);
    let file = disk.open("a").unwrap();
    disk.fail_at(disk.steps(), Fault::Error);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    disk.crash(CrashMode::LoseAll);
    assert_eq!(sectors(&disk), [1; 4]);
}

#[test]
fn without_power_nothing_works_and_old_handles_stay_dead() {
    let disk = written(1);
    let file = disk.open("a").unwrap();
    disk.fail_at(disk.steps(), Fault::CrashNow);
    disk.list().unwrap_err();
    file.sync_data().unwrap_err();
    disk.crash(CrashMode::LoseAll);
    file.write_all_at(0, &[9]).unwrap_err();
    assert_eq!(sectors(&disk), [1; 4]);
}

#[test]
fn a_full_disk_still_overwrites() {
    let disk = written(1);
    let file = disk.open("a").unwrap();
    disk.fail_at(disk.steps(), Fault::Full);
    file.write_all_at(0, &[9]).unwrap();
    let full = file.write_all_at(5_000, &[9]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(
        disk.create("b", 1_000).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    disk.mend();
    file.write_all_at(5_000, &[9]).unwrap();
}
