//! Comparing a sink's store with the log, and writing again what differs.
//!
//! Rows are repaired by the sink's own thread between two batches, from the log's state where the
//! store is at that moment: a repair never puts an older image over a newer one.

use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use onelog::{Operation, Predicate};

use crate::backfill::LogSnapshot;
use crate::deletions::{deletions_among, is_too_much};
use crate::error::SinkError;
use crate::progress::{VerificationSummary, now_ms};
use crate::request::{Command, Keys, Reply, Request, SnapshotPair};
use crate::sinks::{Inner, Sinks};
use onelog_store::{Compared, Task, Verification};

/// How long a comparison waits for both sides to be opened.
const SNAPSHOTS_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one step of a repair may take.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(300);
/// How many differing rows one comparison hands over for repair.
const REPAIR_KEYS_MAX: usize = 200_000;
/// How many rows the sink's thread writes again at once, between two batches.
const REPAIR_ROWS: usize = 1000;
/// How often is compared and repaired, at most.
const PASSES_MAX: usize = 64;

impl Sinks {
    /// Compares a sink's store with the log at the sink's position. Blocks this thread for as long
    /// as reading both sides takes; the sink and the writers go on.
    pub fn verify(&self, name: &str) -> Result<Verification, SinkError> {
        self.inner.verify(name, false)
    }

    /// Compares, writes every differing row again as the log has it, deletes rows that the log does
    /// not have, and compares once more. The answer is the last comparison's.
    ///
    /// Fails before it deletes more rows than the definition allows; see
    /// [`DELETES_MAX`](crate::DELETES_MAX).
    pub fn verify_and_repair(&self, name: &str) -> Result<Verification, SinkError> {
        self.repair_with(name, false)
    }

    /// [`Sinks::verify_and_repair`], however many rows that deletes.
    pub fn verify_and_repair_deleting(&self, name: &str) -> Result<Verification, SinkError> {
        self.repair_with(name, true)
    }

    fn repair_with(&self, name: &str, may_delete: bool) -> Result<Verification, SinkError> {
        let begun = Instant::now();
        let inner = &self.inner;
        let mut compared = inner.compare(name, REPAIR_KEYS_MAX)?;
        let mut repaired = vec![0; compared.verification.tables.len()];
        let mut deleted = vec![0; compared.verification.tables.len()];
        if !compared.keys.is_empty() {
            // A sink that cannot repair now says so before it asks for what it may delete.
            let nothing = Keys::new();
            inner.request(name, REPAIR_TIMEOUT, |reply| {
                Request::Repair(nothing, reply)
            })?;
        }
        for _ in 0..PASSES_MAX {
            if compared.keys.is_empty() {
                break;
            }
            if !may_delete {
                inner.check_repair(name, &compared, &mut deleted)?;
            }
            let before: u64 = differences(&compared.verification);
            for part in compared.keys.chunks(REPAIR_ROWS) {
                repair(inner, name, part, &mut repaired)?;
            }
            compared = inner.compare(name, REPAIR_KEYS_MAX)?;
            if differences(&compared.verification) >= before {
                break;
            }
        }
        let mut verification = compared.verification;
        verification.took_ms = begun.elapsed().as_millis() as u64;
        verification.repaired = Some(repaired.iter().sum());
        for (table, repaired) in verification.tables.iter_mut().zip(repaired) {
            table.repaired = Some(repaired);
            if !table.equal && table.advice.is_none() {
                table.advice = Some(if table.differences_total == 0 {
                    "the full-text index does not say what its rows say; rebuild the sink".into()
                } else {
                    "rows still differ after they were written again: something else writes to this table, or changes what is written; find it, or rebuild the sink".into()
                });
            }
        }
        inner.note(name, &verification, false);
        Ok(verification)
    }
}

fn differences(verification: &Verification) -> u64 {
    let tables = verification.tables.iter();
    tables.map(|table| table.differences_total).sum()
}

