//! Conditions on the newest state, everything accepted before included.
//!
//! Guards of one key that follow one another are looked at together: its value is fetched and read
//! once, and no tree is made of it.

use onelog_record::{
    FOUND_AT_ONCE_MAX, FieldPath, Guard, Predicate, Refusal, Subject, ValueKind, find,
};

use crate::json;
use crate::newest::{Newest, Now};
use crate::reads::keyed_table;
use crate::rejection::Rejection;
use crate::view::Rules;

/// Refuses the first guard that does not hold.
pub fn check_all(now: &Now<'_>, rules: &dyn Rules, guards: &[Guard]) -> Result<(), Rejection> {
    let mut first = 0;
    let of_a_key = guards.chunk_by(|one, next| one.table == next.table && one.key == next.key);
    for guards in of_a_key.flat_map(|guards| guards.chunks(FOUND_AT_ONCE_MAX)) {
        check_key(now, rules, first, guards)?;
        first += guards.len();
    }
    Ok(())
}

/// Checks guards of one key, the first of which has this index. A value that is no JSON fails every
/// comparison of a field.
fn check_key(
    now: &Now<'_>,
    rules: &dyn Rules,
    first: usize,
    guards: &[Guard],
) -> Result<(), Rejection> {
    let Some(Guard { table, key, .. }) = guards.first() else {
        return Ok(());
    };
    let table = keyed_table(rules, *table, || Subject::Guard(first))?;
    let newest = now.newest(table.definition.id, key)?;
    let paths: Vec<&FieldPath> = guards.iter().filter_map(path).collect();
    let looks_into = table.definition.value == ValueKind::Json && !paths.is_empty();
    let mut fields = Some([None; FOUND_AT_ONCE_MAX]);
    if let Some(value) = newest.value.as_ref().filter(|_| looks_into) {
        now.work.parse(now, value.len())?;
        fields = find(value, &paths).ok();
    }
    let mut fields = fields.into_iter().flatten();
    for (index, guard) in (first..).zip(guards) {
        let is_present = newest.value.is_some();
        let holds = match &guard.predicate {
            Predicate::Exists => is_present,
            Predicate::Absent => !is_present,
            Predicate::Version(version) => is_present && newest.version == Some(*version),
            Predicate::Field { .. } if table.definition.value == ValueKind::Bytes => {
                return Err(Rejection::malformed(format!(
                    "guards[{index}] compares a field, but the values of table '{}' are bytes",
                    table.definition.name
                )));
            }
            Predicate::Field { compare, value, .. } => match fields.next() {
                None => false,
                Some(met) => json::holds(now, met.unwrap_or("null"), *compare, value)?,
            },
        };
        if !holds {
            return Err(failed(now, index, &newest));
        }
    }
    Ok(())
}

fn path(guard: &Guard) -> Option<&FieldPath> {
    match &guard.predicate {
        Predicate::Field { path, .. } => Some(path),
        _ => None,
    }
}

fn failed(now: &Now<'_>, index: usize, newest: &Newest) -> Rejection {
    Rejection::after(
        Refusal::GuardFailed {
            index,
            version: newest.version.filter(|_| newest.value.is_some()),
            met: newest.value.clone(),
            retry_at: now.readable(newest.after),
        },
        newest.after,
    )
}
