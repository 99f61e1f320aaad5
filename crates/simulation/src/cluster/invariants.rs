//! The invariants of Raft, each checked with what has changed since the last look: a run costs as much as
//! its nodes append, not as much as their logs hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use onelog_record::{Entry, Index, NodeId, Term};

#[cfg(test)]
mod tests;

/// As the paper of Raft names them, in its figure 3. That a leader only appends is part of log matching
/// here: an entry of its own term would be there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    ElectionSafety,
    LogMatching,
    LeaderCompleteness,
    StateMachineSafety,
    /// Not of the paper: an entry that a node has cut does not come back by itself.
    CutIsFinal,
    /// Not of the paper: a leader sends a follower nothing that it knows to be there.
    NextBehindMatch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub invariant: Invariant,
    /// What was found and what was expected.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.what)
    }
}

/// What happened to the log of a node.
#[derive(Clone, Debug)]
pub enum LogChange {
    /// It begins anew: a snapshot has replaced it, or it is read again after a start.
    Begins,
    /// It was found at a start.
    Recovered(Print),
    Appended(Print),
    /// From here on it is gone.
    Cut(Index),
}

/// What an entry is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print {
    pub index: Index,
    pub term: Term,
    /// Of header and body.
    pub checksum: u64,
}

impl Print {
    pub fn of(entry: &Entry) -> Self {
        let mut hasher = DefaultHasher::new();
        entry.header.encode().hash(&mut hasher);
        entry.body.hash(&mut hasher);
        Self {
            index: entry.index,
            term: entry.term,
            checksum: hasher.finish(),
        }
    }
}

/// The one entry of an index and a term.
#[derive(Clone, Copy, Debug)]
struct Known {
    checksum: u64,
    /// The term of the entry before it, where a node had both.
    before: Option<Term>,
    by: NodeId,
}

/// What all nodes have shown so far.
#[derive(Debug, Default)]
pub struct Invariants {
    leaders: BTreeMap<Term, NodeId>,
    entries: HashMap<(Index, Term), Known>,
    /// The terms of each node's log, as far as they were seen.
    logs: BTreeMap<NodeId, BTreeMap<Index, Term>>,
    /// What was cut and not appended again.
    cut: BTreeSet<(NodeId, Index, Term)>,
    committed: BTreeMap<Index, Entry>,
    /// The last entry that was applied first by a node of this term: it was committed in this term or an
    /// earlier one.
    committed_in: BTreeMap<Term, Index>,
}

impl Invariants {
    /// Every entry that any node has applied.
    pub const fn committed(&self) -> &BTreeMap<Index, Entry> {
        &self.committed
    }

    /// The node leads in this term.
    pub fn leads(&mut self, node: NodeId, term: Term) -> Result<(), Broken> {
        let first = *self.leaders.entry(term).or_insert(node);
        match first == node {
            true => Ok(()),
            false => broken(
                Invariant::ElectionSafety,
                format!("nodes {first} and {node} lead in term {term}"),
            ),
        }
    }

    /// What was committed in the terms up to its own is in a leader's log. An old leader may lack what a
    /// later one has committed.
    ///
    /// One look at the last of them: log matching says the same of those before it. `first` is where its
    /// log begins: what is below came with a snapshot.
    pub fn holds_committed(
        &self,
        leader: NodeId,
        term: Term,
        first: Index,
        term_at: impl Fn(Index) -> Option<Term>,
    ) -> Result<(), Broken> {
        let Some(index) = self
            .committed_in
            .range(..=term)
            .map(|(_, last)| *last)
            .max()
        else {
            return Ok(());
        };
        if index < first {
            return Ok(());
        }
        let (there, expected) = (term_at(index), self.committed[&index].term);
        match there == Some(expected) {
            true => Ok(()),
            false => broken(
                Invariant::LeaderCompleteness,
                format!(
                    "node {leader} leads in term {term}; entry {index} of term {expected} is committed, and there it has {there:?}"
                ),
            ),
        }
    }

    /// A follower is sent what comes behind the last entry that it is known to have, or more.
    pub fn sends(to: NodeId, next: Index, matched: Index) -> Result<(), Broken> {
        match next > matched {
            true => Ok(()),
            false => broken(
                Invariant::NextBehindMatch,
                format!("node {to} is sent entry {next} next, and is known to have {matched}"),
            ),
        }
    }

    /// Entries of one index and term are one entry, and so is everything before them.
    pub fn log_changed(&mut self, node: NodeId, change: &LogChange) -> Result<(), Broken> {
        let log = self.logs.entry(node).or_default();
        let entry = match change {
            LogChange::Begins => {
                log.clear();
                return Ok(());
            }
            LogChange::Cut(from) => {
                let cut = log.split_off(from).into_iter();
                self.cut
                    .extend(cut.map(|(index, term)| (node, index, term)));
                return Ok(());
            }
            LogChange::Recovered(entry) if self.cut.contains(&(node, entry.index, entry.term)) => {
                let Print { index, term, .. } = entry;
                return broken(
                    Invariant::CutIsFinal,
                    format!("node {node} had cut entry {index} of term {term}, and starts with it"),
                );
            }
            LogChange::Recovered(entry) | LogChange::Appended(entry) => entry,
        };
        let (index, term) = (entry.index, entry.term);
        self.cut.remove(&(node, index, term));
        let before = log.get(&Index(index.get() - 1)).copied();
        log.insert(index, term);
        let known = self.entries.entry((index, term)).or_insert(Known {
            checksum: entry.checksum,
            before,
            by: node,
        });
        let by = known.by;
        if known.checksum != entry.checksum {
            return broken(
                Invariant::LogMatching,
                format!("nodes {by} and {node} have different entries {index} of term {term}"),
            );
        }
        known.before = known.before.or(before);
        match before.is_none() || known.before == before {
            true => Ok(()),
            false => broken(
                Invariant::LogMatching,
                format!(
                    "nodes {by} and {node} have entry {index} of term {term}; before it is one of term {:?}, and of {before:?}",
                    known.before
                ),
            ),
        }
    }

    /// What one node applied at an index, every node applies there.
    pub fn applied(&mut self, node: NodeId, term: Term, entry: &Entry) -> Result<(), Broken> {
        let index = entry.index;
        if let Some(known) = self.committed.get(&index) {
            return match known == entry {
                true => Ok(()),
                false => broken(
                    Invariant::StateMachineSafety,
                    format!(
                        "node {node} applied another entry {index}: {entry:?} and not {known:?}"
                    ),
                ),
            };
        }
        self.committed.insert(index, entry.clone());
        let last = self.committed_in.entry(term).or_default();
        *last = index.max(*last);
        Ok(())
    }
}

fn broken(invariant: Invariant, what: String) -> Result<(), Broken> {
    Err(Broken { invariant, what })
}
