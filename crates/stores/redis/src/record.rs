//! What a partition says about itself: its log, position, epoch and plan.

use onelog_record::Position;
use redis::Value;

use super::link::Link;
use super::names::Names;
use super::servers::Servers;
use super::wire;
use onelog_store::{StoreError, StorePosition};

/// The fields of a partition's record, in the order in which they are asked for.
pub(super) const FIELDS: [&[u8]; 4] = [b"log", b"position", b"epoch", b"plan"];
const WHAT: &str = "reading the position in";

/// A partition's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) log: Option<String>,
    pub(super) position: Option<u64>,
    pub(super) epoch: Option<u64>,
    pub(super) plan: Option<String>,
}

impl Record {
    /// Reads the answer to `HMGET … FIELDS`.
    pub(super) fn parse(link: &Link, value: Value) -> Result<Self, StoreError> {
        let value = link.good(WHAT, value)?;
        let Value::Array(fields) = &value else {
            return Err(link.strange(WHAT, &value));
        };
        let mut texts = Vec::with_capacity(FIELDS.len());
        for field in fields {
            texts.push(match field {
                Value::Nil => None,
                Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                other => return Err(link.strange(WHAT, other)),
            });
        }
        let [log, position, epoch, plan] =
            texts.try_into().map_err(|_| link.strange(WHAT, &value))?;
        let number = |name: &str, text: Option<String>| {
            match text {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|error| StoreError::Broken {
                what: format!("{WHAT} Redis at {}", link.place),
                cause: format!(
                    "the field '{name}' of a key 'onelog:position:…' is '{text}' ({error}); delete that key, then the sink fills the store anew"
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
        })
    }

    /// Where the partition stands under this plan.
    pub(super) fn stands(&self, plan: &str) -> Option<StorePosition> {
        if self.plan.as_deref() != Some(plan) {
            return None;
        }
        Some(StorePosition {
            log_id: self.log.clone()?,
            position: Position(self.position?),
            epoch: self.epoch?,
        })
    }
}

/// The command that reads a record.
pub(super) fn read_command(name: &[u8], out: &mut Vec<u8>) {
    let [log, position, epoch, plan] = FIELDS;
    wire::command(&[b"HMGET", name, log, position, epoch, plan], out);
}

/// The records of all partitions.
pub(super) fn read_all(servers: &mut Servers, names: &Names) -> Result<Vec<Record>, StoreError> {
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

/// Where a store of these partitions stands: where its last partition does. `None` when one of
/// them was never filled, or follows another log than the others.
pub(super) fn least(records: &[Record], plan: &str) -> Option<StorePosition> {
    let mut least: Option<StorePosition> = None;
    for record in records {
        let stands = record.stands(plan)?;
        least = Some(match least {
            None => stands,
            Some(before) if before.log_id != stands.log_id => return None,
            Some(before) => StorePosition {
                position: before.position.min(stands.position),
                epoch: before.epoch.max(stands.epoch),
                log_id: stands.log_id,
            },
        });
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(log: &str, position: Option<u64>, epoch: u64) -> Record {
        Record {
            log: Some(log.to_owned()),
            position,
            epoch: Some(epoch),
            plan: Some("plan".to_owned()),
        }
    }

    #[test]
    fn a_store_stands_where_its_last_partition_does() {
        let found = least(&[record("a", Some(7), 3), record("a", Some(5), 3)], "plan");
        assert_eq!(found.unwrap().position, Position(5));
        for unfilled in [
            vec![record("a", Some(7), 3), record("a", None, 3)],
            vec![record("a", Some(7), 3), record("b", Some(7), 3)],
            vec![record("a", Some(7), 3), Record::default()],
        ] {
            assert_eq!(least(&unfilled, "plan"), None);
        }
        assert_eq!(least(&[record("a", Some(7), 3)], "another plan"), None);
    }
}
