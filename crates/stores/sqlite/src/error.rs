//! What SQLite's errors mean for a sink: the record's fault, the moment's, or the file's.

use std::path::Path;

use onelog_mapping::MappingPlan;
use onelog_store::{Change, StoreError};
use rusqlite::ErrorCode;

/// The bits of an extended code that say what kind of error it is.
const PRIMARY_CODE: i32 = 0xff;

pub(crate) fn classify(what: &str, path: &Path, error: rusqlite::Error) -> StoreError {
    let code = error.sqlite_error_code();
    let names = match code {
        Some(ErrorCode::SystemIoFailure) => names_of(path),
        _ => 1,
    };
    let what = match names {
        0 | 1 => format!("{what} {}", path.display()),
        _ => format!(
            "{what} {}, a file with {names} names (hard links), of which every program must use the same one",
            path.display()
        ),
    };
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

/// The error of a statement on the tables of a mapping, which were looked at in the same transaction:
/// what SQLite cannot do with what the file defines, a user has to change.
pub(crate) fn classify_definition(what: &str, path: &Path, error: rusqlite::Error) -> StoreError {
    // Its code for errors that no other one describes, such as names that are not there.
    let is_general = |code: i32| code & PRIMARY_CODE == rusqlite::ffi::SQLITE_ERROR;
    match error.sqlite_extended_error_code().is_some_and(is_general) {
        true => StoreError::Broken {
            what: format!("{what} {}", path.display()),
            cause: format!(
                "{error}; change in the file what SQLite objects to, then resume the sink"
            )
            .into(),
        },
        false => classify(what, path, error),
    }
}

/// How many names a file has.
#[cfg(unix)]
fn names_of(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map_or(0, |metadata| metadata.nlink())
}

#[cfg(not(unix))]
fn names_of(_: &Path) -> u64 {
    0
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
    classify_definition("writing a row to", path, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_takes_no_writes_now_is_distinguished_from_one_that_is_lost() {
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
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a.db"), folder.path().join("b.db"));
        std::fs::write(&path, "").unwrap();
        let said = || {
            let error = ffi::Error::new(ffi::SQLITE_IOERR_SHMSIZE);
            let error = rusqlite::Error::SqliteFailure(error, None);
            classify("writing to", &path, error).to_string()
        };
        assert!(!said().contains("hard links"), "{}", said());
        std::fs::hard_link(&path, &link).unwrap();
        assert!(said().contains("2 names (hard links)"), "{}", said());
        assert_eq!(meant(ffi::SQLITE_CANTOPEN), "unavailable");
        assert_eq!(meant(ffi::SQLITE_IOERR), "unavailable");
        assert_eq!(meant(ffi::SQLITE_CORRUPT), "broken");
    }
}
