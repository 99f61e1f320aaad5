//! Who may read and write a table, given to the one that takes its place: rights, also those of
//! columns, and row-level security with its policies. Nobody may see more than before, so what default
//! privileges have given the new table is taken away first.

use onelog_mapping::MappingPlan;
use onelog_store::{Remedy, StoreError};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::error::{self, Fault};

/// The rights that others have on table `$1`, taken away.
const TAKE_AWAY: &str = "
SELECT DISTINCT format('REVOKE ALL ON %s FROM %s', $1,
  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
FROM pg_catalog.pg_class c, aclexplode(c.relacl) a
WHERE c.oid = to_regclass($1) AND a.grantee <> c.relowner";

/// The rights and the row-level security of table `$1`, where columns are those of table `$2`.
const GIVE: &str = "
SELECT format('GRANT %s%s ON %s TO %s%s', a.privilege_type, o.of_column, $1,
  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
  CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM (
  SELECT relowner, '' AS of_column, relacl AS acl
  FROM pg_catalog.pg_class WHERE oid = to_regclass($1)
  UNION ALL SELECT c.relowner, format(' (%I)', t.attname), t.attacl
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid
  JOIN pg_catalog.pg_attribute n ON n.attrelid = to_regclass($2) AND n.attname = t.attname
  WHERE c.oid = to_regclass($1) AND NOT t.attisdropped
) o, aclexplode(o.acl) a WHERE a.grantee <> o.relowner
UNION ALL SELECT format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', $1)
FROM pg_catalog.pg_class WHERE oid = to_regclass($1) AND relrowsecurity
UNION ALL SELECT format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', $1)
FROM pg_catalog.pg_class WHERE oid = to_regclass($1) AND relforcerowsecurity";

/// The policies of table `$1`: the name and the statement of each.
const POLICIES: &str = "
SELECT p.polname::text, format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', p.polname, $1,
  CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
  CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
    WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
  (SELECT string_agg(
      CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
    FROM unnest(p.polroles) r),
  ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
  ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')
FROM pg_catalog.pg_policy p WHERE p.polrelid = to_regclass($1) ORDER BY 1";

/// What protects a table, as statements about whatever has its name.
#[derive(Debug)]
pub(super) struct Protection {
    rights: Vec<String>,
    policies: Vec<(String, String)>,
}

impl Protection {
    /// What protects the table `into`, for one with the columns of `staging`; both are quoted.
    pub(super) async fn of(client: &Client, into: &str, staging: &str) -> Result<Self, Fault> {
        let tables = [
            (&into as &(dyn ToSql + Sync), Type::TEXT),
            (&staging, Type::TEXT),
        ];
        let rights = client.query_typed(GIVE, &tables).await?;
        let policies = client.query_typed(POLICIES, &[(&into, Type::TEXT)]).await?;
        Ok(Self {
            rights: rights.iter().map(|row| row.get(0)).collect(),
            policies: policies
                .iter()
                .map(|row| (row.get(0), row.get(1)))
                .collect(),
        })
    }

    /// Gives it to the table that has the name now, and is no one else's to read.
    pub(super) async fn give(&self, client: &Client, mapping: &MappingPlan) -> Result<(), Fault> {
        client.batch_execute(&self.rights.join(";")).await?;
        for (name, statement) in &self.policies {
            let given = client.batch_execute(statement).await;
            given.map_err(|error| match error.as_db_error() {
                None => Fault::from(error),
                Some(_) => {
                    let what = format!(
                        "its policy '{name}' cannot be given to the table that is to take its place: {}; change the policy, or drop it, then resume the sink",
                        error::message(&error)
                    );
                    StoreError::mismatch(mapping, what, Remedy::Said).into()
                }
            })?;
        }
        Ok(())
    }
}

/// Takes away what others may do with a table, whose name is quoted.
pub(super) async fn take_away(client: &Client, table: &str) -> Result<(), Fault> {
    let rows = client
        .query_typed(TAKE_AWAY, &[(&table, Type::TEXT)])
        .await?;
    let statements: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    Ok(client.batch_execute(&statements.join(";")).await?)
}
