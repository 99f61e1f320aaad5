//! Comparisons of a store with the log.

use onelog_record::{JsonText, Position};
use onelog_sinks as sinks;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Whether a store equals the log at a position.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(
    json!({"position": 7, "equal": true, "took_ms": 3, "tables": [{
        "table": "shop.orders", "into": "orders", "rows": 2, "store_rows": 2, "equal": true,
        "differences_total": 0, "counted_all": true, "differences": [], "parked": 0}]}),
    json!({"position": 7, "equal": false, "took_ms": 3, "tables": [{
        "table": "shop.orders", "into": "orders", "rows": 2, "store_rows": 2, "equal": false,
        "differences_total": 1, "counted_all": true, "parked": 0, "differences": [
            {"key": "o-1", "log": {"total": 12.0}, "store": {"total": 11.0}}]}]}),
))]
pub struct Verification {
    /// Both sides were compared at this position.
    #[schema(value_type = u64)]
    position: Position,
    /// Whether every table is equal.
    equal: bool,
    took_ms: u64,
    /// With `repair`: rows that were written again.
    #[serde(skip_serializing_if = "Option::is_none")]
    repaired: Option<u64>,
    /// One for each mapping.
    tables: Vec<TableVerification>,
}

/// Whether a table of a store equals the log.
#[derive(Debug, Serialize, ToSchema)]
struct TableVerification {
    /// The table of the log.
    table: String,
    /// The table of the store.
    into: String,
    /// How many rows the log makes.
    rows: u64,
    /// How many rows the store has.
    store_rows: u64,
    /// Whether rows and full-text index are equal.
    equal: bool,
    /// Rows whose time to live has ended in the store. They are no differences.
    #[serde(skip_serializing_if = "Option::is_none")]
    expired: Option<u64>,
    differences_total: u64,
    /// Whether `differences_total` counts all of them: not when nearly everything differs in a
    /// very large table.
    counted_all: bool,
    /// The first rows that differ.
    differences: Vec<Difference>,
    /// Parked keys, which are not compared.
    parked: u64,
    /// With `repair`: rows that were written again.
    #[serde(skip_serializing_if = "Option::is_none")]
    repaired: Option<u64>,
    /// With `repair`: rows of the store that no key of the log makes, so that they cannot be deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    unrepairable: Option<u64>,
    /// What to do about what is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    /// Where there is a full-text index.
    #[serde(skip_serializing_if = "Option::is_none")]
    full_text: Option<IndexVerification>,
}

/// Whether a full-text index equals the rows of its table.
#[derive(Debug, Serialize, ToSchema)]
struct IndexVerification {
    equal: bool,
    faults_total: u64,
    /// The first faults that were found, each with its place.
    faults: Vec<String>,
}

/// A row that differs.
#[derive(Debug, Serialize, ToSchema)]
struct Difference {
    key: Value,
    /// The row as the log has it, or only the columns that differ; null when the log has none.
    #[schema(required, value_type = Option<Value>)]
    log: Option<JsonText>,
    /// The row as the store has it, or only the columns that differ; null when the store has none.
    #[schema(required, value_type = Option<Value>)]
    store: Option<JsonText>,
}

impl From<sinks::Verification> for Verification {
    fn from(verification: sinks::Verification) -> Self {
        let sinks::Verification {
            position,
            equal,
            took_ms,
            repaired,
            tables,
        } = verification;
        Self {
            position,
            equal,
            took_ms,
            repaired,
            tables: tables.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<sinks::TableVerification> for TableVerification {
    fn from(verification: sinks::TableVerification) -> Self {
        let sinks::TableVerification {
            table,
            into,
            rows,
            store_rows,
            equal,
            expired,
            differences_total,
            counted_all,
            differences,
            parked,
            repaired,
            unrepairable,
            advice,
            full_text,
        } = verification;
        let difference = |difference: sinks::Difference| Difference {
            key: difference.key,
            log: difference.log,
            store: difference.store,
        };
        let index = |index: sinks::IndexVerification| IndexVerification {
            equal: index.equal,
            faults_total: index.faults_total,
            faults: index.faults,
        };
        Self {
            table,
            into,
            rows,
            store_rows,
            equal,
            expired: (expired > 0).then_some(expired),
            differences_total,
            counted_all,
            differences: differences.into_iter().map(difference).collect(),
            parked,
            repaired,
            unrepairable,
            advice,
            full_text: full_text.map(index),
        }
    }
}
