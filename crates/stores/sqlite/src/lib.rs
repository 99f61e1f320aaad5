//! SQLite as a store: one file, one writing connection per sink, one transaction per batch.
//!
//! Write-ahead mode lets readers work on undisturbed. `synchronous=NORMAL` keeps the file
//! consistent through any crash and may lose the newest transactions in a power failure; rows and
//! position are lost together, so the log fills the gap and nothing is wrong in between.
//!
//! Bookkeeping in the file, shared by all sinks that write into it:
//! - `onelog_position`: sink, the log's id, position (NULL until filled), epoch, plan;
//! - `onelog_tables`: which tables onelog made, and for which sink (NULL: its sink was removed);
//! - `onelog_new_…`: the tables of a rebuild under way.

mod encode;
mod full_text;
mod kind;
mod reader;
mod schema;

pub use self::kind::{KIND, SqliteKind, SqliteTarget};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use onelog_record::Position;
use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction,
    TransactionBehavior, params,
};

use crate::encode::Bound;
use onelog_mapping::{Cell, MappingPlan, Plan, Row};
use onelog_store::{Batch, Change, Store, StoreError, StorePosition, StoreReader, failpoint};

/// How long to wait for another writer of the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How much the write-ahead file may grow before it is folded back, in pages of 4 KiB.
const CHECKPOINT_PAGES: u32 = 4096;
/// To how many bytes the write-ahead file is cut after it was folded back.
const WAL_BYTES_KEPT: u32 = 64 << 20;
/// SQLite's page cache, in KiB.
const CACHE_KIB: u32 = 16 << 10;
/// Prepared statements kept; each mapping needs three.
const STATEMENTS_KEPT: usize = 1024;

const BOOKKEEPING: &str = "
CREATE TABLE IF NOT EXISTS onelog_position (
  sink TEXT PRIMARY KEY NOT NULL, log_id TEXT NOT NULL, position INTEGER,
  epoch INTEGER NOT NULL, plan TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS onelog_tables (
  name TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, sink TEXT) STRICT;";

/// A SQLite database that follows the log.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    identity: Option<(u64, u64)>,
    sink: String,
    log_id: String,
    plan: Arc<Plan>,
    fingerprint: String,
    sql: Vec<schema::Statements>,
    connection: Connection,
    epoch: Option<u64>,
    row: Row,
}

impl SqliteStore {
    /// Opens the file, which is made when it is not there; its folder must be.
    pub fn open(
        path: &Path,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<Self, StoreError> {
        let failed = |error| classify("opening", path, error);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        configure(&connection).map_err(failed)?;
        let store = Self {
            path: path.to_owned(),
            identity: file_identity(path),
            sink: sink.to_owned(),
            log_id: log_id.to_owned(),
            fingerprint: plan.fingerprint(),
            sql: plan.mappings.iter().map(schema::Statements::new).collect(),
            plan,
            connection,
            epoch: None,
            row: Row::default(),
        };
        store
            .connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {BOOKKEEPING} COMMIT;"))
            .map_err(failed)?;
        Ok(store)
    }

    /// A file that was replaced or removed behind our back would swallow every write silently.
    fn check_identity(&self) -> Result<(), StoreError> {
        if file_identity(&self.path) == self.identity {
            return Ok(());
        }
        Err(StoreError::Unavailable {
            what: format!("writing to {}", self.path.display()),
            cause: "the file was replaced or removed while it was open".into(),
        })
    }

    fn begin(&mut self) -> Result<(Transaction<'_>, Scope<'_>), StoreError> {
        self.check_identity()?;
        #[allow(clippy::expect_used)]
        let epoch = self
            .epoch
            .expect("the contract: take_over comes before every change");
        let path = self.path.as_path();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| classify("beginning a transaction in", path, error))?;
        let scope = Scope {
            path,
            sink: &self.sink,
            log_id: &self.log_id,
            fingerprint: &self.fingerprint,
            plan: &self.plan,
            sql: &self.sql,
            row: &mut self.row,
            epoch,
        };
        Ok((transaction, scope))
    }
}

/// What a transaction needs of the store while the connection is lent out.
struct Scope<'a> {
    path: &'a Path,
    sink: &'a str,
    log_id: &'a str,
    fingerprint: &'a str,
    plan: &'a Plan,
    sql: &'a [schema::Statements],
    row: &'a mut Row,
    epoch: u64,
}

impl Store for SqliteStore {
    fn position(&mut self) -> Result<Option<StorePosition>, StoreError> {
        self.check_identity()?;
        read_position(&self.connection, &self.sink, &self.fingerprint)
            .map_err(|error| classify("reading the position in", &self.path, error))
    }

    fn take_over(&mut self) -> Result<u64, StoreError> {
        self.check_identity()?;
        let epoch: i64 = self
            .connection
            .query_row(
                "INSERT INTO onelog_position (sink, log_id, position, epoch, plan)
                 VALUES (?1, ?2, NULL, 1, ?3)
                 ON CONFLICT (sink) DO UPDATE SET epoch = epoch + 1, plan = excluded.plan,
                   position = CASE WHEN plan = excluded.plan THEN position END
                 RETURNING epoch",
                params![self.sink, self.log_id, self.fingerprint],
                |row| row.get(0),
            )
            .map_err(|error| classify("taking over", &self.path, error))?;
        let epoch = epoch.cast_unsigned();
        self.epoch = Some(epoch);
        Ok(epoch)
    }

