//! The hard state: what must be flushed before a vote and before any entry of a term.
//!
//! The file `hard-state` has two slots, each in its own block of 4 KiB. A save writes the same
//! state into both, one after the other, each flushed: at any moment one of them is whole.
//!
//! ```text
//! slot [4096]
//!  0 magic u32 "OLHS" | 4 format u8 = 1 | 5 flags u8 (bit 0: clean shutdown) | 6 zero [2]
//!  8 sequence u64 | 16 log_id u128 | 32 node u64
//! 40 term u64 | 48 vote u64 | 56 commit u64 | 64 durable u64
//! 72 first_segment u64 | 80 last_segment u64: numbers of the segments that must be there, 0 = none
//! 88 truncate_from u64: a truncation that must be completed, 0 = none
//! 96 CRC-32C of bytes 0..96 | 100 zeros
//! ```
//! Reading has three outcomes: absent (a new log), present, unreadable. Unreadable is an error,
//! never taken for a new log: a node that forgot its vote could vote twice.

use std::io;
use std::sync::Arc;

use onelog_record::{Index, Term};

use crate::RESTORE_OR_REPLACE;
use crate::disk::{Disk, DiskFile};
use crate::format::{KnownFormat, NewerFormat};
use crate::frame::{long, word};

/// The name of the hard state's file: where it is, a log was begun.
pub const HARD_STATE_FILE: &str = "hard-state";
pub(crate) const HARD_STATE_NEW: &str = "hard-state.new";

const SLOT_BYTES: usize = 4096;
const USED_BYTES: usize = 100;
const CRC_AT: usize = 96;
const MAGIC: u32 = u32::from_le_bytes(*b"OLHS");
const FORMAT: u8 = 1;
const KNOWN: KnownFormat = KnownFormat {
    magic: MAGIC,
    format: FORMAT,
    crc_at: CRC_AT,
};

/// What a node must never forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The highest term that the node has seen.
    pub term: Term,
    /// The node that it voted for in that term; 0 = none.
    pub vote: u64,
    /// The highest index known to be committed.
    pub commit: Index,
    /// The highest index known to be durable here. The log fills it in at every save.
    pub durable: Index,
    /// Whether the log was closed in order and nothing happened since.
    pub clean: bool,
    /// The random id of this log, never zero; fixed by the first save.
    pub log_id: u128,
    pub node: u64,
}

impl HardState {
    /// Reads that of a log which no process has open; `None` where there is no log yet. Changes
    /// nothing.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(disk: &dyn Disk) -> Result<Option<Self>, HardStateError> {
        let file = HardStateFile::read(disk, false)?;
        Ok(file.map(|file| file.stored.public))
    }
}

/// What reading the hard state gave; the third outcome, unreadable, is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HardStateRead {
    /// There is none, and there was none: a new log.
    Empty,
    Present(HardState),
}

/// The hard state cannot be read or saved.
#[derive(Debug, thiserror::Error)]
pub enum HardStateError {
    /// Both slots are damaged.
    #[error(
        "the file {HARD_STATE_FILE} is unreadable (first slot: {first}; second slot: {second}): this node no longer knows its vote, and an older copy of the file would not either; {RESTORE_OR_REPLACE}"
    )]
    Unreadable {
        /// What is wrong with the first slot.
        first: &'static str,
        /// What is wrong with the second slot.
        second: &'static str,
    },
    /// There are segments but no hard state.
    #[error(
        "the file {HARD_STATE_FILE} is missing although there are segments: this node no longer knows its vote, and an older copy of the file would not either; {RESTORE_OR_REPLACE}"
    )]
    Missing,
    /// The folder was written by a newer version of onelog.
    #[error(transparent)]
    Newer(#[from] NewerFormat),
    #[error("the file {HARD_STATE_FILE} could not be read or written: {0}")]
    Io(#[from] io::Error),
}

/// The stored state: the public part and what the log itself must not forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub public: HardState,
    pub first_segment: u64,
    pub last_segment: u64,
    pub truncate_from: Index,
}

#[derive(Debug)]
pub(crate) struct HardStateFile {
    file: Arc<dyn DiskFile>,
    sequence: u64,
    pub stored: Stored,
}

