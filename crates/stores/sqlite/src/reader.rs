//! A consistent picture of a SQLite store: a read transaction on a connection of its own.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onelog_record::Position;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::{BUSY_TIMEOUT, classify, full_text, read_position, schema};
use onelog_mapping::{
    Cell, ColumnType, Plan, Row, numeric, parse_date, parse_timestamp, parse_uuid,
};
use onelog_store::{EachRow, IndexCheck, StoreError, StoreReader};

/// The picture. Its read transaction ends with its connection.
pub(super) struct SqliteReader {
    path: PathBuf,
    connection: Connection,
    plan: Arc<Plan>,
    position: Position,
}

impl SqliteReader {
    pub(super) fn open(
        path: &Path,
        sink: &str,
        fingerprint: &str,
        plan: Arc<Plan>,
    ) -> Result<Self, StoreError> {
        let failed = |error| classify("opening for reading", path, error);
        let connection = connect(path)?;
        // The first read fixes the picture.
        let found = read_position(&connection, sink, fingerprint).map_err(failed)?;
        let Some(found) = found else {
            return Err(StoreError::PositionMismatch {
                expected: Position::ZERO,
                found: None,
            });
        };
        Ok(Self {
            path: path.to_owned(),
            connection,
            plan,
            position: found.position,
        })
    }

    /// The tables as they are, whoever made them.
    pub(super) fn of_tables(path: &Path, plan: Arc<Plan>) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            connection: connect(path)?,
            plan,
            position: Position::ZERO,
        })
    }
}

/// Opens a read transaction; the first read fixes its picture.
fn connect(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error| classify("opening for reading", path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.execute_batch("BEGIN").map_err(failed)?;
    Ok(connection)
}

impl StoreReader for SqliteReader {
    fn position(&self) -> Position {
        self.position
    }

    fn scan(&mut self, mapping: usize, each: EachRow<'_>) -> Result<(), StoreError> {
        let plan = &self.plan.mappings[mapping];
        let failed = |error| classify("scanning", &self.path, error);
        let names: Vec<String> = plan.column_names().map(schema::quote).collect();
        let sql = format!(
            "SELECT {} FROM {}",
            names.join(", "),
            schema::quote(&plan.into)
        );
        let mut statement = self.connection.prepare(&sql).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut row = Row::new(plan.columns.len());
        while let Some(found) = rows.next().map_err(failed)? {
            for (n, column) in plan.columns.iter().enumerate() {
                let value = found.get_ref(n).map_err(failed)?;
                read_cell(column.kind, value, &mut row.cells[n]);
            }
            if each(&row) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn check_index(
        &mut self,
        mapping: usize,
        faults_max: usize,
    ) -> Result<Option<IndexCheck>, StoreError> {
        let plan = &self.plan.mappings[mapping];
        if plan.full_text.is_empty() {
            return Ok(None);
        }
        match full_text::check(&self.connection, plan, faults_max) {
            Ok(check) => Ok(Some(check)),
            Err(error) => match classify("reading the full-text index in", &self.path, error) {
                // A damaged index is a finding, not a failure to look.
                StoreError::Broken { what, cause } => Ok(Some(IndexCheck {
                    faults_total: 1,
                    faults: vec![format!("{what}: {cause}")],
                })),
                other => Err(other),
            },
        }
    }
}

/// A stored value as the cell that it was, or as what somebody made of it.
fn read_cell(kind: ColumnType, value: ValueRef<'_>, cell: &mut Cell) {
    match (kind, value) {
        (_, ValueRef::Null) => *cell = Cell::Null,
        (ColumnType::Boolean, ValueRef::Integer(number @ (0 | 1))) => {
            *cell = Cell::Boolean(number == 1);
        }
        (_, ValueRef::Integer(number)) => *cell = Cell::Integer(number),
        (_, ValueRef::Real(number)) => cell.set_real(number),
        (_, ValueRef::Blob(bytes)) => cell.set_blob(bytes),
        (kind, ValueRef::Text(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => read_text(kind, text, cell),
            Err(_) => cell.set_blob(bytes),
        },
    }
}

fn read_text(kind: ColumnType, text: &str, cell: &mut Cell) {
    let parsed = match kind {
        ColumnType::Json => return cell.set_json(text),
        ColumnType::Numeric => numeric(text).filter(|same| same == text).map(Cell::Numeric),
        ColumnType::Timestamp => parse_timestamp(text).map(Cell::Timestamp),
        ColumnType::Date => parse_date(text).map(Cell::Date),
        ColumnType::Uuid => parse_uuid(text).map(Cell::Uuid),
        _ => None,
    };
    match parsed {
        Some(parsed) => *cell = parsed,
        None => cell.set_text(text),
    }
}
