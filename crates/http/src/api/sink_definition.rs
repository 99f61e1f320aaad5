//! The shape of a sink's definition, which `onelog_sinks` reads and writes.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// A store that shall follow the log.
#[derive(ToSchema)]
#[allow(dead_code)]
#[schema(examples(
    json!({"name": "search", "kind": "sqlite", "path": "/var/lib/onelog/search.db", "mappings": [{
        "table": "shop.orders", "into": "orders",
        "columns": {"id": {"from": "$key", "type": "text"}, "total": {"from": "/total", "type": "real"}}}]}),
    json!({"name": "reports", "kind": "postgres",
        "url": "postgres://onelog:${REPORTS_PASSWORD}@db.example/reports", "schema": "shop",
        "on_refused": "park", "verify_every": "1h", "keep_log": "10GiB", "mappings": [{
            "table": "shop.orders", "into": "orders", "where": ".total > 0",
            "columns": {"id": {"from": "$key", "type": "text"}, "order": {"from": "$value", "type": "json"}}}]}),
    json!({"name": "cache", "kind": "redis", "url": "redis://cache.example:6379/0", "paused": true,
        "mappings": [{"table": "shop.orders", "into": "orders", "key": "order:{$key}",
            "fields": ["total"], "ttl_seconds": 3600}]}),
))]
pub(crate) struct NewSink {
    /// Needed to make a sink. In a request that names the sink in its path, and in a dry run, it
    /// may be missing.
    #[schema(nullable = false)]
    name: Option<String>,
    /// `sqlite`, `postgres`, `mysql`, `redis` or `elasticsearch`.
    kind: String,
    /// The database's file (`sqlite`).
    #[schema(nullable = false)]
    path: Option<String>,
    /// Where the store is (all other kinds); `${NAME}` is replaced by that environment variable.
    #[schema(nullable = false)]
    url: Option<String>,
    /// The schema of the tables (`postgres`); `public` unless given.
    #[schema(nullable = false)]
    schema: Option<String>,
    /// Given for a cluster: into how many groups keys are spread (`redis`).
    #[schema(nullable = false)]
    partitions: Option<u64>,
    /// Certificates that are trusted instead of the system's.
    #[schema(nullable = false)]
    ca_file: Option<String>,
    mappings: Vec<Mapping>,
    #[schema(nullable = false)]
    paused: Option<bool>,
    /// What happens when the store refuses a record: `stop` (unless given) or `park`.
    #[schema(nullable = false)]
    on_refused: Option<String>,
    /// How often the store is compared with the log, for example `1h`.
    #[schema(nullable = false)]
    verify_every: Option<String>,
    /// How much log is kept for the sink at most, for example `10GiB`.
    #[schema(nullable = false)]
    keep_log: Option<String>,
}

/// How a table's records become rows.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(crate) struct Mapping {
    /// The table of the log.
    table: String,
    /// The table of the store.
    into: String,
    /// Columns by name.
    #[schema(nullable = false)]
    columns: Option<BTreeMap<String, Column>>,
    /// Columns with a full-text index.
    #[schema(nullable = false)]
    full_text: Option<Vec<String>>,
    /// A jq program: whether a record makes a row.
    #[schema(nullable = false)]
    r#where: Option<String>,
    /// A jq program that makes another document of the record's.
    #[schema(nullable = false)]
    transform: Option<String>,
    /// The fields that are kept: a list of names, or an object of new names and paths.
    #[schema(nullable = false)]
    fields: Option<Fields>,
    /// The row's key, made of the record's: `order:{$key}`.
    #[schema(nullable = false)]
    key: Option<String>,
    /// The table exists already and is not made (`postgres`, `mysql`).
    #[schema(nullable = false)]
    existing: Option<bool>,
    /// `string` or `hash` (`redis`).
    #[schema(nullable = false)]
    r#as: Option<String>,
    /// For how long a row lives (`redis`).
    #[schema(nullable = false)]
    ttl_seconds: Option<u64>,
    /// The index's settings (`elasticsearch`).
    #[schema(nullable = false)]
    settings: Option<BTreeMap<String, Value>>,
}

/// Where a column's cells come from, and what they are.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(crate) struct Column {
    /// `$key`, `$value`, `$version`, or a field of the document: a JSON Pointer, or a name at the top.
    from: String,
    /// The type of the cells.
    r#type: String,
}

/// A list of names, or an object of new names and paths.
#[derive(serde::Serialize, ToSchema)]
#[allow(dead_code)]
#[serde(untagged)]
pub(crate) enum Fields {
    Names(Vec<String>),
    Paths(BTreeMap<String, String>),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use onelog_sinks::SinkDefinition;
    use onelog_stores::KINDS;
    use serde_json::{Value, json};

    use super::*;
    use crate::object::fields_of;

    /// The fields that the parser lists for a definition with an unknown one.
    fn known(definition: &Value) -> BTreeSet<String> {
        let error = SinkDefinition::from_json(KINDS, definition).unwrap_err();
        let (_, list) = error.what.split_once("known are: ").unwrap();
        list.split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn the_shape_has_the_fields_that_the_parser_reads() {
        let of_kinds: BTreeSet<String> = KINDS
            .names()
            .iter()
            .flat_map(|kind| known(&json!({"kind": kind, "zzzzzzzzzzzzzzzz": 1})))
            .collect();
        assert_eq!(of_kinds, fields_of::<NewSink>().into_iter().collect());
        let of_mappings = known(&json!({"name": "s", "kind": "sqlite", "path": "p",
            "mappings": [{"table": "t", "into": "i", "zzzzzzzzzzzzzzzz": 1}]}));
        assert_eq!(of_mappings, fields_of::<Mapping>().into_iter().collect());
    }
}