impl HardStateFile {
    /// Reads the file and makes what it read durable; `None` when there is no file. A damaged slot
    /// beside a whole one is mended when `mend` says so.
    pub fn read(disk: &dyn Disk, mend: bool) -> Result<Option<Self>, HardStateError> {
        let file = match disk.open(HARD_STATE_FILE) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        let count = file.read_at(0, &mut bytes)?;
        let block = |place: usize| {
            let from = (place * SLOT_BYTES).min(count);
            &bytes[from..(from + SLOT_BYTES).min(count)]
        };
        // A newer version may have been cut short between the two slots.
        for place in 0..2 {
            KNOWN.check(HARD_STATE_FILE, block(place))?;
        }
        let slot = |place: usize| decode(block(place));
        let (newest, doubtful) = match (slot(0), slot(1)) {
            (Ok(a), Ok(b)) if a.0 == b.0 => (a, None),
            (Ok(a), Ok(b)) if a.0 > b.0 => (a, Some(1)),
            (Ok(_), Ok(b)) => (b, Some(0)),
            (Ok(a), Err(what)) => {
                warn_slot("second", what);
                (a, Some(1))
            }
            (Err(what), Ok(b)) => {
                warn_slot("first", what);
                (b, Some(0))
            }
            (Err(first), Err(second)) => {
                return Err(HardStateError::Unreadable { first, second });
            }
        };
        let (sequence, stored) = newest;
        if mend {
            if let Some(place) = doubtful {
                let at = (place * SLOT_BYTES) as u64;
                file.write_all_at(at, &encode(sequence, &stored))?;
            }
            // What was read may never have been flushed by the process that wrote it.
            file.sync_data()?;
        }
        Ok(Some(Self {
            file,
            sequence,
            stored,
        }))
    }

    /// Makes the file, durably.
    pub fn create(disk: &dyn Disk, stored: Stored) -> io::Result<Self> {
        match disk.remove(HARD_STATE_NEW) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(HARD_STATE_NEW, 2 * SLOT_BYTES as u64)?;
        let slot = encode(1, &stored);
        file.write_all_at(0, &slot)?;
        file.write_all_at(SLOT_BYTES as u64, &slot)?;
        file.sync_data()?;
        disk.rename(HARD_STATE_NEW, HARD_STATE_FILE)?;
        disk.sync_folder()?;
        Ok(Self {
            file,
            sequence: 1,
            stored,
        })
    }

    /// Saves `stored` in both slots, each flushed before the other is touched.
    pub fn save(&mut self, stored: Stored) -> io::Result<()> {
        self.sequence += 1;
        let slot = encode(self.sequence, &stored);
        for place in 0..2 {
            self.file.write_all_at(place * SLOT_BYTES as u64, &slot)?;
            self.file.sync_data()?;
        }
        self.stored = stored;
        Ok(())
    }
}

fn warn_slot(which: &str, what: &str) {
    tracing::warn!("the {which} slot of {HARD_STATE_FILE} is damaged ({what}); the other is whole");
}

