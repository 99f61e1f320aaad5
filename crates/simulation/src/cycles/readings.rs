//! What committed transactions read of others, and what is wrong with a single read by itself.

use std::collections::{HashMap, HashSet};

use super::anomaly::{Anomalies, Kind};
use super::transaction::{HistoryError, List, Operation, Outcome, Value};
use super::writes::{KeyId, Writes};

/// A list as a transaction found it when it first read it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'h> {
    pub reader: u32,
    pub key: KeyId,
    /// Without what the reader itself had appended before.
    pub list: &'h [Value],
    /// As it was read, with what the reader had appended before.
    pub shown: &'h [Value],
    /// Whether the reader wrote the list afterwards.
    pub is_updated: bool,
}

impl Reading<'_> {
    /// The version that was read, by the value that made it; `None` is the empty list.
    pub(super) fn version(&self) -> Option<Value> {
        self.list.last().copied()
    }
}

/// A list that a committed transaction began anew.
#[derive(Clone, Debug)]
pub(super) struct Replacement {
    pub transaction: u32,
    pub key: KeyId,
    /// The first value of the list that it replaced; `None` when that was empty.
    pub follows: Option<Value>,
    /// The version that it replaced.
    pub version: Option<Value>,
    /// The new list as far as the transaction itself wrote it.
    pub list: Vec<Value>,
}

/// What all committed transactions say about the lists.
#[derive(Debug, Default)]
pub(super) struct Readings<'h> {
    pub all: Vec<Reading<'h>>,
    pub replacements: Vec<Replacement>,
    /// What committed transactions appended and did not replace themselves.
    pub appended: Vec<(KeyId, Value, u32)>,
}

/// A list as a transaction knows it at one of its operations.
#[derive(Debug, Default)]
struct Known<'h> {
    /// What it has read; `None` before the first read.
    read: Option<&'h [Value]>,
    /// What it has written behind that.
    own: Vec<Value>,
    /// Its last replacement of the list, if any.
    replacement: Option<Replacement>,
}

impl Known<'_> {
    fn agrees(&self, list: &[Value]) -> bool {
        match self.read {
            Some(read) => {
                list.len() == read.len() + self.own.len()
                    && list.starts_with(read)
                    && list.ends_with(&self.own)
            }
            None => list.ends_with(&self.own),
        }
    }
}

impl<'h> Readings<'h> {
    pub(super) fn of(writes: &Writes<'h>, anomalies: &mut Anomalies) -> Result<Self, HistoryError> {
        let mut readings = Self::default();
        for reader in 0..writes.transactions.len() as u32 {
            if writes.committed[reader as usize] {
                readings.add(reader, writes, anomalies)?;
            }
        }
        Ok(readings)
    }

    fn add(
        &mut self,
        reader: u32,
        writes: &Writes<'h>,
        anomalies: &mut Anomalies,
    ) -> Result<(), HistoryError> {
        let operations = &writes.transactions[reader as usize].operations;
        let first = self.all.len();
        let mut lists: HashMap<KeyId, Known<'h>> = HashMap::new();
        for operation in operations {
            let key = writes.key(operation.key());
            let known = lists.entry(key).or_default();
            match operation {
                Operation::Append { value, .. } => known.own.push(*value),
                Operation::Replace { value, .. } => {
                    self.replace(reader, key, *value, known, writes)?;
                }
                Operation::Read { list, .. } => {
                    if !known.agrees(list) {
                        internal(reader, key, list, writes, anomalies);
                        known.read.get_or_insert(list);
                    } else if known.read.is_none() {
                        let reading = Reading {
                            reader,
                            key,
                            list: &list[..list.len() - known.own.len()],
                            shown: list,
                            is_updated: known.own.is_empty(),
                        };
                        if is_sound(&reading, writes, anomalies) {
                            self.all.push(reading);
                        }
                        known.read = Some(reading.list);
                    }
                }
            }
        }
        for reading in &mut self.all[first..] {
            let known = &lists[&reading.key];
            reading.is_updated &= !known.own.is_empty();
            if known.replacement.is_some() {
                reading.is_updated = true;
                reading.shown = reading.list;
            }
        }
        self.end(reader, lists);
        Ok(())
    }

