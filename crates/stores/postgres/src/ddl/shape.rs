//! What a table's columns were when onelog backfilled it, and whether its definition is still the
//! one that the statements of a batch were made for.
//!
//! A column that is changed under a running sink may round, cut or merge values, and no error says
//! so; a table that is dropped and made anew, or a column that is, lacks everything from before.
//! Three things are looked at:
//! - the *shape*, the types of the mapped columns as they were at the end of the last backfill. It is
//!   in `onelog_tables`, so that a change is noticed over reconnects and restarts as well, and once
//!   noticed is known until the next backfill, also where the column has its type back;
//! - the *numbers* of the table and of these columns in the catalog, beside the shape. A database that
//!   was restored from a copy has other numbers and the rows of then: so has its `onelog_tables`, and
//!   numbers that were recorded in another one mean nothing;
//! - the *versions* of the table's rows in the catalog. They are read before a mapping's statements
//!   are made and again inside each transaction, behind its writes: the locks of these keep every
//!   change of the table out from then until the commit.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use onelog_mapping::MappingPlan;
use onelog_store::{Narrowed, TABLE_RENEWED, column_renewed};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::bookkeeping::{self, Identity};
use crate::error::Fault;

/// The versions of everything in the catalog that says what a table of the schema `$1` is; NULL: there
/// is none. Its name follows. Nothing is prepared, so the server plans this with every batch: without
/// the join for the name and without aggregates it takes half the time for that.
const VERSIONS: &str = "(SELECT concat_ws(';', c.oid, c.xmin,
    ARRAY(SELECT a.xmin FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = c.oid AND a.attnum > 0 ORDER BY a.attnum),
    ARRAY(SELECT concat(i.indexrelid, ':', i.xmin)
      FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid ORDER BY i.indexrelid),
    ARRAY(SELECT concat(k.oid, ':', k.xmin)
      FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid ORDER BY k.oid),
    ARRAY(SELECT concat(t.oid, ':', t.xmin)
      FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid ORDER BY t.oid))
  FROM pg_catalog.pg_class c WHERE c.oid = to_regclass(format('%I.%I', $1, ";

/// The tables, of names in the second and versions in the third parameter, that are others now.
pub(crate) static REDEFINED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT u.name FROM unnest($2::text[], $3::text[]) AS u(name, versions)
         WHERE u.versions IS DISTINCT FROM {VERSIONS} u.name)))"
    )
});

/// The versions of one table, whose name is the second parameter.
pub(crate) async fn versions(
    client: &Client,
    schema: &str,
    name: &str,
) -> Result<Option<String>, Fault> {
    let sql = format!("SELECT {VERSIONS} $2)))");
    let row = client
        .query_typed_one(&sql, &[(&schema, Type::TEXT), (&name, Type::TEXT)])
        .await?;
    Ok(row.get(0))
}

/// What the catalog says of a mapping's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The types of its columns, as PostgreSQL writes them.
    pub(crate) types: onelog_store::Shape,
    pub(crate) numbers: Numbers,
}

/// By what the catalog tells a table and its columns from later ones of their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbers {
    pub(crate) table: u32,
    pub(crate) columns: BTreeMap<String, i16>,
}

/// A shape as it is recorded; one that an earlier version recorded is its types alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Recorded {
    types: onelog_store::Shape,
    numbers: Numbers,
    /// The number of the table that it is recorded in.
    recorded_in: u32,
    #[serde(default, skip_serializing_if = "Narrowed::is_empty")]
    narrowed: Narrowed,
}

impl Recorded {
    async fn keep(
        &self,
        client: &Client,
        identity: &Identity,
        mapping: &MappingPlan,
    ) -> Result<(), Fault> {
        let text = serde_json::json!(self).to_string();
        bookkeeping::record_shape(client, identity, &mapping.into, &text).await
    }
}

impl Shape {
    /// Records it as the shape in which the table is backfilled.
    pub(crate) async fn record(
        &self,
        client: &Client,
        identity: &Identity,
        mapping: &MappingPlan,
    ) -> Result<(), Fault> {
        let now = self.recorded_in(bookkeeping::number(client, identity).await?);
        now.keep(client, identity, mapping).await
    }

    fn recorded_in(&self, bookkeeping: u32) -> Recorded {
        Recorded {
            types: self.types.clone(),
            numbers: self.numbers.clone(),
            recorded_in: bookkeeping,
            narrowed: Narrowed::default(),
        }
    }

    /// What changed since the table was backfilled, and may have changed its values: columns that
    /// were narrowed are recorded. So is a shape of a table that `fits` and has only grown since,
    /// and the first one.
    pub(crate) async fn check(
        &self,
        client: &Client,
        identity: &Identity,
        mapping: &MappingPlan,
        fits: bool,
    ) -> Result<Vec<String>, Fault> {
        let text = bookkeeping::recorded_shape(client, identity, &mapping.into).await?;
        let text = text.unwrap_or_default();
        let now = self.recorded_in(bookkeeping::number(client, identity).await?);
        let known: Option<Recorded> = serde_json::from_str(&text).ok();
        let mut was = known.clone().unwrap_or_else(|| Recorded {
            types: serde_json::from_str(&text).unwrap_or_default(),
            ..now.clone()
        });
        let mut changed = match was.recorded_in == now.recorded_in {
            true => self.renewed(&was.numbers),
            false => Vec::new(),
        };
        let is_news = was.narrowed.note(&was.types, &self.types, keeps_values);
        changed.extend(was.narrowed.say(&self.types));
        if is_news {
            was.keep(client, identity, mapping).await?;
        } else if fits && changed.is_empty() && known.as_ref() != Some(&now) {
            now.keep(client, identity, mapping).await?;
        }
        Ok(changed)
    }

    /// What has its name from something that is gone, with the values of that.
    fn renewed(&self, was: &Numbers) -> Vec<String> {
        if was.table != self.numbers.table {
            return vec![TABLE_RENEWED.to_owned()];
        }
        let columns = self.numbers.columns.iter();
        let renewed = columns.filter(|(name, number)| {
            let was = was.columns.get(*name);
            was.is_some_and(|was| was != *number)
        });
        renewed.map(|(name, _)| column_renewed(name)).collect()
    }
}

/// Whether a recorded shape is of the table with this number, as far as it says: without numbers, or
/// with those of another database, it may be.
pub(crate) async fn is_of_table(
    client: &Client,
    identity: &Identity,
    shape: Option<&str>,
    table: u32,
) -> Result<bool, Fault> {
    let known = shape.and_then(|text| serde_json::from_str::<Recorded>(text).ok());
    Ok(match known {
        Some(known) if known.numbers.table != table => {
            known.recorded_in != bookkeeping::number(client, identity).await?
        }
        _ => true,
    })
}

/// The mapped columns of a recorded shape.
pub(crate) fn recorded_columns(text: &str) -> Vec<String> {
    let types = match serde_json::from_str::<Recorded>(text) {
        Ok(known) => known.types,
        Err(_) => serde_json::from_str(text).unwrap_or_default(),
    };
    types.into_keys().collect()
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
