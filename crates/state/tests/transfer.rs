//! A state is taken over from another node: in chunks, resumed, refused, installed.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;

use onelog_log::{Fault, SimulatedDisk};
use onelog_record::Position;
use onelog_state::{
    CHUNK_BYTES, CheckpointError, ExportError, Head, Import, ImportError, InstallError, STATE_FILE,
    State,
};
use support::crash::compare_base;
use support::transfer::{CHECKSUM, installed_at, put_all, take_in};
use support::{Change, KEYS, Log, checkpoint, key, put, ranges, small};

fn empty() -> (State, SimulatedDisk) {
    let disk = SimulatedDisk::new(3);
    let (state, _) = State::open(Arc::new(disk.clone()), small()).unwrap();
    (state, disk)
}

/// A log of many rows, about `bytes` each, in two tables.
fn rows(rounds: usize, bytes: usize) -> Log {
    let mut log = Log::default();
    for round in 0..rounds {
        let put = |number| Change::Put(1 + number as u32 % 2, key(number + round), bytes);
        log.append(&[(0..KEYS).map(put).collect()]);
        log.append(&[vec![Change::Delete(1, key(round))], put_events(round)]);
    }
    log
}

fn put_events(round: usize) -> Vec<Change> {
    vec![Change::Event(7, key(round))]
}

/// A state with everything of the log in its checkpoint, and some checkpoints before.
fn checkpointed(log: &Log, every: usize) -> State {
    let (state, _) = empty();
    state.set_members(b"members".to_vec());
    for (at, entry) in log.entries.iter().enumerate() {
        state.apply(entry).unwrap();
        if at % every == 0 {
            checkpoint(&state);
        }
    }
    state.freeze().map(|checkpoint| checkpoint.run().unwrap());
    assert_eq!(state.checkpointed(), log.applied());
    state
}

#[test]
fn a_follower_takes_over_a_state_and_goes_on_with_it() {
    // Given a sender, and a follower that has less, in its tree and in memory, with readers,
    let mut log = rows(3, 50);
    let sent = log.applied();
    let from = checkpointed(&log, 2);
    let (to, disk) = empty();
    to.apply(&log.entries[0]).unwrap();
    checkpoint(&to);
    to.apply(&log.entries[1]).unwrap();
    let before = to.snapshot();
    let mut scan = before.scan(&ranges()[0], false).unwrap();
    let first = scan.next().unwrap().unwrap();
    let handle = to.clone();
    // when the sender's state is installed,
    let imported = take_in(&from, &to).unwrap();
    assert_eq!(imported.applied(), sent);
    assert_eq!(to.applied().index.0, 2, "not before it is installed");
    let opened = to.install(imported, &mut None).unwrap();
    // then the follower is where the sender was, on every handle,
    assert_eq!((opened.applied, &opened.ids), (sent, &log.ids));
    assert_eq!(opened.members.as_deref(), Some(&b"members"[..]));
    assert_eq!(opened.installed, Some(installed_at(sent)));
    assert_eq!((handle.applied(), handle.checkpointed()), (sent, sent));
    assert_eq!(
        (handle.position(), handle.floor()),
        (sent.position, sent.position)
    );
    assert_eq!(handle.memory().held_bytes(), 0);
    assert_eq!(to.digest(), from.digest());
    assert_eq!(compare_base(&log, &handle, sent.position), Ok(()));
    // the readers still read what they read,
    assert_eq!(log.compare(&before, &ranges()), Ok(()));
    let rest = scan.map(|row| row.unwrap().key).collect::<Vec<_>>();
    let all = log.rows(&ranges()[0], before.position().0);
    assert!(
        all.iter()
            .map(|row| &row.0)
            .eq([&first.key].into_iter().chain(&rest))
    );
    // and everything goes on: entries, checkpoints, a restart.
    drop(before);
    log.append(&[put(5), put(6)]);
    log.replay(&to);
    assert_eq!(log.compare_state(&handle, &ranges()), Ok(()));
    drop((to, handle));
    let (to, opened) = log.open(Arc::new(disk.clone()), small());
    assert_eq!(opened.installed, Some(installed_at(sent)));
    checkpoint(&to);
    assert_eq!(to.digest().unwrap(), to.scan_digest().unwrap());
    drop(to);
    let (to, opened) = log.open(Arc::new(disk), small());
    assert_eq!((opened.applied, opened.installed), (log.applied(), None));
    assert_eq!(opened.members.as_deref(), Some(&b"members"[..]));
    assert_eq!(log.compare_state(&to, &ranges()), Ok(()));
}

