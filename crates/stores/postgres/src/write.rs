//! A batch in one transaction: all at once; or, where that meets a constraint, change by change.
//!
//! ```text
//!  all at once ─ committed
//!      │ a unique or foreign key objects           │ a row is refused
//!      ▼                                           ▼
//!  in the order of the log ─ committed      one by one, which names the row
//!      │ a unique key objects still
//!      ▼
//!  every changed row deleted, then inserted ─ committed, or refused as in the order of the log
//! ```
//! Each attempt is a transaction of its own and moves the position itself, under the same guard.
//!
//! Batches of any size go by `unnest`, in pieces. COPY into a temporary table and a merge costs the
//! server the same time for 40,000 rows (measured), and would have to be waited for.

pub(crate) mod statements;

use onelog_mapping::{Cell, MappingPlan};
use onelog_store::{Batch, Change, StoreError, failpoint};
use tokio_postgres::Statement;
use tokio_postgres::types::Type;

use crate::bookkeeping::ADVANCE;
use crate::connection::{Connection, Pipeline, STATEMENT_TIMEOUT};
use crate::ddl::existing;
use crate::encode::{Arrays, Wire};
use crate::error::{self, Fault};
use crate::store::Scope;

/// How many rows, and about how many bytes of them, go into one statement. The server works on one
/// statement while the next is made ready.
const STATEMENT_ROWS_MAX: i32 = 5_000;
const STATEMENT_BYTES_MAX: usize = 4 << 20;
/// How many single changes are sent before their answers are awaited.
const WINDOW: usize = 256;

/// The statements of one mapping and the buffers of their parameters.
#[derive(Debug)]
pub(crate) struct Writer {
    upsert: Statement,
    delete: Statement,
    wires: Vec<Wire>,
    rows: Arrays,
    keys: Arrays,
}

/// What failed, and at which step of a list of single changes.
struct Failure {
    fault: Fault,
    step: Option<usize>,
}

