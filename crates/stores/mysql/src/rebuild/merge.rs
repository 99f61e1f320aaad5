//! Making tables that are there equal to their staged ones, in one transaction with the position.
//!
//! ```text
//!  deletes and upserts ─ merged
//!      │ a unique or foreign key objects               │ a row is refused
//!      ▼                                               ▼
//!  what differs is deleted, then written ─ merged ──▶ in pieces, see `refused` ─ merged, or every
//!                                                     refused row is named
//! ```
//! A staged row has the key and the offset of its record. One without an offset is of a refused
//! record: its key is not missing, and nothing is written of it.

use mysql_async::{Params, Value};
use onelog_mapping::MappingPlan;
use onelog_store::{Guard, LogPlace, Remedy, StoreError, failpoint};

use super::{EXISTING_TABLES, Rebuild};
use crate::connection::REBUILD_TIMEOUT;
use crate::ddl::foreign::ForeignRows;
use crate::ddl::{existing, shape};
use crate::encode::request_bytes;
use crate::error::Fault;
use crate::names::quote;
use crate::renewed::record_known;
use crate::write::{REQUEST_BYTES_EXTRA, Trouble, statements};

/// How many keys are in one list: MariaDB makes a table of a longer one.
pub(super) const KEYS_EACH: usize = 500;
pub(super) const DOING: &str = "merging the new rows in";
const SAVE: &str = "SAVEPOINT onelog_merging";
const BACK: &str = "ROLLBACK TO SAVEPOINT onelog_merging";
/// How often rows that are refused are looked for with those that differ out of the way. A row that
/// stays can be in the way of another, which then stays as well, and so on: beyond, all of these are
/// found at once.
const RENEWALS_MAX: u32 = 3;

/// A table that is made equal to a staged one.
pub(super) struct Merging<'p> {
    pub(super) number: usize,
    pub(super) mapping: &'p MappingPlan,
    /// Quoted, as all names here.
    pub(super) into: String,
    pub(super) staged: String,
    pub(super) key: String,
    pub(super) record_key: String,
    pub(super) record_offset: String,
    /// The rows to delete, as `t`, behind `FROM`; its parameters are the kept keys.
    pub(super) surplus: String,
    /// Whether a row can be deleted and inserted again without loss.
    is_renewable: bool,
}

impl Merging<'_> {
    /// What is true of the staged rows `n` that are to be written.
    pub(super) fn is_written(&self) -> String {
        format!("n.{} IS NOT NULL", self.record_offset)
    }

    /// Updates the rows that are there and inserts the others, of those that `which` is about.
    pub(super) fn upsert(&self, which: &str) -> [String; 2] {
        let which = format!("{}{which}", self.is_written());
        statements::merge(self.mapping, &self.staged, &which)
    }

    /// Deletes every row that is to be written and differs.
    fn delete_different(&self) -> String {
        let columns = self.mapping.column_names().map(quote);
        let same: Vec<String> = columns
            .map(|name| format!("t.{name} <=> n.{name}"))
            .collect();
        format!(
            "DELETE t FROM {} t JOIN {} n ON t.{key} = n.{key} WHERE {} AND NOT ({})",
            self.into,
            self.staged,
            self.is_written(),
            same.join(" AND "),
            key = self.key,
        )
    }
}

impl<'p> Rebuild<'p> {
    /// Makes the tables equal to the staged ones, in one transaction with the position.
    pub(super) fn merge(&mut self, place: LogPlace) -> Result<(), StoreError> {
        self.own_record()?;
        for mapping in &self.plan.mappings {
            existing::check_target(self.connection, &self.identity.sink, mapping)?;
        }
        if self.guards.contains(&Guard::Untouched) {
            // For this transaction only: what it reads is locked with the gaps in between.
            let sql = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
            self.connection.execute(DOING, sql)?;
        }
        self.connection.execute(DOING, "START TRANSACTION")?;
        let merged = self.merge_inside(place);
        if let Err(error) = merged {
            self.connection.roll_back();
            if let StoreError::Refused(refused) = &error {
                self.leave_out(refused)?;
            }
            return Err(error);
        }
        failpoint::hit(&self.identity.sink, "before_swap");
        self.connection
            .statement(REBUILD_TIMEOUT, "COMMIT")
            .map_err(|fault| self.fault(DOING, fault))?;
        failpoint::hit(&self.identity.sink, "after_swap");
        if let Err(error) = self.drop_new(self.identity.epoch + 1) {
            tracing::debug!(sink = self.identity.sink, %error, "staged tables are dropped later");
        }
        Ok(())
    }

