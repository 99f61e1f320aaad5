//! Backfills tables, while the old rows stay readable.
//!
//! Rows are copied into a new table without any index. At the end, in one transaction with the
//! position:
//! - where there was nothing of the name, or a table of ours that no longer fits, the new table gets
//!   its primary key and the name;
//! - a table that fits is made equal to the new one, row by row that differs. So its views, rights,
//!   indexes and foreign keys stay, no reader waits, and what is right is not rewritten.

use futures_util::SinkExt as _;
use onelog_mapping::{ColumnType, MappingPlan};
use onelog_store::{Change, LogPlace, Refusals, StoreError, failpoint};
use tokio_postgres::CopyInSink;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::connection::REBUILD_TIMEOUT;
use crate::ddl::existing::{self, TargetState, TargetTable};
use crate::ddl::{self, IDENTIFIER_BYTES_MAX, list, quote, staging_name, table};
use crate::encode::CopyRows;
use crate::error::{self, Fault};
use crate::store::Scope;
use crate::write::statements::{casts, on_conflict, other_columns};

/// How many bytes go into one message of a COPY.
const COPY_BYTES: usize = 128 << 10;

/// What a rebuild under way knows of each mapping's table.
#[derive(Debug)]
pub(crate) struct Rebuild {
    targets: Vec<TargetTable>,
}

