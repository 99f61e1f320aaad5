//! What a partition says about itself: its log, position, epoch and plan.

use onelog_mapping::{HashLength, Plan};
use onelog_record::Position;
use onelog_store::{Followed, LogPlace, StoreError, StorePosition};
use redis::Value;

use super::former::read_counterpart;
use super::names::Names;
use crate::connection::{Commands, Link, Servers, command};
use crate::scripts::Scripts;

/// The fields of a partition's record, in the order in which they are read.
const FIELDS: [&[u8]; 5] = [b"log", b"position", b"epoch", b"plan", b"chain"];
const WHAT: &str = "reading the position in";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) log: Option<String>,
    pub(crate) position: Option<u64>,
    pub(crate) epoch: Option<u64>,
    pub(crate) plan: Option<String>,
    pub(crate) chain: Option<u32>,
}

impl Record {
    /// Reads the answer to `HMGET … FIELDS`.
    pub(crate) fn parse(link: &Link, value: Value) -> Result<Self, StoreError> {
        let value = link.good(WHAT, value)?;
        let Value::Array(fields) = &value else {
            return Err(link.unexpected(WHAT, &value));
        };
        let mut texts = Vec::with_capacity(FIELDS.len());
        for field in fields {
            texts.push(match field {
                Value::Nil => None,
                Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                other => return Err(link.unexpected(WHAT, other)),
            });
        }
        let [log, position, epoch, plan, chain] = texts
            .try_into()
            .map_err(|_| link.unexpected(WHAT, &value))?;
        let number = |name: &str, text: Option<String>| {
            match text {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|error| StoreError::Broken {
                what: format!("{WHAT} Redis at {}", link.place),
                cause: format!(
                    "the field '{name}' of a key 'onelog:position:…' is '{text}' ({error}); delete that key, then the sink backfills the store"
                )
                .into(),
            }),
        }
        };
        Ok(Self {
            log,
            position: number("position", position)?,
            epoch: number("epoch", epoch)?,
            plan,
            chain: number("chain", chain.filter(|chain| !chain.is_empty()))?
                .and_then(|chain| chain.try_into().ok()),
        })
    }

    /// The position under `plan`.
    pub(crate) fn position_under(&self, plan: &str) -> Option<StorePosition> {
        if self.plan.as_deref() != Some(plan) {
            return None;
        }
        Some(StorePosition {
            log_id: self.log.clone()?,
            position: Position(self.position?),
            chain: self.chain,
            epoch: self.epoch?,
        })
    }
}

/// The command that reads a record.
pub(crate) fn read_command(name: &[u8], out: &mut Vec<u8>) {
    let [log, position, epoch, plan, chain] = FIELDS;
    command(&[b"HMGET", name, log, position, epoch, plan, chain], out);
}

/// The records of all partitions.
pub(crate) fn read_records(
    servers: &mut Servers,
    names: &Names,
) -> Result<Vec<Record>, StoreError> {
    let mut out = vec![Record::default(); names.partitions()];
    for (link, partitions) in servers.by_link() {
        let mut bytes = Vec::new();
        for partition in &partitions {
            read_command(&names.position(*partition), &mut bytes);
        }
        link.send(&bytes)?;
        for partition in partitions {
            let value = link.receive()?;
            out[partition] = Record::parse(link, value)?;
        }
    }
    Ok(out)
}

/// The least position of these partitions, which is the store's. `None` when one of them was never
/// backfilled, or follows another log than the others.
pub(crate) fn least(records: &[Record], plan: &str) -> Option<StorePosition> {
    let mut least: Option<StorePosition> = None;
    for record in records {
        let found = record.position_under(plan)?;
        least = Some(match least {
            None => found,
            Some(before) if before.log_id != found.log_id => return None,
            Some(before) => {
                let epoch = before.epoch.max(found.epoch);
                let least = match found.position < before.position {
                    true => found,
                    false => before,
                };
                StorePosition { epoch, ..least }
            }
        });
    }
    least
}

/// The position of the store under this plan.
pub(crate) fn read_position(
    servers: &mut Servers,
    names: &Names,
    plan: &str,
) -> Result<Option<StorePosition>, StoreError> {
    Ok(least(&read_records(servers, names)?, plan))
}

/// Adds the command that moves a partition to `position`.
pub(crate) fn advance_position(name: &[u8], place: LogPlace, commands: &mut Commands) {
    let (position, chain) = (place.position.to_string(), chain_text(place));
    let (position, chain) = (position.as_bytes(), chain.as_bytes());
    commands.push(&[b"HSET", name, b"position", position, b"chain", chain]);
}

/// The field `chain`; empty: not known.
pub(crate) fn chain_text(place: LogPlace) -> String {
    place
        .chain
        .map_or_else(String::new, |chain| chain.to_string())
}

/// What the sink of this name follows, under any plan and any number of partitions.
pub(crate) fn followed(
    servers: &mut Servers,
    names: &Names,
    log_id: &str,
) -> Result<Option<Followed>, StoreError> {
    let mut records = read_records(servers, names)?;
    if let Some(other) = read_counterpart(servers, names)? {
        // A takeover fails by it, whatever the other records say.
        if other.log.as_deref().is_some_and(|log| log != log_id) {
            return Ok(furthest(vec![other]));
        }
        records.push(other);
    }
    Ok(furthest(records))
}