#[test]
fn a_transfer_is_resumed_on_any_node_with_the_same_checkpoint() {
    // Given two nodes whose checkpoints came about differently, and more ids than a chunk has,
    let mut log = rows(6, 60_000);
    for _ in 0..40 {
        log.append(&vec![put_events(1); 1_000]);
    }
    let (one, other) = (checkpointed(&log, 3), checkpointed(&log, 1));
    let exports = [one.export().unwrap(), other.export().unwrap()];
    let head = exports[0].head(CHECKSUM);
    assert_eq!(head, exports[1].head(CHECKSUM));
    assert_eq!(head.members.as_deref(), Some(&b"members"[..]));
    assert_eq!(exports[0].members(), head.members.as_ref());
    assert_eq!(Head::decode(&head.encode()), Ok(head.clone()));
    assert_eq!(
        (exports[0].applied(), head.ids),
        (log.applied(), log.ids.len() as u64)
    );
    // when the sender has later checkpoints, and each chunk comes from the other node,
    let mut later = rows(6, 60_000);
    std::mem::swap(&mut later, &mut log);
    later.append(&[(0..KEYS)
        .map(|number| Change::Delete(1, key(number)))
        .collect()]);
    later.replay(&one);
    checkpoint(&one);
    let (to, _) = empty();
    let mut import = Import::begin(&to, head).unwrap();
    let mut chunks = 0;
    while let Some(cursor) = import.wanted() {
        let chunk = exports[chunks % 2].chunk(&cursor).unwrap();
        assert!(chunk.len() <= CHUNK_BYTES);
        import.put(&chunk).unwrap();
        chunks += 1;
    }
    // then the follower has the checkpoint that was pinned.
    assert!(chunks > 4, "{chunks}");
    to.install(import.finish().unwrap(), &mut None).unwrap();
    assert_eq!(to.digest(), other.digest());
    assert_eq!(
        compare_base(&later, &to, exports[0].applied().position),
        Ok(())
    );
    later.replay(&to);
    assert_eq!(later.compare_state(&to, &ranges()), Ok(()));
}

#[test]
fn a_row_that_is_larger_than_a_chunk_is_a_chunk_of_its_own() {
    let mut log = Log::default();
    log.append(&[(0..3)
        .map(|n| Change::Put(1, key(20 + n), CHUNK_BYTES - 9))
        .collect()]);
    let from = checkpointed(&log, 1);
    let (to, _) = empty();
    let export = from.export().unwrap();
    let mut import = Import::begin(&to, export.head(CHECKSUM)).unwrap();
    assert_eq!(put_all(&mut import, &export).unwrap(), 4);
    assert_eq!(import.taken(), (3, 1));
    to.install(import.finish().unwrap(), &mut None).unwrap();
    assert_eq!(log.compare_state(&to, &ranges()), Ok(()));
}

#[test]
fn a_state_without_rows_is_taken_over_too() {
    let mut log = Log::default();
    log.no_op();
    let from = checkpointed(&log, 9);
    let (to, _) = empty();
    let export = from.export().unwrap();
    let import = Import::begin(&to, export.head(CHECKSUM)).unwrap();
    assert_eq!(import.wanted(), None);
    to.install(import.finish().unwrap(), &mut None).unwrap();
    assert_eq!(to.applied(), log.applied());
    assert!(matches!(
        export.chunk(&[1]),
        Err(ExportError::NothingBehind)
    ));
}