    fn merge_inside(&mut self, place: LogPlace) -> Result<(), StoreError> {
        self.move_position(place)?;
        self.claim(DOING, EXISTING_TABLES)?;
        self.check_untouched()?;
        self.merge_rows(place)?;
        for (n, mapping) in self.plan.mappings.iter().enumerate() {
            let staged = self.target(n);
            shape::record_backfilled(self.connection, mapping, &staged)?;
        }
        let known = self.backfilled(|rebuild, n| rebuild.plan.mappings[n].into.clone())?;
        let table = self.names.position();
        record_known(self.connection, &table, self.identity, &known)
            .map_err(|fault| self.fault(DOING, fault))
    }

    fn move_position(&mut self, place: LogPlace) -> Result<(), StoreError> {
        let moved = self
            .connection
            .prepared(
                &format!(
                    "UPDATE {} SET position = ?, chain = ?, log_id = ?, plan = ?
                     WHERE sink = ? AND epoch = ? AND owner = ?",
                    quote(&self.names.position())
                ),
                Params::Positional(vec![
                    Value::from(place.position.get()),
                    Value::from(place.chain),
                    Value::from(&self.identity.log_id),
                    Value::from(&self.identity.plan_id),
                    Value::from(&self.identity.sink),
                    Value::from(self.identity.epoch),
                    Value::from(&self.identity.owner),
                ]),
            )
            .map_err(|fault| self.fault(DOING, fault))?;
        if moved != 1 {
            self.own_record()?;
        }
        Ok(())
    }

    fn merge_rows(&mut self, place: LogPlace) -> Result<(), StoreError> {
        let mut merged = Vec::with_capacity(self.plan.mappings.len());
        for number in 0..self.plan.mappings.len() {
            merged.push(self.merging(number)?);
        }
        self.connection.execute(DOING, SAVE)?;
        let is_renewable = merged.iter().all(|merging| merging.is_renewable);
        let mut outcome = self.merge_at_once(&merged, false);
        if is_renewable
            && matches!(&outcome, Err(Trouble::Fault(_, fault)) if fault.is_between_rows())
        {
            self.connection.execute(DOING, BACK)?;
            outcome = self.merge_at_once(&merged, true);
        }
        match outcome {
            Err(Trouble::Fault(_, fault)) if fault.is_rejected_row() => {
                self.connection.execute(DOING, BACK)?;
                let may_renew = is_renewable && self.refusals < RENEWALS_MAX;
                if may_renew && fault.is_between_rows() {
                    self.renew(&merged)?;
                }
                self.merge_in_pieces(&merged, place)
            }
            other => other.map_err(|trouble| self.unmerged(trouble)),
        }
    }

