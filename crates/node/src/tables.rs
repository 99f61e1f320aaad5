//! Making and deleting tables: ordinary transactions on `onelog.tables`.

use onelog_record::{Position, Refusal, TableDefinition};
use onelog_replica::{Creation, NewTable, TableError, check, creation, removal};

use crate::Node;

/// How often making a table is tried again when another one was made at the same time.
const ATTEMPTS_MAX: usize = 64;

impl Node {
    /// Makes a table, or answers the existing one when its definition is the same.
    pub async fn create_table(
        &self,
        table: NewTable,
    ) -> Result<(TableDefinition, Position), TableError> {
        check(&table)?;
        let mut attempts = 0;
        loop {
            let (definition, request) = match self.creation(&table)? {
                Creation::Done(definition, position) => return Ok((definition, position)),
                Creation::Commit(definition, request) => (definition, request),
            };
            attempts += 1;
            match self.submit(*request).await {
                Ok(committed) => return Ok((definition, committed.position)),
                Err(Refusal::Conflict { .. } | Refusal::GuardFailed { .. })
                    if attempts < ATTEMPTS_MAX => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// [`Node::create_table`] for threads that block.
    pub fn create_table_blocking(
        &self,
        table: NewTable,
    ) -> Result<(TableDefinition, Position), TableError> {
        check(&table)?;
        let mut attempts = 0;
        loop {
            let (definition, request) = match self.creation(&table)? {
                Creation::Done(definition, position) => return Ok((definition, position)),
                Creation::Commit(definition, request) => (definition, request),
            };
            attempts += 1;
            match self.submit(*request).wait() {
                Ok(committed) => return Ok((definition, committed.position)),
                Err(Refusal::Conflict { .. } | Refusal::GuardFailed { .. })
                    if attempts < ATTEMPTS_MAX => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// Deletes a table and all its keys. Its records stay in the log; its number is never reused.
    pub async fn drop_table(&self, name: &str) -> Result<Position, TableError> {
        Ok(self.submit(removal(&self.catalog(), name)?).await?.position)
    }

    /// [`Node::drop_table`] for threads that block.
    pub fn drop_table_blocking(&self, name: &str) -> Result<Position, TableError> {
        Ok(self
            .submit(removal(&self.catalog(), name)?)
            .wait()?
            .position)
    }

    fn creation(&self, table: &NewTable) -> Result<Creation, TableError> {
        // The position is read first: the catalog then shows at least what lies below it.
        let position = self.position();
        creation(position, &self.catalog(), table)
    }
}