#[test]
fn a_chunk_that_is_not_the_wanted_one_changes_nothing() {
    let mut log = rows(4, 40_000);
    let from = checkpointed(&log, 2);
    let export = from.export().unwrap();
    let first = export.chunk(&[1]).unwrap();
    log.append(&[put(1)]);
    log.replay(&from);
    checkpoint(&from);
    let of_later = from.export().unwrap().chunk(&[1]).unwrap();
    let (to, _) = empty();
    let mut import = Import::begin(&to, export.head(CHECKSUM)).unwrap();
    let ids = export
        .chunk(&[&[2][..], &4_u64.to_le_bytes()].concat())
        .unwrap();
    let refuse = |import: &mut Import, chunk: &[u8], what: &str| {
        let error = import.put(chunk).unwrap_err();
        assert!(error.can_be_requested_again(), "{error:?}");
        assert!(error.to_string().contains(what), "{error}");
    };
    let mut damaged = first.clone();
    damaged[500] ^= 1;
    refuse(&mut import, &damaged, "checksum");
    refuse(&mut import, &first[..700], "checksum");
    refuse(&mut import, &[], "begin");
    refuse(&mut import, &of_later, "checkpoint at entry 9");
    refuse(&mut import, &ids, "does not begin");
    import.put(&first).unwrap();
    refuse(&mut import, &first, "does not begin");
    let (rows, _) = import.taken();
    assert!(rows > 0 && rows < import.head().rows);
    put_all(&mut import, &export).unwrap();
    refuse(&mut import, &first, "does not begin");
    to.install(import.finish().unwrap(), &mut None).unwrap();
    assert_eq!(to.digest().unwrap().applied, export.applied());
}

#[test]
fn what_does_not_fit_its_head_is_never_installed() {
    let log = rows(2, 50);
    let from = checkpointed(&log, 2);
    let export = from.export().unwrap();
    let whole = export.head(CHECKSUM);
    let (to, disk) = empty();
    let take = |head: Head| {
        let mut import = Import::begin(&to, head)?;
        put_all(&mut import, &export)?;
        import.finish()
    };
    // Nothing more comes: it is not all here.
    let import = Import::begin(&to, whole.clone()).unwrap();
    let unfinished = import.finish().unwrap_err();
    assert!(matches!(
        unfinished,
        ImportError::Unfinished { rows: 0, .. }
    ));
    // Fewer rows or ids than there are, other contents.
    type Change = fn(&mut Head);
    let changes: [(Change, &str); 6] = [
        (|head| head.rows -= 1, "more rows"),
        (|head| head.ids -= 1, "digest of the ids"),
        (
            |head| head.digest = onelog_state::Digest::default(),
            "digest of the rows",
        ),
        (|head| head.ids_digest ^= 1, "digest of the ids"),
        (
            |head| head.applied.position = Position(9),
            "behind the checkpoint",
        ),
        (
            |head| head.applied.index = onelog_record::Index(1),
            "checkpoint at entry",
        ),
    ];
    for (change, what) in changes {
        let mut head = whole.clone();
        change(&mut head);
        let error = take(head).unwrap_err();
        assert!(
            error.to_string().contains(what),
            "{error} is not about {what}"
        );
        assert_eq!(disk.files().len(), 1, "the new file is gone");
    }
    // The live state is as it was, and a whole transfer works.
    assert_eq!(to.applied().index.0, 0);
    to.install(take(whole).unwrap(), &mut None).unwrap();
    assert_eq!(log.compare_state(&to, &ranges()), Ok(()));
}

#[test]
fn one_transfer_at_a_time_and_none_leaves_anything_behind() {
    let log = rows(2, 50);
    let from = checkpointed(&log, 2);
    let export = from.export().unwrap();
    let (to, disk) = empty();
    let begin = || Import::begin(&to, export.head(CHECKSUM));
    let first = begin().unwrap();
    assert!(matches!(begin(), Err(ImportError::UnderWay)));
    drop(first);
    assert_eq!(disk.files().len(), 1);
    let imported = take_in(&from, &to).unwrap();
    assert!(matches!(begin(), Err(ImportError::UnderWay)));
    drop(imported);
    assert_eq!(disk.files().len(), 1);
    // What a crash leaves is removed by the next start.
    let left = begin().unwrap();
    let mut files = disk.files();
    assert_eq!(files.len(), 2);
    drop(left);
    files.insert("another file".to_owned(), Vec::new());
    let disk = SimulatedDisk::with_files(1, files);
    State::open(Arc::new(disk.clone()), small()).unwrap();
    assert!(
        disk.files()
            .into_keys()
            .eq(["another file".to_owned(), STATE_FILE.to_owned()])
    );
}

