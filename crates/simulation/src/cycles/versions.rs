//! The order of each list's versions, as the reads reveal it.
//!
//! A version is named by the value that made it. The longest read of a list shows the order of its
//! versions; every other read of the same list must be a beginning of it. A replacement begins a new
//! list behind the one that its transaction had read, so the lists of a key form a chain.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::anomaly::{Anomalies, Kind};
use super::readings::{Reading, Readings, Replacement};
use super::transaction::{List, Value};
use super::writes::{KeyId, Writes};

/// Consecutive versions of a key.
#[derive(Debug)]
pub(super) struct Chain {
    pub key: KeyId,
    pub values: Vec<Value>,
    /// Whether nothing was before it but the empty list.
    pub is_first: bool,
    /// Whether what no read shows must come behind it.
    pub is_last: bool,
}

/// All that is known of the order of versions.
#[derive(Debug, Default)]
pub(super) struct Versions {
    pub chains: Vec<Chain>,
    /// The chain of each value that has a place, and its place there.
    pub placed: HashMap<(KeyId, Value), (usize, usize)>,
    /// Readings that contradict a longer one.
    pub contradicted: HashSet<usize>,
}

/// The lists of one key, each by its first value.
#[derive(Debug, Default)]
struct Lists {
    longest: BTreeMap<Value, (Vec<Value>, Option<u32>)>,
    /// The replacements of each list, by its first value; `None` is the empty list.
    behind: BTreeMap<Option<Value>, Vec<Replacement>>,
}

impl Versions {
    pub(super) fn of(
        readings: &Readings<'_>,
        writes: &Writes<'_>,
        anomalies: &mut Anomalies,
    ) -> Self {
        let mut lists: Vec<Lists> = Vec::new();
        lists.resize_with(writes.keys.len(), Lists::default);
        for replacement in &readings.replacements {
            let of_key = &mut lists[replacement.key.0 as usize];
            let list = (replacement.list.clone(), Some(replacement.transaction));
            of_key.longest.insert(replacement.list[0], list);
            let behind = of_key.behind.entry(replacement.follows).or_default();
            behind.push(replacement.clone());
        }
        for reading in &readings.all {
            let Some(first) = reading.shown.first() else {
                continue;
            };
            let of_key = &mut lists[reading.key.0 as usize];
            let (longest, reader) = of_key.longest.entry(*first).or_default();
            if longest.len() < reading.shown.len() {
                *longest = reading.shown.to_vec();
                *reader = Some(reading.reader);
            }
        }
        for replacement in &readings.replacements {
            lists[replacement.key.0 as usize].agree_with_own(replacement, writes, anomalies);
        }
        let mut versions = Self::default();
        for (place, reading) in readings.all.iter().enumerate() {
            let of_key = &lists[reading.key.0 as usize];
            if !of_key.agree(reading, writes, anomalies) {
                versions.contradicted.insert(place);
            }
        }
        for (key, of_key) in (0..).map(KeyId).zip(&lists) {
            of_key.chain(key, &mut versions, writes, anomalies);
        }
        versions.place(writes, anomalies);
        versions.check_transactions(writes, anomalies);
        versions
    }

    fn place(&mut self, writes: &Writes<'_>, found: &mut Anomalies) {
        for (number, chain) in self.chains.iter().enumerate() {
            for (at, value) in chain.values.iter().enumerate() {
                let place = (chain.key, *value);
                if self.placed.insert(place, (number, at)).is_none() {
                    continue;
                }
                let list = writes.key_name(chain.key);
                let summary = format!("{value} is shown in two lists of {list}");
                let writer = writes.written(chain.key, *value).map(|w| w.transaction);
                let writer: Vec<u32> = writer.into_iter().collect();
                found.add(
                    Kind::IncompatibleOrder,
                    &writer,
                    summary,
                    Vec::new(),
                    |at| writes.describe(at),
                );
            }
        }
    }

    /// What one transaction wrote into a list must be there in its order, with nothing left out.
    fn check_transactions(&self, writes: &Writes<'_>, found: &mut Anomalies) {
        for chain in &self.chains {
            for value in &chain.values {
                let Some(written) = writes.written(chain.key, *value) else {
                    continue;
                };
                let Some(previous) = written.previous else {
                    continue;
                };
                let place = |value| self.placed.get(&(chain.key, value));
                let is_in_order = match (place(previous), place(*value)) {
                    (Some(before), Some(behind)) => before.0 != behind.0 || before.1 < behind.1,
                    // What was replaced at once is never seen.
                    _ => written.replaces,
                };
                if is_in_order {
                    continue;
                }
                let summary = format!(
                    "{} is shown with {value}, but not with {previous} before it, which {} wrote first",
                    writes.key_name(chain.key),
                    writes.name(written.transaction),
                );
                let only = [written.transaction];
                found.add(Kind::IncompatibleOrder, &only, summary, Vec::new(), |at| {
                    writes.describe(at)
                });
            }
        }
    }
}

