//! Backfills tables, while the old rows stay readable: new tables beside the old ones, which
//! take their names in one transaction with the position. A new table is the sink's that made it: two
//! sinks that backfill one table would have one new table, too, and mix their rows.

use onelog_mapping::MappingPlan;
use onelog_store::{Change, Guard, LogPlace, Refusals, StoreError};
use rusqlite::Transaction;

use crate::bookkeeping::{forget_owner, record_owner, table_owner};
use crate::ddl::existing::{check_target, find_table};
use crate::ddl::{self, index_name, index_objects, quote, sql_type, staging_name};
use crate::error::{classify, classify_definition};
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
                .map_err(|error| classify_definition("making new tables in", self.path, error))?;
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
        guards: &[Guard],
        place: LogPlace,
    ) -> Result<(), StoreError> {
        self.check_epoch(transaction)?;
        for (number, mapping) in self.plan.mappings.iter().enumerate() {
            // A name that was taken since the rebuild began stays with its owner.
            check_target(transaction, self.path, &self.identity.sink, mapping)?;
            self.check_staging(transaction, mapping)?;
            self.check_dropped(transaction, mapping, guards.get(number))?;
            swap(transaction, &self.identity.sink, mapping).map_err(|error| {
                classify_definition("putting the new tables in place in", self.path, error)
            })?;
        }
        let mappings = self.plan.mappings.iter();
        let named = mappings.flat_map(|mapping| [mapping.into.clone(), index_name(mapping)]);
        self.release_tables(transaction, &named.collect::<Vec<_>>())
            .map_err(|error| classify("giving up former tables in", self.path, error))?;
        self.set_position(transaction, place)?;
        // What was backfilled is known from this very step on, not from the first look at it.
        *self.known = Known::backfilled(transaction, self.path, self.plan)?;
        self.keep_known(transaction)
    }

    /// Fails where more rows of the table would be dropped than may be: no other process writes to the
    /// file from here on.
    fn check_dropped(
        &self,
        transaction: &Transaction<'_>,
        mapping: &MappingPlan,
        guard: Option<&Guard>,
    ) -> Result<(), StoreError> {
        let Some(most) = guard.and_then(|guard| guard.deletes_max()) else {
            return Ok(());
        };
        let (rows, deletes) = dropped(transaction, mapping)
            .map_err(|error| classify("counting the rows of", self.path, error))?;
        if deletes <= most {
            return Ok(());
        }
        Err(StoreError::Guarded {
            into: mapping.into.clone(),
            rows,
            deletes,
            changes: 0,
        })
    }

    /// Fails where another sink backfills the table.
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

    /// Drops the new tables that no other sink backfills.
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

/// How many rows the table has, and how many of them the loaded one has not: by their keys, or, where
/// the table has another key, by their number.
fn dropped(transaction: &Transaction<'_>, mapping: &MappingPlan) -> rusqlite::Result<(u64, u64)> {
    if find_table(transaction, &mapping.into)?.is_none() {
        return Ok((0, 0));
    }
    let (into, staging) = (quote(&mapping.into), quote(&staging_name(mapping)));
    let key = &mapping.columns[mapping.key];
    let (name, kind) = (quote(&key.name), sql_type(key.kind));
    // A text that looks like a number must not be compared as one.
    let by_key = format!(
        "SELECT count(*), count(*) FILTER (WHERE NOT EXISTS
           (SELECT 1 FROM {staging} s WHERE s.{name} = CAST(t.{name} AS {kind}))) FROM {into} t"
    );
    let by_number = format!(
        "SELECT n, max(n - (SELECT count(*) FROM {staging}), 0) FROM (SELECT count(*) AS n FROM {into})"
    );
    let sql = match has_key(transaction, &mapping.into, &key.name)? {
        true => by_key,
        false => by_number,
    };
    transaction.query_row(&sql, [], |row| {
        let count = |n| row.get::<_, i64>(n).map(i64::cast_unsigned);
        Ok((count(0)?, count(1)?))
    })
}

/// Whether a column is the key of a table that onelog made, with a full-text index or without.
fn has_key(transaction: &Transaction<'_>, table: &str, column: &str) -> rusqlite::Result<bool> {
    transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2 COLLATE NOCASE AND pk = 1)
           OR EXISTS (SELECT 1 FROM pragma_index_list(?1) l, pragma_index_info(l.name) i
             WHERE l.origin = 'u' AND i.name = ?2 COLLATE NOCASE)",
        [table, column],
        |row| row.get(0),
    )
}

/// Puts a loaded staging table in the place of the table, and makes its index.
fn swap(transaction: &Transaction<'_>, sink: &str, mapping: &MappingPlan) -> rusqlite::Result<()> {
    let mut sql = String::new();
    // What onelog did not make may have the name of an index that the mapping does not need.
    if table_owner(transaction, &index_name(mapping))?.is_some() {
        sql = format!("DROP TABLE IF EXISTS {};", quote(&index_name(mapping)));
    }
    sql.push_str(&format!(
        "DROP TABLE IF EXISTS {}; ALTER TABLE {} RENAME TO {};",
        quote(&mapping.into),
        quote(&staging_name(mapping)),
        quote(&mapping.into)
    ));
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
