//! Reading rows back: of a snapshot at one position, or as they are.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;

use onelog_mapping::{Plan, Row};
use onelog_record::Position;
use onelog_store::{EachRow, IndexCheck, StoreError, StoreReader};
use redis::Value;

use crate::bookkeeping::{Names, Record, least, read_records};
use crate::connection::{Link, Servers, command};
use crate::decode::{Content, read, read_key, read_misplaced};
use crate::encode::RowForm;
use crate::snapshot::{Gate, Snapshot};

/// How many keys are read at once.
pub(crate) const SCAN_KEYS: &[u8] = b"1000";
/// How many rows are read at once.
pub(crate) const READ_ROWS: usize = 1000;

/// What some keys hold. `None`: nothing.
pub(crate) fn read_contents(
    link: &mut Link,
    wanted: &[(RowForm, &[u8])],
) -> Result<Vec<Option<Content>>, StoreError> {
    let mut out = Vec::with_capacity(wanted.len());
    for part in wanted.chunks(READ_ROWS) {
        let mut bytes = Vec::new();
        for (form, name) in part {
            command(&[form.reading(), name], &mut bytes);
        }
        link.send(&bytes)?;
        for _ in part {
            out.push(receive_content(link)?);
        }
    }
    Ok(out)
}

fn receive_content(link: &mut Link) -> Result<Option<Content>, StoreError> {
    let what = "reading rows from";
    let fields = |items: Vec<Value>| {
        let mut out = Vec::with_capacity(items.len() / 2);
        let mut items = items.into_iter();
        while let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) =
            (items.next(), items.next())
        {
            out.push((name, value));
        }
        (!out.is_empty()).then_some(Content::Fields(out))
    };
    match link.receive()? {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(Content::Text(bytes))),
        Value::Array(items) => Ok(fields(items)),
        Value::ServerError(error) if error.code() == "WRONGTYPE" => Ok(Some(Content::Foreign)),
        other => {
            let other = link.good(what, other)?;
            Err(link.unexpected(what, &other))
        }
    }
}

/// The next keys that fit a pattern, and the cursor behind them.
pub(crate) fn receive_keys(link: &mut Link) -> Result<(Vec<u8>, Vec<Vec<u8>>), StoreError> {
    let what = "scanning the keys of";
    let answer = link.receive_good(what)?;
    let Value::Array(parts) = answer else {
        return Err(link.unexpected(what, &answer));
    };
    match <[Value; 2]>::try_from(parts) {
        Ok([Value::BulkString(cursor), Value::Array(names)]) => {
            let names = names.into_iter().filter_map(|name| match name {
                Value::BulkString(name) => Some(name),
                _ => None,
            });
            Ok((cursor, names.collect()))
        }
        _ => Err(link.unexpected(what, &Value::Nil)),
    }
}

pub(crate) fn scan_command(cursor: &[u8], pattern: &[u8], out: &mut Vec<u8>) {
    command(
        &[b"SCAN", cursor, b"MATCH", pattern, b"COUNT", SCAN_KEYS],
        out,
    );
}

/// Calls `each` with keys of one server that fit a pattern; a key may come more than once.
pub(crate) fn scan_keys(
    link: &mut Link,
    pattern: &[u8],
    mut each: impl FnMut(&mut Link, Vec<Vec<u8>>) -> Result<ControlFlow<()>, StoreError>,
) -> Result<ControlFlow<()>, StoreError> {
    let mut cursor = b"0".to_vec();
    loop {
        let mut bytes = Vec::new();
        scan_command(&cursor, pattern, &mut bytes);
        link.send(&bytes)?;
        let (next, names) = receive_keys(link)?;
        if each(link, names)? == ControlFlow::Break(()) {
            return Ok(ControlFlow::Break(()));
        }
        if next == b"0" {
            return Ok(ControlFlow::Continue(()));
        }
        cursor = next;
    }
}

