//! Backfills tables, while the old rows stay readable.
//!
//! Rows are copied into a new table without any index. At the end, in one transaction with the
//! position:
//! - where there was nothing of the name, or a table of ours that no longer fits, the new table gets
//!   its primary key and the name;
//! - a table that fits is made equal to the new one, row by row that differs. So its views, rights,
//!   indexes and foreign keys stay, no reader waits, and what is right is not rewritten.

mod keep;
mod load;
mod merge;
mod protection;
mod refused;

use onelog_mapping::MappingPlan;
use onelog_store::{Guard, LogPlace, failpoint};
use tokio_postgres::types::Type;

use self::merge::{Merge, Merging, guarded};
use self::protection::{Protection, take_away};
use crate::connection::REBUILD_TIMEOUT;
use crate::ddl::existing::{self, TargetState, TargetTable};
use crate::ddl::{self, IDENTIFIER_BYTES_MAX, long_keys_name, quote, staging_name, table};
use crate::error::{self, Fault};
use crate::store::Scope;

/// How often rows that are refused are looked for with those that differ out of the way. A row that
/// stays can be in the way of another, which then stays as well, and so on: beyond, all of these are
/// found at once.
const RENEWALS_MAX: u32 = 3;

/// What a rebuild under way knows of each mapping's table.
#[derive(Debug)]
pub(crate) struct Rebuild {
    targets: Vec<RebuildTarget>,
    /// How often the tables that are there have refused rows.
    refusals: u32,
}

impl Rebuild {
    pub(crate) const fn count_refusal(&mut self) {
        self.refusals += 1;
    }

    pub(crate) fn merges_all(&self) -> bool {
        self.targets.iter().all(|target| target.is_merged)
    }
}

#[derive(Debug)]
struct RebuildTarget {
    table: TargetTable,
    /// Whether the new rows are to be merged into the table that is there; else they become it.
    is_merged: bool,
}

