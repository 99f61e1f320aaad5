//! From the history of requests and answers to transactions on lists.
//!
//! A list is a key into which every request of the history appends one new value at a time, or puts a
//! list of one new value. Positions, versions and offsets are not looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use onelog_record::{FieldPath, KeyRange, TableId, TxnId, Write};

use super::anomaly::{Anomaly, Kind};
use super::transaction::{Key, Operation, Outcome, Transaction, Value};
use crate::history::{Answer, CommitCall, History, Moment, ReadCall, Requested, Seen};

type Place = (TableId, Bytes);

/// Checks every list of a history. It never trusts a position; what the log says is not looked at.
///
/// A history that contradicts itself is answered with one anomaly that says so.
#[must_use]
pub fn check(history: &History) -> Vec<Anomaly> {
    let mut converter = Converter {
        lists: lists(history),
        transactions: Vec::new(),
        unreadable: Vec::new(),
    };
    if converter.lists.is_empty() {
        return Vec::new();
    }
    converter.add_commits(&history.commits);
    for (number, read) in history.reads.iter().enumerate() {
        converter.add_read(number, read);
    }
    let mut anomalies = converter.unreadable;
    match super::find(&converter.transactions) {
        Ok(found) => anomalies.extend(found),
        Err(error) => anomalies.push(fact(Kind::Malformed, error.to_string())),
    }
    anomalies
}

fn fact(kind: Kind, summary: String) -> Anomaly {
    Anomaly {
        kind,
        transactions: Vec::new(),
        summary,
        details: Vec::new(),
    }
}

/// What a request does to a list; anything else is not of a list.
enum ListWrite {
    Append(Value),
    Replace(Value),
}

fn list_write(write: &Write) -> Option<ListWrite> {
    use onelog_record::Operation::{Append, Put};
    match &write.operation {
        Append(path, value) if *path == FieldPath::whole() => {
            let value = serde_json::from_str(value.as_str()).ok()?;
            Some(ListWrite::Append(Value(value)))
        }
        Put(document) => match values(document)?.as_slice() {
            [only] => Some(ListWrite::Replace(*only)),
            _ => None,
        },
        _ => None,
    }
}

/// The values of a list's document.
fn values(document: &[u8]) -> Option<Vec<Value>> {
    let values: Vec<u64> = serde_json::from_slice(document).ok()?;
    Some(values.into_iter().map(Value).collect())
}

/// The keys that only such writes are for.
fn lists(history: &History) -> BTreeMap<Place, Key> {
    let (mut lists, mut others) = (BTreeSet::new(), HashSet::new());
    for write in history.commits.iter().flat_map(|call| &call.request.writes) {
        let place = (write.table, write.key.clone());
        match list_write(write) {
            Some(_) => lists.insert(place),
            None => others.insert(place),
        };
    }
    let named = |place: Place| {
        let name = format!("{}/{}", place.0, String::from_utf8_lossy(&place.1));
        (place, Key(name.into()))
    };
    let lists = lists.into_iter().filter(|place| !others.contains(place));
    lists.map(named).collect()
}

struct Converter {
    lists: BTreeMap<Place, Key>,
    transactions: Vec<Transaction>,
    /// Reads of something that is no list of values.
    unreadable: Vec<Anomaly>,
}

impl Converter {
    /// All calls with one id are one transaction: what one of them was answered is true of all.
    fn add_commits(&mut self, commits: &[CommitCall]) {
        let mut calls: HashMap<TxnId, Vec<&CommitCall>> = HashMap::new();
        let mut ids = Vec::new();
        for call in commits {
            let same = calls.entry(call.id).or_default();
            if same.is_empty() {
                ids.push(call.id);
            }
            same.push(call);
        }
        for (number, id) in ids.into_iter().enumerate() {
            let calls = &calls[&id];
            let first = calls[0];
            let name = format!("T{number}");
            let mut operations = self.declared(first, &name);
            for write in &first.request.writes {
                operations.extend(self.written(write));
            }
            if operations.is_empty() {
                continue;
            }
            let committed = calls
                .iter()
                .filter(|call| matches!(call.answer, Answer::Committed(_)));
            let end: Option<Moment> = committed.filter_map(|call| call.end).min();
            self.transactions.push(Transaction {
                name,
                note: id.to_string(),
                client: first.client,
                begin: calls
                    .iter()
                    .map(|call| call.begin)
                    .fold(first.begin, Moment::min),
                end,
                is_timed: true,
                outcome: outcome(calls),
                operations,
            });
        }
    }