/// Reads a store's rows as they were at one position, or as they are.
pub(crate) struct RedisReader {
    servers: Servers,
    names: Names,
    plan: Arc<Plan>,
    forms: Vec<RowForm>,
    position: Position,
    moment: Option<Moment>,
}

/// What fixes a snapshot in time.
struct Moment {
    gate: Arc<Gate>,
    snapshot: Arc<Snapshot>,
    epoch: u64,
}

impl RedisReader {
    /// Opens a snapshot at the store's present position.
    pub(crate) fn open(
        mut servers: Servers,
        names: Names,
        plan: Arc<Plan>,
        fingerprint: &str,
        gate: &Arc<Gate>,
    ) -> Result<Self, StoreError> {
        let entered = gate.enter();
        let records = read_records(&mut servers, &names)?;
        let Some(found) = least(&records, fingerprint) else {
            return Err(StoreError::PositionMismatch {
                expected: None,
                found: None,
            });
        };
        let is_there = |record: &Record| record.position == Some(found.position.get());
        if !records.iter().all(is_there) {
            return Err(StoreError::Unavailable {
                what: "opening a snapshot of the rows in Redis".into(),
                cause: "the partitions are at different positions until the next batch".into(),
            });
        }
        let snapshot = gate.open();
        drop(entered);
        Ok(Self {
            servers,
            names,
            forms: plan.mappings.iter().map(RowForm::of).collect(),
            plan,
            position: found.position,
            moment: Some(Moment {
                gate: Arc::clone(gate),
                snapshot,
                epoch: found.epoch,
            }),
        })
    }

    /// The rows as they are while others may write them.
    pub(crate) fn unfixed(servers: Servers, names: Names, plan: Arc<Plan>) -> Self {
        Self {
            servers,
            names,
            forms: plan.mappings.iter().map(RowForm::of).collect(),
            plan,
            position: Position::ZERO,
            moment: None,
        }
    }

    /// Whether the snapshot was kept up to now.
    fn check_moment(&mut self) -> Result<(), StoreError> {
        let Some(moment) = &self.moment else {
            return Ok(());
        };
        let lost = |cause: &str| {
            Err(StoreError::Unavailable {
                what: format!("comparing the rows in Redis at position {}", self.position),
                cause: cause.into(),
            })
        };
        if moment.snapshot.is_abandoned() {
            return lost(
                "more rows changed during the comparison than are kept for it; compare again when less is written",
            );
        }
        let (first, latest) = (moment.epoch, *moment.gate.epoch.lock());
        let foreign = |record: &Record| {
            record
                .epoch
                .is_none_or(|epoch| epoch != first && Some(epoch) != latest)
        };
        let back = |record: &Record| record.position.is_some_and(|at| at < self.position.get());
        let records = read_records(&mut self.servers, &self.names)?;
        if records.iter().any(foreign) {
            return lost("another process wrote for this sink meanwhile; compare again");
        }
        if records.iter().any(back) {
            return lost("Redis went back to older data meanwhile; compare again");
        }
        Ok(())
    }

    /// The row of a key as it was in the snapshot.
    fn row(&self, mapping: usize, name: &[u8], now: Option<Content>, row: &mut Row) -> Option<()> {
        let plan = &self.plan.mappings[mapping];
        let key = self.names.strip(&plan.key_template, name)?;
        let old = self
            .moment
            .as_ref()
            .and_then(|moment| moment.snapshot.preserved(mapping, name));
        let content = old.unwrap_or(now)?;
        if !self.names.is_placed(name, key) {
            read_misplaced(plan, key, row);
            return Some(());
        }
        let is_ours = self.moment.is_some();
        read(plan, self.forms[mapping], key, &content, is_ours, row);
        Some(())
    }

