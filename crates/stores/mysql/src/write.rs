//! Rows into tables: many at once, and one by one where a row is at fault or conflicts with another.
//!
//! An upsert never changes another row than the one with its key. `ON DUPLICATE KEY UPDATE` acts
//! on *any* unique index, so it is used only where the key's is the only one, and even then it
//! assigns the key `IF(key = new key, key, NULL)`: should an index have been added meanwhile, the
//! statement fails. Where a second unique index is known, a batch is staged in a temporary table,
//! from which rows that are there are updated and the others inserted.

mod anew;
pub(crate) mod statements;

use std::collections::HashMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Value};
use onelog_mapping::{Cell, MappingPlan, Plan, Row};
use onelog_store::{Batch, Change, Refusals, StoreError, failpoint};

use self::statements::{RowSql, Statements};
use crate::bookkeeping::advance_position;
use crate::connection::{Connection, Flavour, STATEMENT_TIMEOUT};
use crate::ddl::existing::{self, TargetTable};
use crate::encode::{key_value, request_bytes, take_values};
use crate::error::Fault;
use crate::store::MysqlStore;

/// The most rows of one request.
const REQUEST_ROWS_MAX: usize = 4096;
/// About how many bytes one request has, at most.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// What a request has beside its rows, at most.
pub(crate) const REQUEST_BYTES_EXTRA: usize = 64 << 10;
/// The most parameters of a statement.
const PARAMETERS_MAX: usize = 65_535;
/// How many columns a row has at most beside its own: the key and the offset of its record.
const RECORD_COLUMNS: usize = 2;
/// The most rows of a statement with many rows; a power of two.
const STATEMENT_ROWS_MAX: usize = 512;

/// How many rows are sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// One statement for one row, with many rows of parameters: MariaDB.
    Bulk,
    /// Statements with many rows; MySQL names the new row by an alias.
    ManyRows { alias: bool },
}

impl Method {
    pub(crate) const fn of(flavour: Flavour) -> Self {
        match flavour {
            Flavour::Mariadb => Self::Bulk,
            Flavour::Mysql => Self::ManyRows { alias: true },
        }
    }
}

/// Why rows were not written.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// An error that has its meaning for the sink already.
    Store(StoreError),
    /// The server's answer to a statement for rows of this mapping.
    Fault(usize, Fault),
    /// The definition of this mapping's table was changed while rows were written, which are taken
    /// back.
    Redefined(usize),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How a batch is brought into the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Last images, many at once.
    Many,
    /// Last images, one by one, to name those that are refused.
    OneByOne,
    /// All images in the order of the log.
    InOrder,
    /// Every row that changes is deleted, then inserted.
    Anew,
    /// The same one by one, in the order of the log, to name those that are refused all the same.
    AnewOneByOne,
}

/// Writes rows in the transaction that is under way.
pub(crate) struct Writer<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) plan: &'a Plan,
    pub(crate) statements: &'a [Statements],
    pub(crate) facts: &'a [TargetTable],
    pub(crate) method: Method,
    pub(crate) row: &'a mut Row,
}

