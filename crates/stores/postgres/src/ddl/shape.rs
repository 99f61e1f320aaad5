//! What a table's columns were when onelog filled it, and whether its definition is still the one
//! that the statements of a batch were made for.
//!
//! A column that is changed under a running sink may round, cut or merge values, and no error says
//! so. Two things are looked at:
//! - the *shape*, the types of the mapped columns as they were at the end of the last backfill. It is
//!   in `onelog_tables`, so that a change is noticed over reconnects and restarts as well;
//! - the *versions* of the table's rows in the catalog. They are read before a mapping's statements
//!   are made and again inside each transaction, behind its writes: the locks of these keep every
//!   change of the table out from then until the commit.

use onelog_mapping::MappingPlan;
use onelog_store::narrowed;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::bookkeeping::{self, Identity};
use crate::error::Fault;

/// The versions of everything in the catalog that says what a table is; NULL: there is none. Names are
/// compared as `name`: as texts they would be looked for in all of the catalog.
const VERSIONS: &str = "(SELECT concat_ws(';', c.oid, c.xmin,
    (SELECT string_agg(a.xmin::text, ',' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = c.oid AND a.attnum > 0),
    (SELECT string_agg(concat(i.indexrelid, ':', i.xmin), ',' ORDER BY i.indexrelid)
      FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid),
    (SELECT string_agg(concat(k.oid, ':', k.xmin), ',' ORDER BY k.oid)
      FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid),
    (SELECT string_agg(concat(t.oid, ':', t.xmin), ',' ORDER BY t.oid)
      FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid))
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = $1::name AND c.relname = ";

/// The versions of one table, whose name is the second parameter.
pub(crate) async fn versions(
    client: &Client,
    schema: &str,
    name: &str,
) -> Result<Option<String>, Fault> {
    let sql = format!("SELECT {VERSIONS} $2::name)");
    let row = client
        .query_typed_one(&sql, &[(&schema, Type::TEXT), (&name, Type::TEXT)])
        .await?;
    Ok(row.get(0))
}

/// The tables, of names in the second and versions in the third parameter, that are others now.
pub(crate) fn redefined() -> String {
    format!(
        "SELECT u.name FROM unnest($2::text[], $3::text[]) AS u(name, versions)
         WHERE u.versions IS DISTINCT FROM {VERSIONS} u.name::name)"
    )
}

/// The types of a mapping's columns, as PostgreSQL writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape(onelog_store::Shape);

impl Shape {
    pub(crate) fn new(columns: impl Iterator<Item = (String, String)>) -> Self {
        Self(columns.collect())
    }

    /// Records it as the shape in which the table is filled.
    pub(crate) async fn record(
        &self,
        client: &Client,
        identity: &Identity,
        mapping: &MappingPlan,
    ) -> Result<(), Fault> {
        let text = serde_json::json!(self.0).to_string();
        bookkeeping::record_shape(client, identity, &mapping.into, &text).await
    }

    /// What changed since the table was filled, and may have changed its values. A shape that has
    /// only grown since is recorded, and so is the first one.
    pub(crate) async fn check(
        &self,
        client: &Client,
        identity: &Identity,
        mapping: &MappingPlan,
    ) -> Result<Vec<String>, Fault> {
        let known = bookkeeping::recorded_shape(client, identity, &mapping.into).await?;
        let known = known.and_then(|text| serde_json::from_str(&text).ok());
        let known: onelog_store::Shape = known.unwrap_or_default();
        let narrowed = narrowed(&known, &self.0, keeps_values);
        if narrowed.is_empty() && known != self.0 {
            self.record(client, identity, mapping).await?;
        }
        Ok(narrowed)
    }
}

/// Whether every value of a column's old type is the same value in the new one.
fn keeps_values(was: &str, is: &str) -> bool {
    const TEXT: &str = "character varying";
    const INTEGERS: [&str; 3] = ["smallint", "integer", "bigint"];
    if was == is {
        return true;
    }
    let rank = |kind: &str| INTEGERS.iter().position(|integer| *integer == kind);
    if let (Some(was), Some(is)) = (rank(was), rank(is)) {
        return was <= is;
    }
    let characters = |kind: &str| match kind {
        "text" | TEXT => Some(u64::MAX),
        _ => limits(kind, TEXT).map(|(length, _)| length),
    };
    if let (Some(was), Some(is)) = (characters(was), characters(is)) {
        return was <= is;
    }
    match (limits(was, "numeric"), limits(is, "numeric")) {
        (Some((was, was_behind)), Some((is, is_behind))) => {
            return was_behind <= is_behind
                && was.saturating_sub(was_behind) <= is.saturating_sub(is_behind);
        }
        (Some(_), None) if is == "numeric" => return true,
        _ => {}
    }
    // Either form of a document is compared in the canonical one.
    matches!((was, is), ("json", "jsonb") | ("jsonb", "json"))
}

/// The numbers in `kind(a)` or `kind(a,b)`.
fn limits(text: &str, kind: &str) -> Option<(u64, u64)> {
    let inside = text
        .strip_prefix(kind)?
        .strip_prefix('(')?
        .strip_suffix(')')?;
    match inside.split_once(',') {
        Some((first, second)) => Some((first.parse().ok()?, second.parse().ok()?)),
        None => Some((inside.parse().ok()?, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wider_column_is_known_to_keep_its_values() {
        for (was, is) in [
            ("integer", "bigint"),
            ("character varying(3)", "character varying(4)"),
            ("character varying(3)", "text"),
            ("text", "character varying"),
            ("numeric(8,2)", "numeric"),
            ("numeric(8,2)", "numeric(10,3)"),
            ("json", "jsonb"),
            ("mood", "mood"),
        ] {
            assert!(keeps_values(was, is), "{was} {is}");
        }
        for (was, is) in [
            ("bigint", "integer"),
            ("text", "character varying(3)"),
            ("character varying(4)", "character varying(3)"),
            ("numeric", "numeric(10,2)"),
            ("numeric(8,2)", "numeric(8,3)"),
            ("numeric(8,2)", "numeric(9,1)"),
            ("timestamp with time zone", "timestamp without time zone"),
            ("text", "mood"),
            ("numeric", "text"),
        ] {
            assert!(!keeps_values(was, is), "{was} {is}");
        }
    }
}
