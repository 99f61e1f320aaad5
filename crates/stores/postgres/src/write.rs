//! A batch in one transaction: all at once; or, where that meets a constraint, change by change.
//!
//! ```text
//!  all at once ─ committed
//!      │ a unique or foreign key objects           │ a row is refused
//!      ▼                                           ▼
//!  in the order of the log ─ committed      one by one ─ committed, or every refused row is named
//!      │ a unique key objects still
//!      ▼
//!  every changed row deleted, then inserted ─ committed
//!      │ a unique key objects still
//!      ▼
//!  the same one by one ─ every refused row is named
//! ```
//! Each attempt is a transaction of its own and moves the position itself, under the same guard. Its
//! last step is a look at the definitions of the tables, see `definitions`. How the refused ones are
//! found is in `probe`.
//!
//! Batches of any size go by `unnest`, in pieces. COPY into a temporary table and a merge costs the
//! server the same time for 40,000 rows (measured), and would have to be waited for.

mod definitions;
mod probe;
pub(crate) mod statements;

use std::sync::Arc;
use std::time::Duration;

use onelog_mapping::{Cell, MappingPlan};
use onelog_store::{Batch, Change, Refusals, Refused, StoreError, failpoint};
use tokio_postgres::types::{ToSql, Type};

use self::probe::{Probe, Refusal};
use crate::bookkeeping::ADVANCE;
use crate::connection::{Connection, Pipeline, STATEMENT_TIMEOUT};
use crate::ddl::{existing, shape, table};
use crate::encode::{Arrays, Wire};
use crate::error::{self, Fault};
use crate::store::Scope;

/// How many rows, and about how many bytes of them, go into one statement. The server works on one
/// statement while the next is made ready.
const STATEMENT_ROWS_MAX: i32 = 5_000;
const STATEMENT_BYTES_MAX: usize = 4 << 20;
/// How often a batch begins again because tables were redefined meanwhile.
const REDEFINITIONS_MAX: usize = 4;
/// How many single changes are sent before their answers are awaited.
const WINDOW: usize = 256;
const APPLYING: &str = "applying a batch to";
/// Of so many rows with values of others it is found out which take part in an exchange: that costs as
/// much again as finding the rows.
const SORTED_OUT_MAX: usize = 64;
/// Behind what the server says of a unique value; what forbids it follows.
const EXCHANGE_HINT: &str =
    "; where two rows exchange a unique value: that needs a row to be deleted for a moment, and ";

/// The statements of one mapping and the buffers of their parameters.
#[derive(Debug)]
pub(crate) struct Writer {
    upsert: Arc<str>,
    delete: Arc<str>,
    wires: Vec<Wire>,
    rows: Arrays,
    keys: Arrays,
    /// What the catalog said of the table before the statements were made.
    versions: String,
    /// Whether this transaction has written to the table, and so holds off changes of it.
    is_locked: bool,
    /// Whether the table has columns that the mapping does not fill.
    has_more: bool,
}

type Step<'b> = (usize, &'b Change);

/// Which rows are deleted before the upserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deletes {
    /// Those that the log deleted.
    Deleted,
    /// Every row that changes, because two exchange a unique value.
    All,
}

