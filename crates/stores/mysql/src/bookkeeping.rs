//! The table with a sink's position: one row, which every step checks and moves in its transaction;
//! and the comments of tables, which say whose they are and move with them when they are renamed.
//!
//! Beside the epoch it holds the *owner*, a random text of each takeover. A takeover raises the
//! epoch, throws away what earlier ones prepared, and looks again: only if its own text is
//! still there has it won. So it does not matter that a rival could swap in another such table in
//! between; see the head of `rebuild`.

use mysql_async::{Params, Row, Value};
use onelog_mapping::{HashLength, Plan};
use onelog_record::Position;
use onelog_store::{Followed, LogPlace, StoreError, StorePosition};

use crate::connection::{Connection, Flavour, IS_WRITABLE, STATEMENT_TIMEOUT};
use crate::error::{DUPLICATE, DUPLICATE_COLUMN, Fault, NO_COLUMN, NO_TABLE};
use crate::names::{literal, quote};

/// A sink's row of the position table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) log_id: String,
    pub(crate) position: Option<u64>,
    pub(crate) chain: Option<u32>,
    pub(crate) epoch: u64,
    pub(crate) owner: String,
    pub(crate) plan: String,
    /// The number of the rebuild that made the tables.
    pub(crate) generation: u64,
}

impl Record {
    /// The position, where it was reached under this plan.
    pub(crate) fn position_under(&self, plan: &str) -> Option<StorePosition> {
        let place = self.place().filter(|_| self.plan == plan)?;
        Some(StorePosition {
            log_id: self.log_id.clone(),
            position: place.position,
            chain: place.chain,
            epoch: self.epoch,
        })
    }

    pub(crate) fn followed(self) -> Followed {
        Followed {
            place: self.place(),
            log_id: self.log_id,
        }
    }

    /// The place under any plan.
    pub(crate) fn place(&self) -> Option<LogPlace> {
        Some(LogPlace {
            position: Position(self.position?),
            chain: self.chain,
        })
    }
}

/// Which sink follows which log, by which mappings, in which takeover.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) sink: String,
    pub(crate) log_id: String,
    /// A hash of the plan's fingerprint.
    pub(crate) plan_id: String,
    pub(crate) epoch: u64,
    pub(crate) owner: String,
    /// The epoch of a sink that is not known.
    pub(crate) first_epoch: u64,
}

pub(crate) fn plan_id(plan: &Plan) -> String {
    plan.fingerprint_hash(HashLength::Whole, None)
}

pub(crate) fn create_bookkeeping(flavour: Flavour, table: &str, sink: &str) -> String {
    let text = format!(
        "CHARACTER SET utf8mb4 COLLATE {} NOT NULL",
        flavour.exact_collation()
    );
    format!(
        "CREATE TABLE IF NOT EXISTS {} (sink VARCHAR(128) {text} PRIMARY KEY,
           log_id VARCHAR(128) {text}, position BIGINT UNSIGNED NULL,
           epoch BIGINT UNSIGNED NOT NULL, owner VARCHAR(64) {text}, plan VARCHAR(128) {text},
           generation BIGINT UNSIGNED NOT NULL, {})
         ENGINE=InnoDB COMMENT={}",
        quote(table),
        ADDED.join(", "),
        literal(&format!("onelog: the position of the sink {sink}"))
    )
}

/// What earlier versions did not keep of a position: the checksum of its history, and what is known of
/// the tables there.
const ADDED: [&str; 2] = [
    "chain INT UNSIGNED NULL",
    "witnesses MEDIUMTEXT CHARACTER SET ascii NULL",
];

/// Reads a sink's row; `suffix` is a lock, or nothing. `None` without a row or a table.
pub(crate) fn read_record(
    connection: &mut Connection,
    table: &str,
    sink: &str,
    suffix: &str,
) -> Result<Option<Record>, Fault> {
    let mut fetch = |sql: &str| connection.fetch(sql, Params::Positional(vec![Value::from(sink)]));
    let mut found = fetch(&select_record(table, suffix));
    if matches!(&found, Err(fault) if fault.code() == Some(NO_COLUMN)) {
        // Written by a version that did not keep the checksum; the next takeover adds it.
        found = fetch(&select_record(table, suffix).replacen("chain", "NULL", 1));
    }
    match found {
        Ok(rows) => Ok(rows.first().map(record_of)),
        Err(fault) if fault.code() == Some(NO_TABLE) => Ok(None),
        Err(fault) => Err(fault),
    }
}

