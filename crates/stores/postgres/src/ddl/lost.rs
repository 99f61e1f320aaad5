//! What users have added to a table that onelog made, where another one takes its place.

use onelog_mapping::{EXISTING, MappingPlan};
use onelog_store::StoreError;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::existing::{self, Existing, TableFacts};
use super::{shape, table};
use crate::bookkeeping::OWNERS;
use crate::connection::{BEGIN_READ, Connection, Purpose, STATEMENT_TIMEOUT};
use crate::error::Fault;
use crate::kind::PostgresTarget;

/// What is not a column: its kind and its name.
const ADDED: &str = "
SELECT 'index', c.relname::text FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1 AND NOT i.indisprimary
UNION ALL SELECT 'constraint', conname::text FROM pg_catalog.pg_constraint
WHERE conrelid = $1 AND contype IN ('c', 'f')
UNION ALL SELECT 'trigger', tgname::text FROM pg_catalog.pg_trigger
WHERE tgrelid = $1 AND NOT tgisinternal
UNION ALL SELECT 'rule', rulename::text FROM pg_catalog.pg_rewrite
WHERE ev_class = $1 AND ev_type <> '1'
UNION ALL SELECT 'default of the column', a.attname::text FROM pg_catalog.pg_attribute a
WHERE a.attrelid = $1 AND a.atthasdef AND a.attgenerated = '' AND NOT a.attisdropped
UNION ALL SELECT 'statistics', stxname::text FROM pg_catalog.pg_statistic_ext WHERE stxrelid = $1
UNION ALL SELECT 'NOT NULL of the column', a.attname::text FROM pg_catalog.pg_attribute a
WHERE a.attrelid = $1 AND a.attnum > 0 AND a.attnotnull AND NOT a.attisdropped
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i
    WHERE i.indrelid = $1 AND i.indisprimary AND a.attnum = ANY (i.indkey))
UNION ALL SELECT 'sequence', s.relname::text FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = d.classid
  AND d.refobjid = $1 AND d.deptype IN ('a', 'i')
UNION ALL SELECT 'replica identity', CASE relreplident
  WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' ELSE 'USING INDEX' END
FROM pg_catalog.pg_class WHERE oid = $1 AND relreplident <> 'd'
UNION ALL SELECT 'place in the publication', p.pubname::text FROM pg_catalog.pg_publication_rel r
JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = $1
ORDER BY 1, 2";

/// What a backfill by this mapping drops beside what onelog made.
pub(crate) fn lost(
    target: &PostgresTarget,
    mapping: &MappingPlan,
) -> Result<Vec<String>, StoreError> {
    if mapping.options.flag(EXISTING) {
        return Ok(Vec::new());
    }
    let connection = Connection::open(target, "dry run", Purpose::Snapshot)?;
    let client = &connection.client;
    connection.wait("looking at the tables of", STATEMENT_TIMEOUT, async {
        client.batch_execute(&BEGIN_READ).await?;
        match existing::find_table(client, &target.schema, &mapping.into).await? {
            Existing::Table(facts) if facts.check_existing(mapping).is_err() => {
                added(client, target, mapping, &facts).await
            }
            _ => Ok(Vec::new()),
        }
    })
}

async fn added(
    client: &Client,
    target: &PostgresTarget,
    mapping: &MappingPlan,
    facts: &TableFacts,
) -> Result<Vec<String>, Fault> {
    let Some(made) = columns_made(client, target, &mapping.into).await? else {
        return Ok(Vec::new());
    };
    let is_made = |name: &str| {
        made.is_empty()
            || made.iter().any(|made| made == name)
            || mapping.column_names().any(|mapped| mapped == name)
    };
    let columns = facts.column_names().filter(|name| !is_made(name));
    let mut lost: Vec<String> = columns.map(|name| format!("the column '{name}'")).collect();
    let oid = facts.oid();
    let of_table = &[(&oid as &(dyn ToSql + Sync), Type::OID)];
    for row in client.query_typed(ADDED, of_table).await? {
        let (kind, name): (&str, &str) = (row.get(0), row.get(1));
        lost.push(format!("the {kind} '{name}'"));
    }
    Ok(lost)
}

/// The columns that onelog made in a table of its own; empty: they are not recorded. `None`: it did
/// not make the table.
async fn columns_made(
    client: &Client,
    target: &PostgresTarget,
    into: &str,
) -> Result<Option<Vec<String>>, Fault> {
    let sql = format!(
        "SELECT coalesce(shape, '') FROM {} WHERE name = $1 AND made",
        table(&target.schema, OWNERS)
    );
    match client.query_typed_opt(&sql, &[(&into, Type::TEXT)]).await {
        Ok(row) => Ok(row.map(|row| shape::recorded_columns(row.get(0)))),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
