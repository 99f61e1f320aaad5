//! A batch in one transaction: all at once; or, where that meets a constraint, change by change.
//!
//! ```text
//!  all at once ─ committed
//!      │ a unique or foreign key objects           │ a row is refused
//!      ▼                                           ▼
//!  in the order of the log ─ committed      one by one ─ committed, or every refused row is named
//!      │ a unique key objects still
//!      ▼
//!  the refused rows let go of unique values first, see `exchange` ─ committed
//!      │ a unique key objects still
//!      ▼
//!  the same one by one ─ committed, or every refused row is named
//! ```
//! Each attempt is a transaction of its own and moves the position itself, under the same guard. Its
//! last step is a look at the definitions of the tables, see `definitions`. How the refused ones are
//! found is in `probe`.
//!
//! Batches of any size go by `unnest`, in pieces. COPY into a temporary table and a merge costs the
//! server the same time for 40,000 rows (measured), and would have to be waited for.

mod definitions;
mod exchange;
mod probe;
pub(crate) mod statements;

use std::sync::Arc;
use std::time::Duration;

use onelog_mapping::{Cell, MappingPlan};
use onelog_store::{Batch, Change, Refusals, StoreError, failpoint};
use tokio_postgres::types::{ToSql, Type};

use self::exchange::Freed;
use self::probe::{Probe, Refusal};
use crate::bookkeeping::ADVANCE;
use crate::connection::{Connection, Pipeline, STATEMENT_TIMEOUT};
use crate::ddl::{existing, shape};
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
    /// What makes rows let go of their unique values, where that was asked for and is possible.
    free: Option<Arc<str>>,
    /// Whether the keys that are gathered are of such rows, and not of deleted ones.
    is_freeing: bool,
}

type Step<'b> = (usize, &'b Change);

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
        let refused = match self.one_by_one(connection, batch, &steps, 0) {
            Ok(refused) if refused.is_empty() => return Ok(()),
            Ok(refused) => refused,
            Err(fault) if fault.is_rejected_row() => {
                return Err(self.refused_at_the_end(connection, &steps, fault));
            }
            Err(fault) => return Err(fault.into_store_error(APPLYING, &connection.place)),
        };
        self.exchange(connection, batch, &steps, refused)
    }

    /// Everything collapsed: deletes, the last mapping's first; then upserts in the plan's order.
    async fn at_once(&mut self, batch: &Batch) -> Result<(), Fault> {
        self.prepare(batch).await?;
        let outcome = self.send_all(batch, &Freed::new()).await;
        match self.end(outcome).await {
            Err(fault) if fault.is_rejected_row() => Err(self.blame_definitions(fault).await),
            other => other,
        }
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

    async fn send_all(&mut self, batch: &Batch, freed: &Freed<'_>) -> Result<(), Fault> {
        let mut pipeline = Pipeline::default();
        self.advance_position(&mut pipeline, batch.from, batch.place())?;
        let refused = self.send_rows(&mut pipeline, batch, freed).await.err();
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
        freed: &Freed<'_>,
    ) -> Result<(), StoreError> {
        for (mapping, changes) in changed(batch).rev() {
            for is_freeing in [false, true] {
                self.writer(mapping).is_freeing = is_freeing;
                let keys = changes.iter().filter(|change| match is_freeing {
                    false => change.value.is_none(),
                    true => change.value.is_some() && freed.contains(&(mapping, &change.key[..])),
                });
                for change in keys {
                    if self.push_key(mapping, change)? {
                        self.flush(pipeline, mapping).await;
                    }
                }
                self.flush_rest(pipeline, mapping).await;
            }
            self.writer(mapping).is_freeing = false;
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
        let by_key = match &writer.free {
            Some(free) if writer.is_freeing => free,
            _ => &writer.delete,
        };
        let gathered = [
            (&mut writer.keys, by_key),
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

    /// One change after the other, each a statement of its own; in the first `frees` rows let go of
    /// their unique values. Committed where none is refused.
    fn one_by_one(
        &mut self,
        connection: &Connection,
        batch: &Batch,
        steps: &[Step<'_>],
        frees: usize,
    ) -> Result<Vec<Refusal>, Fault> {
        let limit = limit_of(steps);
        connection.try_wait("applying changes one by one to", limit, async {
            let found = self.probe(batch, steps, frees).await;
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

    async fn probe(
        &mut self,
        batch: &Batch,
        steps: &[Step<'_>],
        frees: usize,
    ) -> Result<Vec<Refusal>, Fault> {
        self.prepare(batch).await?;
        let mut pipeline = Pipeline::default();
        self.advance_position(&mut pipeline, batch.from, batch.place())?;
        let begun = pipeline.answers().await.map_err(|(_, error)| error)?;
        if begun[ADVANCE] == 0 {
            return Err(self.position_mismatch(batch.from).await);
        }
        Probe::new(self, batch, steps, frees).await?.run().await
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
            writer.is_freeing = false;
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
            free: None,
            is_freeing: false,
        });
        Ok(())
    }
}

/// The row that a change is of.
fn key_of(step: Step<'_>) -> (usize, &[u8]) {
    (step.0, &step.1.key)
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
