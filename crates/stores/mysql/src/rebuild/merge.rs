//! Making tables that are there equal to their staged ones, in one transaction with the position.

use mysql_async::{Params, Value};
use onelog_store::{Guard, LogPlace, StoreError, failpoint};

use super::{EXISTING_TABLES, Rebuild};
use crate::connection::REBUILD_TIMEOUT;
use crate::ddl::foreign::ForeignRows;
use crate::ddl::{existing, shape};
use crate::encode::request_bytes;
use crate::error::{NO_PARENT, NO_PARENT_ADVICE};
use crate::names::quote;
use crate::write::{REQUEST_BYTES_EXTRA, statements};

/// How many keys are in one list of those that are kept: MariaDB makes a table of a longer one.
const KEPT_EACH: usize = 500;

const KEPT_ADVICE: &str = "the rows of refused keys stay, and one of them may have a unique value that another row is to get: mend the parked records, then resume";

impl Rebuild<'_> {
    /// Makes the tables equal to the staged ones, in one transaction with the position.
    pub(super) fn merge(&mut self, place: LogPlace) -> Result<(), StoreError> {
        let doing = "merging the new rows in";
        self.own_record()?;
        for mapping in &self.plan.mappings {
            existing::check_target(self.connection, &self.identity.sink, mapping)?;
        }
        if self.guards.contains(&Guard::Untouched) {
            // For this transaction only: what it reads is locked with the gaps in between.
            let sql = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
            self.connection.execute(doing, sql)?;
        }
        self.connection.execute(doing, "START TRANSACTION")?;
        let merged = self.merge_inside(place);
        if let Err(error) = merged {
            self.connection.roll_back();
            return Err(error);
        }
        failpoint::hit(&self.identity.sink, "before_swap");
        self.connection
            .statement(REBUILD_TIMEOUT, "COMMIT")
            .map_err(|fault| self.fault(doing, fault))?;
        failpoint::hit(&self.identity.sink, "after_swap");
        if let Err(error) = self.drop_new(self.identity.epoch + 1) {
            tracing::debug!(sink = self.identity.sink, %error, "staged tables are dropped later");
        }
        Ok(())
    }

    fn merge_inside(&mut self, place: LogPlace) -> Result<(), StoreError> {
        let doing = "merging the new rows in";
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
            .map_err(|fault| self.fault(doing, fault))?;
        if moved != 1 {
            self.own_record()?;
        }
        self.claim(doing, EXISTING_TABLES)?;
        self.check_untouched(doing)?;
        self.delete_rows(doing)?;
        let mappings = &self.plan.mappings;
        let mut statements = Vec::new();
        for (n, mapping) in mappings.iter().enumerate() {
            let merge = statements::merge(mapping, &self.target(n));
            statements.extend(merge.map(|sql| (n, sql)));
        }
        for (n, sql) in statements {
            self.merge_by(doing, n, &sql, &[])?;
        }
        for (n, mapping) in mappings.iter().enumerate() {
            let staged = self.target(n);
            shape::record_filled(self.connection, mapping, &staged)?;
        }
        Ok(())
    }

    /// Runs a statement of the merge, and answers how many rows it was about.
    fn merge_by(
        &mut self,
        doing: &str,
        mapping: usize,
        sql: &str,
        values: &[Value],
    ) -> Result<u64, StoreError> {
        let done = match values {
            [] => self.connection.statement(REBUILD_TIMEOUT, sql),
            values => {
                let values = Params::Positional(values.to_vec());
                self.connection
                    .prepared_within(REBUILD_TIMEOUT, sql, values)
            }
        };
        done.map_err(|fault| match fault.is_rejected_row() {
            true => StoreError::SchemaMismatch {
                into: self.plan.mappings[mapping].into.clone(),
                what: format!(
                    "its rows cannot be made equal to the log's in one step: {} ({})",
                    fault.message(self.connection.flavour()),
                    match fault.code() {
                        Some(NO_PARENT) => NO_PARENT_ADVICE,
                        _ if !self.kept.get(mapping).is_none_or(Vec::is_empty) => KEPT_ADVICE,
                        _ => "empty the table, then try again",
                    }
                ),
            },
            false => self.connection.store_error(doing, fault),
        })
    }

    /// Deletes what the new rows have not, but for what is kept, the last mapping's first.
    fn delete_rows(&mut self, doing: &str) -> Result<(), StoreError> {
        for (n, mapping) in self.plan.mappings.iter().enumerate().rev() {
            let key = quote(&mapping.columns[mapping.key].name);
            let mut sql = format!(
                "DELETE t FROM {} t LEFT JOIN {} n ON t.{key} = n.{key} WHERE n.{key} IS NULL",
                quote(&mapping.into),
                quote(&self.target(n))
            );
            let kept = self.kept.get(n).map_or(&[][..], Vec::as_slice);
            self.check_request(&mapping.into, kept)?;
            for part in kept.chunks(KEPT_EACH) {
                let marks = vec!["?"; part.len()].join(", ");
                sql.push_str(&format!(" AND t.{key} NOT IN ({marks})"));
            }
            let deletes = self.merge_by(doing, n, &sql, kept)?;
            let most = match self.guards.get(n) {
                None | Some(Guard::Anything) => continue,
                Some(Guard::Deletes(most)) => *most,
                Some(Guard::Untouched) => 0,
            };
            if deletes > most {
                let left = ForeignRows::read(self.connection, mapping, "")?.rows;
                return Err(StoreError::Guarded {
                    into: mapping.into.clone(),
                    rows: left + deletes,
                    deletes,
                    changes: 0,
                });
            }
        }
        Ok(())
    }

    /// Fails where the keys that are kept do not go into one request.
    fn check_request(&self, into: &str, kept: &[Value]) -> Result<(), StoreError> {
        let (bytes, limit) = (request_bytes(kept), self.connection.packet_bytes());
        if bytes + REQUEST_BYTES_EXTRA <= limit {
            return Ok(());
        }
        Err(StoreError::SchemaMismatch {
            into: into.to_owned(),
            what: format!(
                "the keys of the records that it refuses take {bytes} bytes, the server takes requests of {limit}; raise max_allowed_packet there"
            ),
        })
    }

    /// Locks the rows of others until the end, and fails where they are no longer those that were
    /// counted.
    fn check_untouched(&mut self, doing: &str) -> Result<(), StoreError> {
        let guarded = self.plan.mappings.iter().zip(self.guards);
        for (mapping, _) in guarded.filter(|(_, guard)| **guard == Guard::Untouched) {
            let counted = self.foreign.iter().find(|known| known.into == mapping.into);
            let found = ForeignRows::read(self.connection, mapping, "FOR UPDATE")?;
            if counted.is_some_and(|counted| *counted != found) {
                let why = format!(
                    "rows of the table '{}' were written meanwhile; nothing was changed, and they are counted again",
                    mapping.into
                );
                return Err(self.connection.unavailable(doing, &why));
            }
        }
        Ok(())
    }
}
