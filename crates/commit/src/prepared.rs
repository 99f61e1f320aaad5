//! What of a decision rests on the request and the rules of its tables alone: whether the values that
//! it puts are JSON and fit their schemas, and whether a table that it makes can be. It is found out before the request waits for its turn, on
//! the thread that brings it, so that the thread that decides for all need not.
//!
//! A table keeps its schema for as long as it lives, and no other table gets its number: what was
//! found holds at whatever place in the log. A table that was not there is looked at when it is
//! decided.

use bytes::Bytes;
use onelog_record::{CommitRequest, Json, Operation, OperationFault, Refusal, USER_TABLES_FROM};

use crate::view::{Rules, SchemaFault, TableRules};
use crate::work::SCHEMA_STEPS_MAX;

/// What was found out about the puts of one request, in their order, up to the first that cannot be.
#[derive(Debug, Default)]
pub struct Prepared {
    puts: Vec<PreparedPut>,
    definitions: Option<Result<(), Refusal>>,
}

#[derive(Debug)]
pub(crate) struct PreparedPut {
    index: usize,
    /// The steps that its schema took; more than there are where they did not suffice.
    pub(crate) schema_steps: usize,
    pub(crate) found: Result<(), OperationFault>,
}

impl Prepared {
    #[must_use]
    pub fn of(request: &CommitRequest, rules: &dyn Rules) -> Self {
        let mut puts = Vec::new();
        let mut left = SCHEMA_STEPS_MAX;
        for (index, write) in request.writes.iter().enumerate() {
            let Some(table) = rules.table(write.table).filter(|table| table.looks_into()) else {
                continue;
            };
            let value = match &write.operation {
                Operation::Put(value) => value,
                Operation::Delete => continue,
                // What it makes of the document that is there is checked when it is decided.
                _ => {
                    table.schema.iter().for_each(|schema| schema.prepare());
                    continue;
                }
            };
            let put = PreparedPut::of(index, value, table, left);
            left = left.saturating_sub(put.schema_steps);
            let is_last = put.found.is_err() || put.schema_steps > SCHEMA_STEPS_MAX;
            puts.push(put);
            if is_last {
                break;
            }
        }
        let mut tables = request.writes.iter().map(|write| write.table);
        let has_system_writes = tables.any(|table| table < USER_TABLES_FROM);
        Self {
            puts,
            definitions: has_system_writes.then(|| rules.check_definitions(request)),
        }
    }

    /// Whether the tables that the request makes can be.
    pub(crate) fn check_definitions(
        &self,
        request: &CommitRequest,
        rules: &dyn Rules,
    ) -> Result<(), Refusal> {
        let found = self.definitions.clone();
        found.unwrap_or_else(|| rules.check_definitions(request))
    }

    /// What was found out about the write of this index.
    pub(crate) fn put(&self, index: usize) -> Option<&PreparedPut> {
        let at = self.puts.binary_search_by_key(&index, |put| put.index);
        self.puts.get(at.ok()?)
    }
}

impl PreparedPut {
    fn of(index: usize, value: &Bytes, table: &TableRules, left: usize) -> Self {
        let put = |schema_steps, found| Self {
            index,
            schema_steps,
            found,
        };
        let not_json = || put(0, Err(OperationFault::NotJson));
        let Some(schema) = &table.schema else {
            return Json::check(value).map_or_else(|_| not_json(), |()| put(0, Ok(())));
        };
        let Ok(document) = Json::parse(value) else {
            return not_json();
        };
        let mut unused = left;
        let checked = schema.check(&document, &mut unused);
        let steps = left - unused.min(left);
        match checked {
            Ok(()) => put(steps, Ok(())),
            Err(SchemaFault::Breaks(text)) => put(steps, Err(OperationFault::Schema(text))),
            Err(SchemaFault::OutOfSteps) => put(SCHEMA_STEPS_MAX + 1, Ok(())),
        }
    }
}