impl Scope<'_> {
    pub(crate) async fn begin_rebuild(&self) -> Result<Rebuild, Fault> {
        self.check_epoch().await?;
        let mut targets = Vec::with_capacity(self.identity.plan.mappings.len());
        for mapping in &self.identity.plan.mappings {
            let state = existing::check_target(self.client, self.identity, mapping).await?;
            let is_new = matches!(state, TargetState::Absent);
            let (target, is_merged) = match state {
                TargetState::Fits(target) => (target, true),
                TargetState::Absent | TargetState::Outgrown => (TargetTable::exact(mapping), false),
            };
            let sql = ddl::create_staging(
                &self.identity.schema,
                &self.identity.sink,
                mapping,
                is_merged,
            );
            self.client.batch_execute(&sql).await?;
            if !is_new {
                // These are rows of a table that has rights of its own.
                let staging = staging_name(&self.identity.sink, mapping);
                take_away(self.client, &table(&self.identity.schema, &staging)).await?;
            }
            targets.push(RebuildTarget {
                table: target,
                is_merged,
            });
        }
        Ok(Rebuild {
            targets,
            refusals: 0,
        })
    }

    pub(crate) async fn finish_rebuild(
        &self,
        rebuild: Option<&Rebuild>,
        guards: &[Guard],
        place: LogPlace,
    ) -> Result<(), Fault> {
        self.take_time().await?;
        // The swap is durable at once.
        self.client
            .batch_execute("SET LOCAL synchronous_commit = on")
            .await?;
        self.check_epoch().await?;
        let rebuild = rebuild.ok_or_else(no_rebuild)?;
        let mut merged = Vec::new();
        for (number, mapping) in self.identity.plan.mappings.iter().enumerate() {
            // A name that was taken since the rebuild began stays with its owner.
            let state = existing::check_target(self.client, self.identity, mapping).await?;
            let is_merged = rebuild.targets[number].is_merged;
            match state {
                TargetState::Fits(target) if is_merged => {
                    let (schema, sink) = (&self.identity.schema, &self.identity.sink);
                    merged.push(Merging {
                        number,
                        mapping,
                        merge: Merge::new(schema, sink, mapping, &target),
                        is_renewable: !target.has_more && self.followers(mapping).await?.is_none(),
                        guard: guards.get(number).copied().unwrap_or(Guard::Anything),
                    });
                }
                TargetState::Absent if !is_merged => self.put_in_place(mapping, false).await?,
                TargetState::Outgrown if !is_merged => {
                    self.check_dropped(mapping, guards.get(number)).await?;
                    self.put_in_place(mapping, true).await?;
                }
                // The rows were made for another table.
                _ => return Err(Fault::Redefined(mapping.into.clone())),
            }
            self.record_owner(mapping).await?;
        }
        let may_renew = rebuild.refusals < RENEWALS_MAX;
        self.merge(&merged, may_renew, place).await?;
        for (mapping, backfilled) in self.identity.plan.mappings.iter().zip(&rebuild.targets) {
            existing::record_backfilled(self.client, self.identity, mapping, &backfilled.table)
                .await?;
        }
        self.set_position(place).await?;
        failpoint::hit(&self.identity.sink, "before_swap");
        Ok(())
    }

    /// The statements of this transaction are about whole tables.
    async fn take_time(&self) -> Result<(), Fault> {
        let limit = REBUILD_TIMEOUT.as_millis();
        let sql = format!("SET LOCAL statement_timeout = {limit}");
        Ok(self.client.batch_execute(&sql).await?)
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

    /// Locks a table that is dropped and counts what others have written to it meanwhile: with other
    /// columns, by the number of rows that the new one does not have.
    async fn check_dropped(
        &self,
        mapping: &MappingPlan,
        guard: Option<&Guard>,
    ) -> Result<(), Fault> {
        let Some(most) = guard.and_then(|guard| guard.deletes_max()) else {
            return Ok(());
        };
        let schema = &self.identity.schema;
        let staging = table(schema, &staging_name(&self.identity.sink, mapping));
        let into = table(schema, &mapping.into);
        let sql = format!("LOCK TABLE {into} IN ACCESS EXCLUSIVE MODE");
        self.client.batch_execute(&sql).await?;
        let sql = format!("SELECT (SELECT count(*) FROM {into}), (SELECT count(*) FROM {staging})");
        let counted = self.client.query_typed_one(&sql, &[]).await?;
        let [rows, new] = [counted.get::<_, i64>(0), counted.get(1)].map(i64::cast_unsigned);
        match rows.saturating_sub(new) {
            deletes if deletes > most => Err(guarded(mapping, rows, deletes, 0)),
            _ => Ok(()),
        }
    }

    /// Gives the new table its primary key and the name, and what protects the old one.
    async fn put_in_place(&self, mapping: &MappingPlan, replaces: bool) -> Result<(), Fault> {
        let schema = &self.identity.schema;
        let staging = table(schema, &staging_name(&self.identity.sink, mapping));
        let into = table(schema, &mapping.into);
        let key = quote(&mapping.columns[mapping.key].name);
        let mut protection = None;
        if replaces {
            take_away(self.client, &staging).await?;
            protection = Some(Protection::of(self.client, &into, &staging).await?);
            let sql = format!("DROP TABLE {into}");
            self.client.batch_execute(&sql).await?;
        }
        let sql = format!(
            "DROP INDEX IF EXISTS {};
             ALTER TABLE {staging} ADD {}PRIMARY KEY ({key});
             ALTER TABLE {staging} RENAME TO {};
             ANALYZE {into}",
            table(schema, &long_keys_name(&self.identity.sink, mapping)),
            self.constraint(mapping).await?,
            quote(&mapping.into)
        );
        self.client.batch_execute(&sql).await?;
        match protection {
            Some(protection) => protection.give(self.client, mapping).await,
            None => Ok(()),
        }
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
}

fn no_rebuild() -> Fault {
    Fault::Store(error::unavailable(
        "backfilling tables",
        "no rebuild was begun on this connection",
    ))
}
