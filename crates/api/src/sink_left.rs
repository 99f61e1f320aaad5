//! What a changed or deleted sink leaves behind, and what is lost by that.

use serde::Serialize;
use utoipa::ToSchema;

/// A store that still says that its tables are those of a sink that no longer writes them. When it
/// can be reached: `POST /v1/sinks/forget` with the sink's former definition.
#[derive(Debug, Serialize, ToSchema)]
pub struct Remains {
    store: String,
    /// Why it could not be cleaned.
    why: String,
}

impl From<onelog_sinks::Remains> for Remains {
    fn from(remains: onelog_sinks::Remains) -> Self {
        let onelog_sinks::Remains { store, why } = remains;
        Self { store, why }
    }
}

/// What users have added to a table (columns, indexes, triggers), which is dropped with it.
#[derive(Debug, Serialize, ToSchema)]
pub struct LostWithTable {
    /// The table of the store.
    into: String,
    /// The first 20, and then how many more there are.
    #[schema(example = json!(["the index 'by_note'"]))]
    lost: Vec<String>,
}

impl From<onelog_sinks::Lost> for LostWithTable {
    fn from(lost: onelog_sinks::Lost) -> Self {
        let onelog_sinks::Lost { into, lost } = lost;
        Self { into, lost }
    }
}
