//! The check that a checkpoint has the members of its own place.

use std::sync::Arc;

use onelog_log::SimulatedDisk;
use onelog_state::State;

use super::{Log, put, small};

/// Sets members while a frozen memtable waits, and looks at what its checkpoint kept.
pub fn later_members_stay_out() -> Result<(), String> {
    let mut log = Log::default();
    let disk = SimulatedDisk::new(1);
    let (state, _) = log.open(Arc::new(disk.clone()), small());
    log.append(&[put(1)]);
    log.replay(&state);
    state.set_members(b"one".to_vec());
    // Given a frozen memtable, when a later entry changes the members before it is written,
    let frozen = state.freeze().unwrap();
    log.append(&[put(2)]);
    log.replay(&state);
    state.set_members(b"two".to_vec());
    frozen.run().unwrap();
    // then the file has those of its own place, and the later ones with the next checkpoint.
    for expected in [&b"one"[..], b"two"] {
        // The file is read as it is now: only one state at a time may have it open.
        let copy = SimulatedDisk::with_files(1, disk.files());
        let (_, opened) = State::open(Arc::new(copy), small()).unwrap();
        if opened.members.as_deref() != Some(expected) {
            return Err(format!(
                "the members at {:?} are {:?}, should be {expected:?}",
                opened.applied, opened.members
            ));
        }
        if let Some(next) = state.freeze() {
            next.run().unwrap();
        }
    }
    Ok(())
}
