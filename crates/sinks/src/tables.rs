//! Deleting a table of the log, which would empty every store that follows it.

use onelog::{Position, TableError};

use crate::error::SinksError;
use crate::sinks::Sinks;
use crate::stored;

/// A table was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DropTableError {
    #[error(
        "the table '{table}' is followed by {}, whose stores would be emptied: delete {} first (onelog sinks delete NAME; the rows in the store stay)",
        named(sinks),
        if sinks.len() == 1 { "it" } else { "them" }
    )]
    Followed { table: String, sinks: Vec<String> },
    #[error(transparent)]
    Table(#[from] TableError),
    /// Whether a sink follows it is not known.
    #[error(transparent)]
    Sinks(#[from] SinksError),
}

fn named(sinks: &[String]) -> String {
    let names: Vec<String> = sinks.iter().map(|name| format!("'{name}'")).collect();
    match &names[..] {
        [one] => format!("the sink {one}"),
        names => format!("the sinks {}", names.join(", ")),
    }
}

impl Sinks {
    /// Deletes a table with all its keys, unless a sink follows it. Blocks until it is committed.
    pub fn drop_table(&self, table: &str) -> Result<Position, DropTableError> {
        // No sink begins to follow it meanwhile.
        let _changing = self.inner.changing.lock();
        self.inner.catch_up().map_err(TableError::Refused)?;
        let sinks = stored::followers(&self.inner.node, table)?;
        if !sinks.is_empty() {
            return Err(DropTableError::Followed {
                table: table.to_owned(),
                sinks,
            });
        }
        let position = self.inner.node.drop_table_blocking(table)?;
        tracing::info!(table, %position, "a table was deleted");
        Ok(position)
    }
}
