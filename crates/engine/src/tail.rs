//! The entries that Raft may still read: from the first one not known to be committed at start
//! up to the last appended. Everything older lives in the log alone.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

/// Raft's view of the log, in memory. Raft reads it only from the thread that steps it.
#[derive(Debug)]
pub(crate) struct Tail {
    initial: RaftState,
    /// The entry right before the first one kept.
    before: (u64, u64),
    entries: VecDeque<Entry>,
}

impl Tail {
    pub(crate) fn new(hard_state: HardState, voters: Vec<u64>, before: (u64, u64)) -> Self {
        let conf_state = ConfState {
            voters,
            ..ConfState::default()
        };
        Self {
            initial: RaftState::new(hard_state, conf_state),
            before,
            entries: VecDeque::new(),
        }
    }

    pub(crate) fn last(&self) -> u64 {
        self.before.0 + self.entries.len() as u64
    }

    /// Adds entries; those that a new leader replaced are cut first.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.before.0 && first.index <= self.last() + 1,
            "Raft appends behind what is kept and without a gap"
        );
        self.entries
            .truncate((first.index - self.before.0 - 1) as usize);
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets entries up to `applied`: they are committed and nothing here reads them again.
    pub(crate) fn forget(&mut self, applied: u64) {
        while let Some(entry) = self.entries.front() {
            if entry.index > applied {
                break;
            }
            self.before = (entry.index, entry.term);
            self.entries.pop_front();
        }
    }

    fn at(&self, index: u64) -> Option<&Entry> {
        let place = index.checked_sub(self.before.0 + 1)?;
        self.entries.get(place as usize)
    }
}

impl Storage for Tail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.before.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let max_bytes = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0u64;
        let mut found = Vec::new();
        for index in low..high {
            let Some(entry) = self.at(index) else { break };
            bytes = bytes.saturating_add(entry.data.len() as u64);
            if !found.is_empty() && bytes > max_bytes {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        if index < self.before.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.at(index)
            .map(|entry| entry.term)
            .ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
