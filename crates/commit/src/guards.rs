//! Conditions on the newest state, everything accepted before included.

use bytes::Bytes;
use onelog_record::{Guard, Json, Predicate, Refusal, Subject, ValueKind};

use crate::json;
use crate::newest::Now;
use crate::reads::keyed_table;
use crate::rejection::Rejection;
use crate::view::Rules;

/// Refuses a guard that does not hold. A value that is no JSON fails every comparison of a field.
pub fn check(
    now: &Now<'_>,
    rules: &dyn Rules,
    index: usize,
    guard: &Guard,
) -> Result<(), Rejection> {
    let table = keyed_table(rules, guard.table, || Subject::Guard(index))?;
    let newest = now.newest(guard.table, &guard.key)?;
    let present = newest.value.is_some();
    let holds = match &guard.predicate {
        Predicate::Exists => present,
        Predicate::Absent => !present,
        Predicate::Version(version) => present && newest.version == Some(*version),
        Predicate::Field {
            path,
            compare,
            value,
        } => {
            if table.definition.value == ValueKind::Bytes {
                return Err(Rejection::malformed(format!(
                    "guards[{index}] compares a field, but the values of table '{}' are bytes",
                    table.definition.name
                )));
            }
            let met = parse(now, newest.value.as_ref())?;
            met.is_some_and(|met| {
                json::holds(
                    met.get(path).unwrap_or(&Json::Null),
                    *compare,
                    &value.json(),
                )
            })
        }
    };
    if holds {
        return Ok(());
    }
    Err(Rejection::after(
        Refusal::GuardFailed {
            index,
            version: newest.version.filter(|_| present),
            met: newest.value,
            retry_at: now.readable(newest.after),
        },
        newest.after,
    ))
}

fn parse<'v>(now: &Now<'_>, value: Option<&'v Bytes>) -> Result<Option<Json<'v>>, Rejection> {
    let Some(value) = value else {
        return Ok(Some(Json::Null));
    };
    now.work.parse(now, value.len())?;
    Ok(Json::parse(value).ok())
}