fn furthest(records: Vec<Record>) -> Option<Followed> {
    let place_of = |record: &Record| {
        Some(LogPlace {
            position: Position(record.position?),
            chain: record.chain,
        })
    };
    let of_log = records.into_iter().filter(|record| record.log.is_some());
    let furthest = of_log.reduce(|a, b| if b.position > a.position { b } else { a })?;
    Some(Followed {
        place: place_of(&furthest),
        log_id: furthest.log?,
    })
}

/// What a sink is taken over with.
pub(crate) struct TakeOver<'a> {
    pub(crate) log_id: &'a str,
    pub(crate) plan: &'a str,
    /// Another log whose sink may be taken.
    pub(crate) from: Option<&'a str>,
    pub(crate) first_epoch: u64,
}

/// The next epoch is drawn at the first partition, so that no two processes get the same one;
/// then the others join it. A sink that is known nowhere begins with `first_epoch`.
pub(crate) fn take_over(
    servers: &mut Servers,
    names: &Names,
    scripts: &Scripts,
    by: &TakeOver<'_>,
) -> Result<u64, StoreError> {
    let records = read_records(servers, names)?;
    let other = read_counterpart(servers, names)?;
    let counterpart = other.is_some().then(|| names.counterpart());
    let floor = records.iter().chain(&other).filter_map(|r| r.epoch).max();
    let floor = floor.unwrap_or(by.first_epoch.saturating_sub(1));
    let epoch_command = |partition: usize, how: &[u8], given: u64, out: &mut Vec<u8>| {
        let (name, given) = (names.position(partition), given.to_string());
        let mut arguments: Vec<&[u8]> = vec![b"EVALSHA", &scripts.take_over];
        match counterpart.as_deref().filter(|_| partition == 0) {
            None => arguments.extend([&b"1"[..], &name]),
            Some(counterpart) => arguments.extend([b"2", &name[..], counterpart]),
        }
        arguments.extend([
            how,
            given.as_bytes(),
            by.log_id.as_bytes(),
            by.plan.as_bytes(),
            by.from.unwrap_or_default().as_bytes(),
        ]);
        command(&arguments, out);
    };
    let mut bytes = Vec::new();
    epoch_command(0, b"draw", floor, &mut bytes);
    let first = servers.link(0);
    first.send(&bytes)?;
    let epoch = receive_epoch(first, by.log_id)?;
    let mut commands = vec![(Vec::new(), 0); servers.links.len()];
    for partition in 1..names.partitions() {
        let (bytes, count) = &mut commands[servers.of_partition[partition]];
        epoch_command(partition, b"join", epoch, bytes);
        *count += 1;
    }
    let mut outcome = Ok(epoch);
    for ((bytes, count), link) in commands.into_iter().zip(&mut servers.links) {
        link.send(&bytes)?;
        for _ in 0..count {
            let found = receive_epoch(link, by.log_id)?;
            if found != epoch {
                outcome = Err(StoreError::Fenced { ours: epoch, found });
            }
        }
    }
    outcome
}

fn receive_epoch(link: &mut Link, log_id: &str) -> Result<u64, StoreError> {
    let what = "taking over";
    match link.receive_good(what)? {
        Value::Int(epoch) => Ok(epoch.cast_unsigned()),
        Value::BulkString(log) => Err(StoreError::OtherLog {
            ours: log_id.to_owned(),
            found: String::from_utf8_lossy(&log).into_owned(),
        }),
        other => Err(link.unexpected(what, &other)),
    }
}

/// The same exactly for plans that make the same keys of the same tables.
pub(crate) fn plan_id(plan: &Plan, partitions: Option<u16>) -> String {
    // As servers keep it since the first version.
    let partitions = match partitions {
        Some(count) => format!("Some({count})"),
        None => "None".to_owned(),
    };
    plan.fingerprint_hash(HashLength::Half, Some(&partitions))
}

#[cfg(test)]
mod tests {
    use onelog_store::{StoreKind as _, conformance};

    use super::*;

    #[test]
    fn the_id_of_a_plan_that_servers_keep_has_not_changed() {
        const MAPPING: &str = r#"{"table":"shop.orders","into":"o","columns":{
            "id":{"from":"$key","type":"text"},"n":{"from":"/n","type":"real"}}}"#;
        let plan = conformance::plan_by(crate::KIND.rules(), MAPPING);
        assert_eq!(plan_id(&plan, None), "f79f60312146dc9c59d32c9875da079f");
        assert_eq!(plan_id(&plan, Some(16)), "2a5fc5212898c68dd174376833cd7459");
    }

    fn record(log: &str, position: Option<u64>, epoch: u64) -> Record {
        Record {
            log: Some(log.to_owned()),
            position,
            epoch: Some(epoch),
            plan: Some("plan".to_owned()),
            chain: position.map(|position| position as u32 + 100),
        }
    }

    #[test]
    fn the_position_of_a_store_is_the_least_of_its_partitions() {
        let found = least(&[record("a", Some(7), 3), record("a", Some(5), 3)], "plan");
        let found = found.unwrap();
        assert_eq!((found.position, found.chain), (Position(5), Some(105)));
        let found = least(&[record("a", Some(5), 2), record("a", Some(7), 3)], "plan").unwrap();
        assert_eq!(
            (found.position, found.chain, found.epoch),
            (Position(5), Some(105), 3)
        );
        for not_backfilled in [
            vec![record("a", Some(7), 3), record("a", None, 3)],
            vec![record("a", Some(7), 3), record("b", Some(7), 3)],
            vec![record("a", Some(7), 3), Record::default()],
        ] {
            assert_eq!(least(&not_backfilled, "plan"), None);
        }
        assert_eq!(least(&[record("a", Some(7), 3)], "another plan"), None);
    }
}