fn repair(
    inner: &Inner,
    name: &str,
    part: &[(usize, bytes::Bytes)],
    repaired: &mut [u64],
) -> Result<(), SinkError> {
    // Each mapping on its own, so that the figures are known for each.
    for (mapping, repaired) in repaired.iter_mut().enumerate() {
        let keys: Keys = part
            .iter()
            .filter(|(of, _)| *of == mapping)
            .cloned()
            .collect();
        if !keys.is_empty() {
            *repaired +=
                inner.request(name, REPAIR_TIMEOUT, |reply| Request::Repair(keys, reply))?;
        }
    }
    Ok(())
}

impl Inner {
    /// Fails where a repair would delete more of a table than the definition allows; `deleted`: what it
    /// has deleted already.
    fn check_repair(
        &self,
        name: &str,
        compared: &Compared,
        deleted: &mut [u64],
    ) -> Result<(), SinkError> {
        let definition = self.find(name)?.definition;
        let now = deletions_among(&self.node, &definition, &compared.keys)?;
        let tables = compared.verification.tables.iter();
        for ((table, deleted), now) in tables.zip(deleted).zip(now) {
            // Only so many keys are listed at once; what the store has beyond the log goes as well.
            let more = now.max(table.store_rows.saturating_sub(table.rows));
            let rows = table.store_rows + *deleted;
            if now > 0 && is_too_much(*deleted + more, rows, definition.max_deletes) {
                return Err(SinkError::TooManyDeletes {
                    name: name.to_owned(),
                    into: table.into.clone(),
                    deletes: *deleted + more,
                    rows,
                });
            }
            *deleted += now;
        }
        Ok(())
    }

    /// Compares, and notes what was found.
    pub(crate) fn verify(&self, name: &str, scheduled: bool) -> Result<Verification, SinkError> {
        let verification = self.compare(name, 0)?.verification;
        self.note(name, &verification, scheduled);
        Ok(verification)
    }

    fn compare(&self, name: &str, keys_max: usize) -> Result<Compared, SinkError> {
        let mut snapshots: SnapshotPair =
            self.request(name, SNAPSHOTS_TIMEOUT, Request::Snapshots)?;
        let task = Task {
            plan: &snapshots.plan,
            log: &LogSnapshot(&snapshots.log),
            parked: &snapshots.parked,
            stop: &self.stopping,
            keys_max,
        };
        Ok(task.run(snapshots.store.as_mut())?)
    }

    fn note(&self, name: &str, verification: &Verification, scheduled: bool) {
        for table in verification.tables.iter().filter(|table| !table.equal) {
            tracing::warn!(
                sink = name, table = table.table, into = table.into,
                position = %verification.position, differences = table.differences_total,
                rows = table.rows, store_rows = table.store_rows,
                "a store differs from the log"
            );
        }
        if let Some(rows) = verification.repaired {
            let position = verification.position;
            tracing::info!(sink = name, rows, %position, "a store was repaired from the log");
        }
        let _changing = self.changing.lock();
        let Ok(found) = self.find(name) else {
            return;
        };
        found.progress.set_verified(VerificationSummary {
            position: verification.position,
            at_ms: now_ms(),
            took_ms: verification.took_ms,
            equal: verification.equal,
            differences_total: differences(verification),
            repaired: verification.repaired.unwrap_or(0),
            scheduled,
        });
        let put = Operation::Put(found.stored().record());
        if let Err(error) = self.commit(name, Predicate::Exists, put) {
            tracing::warn!(sink = name, %error, "what a comparison found is not kept for the next start");
        }
    }

    /// Sends a request to the sink's thread and waits for the answer.
    pub(crate) fn request<T>(
        &self,
        name: &str,
        timeout: Duration,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, SinkError> {
        let (reply, answer) = sync_channel(1);
        self.send(name, Command::Request(request(reply)))?;
        answer
            .recv_timeout(timeout)
            .map_err(|_| SinkError::Unanswered {
                name: name.to_owned(),
            })?
    }
}
