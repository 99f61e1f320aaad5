//! A consistent snapshot: a transaction on a connection of its own.
//!
//! The snapshot holds no table between scans, so it never blocks a rebuild. It holds the
//! *pin* of its generation, an empty table that is never renamed: as long as a reader does, the
//! tables of that generation are kept, under another name once they were replaced. Which name is
//! right is known by the comment of the table, read while it is held: a table that was being backfilled
//! when the snapshot was taken would otherwise show a part of its rows.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{BinaryProtocol, Conn, Params, QueryResult, Value};
use onelog_mapping::{EXISTING, MappingPlan, Plan, Row};
use onelog_record::Position;
use onelog_store::{EachRow, IndexCheck, Remedy, StoreError, StoreReader};

use crate::bookkeeping;
use crate::connection::{Connection, STATEMENT_TIMEOUT};
use crate::ddl::existing;
use crate::decode::ReadAs;
use crate::error::{Fault, NO_COLUMN, NO_TABLE, TABLE_CHANGED};
use crate::kind::MysqlTarget;
use crate::names::{Names, list, quote};

/// How often a snapshot is begun again because tables were swapped while it was.
const ATTEMPTS_MAX: usize = 8;
const OPENING: &str = "taking a snapshot of";
const SCANNING: &str = "scanning";

/// How many rows a table has; `None`: there is none of this name.
pub(crate) fn count_rows(target: &MysqlTarget, into: &str) -> Result<Option<u64>, StoreError> {
    let mut connection = Connection::open_to_read(target)?;
    let sql = format!("SELECT count(*) FROM {}", quote(into));
    match connection.fetch(&sql, Params::Empty) {
        Ok(rows) => Ok(rows.first().and_then(|row| row.get(0))),
        Err(fault) if fault.code() == Some(NO_TABLE) => Ok(None),
        Err(fault) => Err(connection.store_error("counting the rows of", fault)),
    }
}

/// The snapshot. Its transaction ends with its connection.
pub(crate) struct MysqlReader {
    connection: Connection,
    plan: Arc<Plan>,
    position: Position,
    names: Option<(Names, u64)>,
}

impl MysqlReader {
    /// A snapshot of a sink's tables, at its position.
    pub(crate) fn of_sink(
        target: &MysqlTarget,
        sink: &str,
        plan_hash: &str,
        plan: Arc<Plan>,
    ) -> Result<Self, StoreError> {
        let mut connection = Connection::open(target)?;
        let names = Names::new(sink);
        for _ in 0..ATTEMPTS_MAX {
            let begun = begin(&mut connection, &names, sink);
            let failed = |connection: &Connection, fault| connection.store_error(OPENING, fault);
            match begun {
                Ok(Some(record)) => {
                    let Some(found) = record.position_under(plan_hash) else {
                        return Err(not_backfilled());
                    };
                    return Ok(Self {
                        connection,
                        plan,
                        position: found.position,
                        names: Some((names, record.generation)),
                    });
                }
                Ok(None) => connection.roll_back(),
                Err(fault) if is_swap(&fault) => connection.roll_back(),
                Err(fault) => return Err(failed(&connection, fault)),
            }
        }
        // Either nothing was ever there, or another process swaps all the time.
        match bookkeeping::read_record(&mut connection, &names.position(), sink, "") {
            Ok(None) => Err(not_backfilled()),
            Ok(Some(_)) => Err(connection.unavailable(
                OPENING,
                "its tables were replaced again and again meanwhile",
            )),
            Err(fault) => Err(connection.store_error(OPENING, fault)),
        }
    }

    /// A snapshot of tables as they are, whichever sink owns them.
    pub(crate) fn of_tables(target: &MysqlTarget, plan: Arc<Plan>) -> Result<Self, StoreError> {
        let mut connection = Connection::open_to_read(target)?;
        snapshot(&mut connection).map_err(|fault| connection.store_error(OPENING, fault))?;
        Ok(Self {
            connection,
            plan,
            position: Position::ZERO,
            names: None,
        })
    }

    /// The name that the rows of the snapshot have now; the table is held until the
    /// transaction goes back to its savepoint.
    fn hold(&mut self, mapping: usize) -> Result<String, StoreError> {
        let mapping = &self.plan.mappings[mapping];
        let into = mapping.into.clone();
        let Some((names, generation)) = self
            .names
            .as_ref()
            .filter(|_| !mapping.options.flag(EXISTING))
        else {
            return Ok(into);
        };
        let old = names.old_table(*generation, &into);
        let touch = format!("SELECT 1 FROM {} LIMIT 0", quote(&into));
        let touched = self.connection.statement(STATEMENT_TIMEOUT, &touch);
        if touched
            .as_ref()
            .is_err_and(|fault| fault.code() == Some(NO_TABLE))
        {
            return Ok(old);
        }
        let mark = existing::find_table(&mut self.connection, &into)?.and_then(|found| found.mark);
        match (mark, touched) {
            (Some(mark), _) if mark.generation != *generation => Ok(old),
            (_, Ok(_)) => Ok(into),
            (_, Err(fault)) => Err(self.connection.store_error(SCANNING, fault)),
        }
    }
}

