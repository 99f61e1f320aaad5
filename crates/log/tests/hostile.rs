//! Whatever the files hold, opening and checking answer or refuse; they never panic, and what they
//! serve passed every check.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use common::damage::Acknowledged;
use common::open;
use onelog_log::{CheckError, SimulatedDisk, check};
use onelog_record::Index;
use proptest::prelude::*;

fn survives(files: BTreeMap<String, Vec<u8>>) {
    let disk = SimulatedDisk::with_files(1, files);
    match check(&disk, &mut |_| ControlFlow::Continue(())) {
        Ok(_) => {}
        // A number was written over that says which format a file has.
        Err(CheckError::Newer(_)) => assert!(open(&disk).is_err()),
        Err(error) => panic!("{error}"),
    }
    if let Ok((log, _)) = open(&disk) {
        let reader = log.reader();
        let (first, next) = (log.first_index(), log.last_index().next());
        // Anything but a panic will do.
        let _ = reader.entries(first, next, 1 << 20);
        let _ = reader.entries_from(log.start(), next, 1 << 20);
        let _ = reader.position_at_time(1_500);
        let _ = reader.entries(Index(0), Index(u64::MAX), 10);
    }
}

#[derive(Clone, Debug)]
enum Change {
    Overwrite(prop::sample::Index, prop::sample::Index, Vec<u8>),
    Zero(prop::sample::Index, prop::sample::Index, u16),
    Shorten(prop::sample::Index, prop::sample::Index),
    Lengthen(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Copy(
        prop::sample::Index,
        prop::sample::Index,
        prop::sample::Index,
        u16,
    ),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        (index(), index(), bytes()).prop_map(|(a, b, c)| Change::Overwrite(a, b, c)),
        (index(), index(), any::<u16>()).prop_map(|(a, b, c)| Change::Zero(a, b, c)),
        (index(), index()).prop_map(|(a, b)| Change::Shorten(a, b)),
        (index(), bytes()).prop_map(|(a, b)| Change::Lengthen(a, b)),
        index().prop_map(Change::Remove),
        (index(), index()).prop_map(|(a, b)| Change::Swap(a, b)),
        (index(), index(), index(), any::<u16>()).prop_map(|(a, b, c, d)| Change::Copy(a, b, c, d)),
    ]
}

fn apply(files: &mut BTreeMap<String, Vec<u8>>, change: &Change) {
    let names: Vec<String> = files.keys().cloned().collect();
    if names.is_empty() {
        return;
    }
    let overwrite = |bytes: &mut Vec<u8>, at: usize, with: &[u8]| {
        for (place, byte) in with.iter().enumerate() {
            if let Some(old) = bytes.get_mut(at + place) {
                *old = *byte;
            }
        }
    };
    match change {
        Change::Overwrite(name, at, with) => {
            let bytes = files.get_mut(name.get(&names)).unwrap();
            let at = at.index(bytes.len() + 1);
            overwrite(bytes, at, with);
        }
        Change::Zero(name, at, count) => {
            let bytes = files.get_mut(name.get(&names)).unwrap();
            let at = at.index(bytes.len() + 1);
            overwrite(bytes, at, &vec![0; usize::from(*count)]);
        }
        Change::Shorten(name, at) => {
            let bytes = files.get_mut(name.get(&names)).unwrap();
            let at = at.index(bytes.len() + 1);
            bytes.truncate(at);
        }
        Change::Lengthen(name, with) => files.get_mut(name.get(&names)).unwrap().extend(with),
        Change::Remove(name) => {
            files.remove(name.get(&names));
        }
        Change::Swap(a, b) => {
            let (a, b) = (a.get(&names), b.get(&names));
            let bytes = files[a].clone();
            let other = files.insert(b.clone(), bytes).unwrap();
            files.insert(a.clone(), other);
        }
        Change::Copy(name, from, to, count) => {
            let bytes = files.get_mut(name.get(&names)).unwrap();
            let from = from.index(bytes.len() + 1) / 8 * 8;
            let end = (from + usize::from(*count)).min(bytes.len());
            let part = bytes[from.min(end)..end].to_vec();
            let to = to.index(bytes.len() + 1) / 8 * 8;
            overwrite(bytes, to, &part);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(common::size(300, 20_000) as u32))]

    #[test]
    fn a_log_that_was_tampered_with_never_panics(
        is_closed: bool, changes in prop::collection::vec(change(), 1..5),
    ) {
        let mut files = Acknowledged::new(is_closed).files;
        for change in &changes {
            apply(&mut files, change);
        }
        survives(files);
    }

    #[test]
    fn arbitrary_files_never_panic(
        bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9_000), 4),
        keep_hard_state: bool,
    ) {
        let mut files = Acknowledged::new(false).files;
        let names: Vec<String> = files.keys().cloned().collect();
        for (name, bytes) in names.iter().zip(bytes) {
            if !keep_hard_state || name != "hard-state" {
                files.insert(name.clone(), bytes);
            }
        }
        survives(files);
    }
}