impl<F: Into<Fault>> From<F> for Failure {
    fn from(fault: F) -> Self {
        Self {
            fault: fault.into(),
            step: None,
        }
    }
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
        let what = "applying a batch to";
        let failed = |fault: Fault| fault.into_store_error(what, &connection.place);
        let first = match connection.try_wait(what, STATEMENT_TIMEOUT, self.at_once(batch)) {
            Ok(()) => return Ok(()),
            Err(fault) if fault.is_between_rows() => {
                let steps: Vec<Step<'_>> = batch
                    .in_order
                    .iter()
                    .map(|(mapping, change)| (*mapping, change))
                    .collect();
                return self.in_order(connection, batch, &steps);
            }
            Err(fault) if fault.is_rejected_row() => fault,
            Err(fault) => return Err(failed(fault)),
        };
        tracing::debug!(sink = self.identity.sink, error = ?first, "looking for the row that was refused");
        let steps = steps(batch);
        self.single(connection, batch, &steps)
            .map_err(|failure| self.refusal(connection, &steps, failure))
    }

    /// In the order of the log every transaction's end was a state that the writers saw.
    fn in_order(
        &mut self,
        connection: &Connection,
        batch: &Batch,
        steps: &[Step<'_>],
    ) -> Result<(), StoreError> {
        let failure = match self.single(connection, batch, steps) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if !failure.fault.is_between_rows() {
            return Err(self.refusal(connection, steps, failure));
        }
        // Two rows that exchange a unique value are in each other's way in any order.
        let what = "applying a batch to";
        match connection.try_wait(what, STATEMENT_TIMEOUT, self.anew(batch)) {
            Ok(()) => Ok(()),
            Err(fault) if fault.is_rejected_row() => Err(self.refusal(connection, steps, failure)),
            Err(fault) => Err(fault.into_store_error(what, &connection.place)),
        }
    }

    /// Everything collapsed: deletes, the last mapping's first; then upserts in the plan's order.
    async fn at_once(&mut self, batch: &Batch) -> Result<(), Fault> {
        self.prepare(batch).await?;
        let outcome = self.send_all(batch, Deletes::Deleted).await;
        self.end(outcome).await
    }

    /// As [`Self::at_once`], but rows that are there are deleted and inserted. Not where others would
    /// follow a deleted row.
    async fn anew(&mut self, batch: &Batch) -> Result<(), Fault> {
        for (mapping, _) in changed(batch) {
            self.check_no_followers(mapping).await?;
        }
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
        self.advance_position(&mut pipeline, batch.from, batch.place())
            .await?;
        let refused = self.send_rows(&mut pipeline, batch, deletes).await.err();
        match pipeline.answers().await {
            // A batch that is not ours to apply has no refused rows.
            Ok(rows) if rows[ADVANCE] == 0 => Err(self.position_mismatch(batch.from).await),
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
                let (parameters, statement) = (arrays.take(), statement.clone());
                pipeline.send(async move { client.execute_raw(&statement, parameters).await });
            }
        }
    }

    /// One change after the other, each a statement of its own.
    fn single(
        &mut self,
        connection: &Connection,
        batch: &Batch,
        steps: &[Step<'_>],
    ) -> Result<(), Failure> {
        // Each window is bounded; so many of them may take longer than one statement.
        let limit = STATEMENT_TIMEOUT * (steps.len() / WINDOW + 1) as u32;
        let mut failed_step = None;
        let outcome = connection.try_wait("applying changes one by one to", limit, async {
            let outcome = self.send_single(batch, steps).await;
            let outcome = outcome.map_err(|failure| {
                failed_step = failure.step;
                failure.fault
            });
            self.end(outcome).await
        });
        outcome.map_err(|fault| Failure {
            fault,
            step: failed_step,
        })
    }

    async fn send_single(&mut self, batch: &Batch, steps: &[Step<'_>]) -> Result<(), Failure> {
        self.prepare(batch).await?;
        let mut pipeline = Pipeline::default();
        self.advance_position(&mut pipeline, batch.from, batch.place())
            .await?;
        let begun = pipeline.answers().await.map_err(|(_, error)| error)?;
        if begun[ADVANCE] == 0 {
            return Err(self.position_mismatch(batch.from).await.into());
        }
        for (n, window) in steps.chunks(WINDOW).enumerate() {
            let mut pipeline = Pipeline::default();
            // Which step each statement belongs to; a delete can need none.
            let mut sent = Vec::with_capacity(window.len());
            let mut refused = None;
            for (m, (mapping, change)) in window.iter().enumerate() {
                let step = n * WINDOW + m;
                let pushed = match change.value {
                    None => self.push_key(*mapping, change),
                    Some(_) => self.push_row(*mapping, change),
                };
                if let Err(error) = pushed {
                    refused = Some((step, error));
                    break;
                }
                self.send_gathered(&mut pipeline, *mapping);
                sent.resize(pipeline.len(), step);
            }
            if let Err((statement, error)) = pipeline.answers().await {
                return Err(Failure {
                    fault: error.into(),
                    step: sent.get(statement).copied(),
                });
            }
            if let Some((step, error)) = refused {
                return Err(Failure {
                    fault: error.into(),
                    step: Some(step),
                });
            }
        }
        Ok(())
    }

    /// The failure of single changes as the contract has it.
    fn refusal(&self, connection: &Connection, steps: &[Step<'_>], failure: Failure) -> StoreError {
        let Fault::Sql(error) = &failure.fault else {
            return failure
                .fault
                .into_store_error("applying a batch to", &connection.place);
        };
        if !failure.fault.is_rejected_row() {
            return failure
                .fault
                .into_store_error("applying a batch to", &connection.place);
        }
        let message = format!("PostgreSQL says: {}", error::message(error));
        // A constraint that is checked at the commit names no change: the last one is named for all.
        let mappings = &self.identity.plan.mappings;
        match failure.step.and_then(|step| steps.get(step)) {
            Some((mapping, change)) => {
                StoreError::refused_change(&mappings[*mapping], change, message)
            }
            None => match steps.iter().max_by_key(|(_, change)| change.offset) {
                Some((mapping, change)) => {
                    let message = format!("this record or one shortly before it: {message}");
                    StoreError::refused_change(&mappings[*mapping], change, message).in_some_table()
                }
                None => failure
                    .fault
                    .into_store_error("applying a batch to", &connection.place),
            },
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

    async fn prepare_mapping(&mut self, mapping: usize) -> Result<(), Fault> {
        if let Some(writer) = &mut self.writers[mapping] {
            // What an attempt that failed had gathered.
            writer.keys.clear();
            writer.rows.clear();
            return Ok(());
        }
        let plan = &self.identity.plan.mappings[mapping];
        let target = existing::check_shape(self.client, self.identity, plan).await?;
        let upsert = statements::upsert(&self.identity.schema, plan, &target);
        let delete = statements::delete(&self.identity.schema, plan);
        let upsert = self.client.prepare(&upsert).await?;
        let delete = self.client.prepare(&delete).await?;
        self.writers[mapping] = Some(Writer {
            upsert,
            delete,
            wires: target.wires(plan),
            rows: Arrays::new(plan.columns.iter().map(|column| column.kind)),
            keys: Arrays::new(std::iter::once(plan.columns[plan.key].kind)),
        });
        Ok(())
    }

    /// Rows of other tables that would be deleted or emptied together with a row of this mapping.
    async fn check_no_followers(&self, mapping: usize) -> Result<(), Fault> {
        let plan = &self.identity.plan.mappings[mapping];
        let sql = "SELECT format('%s of %s', k.conname, k.conrelid::regclass)
            FROM pg_catalog.pg_constraint k
            JOIN pg_catalog.pg_class c ON c.oid = k.confrelid
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relname = $2 AND k.contype = 'f'
              AND k.confdeltype IN ('c', 'n', 'd') LIMIT 1";
        let found = self
            .client
            .query_typed_opt(
                sql,
                &[
                    (&self.identity.schema, Type::TEXT),
                    (&plan.into, Type::TEXT),
                ],
            )
            .await?;
        match found {
            None => Ok(()),
            Some(row) => Err(Fault::Store(StoreError::SchemaMismatch {
                into: plan.into.clone(),
                what: format!(
                    "two rows exchange a unique value, which needs a row to be deleted for a moment, and the foreign key {} would follow; make that unique constraint or index one that is not needed, or the foreign key NO ACTION",
                    row.get::<_, String>(0)
                ),
            })),
        }
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
    let upserts = changed(batch).flat_map(|(mapping, changes)| {
        let written = changes.iter().filter(|change| change.value.is_some());
        written.map(move |change| (mapping, change))
    });
    deletes.chain(upserts).collect()
}

fn refused(plan: &MappingPlan, change: &Change, column: usize, what: &str) -> StoreError {
    let name = &plan.columns[column].name;
    StoreError::refused_change(plan, change, format!("column '{name}': {what}"))
}
