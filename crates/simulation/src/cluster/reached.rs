//! Which rare situations a run has reached, and how often.

use std::collections::BTreeMap;

/// What is rare, and must have happened in a batch of seeds: else it would say little.
pub const RARE: [&str; 41] = [
    "a tail was cut",
    "a flush ended while a cut waited",
    "a snapshot was installed",
    "an installation waited for jobs",
    "a snapshot was overtaken by a checkpoint",
    "a snapshot's way was broken off",
    "an installation was finished by a start",
    "entries were read from the log for a follower",
    "a follower read what it had stored to apply it",
    "a leadership was lost",
    "two nodes thought that they lead",
    "a paused leader found that it leads no more",
    "a start had entries not known to be committed",
    "power failed at a start",
    "a disk was full",
    "a call of a disk failed",
    "power failed within a call",
    "a segment was dropped",
    "a checkpoint was made",
    "a request met a node that does not lead",
    "a request was sent on",
    "a later attempt was answered too",
    "a read waited for a barrier",
    "a node that does not lead was read",
    "the members changed under a partition",
    "a node ended within a joint configuration",
    "a leadership was handed on",
    "a node was removed for good",
    "a bit of a frame turned",
    "the write of a frame was lost",
    "another frame was written in the place of a frame",
    "a damaged frame was put back before the start",
    "a damaged frame was put back under a reader",
    "two nodes sought the leadership of one term",
    "a leader that hands on was sending a snapshot",
    "power failed before a flush that a later one had overtaken",
    "a checkpoint was ahead of the saved commit",
    "an attempt was refused after another was committed",
    "a sink moved",
    "a sink was fenced",
    "a sink was backfilled from the state",
];

/// How often each has happened.
#[derive(Clone, Debug, Default)]
pub struct Reached(pub BTreeMap<&'static str, usize>);

impl Reached {
    pub fn note(&mut self, what: &'static str, often: usize) {
        assert!(RARE.contains(&what), "{what}");
        *self.0.entry(what).or_default() += often;
    }

    pub fn add(&mut self, other: &Self) {
        for (what, often) in &other.0 {
            self.note(what, *often);
        }
    }

    pub fn often(&self, what: &'static str) -> usize {
        assert!(RARE.contains(&what), "{what}");
        self.0.get(what).copied().unwrap_or_default()
    }
}