    fn replace(
        &mut self,
        transaction: u32,
        key: KeyId,
        value: Value,
        known: &mut Known<'h>,
        writes: &Writes<'h>,
    ) -> Result<(), HistoryError> {
        let Some(read) = known.read else {
            return Err(HistoryError::ReplacedUnread {
                key: writes.key_name(key).clone(),
                transaction: writes.name(transaction).to_owned(),
            });
        };
        // What the transaction appended to the list that it read is never seen.
        let before = match known.replacement {
            Some(_) => &known.own,
            None => read,
        };
        let replacement = Replacement {
            transaction,
            key,
            follows: before.first().copied(),
            version: before.last().copied(),
            list: Vec::new(),
        };
        if let Some(mut earlier) = known.replacement.replace(replacement) {
            earlier.list = std::mem::take(&mut known.own);
            self.replacements.push(earlier);
        }
        known.read = Some(&[]);
        known.own = vec![value];
        Ok(())
    }

    /// Notes what the transaction leaves behind.
    fn end(&mut self, transaction: u32, lists: HashMap<KeyId, Known<'h>>) {
        for (key, known) in lists {
            match known.replacement {
                Some(mut replacement) => {
                    replacement.list = known.own;
                    self.replacements.push(replacement);
                }
                None => {
                    let appended = known.own.into_iter();
                    self.appended
                        .extend(appended.map(|value| (key, value, transaction)));
                }
            }
        }
    }
}

fn internal(reader: u32, key: KeyId, list: &[Value], writes: &Writes<'_>, found: &mut Anomalies) {
    let summary = format!(
        "{} reads {} as {}, which contradicts what it read or wrote itself before",
        writes.name(reader),
        writes.key_name(key),
        List(list)
    );
    found.add(Kind::Internal, &[reader], summary, Vec::new(), |at| {
        writes.describe(at)
    });
}

/// Whether the read can be true in any order of versions. A read of a refused or an intermediate
/// value can: it is an anomaly, and still says in which order the values came.
fn is_sound(reading: &Reading<'_>, writes: &Writes<'_>, found: &mut Anomalies) -> bool {
    let (reader, key) = (reading.reader, reading.key);
    let (name, list) = (writes.name(reader), writes.key_name(key));
    let mut met = HashSet::new();
    let mut is_sound = true;
    for (at, value) in reading.list.iter().enumerate() {
        let written = writes.written(key, *value);
        let writer = written.map(|written| written.transaction);
        let replaces = written.is_some_and(|written| written.replaces);
        let (kind, summary) = if !met.insert(*value) {
            let summary = format!("{name} reads {value} twice in {list}");
            (Kind::Duplicate, summary)
        } else if writer.is_none() {
            let summary = format!("{name} reads {value} in {list}, which no transaction wrote");
            (Kind::Unwritten, summary)
        } else if writer == Some(reader) {
            let summary = format!("{name} reads {value} in {list} before it writes it");
            (Kind::Internal, summary)
        } else if replaces && at > 0 {
            let summary = format!("{name} reads {value} in {list} behind what it had replaced");
            (Kind::IncompatibleOrder, summary)
        } else {
            continue;
        };
        is_sound = false;
        let mut both = vec![reader];
        both.extend(writer.filter(|writer| *writer != reader));
        found.add(kind, &both, summary, Vec::new(), |at| writes.describe(at));
    }
    if is_sound {
        look_for_refused(reading, writes, found);
        look_for_intermediate(reading, writes, found);
    }
    is_sound
}

fn look_for_refused(reading: &Reading<'_>, writes: &Writes<'_>, found: &mut Anomalies) {
    for value in reading.list {
        let Some(written) = writes.written(reading.key, *value) else {
            continue;
        };
        let writer = written.transaction;
        if writes.transactions[writer as usize].outcome != Outcome::Refused {
            continue;
        }
        let summary = format!(
            "{} reads {value} in {}, which {} wrote, and that was refused",
            writes.name(reading.reader),
            writes.key_name(reading.key),
            writes.name(writer),
        );
        let both = [reading.reader, writer];
        found.add(Kind::G1a, &both, summary, Vec::new(), |at| {
            writes.describe(at)
        });
    }
}

fn look_for_intermediate(reading: &Reading<'_>, writes: &Writes<'_>, found: &mut Anomalies) {
    let Some(version) = reading.version() else {
        return;
    };
    let Some(written) = writes.written(reading.key, version) else {
        return;
    };
    if !written.is_intermediate {
        return;
    }
    let summary = format!(
        "{} reads {} up to {version}, behind which {} wrote more in the same transaction",
        writes.name(reading.reader),
        writes.key_name(reading.key),
        writes.name(written.transaction),
    );
    let both = [reading.reader, written.transaction];
    found.add(Kind::G1b, &both, summary, Vec::new(), |at| {
        writes.describe(at)
    });
}
