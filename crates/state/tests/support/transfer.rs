//! Transfers from one state to another, also with crashes.

use std::sync::Arc;

use onelog_log::{CrashMode, Fault, SimulatedDisk};
use onelog_record::Index;
use onelog_state::{Applied, Export, Import, ImportError, Imported, Installed, State};

use super::crash::{compare_base, compare_digest, options};
use super::{Log, ranges};

/// The chain checksum that a head carries here.
pub const CHECKSUM: u32 = 0x0102_0304;

/// Takes in all that is wanted.
pub fn put_all(import: &mut Import, from: &Export) -> Result<usize, ImportError> {
    let mut chunks = 0;
    while let Some(cursor) = import.wanted() {
        import.put(&from.chunk(&cursor).unwrap())?;
        chunks += 1;
    }
    Ok(chunks)
}

pub fn take_in(from: &State, to: &State) -> Result<Imported, ImportError> {
    let export = from.export().unwrap();
    let mut import = Import::begin(to, export.head(CHECKSUM))?;
    put_all(&mut import, &export)?;
    import.finish()
}

pub fn installed_at(applied: Applied) -> Installed {
    Installed {
        index: applied.index,
        term: applied.term,
        end: applied.position,
        checksum: CHECKSUM,
    }
}

/// What a follower knew when power failed.
#[derive(Debug)]
pub struct Followed {
    pub durable: Index,
    pub is_stopped: bool,
}

/// The last entry that the sender's checkpoint has.
const SENT: usize = 17;

/// A state whose checkpoint has the first entries of the log.
pub fn sender(log: &Log) -> State {
    let (state, _) = State::open(Arc::new(SimulatedDisk::new(9)), options()).unwrap();
    for (at, entry) in log.entries[..SENT].iter().enumerate() {
        state.apply(entry).unwrap();
        if at == 8 {
            state.freeze().unwrap().run().unwrap();
        }
    }
    state.set_members(b"members".to_vec());
    state.freeze().unwrap().run().unwrap();
    state
}

/// Has a checkpoint of its own, takes in and installs the sender's state, and makes another one.
pub fn follow(log: &Log, from: &State, disk: &SimulatedDisk) -> Followed {
    let mut followed = Followed {
        durable: Index::ZERO,
        is_stopped: true,
    };
    let Ok((state, _)) = State::open(Arc::new(disk.clone()), options()) else {
        return followed;
    };
    for entry in &log.entries[..6] {
        state.apply(entry).unwrap();
    }
    if state.freeze().unwrap().run().is_err() {
        return followed;
    }
    followed.durable = state.checkpointed().index;
    state.apply(&log.entries[6]).unwrap();
    let Ok(imported) = take_in(from, &state) else {
        return followed;
    };
    if state.install(imported, &mut None).is_err() {
        assert!(state.freeze().is_none(), "nothing more is written");
        return followed;
    }
    followed.durable = state.checkpointed().index;
    for entry in &log.entries[SENT..20] {
        state.apply(entry).unwrap();
    }
    if state.freeze().unwrap().run().is_err() {
        return followed;
    }
    followed.durable = state.checkpointed().index;
    followed.is_stopped = false;
    followed
}

/// Opens the follower's state and checks that it is the one or the other, whole.
pub fn check_followed(log: &Log, disk: &SimulatedDisk, followed: &Followed) -> Result<(), String> {
    let opened = State::open(Arc::new(disk.clone()), options());
    let (state, opened) = opened.map_err(|error| format!("open: {error}"))?;
    let applied = opened.applied;
    if applied.index < followed.durable || ![0, 6, 17, 20].contains(&applied.index.0) {
        return Err(format!(
            "{:?} was durable, {applied:?} is there",
            followed.durable
        ));
    }
    let installed = (applied.index.0 == 17).then(|| installed_at(applied));
    let members = (applied.index.0 >= 17).then_some(&b"members"[..]);
    if opened.installed != installed || opened.members.as_deref() != members {
        return Err(format!(
            "it says {:?} and {:?}",
            opened.installed, opened.members
        ));
    }
    if disk.files().len() != 1 {
        return Err(format!("it left {:?}", disk.files().keys()));
    }
    compare_base(log, &state, applied.position)?;
    compare_digest(&state)?;
    log.replay(&state);
    log.compare_state(&state, &ranges()[..6])
}

/// Follows with a crash at every `stride`-th step, in every mode; the first finding.
pub fn follow_everywhere(seed: u64, stride: usize) -> Result<u64, String> {
    let log = super::crash::log(seed);
    let from = sender(&log);
    let disk = SimulatedDisk::new(seed);
    let followed = follow(&log, &from, &disk);
    assert!(!followed.is_stopped);
    check_followed(&log, &disk, &followed)?;
    let steps = disk.steps();
    for step in (0..=steps).step_by(stride) {
        for mode in CrashMode::ALL {
            let disk = SimulatedDisk::new(seed.wrapping_add(step));
            disk.fail_at(step, Fault::CrashNow);
            let followed = follow(&log, &from, &disk);
            disk.crash(mode);
            check_followed(&log, &disk, &followed).map_err(|error| {
                format!("seed {seed}, step {step} of {steps}, {mode:?}: {error}")
            })?;
        }
    }
    Ok(steps)
}
