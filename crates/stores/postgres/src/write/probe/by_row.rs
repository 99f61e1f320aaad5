//! Which tables check each row when it is written, and how many rows a failed statement wrote there.
//!
//! In such a table a statement with many rows fails for the same row, with the same message, as
//! statements with one row each. Triggers look at the end of a statement, at all its rows: those of
//! users, deferrable keys, and foreign keys that refer to the table. Its own foreign keys to other
//! tables do so too, but no row of the statement changes what they find.
//!
//! The server counts what a transaction writes to a table, also what a failed statement wrote
//! before it was undone. That says about where the statement failed, and is a hint, no more: with
//! `track_counts` off there is none.

use std::collections::BTreeMap;

use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::Type;

use crate::error::Fault;
use crate::store::Scope;

#[derive(Debug, Default)]
pub(super) struct ByRow {
    /// By the numbers of their mappings.
    tables: BTreeMap<usize, Table>,
}

#[derive(Debug)]
struct Table {
    /// Its number in the catalog.
    oid: u32,
    /// What the server counts, as far as that is known.
    written: i64,
}

impl ByRow {
    /// Looks at the tables of these mappings, in the transaction that is under way.
    pub(super) async fn look(scope: &Scope<'_>, mappings: &[usize]) -> Result<Self, Fault> {
        let mut out = Self::default();
        for mapping in mappings {
            let identity = scope.identity;
            let into = &identity.plan.mappings[*mapping].into;
            let sql = "SELECT c.oid FROM pg_catalog.pg_class c
                JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = $1 AND c.relname = $2
                  AND c.relkind = 'r' AND NOT c.relrowsecurity AND NOT EXISTS (
                    SELECT FROM pg_catalog.pg_trigger t
                    LEFT JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint
                    WHERE t.tgrelid = c.oid AND (t.tgisinternal AND k.contype = 'f'
                      AND k.conrelid = c.oid AND k.confrelid <> c.oid) IS NOT TRUE)";
            let found = scope
                .client
                .query_typed_opt(sql, &[(&identity.schema, Type::TEXT), (into, Type::TEXT)])
                .await?;
            if let Some(row) = found {
                let (oid, written) = (row.get(0), 0);
                out.tables.insert(*mapping, Table { oid, written });
                out.undo(scope, "", *mapping).await?;
            }
        }
        Ok(out)
    }

    pub(super) fn covers(&self, mapping: usize) -> bool {
        self.tables.contains_key(&mapping)
    }

    /// A row was written to this mapping's table.
    pub(super) fn wrote(&mut self, mapping: usize) {
        if let Some(table) = self.tables.get_mut(&mapping) {
            table.written += 1;
        }
    }

    /// Runs what undoes a statement that failed, and answers how many rows it had written.
    pub(super) async fn undo(
        &mut self,
        scope: &Scope<'_>,
        undo: &str,
        mapping: usize,
    ) -> Result<usize, Fault> {
        let Some(table) = self.tables.get_mut(&mapping) else {
            scope.client.batch_execute(undo).await?;
            return Ok(0);
        };
        let sql = format!(
            "{undo}; SELECT pg_catalog.pg_stat_get_xact_tuples_inserted({oid})
               + pg_catalog.pg_stat_get_xact_tuples_updated({oid})",
            oid = table.oid
        );
        let answers = scope.client.simple_query(&sql).await?;
        let counts = answers.iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse::<i64>().ok(),
            _ => None,
        });
        let now = counts.last().unwrap_or(table.written);
        let written = now - table.written;
        table.written = now;
        Ok(usize::try_from(written).unwrap_or(0))
    }
}
