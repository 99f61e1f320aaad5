//! Backfills tables, while the old rows stay readable: new tables beside the old ones, which
//! take their names in one transaction with the position. A new table is the sink's that made it: two
//! sinks that fill one table would have one new table, too, and mix their rows.

use onelog_mapping::MappingPlan;
use onelog_store::{Change, LogPlace, Refusals, StoreError};
use rusqlite::Transaction;

use crate::bookkeeping::{forget_owner, record_owner, table_owner};
use crate::ddl::existing::check_target;
use crate::ddl::{self, index_name, index_objects, quote, staging_name};
use crate::error::classify;
use crate::renewed::Known;
use crate::store::Scope;

impl Scope<'_> {
    pub(crate) fn begin_rebuild(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        self.check_epoch(transaction)?;
        for mapping in &self.plan.mappings {
            check_target(transaction, self.path, &self.identity.sink, mapping)?;
            self.check_staging(transaction, mapping)?;
            let name = staging_name(mapping);
            let sql = format!(
                "DROP TABLE IF EXISTS {}; {}",
                quote(&name),
                ddl::create_table(mapping, &name)
            );
            transaction
                .execute_batch(&sql)
                .and_then(|()| record_owner(transaction, &name, &self.identity.sink))
                .map_err(|error| classify("making new tables in", self.path, error))?;
        }
        Ok(())
    }

    pub(crate) fn load(
        &mut self,
        transaction: &Transaction<'_>,
        mapping: usize,
        rows: &[Change],
    ) -> Result<(), StoreError> {
        self.check_epoch(transaction)?;
        self.check_staging(transaction, &self.plan.mappings[mapping])?;
        let sql = &self.statements[mapping].load;
        let mut refusals = Refusals::default();
        self.write(transaction, mapping, sql, rows, &mut refusals)?;
        refusals.into_result()
    }

    pub(crate) fn finish_rebuild(
        &mut self,
        transaction: &Transaction<'_>,
        place: LogPlace,
    ) -> Result<(), StoreError> {
        self.check_epoch(transaction)?;
        for mapping in &self.plan.mappings {
            // A name that was taken since the rebuild began stays with its owner.
            check_target(transaction, self.path, &self.identity.sink, mapping)?;
            self.check_staging(transaction, mapping)?;
            swap(transaction, &self.identity.sink, mapping).map_err(|error| {
                classify("putting the new tables in place in", self.path, error)
            })?;
        }
        let mappings = self.plan.mappings.iter();
        let named = mappings.flat_map(|mapping| [mapping.into.clone(), index_name(mapping)]);
        self.release_tables(transaction, &named.collect::<Vec<_>>())
            .map_err(|error| classify("giving up former tables in", self.path, error))?;
        self.set_position(transaction, place)?;
        // What was filled is known from this very step on, not from the first look at it.
        *self.known = Known::filled(transaction, self.path, self.plan)?;
        self.keep_known(transaction)
    }

    /// Fails where another sink fills the table.
    fn check_staging(
        &self,
        transaction: &Transaction<'_>,
        mapping: &MappingPlan,
    ) -> Result<(), StoreError> {
        let owner = table_owner(transaction, &staging_name(mapping))
            .map_err(|error| classify("looking at the tables of", self.path, error))?;
        match owner.flatten() {
            Some(owner) if owner != self.identity.sink => {
                let fact = format!("the sink '{owner}' is backfilling it");
                Err(StoreError::owned(mapping.into.clone(), &owner, fact))
            }
            _ => Ok(()),
        }
    }

    /// Drops the new tables that no other sink fills.
    pub(crate) fn drop_staging(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        for mapping in &self.plan.mappings {
            let name = staging_name(mapping);
            let owner = table_owner(transaction, &name)?.flatten();
            if owner.is_none_or(|owner| owner == self.identity.sink) {
                let table = quote(&name);
                transaction.execute_batch(&format!("DROP TABLE IF EXISTS {table}"))?;
                forget_owner(transaction, &name)?;
            }
        }
        Ok(())
    }
}

/// Puts a loaded staging table in the place of the table, and makes its index.
fn swap(transaction: &Transaction<'_>, sink: &str, mapping: &MappingPlan) -> rusqlite::Result<()> {
    let mut sql = format!(
        "DROP TABLE IF EXISTS {}; DROP TABLE IF EXISTS {}; ALTER TABLE {} RENAME TO {};",
        quote(&index_name(mapping)),
        quote(&mapping.into),
        quote(&staging_name(mapping)),
        quote(&mapping.into)
    );
    let objects = index_objects(mapping);
    for (_, create) in &objects {
        sql.push_str(create);
        sql.push(';');
    }
    let mut owned = vec![mapping.into.clone()];
    if !objects.is_empty() {
        let index = quote(&index_name(mapping));
        sql.push_str(&format!(
            "INSERT INTO {index} ({index}) VALUES ('rebuild');"
        ));
        owned.push(index_name(mapping));
    } else {
        forget_owner(transaction, &index_name(mapping))?;
    }
    transaction.execute_batch(&sql)?;
    forget_owner(transaction, &staging_name(mapping))?;
    for name in owned {
        record_owner(transaction, &name, sink)?;
    }
    Ok(())
}