impl Lists {
    fn agree(&self, reading: &Reading<'_>, writes: &Writes<'_>, found: &mut Anomalies) -> bool {
        let Some(first) = reading.shown.first() else {
            return true;
        };
        let Some((longest, reader)) = self.longest.get(first) else {
            return false;
        };
        if longest.starts_with(reading.shown) {
            return true;
        }
        let mut both = vec![reading.reader];
        both.extend(reader);
        let summary = format!(
            "{} reads {} as {}, and {} as {}: neither is a beginning of the other",
            writes.name(reading.reader),
            writes.key_name(reading.key),
            List(reading.shown),
            reader.map_or("another transaction", |reader| writes.name(reader)),
            List(longest),
        );
        found.add(Kind::IncompatibleOrder, &both, summary, Vec::new(), |at| {
            writes.describe(at)
        });
        false
    }

    /// What a transaction wrote when it began a list must be that list's beginning.
    fn agree_with_own(&self, new: &Replacement, writes: &Writes<'_>, found: &mut Anomalies) {
        let Some((longest, reader)) = self.longest.get(&new.list[0]) else {
            return;
        };
        if longest.starts_with(&new.list) {
            return;
        }
        let mut both = vec![new.transaction];
        both.extend(reader);
        let summary = format!(
            "{} wrote {} anew as {}, which is read as {}",
            writes.name(new.transaction),
            writes.key_name(new.key),
            List(&new.list),
            List(longest),
        );
        found.add(Kind::IncompatibleOrder, &both, summary, Vec::new(), |at| {
            writes.describe(at)
        });
    }

    /// Joins the lists of a key where it is known which follows which.
    fn chain(
        &self,
        key: KeyId,
        versions: &mut Versions,
        writes: &Writes<'_>,
        found: &mut Anomalies,
    ) {
        let is_behind: BTreeSet<Value> =
            self.behind.values().flatten().map(|r| r.list[0]).collect();
        let mut begins: Vec<(Value, bool)> = Vec::new();
        for first in self.longest.keys() {
            let replaces = writes.written(key, *first).is_some_and(|w| w.replaces);
            if !is_behind.contains(first) {
                // A refused replacement: what it followed is not known.
                begins.push((*first, !replaces));
            }
        }
        let behind_nothing = self.behind.get(&None).map_or(&[][..], Vec::as_slice);
        begins.extend(behind_nothing.iter().map(|r| (r.list[0], true)));
        self.report_forks(key, &begins, writes, found);
        let count_first = begins.iter().filter(|(_, is_first)| *is_first).count();
        // Lists that follow each other in a circle are taken as they are, behind all others.
        let circles = self.longest.keys().map(|first| (*first, false));
        let mut starts: Vec<(Value, bool)> = circles.chain(begins).collect();
        let mut joined = BTreeSet::new();
        while let Some((first, is_first)) = starts.pop() {
            let mut values = Vec::new();
            let mut next = Some(first);
            while let Some(list) = next.filter(|list| joined.insert(*list)) {
                values.extend_from_slice(&self.longest[&list].0);
                next = match self.behind.get(&Some(list)).map(Vec::as_slice) {
                    None | Some([]) => None,
                    Some([only]) => Some(only.list[0]),
                    Some(several) => {
                        starts.extend(several.iter().map(|r| (r.list[0], false)));
                        None
                    }
                };
            }
            if values.is_empty() {
                continue;
            }
            versions.chains.push(Chain {
                key,
                is_first: is_first && count_first == 1,
                is_last: joined.len() == self.longest.len() && versions.is_only(key),
                values,
            });
        }
        if self.longest.is_empty() {
            versions.chains.push(Chain {
                key,
                values: Vec::new(),
                is_first: true,
                is_last: true,
            });
        }
    }

    /// Two lists that follow the same one are a lost update when both had read the same version, which
    /// is looked for elsewhere; else no order of the versions explains them.
    fn report_forks(
        &self,
        key: KeyId,
        begins: &[(Value, bool)],
        writes: &Writes<'_>,
        found: &mut Anomalies,
    ) {
        let firsts: Vec<Value> = begins.iter().filter(|(_, f)| *f).map(|(v, _)| *v).collect();
        let appended = |value: &Value| writes.written(key, *value).is_some_and(|w| !w.replaces);
        if let [one, other, ..] = firsts[..]
            && firsts.iter().any(appended)
        {
            let text = "was the first value of the list";
            report_fork(key, (one, other), text, (writes, found));
        }
        for several in self.behind.values() {
            let [one, rest @ ..] = several.as_slice() else {
                continue;
            };
            let other = rest.iter().find(|r| r.version != one.version);
            if let Some(other) = other {
                let text = "replaced the same list";
                report_fork(key, (one.list[0], other.list[0]), text, (writes, found));
            }
        }
    }
}

impl Versions {
    fn is_only(&self, key: KeyId) -> bool {
        self.chains.last().is_none_or(|last| last.key != key)
    }
}

fn report_fork(
    key: KeyId,
    (one, other): (Value, Value),
    text: &str,
    (writes, found): (&Writes<'_>, &mut Anomalies),
) {
    let both: Vec<u32> = [one, other]
        .iter()
        .filter_map(|value| Some(writes.written(key, *value)?.transaction))
        .collect();
    let summary = format!("in {}, {one} and {other} each {text}", writes.key_name(key));
    found.add(Kind::IncompatibleOrder, &both, summary, Vec::new(), |at| {
        writes.describe(at)
    });
}