    fn check_target(&mut self) -> Result<(), StoreError> {
        for mapping in &self.plan.mappings {
            schema::check_owner(&self.connection, &self.path, &self.sink, mapping)?;
        }
        Ok(())
    }

    fn check_shape(&mut self) -> Result<(), StoreError> {
        for mapping in &self.plan.mappings {
            schema::check_shape(&self.connection, &self.path, mapping)?;
        }
        Ok(())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let (transaction, mut scope) = self.begin()?;
        scope.advance(&transaction, batch.from, batch.to)?;
        for (mapping, changes) in batch.changes.iter().enumerate() {
            if !changes.is_empty() {
                scope.delete(&transaction, mapping, changes)?;
                let sql = &scope.sql[mapping].upsert;
                scope.write(&transaction, mapping, sql, changes)?;
            }
        }
        failpoint::hit(scope.sink, "before_commit");
        scope.commit(transaction)
    }

    fn begin_rebuild(&mut self) -> Result<(), StoreError> {
        let (transaction, scope) = self.begin()?;
        scope.check_epoch(&transaction)?;
        for mapping in &scope.plan.mappings {
            schema::check_owner(&transaction, scope.path, scope.sink, mapping)?;
            let name = schema::staging_name(mapping);
            let sql = format!(
                "DROP TABLE IF EXISTS {}; {}",
                schema::quote(&name),
                schema::create_table(mapping, &name)
            );
            transaction
                .execute_batch(&sql)
                .map_err(|error| classify("making new tables in", scope.path, error))?;
        }
        scope.commit(transaction)
    }

    fn load(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        let (transaction, mut scope) = self.begin()?;
        scope.check_epoch(&transaction)?;
        let sql = &scope.sql[mapping].load;
        scope.write(&transaction, mapping, sql, rows)?;
        scope.commit(transaction)
    }

    fn finish_rebuild(&mut self, position: Position) -> Result<(), StoreError> {
        self.connection.flush_prepared_statement_cache();
        let (transaction, scope) = self.begin()?;
        scope.check_epoch(&transaction)?;
        for mapping in &scope.plan.mappings {
            // Whoever made this name his own since the rebuild began keeps it.
            schema::check_owner(&transaction, scope.path, scope.sink, mapping)?;
            schema::swap(&transaction, scope.sink, mapping).map_err(|error| {
                classify("putting the new tables in place in", scope.path, error)
            })?;
        }
        transaction
            .execute(
                "UPDATE onelog_position SET position = ?2, log_id = ?3, plan = ?4 WHERE sink = ?1",
                params![
                    scope.sink,
                    signed(position, scope.path)?,
                    scope.log_id,
                    scope.fingerprint
                ],
            )
            .map_err(|error| classify("setting the position in", scope.path, error))?;
        failpoint::hit(scope.sink, "before_swap");
        scope.commit(transaction)
    }

    fn reader(&mut self) -> Result<Box<dyn StoreReader>, StoreError> {
        self.check_identity()?;
        let reader = reader::SqliteReader::open(
            &self.path,
            &self.sink,
            &self.fingerprint,
            Arc::clone(&self.plan),
        )?;
        Ok(Box::new(reader))
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        self.connection.flush_prepared_statement_cache();
        let (transaction, scope) = self.begin()?;
        scope.check_epoch(&transaction)?;
        let forget = |transaction: &Transaction<'_>| -> rusqlite::Result<()> {
            for mapping in &scope.plan.mappings {
                let name = schema::quote(&schema::staging_name(mapping));
                transaction.execute_batch(&format!("DROP TABLE IF EXISTS {name}"))?;
            }
            let sink = params![scope.sink];
            transaction.execute("UPDATE onelog_tables SET sink = NULL WHERE sink = ?1", sink)?;
            transaction.execute("DELETE FROM onelog_position WHERE sink = ?1", sink)?;
            Ok(())
        };
        forget(&transaction)
            .map_err(|error| classify("removing the sink from", scope.path, error))?;
        scope.commit(transaction)?;
        self.epoch = None;
        Ok(())
    }
}

