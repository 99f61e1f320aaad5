//! Fields whose values may occur only once in a table.
//!
//! The owner of a value is kept in a row of the system table `onelog.unique`, written by the transaction
//! that gave or took the value, behind its own records:
//!
//! ```text
//! key   := table u32 BE | field number u16 BE | value
//! value := the canonical JSON text, when it has at most UNIQUE_TEXT_BYTES_MAX bytes
//!        | 0x00 | BLAKE3 of that text [32]        (no JSON text begins with a zero byte)
//! row   := the key of the owner
//! ```
//! `null` and missing values have no owner. The values of a transaction's end state are
//! compared, so two keys may swap theirs in one transaction.

use bytes::Bytes;
use hashbrown::HashMap;
use onelog_record::{
    CommitRequest, FOUND_AT_ONCE_MAX, FieldPath, Json, JsonText, Op, Position, Refusal,
    TABLE_UNIQUE, TableDefinition, TableId, ValueKind, find, unique_rows_of,
};

use crate::newest::Now;
use crate::rejection::Rejection;
use crate::writes::{Image, Writer};

/// The longest canonical text that is put into a row's key as it is.
const UNIQUE_TEXT_BYTES_MAX: usize = 64;

/// The key of the row in `onelog.unique` that says who has `value` in this field of the table.
#[must_use]
pub fn unique_row_key(table: TableId, field: u16, value: &Json<'_>) -> Bytes {
    let text = value.canonical();
    let mut key = Vec::with_capacity(6 + UNIQUE_TEXT_BYTES_MAX);
    key.extend_from_slice(&unique_rows_of(table));
    key.extend_from_slice(&field.to_be_bytes());
    if text.len() <= UNIQUE_TEXT_BYTES_MAX {
        key.extend_from_slice(text.as_bytes());
    } else {
        key.push(0);
        key.extend_from_slice(blake3::hash(text.as_bytes()).as_bytes());
    }
    key.into()
}

/// A value that a key has at the end of the transaction and did not have before it.
struct Claim {
    row: Bytes,
    owner: Bytes,
    index: usize,
    field: String,
    value: JsonText,
    after: Position,
}

/// A value that a key had before the transaction and has no more.
struct Release {
    row: Bytes,
    owner: Bytes,
}

#[derive(Default)]
struct Changes {
    claims: Vec<Claim>,
    releases: Vec<Release>,
}

/// Checks the unique fields of everything that the transaction wrote, and writes their rows.
pub fn write_rows(writer: &mut Writer<'_>, request: &CommitRequest) -> Result<(), Rejection> {
    let changes = collect(writer, request)?;
    let released: HashMap<&[u8], &[u8]> = changes
        .releases
        .iter()
        .map(|release| (&release.row[..], &release.owner[..]))
        .collect();
    let mut claimed: HashMap<&[u8], &Claim> = HashMap::new();
    for claim in &changes.claims {
        if let Some(other) = claimed.insert(&claim.row, claim) {
            return Err(not_unique(
                claim,
                &other.owner,
                claim.after.max(other.after),
            ));
        }
        let Image { value, after } = writer.newest(TABLE_UNIQUE, &claim.row)?;
        if let Some(owner) = value
            && owner != claim.owner
            && released.get(&claim.row[..]) != Some(&&owner[..])
        {
            return Err(not_unique(claim, &owner, claim.after.max(after)));
        }
    }
    for release in &changes.releases {
        if !claimed.contains_key(&release.row[..]) {
            write_row(writer, release.row.clone(), None)?;
        }
    }
    for claim in &changes.claims {
        write_row(writer, claim.row.clone(), Some(claim.owner.clone()))?;
    }
    Ok(())
}

fn write_row(writer: &mut Writer<'_>, row: Bytes, owner: Option<Bytes>) -> Result<(), Rejection> {
    let bytes = row.len() + owner.as_ref().map_or(0, Bytes::len);
    writer.now.work.copy(&writer.now, bytes)?;
    let op = if owner.is_some() { Op::Put } else { Op::Delete };
    writer
        .body
        .record(op, TABLE_UNIQUE, &row, owner.as_deref(), &[]);
    let image = Image {
        value: owner,
        after: Position::ZERO,
    };
    writer.stage(TABLE_UNIQUE, row, image);
    Ok(())
}

fn not_unique(claim: &Claim, owner: &Bytes, after: Position) -> Rejection {
    Rejection::after(
        Refusal::NotUnique {
            index: claim.index,
            field: claim.field.clone(),
            value: claim.value.clone(),
            owner: owner.clone(),
        },
        after,
    )
}

