//! The atomic step: rows and position together, and only where the store is ours and stands where
//! it should.
//!
//! One server: `WATCH` the record, read it, then `MULTI … EXEC`; Redis drops the `EXEC` when the
//! record was touched since. The `WATCH` for the next step rides behind the `EXEC`, so a step is
//! one round trip. Partitions: one script a partition, which checks its record and then writes;
//! a partition that is already further is left alone, so the least of all positions is true.
//!
//! A step that comes late over a lost connection finds a record that the next takeover has
//! changed, and does nothing.

use onelog_record::Position;
use redis::Value;

use super::link::{Link, is_moved};
use super::names::Names;
use super::record::{self, Record, least, read_command};
use super::rows::Step;
use super::scripts::Scripts;
use super::servers::Servers;
use super::wire::{self, Commands, Form};
use onelog_store::{StoreError, failpoint};

/// How often a step is tried again when its record was touched but not changed.
const ATTEMPTS: usize = 5;
/// Commands up to this size are sent in one packet.
const PACKET_BYTES: usize = 64 << 10;
const WHAT: &str = "writing to";

/// What must be true of the record.
#[derive(Clone, Copy)]
pub(super) struct Guard<'a> {
    pub(super) sink: &'a str,
    pub(super) log: &'a str,
    pub(super) plan: &'a str,
    pub(super) epoch: u64,
    /// Where the store must stand and where it stands afterwards; `None`: anywhere, and it stays.
    pub(super) step: Option<(Position, Position)>,
}

impl Guard<'_> {
    /// Whether a record is ours.
    pub(super) fn check_epoch(&self, record: &Record) -> Result<(), StoreError> {
        match record.epoch {
            Some(epoch) if epoch == self.epoch => Ok(()),
            Some(found) => Err(StoreError::Fenced {
                ours: self.epoch,
                found,
            }),
            None => Err(StoreError::PositionMismatch {
                expected: self.step.map_or(Position::ZERO, |(from, _)| from),
                found: None,
            }),
        }
    }

    /// Whether the store stands where it should.
    fn check(&self, records: &[Record]) -> Result<(), StoreError> {
        records
            .iter()
            .try_for_each(|record| self.check_epoch(record))?;
        let Some((from, to)) = self.step else {
            return Ok(());
        };
        let found = least(records, self.plan);
        let mut stands = found
            .as_ref()
            .is_some_and(|found| found.log_id == self.log && found.position == from);
        // A repair writes everywhere, so no partition may be further.
        stands &= from != to || records.iter().all(|r| r.position == Some(from.get()));
        match stands {
            true => Ok(()),
            false => Err(StoreError::PositionMismatch {
                expected: from,
                found,
            }),
        }
    }
}

/// A step on one server.
pub(super) fn commit_watched(
    link: &mut Link,
    name: &[u8],
    watched: &mut Option<Record>,
    guard: Guard<'_>,
    step: &Step,
) -> Result<(), StoreError> {
    let mut finish = Commands::new(Form::Command);
    if let Some((_, to)) = guard.step {
        finish.push(&[b"HSET", name, b"position", to.to_string().as_bytes()]);
    }
    for _ in 0..ATTEMPTS {
        let rode = watched.is_some();
        let record = match watched.take() {
            Some(record) => record,
            None => watch(link, name)?,
        };
        if let Err(error) = guard.check(std::slice::from_ref(&record)) {
            // What was read with the last step may be old.
            if rode {
                continue;
            }
            return Err(error);
        }
        failpoint::hit(guard.sink, "before_commit");
        if execute(link, name, watched, step, &finish)? {
            return Ok(());
        }
    }
    Err(StoreError::Unavailable {
        what: format!("{WHAT} Redis at {}", link.place),
        cause: "the record of the position is touched again and again by somebody".into(),
    })
}

fn watch(link: &mut Link, name: &[u8]) -> Result<Record, StoreError> {
    let mut bytes = Vec::new();
    wire::command(&[b"UNWATCH"], &mut bytes);
    wire::command(&[b"WATCH", name], &mut bytes);
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
    wire::command(&[b"MULTI"], &mut begin);
    let mut end = finish.bytes.clone();
    wire::command(&[b"EXEC"], &mut end);
    wire::command(&[b"WATCH", name], &mut end);
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
        other => Err(link.strange(WHAT, &other)),
    }
}

/// `EXEC` does not undo: when one of its commands failed after all, the position is not true.
fn forget_position(link: &mut Link, name: &[u8], error: &redis::ServerError) -> StoreError {
    let forgotten = link.ask(WHAT, &[b"HDEL", name, b"position"]);
    let then = match forgotten {
        Ok(_) => "so its position was forgotten; resume the sink, then it fills the store anew"
            .to_owned(),
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
pub(super) fn commit_partitions(
    servers: &mut Servers,
    names: &Names,
    scripts: &Scripts,
    guard: Guard<'_>,
    steps: &mut [Step],
) -> Result<(), StoreError> {
    let records = record::read_all(servers, names)?;
    guard.check(&records)?;
    failpoint::hit(guard.sink, "before_commit");
    let epoch = guard.epoch.to_string();
    let mut outcome = Ok(());
    let mut sent: Vec<(usize, Vec<usize>)> = Vec::new();
    for (link, (connection, partitions)) in servers.by_link().into_iter().enumerate() {
        let mut bytes = Vec::new();
        let mut asked = Vec::new();
        for partition in partitions {
            let (step, record) = (&mut steps[partition], &records[partition]);
            let name = names.position(partition);
            let mut expected = String::new();
            if let Some((from, to)) = guard.step {
                let at = record.position.unwrap_or(0);
                // It was done before the others, in an attempt that ended in the middle.
                if at >= to.get() && from != to {
                    continue;
                }
                expected = at.to_string();
                let to = to.to_string();
                step.then
                    .push(&[b"HSET", &name, b"position", to.as_bytes()]);
            } else if step.count() == 0 {
                continue;
            }
            let mut commands = step.first.clone();
            commands.append(&step.then);
            let words = [
                epoch.as_bytes(),
                expected.as_bytes(),
                guard.log.as_bytes(),
                guard.plan.as_bytes(),
            ];
            bytes.append(&mut wire::script(&scripts.guard, &name, &words, &commands));
            asked.push(partition);
        }
        connection.send(&bytes)?;
        sent.push((link, asked));
    }
    for (link, asked) in sent {
        for _ in asked {
            let link = &mut servers.links[link];
            let value = link.receive()?;
            outcome = outcome.and(answer_of_guard(link, guard, value));
        }
    }
    outcome
}

fn answer_of_guard(link: &Link, guard: Guard<'_>, value: Value) -> Result<(), StoreError> {
    match value {
        Value::Okay => Ok(()),
        Value::BulkString(text) if text == b"OK" => Ok(()),
        Value::ServerError(error) if is_moved(&error) || error.code() == "NOSCRIPT" => {
            Err(StoreError::Unavailable {
                what: format!("{WHAT} Redis at {}", link.place),
                cause: format!("{error}; the cluster is asked again who has this partition").into(),
            })
        }
        Value::Array(_) => {
            let record = Record::parse(link, value)?;
            guard.check_epoch(&record)?;
            Err(StoreError::PositionMismatch {
                expected: guard.step.map_or(Position::ZERO, |(from, _)| from),
                found: record.stands(guard.plan),
            })
        }
        other => {
            let other = link.good(WHAT, other)?;
            Err(link.strange(WHAT, &other))
        }
    }
}
