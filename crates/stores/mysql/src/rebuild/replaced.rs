//! What others have written to the tables that were replaced, until the very moment of that.
//!
//! The old tables have their final rows once they are renamed: no transaction writes to them. So they
//! are counted then, and where more would go than may, everything is renamed back. Two things this
//! cannot hold: killed before the RENAME back, the new tables stay, and the next takeover drops the old
//! ones; and what is written to the new tables meanwhile goes with them.

use mysql_async::Params;
use onelog_mapping::MappingPlan;
use onelog_store::StoreError;

use super::Rebuild;
use crate::connection::REBUILD_TIMEOUT;
use crate::ddl::{existing, hidden};
use crate::names::quote;

const COUNTING: &str = "counting the rows of replaced tables in";

/// Which table gets which name, in this order.
pub(super) struct Exchange(pub(super) Vec<(String, String)>);

impl Exchange {
    pub(super) fn forth(&self) -> String {
        rename(self.0.iter().map(|(from, to)| (from, to)))
    }

    fn back(&self) -> String {
        rename(self.0.iter().rev().map(|(from, to)| (to, from)))
    }

    /// Whether a table was there and has got this name.
    fn has_replaced(&self, old: &str) -> bool {
        self.0.iter().any(|(_, to)| to == old)
    }
}

fn rename<'n>(steps: impl Iterator<Item = (&'n String, &'n String)>) -> String {
    let steps: Vec<String> = steps
        .map(|(from, to)| format!("{} TO {}", quote(from), quote(to)))
        .collect();
    format!("RENAME TABLE {}", steps.join(", "))
}

impl Rebuild<'_> {
    /// Fails, and puts the old tables back, where more of their rows would be dropped than may be, or a
    /// foreign key has gone with one.
    pub(super) fn check_replaced(
        &mut self,
        exchange: &Exchange,
        generation: u64,
    ) -> Result<(), StoreError> {
        let checked = self.count_replaced(exchange, generation);
        let Err(error) = checked.and_then(|()| self.check_followers(exchange, generation)) else {
            return Ok(());
        };
        self.own_record()?;
        self.rename_patiently(&exchange.back())?;
        Err(error)
    }

    /// Fails where a foreign key has come onto a table since it was looked at.
    fn check_followers(&mut self, exchange: &Exchange, generation: u64) -> Result<(), StoreError> {
        for mapping in &self.plan.mappings {
            let old = self.names.old_table(generation, &mapping.into);
            if exchange.has_replaced(&old) {
                hidden::check(self.connection, mapping, &old)?;
            }
        }
        Ok(())
    }

    fn count_replaced(&mut self, exchange: &Exchange, generation: u64) -> Result<(), StoreError> {
        for (mapping, guard) in self.plan.mappings.iter().zip(self.guards) {
            let old = self.names.old_table(generation, &mapping.into);
            let Some(most) = guard.deletes_max().filter(|_| exchange.has_replaced(&old)) else {
                continue;
            };
            let (rows, deletes) = self.dropped(mapping, &old)?;
            if deletes > most {
                return Err(StoreError::Guarded {
                    into: mapping.into.clone(),
                    rows,
                    deletes,
                    changes: 0,
                });
            }
        }
        Ok(())
    }

    /// How many rows the old table has, and how many of them the new one has not: by their keys, or,
    /// where these cannot be compared, by their number.
    fn dropped(&mut self, mapping: &MappingPlan, old: &str) -> Result<(u64, u64), StoreError> {
        let key = &mapping.columns[mapping.key].name;
        let (name, into, from) = (quote(key), quote(&mapping.into), quote(old));
        let sql = match self.has_same_key(mapping, old)? {
            true => format!(
                "SELECT COUNT(*), COUNT(*) - COUNT(n.{name})
                 FROM {from} t LEFT JOIN {into} n ON n.{name} = t.{name}"
            ),
            false => format!(
                "SELECT t.n, t.n - LEAST(t.n, (SELECT COUNT(*) FROM {into}))
                 FROM (SELECT COUNT(*) AS n FROM {from}) t"
            ),
        };
        let rows = self
            .connection
            .fetch_within(REBUILD_TIMEOUT, &sql, Params::Empty)
            .map_err(|fault| self.fault(COUNTING, fault))?;
        let count = |n| {
            let row = rows.first();
            row.and_then(|row| row.get::<Option<u64>, _>(n).flatten())
        };
        Ok((count(0).unwrap_or(0), count(1).unwrap_or(0)))
    }

    fn has_same_key(&mut self, mapping: &MappingPlan, old: &str) -> Result<bool, StoreError> {
        let key = &mapping.columns[mapping.key].name;
        let mut kinds = Vec::with_capacity(2);
        for table in [old, &mapping.into] {
            let indexes = existing::unique_indexes(self.connection, table)?;
            let is_key = indexes.iter().any(|index| index.covers_exactly(key));
            let columns = existing::columns(self.connection, table)?;
            let column = columns
                .into_iter()
                .find(|column| column.name.to_lowercase() == key.to_lowercase());
            kinds.push(
                column
                    .filter(|_| is_key)
                    .map(|column| (column.column_type, column.collation)),
            );
        }
        Ok(kinds[0].is_some() && kinds[0] == kinds[1])
    }
}