impl Writer<'_> {
    /// Applies last images: deletes against the order of mappings, so that what refers to a row
    /// goes before it, then puts.
    pub(crate) fn many(&mut self, changes: &[Vec<Change>]) -> Result<(), Trouble> {
        for mapping in (0..changes.len()).rev() {
            self.delete(
                mapping,
                changes[mapping].iter().filter(|c| c.value.is_none()),
            )?;
        }
        for (mapping, changes) in changes.iter().enumerate() {
            if changes.iter().all(|change| change.value.is_none()) {
                continue;
            }
            let statements = &self.statements[mapping];
            if !self.facts[mapping].second_unique {
                self.put(mapping, &statements.upsert, changes)?;
                continue;
            }
            self.run(mapping, &statements.empty_stage)?;
            self.put(mapping, &statements.stage, changes)?;
            for sql in &statements.merge {
                self.run(mapping, sql)?;
            }
        }
        Ok(())
    }

    fn run(&mut self, mapping: usize, sql: &str) -> Result<u64, Trouble> {
        self.connection
            .statement(STATEMENT_TIMEOUT, sql)
            .map_err(|fault| Trouble::Fault(mapping, fault))
    }

    fn delete<'c>(
        &mut self,
        mapping: usize,
        changes: impl Iterator<Item = &'c Change>,
    ) -> Result<(), Trouble> {
        let plan = &self.plan.mappings[mapping];
        let sql = &self.statements[mapping].delete;
        let mut request = Request::new(self.connection, self.method, sql, 1);
        for change in changes {
            if let Some(key) = key_of(plan, &change.key) {
                request
                    .push(vec![key])
                    .map_err(|fault| Trouble::Fault(mapping, fault))?;
            }
        }
        request
            .send()
            .map_err(|fault| Trouble::Fault(mapping, fault))
    }

    fn put(&mut self, mapping: usize, sql: &RowSql, changes: &[Change]) -> Result<(), Trouble> {
        self.put_with(mapping, sql, changes, |_, _| {})
    }

    /// Puts rows with what `more` adds to each one's values.
    fn put_with(
        &mut self,
        mapping: usize,
        sql: &RowSql,
        changes: &[Change],
        more: impl Fn(&Change, &mut Vec<Value>),
    ) -> Result<(), Trouble> {
        let plan = &self.plan.mappings[mapping];
        let facts = &self.facts[mapping];
        let limit = self
            .connection
            .packet_bytes()
            .saturating_sub(REQUEST_BYTES_EXTRA);
        let columns = plan.columns.len() + RECORD_COLUMNS;
        let mut request = Request::new(self.connection, self.method, sql, columns);
        for change in changes {
            let Some(mut values) = row_values(plan, facts, change, self.row, limit)? else {
                continue;
            };
            more(change, &mut values);
            request
                .push(values)
                .map_err(|fault| Trouble::Fault(mapping, fault))?;
        }
        request
            .send()
            .map_err(|fault| Trouble::Fault(mapping, fault))
    }

    /// Applies changes one by one in their order; all rows are named whose last image is refused. A
    /// statement that is refused changes nothing, and the transaction goes on.
    pub(crate) fn one_by_one<'c>(
        &mut self,
        changes: impl Iterator<Item = (usize, &'c Change)>,
    ) -> Result<(), Trouble> {
        let (mut own, mut exchanged) = (Refusals::default(), Refusals::default());
        let mut references = Refusals::default();
        let mut are_new = false;
        let changes: Vec<(usize, &Change)> = changes.collect();
        let rows = changes.iter().enumerate();
        let last: HashMap<(usize, &[u8]), usize> = rows
            .map(|(n, (mapping, change))| ((*mapping, &change.key[..]), n))
            .collect();
        for (n, (mapping, change)) in changes.iter().copied().enumerate() {
            let all = [&own, &exchanged, &references];
            if all.iter().any(|refusals| refusals.is_full()) {
                break;
            }
            let done = match change.value {
                None => self.delete_one(mapping, change),
                Some(_) => self.put_one(mapping, change, &mut are_new),
            };
            let of_its_kind = match &done {
                Err(Trouble::Fault(_, fault)) if fault.is_exchange() => &mut exchanged,
                Err(Trouble::Fault(_, fault)) if fault.is_reference() => &mut references,
                _ => &mut own,
            };
            let refused = self.refused(change, done)?;
            // A later image decides.
            let is_last = last.get(&(mapping, &change.key[..])) == Some(&n);
            if let Some(refused) = refused.filter(|_| is_last) {
                of_its_kind.note(mapping, change, refused)?;
            }
        }
        // Beside an exchange those are named first that are refused by themselves: the batch comes again
        // without them. What refers to a row that is missing may miss one of the exchange.
        if !exchanged.is_empty() && !own.is_empty() {
            return Ok(own.into_result()?);
        }
        own.append(exchanged);
        own.append(references);
        Ok(own.into_result()?)
    }

    /// The refusal of a change, where that is what came out.
    fn refused(
        &self,
        change: &Change,
        done: Result<(), Trouble>,
    ) -> Result<Option<StoreError>, Trouble> {
        match done {
            Err(Trouble::Fault(mapping, fault)) if fault.is_rejected_row() => {
                Ok(Some(StoreError::refused_change(
                    &self.plan.mappings[mapping],
                    change,
                    fault.message(self.connection.flavour()),
                )))
            }
            Err(Trouble::Store(error @ StoreError::Refused(_))) => Ok(Some(error)),
            other => other.map(|()| None),
        }
    }

    fn delete_one(&mut self, mapping: usize, change: &Change) -> Result<(), Trouble> {
        let Some(key) = key_of(&self.plan.mappings[mapping], &change.key) else {
            return Ok(());
        };
        let sql = self.statements[mapping].delete.text(1);
        self.connection
            .prepared(&sql, Params::Positional(vec![key]))
            .map(drop)
            .map_err(|fault| Trouble::Fault(mapping, fault))
    }

    /// `are_new`: whether the last row had to be inserted, which is then tried first for this one.
    fn put_one(
        &mut self,
        mapping: usize,
        change: &Change,
        are_new: &mut bool,
    ) -> Result<(), Trouble> {
        let plan = &self.plan.mappings[mapping];
        let limit = self
            .connection
            .packet_bytes()
            .saturating_sub(REQUEST_BYTES_EXTRA);
        let found = row_values(plan, &self.facts[mapping], change, self.row, limit)?;
        let Some(values) = found else {
            return Ok(());
        };
        let statements = &self.statements[mapping];
        let insert = statements.insert.text(1);
        let mut keyed = values.clone();
        keyed.push(values[plan.key].clone());
        let failed = |fault| Trouble::Fault(mapping, fault);
        let mut run = |sql: &str, values| {
            let done = self.connection.prepared(sql, Params::Positional(values));
            done.map_err(failed)
        };
        if !*are_new {
            if run(&statements.update_one, keyed)? == 0 {
                run(&insert, values)?;
                *are_new = true;
            }
            return Ok(());
        }
        match run(&insert, values) {
            // Perhaps because the row is there.
            Err(Trouble::Fault(_, fault)) if fault.is_rejected_row() => {
                match run(&statements.update_one, keyed)? {
                    0 => Err(failed(fault)),
                    _ => {
                        *are_new = false;
                        Ok(())
                    }
                }
            }
            done => done.map(drop),
        }
    }
}

