//! Elasticsearch as a store: not there yet, every use answers an error.

use std::sync::Arc;

use crate::definition::{ColumnType, ElasticsearchTarget};
use crate::plan::Plan;
use crate::sqlite::SqliteStore;
use crate::store::{StoreError, StoreReader};

/// Whether the store has this type of column.
pub(crate) const fn supports(_kind: ColumnType) -> bool {
    true
}

pub(crate) struct ElasticsearchStore;

impl ElasticsearchStore {
    pub(crate) fn open(
        target: &ElasticsearchTarget,
        _sink: &str,
        _log_id: &str,
        _plan: Arc<Plan>,
    ) -> Result<SqliteStore, StoreError> {
        Err(not_there(target))
    }
}

pub(crate) fn open_reader(
    target: &ElasticsearchTarget,
    _plan: &Arc<Plan>,
) -> Result<Box<dyn StoreReader>, StoreError> {
    Err(not_there(target))
}

fn not_there(target: &ElasticsearchTarget) -> StoreError {
    StoreError::Broken {
        what: format!("opening {}", target.url),
        cause: "this kind of store is not there yet".into(),
    }
}
