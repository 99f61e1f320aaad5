//! Filling tables anew, while the old rows stay readable.
//!
//! Rows are copied into a new table without any index. At the end, in one transaction with the
//! position:
//! - where nothing stood under the name, or a table of ours that no longer fits, the new table gets
//!   its primary key and the name;
//! - a table that fits is made equal to the new one, row by row that differs. So its views, rights,
//!   indexes and foreign keys stay, nobody who reads it waits, and what is right is not rewritten.

use futures_util::SinkExt as _;
use onelog_record::Position;
use tokio_postgres::CopyInSink;
use tokio_postgres::types::Type;

use super::connect::REBUILD_TIMEOUT;
use super::encode::CopyRows;
use super::error::{self, Fault};
use super::fit::Fit;
use super::schema::{self, Merge, quote};
use super::tables::{self, Standing};
use super::{Scope, signed};
use onelog_mapping::{EXISTING, MappingPlan};
use onelog_store::{Change, StoreError, failpoint};

/// How many bytes go into one message of a COPY.
const COPY_BYTES: usize = 128 << 10;

/// What a rebuild under way knows of each mapping's table.
#[derive(Debug)]
pub(super) struct Rebuild {
    fits: Vec<Fit>,
}

impl Scope<'_> {
    pub(super) async fn begin_rebuild(&self) -> Result<Rebuild, Fault> {
        self.check_epoch().await?;
        let mut fits = Vec::with_capacity(self.own.plan.mappings.len());
        for mapping in &self.own.plan.mappings {
            let (fit, merged_later) = match tables::standing(self.client, self.own, mapping).await?
            {
                Standing::Fits(fit) => (fit, true),
                Standing::Absent | Standing::Outgrown => (Fit::exact(mapping), false),
            };
            let sql = schema::create_staging(&self.own.schema, mapping, merged_later);
            self.client.batch_execute(&sql).await?;
            fits.push(fit);
        }
        Ok(Rebuild { fits })
    }

    pub(super) async fn load(
        &mut self,
        rebuild: Option<&Rebuild>,
        number: usize,
        rows: &[Change],
    ) -> Result<(), Fault> {
        self.check_epoch().await?;
        let rebuild = rebuild.ok_or_else(no_rebuild)?;
        let mapping = &self.own.plan.mappings[number];
        let wires = rebuild.fits[number].wires(mapping);
        let sql = schema::copy_in(&self.own.schema, mapping);
        let sink: CopyInSink<bytes::Bytes> = self.client.copy_in(&sql).await?;
        let mut sink = Box::pin(sink);
        let mut copy = CopyRows::new();
        for change in rows {
            let Some(value) = &change.value else { continue };
            mapping
                .project(&change.key, change.offset, value, self.row)
                .map_err(|fault| StoreError::refused_change(mapping, change, fault))?;
            copy.push(self.row, &wires).map_err(|(column, what)| {
                let what = format!("column '{}': {what}", mapping.columns[column].name);
                StoreError::refused_change(mapping, change, what)
            })?;
            if copy.bytes() >= COPY_BYTES {
                sink.send(copy.take()).await?;
            }
        }
        sink.send(copy.end()).await?;
        sink.as_mut().finish().await?;
        Ok(())
    }

    pub(super) async fn finish_rebuild(
        &self,
        rebuild: Option<&Rebuild>,
        position: Position,
    ) -> Result<(), Fault> {
        // The swap is durable at once, and may take long.
        let settings = format!(
            "SET LOCAL synchronous_commit = on; SET LOCAL statement_timeout = {}",
            REBUILD_TIMEOUT.as_millis()
        );
        self.client.batch_execute(&settings).await?;
        self.check_epoch().await?;
        if rebuild.is_none() {
            return Err(no_rebuild());
        }
        let mut merged: Vec<(&MappingPlan, Merge)> = Vec::new();
        for mapping in &self.own.plan.mappings {
            // Whoever made this name his own since the rebuild began keeps it.
            match tables::standing(self.client, self.own, mapping).await? {
                Standing::Fits(fit) => {
                    merged.push((mapping, Merge::new(&self.own.schema, mapping, &fit)));
                }
                Standing::Absent => self.put_in_place(mapping, false).await?,
                Standing::Outgrown => self.put_in_place(mapping, true).await?,
            }
            self.own_table(mapping).await?;
        }
        self.merge(&merged).await?;
        self.set_position(position).await?;
        failpoint::hit(&self.own.sink, "before_swap");
        Ok(())
    }

    /// Gives the new table its primary key and the name, and who might read the old one.
    async fn put_in_place(&self, mapping: &MappingPlan, replaces: bool) -> Result<(), Fault> {
        let schema = &self.own.schema;
        let staging = schema::table(schema, &schema::staging_name(mapping));
        let into = schema::table(schema, &mapping.into);
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
        if name.len() > schema::IDENTIFIER_BYTES_MAX {
            return Ok(String::new());
        }
        let row = self
            .client
            .query_typed_one(
                "SELECT to_regclass($1) IS NULL",
                &[(&schema::table(&self.own.schema, &name), Type::TEXT)],
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
                    (&self.own.schema, Type::TEXT),
                    (&mapping.into, Type::TEXT),
                    (&to, Type::TEXT),
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Notes that the table is this sink's; what was somebody's own once stays so.
    async fn own_table(&self, mapping: &MappingPlan) -> Result<(), Fault> {
        let sql = format!(
            "INSERT INTO {} AS t (name, sink, made) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET sink = excluded.sink, made = t.made AND excluded.made",
            schema::table(&self.own.schema, schema::OWNERS)
        );
        self.client
            .execute_typed(
                &sql,
                &[
                    (&mapping.into, Type::TEXT),
                    (&self.own.sink, Type::TEXT),
                    (&!mapping.options.flag(EXISTING), Type::BOOL),
                ],
            )
            .await?;
        Ok(())
    }

    /// Makes tables equal to the new ones beside them. Deletes come first, the last mapping's
    /// before all; where unique columns are in the way, every row that differs is deleted first.
    async fn merge(&self, merged: &[(&MappingPlan, Merge)]) -> Result<(), Fault> {
        if merged.is_empty() {
            return Ok(());
        }
        let staging =
            |mapping: &MappingPlan| schema::table(&self.own.schema, &schema::staging_name(mapping));
        for (mapping, _) in merged {
            let sql = format!("ANALYZE {}", staging(mapping));
            self.client.batch_execute(&sql).await?;
        }
        self.client.batch_execute("SAVEPOINT merging").await?;
        let mut outcome = self.merge_rows(merged, |merge| &merge.delete).await;
        if outcome
            .as_ref()
            .is_err_and(|(_, fault)| fault.is_about_order())
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

    async fn set_position(&self, position: Position) -> Result<(), Fault> {
        let sql = format!(
            "UPDATE {} SET position = $2, log_id = $3, plan = $4 WHERE sink = $1",
            schema::table(&self.own.schema, schema::POSITIONS)
        );
        self.client
            .execute_typed(
                &sql,
                &[
                    (&self.own.sink, Type::TEXT),
                    (&signed(position)?, Type::INT8),
                    (&self.own.log_id, Type::TEXT),
                    (&self.own.plan_id, Type::TEXT),
                ],
            )
            .await?;
        Ok(())
    }
}

/// A row that a table of the user's does not take names no record here: the words have to do.
fn unmerged(mapping: &MappingPlan, fault: Fault) -> Fault {
    match fault {
        Fault::Sql(error) if Fault::is_row_error(&error) => {
            Fault::Store(StoreError::SchemaMismatch {
                into: mapping.into.clone(),
                what: format!(
                    "it does not take the rows of the log; PostgreSQL says: {}",
                    error::words(&error)
                ),
            })
        }
        other => other,
    }
}

fn no_rebuild() -> Fault {
    Fault::Store(error::unavailable(
        "filling tables anew",
        "no rebuild was begun on this connection",
    ))
}
