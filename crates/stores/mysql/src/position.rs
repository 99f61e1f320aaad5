//! The table with a sink's position: one row, which every step checks and moves in its transaction.
//!
//! Beside the epoch it holds the *owner*, a random text of each takeover. A takeover raises the
//! epoch, throws away what earlier ones prepared, and looks again: only if its own text still
//! stands there has it won. So it does not matter that a rival could swap in another such table in
//! between; see the head of `rebuild`.

use mysql_async::{Params, Row, Value};
use onelog_record::Position;

use super::connection::{Fault, Flavour, Link, STATEMENT_TIMEOUT};
use super::names::{literal, quote};
use onelog_store::{StoreError, StorePosition};

/// No such table.
pub(super) const NO_TABLE: u16 = 1146;
/// No such column.
pub(super) const NO_COLUMN: u16 = 1054;
/// A table was made or changed after the picture was taken.
pub(super) const TABLE_CHANGED: u16 = 1412;
const DUPLICATE: u16 = 1062;

/// A sink's row as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) log_id: String,
    pub(super) position: Option<u64>,
    pub(super) epoch: u64,
    pub(super) owner: String,
    pub(super) plan: String,
    /// The number of the rebuild that made the tables.
    pub(super) generation: u64,
}

impl Record {
    /// What the store says of where it stands under a plan.
    pub(super) fn stands_at(&self, plan: &str) -> Option<StorePosition> {
        let position = self.position.filter(|_| self.plan == plan)?;
        Some(StorePosition {
            log_id: self.log_id.clone(),
            position: Position(position),
            epoch: self.epoch,
        })
    }
}

/// Who works: the sink, its log, its takeover.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) sink: String,
    pub(super) log_id: String,
    /// The hash of the plan's fingerprint.
    pub(super) plan: String,
    pub(super) epoch: u64,
    pub(super) owner: String,
}

pub(super) fn create_table(flavour: Flavour, table: &str, sink: &str) -> String {
    let text = format!(
        "CHARACTER SET utf8mb4 COLLATE {} NOT NULL",
        flavour.exact_collation()
    );
    format!(
        "CREATE TABLE IF NOT EXISTS {} (sink VARCHAR(128) {text} PRIMARY KEY,
           log_id VARCHAR(128) {text}, position BIGINT UNSIGNED NULL,
           epoch BIGINT UNSIGNED NOT NULL, owner VARCHAR(64) {text}, plan VARCHAR(128) {text},
           generation BIGINT UNSIGNED NOT NULL)
         ENGINE=InnoDB COMMENT={}",
        quote(table),
        literal(&format!("onelog: the position of the sink {sink}"))
    )
}

/// Reads a sink's row; `suffix` is a lock, or nothing. `None` without a row or a table.
pub(super) fn read(
    link: &mut Link,
    table: &str,
    sink: &str,
    suffix: &str,
) -> Result<Option<Record>, Fault> {
    let found = link.fetch(
        &select(table, suffix),
        Params::Positional(vec![Value::from(sink)]),
    );
    match found {
        Ok(rows) => Ok(rows.first().map(record)),
        Err(fault) if fault.code() == Some(NO_TABLE) => Ok(None),
        Err(fault) => Err(fault),
    }
}

pub(super) fn select(table: &str, suffix: &str) -> String {
    format!(
        "SELECT log_id, position, epoch, owner, plan, generation FROM {} WHERE sink = ? {suffix}",
        quote(table)
    )
}

pub(super) fn record(row: &Row) -> Record {
    let text = |n| {
        row.get::<Option<String>, _>(n)
            .flatten()
            .unwrap_or_default()
    };
    let number = |n| row.get::<Option<u64>, _>(n).flatten();
    Record {
        log_id: text(0),
        position: number(1),
        epoch: number(2).unwrap_or(0),
        owner: text(3),
        plan: text(4),
        generation: number(5).unwrap_or(0),
    }
}

/// Raises the epoch in the table and puts `owner` there. `None`: a rival was in the way; again.
pub(super) fn raise(link: &mut Link, table: &str, who: &Identity) -> Result<Option<u64>, Fault> {
    link.statement(STATEMENT_TIMEOUT, "START TRANSACTION")?;
    let raised = raise_inside(link, table, who);
    match raised {
        Ok(Some(epoch)) => {
            link.statement(STATEMENT_TIMEOUT, "COMMIT")?;
            Ok(Some(epoch))
        }
        other => {
            link.roll_back();
            other
        }
    }
}

fn raise_inside(link: &mut Link, table: &str, who: &Identity) -> Result<Option<u64>, Fault> {
    let table_name = quote(table);
    let Some(found) = read(link, table, &who.sink, "FOR UPDATE")? else {
        let inserted = link.prepared(
            &format!(
                "INSERT INTO {table_name} (sink, log_id, position, epoch, owner, plan, generation)
                 VALUES (?, ?, NULL, 1, ?, ?, 0)"
            ),
            Params::Positional(vec![
                Value::from(&who.sink),
                Value::from(&who.log_id),
                Value::from(&who.owner),
                Value::from(&who.plan),
            ]),
        );
        return match inserted {
            Ok(_) => Ok(Some(1)),
            Err(fault) if fault.code() == Some(DUPLICATE) => Ok(None),
            Err(fault) => Err(fault),
        };
    };
    let position = found.position.filter(|_| found.plan == who.plan);
    link.prepared(
        &format!(
            "UPDATE {table_name} SET epoch = ?, owner = ?, position = ?, plan = ? WHERE sink = ?"
        ),
        Params::Positional(vec![
            Value::from(found.epoch + 1),
            Value::from(&who.owner),
            Value::from(position),
            Value::from(&who.plan),
            Value::from(&who.sink),
        ]),
    )?;
    Ok(Some(found.epoch + 1))
}

/// Moves the position inside the transaction that is under way; what is not ours to move is told.
pub(super) fn advance(
    link: &mut Link,
    table: &str,
    who: &Identity,
    from: Position,
    to: Position,
) -> Result<(), StoreError> {
    let what = "moving the position in";
    let moved = link.prepared(
        &format!(
            "UPDATE {} SET position = ? WHERE sink = ? AND epoch = ? AND owner = ?
               AND position = ? AND log_id = ? AND plan = ?",
            quote(table)
        ),
        Params::Positional(vec![
            Value::from(to.get()),
            Value::from(&who.sink),
            Value::from(who.epoch),
            Value::from(&who.owner),
            Value::from(from.get()),
            Value::from(&who.log_id),
            Value::from(&who.plan),
        ]),
    );
    match moved {
        Ok(1) => return Ok(()),
        Ok(_) => {}
        Err(fault) if fault.code() == Some(NO_TABLE) => {}
        Err(fault) => return Err(link.error(what, fault)),
    }
    let found = read(link, table, &who.sink, "").map_err(|fault| link.error(what, fault))?;
    check(found.as_ref(), who)?;
    Err(StoreError::PositionMismatch {
        expected: from,
        found: found.and_then(|found| found.stands_at(&who.plan)),
    })
}

/// Whether a sink's row still is of our takeover.
pub(super) fn check<'r>(
    found: Option<&'r Record>,
    who: &Identity,
) -> Result<&'r Record, StoreError> {
    match found {
        Some(found) if found.epoch == who.epoch && found.owner == who.owner => Ok(found),
        Some(found) => Err(StoreError::Fenced {
            ours: who.epoch,
            found: found.epoch,
        }),
        None => Err(StoreError::PositionMismatch {
            expected: Position::ZERO,
            found: None,
        }),
    }
}
