//! PostgreSQL as a store: not there yet, every use answers an error.

use std::sync::Arc;

use crate::definition::{ColumnType, PostgresTarget};
use crate::plan::Plan;
use crate::sqlite::SqliteStore;
use crate::store::{StoreError, StoreReader};

/// Whether the store has this type of column.
pub(crate) const fn supports(_kind: ColumnType) -> bool {
    true
}

pub(crate) struct PostgresStore;

impl PostgresStore {
    pub(crate) fn open(
        target: &PostgresTarget,
        _sink: &str,
        _log_id: &str,
        _plan: Arc<Plan>,
    ) -> Result<SqliteStore, StoreError> {
        Err(not_there(target))
    }
}

pub(crate) fn open_reader(
    target: &PostgresTarget,
    _plan: &Arc<Plan>,
) -> Result<Box<dyn StoreReader>, StoreError> {
    Err(not_there(target))
}

fn not_there(target: &PostgresTarget) -> StoreError {
    StoreError::Broken {
        what: format!("opening {}", target.url),
        cause: "this kind of store is not there yet".into(),
    }
}
