//! Connections to the file: with which settings, and whether it still is the file that was opened.

use std::path::Path;
use std::time::Duration;

use onelog_store::StoreError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::classify;

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

/// The file that a connection writes to, which need not be the one of that name any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

/// Opens the file for writing, which is made when it is not there; its folder must be. Answers which
/// file it is as well.
pub(crate) fn open(path: &Path) -> Result<(Connection, Option<FileIdentity>), StoreError> {
    let mut before = file_identity(path);
    if before.is_none() {
        // Only of a file that was there before it was opened is it known that it is the one.
        drop(connect(path)?);
        before = file_identity(path);
    }
    let connection = connect(path)?;
    check_identity(path, before)?;
    Ok((connection, before))
}

/// Fails where the name leads to another file, which would never see what is written.
pub(crate) fn check_identity(path: &Path, opened: Option<FileIdentity>) -> Result<(), StoreError> {
    if file_identity(path) == opened {
        return Ok(());
    }
    Err(StoreError::Unavailable {
        what: format!("writing to {}", path.display()),
        cause: "the file was replaced or removed while it was open".into(),
    })
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error| classify("opening", path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    configure(&connection).map_err(failed)?;
    Ok(connection)
}

/// Opens a read transaction; the first read fixes its snapshot.
pub(crate) fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error| classify("opening for reading", path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    // Else a column that is not there is read as a text of its name.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)
        .map_err(failed)?;
    connection.execute_batch("BEGIN").map_err(failed)?;
    Ok(connection)
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

#[cfg(unix)]
pub(crate) fn file_identity(path: &Path) -> Option<FileIdentity> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some(FileIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

#[cfg(not(unix))]
pub(crate) fn file_identity(_: &Path) -> Option<FileIdentity> {
    None
}