impl<'a> Scope<'a> {
    /// Applies a batch, whatever attempts that takes.
    pub(crate) fn apply(
        &mut self,
        connection: &Connection,
        batch: &Batch,
    ) -> Result<(), StoreError> {
        let mut outcome = connection.try_wait(APPLYING, STATEMENT_TIMEOUT, self.at_once(batch));
        for _ in 0..REDEFINITIONS_MAX {
            let Err(Fault::Redefined(_)) = outcome else {
                break;
            };
            // New statements, where the tables still fit.
            self.writers.iter_mut().for_each(|writer| *writer = None);
            outcome = connection.try_wait(APPLYING, STATEMENT_TIMEOUT, self.at_once(batch));
        }
        let fault = match outcome {
            Ok(()) => return Ok(()),
            Err(fault) if fault.is_rejected_row() => fault,
            Err(fault) => return Err(fault.into_store_error(APPLYING, &connection.place)),
        };
        tracing::debug!(sink = self.identity.sink, error = ?fault, "looking for the rows that were refused");
        // In the order of the log every transaction's end was a state that the writers saw.
        let steps: Vec<Step<'_>> = match fault.is_between_rows() {
            true => batch
                .in_order
                .iter()
                .map(|(n, change)| (*n, change))
                .collect(),
            false => steps(batch),
        };
        let refused = match self.one_by_one(connection, batch, &steps) {
            Ok(refused) if refused.is_empty() => return Ok(()),
            Ok(refused) => refused,
            Err(fault) if fault.is_rejected_row() => {
                return Err(self.refused_at_the_end(connection, &steps, fault));
            }
            Err(fault) => return Err(fault.into_store_error(APPLYING, &connection.place)),
        };
        self.exchange(connection, batch, &steps, refused)
    }

    /// Applies a batch with rows that were refused in the order of the log, in which two rows that
    /// exchange a unique value are in each other's way.
    fn exchange(
        &mut self,
        connection: &Connection,
        batch: &Batch,
        steps: &[Step<'_>],
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
            return Err(self.refusals(connection, steps, own, ""));
        }
        if self.loses_columns(batch) {
            return Err(self.refusals(connection, steps, others, ""));
        }
        if let Some(followers) = self.followers_of(connection, batch)? {
            let hint = format!("{EXCHANGE_HINT}{followers}");
            return Err(self.refusals(connection, steps, others, &hint));
        }
        match connection.try_wait(APPLYING, STATEMENT_TIMEOUT, self.anew(batch)) {
            Ok(()) => return Ok(()),
            Err(fault) if fault.is_rejected_row() => {}
            Err(fault) => return Err(fault.into_store_error(APPLYING, &connection.place)),
        }
        let are_sorted_out = others.len() <= SORTED_OUT_MAX;
        let refused = match self.refusals(connection, steps, others, "") {
            StoreError::Refused(refused) if are_sorted_out => refused,
            other => return Err(other),
        };
        // Rows that are refused anew, too, are named alone: the exchanges beside them pass without them.
        // What only cannot be inserted again is not to blame.
        let found = self.refused_anew(connection, batch)?;
        let named = found.and_then(|found| found.among(&refused).map(Box::new));
        Err(StoreError::Refused(named.unwrap_or(refused)))
    }

    /// Which rows are refused where every row that changes is deleted first: those that have what a row
    /// has that stays, or what an earlier one of the log has.
    fn refused_anew(
        &mut self,
        connection: &Connection,
        batch: &Batch,
    ) -> Result<Option<Box<Refused>>, StoreError> {
        let without_values = changed(batch).rev().flat_map(|(mapping, changes)| {
            let without = |change: &Change| Change {
                value: None,
                ..change.clone()
            };
            changes.iter().map(move |change| (mapping, without(change)))
        });
        let deletes: Vec<(usize, Change)> = without_values.collect();
        let mut steps: Vec<Step<'_>> = deletes.iter().map(|(n, change)| (*n, change)).collect();
        steps.extend(upserts(batch));
        steps[deletes.len()..].sort_by_key(|(mapping, change)| (*mapping, change.offset));
        let limit = limit_of(&steps);
        let found = connection.try_wait("applying rows anew to", limit, async {
            let found = self.probe(batch, &steps).await;
            self.client.batch_execute("ROLLBACK").await.ok();
            found
        });
        match found {
            Ok(mut refused) => {
                refused.retain(|(step, _)| *step >= deletes.len());
                if refused.is_empty() {
                    return Ok(None);
                }
                match self.refusals(connection, &steps, refused, "") {
                    StoreError::Refused(found) => Ok(Some(found)),
                    other => Err(other),
                }
            }
            Err(fault) if fault.is_rejected_row() => Ok(None),
            Err(fault) => Err(fault.into_store_error(APPLYING, &connection.place)),
        }
    }

    /// Everything collapsed: deletes, the last mapping's first; then upserts in the plan's order.
    async fn at_once(&mut self, batch: &Batch) -> Result<(), Fault> {
        self.prepare(batch).await?;
        let outcome = self.send_all(batch, Deletes::Deleted).await;
        match self.end(outcome).await {
            Err(fault) if fault.is_rejected_row() => Err(self.blame_definitions(fault).await),
            other => other,
        }
    }

    /// As [`Self::at_once`], but rows that are there are deleted and inserted. Not where others would
    /// follow a deleted row.
    async fn anew(&mut self, batch: &Batch) -> Result<(), Fault> {
        self.prepare(batch).await?;
        let outcome = self.send_all(batch, Deletes::All).await;
        self.end(outcome).await
    }

    async fn end(&mut self, outcome: Result<(), Fault>) -> Result<(), Fault> {
        match outcome {
            Ok(()) => {
                failpoint::hit(&self.identity.sink, "before_commit");
                Ok(self.client.batch_execute("COMMIT").await?)
            }
            Err(fault) => {
                // The first error is reported; a connection that is gone has rolled back already.
                self.client.batch_execute("ROLLBACK").await.ok();
                Err(fault)
            }
        }
    }

    async fn send_all(&mut self, batch: &Batch, deletes: Deletes) -> Result<(), Fault> {
        let mut pipeline = Pipeline::default();
        self.advance_position(&mut pipeline, batch.from, batch.place())?;
        let refused = self.send_rows(&mut pipeline, batch, deletes).await.err();
        let check = pipeline.len();
        self.send_check(&mut pipeline);
        match pipeline.answers().await {
            // A batch that is not ours to apply has no refused rows.
            Ok(rows) if rows[ADVANCE] == 0 => Err(self.position_mismatch(batch.from).await),
            Ok(rows) if rows[check] > 0 => self.check_definitions().await,
            Ok(_) => refused.map_or(Ok(()), |error| Err(Fault::Store(error))),
            Err((_, error)) => Err(error.into()),
        }
    }

    async fn send_rows(
        &mut self,
        pipeline: &mut Pipeline<'a>,
        batch: &Batch,
        deletes: Deletes,
    ) -> Result<(), StoreError> {
        for (mapping, changes) in changed(batch).rev() {
            let deleted = changes
                .iter()
                .filter(|change| deletes == Deletes::All || change.value.is_none());
            for change in deleted {
                if self.push_key(mapping, change)? {
                    self.flush(pipeline, mapping).await;
                }
            }
            self.flush_rest(pipeline, mapping).await;
        }
        for (mapping, changes) in changed(batch) {
            for change in changes.iter().filter(|change| change.value.is_some()) {
                if self.push_row(mapping, change)? {
                    self.flush(pipeline, mapping).await;
                }
            }
            self.flush_rest(pipeline, mapping).await;
        }
        Ok(())
    }

    fn writer(&mut self, mapping: usize) -> &mut Writer {
        let writer = self.writers[mapping].as_mut();
        #[allow(clippy::expect_used)]
        writer.expect("every mapping with changes was prepared before its first row")
    }

    /// Adds a key to be deleted; whether the statement is full.
    fn push_key(&mut self, mapping: usize, change: &Change) -> Result<bool, StoreError> {
        let plan = &self.identity.plan.mappings[mapping];
        let mut key = std::mem::take(&mut self.row.cells);
        key.resize(1.max(key.len()), Cell::Null);
        // A key that has no place in this table can never have had a row there.
        let projected = plan.project_key(&change.key, &mut key[0]).is_ok();
        let writer = self.writer(mapping);
        if projected {
            let wire = [Wire::of(writer.wires[plan.key].kind)];
            // Nor has a text that PostgreSQL cannot hold.
            writer.keys.push(&key[..1], &wire).ok();
        }
        let full = writer.keys.rows() >= STATEMENT_ROWS_MAX;
        self.row.cells = key;
        Ok(full)
    }

    /// Adds a row to be written; whether the statement is full.
    fn push_row(&mut self, mapping: usize, change: &Change) -> Result<bool, StoreError> {
        let Some(value) = &change.value else {
            return Ok(false);
        };
        let plan = &self.identity.plan.mappings[mapping];
        plan.project(&change.key, change.offset, value, self.row)
            .map_err(|fault| StoreError::refused_change(plan, change, fault))?;
        let Some(writer) = self.writers[mapping].as_mut() else {
            return Ok(false);
        };
        writer
            .rows
            .push(&self.row.cells, &writer.wires)
            .map_err(|(column, what)| refused(plan, change, column, &what))?;
        Ok(writer.rows.rows() >= STATEMENT_ROWS_MAX || writer.rows.bytes() >= STATEMENT_BYTES_MAX)
    }

    /// Sends what has been gathered, and lets the connection write it out.
    async fn flush(&mut self, pipeline: &mut Pipeline<'a>, mapping: usize) {
        self.send_gathered(pipeline, mapping);
        tokio::task::yield_now().await;
    }

    async fn flush_rest(&mut self, pipeline: &mut Pipeline<'a>, mapping: usize) {
        let writer = self.writer(mapping);
        if writer.keys.rows() + writer.rows.rows() > 0 {
            self.flush(pipeline, mapping).await;
        }
    }

    fn send_gathered(&mut self, pipeline: &mut Pipeline<'a>, mapping: usize) {
        let client = self.client;
        let writer = self.writer(mapping);
        let gathered = [
            (&mut writer.keys, &writer.delete),
            (&mut writer.rows, &writer.upsert),
        ];
        for (arrays, statement) in gathered {
            if arrays.rows() > 0 {
                writer.is_locked = true;
                let (parameters, statement) = (arrays.take(), Arc::clone(statement));
                pipeline.send(async move {
                    // Each has its type in the statement.
                    let parameters: Vec<(&(dyn ToSql + Sync), Type)> = parameters
                        .iter()
                        .map(|parameter| (parameter as _, Type::UNKNOWN))
                        .collect();
                    client.execute_typed(&statement, &parameters).await
                });
            }
        }
    }

    /// One change after the other, each a statement of its own. Committed where none is refused.
    fn one_by_one(
        &mut self,
        connection: &Connection,
        batch: &Batch,
        steps: &[Step<'_>],
    ) -> Result<Vec<Refusal>, Fault> {
        let limit = limit_of(steps);
        connection.try_wait("applying changes one by one to", limit, async {
            let found = self.probe(batch, steps).await;
            match found {
                Ok(refused) if refused.is_empty() => {
                    let unchanged = self.check_definitions().await;
                    self.end(unchanged).await?;
                    Ok(refused)
                }
                found => {
                    self.client.batch_execute("ROLLBACK").await.ok();
                    found
                }
            }
        })
    }

    async fn probe(&mut self, batch: &Batch, steps: &[Step<'_>]) -> Result<Vec<Refusal>, Fault> {
        self.prepare(batch).await?;
        let mut pipeline = Pipeline::default();
        self.advance_position(&mut pipeline, batch.from, batch.place())?;
        let begun = pipeline.answers().await.map_err(|(_, error)| error)?;
        if begun[ADVANCE] == 0 {
            return Err(self.position_mismatch(batch.from).await);
        }
        Probe::new(self, batch, steps).await?.run().await
    }

    /// What was refused as the contract has it.
    fn refusals(
        &self,
        connection: &Connection,
        steps: &[Step<'_>],
        refused: Vec<Refusal>,
        hint: &str,
    ) -> StoreError {
        let mut all = Refusals::default();
        for (step, fault) in refused {
            let (mapping, change) = steps[step];
            let error = match fault {
                Fault::Sql(error) => {
                    let plan = &self.identity.plan.mappings[mapping];
                    StoreError::refused_change(plan, change, says(&error) + hint)
                }
                Fault::Store(error) => error,
                redefined @ Fault::Redefined(_) => {
                    redefined.into_store_error(APPLYING, &connection.place)
                }
            };
            if let Err(error) = all.note(mapping, change, error) {
                return error;
            }
        }
        let nothing = || error::unavailable(format!("{APPLYING} {}", connection.place), "no rows");
        all.into_result().err().unwrap_or_else(nothing)
    }

    /// A constraint that is checked at the commit, for which no change is found: the last one is named
    /// for all.
    fn refused_at_the_end(
        &self,
        connection: &Connection,
        steps: &[Step<'_>],
        fault: Fault,
    ) -> StoreError {
        let last = steps.iter().max_by_key(|(_, change)| change.offset);
        match (last, &fault) {
            (Some((mapping, change)), Fault::Sql(error)) => {
                let plan = &self.identity.plan.mappings[*mapping];
                let message = format!("this record or one shortly before it: {}", says(error));
                StoreError::refused_change(plan, change, message).in_some_table()
            }
            _ => fault.into_store_error(APPLYING, &connection.place),
        }
    }

    /// Makes the statements of the mappings that change.
    async fn prepare(&mut self, batch: &Batch) -> Result<(), Fault> {
        for (mapping, _) in changed(batch) {
            self.prepare_mapping(mapping).await?;
        }
        for (mapping, _) in &batch.in_order {
            self.prepare_mapping(*mapping).await?;
        }
        Ok(())
    }

    /// Forgets what an attempt that failed had gathered; whether the mapping's statements are there.
    fn clear(&mut self, mapping: usize) -> bool {
        let writer = self.writers[mapping].as_mut();
        writer.is_some_and(|writer| {
            writer.keys.clear();
            writer.rows.clear();
            writer.is_locked = false;
            true
        })
    }

    async fn prepare_mapping(&mut self, mapping: usize) -> Result<(), Fault> {
        if self.clear(mapping) {
            return Ok(());
        }
        let plan = &self.identity.plan.mappings[mapping];
        // Read first: what changes behind it is noticed at the end of the transaction.
        let versions = shape::versions(self.client, &self.identity.schema, &plan.into).await?;
        let target = existing::check_shape(self.client, self.identity, plan).await?;
        existing::warn_of_triggers(self.client, self.identity, plan).await?;
        let upsert = statements::upsert(&self.identity.schema, plan, &target);
        let delete = statements::delete(&self.identity.schema, plan);
        self.writers[mapping] = Some(Writer {
            upsert: upsert.into(),
            delete: delete.into(),
            wires: target.wires(plan),
            rows: Arrays::new(plan.columns.iter().map(|column| column.kind)),
            keys: Arrays::new(std::iter::once(plan.columns[plan.key].kind)),
            versions: versions.unwrap_or_default(),
            is_locked: false,
            has_more: target.has_more,
        });
        Ok(())
    }

    /// What would follow a row that a batch deletes for a moment, in any of its tables.
    fn followers_of(
        &self,
        connection: &Connection,
        batch: &Batch,
    ) -> Result<Option<String>, StoreError> {
        connection.wait(APPLYING, STATEMENT_TIMEOUT, async {
            for mapping in batch.written() {
                let plan = &self.identity.plan.mappings[mapping];
                if let Some(followers) = self.followers(plan).await? {
                    return Ok(Some(followers));
                }
            }
            Ok(None)
        })
    }

    /// Whether a row that is deleted and inserted again loses columns of the user's own.
    fn loses_columns(&self, batch: &Batch) -> bool {
        let mut writers = batch
            .written()
            .map(|mapping| self.writers[mapping].as_ref());
        writers.any(|writer| writer.is_some_and(|writer| writer.has_more))
    }

    /// What would follow a row of this mapping that is deleted: a foreign key of another table whose
    /// rows would be deleted or emptied with it, or a trigger.
    pub(crate) async fn followers(&self, plan: &MappingPlan) -> Result<Option<String>, Fault> {
        // With the partitions, which can be referred to by themselves. 8: it runs for deleted rows.
        let sql = "WITH RECURSIVE parts (oid) AS (
              SELECT to_regclass($1)::oid
              UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN parts p ON i.inhparent = p.oid)
            SELECT format('the foreign key %s of %s would follow', k.conname, k.conrelid::regclass)
            FROM pg_catalog.pg_constraint k JOIN parts p ON k.confrelid = p.oid
            WHERE k.contype = 'f' AND k.confdeltype IN ('c', 'n', 'd')
            UNION ALL SELECT format('the trigger %s of %s would run', t.tgname, t.tgrelid::regclass)
            FROM pg_catalog.pg_trigger t JOIN parts p ON t.tgrelid = p.oid
            WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgtype & 8 <> 0 LIMIT 1";
        let into = table(&self.identity.schema, &plan.into);
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&into, Type::TEXT)];
        let found = self.client.query_typed_opt(sql, &parameters).await?;
        Ok(found.map(|row| row.get(0)))
    }
}

