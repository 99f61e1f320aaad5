//! The oracle: keeps every transaction and every version of every key, and decides by looking at
//! all of them. Simple on purpose; it shares no code with the validator.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use onelog_commit::Rules;
use onelog_commit::{Schema, SchemaFault};
use onelog_record::{
    CommitRequest, FieldPath, Header, Json, KeyRange, Number, Offset, Op, Operation,
    OperationFault, Position, Predicate, Refusal, Subject, TABLE_UNIQUE, TableId, TableKind, TxnId,
    ValueKind,
};

use super::values;
use super::world::{AtMostFifty, CHECKED, Tables, UNIQUE, UNIQUE_FIELDS};

#[derive(Clone, Debug)]
pub struct Version {
    pub offset: u64,
    pub end: u64,
    pub value: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub op: Op,
    pub table: TableId,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<Header>,
}

#[derive(Clone, Debug)]
pub struct Transaction {
    pub id: TxnId,
    pub fingerprint: u64,
    pub first: u64,
    pub changes: Vec<Change>,
}

impl Transaction {
    pub fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }
}

#[derive(Debug, Default)]
pub struct Oracle {
    pub log: Vec<Transaction>,
    history: BTreeMap<(TableId, Vec<u8>), Vec<Version>>,
    pub applied: u64,
    pub next: u64,
    /// The first so many transactions' ids are forgotten.
    forgotten: usize,
    ids_max: usize,
}

/// What the validator must answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// With these records, and behind them any that unique fields need.
    Accepted(Vec<Change>),
    Validated,
    Repeated {
        first: u64,
        end: u64,
    },
    /// `after` is exact. Of a range conflict any key that qualifies may be named.
    Refused(Refusal, u64),
}

/// An answer, and whether `SnapshotTooOld` is allowed instead.
#[derive(Debug)]
pub struct Expected {
    pub answer: Answer,
    pub may_be_too_old: bool,
}

type Refused = (Refusal, u64);
/// A key's image now, and where the transaction in flight ends on which it rests.
type Images = BTreeMap<(TableId, Vec<u8>), (Option<Vec<u8>>, u64)>;

impl Oracle {
    pub fn new(ids_max: usize) -> Self {
        Self {
            ids_max,
            ..Self::default()
        }
    }

    pub fn versions(&self, table: TableId, key: &[u8]) -> &[Version] {
        self.history
            .get(&(table, key.to_vec()))
            .map_or(&[], Vec::as_slice)
    }

    pub fn keys_in(&self, range: &KeyRange) -> Vec<Vec<u8>> {
        self.history
            .keys()
            .filter(|(table, key)| {
                *table == range.table
                    && key[..] >= range.from[..]
                    && range.to.as_ref().is_none_or(|to| key[..] < to[..])
            })
            .map(|(_, key)| key.clone())
            .collect()
    }

    fn last(&self, table: TableId, key: &[u8]) -> Option<&Version> {
        self.versions(table, key).last()
    }

    fn in_flight(&self, end: u64) -> u64 {
        if end > self.applied { end } else { 0 }
    }

    /// Adds an accepted transaction.
    pub fn accept(&mut self, transaction: Transaction) {
        assert_eq!(transaction.first, self.next);
        let end = transaction.end();
        for (n, change) in transaction.changes.iter().enumerate() {
            if change.op != Op::Event {
                let at = (change.table, change.key.clone());
                self.history.entry(at).or_default().push(Version {
                    offset: transaction.first + n as u64,
                    end,
                    value: change.value.clone(),
                });
            }
        }
        self.next = end;
        self.log.push(transaction);
        self.forgotten = self
            .forgotten
            .max(self.log.len().saturating_sub(self.ids_max));
    }

    /// A term ends: of what is in flight, only what lies below `position` survives and is given
    /// again. Ids that were forgotten while in flight are remembered again.
    pub fn lose(&mut self, position: u64) {
        self.log.retain(|transaction| transaction.end() <= position);
        for versions in self.history.values_mut() {
            versions.retain(|version| version.offset < position);
        }
        self.history.retain(|_, versions| !versions.is_empty());
        self.next = position;
        let applied = self.log.iter().filter(|t| t.end() <= self.applied).count();
        let too_many = self.log.len().saturating_sub(self.ids_max);
        self.forgotten = self.forgotten.min(applied).max(too_many);
    }

    /// The node restarts over a state that remembers as many ids as may be.
    pub fn remember_all_that_fit(&mut self) {
        self.forgotten = self.log.len().saturating_sub(self.ids_max);
    }

