//! What can go wrong in this store. It can always be reached, so nothing is `Unavailable` but a
//! rebuild that is not there.

use onelog_mapping::MappingPlan;
use onelog_store::StoreError;

pub(crate) const fn not_filled() -> StoreError {
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

pub(crate) fn schema_mismatch(plan: &MappingPlan, what: impl Into<String>) -> StoreError {
    StoreError::SchemaMismatch {
        into: plan.into.clone(),
        what: what.into(),
    }
}
