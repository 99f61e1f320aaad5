//! What SQLite's errors mean for a sink: the record's fault, the moment's, or the file's.

use std::path::Path;

use onelog_mapping::MappingPlan;
use onelog_store::{Change, StoreError};
use rusqlite::ErrorCode;

pub(crate) fn classify(what: &str, path: &Path, error: rusqlite::Error) -> StoreError {
    let what = format!("{what} {}", path.display());
    let code = error.sqlite_error_code();
    let cause = Box::new(error);
    match code {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Broken { what, cause }
        }
        // A file or a disk that is read-only or full, and another process that is writing.
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::DiskFull
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked,
        ) => StoreError::NotWritable { what, cause },
        _ => StoreError::Unavailable { what, cause },
    }
}

/// Whether the row is at fault, so that trying again cannot help.
fn is_rejected_row(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
    )
}

/// The error of one row's statement.
pub(crate) fn classify_row(
    path: &Path,
    plan: &MappingPlan,
    change: &Change,
    error: rusqlite::Error,
) -> StoreError {
    if is_rejected_row(&error) {
        return StoreError::refused_change(plan, change, format!("SQLite says: {error}"));
    }
    classify("writing a row to", path, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_takes_no_writes_now_is_told_from_one_that_is_lost() {
        let meant = |code| {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            classify("writing to", Path::new("orders.db"), error)
                .code()
                .as_str()
        };
        use rusqlite::ffi;
        for code in [
            ffi::SQLITE_READONLY,
            ffi::SQLITE_READONLY_DBMOVED,
            ffi::SQLITE_FULL,
            ffi::SQLITE_BUSY,
            ffi::SQLITE_LOCKED,
        ] {
            assert_eq!(meant(code), "not_writable", "{code}");
        }
        assert_eq!(meant(ffi::SQLITE_CANTOPEN), "unavailable");
        assert_eq!(meant(ffi::SQLITE_IOERR), "unavailable");
        assert_eq!(meant(ffi::SQLITE_CORRUPT), "broken");
    }
}
