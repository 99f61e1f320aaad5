//! Whether a table still is the one that the sink has written to, in this session or before it, and
//! fits.
//!
//! The server numbers no tables for users without special rights, and a table that was dropped and
//! made anew can have the same definition. Therefore some of its rows are known; where the definition
//! or the time of the table's making is another one, they must still be there. See [`KnownTables`].
//!
//! A definition is of a table that has its name; so what is kept in the step that backfills the
//! tables has none, and the first look finds it to be another one.

use mysql_async::{Params, Value};
use onelog_mapping::{MappingPlan, Row};
use onelog_store::{Batch, KnownTable, KnownTables, Remedy, StoreError, WITNESSES_MAX, Witnesses};

use crate::bookkeeping::Identity;
use crate::connection::{Connection, IS_WRITABLE};
use crate::ddl::existing::{self, TargetTable};
use crate::ddl::shape::Backfilled;
use crate::decode::read_cell;
use crate::error::{Fault, NO_COLUMN, NO_TABLE};
use crate::names::{list, quote};
use crate::store::MysqlStore;
use crate::write::key_of;

const LOOKING: &str = "looking at the tables of";

impl MysqlStore {
    /// Fails where a table does not fit its mapping, or is not as it was when it was backfilled. What
    /// may have changed values is kept first, of every table.
    pub(crate) fn check_definitions(&mut self) -> Result<(), StoreError> {
        let was = self.known()?;
        let mut is = was.clone();
        let mut shapes = Vec::with_capacity(is.0.len());
        for (mapping, table) in self.plan.mappings.iter().zip(&mut is.0) {
            let backfilled = Backfilled::look(&mut self.connection, mapping, &mut table.narrowed)?;
            shapes.push(backfilled);
        }
        self.keep(&was, &is)?;
        let tables = self.plan.mappings.iter().zip(&shapes).zip(&is.0);
        for ((mapping, backfilled), table) in tables {
            existing::check_shape(&mut self.connection, mapping)?;
            backfilled.check(&mut self.connection, mapping, &table.narrowed)?;
        }
        Ok(())
    }

    /// Fails where a table is another one than it was at the last look, and lacks what it had.
    pub(crate) fn check_renewed(&mut self, facts: &[TargetTable]) -> Result<(), StoreError> {
        let was = self.known()?;
        let mut is = was.clone();
        for ((mapping, facts), table) in self.plan.mappings.iter().zip(facts).zip(&mut is.0) {
            look_again(&mut self.connection, mapping, facts, table)?;
        }
        self.keep(&was, &is)
    }

    /// What is known of the tables: by this session, or as it is kept.
    fn known(&mut self) -> Result<KnownTables, StoreError> {
        if let Some(known) = &self.known {
            return Ok(known.clone());
        }
        let position = self.names.position();
        let kept = read_known(&mut self.connection, &position, &self.identity);
        let kept = kept.map_err(|fault| self.connection.store_error(LOOKING, fault))?;
        Ok(KnownTables::read(kept.as_deref(), &self.plan))
    }

    fn keep(&mut self, was: &KnownTables, is: &KnownTables) -> Result<(), StoreError> {
        if self.identity.epoch == 0 {
            // Nothing can be kept yet.
            return Ok(());
        }
        if was != is {
            let recorded = record_known(
                &mut self.connection,
                &self.names.position(),
                &self.identity,
                &is.to_text(),
            );
            recorded.map_err(|fault| {
                self.connection
                    .store_error("recording the tables of", fault)
            })?;
        }
        self.known = Some(is.clone());
        Ok(())
    }

    /// What is known of the tables once a batch is written. `None`: the same.
    pub(crate) fn known_after(&self, batch: &Batch) -> Option<KnownTables> {
        self.known.as_ref()?.after(&self.plan, batch)
    }

    /// The batch is committed, and what is known of the tables behind it was kept with it.
    pub(crate) fn follow_batch(&mut self, batch: &Batch) {
        if let Some(known) = self.known_after(batch) {
            self.known = Some(known);
        }
    }
}

fn look_again(
    connection: &mut Connection,
    mapping: &MappingPlan,
    facts: &TargetTable,
    table: &mut KnownTable,
) -> Result<(), StoreError> {
    let hash = blake3::hash(facts.definition.as_bytes());
    let definition = hash.to_hex()[..32].to_owned();
    if table.definition != definition {
        let keys = table.witnesses.keys();
        let keys: Vec<Value> = keys.filter_map(|key| key_of(mapping, key)).collect();
        let found = match keys.is_empty() {
            true => Vec::new(),
            false => rows(connection, mapping, &mapping.into, keys)?,
        };
        let renewed = table.witnesses.renewed(mapping, &found);
        if !renewed.is_empty() {
            return Err(StoreError::mismatch(
                mapping,
                renewed.join("; "),
                Remedy::Said,
            ));
        }
        table.definition = definition;
    }
    if table.witnesses.is_empty() {
        let found = rows(connection, mapping, &mapping.into, Vec::new())?;
        table.witnesses = Witnesses::of(mapping, &found);
    }
    Ok(())
}

/// The rows of these keys in a mapping's table, or some.
pub(crate) fn rows(
    connection: &mut Connection,
    mapping: &MappingPlan,
    table: &str,
    keys: Vec<Value>,
) -> Result<Vec<Row>, StoreError> {
    let key = quote(&mapping.columns[mapping.key].name);
    let which = match keys.len() {
        0 => String::new(),
        count => format!("WHERE {key} IN ({})", vec!["?"; count].join(", ")),
    };
    let sql = format!(
        "SELECT {} FROM {} {which} LIMIT {WITNESSES_MAX}",
        list(mapping.column_names()),
        quote(table)
    );
    let keys = match keys.is_empty() {
        true => Params::Empty,
        false => Params::Positional(keys),
    };
    let found = connection.rows(LOOKING, &sql, keys)?;
    let read = |mut found: mysql_async::Row| {
        let mut row = Row::new(mapping.columns.len());
        for (n, column) in mapping.columns.iter().enumerate() {
            let value = found.take::<Value, _>(n).unwrap_or(Value::NULL);
            read_cell(column.kind, value, &mut row.cells[n]);
        }
        row
    };
    Ok(found.into_iter().map(read).collect())
}

/// What is kept of the tables as they are at the position; see [`onelog_store::KnownTables`].
fn read_known(
    connection: &mut Connection,
    position: &str,
    identity: &Identity,
) -> Result<Option<String>, Fault> {
    let found = connection.fetch(
        &format!(
            "SELECT witnesses FROM {} WHERE sink = ? AND plan = ? AND position IS NOT NULL",
            quote(position)
        ),
        Params::Positional(vec![
            Value::from(&identity.sink),
            Value::from(&identity.plan_id),
        ]),
    );
    match found {
        Ok(rows) => Ok(rows.first().and_then(|row| row.get(0)).flatten()),
        Err(fault) if matches!(fault.code(), Some(NO_TABLE | NO_COLUMN)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Nothing is kept where the sink was taken over meanwhile.
pub(crate) fn record_known(
    connection: &mut Connection,
    position: &str,
    identity: &Identity,
    known: &str,
) -> Result<(), Fault> {
    let recorded = connection.prepared(
        &format!(
            "UPDATE {} SET witnesses = ?
             WHERE sink = ? AND epoch = ? AND owner = ? AND {IS_WRITABLE}",
            quote(position)
        ),
        Params::Positional(vec![
            Value::from(known),
            Value::from(&identity.sink),
            Value::from(identity.epoch),
            Value::from(&identity.owner),
        ]),
    );
    recorded.map(drop)
}