#[test]
fn a_state_is_installed_in_its_own_place_and_only_when_it_is_newer() {
    let log = rows(3, 50);
    let from = checkpointed(&log, 2);
    let (to, _) = empty();
    let (elsewhere, _) = empty();
    let imported = take_in(&from, &elsewhere).unwrap();
    let refused = to.install(imported, &mut None).unwrap_err();
    assert!(matches!(refused, InstallError::OtherState));
    // Entries that arrive meanwhile are further than the transfer.
    let imported = take_in(&from, &to).unwrap();
    log.replay(&to);
    let refused = to.install(imported, &mut None).unwrap_err();
    assert!(matches!(refused, InstallError::NotNewer { .. }));
    assert_eq!(log.compare_state(&to, &ranges()), Ok(()));
}

#[test]
fn nothing_is_installed_while_a_checkpoint_runs() {
    let log = rows(3, 50);
    let from = checkpointed(&log, 2);
    let (to, _) = empty();
    to.apply(&log.entries[0]).unwrap();
    let running = to.freeze().unwrap();
    let imported = take_in(&from, &to).unwrap();
    let Err(InstallError::CheckpointRuns { imported }) = to.install(imported, &mut None) else {
        panic!("it was installed");
    };
    running.run().unwrap();
    to.install(*imported, &mut None).unwrap();
    assert_eq!(log.compare_state(&to, &ranges()), Ok(()));
}

#[test]
fn a_checkpoint_that_found_no_room_is_given_up_for_a_newer_state() {
    let log = rows(3, 50_000);
    let from = checkpointed(&log, 2);
    let (to, disk) = empty();
    to.apply(&log.entries[0]).unwrap();
    disk.fail_at(disk.steps(), Fault::Full);
    let mut unfinished = match to.freeze().unwrap().run() {
        Err(CheckpointError::NoSpace { checkpoint, .. }) => Some(*checkpoint),
        other => panic!("{other:?}"),
    };
    // Neither is there room for a transfer: the live state stays, and a reader with it.
    let error = take_in(&from, &to).unwrap_err();
    assert!(error.is_no_space(), "{error:?}");
    disk.mend();
    assert_eq!(disk.files().len(), 1);
    let before = to.snapshot();
    let imported = take_in(&from, &to).unwrap();
    to.install(imported, &mut unfinished).unwrap();
    assert!(unfinished.is_none());
    assert_eq!(log.compare_state(&to, &ranges()), Ok(()));
    assert_eq!(log.compare(&before, &ranges()), Ok(()));
    assert!(to.freeze().is_none(), "nothing was applied since");
}

#[test]
fn a_pinned_checkpoint_is_read_on_after_another_one_found_no_room() {
    let mut log = rows(6, 60_000);
    let (from, disk) = empty();
    log.replay(&from);
    checkpoint(&from);
    let export = from.export().unwrap();
    let (to, _) = empty();
    let mut import = Import::begin(&to, export.head(CHECKSUM)).unwrap();
    import
        .put(&export.chunk(&import.wanted().unwrap()).unwrap())
        .unwrap();
    log.append(&[(0..KEYS).map(|n| Change::Put(1, key(n), 90_000)).collect()]);
    log.replay(&from);
    disk.fail_at(disk.steps(), Fault::Full);
    let next = match from.freeze().unwrap().run() {
        Err(CheckpointError::NoSpace { checkpoint, .. }) => checkpoint,
        other => panic!("{other:?}"),
    };
    disk.mend();
    put_all(&mut import, &export).unwrap();
    to.install(import.finish().unwrap(), &mut None).unwrap();
    assert_eq!(to.digest(), from.digest());
    next.run().unwrap();
}

#[test]
fn a_cursor_of_elsewhere_is_refused() {
    let log = rows(1, 50);
    let export = checkpointed(&log, 1).export().unwrap();
    for cursor in [&b""[..], &[0], &[3, 1], &[1, 2], &[2, 1], &[2; 10]] {
        let refused = export.chunk(cursor).unwrap_err();
        assert!(matches!(refused, ExportError::Malformed(_)), "{cursor:?}");
    }
    let behind = [&[1][..], &[0xff; 40]].concat();
    let too_many = [&[2][..], &99_u64.to_le_bytes()].concat();
    for cursor in [behind, too_many] {
        let refused = export.chunk(&cursor).unwrap_err();
        assert!(matches!(refused, ExportError::NothingBehind), "{cursor:?}");
    }
}

#[test]
fn what_travels_can_be_driven_by_any_thread() {
    const fn can_be_sent<T: Send>() {}
    can_be_sent::<Import>();
    can_be_sent::<onelog_state::Imported>();
    can_be_sent::<onelog_state::Export>();
}
