//! The rows of refused records, which stay in a table that is there.
//!
//! The staging table has a row for each of their keys without an offset: so the key is not missing
//! there, and nothing is written of it.

use std::collections::HashSet;
use std::sync::Arc;

use onelog_mapping::{Cell, MappingPlan};
use onelog_store::Refused;
use tokio_postgres::types::Type;

use super::{Rebuild, no_rebuild};
use crate::ddl::{long_keys_name, quote, record_columns, table};
use crate::encode::{Arrays, type_of};
use crate::error::Fault;
use crate::store::Scope;

/// What is true of the rows of a staging table that are to be written.
pub(super) fn is_written(mapping: &MappingPlan) -> String {
    let [_, offset] = record_columns(mapping).map(|name| quote(&name));
    format!("{offset} IS NOT NULL")
}

impl Scope<'_> {
    /// Whether there are rows to keep: else the new table becomes the one that is there.
    pub(crate) async fn keep(
        &mut self,
        rebuild: Option<&Rebuild>,
        number: usize,
        keys: &[&[u8]],
    ) -> Result<bool, Fault> {
        self.take_time().await?;
        self.check_epoch().await?;
        let target = &rebuild.ok_or_else(no_rebuild)?.targets[number];
        if !target.is_merged {
            return Ok(false);
        }
        let mapping = &self.identity.plan.mappings[number];
        let key = &mapping.columns[mapping.key];
        let wire = [target.table.wires(mapping)[mapping.key]];
        let mut kept = Arrays::new(std::iter::once(key.kind));
        let mut cell = [Cell::Null];
        for key in keys {
            // A key that has no place in this table has no row there.
            if mapping.project_key(key, &mut cell[0]).is_ok() {
                kept.push(&cell, &wire).ok();
            }
        }
        // Nothing is loaded any more, so no key need be refused for its length.
        let long_keys = long_keys_name(&self.identity.sink, mapping);
        let sql = format!(
            "DROP INDEX IF EXISTS {}",
            table(&self.identity.schema, &long_keys)
        );
        self.client.batch_execute(&sql).await?;
        let sql = format!(
            "INSERT INTO {} ({}) SELECT unnest($1::{}[])",
            self.staging(mapping),
            quote(&key.name),
            type_of(key.kind).name()
        );
        for keys in kept.take() {
            // It has its type in the statement.
            self.client
                .execute_typed(&sql, &[(&keys, Type::UNKNOWN)])
                .await?;
        }
        Ok(true)
    }

    /// Leaves refused records of the staging tables out. A key that has no row there is of a row that
    /// could not be deleted, which stays.
    pub(crate) async fn leave_out(
        &mut self,
        rebuild: Option<&Rebuild>,
        refused: &Refused,
    ) -> Result<(), Fault> {
        self.take_time().await?;
        self.check_epoch().await?;
        let plan = Arc::clone(&self.identity.plan);
        for (number, mapping) in plan.mappings.iter().enumerate() {
            let [key, offset] = record_columns(mapping).map(|name| quote(&name));
            let of = refused.all();
            let of = of.filter(|refused| refused.into.as_ref() == Some(&mapping.into));
            let (keys, offsets): (Vec<&[u8]>, Vec<i64>) = of
                .map(|refused| {
                    let offset = refused.offset.get().cast_signed();
                    (&refused.key_bytes[..], offset)
                })
                .unzip();
            if offsets.is_empty() {
                continue;
            }
            let sql = format!(
                "UPDATE {} SET {offset} = NULL WHERE {offset} = ANY($1) AND {key} = ANY($2) RETURNING {key}",
                self.staging(mapping)
            );
            let staged = self
                .client
                .query_typed(
                    &sql,
                    &[(&offsets, Type::INT8_ARRAY), (&keys, Type::BYTEA_ARRAY)],
                )
                .await?;
            let staged: HashSet<Vec<u8>> = staged.iter().map(|row| row.get(0)).collect();
            let undeleted: Vec<&[u8]> = keys
                .into_iter()
                .filter(|key| !staged.contains(*key))
                .collect();
            if !undeleted.is_empty() {
                self.keep(rebuild, number, &undeleted).await?;
            }
        }
        Ok(())
    }
}
