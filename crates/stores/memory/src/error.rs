//! What can go wrong in this store. It can always be reached, so nothing is `Unavailable` but a
//! rebuild that is not there.

use onelog_store::StoreError;

pub(crate) const fn not_backfilled() -> StoreError {
    StoreError::PositionMismatch {
        expected: None,
        found: None,
    }
}

pub(crate) fn no_rebuild() -> StoreError {
    StoreError::Unavailable {
        what: "loading rows".to_owned(),
        cause: "no rebuild is under way".into(),
    }
}
