//! Redis as a store: not there yet, every use answers an error.

use std::sync::Arc;

use crate::definition::{ColumnType, DefinitionError, RedisTarget};
use crate::plan::Plan;
use crate::sqlite::SqliteStore;
use crate::store::{StoreError, StoreReader};

/// Whether the store has this type of column.
pub(crate) const fn supports(_kind: ColumnType) -> bool {
    true
}

/// Whether the mappings' keys can be told apart.
pub(crate) const fn check_mappings(_plan: &Plan) -> Result<(), DefinitionError> {
    Ok(())
}

pub(crate) struct RedisStore;

impl RedisStore {
    pub(crate) fn open(
        target: &RedisTarget,
        _sink: &str,
        _log_id: &str,
        _plan: Arc<Plan>,
    ) -> Result<SqliteStore, StoreError> {
        Err(not_there(target))
    }
}

pub(crate) fn open_reader(
    target: &RedisTarget,
    _plan: &Arc<Plan>,
) -> Result<Box<dyn StoreReader>, StoreError> {
    Err(not_there(target))
}

fn not_there(target: &RedisTarget) -> StoreError {
    StoreError::Broken {
        what: format!("opening {}", target.url),
        cause: "this kind of store is not there yet".into(),
    }
}
