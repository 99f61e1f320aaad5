//! Rows into tables: many at once, and one by one where a row is at fault or in another's way.
//!
//! An upsert never changes another row than the one with its key. `ON DUPLICATE KEY UPDATE` acts
//! on *any* unique index, so it is used only where the key's is the only one, and even then it
//! assigns the key `IF(key = new key, key, NULL)`: should an index have been added meanwhile, the
//! statement fails. Where a second unique index is known, a batch is staged in a temporary table,
//! from which rows that are there are updated and the others inserted.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Value};

use super::connection::{Fault, Flavour, Link, STATEMENT_TIMEOUT};
use super::names::{list, quote};
use super::rows::{key_value, request_bytes, take_values};
use super::schema::Facts;
use onelog_mapping::{Cell, MappingPlan, Plan, Row};
use onelog_store::{Change, StoreError};

/// The most rows of one request.
const REQUEST_ROWS_MAX: usize = 4096;
/// About how many bytes one request has, at most.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// What a request has beside its rows, at most.
const REQUEST_BYTES_EXTRA: usize = 64 << 10;
/// The most parameters of a statement.
const PARAMETERS_MAX: usize = 65_535;
/// The most rows of a statement with many rows; a power of two.
const STATEMENT_ROWS_MAX: usize = 512;

/// How many rows are sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// One statement for one row, with many rows of parameters: MariaDB.
    Bulk,
    /// Statements with many rows; MySQL names the new row by an alias.
    ManyRows { alias: bool },
}

impl Method {
    pub(super) const fn of(flavour: Flavour) -> Self {
        match flavour {
            Flavour::Mariadb => Self::Bulk,
            Flavour::Mysql => Self::ManyRows { alias: true },
        }
    }
}

/// A statement for rows: its text for any number of them.
#[derive(Clone, Debug)]
struct RowSql {
    head: String,
    marks: String,
    tail: String,
}

impl RowSql {
    fn text(&self, rows: usize) -> String {
        let mut text = self.head.clone();
        for n in 0..rows {
            if n > 0 {
                text.push_str(", ");
            }
            text.push_str(&self.marks);
        }
        text.push_str(&self.tail);
        text
    }

    fn insert(mapping: &MappingPlan, table: &str, tail: String) -> Self {
        let marks = vec!["?"; mapping.columns.len()].join(", ");
        Self {
            head: format!(
                "INSERT INTO {} ({}) VALUES ",
                quote(table),
                list(mapping.column_names())
            ),
            marks: format!("({marks})"),
            tail,
        }
    }
}

/// The statements of one mapping.
#[derive(Clone, Debug)]
pub(super) struct Statements {
    upsert: RowSql,
    insert: RowSql,
    delete: RowSql,
    update_one: String,
    stage: RowSql,
    /// What brings staged rows into the table.
    merge: [String; 2],
    empty_stage: String,
}

impl Statements {
    pub(super) fn new(mapping: &MappingPlan, batch_table: &str, method: Method) -> Self {
        let table = quote(&mapping.into);
        let key = quote(&mapping.columns[mapping.key].name);
        let alias = method == Method::ManyRows { alias: true };
        let new = |column: &str| match alias {
            true => format!("onelog_new.{column}"),
            false => format!("VALUES({column})"),
        };
        let own_key = format!("{table}.{key}");
        let mut sets = vec![format!(
            "{own_key} = IF({own_key} = {}, {own_key}, NULL)",
            new(&key)
        )];
        let others = mapping.columns.iter().enumerate();
        for (_, column) in others.filter(|(n, _)| *n != mapping.key) {
            let column = quote(&column.name);
            sets.push(format!("{table}.{column} = {}", new(&column)));
        }
        let tail = format!(
            "{} ON DUPLICATE KEY UPDATE {}",
            if alias { " AS onelog_new" } else { "" },
            sets.join(", ")
        );
        let assigned: Vec<String> = mapping
            .column_names()
            .map(|name| format!("{} = ?", quote(name)))
            .collect();
        Self {
            upsert: RowSql::insert(mapping, &mapping.into, tail),
            insert: RowSql::insert(mapping, &mapping.into, String::new()),
            delete: RowSql {
                head: format!("DELETE FROM {table} WHERE {key} IN ("),
                marks: "?".into(),
                tail: ")".into(),
            },
            update_one: format!("UPDATE {table} SET {} WHERE {key} = ?", assigned.join(", ")),
            stage: RowSql::insert(mapping, batch_table, String::new()),
            merge: merge(mapping, batch_table),
            empty_stage: format!("DELETE FROM {}", quote(batch_table)),
        }
    }
}