fn encode(sequence: u64, stored: &Stored) -> Vec<u8> {
    let mut out = vec![0; SLOT_BYTES];
    let state = &stored.public;
    out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    out[4] = FORMAT;
    out[5] = u8::from(state.clean);
    out[8..16].copy_from_slice(&sequence.to_le_bytes());
    out[16..32].copy_from_slice(&state.log_id.to_le_bytes());
    let numbers = [
        state.node,
        state.term.0,
        state.vote,
        state.commit.0,
        state.durable.0,
        stored.first_segment,
        stored.last_segment,
        stored.truncate_from.0,
    ];
    for (place, number) in numbers.iter().enumerate() {
        let at = 32 + 8 * place;
        out[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    let crc = crc32c::crc32c(&out[..CRC_AT]);
    out[CRC_AT..USED_BYTES].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(slot: &[u8]) -> Result<(u64, Stored), &'static str> {
    if slot.len() < SLOT_BYTES {
        return Err("the file is too short");
    }
    if word(slot, 0) != MAGIC {
        return Err("the magic number is wrong");
    }
    if crc32c::crc32c(&slot[..CRC_AT]) != word(slot, CRC_AT) {
        return Err("the checksum does not match");
    }
    if slot[4] != FORMAT {
        return Err("the format number is wrong");
    }
    let reserved = slot[5] > 1 || slot[6] != 0 || slot[7] != 0;
    if reserved || slot[USED_BYTES..].iter().any(|b| *b != 0) {
        return Err("reserved bytes are not zero");
    }
    let stored = Stored {
        public: HardState {
            clean: slot[5] == 1,
            log_id: u128::from(long(slot, 16)) | u128::from(long(slot, 24)) << 64,
            node: long(slot, 32),
            term: Term(long(slot, 40)),
            vote: long(slot, 48),
            commit: Index(long(slot, 56)),
            durable: Index(long(slot, 64)),
        },
        first_segment: long(slot, 72),
        last_segment: long(slot, 80),
        truncate_from: Index(long(slot, 88)),
    };
    Ok((long(slot, 8), stored))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CrashMode, Fault, SimulatedDisk};

    fn state(term: u64) -> Stored {
        Stored {
            public: HardState {
                term: Term(term),
                vote: 3,
                commit: Index(4),
                durable: Index(5),
                clean: true,
                log_id: 0x0908,
                node: 6,
            },
            first_segment: 7,
            last_segment: 8,
            truncate_from: Index(9),
        }
    }

    fn saved(term: u64) -> SimulatedDisk {
        let disk = SimulatedDisk::new(1);
        let mut file = HardStateFile::create(&disk, state(1)).unwrap();
        file.save(state(term)).unwrap();
        disk
    }

    #[test]
    fn a_slot_has_these_bytes() {
        let found = encode(2, &state(10));
        let mut expected = b"OLHS\x01\x01\0\0".to_vec();
        expected.extend_from_slice(&2u64.to_le_bytes());
        expected.extend_from_slice(&0x0908u128.to_le_bytes());
        for number in [6u64, 10, 3, 4, 5, 7, 8, 9] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(&crc32c::crc32c(&expected.clone()).to_le_bytes());
        expected.resize(4096, 0);
        assert_eq!(found, expected);
        assert_eq!(decode(&found), Ok((2, state(10))));
    }

    #[test]
    fn an_absent_file_is_empty_and_a_destroyed_one_is_not() {
        let disk = SimulatedDisk::new(1);
        assert!(HardStateFile::read(&disk, true).unwrap().is_none());
        let disk = saved(2);
        disk.flip(HARD_STATE_FILE, 100);
        disk.flip(HARD_STATE_FILE, 8 * 4096 + 100);
        assert!(matches!(
            HardStateFile::read(&disk, true),
            Err(HardStateError::Unreadable { .. })
        ));
    }

    #[test]
    fn one_damaged_slot_is_mended_from_the_other() {
        for bit in [0, 300, 8 * 4096, 8 * 4096 + 300] {
            let disk = saved(2);
            let whole = disk.files();
            disk.flip(HARD_STATE_FILE, bit);
            let read = HardStateFile::read(&disk, true).unwrap().unwrap();
            assert_eq!(read.stored, state(2));
            assert_eq!(disk.files(), whole);
        }
    }

    #[test]
    fn a_save_that_is_cut_short_leaves_the_old_or_the_new_state() {
        for mode in CrashMode::ALL {
            for step in 0..4 {
                let disk = saved(2);
                let mut file = HardStateFile::read(&disk, true).unwrap().unwrap();
                disk.fail_at(disk.steps() + step, Fault::CrashNow);
                file.save(state(3)).unwrap_err();
                disk.crash(mode);
                let read = HardStateFile::read(&disk, true).unwrap().unwrap().stored;
                assert!(read == state(2) || read == state(3), "{mode:?} at {step}");
                assert!(step < 3 || read == state(3), "the first slot was flushed");
                disk.crash(CrashMode::LoseAll);
                let again = HardStateFile::read(&disk, true).unwrap().unwrap().stored;
                assert_eq!(again, read, "what was read once is not forgotten");
            }
        }
    }
}