    /// What must be answered to a request.
    pub fn decide(
        &self,
        request: &CommitRequest,
        id: TxnId,
        fingerprint: u64,
        rules: &Tables,
        view_floor: u64,
    ) -> Expected {
        let mut may_be_too_old = false;
        let answer = match self.try_decide(
            request,
            id,
            fingerprint,
            rules,
            view_floor,
            &mut may_be_too_old,
        ) {
            Ok(answer) => answer,
            Err((refusal, after)) => Answer::Refused(refusal, after),
        };
        Expected {
            answer,
            may_be_too_old,
        }
    }

    fn try_decide(
        &self,
        request: &CommitRequest,
        id: TxnId,
        fingerprint: u64,
        rules: &Tables,
        view_floor: u64,
        may_be_too_old: &mut bool,
    ) -> Result<Answer, Refused> {
        if let Some(known) = self.log[self.forgotten..].iter().rfind(|t| t.id == id) {
            if known.fingerprint != fingerprint {
                let position = Position(known.end());
                return Err((
                    Refusal::IdMismatch { id, position },
                    self.in_flight(known.end()),
                ));
            }
            return Ok(Answer::Repeated {
                first: known.first,
                end: known.end(),
            });
        }
        let ids_floor = match self.forgotten {
            0 => 0,
            n => self.log[n - 1].end(),
        };
        if let Some(since) = request.read_position
            && since.0 < ids_floor
            && request.id.is_some()
            && !request.writes.is_empty()
        {
            let floor = Position(ids_floor);
            return Err((Refusal::IdExpired { id, floor }, 0));
        }
        if let Some(read_position) = request.read_position
            && read_position.0 > self.applied
        {
            let latest = Position(self.applied);
            let refusal = Refusal::SnapshotInFuture {
                read_position,
                latest,
            };
            return Err((refusal, 0));
        }
        self.check_reads(request, rules, view_floor, may_be_too_old)?;
        for (index, _) in request.guards.iter().enumerate() {
            self.check_guard(request, index, rules)?;
        }
        if request.writes.is_empty() {
            return Ok(Answer::Validated);
        }
        self.carry_out(request, rules).map(Answer::Accepted)
    }

    fn check_reads(
        &self,
        request: &CommitRequest,
        rules: &Tables,
        view_floor: u64,
        may_be_too_old: &mut bool,
    ) -> Result<(), Refused> {
        let has_reads = request.point_reads.len() + request.range_reads.len() > 0;
        let Some(Position(since)) = request.read_position else {
            if has_reads {
                return Err((Refusal::Malformed(String::new()), 0));
            }
            return Ok(());
        };
        for (n, read) in request.point_reads.iter().enumerate() {
            readable(rules, read.table, Subject::PointRead(n))?;
            let present = self
                .last(read.table, &read.key)
                .is_some_and(|version| version.value.is_some());
            *may_be_too_old |= since < view_floor && !present;
            self.unchanged(read.table, &read.key, since, Subject::PointRead(n))?;
        }
        for (n, range) in request.range_reads.iter().enumerate() {
            readable(rules, range.table, Subject::RangeRead(n))?;
            *may_be_too_old |= since < view_floor;
            for key in self.keys_in(range) {
                self.unchanged(range.table, &key, since, Subject::RangeRead(n))?;
            }
        }
        Ok(())
    }

    /// Looks at every version of the key.
    pub fn unchanged(
        &self,
        table: TableId,
        key: &[u8],
        since: u64,
        subject: Subject,
    ) -> Result<(), Refused> {
        let versions = self.versions(table, key);
        if !versions.iter().any(|version| version.offset >= since) {
            return Ok(());
        }
        let last = versions.last().unwrap();
        let after = self.in_flight(last.end);
        let refusal = Refusal::Conflict {
            subject,
            table,
            key: Bytes::copy_from_slice(key),
            version: Offset(last.offset),
            retry_at: Position(after.max(self.applied)),
        };
        Err((refusal, after))
    }

    fn check_guard(
        &self,
        request: &CommitRequest,
        index: usize,
        rules: &Tables,
    ) -> Result<(), Refused> {
        let guard = &request.guards[index];
        readable(rules, guard.table, Subject::Guard(index))?;
        let last = self.last(guard.table, &guard.key);
        let value = last.and_then(|version| version.value.clone());
        let version = last.filter(|_| value.is_some()).map(|v| Offset(v.offset));
        let holds = match &guard.predicate {
            Predicate::Exists => value.is_some(),
            Predicate::Absent => value.is_none(),
            Predicate::Version(wanted) => version == Some(*wanted),
            Predicate::Field {
                path,
                compare,
                value: wanted,
            } => {
                let table = rules.table(guard.table).unwrap();
                if table.definition.value == ValueKind::Bytes {
                    return Err((Refusal::Malformed(String::new()), 0));
                }
                let document = value.as_ref().map_or(Json::Null, |text| json(text));
                let met = document.get(path).unwrap_or(&Json::Null);
                values::holds(met, *compare, &wanted.json())
            }
        };
        if holds {
            return Ok(());
        }
        let after = last.map_or(0, |version| self.in_flight(version.end));
        let refusal = Refusal::GuardFailed {
            index,
            met: value.map(Bytes::from),
            version,
            retry_at: Position(after.max(self.applied)),
        };
        Err((refusal, after))
    }