fn not_backfilled() -> StoreError {
    StoreError::PositionMismatch {
        expected: None,
        found: None,
    }
}

fn is_swap(fault: &Fault) -> bool {
    matches!(fault.code(), Some(NO_TABLE | TABLE_CHANGED))
}

fn snapshot(connection: &mut Connection) -> Result<(), Fault> {
    for sql in [
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    ] {
        connection.statement(STATEMENT_TIMEOUT, sql)?;
    }
    Ok(())
}

/// Begins the transaction, reads the sink's row in it and holds the pin of its generation.
fn begin(
    connection: &mut Connection,
    names: &Names,
    sink: &str,
) -> Result<Option<bookkeeping::Record>, Fault> {
    snapshot(connection)?;
    connection.statement(STATEMENT_TIMEOUT, "SAVEPOINT onelog_row")?;
    let found = connection.fetch(
        &bookkeeping::select_record(&names.position(), ""),
        Params::Positional(vec![Value::from(sink)]),
    )?;
    let Some(record) = found.first().map(bookkeeping::record_of) else {
        return Ok(None);
    };
    connection.statement(STATEMENT_TIMEOUT, "ROLLBACK TO SAVEPOINT onelog_row")?;
    if record.generation > 0 {
        let pin = quote(&names.pin(record.generation));
        connection.statement(STATEMENT_TIMEOUT, &format!("SELECT 1 FROM {pin}"))?;
    }
    connection.statement(STATEMENT_TIMEOUT, "SAVEPOINT onelog_scan")?;
    Ok(Some(record))
}

impl MysqlReader {
    /// What a table lacks of the columns by which it is to be read.
    fn without_columns(&mut self, table: &str, plan: &MappingPlan, fault: &Fault) -> StoreError {
        let names: Vec<String> = match existing::columns(&mut self.connection, table) {
            Ok(found) => found.into_iter().map(|column| column.name).collect(),
            Err(error) => return error,
        };
        let missing = StoreError::without_columns(plan, &names, true);
        missing.unwrap_or_else(|| {
            let what = format!(
                "it is not there as it should be ({})",
                fault.message(self.connection.flavour())
            );
            StoreError::mismatch(plan, what, Remedy::NameAnother)
        })
    }
}

impl StoreReader for MysqlReader {
    fn position(&self) -> Position {
        self.position
    }

    fn scan(&mut self, mapping: usize, each: EachRow<'_>) -> Result<(), StoreError> {
        let table = self.hold(mapping)?;
        let plan = Arc::clone(&self.plan);
        let plan = &plan.mappings[mapping];
        let sql = format!(
            "SELECT {} FROM {}",
            list(plan.column_names()),
            quote(&table)
        );
        let mut row = Row::new(plan.columns.len());
        let scanned = self.connection.run_unbounded(async |conn: &mut Conn| {
            let mut result = bounded(conn.exec_iter(sql.as_str(), ())).await?;
            let columns = plan.columns.iter().zip(result.columns_ref());
            let read_as: Vec<ReadAs> = columns
                .map(|(column, found)| ReadAs::of(column.kind, found))
                .collect();
            while let Some(mut found) = bounded(next(&mut result)).await? {
                for (n, read_as) in read_as.iter().enumerate() {
                    let value = found.take::<Value, _>(n).unwrap_or(Value::NULL);
                    read_as.read(value, &mut row.cells[n]);
                }
                if each(&row) == ControlFlow::Break(()) {
                    break;
                }
            }
            bounded(result.drop_result()).await
        });
        if let Err(fault) = scanned {
            if fault.code().is_none() {
                self.connection.give_up();
            }
            return Err(match fault.code() {
                Some(NO_TABLE) if self.names.is_some() => StoreError::not_there(plan),
                // It may never have been there.
                Some(NO_TABLE) => {
                    let what = "there is no such table in this database";
                    StoreError::mismatch(plan, what, Remedy::NameAnother)
                }
                Some(NO_COLUMN) => self.without_columns(&table, plan, &fault),
                _ => self.connection.store_error(SCANNING, fault),
            });
        }
        if self.names.is_some() {
            self.connection
                .execute(SCANNING, "ROLLBACK TO SAVEPOINT onelog_scan")?;
        }
        Ok(())
    }

    fn check_index(&mut self, _: usize, _: usize) -> Result<Option<IndexCheck>, StoreError> {
        Ok(None)
    }
}

async fn next(
    result: &mut QueryResult<'_, '_, BinaryProtocol>,
) -> mysql_async::Result<Option<mysql_async::Row>> {
    result.next().await
}

async fn bounded<T>(work: impl Future<Output = mysql_async::Result<T>>) -> Result<T, Fault> {
    const LIMIT: Duration = STATEMENT_TIMEOUT;
    match tokio::time::timeout(LIMIT, work).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(Fault::TimedOut(LIMIT)),
    }
}