/// What the transaction changes in the unique fields: each key's image before it against its last
/// one, in the order of the last writes.
fn collect(writer: &mut Writer<'_>, request: &CommitRequest) -> Result<Changes, Rejection> {
    let mut changes = Changes::default();
    let mut staged = 0;
    for (index, write) in request.writes.iter().enumerate() {
        let rules = writer.rules;
        let Some(table) = rules.table(write.table) else {
            continue;
        };
        if table.definition.kind == onelog_record::TableKind::Stream {
            continue; // events are not staged
        }
        let at = staged;
        staged += 1;
        if table.definition.unique.is_empty() || table.definition.value == ValueKind::Bytes {
            continue;
        }
        let this = &writer.staged.writes()[at];
        let last = writer
            .staged
            .find(this.table, &this.key, this.fingerprint)
            .is_some_and(|last| last.offset == this.offset);
        if last {
            let this = this.clone();
            compare(writer, &mut changes, &table.definition, index, this)?;
        }
    }
    Ok(changes)
}

fn compare(
    writer: &mut Writer<'_>,
    changes: &mut Changes,
    table: &TableDefinition,
    index: usize,
    last: crate::staged::StagedWrite,
) -> Result<(), Rejection> {
    let before = writer.now.newest(last.table, &last.key)?;
    for (n, paths) in table.unique.chunks(FOUND_AT_ONCE_MAX).enumerate() {
        let wanted: Vec<&FieldPath> = paths.iter().collect();
        let had = values(writer, before.value.as_ref(), &wanted)?;
        let has = values(writer, last.value.as_ref(), &wanted)?;
        for ((at, path), (had, has)) in paths.iter().enumerate().zip(had.into_iter().zip(has)) {
            if had == has {
                continue;
            }
            let field = (n * FOUND_AT_ONCE_MAX + at) as u16;
            let row = |text| row_of(&writer.now, last.table, field, text);
            let (had, has) = (had.map(row).transpose()?, has.map(row).transpose()?);
            if had.as_ref().map(|(row, _)| row) == has.as_ref().map(|(row, _)| row) {
                continue;
            }
            if let Some((row, _)) = had {
                let owner = last.key.clone();
                changes.releases.push(Release { row, owner });
            }
            if let Some((row, value)) = has {
                changes.claims.push(Claim {
                    row,
                    owner: last.key.clone(),
                    index,
                    field: path.to_string(),
                    value: (&value).into(),
                    after: last.after,
                });
            }
        }
    }
    Ok(())
}

/// The row of a value, and the value.
fn row_of<'t>(
    now: &Now<'_>,
    table: TableId,
    field: u16,
    text: &'t str,
) -> Result<(Bytes, Json<'t>), Rejection> {
    now.work.value(now, text)?;
    let value = Json::found(text);
    Ok((unique_row_key(table, field, &value), value))
}

/// The values at the paths, without those that are `null`.
fn values<'v>(
    writer: &Writer<'_>,
    document: Option<&'v Bytes>,
    paths: &[&FieldPath],
) -> Result<[Option<&'v str>; FOUND_AT_ONCE_MAX], Rejection> {
    let Some(document) = document else {
        return Ok([None; FOUND_AT_ONCE_MAX]);
    };
    writer.now.work.parse(&writer.now, document.len())?;
    // What is no JSON has no fields. A put of it into such a table was refused before.
    let found = find(document, paths).unwrap_or_default();
    Ok(found.map(|value| value.filter(|value| *value != "null")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn key(table: TableId, field: u16, value: &Value) -> Bytes {
        unique_row_key(table, field, &JsonText::from(value.clone()).json())
    }

    #[test]
    fn numbers_that_one_float_cannot_tell_apart_have_rows_of_their_own() {
        let row = |number: &str| {
            let text = JsonText::parse(number).unwrap();
            unique_row_key(TableId(1), 0, &text.json())
        };
        assert_ne!(
            row("10000000000000000000000001"),
            row("10000000000000000000000002")
        );
        assert_ne!(row("9007199254740993.0"), row("9007199254740992"));
        assert_eq!(row("9007199254740993.0"), row("9007199254740993"));
        assert_eq!(row("1.10"), row("1.1"));
    }

    #[test]
    fn a_unique_row_has_this_key() {
        assert_eq!(
            &key(TableId(0x0102), 3, &json!({"b": 1.0, "a": "x"}))[..],
            b"\0\0\x01\x02\0\x03{\"a\":\"x\",\"b\":1}"
        );
        let longest = json!("x".repeat(UNIQUE_TEXT_BYTES_MAX - 2));
        assert_eq!(key(TableId(1), 0, &longest).len(), 6 + 64);
        let hashed = key(TableId(1), 0, &json!("x".repeat(63)));
        assert_eq!((hashed.len(), hashed[6]), (6 + 33, 0));
        assert_ne!(hashed, key(TableId(1), 0, &json!("y".repeat(63))));
    }
}
