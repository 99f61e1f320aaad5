//! MariaDB and MySQL as a store: not there yet, every use answers an error.

use std::sync::Arc;

use crate::definition::{ColumnType, MysqlTarget};
use crate::plan::Plan;
use crate::sqlite::SqliteStore;
use crate::store::{StoreError, StoreReader};

/// Whether the store has this type of column.
pub(crate) const fn supports(kind: ColumnType) -> bool {
    !matches!(kind, ColumnType::List(_))
}

pub(crate) struct MysqlStore;

impl MysqlStore {
    pub(crate) fn open(
        target: &MysqlTarget,
        _sink: &str,
        _log_id: &str,
        _plan: Arc<Plan>,
    ) -> Result<SqliteStore, StoreError> {
        Err(not_there(target))
    }
}

pub(crate) fn open_reader(
    target: &MysqlTarget,
    _plan: &Arc<Plan>,
) -> Result<Box<dyn StoreReader>, StoreError> {
    Err(not_there(target))
}

fn not_there(target: &MysqlTarget) -> StoreError {
    StoreError::Broken {
        what: format!("opening {}", target.url),
        cause: "this kind of store is not there yet".into(),
    }
}