impl MysqlStore {
    /// One attempt at a batch, in one transaction.
    pub(crate) fn attempt(
        &mut self,
        batch: &Batch,
        facts: &[TargetTable],
        way: Way,
    ) -> Result<(), Trouble> {
        if batch.rows() > 0 {
            failpoint::hit(&self.identity.sink, "transaction");
        }
        self.connection
            .execute("beginning a transaction in", "START TRANSACTION")?;
        let changed = batch.changes.iter().enumerate();
        let changed = changed.filter(|(_, changes)| !changes.is_empty());
        let applied = self.apply_inside(batch, facts, way).and_then(|()| {
            // The locks of the writes keep the definitions as they are now until the commit.
            self.check_unchanged(facts, changed.map(|(mapping, _)| mapping))
        });
        if applied.is_err() {
            self.connection.roll_back();
            return applied;
        }
        failpoint::hit(&self.identity.sink, "before_commit");
        self.connection.execute("committing to", "COMMIT")?;
        Ok(())
    }

    fn apply_inside(
        &mut self,
        batch: &Batch,
        facts: &[TargetTable],
        way: Way,
    ) -> Result<(), Trouble> {
        let table = self.names.position();
        let known = self.known_after(batch).map(|known| known.to_text());
        advance_position(
            &mut self.connection,
            &table,
            &self.identity,
            batch.from,
            batch.place(),
            known.as_deref(),
        )?;
        let last = || {
            let all = batch.changes.iter().enumerate();
            let pairs = all.flat_map(|(n, changes)| changes.iter().map(move |change| (n, change)));
            pairs.collect::<Vec<_>>()
        };
        let mut writer = self.writer(facts);
        match way {
            Way::Many => writer.many(&batch.changes),
            Way::Anew => writer.anew(&batch.changes),
            Way::AnewOneByOne => {
                writer.delete_all(&batch.changes)?;
                let mut written = last();
                written.retain(|(_, change)| change.value.is_some());
                written.sort_by_key(|(mapping, change)| (*mapping, change.offset));
                writer.one_by_one(written.into_iter())
            }
            Way::InOrder => writer.one_by_one(batch.in_order.iter().map(|(n, c)| (*n, c))),
            Way::OneByOne => {
                let mut pairs = last();
                // As in the attempt before: deletes first.
                pairs.sort_by_key(|(_, change)| change.value.is_some());
                writer.one_by_one(pairs.into_iter())
            }
        }
    }

