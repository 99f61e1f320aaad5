//! Edges: which transaction must come before which, and why.
//!
//! A committed value that no read shows comes behind every version that was read. So that this costs
//! an edge for each reader and one for each such value, not one for each pair, these edges meet in a
//! junction: a node that is no transaction, numbered behind all of them.

use std::collections::{HashMap, HashSet};

use super::graph::{Edge, Graph, Why};
use super::readings::Readings;
use super::time;
use super::transaction::Value;
use super::versions::{Chain, Versions};
use super::writes::{KeyId, Writes};

type Version = (KeyId, Option<Value>);

/// The graph of a history. Nodes are transactions by their number, then junctions.
pub(super) fn graph(writes: &Writes<'_>, readings: &Readings<'_>, versions: &Versions) -> Graph {
    let mut builder = Builder {
        writes,
        nodes: writes.transactions.len() as u32,
        edges: Vec::new(),
        readers: HashMap::new(),
        unread: HashMap::new(),
    };
    for (place, reading) in readings.all.iter().enumerate() {
        if versions.contradicted.contains(&place) {
            continue;
        }
        let version = (reading.key, reading.version());
        let readers = builder.readers.entry(version).or_default();
        readers.push(reading.reader);
    }
    for (key, value, writer) in &readings.appended {
        if !versions.placed.contains_key(&(*key, *value)) {
            let unread = builder.unread.entry(*key).or_default();
            unread.push((*value, *writer));
        }
    }
    builder.add_reads();
    for chain in &versions.chains {
        builder.add_chain(chain);
    }
    time::add(writes, &mut builder.edges);
    Graph::new(builder.nodes as usize, builder.edges)
}

struct Builder<'w, 'h> {
    writes: &'w Writes<'h>,
    nodes: u32,
    edges: Vec<Edge>,
    readers: HashMap<Version, Vec<u32>>,
    /// Committed values that no read shows, and who wrote them.
    unread: HashMap<KeyId, Vec<(Value, u32)>>,
}

impl Builder<'_, '_> {
    fn add(&mut self, from: u32, to: u32, why: Why) {
        if from != to {
            self.edges.push(Edge { from, to, why });
        }
    }

    fn add_reads(&mut self) {
        let mut found = Vec::new();
        for ((key, version), readers) in &self.readers {
            let Some(value) = *version else { continue };
            let Some(writer) = self.writes.writer(*key, value) else {
                continue;
            };
            let why = Why::Wr { key: *key, value };
            found.extend(readers.iter().map(|reader| (writer, *reader, why)));
        }
        // In the order of the history, so that the same history gives the same report.
        found.sort_unstable_by_key(|(from, to, _)| (*from, *to));
        for (from, to, why) in found {
            self.add(from, to, why);
        }
    }

    /// The edges between consecutive versions, and from their readers.
    fn add_chain(&mut self, chain: &Chain) {
        let key = chain.key;
        let mut versions: Vec<Option<Value>> = Vec::new();
        versions.extend(chain.is_first.then_some(None));
        versions.extend(chain.values.iter().map(|value| Some(*value)));
        let writers: Vec<Option<u32>> = versions
            .iter()
            .map(|version| self.writes.writer(key, (*version)?))
            .collect();
        let next = next_writers(&writers);
        for (at, version) in versions.iter().enumerate() {
            let readers = self.readers.get(&(key, *version)).cloned();
            let readers = readers.unwrap_or_default();
            let Some((behind, writer)) = next[at] else {
                if chain.is_last {
                    self.add_unread(key, *version, writers[at], &readers);
                }
                continue;
            };
            let after = versions[behind];
            if let (Some(from), Some(before)) = (writers[at], *version) {
                self.add(from, writer, Why::Ww { key, before, after });
            }
            for reader in readers {
                let why = Why::Rw {
                    key,
                    read: *version,
                    next: after,
                };
                self.add(reader, writer, why);
            }
        }
    }

    /// What no read shows comes behind this version, the last one that a read shows.
    fn add_unread(
        &mut self,
        key: KeyId,
        version: Option<Value>,
        writer: Option<u32>,
        readers: &[u32],
    ) {
        let Some(unread) = self.unread.get(&key).cloned() else {
            return;
        };
        let own: HashSet<u32> = unread.iter().map(|(_, writer)| *writer).collect();
        let (updating, others): (Vec<u32>, Vec<u32>) =
            readers.iter().partition(|reader| own.contains(reader));
        // Several are a lost update, which is found without edges.
        if let [only] = updating[..] {
            for (next, writer) in &unread {
                let why = Why::Rw {
                    key,
                    read: version,
                    next: Some(*next),
                };
                self.add(only, *writer, why);
            }
        }
        let junction = self.nodes;
        self.nodes += 1;
        for reader in others {
            let why = Why::Rw {
                key,
                read: version,
                next: None,
            };
            self.add(reader, junction, why);
        }
        if let (Some(from), Some(before)) = (writer, version) {
            let after = |after| Why::Ww { key, before, after };
            if own.contains(&from) {
                for (next, writer) in &unread {
                    self.add(from, *writer, after(Some(*next)));
                }
            } else {
                self.add(from, junction, after(None));
            }
        }
        for (next, writer) in unread {
            self.add(junction, writer, Why::Onward { next });
        }
    }
}

/// For each version the next one that another committed transaction wrote, and that transaction.
fn next_writers(writers: &[Option<u32>]) -> Vec<Option<(usize, u32)>> {
    let mut next: Vec<Option<(usize, u32)>> = vec![None; writers.len()];
    // The nearest version behind `at` that a committed transaction wrote.
    let mut nearest: Option<(usize, u32)> = None;
    for at in (0..writers.len()).rev() {
        next[at] = match nearest {
            Some((place, writer)) if writers[at] == Some(writer) => next[place],
            other => other,
        };
        if let Some(writer) = writers[at] {
            nearest = Some((at, writer));
        }
    }
    next
}
