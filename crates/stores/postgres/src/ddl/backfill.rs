//! Why a backfill would not take a table as it is, as far as that shows without writing.

use std::sync::Arc;

use onelog_mapping::{MappingPlan, Plan};
use onelog_store::{Remedy, StoreError};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::existing::{self, Existing, TargetState};
use super::table;
use crate::bookkeeping::{Identity, POSITIONS, check_owner, has_bookkeeping};
use crate::connection::{BEGIN_READ, Connection, Purpose, STATEMENT_TIMEOUT};
use crate::error::{DROP_DEPENDENTS, Fault};
use crate::kind::PostgresTarget;

/// How many dependents are named.
const DEPENDENTS_SHOWN_MAX: u32 = 10;

/// What keeps table `$1` from being dropped: what depends on it, or on the type of its rows, and is
/// not a part of it.
const DEPENDENTS: &str = "
WITH on_table AS (
  SELECT d.classid, d.objid, d.deptype FROM pg_catalog.pg_depend d
  JOIN pg_catalog.pg_class c ON c.oid = $1
  WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid
    OR d.refclassid = 'pg_catalog.pg_type'::regclass AND d.refobjid = c.reltype)
SELECT pg_describe_object(classid, objid, 0) FROM on_table
GROUP BY 1 HAVING bool_and(deptype = 'n') ORDER BY 1 LIMIT $2";

/// Which rights a backfill lacks: in the schema `$1`; on the table `$2`, where there is one, of which
/// `$3` says that it has to be replaced.
const RIGHTS: &str = "
SELECT format('the user %s may not make tables in the schema %s, which loading rows needs: GRANT CREATE ON SCHEMA %s TO %s',
  current_user, quote_ident(n.nspname), quote_ident(n.nspname), quote_ident(current_user))
FROM pg_catalog.pg_namespace n
WHERE n.nspname = $1 AND NOT has_schema_privilege(n.oid, 'CREATE')
UNION ALL
SELECT format('another table has to take its place, and the user %s may not drop it: ALTER TABLE %s OWNER TO %s',
  current_user, c.oid::regclass, quote_ident(current_user))
FROM pg_catalog.pg_class c WHERE c.oid = $2 AND $3 AND NOT pg_has_role(c.relowner, 'USAGE')
UNION ALL
SELECT format('the user %s may not %s its rows: GRANT %s ON %s TO %s',
  current_user, r, r, c.oid::regclass, quote_ident(current_user))
FROM pg_catalog.pg_class c, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE']) r
WHERE c.oid = $2 AND NOT $3 AND NOT CASE r
  WHEN 'DELETE' THEN has_table_privilege(c.oid, r) ELSE has_any_column_privilege(c.oid, r) END";

/// Fails as a backfill of the sink of this name would.
pub(crate) fn check_backfill(
    target: &PostgresTarget,
    sink: &str,
    plan: &Plan,
    mapping: usize,
) -> Result<(), StoreError> {
    let connection = Connection::open(target, "dry run", Purpose::Snapshot)?;
    let identity = Identity::new(sink, "", &Arc::new(plan.clone()), &target.schema);
    let client = &connection.client;
    connection.wait("looking at the tables of", STATEMENT_TIMEOUT, async {
        client.batch_execute(&BEGIN_READ).await?;
        look(client, &identity, mapping).await
    })
}

/// The log that the sink of this name follows here.
pub(crate) fn followed_log(
    target: &PostgresTarget,
    sink: &str,
) -> Result<Option<String>, StoreError> {
    let connection = Connection::open(target, "dry run", Purpose::Snapshot)?;
    let client = &connection.client;
    connection.wait("reading the position in", STATEMENT_TIMEOUT, async {
        client.batch_execute(&BEGIN_READ).await?;
        if !has_bookkeeping(client, &target.schema).await? {
            return Ok(None);
        }
        let positions = table(&target.schema, POSITIONS);
        let sql = format!("SELECT log_id FROM {positions} WHERE sink = $1");
        let found = client.query_typed_opt(&sql, &[(&sink, Type::TEXT)]).await?;
        Ok(found.map(|row| row.get(0)))
    })
}

async fn look(client: &Client, identity: &Identity, mapping: usize) -> Result<(), Fault> {
    let mapping = &identity.plan.mappings[mapping];
    let found = existing::find_table(client, &identity.schema, &mapping.into).await?;
    let oid = match &found {
        Existing::Table(facts) => Some(facts.oid()),
        Existing::Nothing | Existing::Other(_) => None,
    };
    let owner = match has_bookkeeping(client, &identity.schema).await? {
        true => check_owner(client, identity, &mapping.into).await?,
        false => None,
    };
    let state = existing::state_of(client, identity, mapping, found, owner).await?;
    let replaces = matches!(state, TargetState::Outgrown);
    check_rights(client, identity, mapping, oid, replaces).await?;
    match oid.filter(|_| replaces) {
        Some(oid) => check_dependents(client, mapping, oid).await,
        None => Ok(()),
    }
}

async fn check_rights(
    client: &Client,
    identity: &Identity,
    mapping: &MappingPlan,
    oid: Option<u32>,
    replaces: bool,
) -> Result<(), Fault> {
    let params = [
        (&identity.schema as &(dyn ToSql + Sync), Type::TEXT),
        (&oid, Type::OID),
        (&replaces, Type::BOOL),
    ];
    let rows = client.query_typed(RIGHTS, &params).await?;
    let lacking: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(existing::schema_mismatch(mapping, &lacking, Remedy::Said)),
    }
}

/// Fails where something depends on a table that has to be replaced.
async fn check_dependents(client: &Client, mapping: &MappingPlan, oid: u32) -> Result<(), Fault> {
    let limit = i64::from(DEPENDENTS_SHOWN_MAX);
    let params = [
        (&oid as &(dyn ToSql + Sync), Type::OID),
        (&limit, Type::INT8),
    ];
    let rows = client.query_typed(DEPENDENTS, &params).await?;
    let names: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let what = format!(
        "another table has to take its place, and of this one depends: {}; {DROP_DEPENDENTS}",
        names.join(", ")
    );
    Err(StoreError::mismatch(mapping, what, Remedy::Said).into())
}