pub(crate) fn select_record(table: &str, suffix: &str) -> String {
    format!(
        "SELECT log_id, position, epoch, owner, plan, generation, chain FROM {}
         WHERE sink = ? {suffix}",
        quote(table)
    )
}

pub(crate) fn record_of(row: &Row) -> Record {
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
        chain: number(6).and_then(|chain| chain.try_into().ok()),
    }
}

/// Adds what a table lacks that an earlier version made.
pub(crate) fn add_columns(connection: &mut Connection, table: &str) -> Result<(), Fault> {
    for column in ADDED {
        add_column(connection, table, column)?;
    }
    Ok(())
}

/// Adds a column, by its definition, where it is not there.
fn add_column(connection: &mut Connection, table: &str, definition: &str) -> Result<(), Fault> {
    let column = definition.split(' ').next().unwrap_or_default();
    let looked = connection.fetch(
        &format!("SELECT {column} FROM {} LIMIT 0", quote(table)),
        Params::Empty,
    );
    match looked {
        Err(fault) if fault.code() == Some(NO_COLUMN) => {}
        other => return other.map(drop),
    }
    let sql = format!("ALTER TABLE {} ADD COLUMN {definition}", quote(table));
    match connection.statement(STATEMENT_TIMEOUT, &sql) {
        Err(fault) if fault.code() == Some(DUPLICATE_COLUMN) => Ok(()),
        other => other.map(drop),
    }
}

/// What became of an attempt to take a sink over.
pub(crate) enum Raised {
    To(u64),
    /// A rival was in the way; again.
    Rival,
    /// The sink is this log's, which may not be taken.
    OtherLog(String),
}

/// Raises the epoch in the table and puts `owner` there.
pub(crate) fn raise_epoch(
    connection: &mut Connection,
    table: &str,
    identity: &Identity,
    from: Option<&str>,
) -> Result<Raised, Fault> {
    connection.statement(STATEMENT_TIMEOUT, "START TRANSACTION")?;
    let raised = raise_epoch_inside(connection, table, identity, from);
    match raised {
        Ok(Raised::To(epoch)) => {
            connection.statement(STATEMENT_TIMEOUT, "COMMIT")?;
            Ok(Raised::To(epoch))
        }
        other => {
            connection.roll_back();
            other
        }
    }
}

fn raise_epoch_inside(
    connection: &mut Connection,
    table: &str,
    identity: &Identity,
    from: Option<&str>,
) -> Result<Raised, Fault> {
    let table_name = quote(table);
    let Some(found) = read_record(connection, table, &identity.sink, "FOR UPDATE")? else {
        let inserted = connection.prepared(
            &format!(
                "INSERT INTO {table_name} (sink, log_id, position, epoch, owner, plan, generation)
                 VALUES (?, ?, NULL, ?, ?, ?, 0)"
            ),
            Params::Positional(vec![
                Value::from(&identity.sink),
                Value::from(&identity.log_id),
                Value::from(identity.first_epoch),
                Value::from(&identity.owner),
                Value::from(&identity.plan_id),
            ]),
        );
        return match inserted {
            Ok(_) => Ok(Raised::To(identity.first_epoch)),
            Err(fault) if fault.code() == Some(DUPLICATE) => Ok(Raised::Rival),
            Err(fault) => Err(fault),
        };
    };
    let is_ours = found.log_id == identity.log_id;
    if !is_ours && from != Some(&found.log_id) {
        return Ok(Raised::OtherLog(found.log_id));
    }
    let is_usable = is_ours && found.plan == identity.plan_id;
    let position = found.position.filter(|_| is_usable);
    connection.prepared(
        &format!(
            "UPDATE {table_name} SET epoch = ?, owner = ?, log_id = ?, position = ?, plan = ?
             WHERE sink = ?"
        ),
        Params::Positional(vec![
            Value::from(found.epoch + 1),
            Value::from(&identity.owner),
            Value::from(&identity.log_id),
            Value::from(position),
            Value::from(&identity.plan_id),
            Value::from(&identity.sink),
        ]),
    )?;
    Ok(Raised::To(found.epoch + 1))
}