impl Scope<'_> {
    fn commit(&self, transaction: Transaction<'_>) -> Result<(), StoreError> {
        transaction
            .commit()
            .map_err(|error| classify("committing to", self.path, error))
    }

    /// Moves the position; nothing else of the batch is worth trying when it is not ours to move.
    fn advance(
        &self,
        transaction: &Transaction<'_>,
        from: Position,
        to: Position,
    ) -> Result<(), StoreError> {
        let failed = |error| classify("moving the position in", self.path, error);
        let moved = transaction
            .prepare_cached(
                "UPDATE onelog_position SET position = ?1
                 WHERE sink = ?2 AND epoch = ?3 AND position = ?4 AND log_id = ?5 AND plan = ?6",
            )
            .and_then(|mut statement| {
                statement.execute(params![
                    to.get().cast_signed(),
                    self.sink,
                    self.epoch.cast_signed(),
                    from.get().cast_signed(),
                    self.log_id,
                    self.fingerprint
                ])
            })
            .map_err(failed)?;
        if moved == 1 {
            return Ok(());
        }
        self.check_epoch(transaction)?;
        Err(StoreError::PositionMismatch {
            expected: from,
            found: read_position(transaction, self.sink, self.fingerprint).map_err(failed)?,
        })
    }

    fn check_epoch(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        let found: Option<i64> = transaction
            .query_row(
                "SELECT epoch FROM onelog_position WHERE sink = ?1",
                params![self.sink],
                |row| row.get(0),
            )
            .optional()
            .map_err(|error| classify("reading the epoch in", self.path, error))?;
        match found.map(i64::cast_unsigned) {
            Some(found) if found == self.epoch => Ok(()),
            Some(found) => Err(StoreError::Fenced {
                ours: self.epoch,
                found,
            }),
            None => Err(StoreError::PositionMismatch {
                expected: Position::ZERO,
                found: None,
            }),
        }
    }

    fn delete(
        &mut self,
        transaction: &Transaction<'_>,
        mapping: usize,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let plan = &self.plan.mappings[mapping];
        let mut statement = self.prepare(transaction, &self.sql[mapping].delete)?;
        let mut key = Cell::Null;
        for change in changes.iter().filter(|change| change.value.is_none()) {
            // A key that has no place in this table can never have had a row there.
            if plan.project_key(&change.key, &mut key).is_err() {
                continue;
            }
            statement
                .raw_bind_parameter(1, Bound(&key))
                .and_then(|()| statement.raw_execute())
                .map_err(|error| self.row_error(plan, change, error))?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        transaction: &Transaction<'_>,
        mapping: usize,
        sql: &str,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let plan = &self.plan.mappings[mapping];
        let mut statement = self.prepare(transaction, sql)?;
        for change in changes {
            let Some(value) = &change.value else { continue };
            plan.project(&change.key, change.offset, value, self.row)
                .map_err(|fault| StoreError::refused_change(plan, change, fault))?;
            bind_and_run(&mut statement, &self.row.cells)
                .map_err(|error| self.row_error(plan, change, error))?;
        }
        Ok(())
    }

    fn prepare<'t>(
        &self,
        transaction: &'t Transaction<'_>,
        sql: &str,
    ) -> Result<CachedStatement<'t>, StoreError> {
        transaction
            .prepare_cached(sql)
            .map_err(|error| classify("preparing a statement for", self.path, error))
    }

    /// An error of one row: the record's fault where trying again cannot help.
    fn row_error(&self, plan: &MappingPlan, change: &Change, error: rusqlite::Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
                StoreError::refused_change(plan, change, format!("SQLite says: {error}"))
            }
            _ => classify("writing a row to", self.path, error),
        }
    }
}

fn bind_and_run(statement: &mut CachedStatement<'_>, cells: &[Cell]) -> rusqlite::Result<()> {
    for (n, cell) in cells.iter().enumerate() {
        statement.raw_bind_parameter(n + 1, Bound(cell))?;
    }
    statement.raw_execute().map(|_| ())
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(format!(
                "write-ahead mode is not available there (the file stays in mode '{mode}')"
            )),
        ));
    }
    // Foreign keys that a user adds must not make the order of rows within a batch matter; views
    // that name a table must not stop its replacement.
    connection.execute_batch(&format!(
        "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON;
         PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
         PRAGMA journal_size_limit = {WAL_BYTES_KEPT}; PRAGMA cache_size = -{CACHE_KIB};"
    ))
}

fn read_position(
    connection: &Connection,
    sink: &str,
    fingerprint: &str,
) -> rusqlite::Result<Option<StorePosition>> {
    connection
        .prepare_cached(
            "SELECT log_id, position, epoch FROM onelog_position
             WHERE sink = ?1 AND plan = ?2 AND position IS NOT NULL",
        )?
        .query_row(params![sink, fingerprint], |row| {
            Ok(StorePosition {
                log_id: row.get(0)?,
                position: Position(row.get::<_, i64>(1)?.cast_unsigned()),
                epoch: row.get::<_, i64>(2)?.cast_unsigned(),
            })
        })
        .optional()
}

fn signed(position: Position, path: &Path) -> Result<i64, StoreError> {
    i64::try_from(position.get()).map_err(|error| StoreError::Broken {
        what: format!("position {position} does not fit into {}", path.display()),
        cause: error.into(),
    })
}

fn classify(what: &str, path: &Path, error: rusqlite::Error) -> StoreError {
    let broken = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    );
    let what = format!("{what} {}", path.display());
    let cause = Box::new(error);
    if broken {
        StoreError::Broken { what, cause }
    } else {
        StoreError::Unavailable { what, cause }
    }
}

#[cfg(unix)]
fn file_identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn file_identity(_: &Path) -> Option<(u64, u64)> {
    None
}
