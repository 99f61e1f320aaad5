//! Rows as commands, and the atomic step: rows and position together, and only where the store is
//! ours and its position is the expected one.
//!
//! Commands are gathered by partition, deletions first.
//!
//! One server: `WATCH` the record, read it, then `MULTI … EXEC`; Redis drops the `EXEC` when the
//! record was touched since. The `WATCH` for the next step rides behind the `EXEC`, so a step is
//! one round trip. Partitions: one script a partition, which checks its record and then writes;
//! a partition that is already further is left alone, so the least of all positions is true.
//!
//! A step that comes late over a lost connection finds a record that the next takeover has
//! changed, and does nothing.

use onelog_mapping::{Cell, MappingPlan, Plan, Row, TTL_SECONDS};
use onelog_store::{Change, StoreError, failpoint};
use redis::Value;

use crate::bookkeeping::{List, Names, Record, advance_position, read_command, read_records};
use crate::connection::{Commands, Form, Link, Many, Servers, command, script};
use crate::encode::{RowForm, write_plain, write_text};
use crate::error::is_moved;
use crate::fence::Fence;
use crate::scripts::Scripts;

/// How often a step is tried again when its record was touched but not changed.
const ATTEMPTS: usize = 5;
/// Commands up to this size are sent in one packet.
const PACKET_BYTES: usize = 64 << 10;
const WHAT: &str = "writing to";
const UNLINK: &[&[u8]] = &[b"UNLINK"];
const MSET: &[&[u8]] = &[b"MSET"];

/// Gathers the commands of one step.
pub(crate) struct Rows<'a> {
    plan: &'a Plan,
    forms: &'a [RowForm],
    names: &'a Names,
    parts: Vec<Part>,
    row: &'a mut Row,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// The commands of one partition.
struct Part {
    unlink: Many,
    first: Commands,
    set: Many,
    then: Commands,
}

/// What a step does to one partition.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Deletions, and whatever must come before writing.
    pub(crate) first: Commands,
    pub(crate) then: Commands,
}

impl Step {
    pub(crate) const fn new(form: Form) -> Self {
        Self {
            first: Commands::new(form),
            then: Commands::new(form),
        }
    }

    pub(crate) const fn count(&self) -> usize {
        self.first.count + self.then.count
    }
}

