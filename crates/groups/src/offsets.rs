//! The committed offsets of a group.

use std::collections::BTreeMap;

use crate::limits::OVERHEAD_BYTES;
use crate::{OffsetRecord, TopicPartition};

/// An offset that becomes visible when it is stored.
pub(crate) type OffsetChange = (TopicPartition, OffsetRecord);

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    committed: BTreeMap<TopicPartition, OffsetRecord>,
    /// How many steps that wait to be stored have an offset of the partition.
    waiting: BTreeMap<TopicPartition, usize>,
    bytes: usize,
}

fn bytes(at: &TopicPartition, record: &OffsetRecord) -> usize {
    OVERHEAD_BYTES + at.topic.len() + record.metadata.len()
}

impl Offsets {
    pub fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.waiting.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn get(&self, at: &TopicPartition) -> Option<&OffsetRecord> {
        self.committed.get(at)
    }

    pub fn all(&self) -> impl Iterator<Item = (&TopicPartition, &OffsetRecord)> {
        self.committed.iter()
    }

    /// Every partition of which something is or may be stored.
    pub fn partitions(&self) -> Vec<TopicPartition> {
        let committed = self.committed.keys();
        let new = self.waiting.keys();
        let new = new.filter(|at| !self.committed.contains_key(at));
        committed.chain(new).cloned().collect()
    }

    /// How many partitions there would be with these.
    pub fn len_with<'a>(&self, more: impl Iterator<Item = &'a TopicPartition>) -> usize {
        let new = more.filter(|at| !self.committed.contains_key(at));
        let new = new.filter(|at| !self.waiting.contains_key(at)).count();
        let waiting = self.waiting.keys();
        let waiting = waiting
            .filter(|at| !self.committed.contains_key(at))
            .count();
        self.committed.len() + waiting + new
    }

    pub fn older_than(&self, unix_ms: i64) -> Vec<TopicPartition> {
        let each = self.committed.iter();
        let old = each.filter(|(_, record)| record.committed_at <= unix_ms);
        old.map(|(at, _)| at.clone()).collect()
    }

    /// Counts what waits to be stored already: memory is taken from now on.
    pub fn wait(&mut self, changes: &[OffsetChange]) {
        for (at, record) in changes {
            *self.waiting.entry(at.clone()).or_default() += 1;
            self.bytes += bytes(at, record);
        }
    }

    /// Ends the waiting of changes, which take effect if they were stored.
    pub fn end_wait(&mut self, changes: Vec<OffsetChange>, stored: bool) {
        for (at, record) in changes {
            if let Some(count) = self.waiting.get_mut(&at) {
                *count -= 1;
                if *count == 0 {
                    self.waiting.remove(&at);
                }
            }
            if stored {
                self.forget(&at);
                self.committed.insert(at, record);
            } else {
                self.bytes -= bytes(&at, &record);
            }
        }
    }

    pub fn load(&mut self, at: TopicPartition, record: OffsetRecord) {
        self.bytes += bytes(&at, &record);
        self.committed.insert(at, record);
    }

    pub fn forget(&mut self, at: &TopicPartition) {
        if let Some(former) = self.committed.remove(at) {
            self.bytes -= bytes(at, &former);
        }
    }
}