impl Scope<'_> {
    pub(crate) async fn begin_rebuild(&self) -> Result<Rebuild, Fault> {
        self.check_epoch().await?;
        let mut targets = Vec::with_capacity(self.identity.plan.mappings.len());
        for mapping in &self.identity.plan.mappings {
            let (target, merged_later) =
                match existing::check_target(self.client, self.identity, mapping).await? {
                    TargetState::Fits(target) => (target, true),
                    TargetState::Absent | TargetState::Outgrown => {
                        (TargetTable::exact(mapping), false)
                    }
                };
            let sql = ddl::create_staging(
                &self.identity.schema,
                &self.identity.sink,
                mapping,
                merged_later,
            );
            self.client.batch_execute(&sql).await?;
            targets.push(target);
        }
        Ok(Rebuild { targets })
    }

    pub(crate) async fn load(
        &mut self,
        rebuild: Option<&Rebuild>,
        number: usize,
        rows: &[Change],
    ) -> Result<(), Fault> {
        self.check_epoch().await?;
        let rebuild = rebuild.ok_or_else(no_rebuild)?;
        let mapping = &self.identity.plan.mappings[number];
        let wires = rebuild.targets[number].wires(mapping);
        let sql = copy_in(&self.identity.schema, &self.identity.sink, mapping);
        let sink: CopyInSink<bytes::Bytes> = self.client.copy_in(&sql).await?;
        let mut sink = Box::pin(sink);
        let mut copy = CopyRows::new();
        let mut refusals = Refusals::default();
        for change in rows {
            let Some(value) = &change.value else { continue };
            let pushed = mapping
                .project(&change.key, change.offset, value, self.row)
                .map_err(|fault| StoreError::refused_change(mapping, change, fault))
                .and_then(|()| {
                    copy.push(self.row, &wires).map_err(|(column, what)| {
                        let what = format!("column '{}': {what}", mapping.columns[column].name);
                        StoreError::refused_change(mapping, change, what)
                    })
                });
            if let Err(error) = pushed {
                refusals.note(number, change, error)?;
            }
            if refusals.is_empty() && copy.bytes() >= COPY_BYTES {
                sink.send(copy.take()).await?;
            }
        }
        refusals.into_result()?;
        sink.send(copy.end()).await?;
        sink.as_mut().finish().await?;
        Ok(())
    }

    pub(crate) async fn finish_rebuild(
        &self,
        rebuild: Option<&Rebuild>,
        place: LogPlace,
    ) -> Result<(), Fault> {
        // The swap is durable at once, and may take long.
        let settings = format!(
            "SET LOCAL synchronous_commit = on; SET LOCAL statement_timeout = {}",
            REBUILD_TIMEOUT.as_millis()
        );
        self.client.batch_execute(&settings).await?;
        self.check_epoch().await?;
        let rebuild = rebuild.ok_or_else(no_rebuild)?;
        let mut merged: Vec<(&MappingPlan, Merge)> = Vec::new();
        for mapping in &self.identity.plan.mappings {
            // A name that was taken since the rebuild began stays with its owner.
            match existing::check_target(self.client, self.identity, mapping).await? {
                TargetState::Fits(target) => {
                    merged.push((
                        mapping,
                        Merge::new(&self.identity.schema, &self.identity.sink, mapping, &target),
                    ));
                }
                TargetState::Absent => self.put_in_place(mapping, false).await?,
                TargetState::Outgrown => self.put_in_place(mapping, true).await?,
            }
            self.record_owner(mapping).await?;
        }
        self.merge(&merged).await?;
        for (mapping, filled) in self.identity.plan.mappings.iter().zip(&rebuild.targets) {
            existing::record_filled(self.client, self.identity, mapping, filled).await?;
        }
        self.set_position(place).await?;
        failpoint::hit(&self.identity.sink, "before_swap");
        Ok(())
    }

    pub(crate) async fn drop_staging(&self) -> Result<(), Fault> {
        for mapping in &self.identity.plan.mappings {
            let name = table(
                &self.identity.schema,
                &staging_name(&self.identity.sink, mapping),
            );
            let sql = format!("DROP TABLE IF EXISTS {name}");
            self.client.batch_execute(&sql).await?;
        }
        Ok(())
    }

    /// Gives the new table its primary key and the name, and who might read the old one.
    async fn put_in_place(&self, mapping: &MappingPlan, replaces: bool) -> Result<(), Fault> {
        let schema = &self.identity.schema;
        let staging = table(schema, &staging_name(&self.identity.sink, mapping));
        let into = table(schema, &mapping.into);
        let key = quote(&mapping.columns[mapping.key].name);
        if replaces {
            let mut sql = self.grants(mapping, &staging).await?.join(";");
            sql.push_str(&format!("; DROP TABLE {into}"));
            self.client.batch_execute(&sql).await?;
        }
        let sql = format!(
            "ALTER TABLE {staging} SET LOGGED;
             ALTER TABLE {staging} ADD {}PRIMARY KEY ({key});
             ALTER TABLE {staging} RENAME TO {};
             ANALYZE {into}",
            self.constraint(mapping).await?,
            quote(&mapping.into)
        );
        Ok(self.client.batch_execute(&sql).await?)
    }

    /// The usual name for the primary key, where it is free.
    async fn constraint(&self, mapping: &MappingPlan) -> Result<String, Fault> {
        let name = format!("{}_pkey", mapping.into);
        if name.len() > IDENTIFIER_BYTES_MAX {
            return Ok(String::new());
        }
        let row = self
            .client
            .query_typed_one(
                "SELECT to_regclass($1) IS NULL",
                &[(&table(&self.identity.schema, &name), Type::TEXT)],
            )
            .await?;
        Ok(match row.get(0) {
            true => format!("CONSTRAINT {} ", quote(&name)),
            false => String::new(),
        })
    }

    /// The rights that others have on the table, as they are given on another one.
    async fn grants(&self, mapping: &MappingPlan, to: &str) -> Result<Vec<String>, Fault> {
        let sql = "SELECT format('GRANT %s ON %s TO %s%s', a.privilege_type, $3,
              CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
              CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
            FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a
            WHERE n.nspname = $1 AND c.relname = $2 AND a.grantee <> c.relowner";
        let rows = self
            .client
            .query_typed(
                sql,
                &[
                    (&self.identity.schema, Type::TEXT),
                    (&mapping.into, Type::TEXT),
                    (&to, Type::TEXT),
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Makes tables equal to the new ones beside them. Deletes come first, the last mapping's
    /// before all; where unique columns are in the way, every row that differs is deleted first.
    async fn merge(&self, merged: &[(&MappingPlan, Merge)]) -> Result<(), Fault> {
        if merged.is_empty() {
            return Ok(());
        }
        let staging = |mapping: &MappingPlan| {
            table(
                &self.identity.schema,
                &staging_name(&self.identity.sink, mapping),
            )
        };
        for (mapping, _) in merged {
            let sql = format!("ANALYZE {}", staging(mapping));
            self.client.batch_execute(&sql).await?;
        }
        self.client.batch_execute("SAVEPOINT merging").await?;
        let mut outcome = self.merge_rows(merged, |merge| &merge.delete).await;
        if outcome
            .as_ref()
            .is_err_and(|(_, fault)| fault.is_between_rows())
        {
            self.client
                .batch_execute("ROLLBACK TO SAVEPOINT merging; SET CONSTRAINTS ALL DEFERRED")
                .await?;
            outcome = self
                .merge_rows(merged, |merge| &merge.delete_different)
                .await;
        }
        outcome.map_err(|(mapping, fault)| unmerged(mapping, fault))?;
        for (mapping, _) in merged {
            let sql = format!("DROP TABLE {}", staging(mapping));
            self.client.batch_execute(&sql).await?;
        }
        Ok(())
    }

    async fn merge_rows<'m>(
        &self,
        merged: &'m [(&'m MappingPlan, Merge)],
        delete: impl Fn(&Merge) -> &String,
    ) -> Result<(), (&'m MappingPlan, Fault)> {
        for (mapping, merge) in merged.iter().rev() {
            let deleted = self.client.batch_execute(delete(merge)).await;
            deleted.map_err(|error| (*mapping, error.into()))?;
        }
        for (mapping, merge) in merged {
            let written = self.client.batch_execute(&merge.upsert).await;
            written.map_err(|error| (*mapping, error.into()))?;
        }
        Ok(())
    }
}