/// Moves the position inside the transaction that is under way, and keeps what is new of the tables
/// (`known`) beside it; what is not ours to move is an error.
pub(crate) fn advance_position(
    connection: &mut Connection,
    table: &str,
    identity: &Identity,
    from: Position,
    to: LogPlace,
    known: Option<&str>,
) -> Result<(), StoreError> {
    let what = "moving the position in";
    let mut values = vec![Value::from(to.position.get()), Value::from(to.chain)];
    values.extend(known.map(Value::from));
    values.extend([
        Value::from(&identity.sink),
        Value::from(identity.epoch),
        Value::from(&identity.owner),
        Value::from(from.get()),
        Value::from(&identity.log_id),
        Value::from(&identity.plan_id),
    ]);
    let moved = connection.prepared(
        &format!(
            "UPDATE {} SET position = ?, chain = ?{} WHERE sink = ? AND epoch = ? AND owner = ?
               AND position = ? AND log_id = ? AND plan = ? AND {IS_WRITABLE}",
            quote(table),
            known.map_or("", |_| ", witnesses = ?"),
        ),
        Params::Positional(values),
    );
    match moved {
        Ok(1) => return Ok(()),
        Ok(_) => {}
        Err(fault) if fault.code() == Some(NO_TABLE) => {}
        Err(fault) => return Err(connection.store_error(what, fault)),
    }
    connection.check_read_only(what)?;
    let found = read_record(connection, table, &identity.sink, "")
        .map_err(|fault| connection.store_error(what, fault))?;
    check_epoch(found.as_ref(), identity)?;
    Err(StoreError::PositionMismatch {
        expected: Some(from),
        found: found.and_then(|found| found.position_under(&identity.plan_id)),
    })
}

/// Whether the store is where a batch begins.
pub(crate) fn check_position(
    found: Option<Record>,
    identity: &Identity,
    from: Position,
) -> Result<(), StoreError> {
    let found = found.and_then(|found| found.position_under(&identity.plan_id));
    let is_there =
        |found: &StorePosition| found.position == from && found.log_id == identity.log_id;
    match found.as_ref().is_some_and(is_there) {
        true => Ok(()),
        false => Err(StoreError::PositionMismatch {
            expected: Some(from),
            found,
        }),
    }
}

/// Whether a sink's row still is of our takeover.
pub(crate) fn check_epoch<'r>(
    found: Option<&'r Record>,
    identity: &Identity,
) -> Result<&'r Record, StoreError> {
    match found {
        Some(found) if found.epoch == identity.epoch && found.owner == identity.owner => Ok(found),
        Some(found) => Err(StoreError::of_epoch(identity.epoch, found.epoch)),
        None => Err(StoreError::PositionMismatch {
            expected: None,
            found: None,
        }),
    }
}

/// Which sink has the name of a table: it backfills a table of the user's, or makes one of its own.
/// Its key decides between sinks that take a name at the same moment: the comments of tables, which
/// say whose a table is as well, are written by DDL, which nothing can be checked together with.
pub(crate) const OWNERS: &str = "onelog_tables";

const SHAPE: &str = "shape TEXT CHARACTER SET utf8mb4 NULL";
const MADE: &str = "made BOOLEAN NOT NULL DEFAULT FALSE";

fn create_owners(flavour: Flavour) -> String {
    let text = format!(
        "CHARACTER SET utf8mb4 COLLATE {} NOT NULL",
        flavour.exact_collation()
    );
    format!(
        "CREATE TABLE IF NOT EXISTS {OWNERS} (name VARCHAR(64) {text} PRIMARY KEY,
           sink VARCHAR(128) {text}, {SHAPE}, {MADE})
         ENGINE=InnoDB COMMENT='onelog: which sink writes which table'"
    )
}

/// Makes the table of owners, or adds what it lacks where an earlier version made it.
pub(crate) fn make_owners(connection: &mut Connection) -> Result<(), Fault> {
    let sql = create_owners(connection.flavour());
    connection.statement(STATEMENT_TIMEOUT, &sql)?;
    for column in [SHAPE, MADE] {
        add_column(connection, OWNERS, column)?;
    }
    Ok(())
}