/// Updates the rows of a table that another table has as well, and inserts those it lacks.
pub(super) fn merge(mapping: &MappingPlan, from: &str) -> [String; 2] {
    let table = quote(&mapping.into);
    let from = quote(from);
    let key = quote(&mapping.columns[mapping.key].name);
    let assigned: Vec<String> = mapping
        .column_names()
        .map(|name| format!("t.{0} = n.{0}", quote(name)))
        .collect();
    let names: Vec<String> = mapping.column_names().map(quote).collect();
    [
        format!(
            "UPDATE {table} t JOIN {from} n ON t.{key} = n.{key} SET {}",
            assigned.join(", ")
        ),
        format!(
            "INSERT INTO {table} ({}) SELECT {} FROM {from} n LEFT JOIN {table} t ON t.{key} = n.{key} WHERE t.{key} IS NULL",
            names.join(", "),
            names
                .iter()
                .map(|name| format!("n.{name}"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    ]
}

/// Why rows were not written.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Known already.
    Store(StoreError),
    /// The server's answer to a statement for rows of this mapping.
    Fault(usize, Fault),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Writes rows in the transaction that is under way.
pub(super) struct Writer<'a> {
    pub(super) link: &'a mut Link,
    pub(super) plan: &'a Plan,
    pub(super) statements: &'a [Statements],
    pub(super) facts: &'a [Facts],
    pub(super) method: Method,
    pub(super) row: &'a mut Row,
}

impl Writer<'_> {
    /// Applies last images: deletes against the order of mappings, so that what refers to a row
    /// goes before it, then puts.
    pub(super) fn many(&mut self, changes: &[Vec<Change>]) -> Result<(), Trouble> {
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

    /// Applies last images by deleting every row that changes, then inserting: where rows exchange
    /// values that must be unique. Only where all tables are renewable.
    pub(super) fn anew(&mut self, changes: &[Vec<Change>]) -> Result<(), Trouble> {
        for mapping in (0..changes.len()).rev() {
            self.delete(mapping, changes[mapping].iter())?;
        }
        for (mapping, changes) in changes.iter().enumerate() {
            self.put(mapping, &self.statements[mapping].insert, changes)?;
        }
        Ok(())
    }

    fn run(&mut self, mapping: usize, sql: &str) -> Result<u64, Trouble> {
        self.link
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
        let mut request = Request::new(self.link, self.method, sql, 1);
        for change in changes {
            if let Some(key) = delete_key(plan, change) {
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
        let plan = &self.plan.mappings[mapping];
        let facts = &self.facts[mapping];
        let limit = self.link.packet_bytes().saturating_sub(REQUEST_BYTES_EXTRA);
        let mut request = Request::new(self.link, self.method, sql, plan.columns.len());
        for change in changes {
            let Some(values) = row_values(plan, facts, change, self.row, limit)? else {
                continue;
            };
            request
                .push(values)
                .map_err(|fault| Trouble::Fault(mapping, fault))?;
        }
        request
            .send()
            .map_err(|fault| Trouble::Fault(mapping, fault))
    }

    /// Applies changes one by one in their order; the one that is refused is named.
    pub(super) fn one_by_one<'c>(
        &mut self,
        changes: impl Iterator<Item = (usize, &'c Change)>,
    ) -> Result<(), Trouble> {
        for (mapping, change) in changes {
            let done = match change.value {
                None => self.delete_one(mapping, change),
                Some(_) => self.put_one(mapping, change),
            };
            match done {
                Err(Trouble::Fault(mapping, fault)) if fault.is_of_a_row() => {
                    return Err(Trouble::Store(StoreError::refused_change(
                        &self.plan.mappings[mapping],
                        change,
                        fault.words(self.link.flavour()),
                    )));
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn delete_one(&mut self, mapping: usize, change: &Change) -> Result<(), Trouble> {
        let Some(key) = delete_key(&self.plan.mappings[mapping], change) else {
            return Ok(());
        };
        let sql = self.statements[mapping].delete.text(1);
        self.link
            .prepared(&sql, Params::Positional(vec![key]))
            .map(drop)
            .map_err(|fault| Trouble::Fault(mapping, fault))
    }

    fn put_one(&mut self, mapping: usize, change: &Change) -> Result<(), Trouble> {
        let plan = &self.plan.mappings[mapping];
        let limit = self.link.packet_bytes().saturating_sub(REQUEST_BYTES_EXTRA);
        let found = row_values(plan, &self.facts[mapping], change, self.row, limit)?;
        let Some(values) = found else {
            return Ok(());
        };
        let statements = &self.statements[mapping];
        let mut keyed = values.clone();
        keyed.push(values[plan.key].clone());
        let failed = |fault| Trouble::Fault(mapping, fault);
        let updated = self
            .link
            .prepared(&statements.update_one, Params::Positional(keyed))
            .map_err(failed)?;
        if updated == 0 {
            let sql = statements.insert.text(1);
            self.link
                .prepared(&sql, Params::Positional(values))
                .map_err(failed)?;
        }
        Ok(())
    }
}

/// Inserts rows into a table that a rebuild fills, in the transaction that is under way.
pub(super) fn load(
    writer: &mut Writer<'_>,
    mapping: usize,
    table: &str,
    rows: &[Change],
) -> Result<(), Trouble> {
    let sql = RowSql::insert(&writer.plan.mappings[mapping], table, String::new());
    writer.put(mapping, &sql, rows)
}

/// Inserts rows into a table that a rebuild fills one by one, to name the one that is refused.
pub(super) fn load_one_by_one(
    writer: &mut Writer<'_>,
    mapping: usize,
    table: &str,
    rows: &[Change],
) -> Result<(), Trouble> {
    for row in rows {
        let loaded = load(writer, mapping, table, std::slice::from_ref(row));
        match loaded {
            Err(Trouble::Fault(_, fault)) if fault.is_of_a_row() => {
                return Err(Trouble::Store(StoreError::refused_change(
                    &writer.plan.mappings[mapping],
                    row,
                    fault.words(writer.link.flavour()),
                )));
            }
            other => other?,
        }
    }
    Ok(())
}

/// A key that has no place in this table can never have had a row there.
fn delete_key(plan: &MappingPlan, change: &Change) -> Option<Value> {
    let mut cell = Cell::Null;
    plan.project_key(&change.key, &mut cell).ok()?;
    key_value(cell).ok()
}

fn row_values(
    plan: &MappingPlan,
    facts: &Facts,
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
    link: &'r mut Link,
    method: Method,
    sql: &'r RowSql,
    rows: Vec<Vec<Value>>,
    bytes: usize,
    rows_max: usize,
    bytes_max: usize,
}

impl<'r> Request<'r> {
    fn new(link: &'r mut Link, method: Method, sql: &'r RowSql, columns: usize) -> Self {
        let rows_max = match method {
            Method::Bulk => REQUEST_ROWS_MAX,
            Method::ManyRows { .. } => {
                let fitting = (PARAMETERS_MAX / columns.max(1)).max(1);
                let power = 1 << fitting.ilog2();
                STATEMENT_ROWS_MAX.min(power)
            }
        };
        let bytes_max = REQUEST_BYTES_MAX.min(link.packet_bytes() - REQUEST_BYTES_EXTRA);
        Self {
            link,
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
                self.link.run(STATEMENT_TIMEOUT, async |conn: &mut Conn| {
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
            self.link.prepared(&sql, Params::Positional(values))?;
        }
        Ok(())
    }
}
