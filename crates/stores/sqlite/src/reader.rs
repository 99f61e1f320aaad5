//! A consistent snapshot of a SQLite store: a read transaction on a connection of its own.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onelog_record::Position;
use rusqlite::{Connection, Error, ErrorCode};

use crate::bookkeeping::{Identity, read_position};
use crate::connection::open_to_read;
use crate::decode::read_cell;
use crate::error::classify;
use crate::{ddl, full_text};
use onelog_mapping::{MappingPlan, Plan, Row};
use onelog_store::{EachRow, IndexCheck, Remedy, StoreError, StoreReader};

/// How many rows a table has; `None`: there is none of this name.
pub(crate) fn count_rows(path: &Path, into: &str) -> Result<Option<u64>, StoreError> {
    let connection = open_to_read(path)?;
    let sql = format!("SELECT count(*) FROM {}", ddl::quote(into));
    match connection.query_row(&sql, [], |row| row.get::<_, i64>(0)) {
        Ok(rows) => Ok(Some(rows.cast_unsigned())),
        Err(error) if error.to_string().contains("no such table") => Ok(None),
        Err(error) => Err(classify("counting the rows of", path, error)),
    }
}

/// The snapshot. Its read transaction ends with its connection.
pub(crate) struct SqliteReader {
    path: PathBuf,
    connection: Connection,
    plan: Arc<Plan>,
    position: Position,
    /// Whether these are a sink's own tables.
    is_of_sink: bool,
}

impl SqliteReader {
    pub(crate) fn of_sink(
        path: &Path,
        identity: &Identity,
        plan: Arc<Plan>,
    ) -> Result<Self, StoreError> {
        let failed = |error| classify("opening for reading", path, error);
        let connection = open_to_read(path)?;
        // The first read fixes the snapshot.
        let found = read_position(&connection, identity).map_err(failed)?;
        let Some(found) = found else {
            return Err(StoreError::PositionMismatch {
                expected: None,
                found: None,
            });
        };
        Ok(Self {
            path: path.to_owned(),
            connection,
            plan,
            position: found.position,
            is_of_sink: true,
        })
    }

    /// The tables as they are, whichever sink owns them.
    pub(crate) fn of_tables(path: &Path, plan: Arc<Plan>) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            connection: open_to_read(path)?,
            plan,
            position: Position::ZERO,
            is_of_sink: false,
        })
    }

    /// A table or a column that is not there is a matter of the mapping, not of the moment.
    fn unreadable(&self, plan: &MappingPlan, error: Error) -> StoreError {
        // SQLite has one code for whatever is wrong in a statement's text.
        let is_about_text = matches!(error, Error::SqlInputError { .. })
            || error.sqlite_error_code() == Some(ErrorCode::Unknown);
        if !is_about_text {
            return classify("scanning", &self.path, error);
        }
        let what = match error.to_string().contains("no such table") {
            true if self.is_of_sink => return StoreError::not_there(plan),
            // It may never have been there.
            true => "there is no such table in this file".to_owned(),
            false => match self.without_columns(plan) {
                Some(error) => return error,
                None => format!("SQLite says: {error}"),
            },
        };
        StoreError::mismatch(plan, what, Remedy::NameAnother)
    }
}

impl SqliteReader {
    /// What a table lacks of the columns by which it is to be read.
    fn without_columns(&self, plan: &MappingPlan) -> Option<StoreError> {
        let names = "SELECT name FROM pragma_table_xinfo(?1) ORDER BY cid";
        let found: rusqlite::Result<Vec<String>> = self
            .connection
            .prepare(names)
            .and_then(|mut names| names.query_map([&plan.into], |row| row.get(0))?.collect());
        StoreError::without_columns(plan, &found.ok()?, true)
    }
}

impl StoreReader for SqliteReader {
    fn position(&self) -> Position {
        self.position
    }

    fn scan(&mut self, mapping: usize, each: EachRow<'_>) -> Result<(), StoreError> {
        let plan = &self.plan.mappings[mapping];
        let failed = |error| classify("scanning", &self.path, error);
        let names: Vec<String> = plan.column_names().map(ddl::quote).collect();
        let sql = format!(
            "SELECT {} FROM {}",
            names.join(", "),
            ddl::quote(&plan.into)
        );
        let mut statement = self
            .connection
            .prepare(&sql)
            .map_err(|error| self.unreadable(plan, error))?;
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