    /// A row is refused. Whether it is one by itself, or conflicts with another one, is found out
    /// by other ways to the same rows.
    pub(crate) fn apply_otherwise(
        &mut self,
        batch: &Batch,
        facts: &[TargetTable],
        fault: &Fault,
    ) -> Result<(), Trouble> {
        if !fault.is_between_rows() {
            return self.attempt(batch, facts, Way::OneByOne);
        }
        let refused = match self.attempt(batch, facts, Way::InOrder) {
            Err(Trouble::Store(StoreError::Refused(refused))) => refused,
            other => return other,
        };
        // A foreign key of another table may have come since they were looked at.
        if !self.are_renewable(batch)? {
            return Err(Trouble::Store(StoreError::Refused(refused)));
        }
        match self.attempt(batch, facts, Way::Anew) {
            Err(Trouble::Fault(_, fault)) if fault.is_rejected_row() => {}
            other => return other,
        }
        // A row has what another one has that stays, or an earlier one of the log: the exchanges beside it
        // pass without it. What only cannot be inserted again is not to blame.
        let named = match self.attempt(batch, facts, Way::AnewOneByOne) {
            Err(Trouble::Store(StoreError::Refused(found))) => found.among(&refused).map(Box::new),
            Err(Trouble::Fault(_, fault)) if fault.is_rejected_row() => None,
            other => return other,
        };
        let named = named.unwrap_or(refused);
        Err(Trouble::Store(StoreError::Refused(named)))
    }
}

