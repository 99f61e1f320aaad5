//! Tables: which of them there are at each place is read from the definitions in the log itself.

use std::collections::HashMap;

use onelog_record::{
    Op, Position, Record, Refusal, TABLE_TABLES, TableDefinition, TableId, USER_TABLES_FROM,
};

use super::{Checker, Rule};
use crate::history::{CommitCall, Logged};

/// From where to where in the log a table is there.
#[derive(Clone, Copy, Debug)]
struct Life {
    from: Position,
    /// Where the transaction begins that drops it.
    to: Option<Position>,
}

#[derive(Debug, Default)]
pub(super) struct Tables {
    lives: HashMap<TableId, Life>,
    /// Numbers that were given out although another table had them before.
    reused: Vec<(TableId, Position)>,
}

impl Tables {
    pub(super) fn new(log: &[Logged]) -> Self {
        let mut tables = Self::default();
        let mut names: HashMap<Vec<u8>, TableId> = HashMap::new();
        for logged in log {
            for record in logged.records.iter().filter(|r| r.table == TABLE_TABLES) {
                if let Some(definition) = defined(record) {
                    names.insert(record.key.to_vec(), definition.id);
                    let from = logged.end;
                    let life = Life { from, to: None };
                    if tables.lives.insert(definition.id, life).is_some() {
                        tables.reused.push((definition.id, from));
                    }
                } else if record.op == Op::Delete
                    && let Some(id) = names.remove(&record.key[..])
                    && let Some(life) = tables.lives.get_mut(&id)
                {
                    life.to = Some(Position(logged.first_offset.0));
                }
            }
        }
        tables
    }

    /// Whether a transaction that begins at this place may write to the table. Histories made by
    /// hand have no definitions; there every table is good.
    fn is_there(&self, table: TableId, place: Position) -> bool {
        if self.lives.is_empty() || table < USER_TABLES_FROM {
            return true;
        }
        let life = self.lives.get(&table);
        life.is_some_and(|life| life.from <= place && life.to.is_none_or(|to| place <= to))
    }

    /// Whether the table is there from `place` on to the end.
    fn stays(&self, table: TableId, place: Position) -> bool {
        let life = self.lives.get(&table);
        life.is_some_and(|life| life.from <= place && life.to.is_none())
    }
}

fn defined(record: &Record) -> Option<TableDefinition> {
    let definition: TableDefinition = serde_json::from_slice(record.value.as_ref()?).ok()?;
    (record.op == Op::Put && !definition.dropped).then_some(definition)
}

