//! Rows that exchange what each may have once.
//!
//! In the order of the log two such rows are in each other's way. So they let go of these values first,
//! within the transaction: a row is deleted and inserted again where nothing follows a deleted row and
//! it has no columns of the user's. Elsewhere its unique columns are NULL for a moment, where they may
//! be. Rows that were not refused are left alone, and with them what refers to them.

use std::collections::HashSet;

use onelog_mapping::MappingPlan;
use onelog_store::{Batch, Change, StoreError};
use tokio_postgres::types::{ToSql, Type};

use super::probe::Refusal;
use super::{APPLYING, Step, changed, key_of, statements, steps};
use crate::connection::{Connection, STATEMENT_TIMEOUT};
use crate::ddl::table;
use crate::error::Fault;
use crate::store::Scope;

/// Of so many rows with values of others it is found out which take part in an exchange: that costs as
/// much again as finding the rows.
const SORTED_OUT_MAX: usize = 64;
/// Behind what the server says of a unique value; what forbids it follows.
const EXCHANGE_HINT: &str =
    "; where two rows exchange a unique value: that needs a row to be deleted for a moment, and ";

/// Rows that let go of their unique values before the upserts.
pub(super) type Freed<'b> = HashSet<(usize, &'b [u8])>;

/// The parts of a table, which can be referred to by themselves. `$1`: the table.
const PARTS: &str = "WITH RECURSIVE parts (oid) AS (
  SELECT to_regclass($1)::oid
  UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN parts p ON i.inhparent = p.oid)";