const NO_PARENT: &str = "; tables are filled in the order of the mappings: where the table that the foreign key refers to is one of them, put its mapping first";

/// A row that a user's table does not take names no record here: the server's message has to do.
fn unmerged(mapping: &MappingPlan, fault: Fault) -> Fault {
    match fault {
        Fault::Sql(error) if Fault::is_rejected_row_error(&error) => {
            Fault::Store(StoreError::SchemaMismatch {
                into: mapping.into.clone(),
                what: format!(
                    "it does not take the rows of the log; PostgreSQL says: {}{}",
                    error::message(&error),
                    match error.code() {
                        Some(&SqlState::FOREIGN_KEY_VIOLATION) => NO_PARENT,
                        _ => "",
                    }
                ),
            })
        }
        other => other,
    }
}

fn no_rebuild() -> Fault {
    Fault::Store(error::unavailable(
        "backfilling tables",
        "no rebuild was begun on this connection",
    ))
}

pub(crate) fn copy_in(schema: &str, sink: &str, mapping: &MappingPlan) -> String {
    format!(
        "COPY {} ({}) FROM STDIN (FORMAT binary)",
        table(schema, &staging_name(sink, mapping)),
        list(mapping.column_names())
    )
}

/// The statements that make a table equal to its staging table, row by row that differs.
pub(crate) struct Merge {
    /// Rows whose key the staging table has not.
    pub(crate) delete: String,
    /// Rows that differ or whose key it has not: for when unique columns conflict.
    pub(crate) delete_different: String,
    pub(crate) upsert: String,
}

impl Merge {
    pub(crate) fn new(
        schema: &str,
        sink: &str,
        mapping: &MappingPlan,
        target: &TargetTable,
    ) -> Self {
        let into = table(schema, &mapping.into);
        let staging = table(schema, &staging_name(sink, mapping));
        let key = &mapping.columns[mapping.key];
        let key_name = quote(&key.name);
        let collate = match key.kind {
            ColumnType::Text => " COLLATE \"C\"",
            _ => "",
        };
        let same_key = format!("s.{key_name}{collate} = t.{key_name}");
        let comparable = |prefix: &str, n: usize| {
            let name = format!("{prefix}{}", quote(&mapping.columns[n].name));
            match mapping.columns[n].kind {
                // A json column has no equality; bytes decide for texts whatever their collation.
                ColumnType::Json => format!("{name}::jsonb"),
                ColumnType::Text => format!("{name}::text COLLATE \"C\""),
                _ => name,
            }
        };
        let row = |prefix: &str| {
            let parts: Vec<String> = (0..mapping.columns.len())
                .map(|n| comparable(prefix, n))
                .collect();
            format!("ROW({})", parts.join(", "))
        };
        let conflict = on_conflict(mapping);
        let unchanged = if other_columns(mapping).next().is_none() {
            String::new()
        } else {
            format!(" WHERE {} IS DISTINCT FROM {}", row("t."), row("excluded."))
        };
        Self {
            delete: format!(
                "DELETE FROM {into} t WHERE NOT EXISTS (SELECT FROM {staging} s WHERE {same_key})"
            ),
            delete_different: format!(
                "DELETE FROM {into} t WHERE NOT EXISTS (SELECT FROM {staging} s WHERE {same_key}
                   AND {} IS NOT DISTINCT FROM {})",
                row("s."),
                row("t.")
            ),
            upsert: format!(
                "INSERT INTO {into} AS t ({}) SELECT {} FROM {staging} {conflict}{unchanged}",
                list(mapping.column_names()),
                casts(mapping, target, |n| quote(&mapping.columns[n].name)),
            ),
        }
    }
}