impl Checker<'_> {
    /// Every record belongs to a table that is there at its place, and every number to one table.
    pub(super) fn check_tables(&mut self) {
        for (table, position) in std::mem::take(&mut self.tables_by_log.reused) {
            let text = format!("number {table} is given out again below position {position}");
            self.add(Rule::NumberReused, text);
        }
        for logged in self.model.log {
            let place = Position(logged.first_offset.0);
            for record in &logged.records {
                if !self.tables_by_log.is_there(record.table, place) {
                    let text = format!(
                        "transaction {} at offset {place} writes to table {}, which is not there then",
                        logged.id, record.table
                    );
                    self.add(Rule::NoSuchTable, text);
                }
            }
        }
    }

    /// A table that was known before the request was sent, and is never dropped, is not unknown.
    pub(super) fn check_unknown_table(
        &mut self,
        call: &CommitCall,
        refusal: &Refusal,
        table: TableId,
    ) {
        let lower = self.observed.before(call.begin);
        if self.tables_by_log.stays(table, lower) {
            let text = format!("the table was there at position {lower} and stays");
            self.wrong_refusal(call.id, &text, refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use onelog_record::{CommitRequest, Committed, Offset, Operation, Subject, TxnId, Write};
    use serde_json::json;

    use super::*;
    use crate::checker::{Report, check};
    use crate::history::{Answer, Clock, History, Seen};

    const TABLE: TableId = USER_TABLES_FROM;

    /// Transactions of one write each, sent one after the other.
    #[derive(Default)]
    struct Story {
        clock: Clock,
        history: History,
        log: Vec<Logged>,
    }

    impl Story {
        fn call(&mut self, request: CommitRequest, answer: Answer) {
            self.history.commits.push(CommitCall {
                client: 0,
                begin: self.clock.tick(),
                end: Some(self.clock.tick()),
                id: TxnId(self.history.commits.len() as u128),
                request,
                seen: Seen::default(),
                answer,
            });
        }

        fn commits(mut self, table: TableId, key: &str, operation: Operation) -> Self {
            let id = TxnId(self.history.commits.len() as u128);
            let at = self.log.len() as u64;
            let value = match &operation {
                Operation::Put(value) => Some(value.clone()),
                _ => None,
            };
            let record = Record {
                offset: Offset(at),
                op: if value.is_some() { Op::Put } else { Op::Delete },
                table,
                key: Bytes::copy_from_slice(key.as_bytes()),
                value,
                headers: Vec::new(),
            };
            let committed = Committed {
                id,
                position: Position(at + 1),
                first_offset: Offset(at),
                records: 1,
                repeated: false,
            };
            self.call(request(table, key, operation), Answer::Committed(committed));
            self.log.push(Logged {
                id,
                first_offset: Offset(at),
                end: Position(at + 1),
                timestamp_ms: 0,
                records: vec![record],
            });
            self
        }

        fn defines(self) -> Self {
            let definition = TableDefinition {
                id: TABLE,
                name: "t".into(),
                kind: onelog_record::TableKind::Keyed,
                value: onelog_record::ValueKind::Json,
                schema: None,
                unique: Vec::new(),
                dropped: false,
            };
            let text = json!(definition).to_string();
            self.commits(TABLE_TABLES, "t", Operation::Put(text.into()))
        }

        fn drops(self) -> Self {
            self.commits(TABLE_TABLES, "t", Operation::Delete)
        }

        fn writes(self) -> Self {
            self.commits(TABLE, "a", Operation::Put(Bytes::from_static(b"1")))
        }

        fn unknown_table(mut self) -> Self {
            let refusal = Refusal::UnknownTable {
                subject: Subject::Write(0),
                table: TABLE,
            };
            let put = Operation::Put(Bytes::from_static(b"1"));
            self.call(request(TABLE, "a", put), Answer::Refused(refusal));
            self
        }

        fn report(&self) -> Report {
            check(&self.history, &self.log, &[])
        }
    }

    fn request(table: TableId, key: &str, operation: Operation) -> CommitRequest {
        CommitRequest {
            writes: vec![Write {
                table,
                key: Bytes::copy_from_slice(key.as_bytes()),
                operation,
                headers: Vec::new(),
            }],
            ..CommitRequest::default()
        }
    }

    #[track_caller]
    fn assert_broke(story: &Story, rule: Option<Rule>) {
        let report = story.report();
        let broken: Vec<Rule> = report.violations.iter().map(|found| found.rule).collect();
        assert_eq!(broken, Vec::from_iter(rule), "{report}");
    }

    #[test]
    fn a_table_that_is_written_while_it_is_there_is_good() {
        assert_broke(&Story::default().defines().writes().drops(), None);
    }

    #[test]
    fn a_write_before_the_definition_or_behind_the_drop_is_caught() {
        let early = Story::default().writes().defines();
        assert_broke(&early, Some(Rule::NoSuchTable));
        let late = Story::default().defines().drops().writes();
        assert_broke(&late, Some(Rule::NoSuchTable));
    }

    #[test]
    fn a_number_that_is_given_out_twice_is_caught() {
        let twice = Story::default().defines().drops().defines();
        assert_broke(&twice, Some(Rule::NumberReused));
    }

    #[test]
    fn a_table_may_be_unknown_before_and_after_its_life_and_not_within() {
        assert_broke(&Story::default().unknown_table().defines(), None);
        assert_broke(&Story::default().defines().drops().unknown_table(), None);
        let within = Story::default().defines().unknown_table().writes();
        assert_broke(&within, Some(Rule::WrongRefusal));
    }
}