/// The mappings with changes.
fn changed(batch: &Batch) -> impl DoubleEndedIterator<Item = (usize, &[Change])> {
    let changes = batch.changes.iter().enumerate();
    changes
        .filter(|(_, changes)| !changes.is_empty())
        .map(|(mapping, changes)| (mapping, changes.as_slice()))
}

/// The collapsed changes one by one: deletes, the last mapping's first; then upserts.
fn steps(batch: &Batch) -> Vec<Step<'_>> {
    let deletes = changed(batch).rev().flat_map(|(mapping, changes)| {
        let deleted = changes.iter().filter(|change| change.value.is_none());
        deleted.map(move |change| (mapping, change))
    });
    deletes.chain(upserts(batch)).collect()
}

fn upserts(batch: &Batch) -> impl Iterator<Item = Step<'_>> {
    changed(batch).flat_map(|(mapping, changes)| {
        let written = changes.iter().filter(|change| change.value.is_some());
        written.map(move |change| (mapping, change))
    })
}

/// Each window is bounded; so many of them may take longer than one statement.
fn limit_of(steps: &[Step<'_>]) -> Duration {
    STATEMENT_TIMEOUT * (steps.len() / WINDOW + 1) as u32
}

pub(crate) fn says(error: &tokio_postgres::Error) -> String {
    format!("PostgreSQL says: {}", error::message(error))
}

fn refused(plan: &MappingPlan, change: &Change, column: usize, what: &str) -> StoreError {
    let name = &plan.columns[column].name;
    StoreError::refused_change(plan, change, format!("column '{name}': {what}"))
}
