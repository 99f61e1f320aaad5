//! What SQLite's errors mean for a sink: the record's fault, the moment's, or the file's.

use std::path::Path;

use onelog_mapping::MappingPlan;
use onelog_store::{Change, StoreError};
use rusqlite::ErrorCode;

pub(crate) fn classify(what: &str, path: &Path, error: rusqlite::Error) -> StoreError {
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
