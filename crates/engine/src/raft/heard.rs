//! Which nodes were heard of within an election timeout. The library's own flags say it for its check
//! of the majority only, which clears them all each time.

use std::collections::BTreeMap;

use onelog_record::NodeId;

use super::ELECTION_TICKS;

/// For each node the tick of its last message. What is older than a timeout is forgotten.
#[derive(Debug, Default)]
pub(super) struct Heard {
    now: u64,
    at: BTreeMap<NodeId, u64>,
}

impl Heard {
    pub(super) fn tick(&mut self) {
        self.now += 1;
        let oldest = self.oldest();
        self.at.retain(|_, at| *at >= oldest);
    }

    pub(super) fn note(&mut self, node: NodeId) {
        self.at.insert(node, self.now);
    }

    pub(super) fn lately(&self, node: NodeId) -> bool {
        self.at.contains_key(&node)
    }

    const fn oldest(&self) -> u64 {
        self.now.saturating_sub(ELECTION_TICKS as u64)
    }
}