/// Where a row is written.
#[derive(Clone, Copy)]
enum Place {
    Live,
    Staging,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        forms: &'a [RowForm],
        names: &'a Names,
        row: &'a mut Row,
    ) -> Self {
        let form = match names.are_spread() {
            false => Form::Command,
            true => Form::Arguments,
        };
        let part = || Part {
            unlink: Many::default(),
            first: Commands::new(form),
            set: Many::default(),
            then: Commands::new(form),
        };
        Self {
            plan,
            forms,
            names,
            parts: (0..names.partitions()).map(|_| part()).collect(),
            row,
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Adds what a batch does to one mapping.
    pub(crate) fn changes(&mut self, mapping: usize, changes: &[Change]) -> Result<(), StoreError> {
        for change in changes {
            match &change.value {
                None => self.delete(mapping, &change.key),
                Some(value) => self.write(mapping, change, value, Place::Live)?,
            }
        }
        Ok(())
    }

    /// Deletes keys in every partition: a copy in a partition where it does not belong is no row,
    /// but another client may have made it.
    pub(crate) fn forget_copies(&mut self, mapping: usize, changes: &[Change]) {
        for change in changes {
            for partition in 0..self.parts.len() {
                self.find_name(mapping, partition, &change.key, Place::Live);
                let part = &mut self.parts[partition];
                part.unlink.push(UNLINK, &[&self.name], &mut part.first);
            }
        }
    }

    /// Adds rows of a rebuild.
    pub(crate) fn stage(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        let mut names = vec![Many::default(); self.parts.len()];
        for change in rows {
            let Some(value) = &change.value else { continue };
            self.write(mapping, change, value, Place::Staging)?;
            let partition = self.names.partition_of(&change.key);
            let list = self.names.list(List::New, partition, mapping);
            names[partition].push(
                &[b"RPUSH", &list],
                &[&change.key],
                &mut self.parts[partition].then,
            );
        }
        for (partition, mut many) in names.into_iter().enumerate() {
            let list = self.names.list(List::New, partition, mapping);
            many.finish(&[b"RPUSH", &list], &mut self.parts[partition].then);
        }
        Ok(())
    }

    fn delete(&mut self, mapping: usize, key: &[u8]) {
        let partition = self.names.partition_of(key);
        self.find_name(mapping, partition, key, Place::Live);
        let part = &mut self.parts[partition];
        part.unlink.push(UNLINK, &[&self.name], &mut part.first);
    }

    fn find_name(&mut self, mapping: usize, partition: usize, key: &[u8], place: Place) {
        self.name.clear();
        match place {
            Place::Live => {
                let template = &self.plan.mappings[mapping].key_template;
                self.names.row(template, partition, key, &mut self.name);
            }
            Place::Staging => {
                self.name = self.names.staging(partition, mapping);
                self.name.extend_from_slice(key);
            }
        }
    }

    fn write(
        &mut self,
        mapping: usize,
        change: &Change,
        value: &[u8],
        place: Place,
    ) -> Result<(), StoreError> {
        let plan = &self.plan.mappings[mapping];
        plan.project(&change.key, change.offset, value, self.row)
            .map_err(|fault| StoreError::refused_change(plan, change, fault))?;
        let partition = self.names.partition_of(&change.key);
        self.find_name(mapping, partition, &change.key, place);
        // A row of a rebuild begins to age when it is put in place.
        let life = match place {
            Place::Live => plan.options.count(TTL_SECONDS),
            Place::Staging => None,
        };
        let life = life.map(|seconds| seconds.to_string());
        let part = &mut self.parts[partition];
        if self.forms[mapping] == RowForm::Hash {
            // A key that another client made a string would refuse fields, and old fields must go.
            part.unlink.push(UNLINK, &[&self.name], &mut part.first);
            write_hash(plan, self.row, &self.name, &mut self.value, &mut part.then);
            if let Some(life) = life {
                part.then.push(&[b"EXPIRE", &self.name, life.as_bytes()]);
            }
            return Ok(());
        }
        self.value.clear();
        write_text(
            self.forms[mapping],
            &plan.columns,
            self.row,
            &mut self.value,
        );
        match life {
            Some(life) => {
                let set: [&[u8]; 5] = [b"SET", &self.name, &self.value, b"EX", life.as_bytes()];
                part.then.push(&set);
            }
            None => part
                .set
                .push(MSET, &[&self.name, &self.value], &mut part.then),
        }
        Ok(())
    }

    /// The steps, one for each partition.
    pub(crate) fn finish(self) -> Vec<Step> {
        self.parts
            .into_iter()
            .map(|mut part| {
                part.unlink.finish(UNLINK, &mut part.first);
                part.set.finish(MSET, &mut part.then);
                Step {
                    first: part.first,
                    then: part.then,
                }
            })
            .collect()
    }
}

fn write_hash(
    plan: &MappingPlan,
    row: &Row,
    name: &[u8],
    value: &mut Vec<u8>,
    commands: &mut Commands,
) {
    let there = row.cells.iter().filter(|cell| **cell != Cell::Null).count();
    commands.begin(2 + 2 * there);
    commands.part(b"HSET");
    commands.part(name);
    for (column, cell) in plan.columns.iter().zip(&row.cells) {
        if *cell != Cell::Null {
            value.clear();
            write_plain(cell, value);
            commands.part(column.name.as_bytes());
            commands.part(value);
        }
    }
}

/// A step on one server.
pub(crate) fn commit_watched(
    link: &mut Link,
    name: &[u8],
    watched: &mut Option<Record>,
    fence: Fence<'_>,
    step: &Step,
) -> Result<(), StoreError> {
    let mut finish = Commands::new(Form::Command);
    if let Some((_, to)) = fence.step {
        advance_position(name, to, &mut finish);
    }
    for _ in 0..ATTEMPTS {
        let rode = watched.is_some();
        let record = match watched.take() {
            Some(record) => record,
            None => watch(link, name)?,
        };
        if let Err(error) = fence.check(std::slice::from_ref(&record)) {
            // What was read with the last step may be old.
            if rode {
                continue;
            }
            return Err(error);
        }
        failpoint::hit(fence.sink, "before_commit");
        if execute(link, name, watched, step, &finish)? {
            return Ok(());
        }
    }
    Err(StoreError::Unavailable {
        what: format!("{WHAT} Redis at {}", link.place),
        cause: "another client touches the record of the position again and again".into(),
    })
}

fn watch(link: &mut Link, name: &[u8]) -> Result<Record, StoreError> {
    let mut bytes = Vec::new();
    command(&[b"UNWATCH"], &mut bytes);
    command(&[b"WATCH", name], &mut bytes);
    read_command(name, &mut bytes);
    link.send(&bytes)?;
    let answers = [link.receive()?, link.receive()?];
    let record = link.receive()?;
    for answer in answers {
        link.good(WHAT, answer)?;
    }
    Record::parse(link, record)
}

/// Runs the step; `false`: nothing was done, because the record was touched.
fn execute(
    link: &mut Link,
    name: &[u8],
    watched: &mut Option<Record>,
    step: &Step,
    finish: &Commands,
) -> Result<bool, StoreError> {
    let mut begin = Vec::new();
    command(&[b"MULTI"], &mut begin);
    let mut end = finish.bytes.clone();
    command(&[b"EXEC"], &mut end);
    command(&[b"WATCH", name], &mut end);
    read_command(name, &mut end);
    send_all(link, &[&begin, &step.first.bytes, &step.then.bytes, &end])?;

    let mut refused = None;
    let mut note = |link: &Link, value: Value| match link.good(WHAT, value) {
        Ok(value) => value,
        Err(error) => {
            refused.get_or_insert(error);
            Value::Nil
        }
    };
    for _ in 0..1 + step.count() + finish.count {
        let value = link.receive()?;
        note(link, value);
    }
    let value = link.receive()?;
    let done = note(link, value);
    let value = link.receive()?;
    note(link, value);
    let record = link.receive()?;
    if let Some(error) = refused {
        return Err(error);
    }
    match done {
        Value::Nil => Ok(false),
        Value::Array(answers) => {
            let fault = answers.into_iter().find_map(|answer| match answer {
                Value::ServerError(error) => Some(error),
                _ => None,
            });
            if let Some(error) = fault {
                return Err(forget_position(link, name, &error));
            }
            *watched = Some(Record::parse(link, record)?);
            Ok(true)
        }
        other => Err(link.unexpected(WHAT, &other)),
    }
}

/// `EXEC` does not undo: when one of its commands failed after all, the position is not true.
fn forget_position(link: &mut Link, name: &[u8], error: &redis::ServerError) -> StoreError {
    let forgotten = link.request(WHAT, &[b"HDEL", name, b"position"]);
    let then = match forgotten {
        Ok(_) => {
            "so its position was forgotten; resume the sink, then it backfills the store".to_owned()
        }
        Err(error) => {
            format!("and its position could not be forgotten ({error}); rebuild the sink")
        }
    };
    StoreError::Broken {
        what: format!("{WHAT} Redis at {}", link.place),
        cause: format!("{error}; the rest of the batch was written, {then}").into(),
    }
}

fn send_all(link: &mut Link, parts: &[&[u8]]) -> Result<(), StoreError> {
    if parts.iter().map(|part| part.len()).sum::<usize>() <= PACKET_BYTES {
        return link.send(&parts.concat());
    }
    parts
        .iter()
        .filter(|part| !part.is_empty())
        .try_for_each(|part| link.send(part))
}

/// A step on partitions: those that have something to do or to move.
pub(crate) fn commit_partitions(
    servers: &mut Servers,
    names: &Names,
    scripts: &Scripts,
    fence: Fence<'_>,
    steps: &mut [Step],
) -> Result<(), StoreError> {
    let records = read_records(servers, names)?;
    fence.check(&records)?;
    failpoint::hit(fence.sink, "before_commit");
    let epoch = fence.epoch.to_string();
    let mut outcome = Ok(());
    let mut sent: Vec<(usize, Vec<usize>)> = Vec::new();
    for (link, (connection, partitions)) in servers.by_link().into_iter().enumerate() {
        let mut bytes = Vec::new();
        let mut requested = Vec::new();
        for partition in partitions {
            let (step, record) = (&mut steps[partition], &records[partition]);
            let name = names.position(partition);
            let mut expected = String::new();
            if let Some((from, to)) = fence.step {
                let at = record.position.unwrap_or(0);
                // It was done before the others, in an attempt that ended in the middle.
                if at >= to.position.get() && from != to.position {
                    continue;
                }
                expected = at.to_string();
                advance_position(&name, to, &mut step.then);
            } else if step.count() == 0 {
                continue;
            }
            let mut commands = step.first.clone();
            commands.append(&step.then);
            let arguments = [
                epoch.as_bytes(),
                expected.as_bytes(),
                fence.log.as_bytes(),
                fence.plan.as_bytes(),
            ];
            bytes.append(&mut script(&scripts.fenced, &name, &arguments, &commands));
            requested.push(partition);
        }
        connection.send(&bytes)?;
        sent.push((link, requested));
    }
    for (link, requested) in sent {
        for _ in requested {
            let link = &mut servers.links[link];
            let value = link.receive()?;
            outcome = outcome.and(answer_of_fence(link, fence, value));
        }
    }
    outcome
}

fn answer_of_fence(link: &Link, fence: Fence<'_>, value: Value) -> Result<(), StoreError> {
    match value {
        Value::Okay => Ok(()),
        Value::BulkString(text) if text == b"OK" => Ok(()),
        Value::ServerError(error) if is_moved(&error) || error.code() == "NOSCRIPT" => {
            Err(StoreError::Unavailable {
                what: format!("{WHAT} Redis at {}", link.place),
                cause: format!(
                    "{error}; the cluster is queried again for the server that has this partition"
                )
                .into(),
            })
        }
        Value::Array(_) => {
            let record = Record::parse(link, value)?;
            fence.check_epoch(&record)?;
            Err(StoreError::PositionMismatch {
                expected: fence.step.map(|(from, _)| from),
                found: record.position_under(fence.plan),
            })
        }
        other => {
            let other = link.good(WHAT, other)?;
            Err(link.unexpected(WHAT, &other))
        }
    }
}