impl MysqlStore {
    /// Whether the rows that a batch writes can be deleted and inserted again in all tables.
    fn are_renewable(&mut self, batch: &Batch) -> Result<bool, StoreError> {
        for mapping in batch.written() {
            let mapping = &self.plan.mappings[mapping];
            if !existing::target_table(&mut self.connection, mapping)?.renewable {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Inserts rows into a table that a rebuild loads, in the transaction that is under way.
pub(crate) fn load(
    writer: &mut Writer<'_>,
    mapping: usize,
    table: &str,
    rows: &[Change],
) -> Result<(), Trouble> {
    let plan = &writer.plan.mappings[mapping];
    let Some(record) = &writer.facts[mapping].record_columns else {
        let sql = RowSql::insert(plan, table, String::new());
        return writer.put(mapping, &sql, rows);
    };
    let sql = RowSql::insert_records(plan, table, record);
    writer.put_with(mapping, &sql, rows, |row, values| {
        values.push(Value::from(&row.key[..]));
        values.push(Value::from(row.offset.get()));
    })
}

/// Inserts rows into a table that a rebuild loads one by one, to name those that are refused.
pub(crate) fn load_one_by_one(
    writer: &mut Writer<'_>,
    mapping: usize,
    table: &str,
    rows: &[Change],
) -> Result<(), Trouble> {
    let mut refusals = Refusals::default();
    for row in rows {
        if refusals.is_full() {
            break;
        }
        let loaded = load(writer, mapping, table, std::slice::from_ref(row));
        if let Some(mut refused) = writer.refused(row, loaded)? {
            if let StoreError::Refused(refused) = &mut refused {
                // The name of the new table means nothing to people, and changes with each rebuild.
                let into = &writer.plan.mappings[mapping].into;
                refused.what = refused.what.replace(table, into);
            }
            refusals.note(mapping, row, refused)?;
        }
    }
    Ok(refusals.into_result()?)
}

/// A key that has no place in this table can never have had a row there.
pub(crate) fn key_of(plan: &MappingPlan, key: &[u8]) -> Option<Value> {
    let mut cell = Cell::Null;
    plan.project_key(key, &mut cell).ok()?;
    key_value(cell).ok()
}

fn row_values(
    plan: &MappingPlan,
    facts: &TargetTable,
    change: &Change,
    row: &mut Row,
    limit: usize,
) -> Result<Option<Vec<Value>>, StoreError> {
    let Some(value) = &change.value else {
        return Ok(None);
    };
    let refused = |what: String| StoreError::refused_change(plan, change, what);
    plan.project(&change.key, change.offset, value, row)
        .map_err(|fault| StoreError::refused_change(plan, change, fault))?;
    let values = take_values(plan, &facts.decimals, row).map_err(refused)?;
    let bytes = request_bytes(&values);
    if bytes > limit {
        return Err(refused(format!(
            "the row takes {bytes} bytes, the server takes requests of {limit}; raise max_allowed_packet there"
        )));
    }
    Ok(Some(values))
}

/// Rows on their way to the server, sent whenever enough of them are there. Each request carries
/// its own types, because a column that is NULL throughout a request has none.
struct Request<'r> {
    connection: &'r mut Connection,
    method: Method,
    sql: &'r RowSql,
    rows: Vec<Vec<Value>>,
    bytes: usize,
    rows_max: usize,
    bytes_max: usize,
}

impl<'r> Request<'r> {
    fn new(
        connection: &'r mut Connection,
        method: Method,
        sql: &'r RowSql,
        columns: usize,
    ) -> Self {
        let rows_max = match method {
            Method::Bulk => REQUEST_ROWS_MAX,
            Method::ManyRows { .. } => {
                let fitting = (PARAMETERS_MAX / columns.max(1)).max(1);
                let power = 1 << fitting.ilog2();
                STATEMENT_ROWS_MAX.min(power)
            }
        };
        let bytes_max = REQUEST_BYTES_MAX.min(connection.packet_bytes() - REQUEST_BYTES_EXTRA);
        Self {
            connection,
            method,
            sql,
            rows: Vec::new(),
            bytes: 0,
            rows_max,
            bytes_max,
        }
    }

    fn push(&mut self, values: Vec<Value>) -> Result<(), Fault> {
        let bytes = request_bytes(&values);
        if self.rows.len() == self.rows_max || self.bytes + bytes > self.bytes_max {
            self.send()?;
        }
        self.bytes += bytes;
        self.rows.push(values);
        Ok(())
    }

    fn send(&mut self) -> Result<(), Fault> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        match self.method {
            Method::Bulk => {
                let sql = self.sql.text(1);
                self.connection
                    .run(STATEMENT_TIMEOUT, async |conn: &mut Conn| {
                        conn.exec_batch(sql, rows.into_iter().map(Params::Positional))
                            .await
                    })
            }
            Method::ManyRows { .. } => self.send_powers(rows),
        }
    }

    /// Statements for a power of two rows each, so that few different ones are prepared.
    fn send_powers(&mut self, rows: Vec<Vec<Value>>) -> Result<(), Fault> {
        let mut left = rows.len();
        let mut rows = rows.into_iter();
        while left > 0 {
            let count = 1 << left.ilog2();
            left -= count;
            let values = rows.by_ref().take(count).flatten().collect();
            let sql = self.sql.text(count);
            self.connection.prepared(&sql, Params::Positional(values))?;
        }
        Ok(())
    }
}
