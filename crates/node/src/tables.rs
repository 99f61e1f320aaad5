//! Making and deleting tables: ordinary transactions on `onelog.tables`.

use std::time::Duration;

use onelog_record::{Position, Refusal, TableDefinition};
use onelog_replica::{Creation, NewTable, TableError, check, creation, removal};

use crate::Node;
use crate::ticket::{Answer, Ticket};
use crate::transact::retry_at;

/// How often making a table is tried again when another one was made at the same time.
const ATTEMPTS_MAX: usize = 64;
/// How long this node may take to apply what another one has decided.
const APPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// A table that exists now.
#[derive(Clone, Debug, PartialEq)]
pub struct DefinedTable {
    pub definition: TableDefinition,
    /// A position at which it exists.
    pub position: Position,
    /// Whether this call made it; else it was there already, defined the same.
    pub is_new: bool,
}

/// What comes next when a table is made.
enum Step {
    Done(DefinedTable),
    /// A definition on its way: its answer belongs to [`Making::answered`].
    Commit(TableDefinition, Ticket),
}

/// The attempts to make one table.
struct Making<'n> {
    node: &'n Node,
    table: NewTable,
    attempts: usize,
}

impl<'n> Making<'n> {
    fn begin(node: &'n Node, table: NewTable) -> Result<Self, TableError> {
        check(&table)?;
        Ok(Self {
            node,
            table,
            attempts: 0,
        })
    }

    fn attempt(&mut self) -> Result<Step, TableError> {
        self.attempts += 1;
        // The position is read first: the catalog then shows at least what lies below it.
        let position = self.node.position();
        Ok(
            match creation(position, &self.node.catalog(), &self.table)? {
                Creation::Done(definition, position) => Step::Done(DefinedTable {
                    definition,
                    position,
                    is_new: false,
                }),
                Creation::Commit(definition, request) => {
                    Step::Commit(definition, self.node.submit_system(*request))
                }
            },
        )
    }

    /// `None`: another definition came in between, try again.
    fn answered(
        &self,
        definition: TableDefinition,
        answer: Answer,
    ) -> Result<Option<DefinedTable>, TableError> {
        match answer {
            Ok(committed) => Ok(Some(DefinedTable {
                definition,
                position: committed.position,
                is_new: true,
            })),
            Err(Refusal::Conflict { .. } | Refusal::GuardFailed { .. })
                if self.attempts < ATTEMPTS_MAX =>
            {
                Ok(None)
            }
            Err(refusal) => Err(refusal.into()),
        }
    }
}

/// From which position on an answer can be understood.
fn rests_on(answer: &Answer) -> Position {
    match answer {
        Ok(committed) => committed.position,
        Err(refusal) => retry_at(refusal).unwrap_or_default(),
    }
}

impl Node {
    /// Makes a table, or answers the existing one when its definition is the same.
    pub async fn create_table(
        &self,
        table: NewTable,
    ) -> Result<(TableDefinition, Position), TableError> {
        let made = self.define_table(table).await?;
        Ok((made.definition, made.position))
    }

    /// [`Node::create_table`], with whether this call made it: of equal calls at the same time one
    /// does.
    pub async fn define_table(&self, table: NewTable) -> Result<DefinedTable, TableError> {
        let mut making = Making::begin(self, table)?;
        loop {
            let (definition, ticket) = match making.attempt()? {
                Step::Done(made) => return Ok(made),
                Step::Commit(definition, ticket) => (definition, ticket),
            };
            let answer = ticket.await;
            // Where another node leads, what the answer rests on comes here a little later.
            let _ = self.wait_for(rests_on(&answer), APPLY_TIMEOUT).await;
            if let Some(made) = making.answered(definition, answer)? {
                return Ok(made);
            }
        }
    }

    /// [`Node::create_table`] for threads that block.
    pub fn create_table_blocking(
        &self,
        table: NewTable,
    ) -> Result<(TableDefinition, Position), TableError> {
        let mut making = Making::begin(self, table)?;
        loop {
            let (definition, ticket) = match making.attempt()? {
                Step::Done(made) => return Ok((made.definition, made.position)),
                Step::Commit(definition, ticket) => (definition, ticket),
            };
            let answer = ticket.wait();
            let _ = self.wait_for_blocking(rests_on(&answer), APPLY_TIMEOUT);
            if let Some(made) = making.answered(definition, answer)? {
                return Ok((made.definition, made.position));
            }
        }
    }

    /// The definition that a table would get, or has; nothing is made.
    pub fn planned_table(&self, table: &NewTable) -> Result<TableDefinition, TableError> {
        check(table)?;
        Ok(match creation(self.position(), &self.catalog(), table)? {
            Creation::Done(definition, _) | Creation::Commit(definition, _) => definition,
        })
    }

    /// Deletes a table and all its keys. Its records stay in the log; its number is never reused. No
    /// sink is looked at: one that follows the table stops. `Sinks::drop_table` refuses that.
    pub async fn drop_table(&self, name: &str) -> Result<Position, TableError> {
        Ok(self
            .submit_system(removal(&self.catalog(), name)?)
            .await?
            .position)
    }

    /// [`Node::drop_table`] for threads that block.
    pub fn drop_table_blocking(&self, name: &str) -> Result<Position, TableError> {
        Ok(self
            .submit_system(removal(&self.catalog(), name)?)
            .wait()?
            .position)
    }
}