    fn carry_out(&self, request: &CommitRequest, rules: &Tables) -> Result<Vec<Change>, Refused> {
        let mut changes: Vec<Change> = Vec::new();
        let mut images = Images::new();
        for (index, write) in request.writes.iter().enumerate() {
            let table = write.table;
            let Some(rule) = rules.table(table) else {
                let subject = Subject::Write(index);
                return Err((Refusal::UnknownTable { subject, table }, 0));
            };
            let stream = rule.definition.kind == TableKind::Stream;
            if stream && !matches!(write.operation, Operation::Put(_)) {
                let fault = OperationFault::WrongTable("".into());
                return Err((Refusal::BadOperation { index, fault }, 0));
            }
            let at = (table, write.key.to_vec());
            let (met, rests_on) = images.get(&at).cloned().unwrap_or_else(|| {
                self.last(table, &write.key).map_or((None, 0), |version| {
                    (version.value.clone(), self.in_flight(version.end))
                })
            });
            let is_json = rule.definition.value == ValueKind::Json;
            let (value, after) = match &write.operation {
                Operation::Put(value) => (Some(value.to_vec()), 0),
                Operation::Delete => (None, 0),
                operation => match operate(met, operation, is_json) {
                    Ok(value) => (Some(value), rests_on),
                    Err(fault @ OperationFault::WrongTable(_)) => {
                        return Err((Refusal::BadOperation { index, fault }, 0));
                    }
                    Err(fault) => return Err((Refusal::BadOperation { index, fault }, rests_on)),
                },
            };
            if table == CHECKED
                && let Some(value) = &value
                && let Err(SchemaFault::Breaks(text)) = AtMostFifty.check(&json(value), &mut 0)
            {
                let fault = OperationFault::Schema(text);
                return Err((Refusal::BadOperation { index, fault }, after));
            }
            if !stream {
                images.insert(at, (value.clone(), after));
            }
            let op = match (&value, stream) {
                (_, true) => Op::Event,
                (Some(_), _) => Op::Put,
                (None, _) => Op::Delete,
            };
            changes.push(Change {
                op,
                table,
                key: write.key.to_vec(),
                value,
                headers: write.headers.clone(),
            });
        }
        self.check_unique(request, &images)?;
        Ok(changes)
    }

    /// Every key that gains a value is held against every other key of the table: those that keep
    /// theirs, and those that gained the same value earlier in this transaction.
    fn check_unique(&self, request: &CommitRequest, images: &Images) -> Result<(), Refused> {
        let mut gained: Vec<(Vec<u8>, usize, String, u64)> = Vec::new();
        for (index, write) in request.writes.iter().enumerate() {
            let last = request.writes[index + 1..]
                .iter()
                .all(|later| (later.table, &later.key) != (write.table, &write.key));
            if write.table != UNIQUE || !last {
                continue;
            }
            let (image, rests_on) = &images[&(UNIQUE, write.key.to_vec())];
            for (field, path) in UNIQUE_FIELDS.into_iter().enumerate() {
                let Some(value) = field_of(image.as_ref(), path) else {
                    continue;
                };
                let text = values::text(&value);
                let before = self.last(UNIQUE, &write.key);
                let had = before.and_then(|v| field_of(v.value.as_ref(), path));
                if had.is_some_and(|had| values::text(&had) == text) {
                    continue;
                }
                let clash = gained
                    .iter()
                    .find(|(_, f, t, _)| (*f, t) == (field, &text))
                    .map(|(owner, _, _, after)| (owner.clone(), *after))
                    .or_else(|| self.keeper(images, field, &text));
                if let Some((owner, after)) = clash {
                    let refusal = Refusal::NotUnique {
                        index,
                        field: path.into(),
                        value: (&value).into(),
                        owner: owner.into(),
                    };
                    return Err((refusal, after.max(*rests_on)));
                }
                gained.push((write.key.to_vec(), field, text, *rests_on));
            }
        }
        Ok(())
    }