    pub(super) fn merging(&mut self, number: usize) -> Result<Merging<'p>, StoreError> {
        let plan = self.plan;
        let mapping = &plan.mappings[number];
        let target = existing::target_table(self.connection, mapping)?;
        let columns = existing::columns(self.connection, &mapping.into)?;
        let [record_key, record_offset] =
            existing::record_columns(&columns).map(|name| quote(&name));
        let key = quote(&mapping.columns[mapping.key].name);
        let (into, staged) = (quote(&mapping.into), quote(&self.target(number)));
        let kept = &self.kept[number];
        self.check_request(mapping, kept)?;
        let mut surplus =
            format!("{into} t LEFT JOIN {staged} n ON t.{key} = n.{key} WHERE n.{key} IS NULL");
        for part in kept.chunks(KEYS_EACH) {
            surplus.push_str(&format!(" AND t.{key} NOT IN ({})", marks(part.len())));
        }
        Ok(Merging {
            number,
            mapping,
            into,
            staged,
            key,
            record_key,
            record_offset,
            surplus,
            is_renewable: target.renewable,
        })
    }

    /// Runs a statement about rows of a mapping, and answers how many these were.
    pub(super) fn run(
        &mut self,
        merging: &Merging<'_>,
        sql: &str,
        values: &[Value],
    ) -> Result<u64, Trouble> {
        let done = match values {
            [] => self.connection.statement(REBUILD_TIMEOUT, sql),
            values => {
                let values = Params::Positional(values.to_vec());
                self.connection
                    .prepared_within(REBUILD_TIMEOUT, sql, values)
            }
        };
        done.map_err(|fault| Trouble::Fault(merging.number, fault))
    }

    /// Deletes come first, the last mapping's before all. `renews`: every row that differs is deleted
    /// as well, because unique columns are in the way.
    fn merge_at_once(&mut self, merged: &[Merging<'_>], renews: bool) -> Result<(), Trouble> {
        for merging in merged.iter().rev() {
            self.delete_surplus(merging)?;
        }
        if renews {
            self.delete_different(merged)?;
        }
        for merging in merged {
            for sql in merging.upsert("") {
                self.run(merging, &sql, &[])?;
            }
        }
        Ok(())
    }

    /// Deletes the rows that differ, so that those which are refused are so by themselves. Where that
    /// is refused, nothing is done.
    fn renew(&mut self, merged: &[Merging<'_>]) -> Result<(), StoreError> {
        match self.delete_different(merged) {
            Err(Trouble::Fault(_, fault)) if fault.is_rejected_row() => {
                self.connection.execute(DOING, BACK)?;
                Ok(())
            }
            other => other.map_err(|trouble| self.unmerged(trouble)),
        }
    }

    /// Deletes rows that come back, without what would follow them.
    fn delete_different(&mut self, merged: &[Merging<'_>]) -> Result<(), Trouble> {
        self.connection.without_followers(DOING, |connection| {
            let mut all = merged.iter().rev();
            all.try_for_each(|merging| {
                let deleted = connection.statement(REBUILD_TIMEOUT, &merging.delete_different());
                deleted
                    .map(drop)
                    .map_err(|fault| Trouble::Fault(merging.number, fault))
            })
        })
    }

    /// Deletes what the new rows have not, but for what is kept.
    fn delete_surplus(&mut self, merging: &Merging<'_>) -> Result<(), Trouble> {
        let sql = format!("DELETE t FROM {}", merging.surplus);
        let kept = self.kept[merging.number].clone();
        let deletes = self.run(merging, &sql, &kept)?;
        Ok(self.check_deletes(merging, deletes)?)
    }

    /// Fails where so many rows may not be deleted.
    pub(super) fn check_deletes(
        &mut self,
        merging: &Merging<'_>,
        deletes: u64,
    ) -> Result<(), StoreError> {
        let guard = self.guards.get(merging.number);
        let Some(most) = guard.and_then(|guard| guard.deletes_max()) else {
            return Ok(());
        };
        if deletes <= most {
            return Ok(());
        }
        let left = ForeignRows::read(self.connection, merging.mapping, "")?.rows;
        Err(StoreError::Guarded {
            into: merging.mapping.into.clone(),
            rows: left + deletes,
            deletes,
            changes: 0,
        })
    }

    /// An objection for which no record of the log can be named: the server's message has to do.
    pub(super) fn unmerged(&self, trouble: Trouble) -> StoreError {
        match trouble {
            Trouble::Store(error) => error,
            Trouble::Redefined(mapping) => {
                shape::redefined(self.connection, &self.plan.mappings[mapping].into)
            }
            Trouble::Fault(mapping, fault) if fault.is_rejected_row() => {
                self.objection(mapping, &fault, "", Remedy::Change)
            }
            Trouble::Fault(_, fault) => self.fault(DOING, fault),
        }
    }

    pub(super) fn objection(
        &self,
        mapping: usize,
        fault: &Fault,
        advice: &str,
        remedy: Remedy,
    ) -> StoreError {
        let what = format!(
            "it does not take the rows of the log: {}{advice}",
            fault.message(self.connection.flavour()),
        );
        StoreError::mismatch(&self.plan.mappings[mapping], what, remedy)
    }

    /// Fails where the keys that are kept do not go into one request.
    fn check_request(&self, mapping: &MappingPlan, kept: &[Value]) -> Result<(), StoreError> {
        let (bytes, limit) = (request_bytes(kept), self.connection.packet_bytes());
        if bytes + REQUEST_BYTES_EXTRA <= limit {
            return Ok(());
        }
        let what = format!(
            "the keys of the records that it refuses take {bytes} bytes, the server takes requests of {limit}; raise max_allowed_packet there, then resume the sink"
        );
        Err(StoreError::mismatch(mapping, what, Remedy::Said))
    }

    /// Locks the rows of others until the end, and fails where they are no longer those that were
    /// counted.
    fn check_untouched(&mut self) -> Result<(), StoreError> {
        let guarded = self.plan.mappings.iter().zip(self.guards);
        for (mapping, _) in guarded.filter(|(_, guard)| **guard == Guard::Untouched) {
            let counted = self.foreign.iter().find(|known| known.into == mapping.into);
            let found = ForeignRows::read(self.connection, mapping, "FOR UPDATE")?;
            if counted.is_some_and(|counted| *counted != found) {
                let why = format!(
                    "rows of the table '{}' were written meanwhile; nothing was changed, and they are counted again",
                    mapping.into
                );
                return Err(self.connection.unavailable(DOING, &why));
            }
        }
        Ok(())
    }
}

pub(super) fn marks(count: usize) -> String {
    vec!["?"; count].join(", ")
}