    fn written(&self, write: &Write) -> Option<Operation> {
        let key = self.lists.get(&(write.table, write.key.clone()))?.clone();
        Some(match list_write(write)? {
            ListWrite::Append(value) => Operation::Append { key, value },
            ListWrite::Replace(value) => Operation::Replace { key, value },
        })
    }

    /// The reads that the request declares: they are validated, so they are of its commit point.
    fn declared(&mut self, call: &CommitCall, name: &str) -> Vec<Operation> {
        let request = &call.request;
        let mut seen = Seen::default();
        for read in &request.point_reads {
            let mut points = call.seen.points.iter();
            let same = points.find(|seen| (seen.table, &seen.key) == (read.table, &read.key));
            seen.points.extend(same.cloned());
        }
        for range in &request.range_reads {
            let same = call.seen.ranges.iter().find(|seen| seen.range == *range);
            seen.ranges.extend(same.cloned());
        }
        self.reads(&seen, name)
    }

    fn add_read(&mut self, number: usize, read: &ReadCall) {
        let name = format!("R{number}");
        let operations = self.reads(&read.seen, &name);
        if operations.is_empty() {
            return;
        }
        self.transactions.push(Transaction {
            name,
            note: String::new(),
            client: read.client,
            begin: read.begin,
            end: Some(read.end),
            is_timed: !matches!(read.requested, Requested::At(_)),
            outcome: Outcome::Committed,
            operations,
        });
    }

    /// Reads of lists. A range shows every list in it: one that is not among its rows is empty.
    fn reads(&mut self, seen: &Seen, name: &str) -> Vec<Operation> {
        let mut found: Vec<(Key, Option<Bytes>)> = Vec::new();
        for point in &seen.points {
            if let Some(key) = self.lists.get(&(point.table, point.key.clone())) {
                let value = point.found.as_ref().map(|found| found.value.clone());
                found.push((key.clone(), value));
            }
        }
        for range in &seen.ranges {
            let rows: HashMap<&Bytes, &Bytes> = range
                .rows
                .iter()
                .map(|(key, found)| (key, &found.value))
                .collect();
            for ((_, key), list) in self.within(&range.range) {
                found.push((list.clone(), rows.get(key).map(|value| (*value).clone())));
            }
        }
        let mut operations = Vec::new();
        for (key, document) in found {
            match document.as_deref().map_or(Some(Vec::new()), values) {
                Some(list) => operations.push(Operation::Read { key, list }),
                None => {
                    let summary =
                        format!("{name} reads {document:?} in {key}, not a list of values");
                    self.unreadable.push(fact(Kind::Unwritten, summary));
                }
            }
        }
        operations
    }

    fn within<'s>(&'s self, range: &'s KeyRange) -> impl Iterator<Item = (&'s Place, &'s Key)> {
        let from = (range.table, range.from.clone());
        self.lists
            .range(from..)
            .take_while(|((table, _), _)| *table == range.table)
            .take_while(|((_, key), _)| range.to.as_ref().is_none_or(|to| key < to))
    }
}

/// What all answers together say.
fn outcome(calls: &[&CommitCall]) -> Outcome {
    let is_committed = |call: &&CommitCall| matches!(call.answer, Answer::Committed(_));
    if calls.iter().any(is_committed) {
        Outcome::Committed
    } else if calls
        .iter()
        .all(|call| crate::checker::is_final(&call.answer))
    {
        Outcome::Refused
    } else {
        Outcome::Unknown
    }
}