impl Scope<'_> {
    /// Applies a batch with rows that were refused in the order of the log.
    pub(super) fn exchange(
        &mut self,
        connection: &Connection,
        batch: &Batch,
        tried: &[Step<'_>],
        refused: Vec<Refusal>,
    ) -> Result<(), StoreError> {
        // Rows that exchange values wait: the batch comes again without the others. What refers to a
        // row that is missing may miss one of an exchange.
        let has_exchange = refused.iter().any(|(_, fault)| fault.is_exchange());
        let is_own_fault = |fault: &Fault| !fault.is_exchange() && !fault.is_reference();
        let (own, others): (Vec<_>, Vec<_>) = refused
            .into_iter()
            .partition(|(_, fault)| !has_exchange || is_own_fault(fault));
        if !own.is_empty() {
            return Err(self.refusals(connection, tried, own, ""));
        }
        let exchanged = others.iter().filter(|(_, fault)| fault.is_exchange());
        let freed: Freed<'_> = exchanged.map(|(step, _)| key_of(tried[*step])).collect();
        if let Some(why) = self.make_free(connection, &freed)? {
            return Err(self.refusals(connection, tried, others, &why));
        }
        let mut attempts = vec![freed];
        if others.len() > SORTED_OUT_MAX {
            // They are not sorted out, and there may be more, which were not tried.
            let mappings: HashSet<usize> = attempts[0].iter().map(|(n, _)| *n).collect();
            let all = tried.iter().map(|step| key_of(*step));
            attempts.push(all.filter(|(n, _)| mappings.contains(n)).collect());
        }
        for freed in &attempts {
            match connection.try_wait(APPLYING, STATEMENT_TIMEOUT, self.anew(batch, freed)) {
                Ok(()) => return Ok(()),
                Err(fault) if fault.is_rejected_row() => {}
                Err(fault) => return Err(fault.into_store_error(APPLYING, &connection.place)),
            }
        }
        if others.len() <= SORTED_OUT_MAX {
            let among = others.iter().map(|(step, _)| key_of(tried[*step]));
            let among: Freed<'_> = among.collect();
            if let Some(done) = self.anew_one_by_one(connection, batch, &attempts[0], &among) {
                return done;
            }
        }
        Err(self.refusals(connection, tried, others, ""))
    }

    /// As at once, but `freed` rows let go of their unique values first.
    async fn anew(&mut self, batch: &Batch, freed: &Freed<'_>) -> Result<(), Fault> {
        self.prepare(batch).await?;
        let outcome = self.send_all(batch, freed).await;
        self.end(outcome).await
    }

    /// The same one by one, those of `among` behind the rows that were not refused, to name those that
    /// are refused all the same: those that have what a row has that stays, or what an earlier one of the
    /// log has. `None`: none of them, it is others that cannot be written so.
    fn anew_one_by_one(
        &mut self,
        connection: &Connection,
        batch: &Batch,
        freed: &Freed<'_>,
        among: &Freed<'_>,
    ) -> Option<Result<(), StoreError>> {
        let let_go = changed(batch).rev().flat_map(|(mapping, changes)| {
            let is_freed = move |change: &&Change| {
                change.value.is_some() && freed.contains(&(mapping, &change.key[..]))
            };
            let without = move |change: &Change| Change {
                value: None,
                ..change.clone()
            };
            changes
                .iter()
                .filter(is_freed)
                .map(move |change| (mapping, without(change)))
        });
        let let_go: Vec<(usize, Change)> = let_go.collect();
        let frees = let_go.len();
        let mut all: Vec<Step<'_>> = let_go.iter().map(|(n, change)| (*n, change)).collect();
        let (written, deleted): (Vec<_>, Vec<_>) = steps(batch)
            .into_iter()
            .partition(|(_, change)| change.value.is_some());
        all.extend(deleted);
        let first = all.len();
        all.extend(written);
        all[first..].sort_by_key(|step| (among.contains(&key_of(*step)), step.0, step.1.offset));
        match self.one_by_one(connection, batch, &all, frees) {
            Ok(refused) if refused.is_empty() => Some(Ok(())),
            Ok(mut refused) => {
                refused.retain(|(step, _)| among.contains(&key_of(all[*step])));
                let found = !refused.is_empty();
                found.then(|| Err(self.refusals(connection, &all, refused, "")))
            }
            Err(fault) if fault.is_rejected_row() => None,
            Err(fault) => Some(Err(fault.into_store_error(APPLYING, &connection.place))),
        }
    }

    /// Makes the statements by which rows let go of their unique values. Why not, where there is none.
    fn make_free(
        &mut self,
        connection: &Connection,
        freed: &Freed<'_>,
    ) -> Result<Option<String>, StoreError> {
        let mut mappings: Vec<usize> = freed.iter().map(|(mapping, _)| *mapping).collect();
        mappings.sort_unstable();
        mappings.dedup();
        connection.wait(APPLYING, STATEMENT_TIMEOUT, async {
            for mapping in mappings {
                match self.way_to_free(mapping).await? {
                    Ok(sql) => self.writer(mapping).free = Some(sql.into()),
                    Err(why) => return Ok(Some(format!("{EXCHANGE_HINT}{why}"))),
                }
            }
            Ok(None)
        })
    }

    async fn way_to_free(&mut self, mapping: usize) -> Result<Result<String, String>, Fault> {
        let schema = &self.identity.schema;
        let plan = &self.identity.plan.mappings[mapping];
        let followers = self.followers(plan).await?;
        let why = match (followers, self.writer(mapping).has_more) {
            (None, false) => return Ok(Ok(statements::delete(schema, plan))),
            (None, true) => "the columns that onelog does not write would be lost".to_owned(),
            (Some(followers), _) => followers,
        };
        Ok(match self.columns_to_empty(plan).await? {
            Ok(columns) => Ok(statements::empty(schema, plan, &columns)),
            Err(cannot) => Err(format!(
                "{why}; or its unique columns to be NULL for a moment, and {cannot}"
            )),
        })
    }

    /// The columns that have to be unique and may be NULL, or why none may.
    async fn columns_to_empty(
        &self,
        plan: &MappingPlan,
    ) -> Result<Result<Vec<String>, String>, Fault> {
        let key = &plan.columns[plan.key].name;
        if let Some(followers) = self
            .followers_of("confupdtype", 16, plan, Some(key))
            .await?
        {
            return Ok(Err(followers));
        }
        let sql = format!(
            "{PARTS} SELECT DISTINCT a.attname::text FROM parts p
             JOIN pg_catalog.pg_index i ON i.indrelid = p.oid
             JOIN pg_catalog.pg_attribute a ON a.attrelid = p.oid
               AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
             WHERE (i.indisunique OR i.indisexclusion) AND NOT a.attnotnull AND NOT a.attisdropped
             ORDER BY 1"
        );
        let into = table(&self.identity.schema, &plan.into);
        let found = self
            .client
            .query_typed(&sql, &[(&into, Type::TEXT)])
            .await?;
        let found = found.iter().map(|row| row.get::<_, String>(0));
        let is_written = |name: &String| plan.column_names().any(|column| column == name);
        let columns: Vec<String> = found
            .filter(|name| name != key && is_written(name))
            .collect();
        Ok(match columns.is_empty() {
            true => Err("none of those that onelog writes may be NULL".to_owned()),
            false => Ok(columns),
        })
    }

    /// What would follow a row of this mapping that is deleted: a foreign key of another table whose
    /// rows would be deleted or emptied with it, or a trigger.
    pub(crate) async fn followers(&self, plan: &MappingPlan) -> Result<Option<String>, Fault> {
        self.followers_of("confdeltype", 8, plan, None).await
    }

    /// `bit`: of triggers that run then. `but`: a column that does not change; keys onto it alone follow
    /// nothing.
    async fn followers_of(
        &self,
        action: &str,
        bit: u8,
        plan: &MappingPlan,
        but: Option<&String>,
    ) -> Result<Option<String>, Fault> {
        let sql = format!(
            "{PARTS}
            SELECT format('the foreign key %s of %s would follow', k.conname, k.conrelid::regclass)
            FROM pg_catalog.pg_constraint k JOIN parts p ON k.confrelid = p.oid
            WHERE k.contype = 'f' AND k.{action} IN ('c', 'n', 'd') AND ($2::text IS NULL OR EXISTS (
              SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = k.confrelid
                AND a.attnum = ANY (k.confkey) AND a.attname::text <> $2::text))
            UNION ALL SELECT format('the trigger %s of %s would run', t.tgname, t.tgrelid::regclass)
            FROM pg_catalog.pg_trigger t JOIN parts p ON t.tgrelid = p.oid
            WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgtype & {bit} <> 0 LIMIT 1"
        );
        let into = table(&self.identity.schema, &plan.into);
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&into, Type::TEXT), (&but, Type::TEXT)];
        let found = self.client.query_typed_opt(&sql, &parameters).await?;
        Ok(found.map(|row| row.get(0)))
    }
}
