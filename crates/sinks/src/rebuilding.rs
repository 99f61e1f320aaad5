//! Rebuilding a sink's store from the log on request.

use onelog::{Operation, Predicate};

use crate::error::SinkError;
use crate::open::plan_of;
use crate::progress::SinkStatus;
use crate::request::Command;
use crate::sinks::Sinks;
use crate::stored::{StoredSink, TableIds};

impl Sinks {
    /// Backfills the store beside what it has, and swaps. Answers as soon as that has begun. A table
    /// that was made again under the name of one that the sink followed is followed from now on.
    /// The sink stops where that would delete too many rows; see [`DELETES_MAX`](crate::DELETES_MAX).
    pub fn rebuild(&self, name: &str) -> Result<SinkStatus, SinkError> {
        self.rebuild_with(name, false)
    }

    /// [`Sinks::rebuild`], however many rows that deletes.
    pub fn rebuild_deleting(&self, name: &str) -> Result<SinkStatus, SinkError> {
        self.rebuild_with(name, true)
    }

    fn rebuild_with(&self, name: &str, may_delete: bool) -> Result<SinkStatus, SinkError> {
        let tables = self.take_tables(name)?;
        self.command(name, |reply| Command::Rebuild {
            tables,
            may_delete,
            reply,
        })?;
        self.get(name)
    }

    /// The tables that the names in a definition mean now; recorded as those that the sink follows.
    fn take_tables(&self, name: &str) -> Result<TableIds, SinkError> {
        let inner = &self.inner;
        let _changing = inner.changing.lock();
        let known = inner.find(name)?;
        known.check_here()?;
        let tables = match plan_of(&inner.node, &known.definition) {
            Ok(plan) => TableIds::of(&plan),
            // The sink says what is wrong.
            Err(_) => return Ok(known.tables),
        };
        if tables != known.tables {
            let sink = StoredSink {
                tables: tables.clone(),
                ..known.stored()
            };
            let put = Operation::Put(sink.record());
            inner.commit(name, Predicate::Exists, put)?;
            inner.set_tables(name, &tables);
        }
        Ok(tables)
    }
}