/// The shape in which an existing table was backfilled; `None`: never. Empty: not recorded.
pub(crate) fn recorded_shape(
    connection: &mut Connection,
    table: &str,
) -> Result<Option<String>, Fault> {
    let name = folded(connection, table);
    let found = connection.fetch(
        &format!("SELECT COALESCE(shape, '') FROM {OWNERS} WHERE name = ?"),
        Params::Positional(vec![Value::from(name)]),
    );
    match found {
        Ok(rows) => Ok(rows.first().and_then(|row| row.get(0))),
        Err(fault) if matches!(fault.code(), Some(NO_TABLE | NO_COLUMN)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

pub(crate) fn record_shape(
    connection: &mut Connection,
    table: &str,
    shape: &str,
) -> Result<(), Fault> {
    let name = folded(connection, table);
    let sql = format!("UPDATE {OWNERS} SET shape = ? WHERE name = ?");
    let parameters = Params::Positional(vec![Value::from(shape), Value::from(name)]);
    connection.prepared(&sql, parameters).map(drop)
}

/// Who has the name of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameOwner {
    pub(crate) sink: String,
    /// The sink makes the table; otherwise it has backfilled one that was there.
    pub(crate) made: bool,
}

/// The sink that has a name; `suffix` is a lock, or nothing.
pub(crate) fn name_owner(
    connection: &mut Connection,
    table: &str,
    suffix: &str,
) -> Result<Option<NameOwner>, Fault> {
    let name = folded(connection, table);
    let mut fetch = |made: &str| {
        connection.fetch(
            &format!("SELECT sink, {made} FROM {OWNERS} WHERE name = ? {suffix}"),
            Params::Positional(vec![Value::from(&name)]),
        )
    };
    let mut found = fetch("made");
    if matches!(&found, Err(fault) if fault.code() == Some(NO_COLUMN)) {
        // Written by a version that recorded the tables only that it had not made.
        found = fetch("FALSE");
    }
    let owner = |row: &Row| NameOwner {
        sink: row.get(0).unwrap_or_default(),
        made: row.get(1).unwrap_or_default(),
    };
    match found {
        Ok(rows) => Ok(rows.first().map(owner)),
        Err(fault) if fault.code() == Some(NO_TABLE) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Gives a sink the name of a table, unless another one has it; answers which has it then. Of sinks
/// that do so at the same moment, each is answered the same one.
pub(crate) fn claim(
    connection: &mut Connection,
    table: &str,
    sink: &str,
    made: bool,
) -> Result<Option<NameOwner>, Fault> {
    let name = folded(connection, table);
    connection.prepared(
        &format!(
            "INSERT INTO {OWNERS} (name, sink, made) VALUES (?, ?, ?)
             ON DUPLICATE KEY UPDATE made = IF(sink = ?, ?, made)"
        ),
        Params::Positional(vec![
            Value::from(name),
            Value::from(sink),
            Value::from(made),
            Value::from(sink),
            Value::from(made),
        ]),
    )?;
    name_owner(connection, table, "FOR UPDATE")
}

/// Gives up the names of tables that a sink makes, or has backfilled, and whose plan names them no
/// more. Others may write to them then: coming back, the sink has to ask as for any table.
pub(crate) fn release_other_names(
    connection: &mut Connection,
    sink: &str,
    plan: &Plan,
    made: bool,
) -> Result<(), Fault> {
    let made = if made { "made" } else { "NOT made" };
    let mut parameters = vec![Value::from(sink)];
    let mappings = plan.mappings.iter();
    let names = mappings.map(|mapping| folded(connection, &mapping.into));
    parameters.extend(names.map(Value::from));
    let places = vec!["?"; plan.mappings.len()].join(", ");
    let gone = connection.prepared(
        &format!("DELETE FROM {OWNERS} WHERE sink = ? AND {made} AND name NOT IN ({places})"),
        Params::Positional(parameters),
    );
    match gone {
        Err(fault) if matches!(fault.code(), Some(NO_TABLE | NO_COLUMN)) => Ok(()),
        other => other.map(drop),
    }
}

pub(crate) fn forget_owner(connection: &mut Connection, sink: &str) -> Result<(), Fault> {
    let gone = connection.prepared(
        &format!("DELETE FROM {OWNERS} WHERE sink = ?"),
        Params::Positional(vec![Value::from(sink)]),
    );
    match gone {
        Err(fault) if fault.code() == Some(NO_TABLE) => Ok(()),
        other => other.map(drop),
    }
}

fn folded(connection: &Connection, table: &str) -> String {
    match connection.folds_names() {
        true => table.to_lowercase(),
        false => table.to_owned(),
    }
}

pub(crate) fn not_owner(table: &str, owner: &str) -> StoreError {
    StoreError::owned(table, owner, format!("it belongs to the sink '{owner}'"))
}

const MADE_FOR: &str = "onelog: sink ";

/// Not in the marks of earlier versions.
const UNDER_THE_NAME: &str = ", table ";

const GENERATION: &str = ", generation ";

/// What the comment of a table says that onelog made. A copy of the table has it, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Nobody's where the database has no record of it any more.
    pub(crate) sink: String,
    /// `None`: marked by an earlier version.
    table: Option<String>,
    /// The number of the rebuild that made it.
    pub(crate) generation: u64,
}

impl Mark {
    pub(crate) fn to_comment(sink: &str, table: &str, generation: u64) -> String {
        format!("{MADE_FOR}{sink}{UNDER_THE_NAME}{table}{GENERATION}{generation}")
    }

    /// `None`: onelog did not make the table.
    pub(crate) fn read(comment: &str) -> Option<Self> {
        let (whose, generation) = comment.strip_prefix(MADE_FOR)?.rsplit_once(GENERATION)?;
        // The name of a sink has no commas.
        let (sink, table) = match whose.split_once(UNDER_THE_NAME) {
            Some((sink, table)) => (sink, Some(table.to_owned())),
            None => (whose, None),
        };
        Some(Self {
            sink: sink.to_owned(),
            table,
            generation: generation.parse().ok()?,
        })
    }

    /// Whether it was made for a table of this name. `None`: it does not say so.
    pub(crate) fn names(&self, connection: &Connection, table: &str) -> Option<bool> {
        let made_for = self.table.as_ref()?;
        Some(folded(connection, made_for) == folded(connection, table))
    }
}

/// The names of tables that begin so.
pub(crate) fn names_with_prefix(
    connection: &mut Connection,
    prefix: &str,
) -> Result<Vec<String>, StoreError> {
    let rows = connection.rows(
        "looking at the tables of",
        "SELECT TABLE_NAME FROM information_schema.TABLES
         WHERE TABLE_SCHEMA = DATABASE() AND LEFT(TABLE_NAME, ?) = ?",
        Params::Positional(vec![
            Value::from(prefix.chars().count()),
            Value::from(prefix),
        ]),
    )?;
    Ok(rows.iter().filter_map(|row| row.get(0)).collect())
}

#[cfg(test)]
mod tests {
    use onelog_store::{StoreKind as _, conformance};

    use super::*;

    #[test]
    fn the_id_of_a_plan_that_databases_keep_has_not_changed() {
        const MAPPING: &str = r#"{"table":"shop.orders","into":"o","columns":{
            "id":{"from":"$key","type":"text"},"n":{"from":"/n","type":"real"}}}"#;
        let plan = conformance::plan_by(crate::KIND.rules(), MAPPING);
        assert_eq!(
            plan_id(&plan),
            "5be99f81b29061b6cbab024f46fb0a95e8c6cc7930ad40b2cae357089749cb1d"
        );
    }

    #[test]
    fn the_comment_of_a_table_that_databases_keep_has_not_changed() {
        let mark = |sink: &str, table: Option<&str>, generation| {
            Some(Mark {
                sink: sink.to_owned(),
                table: table.map(str::to_owned),
                generation,
            })
        };
        let comment = Mark::to_comment("a-sink.2", "a, table b, generation 4", 17);
        assert_eq!(
            comment,
            "onelog: sink a-sink.2, table a, table b, generation 4, generation 17"
        );
        let table = Some("a, table b, generation 4");
        assert_eq!(Mark::read(&comment), mark("a-sink.2", table, 17));
        assert_eq!(
            Mark::read("onelog: sink a-sink.2, generation 3"),
            mark("a-sink.2", None, 3)
        );
        for text in ["", "orders", "onelog: no sink, generation 3"] {
            assert_eq!(Mark::read(text), None);
        }
    }
}