    /// One server's keys and their rows; the next keys are requested together with the rows.
    fn scan_link(
        &mut self,
        link: usize,
        mapping: usize,
        seen: &mut Seen,
        each: EachRow<'_>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let template = &self.plan.mappings[mapping].key_template;
        let pattern = self.names.pattern(template);
        let reading = self.forms[mapping].reading();
        let mut row = Row::default();
        let mut bytes = Vec::new();
        scan_command(b"0", &pattern, &mut bytes);
        let mut requested: Vec<Vec<u8>> = Vec::new();
        let mut last = false;
        loop {
            self.servers.links[link].send(&bytes)?;
            let mut contents = Vec::with_capacity(requested.len());
            for _ in &requested {
                contents.push(receive_content(&mut self.servers.links[link])?);
            }
            let mut next = Vec::new();
            bytes.clear();
            if !last {
                let (cursor, names) = receive_keys(&mut self.servers.links[link])?;
                let template = &self.plan.mappings[mapping].key_template;
                let fits = |name: &Vec<u8>| self.names.strip(template, name).is_some();
                next = names
                    .into_iter()
                    .filter(|name| fits(name) && seen.is_new(name))
                    .collect();
                for name in &next {
                    command(&[reading, name], &mut bytes);
                }
                last = cursor == b"0";
                if !last {
                    scan_command(&cursor, &pattern, &mut bytes);
                }
            }
            for (name, content) in requested.iter().zip(contents) {
                if self.row(mapping, name, content, &mut row).is_some()
                    && each(&row) == ControlFlow::Break(())
                {
                    // Nothing is under way: the next commands were not sent yet.
                    return Ok(ControlFlow::Break(()));
                }
            }
            requested = next;
            if last && requested.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }
}

impl StoreReader for RedisReader {
    fn position(&self) -> Position {
        self.position
    }

    fn scan(&mut self, mapping: usize, each: EachRow<'_>) -> Result<(), StoreError> {
        let mut seen = Seen::default();
        for link in 0..self.servers.links.len() {
            if self.scan_link(link, mapping, &mut seen, each)? == ControlFlow::Break(()) {
                return self.check_moment();
            }
        }
        // What was deleted before the scan came to it.
        let gone = self
            .moment
            .as_ref()
            .map_or_else(Vec::new, |moment| moment.snapshot.names(mapping));
        let mut row = Row::default();
        for name in gone {
            if seen.is_new(&name)
                && self.row(mapping, &name, None, &mut row).is_some()
                && each(&row) == ControlFlow::Break(())
            {
                break;
            }
        }
        self.check_moment()
    }

    /// The names of keys say it; no value is read. A key counts once, in whatever partitions it is:
    /// what is left of it elsewhere is lost only where the log does not have it.
    fn scan_keys(&mut self, mapping: usize, each: EachRow<'_>) -> Result<(), StoreError> {
        let plan = &self.plan.mappings[mapping];
        let (names, pattern) = (&self.names, self.names.pattern(&plan.key_template));
        let mut seen = Seen::default();
        let mut row = Row::default();
        for link in &mut self.servers.links {
            let flow = scan_keys(link, &pattern, |_, found| {
                for name in found {
                    let Some(key) = names.strip(&plan.key_template, &name) else {
                        continue;
                    };
                    if !seen.is_new(key) {
                        continue;
                    }
                    read_key(plan, key, &mut row);
                    if each(&row) == ControlFlow::Break(()) {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if flow == ControlFlow::Break(()) {
                break;
            }
        }
        self.check_moment()
    }

    fn check_index(
        &mut self,
        _mapping: usize,
        _faults_max: usize,
    ) -> Result<Option<IndexCheck>, StoreError> {
        Ok(None)
    }
}

/// Which keys a scan has met, as hashes of 128 bits: `SCAN` may give a key twice.
#[derive(Default)]
pub(crate) struct Seen {
    keys: HashSet<(u64, u64)>,
    first: RandomState,
    second: RandomState,
}

impl Seen {
    pub(crate) fn is_new(&mut self, name: &[u8]) -> bool {
        let hash = (self.first.hash_one(name), self.second.hash_one(name));
        self.keys.insert(hash)
    }
}
