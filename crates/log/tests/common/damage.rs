//! A log whose every entry is acknowledged, bit flips in it, and what must then happen.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use onelog_log::frame::{self, Salt};
use onelog_log::{Corruption, OpenError, ReadError, SimulatedDisk, check};
use onelog_record::{Entry, Index};

use super::{LOG_ID, append, entries, fresh, hard_state, open};

pub const HEADER_BLOCK_BYTES: usize = 4096;

/// Where one frame is.
#[derive(Clone, Debug)]
pub struct Place {
    pub file: String,
    pub at: usize,
    pub len: usize,
    pub index: Index,
}

pub struct Acknowledged {
    pub files: BTreeMap<String, Vec<u8>>,
    pub all: Vec<Entry>,
    pub places: Vec<Place>,
}

impl Acknowledged {
    /// Four segments or so; closed in order, or only flushed.
    pub fn new(is_closed: bool) -> Self {
        let disk = SimulatedDisk::new(1);
        let mut log = fresh(&disk);
        let all = entries(1, 1..=90, 100);
        for group in all.chunks(4) {
            append(&mut log, group);
        }
        if is_closed {
            log.close(&hard_state(1)).unwrap();
        } else {
            log.save_hard_state(&hard_state(1)).unwrap();
        }
        let files = disk.files();
        let places = files
            .iter()
            .filter(|(name, _)| name.ends_with(".log"))
            .flat_map(|(name, bytes)| places(name, bytes))
            .collect::<Vec<_>>();
        assert_eq!(places.len(), all.len());
        Self { files, all, places }
    }

    pub fn disk(&self) -> SimulatedDisk {
        SimulatedDisk::with_files(1, self.files.clone())
    }

    /// Flips a bit of a frame; it must be noticed, named, and not served.
    pub fn judge_flip(&self, place: &Place, bit: usize) -> Result<(), String> {
        let disk = self.disk();
        disk.flip(&place.file, (place.at * 8 + bit) as u64);
        let report = check(&disk, &mut |_| ControlFlow::Continue(())).map_err(|e| e.to_string())?;
        let named = |fault: &Corruption| {
            (fault.file.as_str(), fault.at, fault.index)
                == (place.file.as_str(), place.at as u64, place.index)
        };
        if !report.faults.first().is_some_and(named) {
            return Err(format!(
                "the check found {:?}, not {place:?}",
                report.faults
            ));
        }
        let log = match open(&disk) {
            Err(OpenError::Corrupt(fault)) if named(&fault) => return Ok(()),
            Err(error) => return Err(format!("opening says: {error}")),
            Ok((log, _)) => log,
        };
        let before = place.index.0 as usize - 1;
        let reader = log.reader();
        let good = reader.entries(Index(1), place.index, usize::MAX);
        if good.as_deref().ok() != Some(&self.all[..before]) {
            return Err(format!("what lies before is not served: {good:?}"));
        }
        for from in [1, place.index.0] {
            match reader.entries(Index(from), Index(91), usize::MAX) {
                Err(ReadError::Corrupt(fault)) if named(&fault) => {}
                other => return Err(format!("reading from {from} answers {other:?}")),
            }
        }
        Ok(())
    }
}

fn places(name: &str, bytes: &[u8]) -> Vec<Place> {
    let mut found = Vec::new();
    let mut at = HEADER_BLOCK_BYTES;
    while let Ok(frame) = frame::decode(&bytes[at..], Salt::of(LOG_ID)) {
        let len = frame.head.frame_len();
        found.push(Place {
            file: name.to_owned(),
            at,
            len,
            index: frame.head.index,
        });
        at += len;
    }
    found
}