    /// Another key that has the value before and after this transaction, and where the transaction
    /// in flight ends that gave it.
    fn keeper(&self, images: &Images, field: usize, text: &str) -> Option<(Vec<u8>, u64)> {
        let path = UNIQUE_FIELDS[field];
        let has = |value: Option<&Vec<u8>>| {
            field_of(value, path).is_some_and(|found| values::text(&found) == text)
        };
        for ((table, key), versions) in &self.history {
            let now = versions.last().unwrap();
            let after = match images.get(&(*table, key.clone())) {
                Some((image, _)) => image.as_ref(),
                None => now.value.as_ref(),
            };
            if *table != UNIQUE || !has(now.value.as_ref()) || !has(after) {
                continue;
            }
            // Only the last version of each transaction counts.
            let mut given = now.end;
            for version in versions.iter().rev() {
                let last_of_its_transaction = versions
                    .iter()
                    .rfind(|other| other.end == version.end)
                    .unwrap();
                if !has(last_of_its_transaction.value.as_ref()) {
                    break;
                }
                given = version.end;
            }
            return Some((key.clone(), self.in_flight(given)));
        }
        None
    }

    /// The rows of unique fields say exactly who has which value.
    pub fn check_unique_rows(&self) -> Result<(), String> {
        let mut wanted = BTreeMap::new();
        let mut seen = HashSet::new();
        for ((table, key), versions) in &self.history {
            if *table != UNIQUE {
                continue;
            }
            for (field, path) in UNIQUE_FIELDS.into_iter().enumerate() {
                if let Some(value) = field_of(versions.last().unwrap().value.as_ref(), path) {
                    if !seen.insert((field, values::text(&value))) {
                        return Err(format!("two keys have {value} in field '{path}'"));
                    }
                    let row = onelog_commit::unique_row_key(UNIQUE, field as u16, &value).to_vec();
                    wanted.insert(row, key.clone());
                }
            }
        }
        let found: BTreeMap<Vec<u8>, Vec<u8>> = self
            .history
            .iter()
            .filter(|((table, _), _)| *table == TABLE_UNIQUE)
            .filter_map(|((_, row), versions)| Some((row.clone(), versions.last()?.value.clone()?)))
            .collect();
        if found == wanted {
            return Ok(());
        }
        Err(format!("unique rows are {found:?}, should be {wanted:?}"))
    }
}

fn readable(rules: &Tables, table: TableId, subject: Subject) -> Result<(), Refused> {
    match rules.table(table) {
        None => Err((Refusal::UnknownTable { subject, table }, 0)),
        Some(found) if found.definition.kind == TableKind::Stream => {
            Err((Refusal::Malformed(String::new()), 0))
        }
        Some(_) => Ok(()),
    }
}

fn json(text: &[u8]) -> Json<'_> {
    Json::parse(text).unwrap()
}

fn field_of<'v>(value: Option<&'v Vec<u8>>, path: &str) -> Option<Json<'v>> {
    let document = json(value?);
    let found = document.get(&FieldPath::parse(path).unwrap())?.clone();
    (!found.is_null()).then_some(found)
}

fn operate(
    met: Option<Vec<u8>>,
    operation: &Operation,
    is_json: bool,
) -> Result<Vec<u8>, OperationFault> {
    if is_json == matches!(operation, Operation::AppendBytes(_)) {
        return Err(OperationFault::WrongTable("".into()));
    }
    if let Operation::AppendBytes(tail) = operation {
        let mut value = met.unwrap_or_default();
        value.extend_from_slice(tail);
        return Ok(value);
    }
    let met = met.unwrap_or_else(|| b"null".to_vec());
    let mut document = json(&met);
    let (Operation::Add(path, _)
    | Operation::Min(path, _)
    | Operation::Max(path, _)
    | Operation::Append(path, _)) = operation
    else {
        unreachable!("put and delete are handled before")
    };
    let place = document.make(path).ok_or(OperationFault::NoPlace)?;
    let met = std::mem::replace(place, Json::Null);
    if let Operation::Append(_, element) = operation {
        let mut items = match met {
            Json::Null => Vec::new(),
            Json::Array(items) => items,
            other => return Err(OperationFault::NotAnArray(other.kind().into())),
        };
        items.push(element.json());
        *place = Json::Array(items);
        return Ok(document.to_string().into_bytes());
    }
    let by = number_of(operation).as_str();
    let met = match &met {
        Json::Null => None,
        Json::Number(met) => Some(&**met),
        other => return Err(OperationFault::NotANumber(other.kind().into())),
    };
    let made = match operation {
        Operation::Add(..) => values::sum(met, by)?,
        Operation::Min(..) => values::pick(met, by, Ordering::Less),
        _ => values::pick(met, by, Ordering::Greater),
    };
    *place = Json::Number(made.into());
    Ok(document.to_string().into_bytes())
}

fn number_of(operation: &Operation) -> &Number {
    match operation {
        Operation::Add(_, by) | Operation::Min(_, by) | Operation::Max(_, by) => by,
        other => unreachable!("{other:?} has no number"),
    }
}
