//! Hand-made histories: a good one that passes, and one bad one for each way of being wrong.

use bytes::Bytes;
use onelog_record::{
    CommitRequest, Committed, Compare, FieldPath, Guard, KeyRange, Offset, Op, Operation,
    PointRead, Position, Predicate, Record, Refusal, Subject, TABLE_UNIQUE, TableDefinition,
    TableId, TableKind, TxnId, ValueKind, Write,
};
use serde_json::json;

use super::{Report, Rule, check};
use crate::history::{
    Answer, CommitCall, Found, History, Logged, Moment, PointSeen, RangeSeen, ReadCall, Requested,
    Seen,
};

const TABLE: TableId = TableId(1024);

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A history in the making, with the log that belongs to it.
#[derive(Default)]
struct Story {
    history: History,
    log: Vec<Logged>,
    tables: Vec<TableDefinition>,
    now: u64,
}

impl Story {
    fn tick(&mut self) -> Moment {
        self.now += 1;
        Moment(self.now)
    }

    fn end(&self) -> u64 {
        self.log.last().map_or(0, |last| last.end.0)
    }

    /// A transaction that is sent, put into the log and acknowledged.
    fn commit(&mut self, id: u128, request: CommitRequest) -> &mut CommitCall {
        let committed = self.log(id, &request);
        self.call(id, request, Answer::Committed(committed))
    }

    fn log(&mut self, id: u128, request: &CommitRequest) -> Committed {
        let first = self.end();
        let records: Vec<Record> = request
            .writes
            .iter()
            .zip(first..)
            .map(|(write, offset)| record(write, offset))
            .collect();
        let end = Position(first + records.len() as u64);
        self.log.push(Logged {
            id: TxnId(id),
            first_offset: Offset(first),
            end,
            timestamp_ms: 0,
            records,
        });
        Committed {
            id: TxnId(id),
            position: end,
            first_offset: Offset(first),
            records: request.writes.len() as u32,
            repeated: false,
        }
    }

    fn call(&mut self, id: u128, request: CommitRequest, answer: Answer) -> &mut CommitCall {
        let (begin, end) = (self.tick(), self.tick());
        self.history.commits.push(CommitCall {
            client: 0,
            begin,
            end: Some(end),
            id: TxnId(id),
            request,
            seen: Seen::default(),
            answer,
        });
        self.history.commits.last_mut().unwrap()
    }

    fn read(&mut self, position: u64, key: &str, found: Option<(u64, &str)>) -> &mut ReadCall {
        let (begin, end) = (self.tick(), self.tick());
        let found = found.map(|(version, value)| Found {
            version: Offset(version),
            value: bytes(value),
        });
        self.history.reads.push(ReadCall {
            client: 7,
            begin,
            end,
            requested: Requested::Newest,
            position: Position(position),
            seen: Seen {
                points: vec![PointSeen {
                    table: TABLE,
                    key: bytes(key),
                    found,
                }],
                ranges: Vec::new(),
            },
        });
        self.history.reads.last_mut().unwrap()
    }

    fn report(&self) -> Report {
        check(&self.history, &self.log, &self.tables)
    }
}

fn record(write: &Write, offset: u64) -> Record {
    let value = match &write.operation {
        Operation::Put(value) => Some(value.clone()),
        Operation::Delete => None,
        other => panic!("the stories put and delete only, not {other:?}"),
    };
    Record {
        offset: Offset(offset),
        op: if value.is_some() { Op::Put } else { Op::Delete },
        table: write.table,
        key: write.key.clone(),
        value,
        headers: Vec::new(),
    }
}

fn put(key: &str, value: &str) -> CommitRequest {
    CommitRequest {
        writes: vec![Write {
            table: TABLE,
            key: bytes(key),
            operation: Operation::Put(bytes(value)),
            headers: Vec::new(),
        }],
        ..CommitRequest::default()
    }
}

fn having_read(mut request: CommitRequest, at: u64, key: &str) -> CommitRequest {
    request.read_position = Some(Position(at));
    request.point_reads.push(PointRead {
        table: TABLE,
        key: bytes(key),
    });
    request
}

fn having_scanned(mut request: CommitRequest, at: u64, from: &str, to: &str) -> CommitRequest {
    request.read_position = Some(Position(at));
    request.range_reads.push(range(from, to));
    request
}

fn range(from: &str, to: &str) -> KeyRange {
    KeyRange {
        table: TABLE,
        from: bytes(from),
        to: Some(bytes(to)),
    }
}

fn id(number: u128) -> String {
    TxnId(number).to_string()
}

#[track_caller]
fn assert_caught(report: &Report, rule: Rule, who: &str) {
    let found = report
        .violations
        .iter()
        .find(|violation| violation.rule == rule);
    let found = found.unwrap_or_else(|| panic!("{rule:?} was not reported:\n{report}"));
    assert!(found.message.contains(who), "{who} is not named: {found}");
}

/// `a` is put, then put again by a client that had read it, then read.
fn good() -> Story {
    let mut story = Story::default();
    story.commit(1, put("a", "1"));
    let call = story.commit(2, having_read(put("a", "2"), 1, "a"));
    call.seen.points.push(PointSeen {
        table: TABLE,
        key: bytes("a"),
        found: Some(Found {
            version: Offset(0),
            value: bytes("1"),
        }),
    });
    story.read(2, "a", Some((1, "2")));
    story
}

#[test]
fn a_good_history_is_clean_and_counted() {
    let report = good().report();
    assert!(report.is_clean(), "{report}");
    assert_eq!(
        (report.transactions, report.acknowledged, report.reads),
        (2, 2, 1)
    );
}

#[test]
fn a_lost_acknowledgement_is_caught() {
    let mut story = good();
    story.log.pop();
    story.history.reads.clear();
    assert_caught(&story.report(), Rule::AcknowledgedLost, &id(2));
}

#[test]
fn a_transaction_that_is_in_the_log_twice_is_caught() {
    let mut story = good();
    let again = put("a", "2");
    story.log(2, &again);
    assert_caught(&story.report(), Rule::AppliedTwice, &id(2));
}

#[test]
fn a_transaction_that_nobody_sent_is_caught() {
    let mut story = good();
    story.log(99, &put("b", "x"));
    assert_caught(&story.report(), Rule::Invented, &id(99));
}

#[test]
fn a_refused_transaction_in_the_log_is_caught() {
    let mut story = good();
    let request = put("b", "x");
    story.log(3, &request);
    let refusal = Refusal::Malformed("no".into());
    story.call(3, request, Answer::Refused(refusal));
    assert_caught(&story.report(), Rule::RefusedButLogged, &id(3));
}

#[test]
fn half_a_transaction_is_caught() {
    let mut story = good();
    let mut request = put("b", "x");
    request.writes.extend(put("c", "y").writes);
    story.commit(3, request);
    let last = story.log.last_mut().unwrap();
    last.records.pop();
    last.end = Position(last.end.0 - 1);
    assert_caught(&story.report(), Rule::WrongRecords, &id(3));
}

#[test]
fn a_record_with_another_value_is_caught() {
    let mut story = good();
    story.log[1].records[0].value = Some(bytes("3"));
    assert_caught(&story.report(), Rule::WrongRecords, &id(2));
}

#[test]
fn a_gap_in_the_offsets_is_caught() {
    let mut story = good();
    story.log.remove(0);
    assert_caught(&story.report(), Rule::LogBroken, &id(2));
}

#[test]
fn an_answer_that_differs_from_the_log_is_caught() {
    let mut story = good();
    let Answer::Committed(committed) = &mut story.history.commits[1].answer else {
        panic!("the good story commits")
    };
    committed.first_offset = Offset(0);
    assert_caught(&story.report(), Rule::WrongAnswer, &id(2));
}

#[test]
fn a_lost_update_is_caught() {
    let mut story = good();
    story.commit(3, having_read(put("a", "3"), 1, "a"));
    assert_caught(&story.report(), Rule::StaleRead, &id(3));
}

#[test]
fn a_write_at_exactly_the_read_position_is_caught() {
    let mut story = Story::default();
    story.commit(1, put("a", "1"));
    story.commit(2, put("a", "2"));
    story.commit(3, having_read(put("b", "x"), 1, "a"));
    assert_caught(&story.report(), Rule::StaleRead, &id(3));
}

#[test]
fn a_phantom_is_caught() {
    let mut story = good();
    story.commit(3, put("c", "x"));
    story.commit(4, having_scanned(put("z", "sum"), 2, "b", "d"));
    assert_caught(&story.report(), Rule::Phantom, &id(4));
}

#[test]
fn a_phantom_beside_the_range_is_none() {
    let mut story = good();
    story.commit(3, put("d", "x"));
    story.commit(4, having_scanned(put("z", "sum"), 2, "b", "d"));
    assert!(story.report().is_clean(), "{}", story.report());
}

#[test]
fn a_delete_in_a_range_is_a_phantom_too() {
    let mut story = good();
    let mut delete = put("a", "");
    delete.writes[0].operation = Operation::Delete;
    story.commit(3, delete);
    story.commit(4, having_scanned(put("z", "sum"), 2, "a", "b"));
    assert_caught(&story.report(), Rule::Phantom, &id(4));
}

#[test]
fn an_update_that_saw_something_else_is_caught() {
    let mut story = good();
    story.history.commits[1].seen.points[0].found = None;
    assert_caught(&story.report(), Rule::WrongRead, &id(2));
}

#[test]
fn a_snapshot_read_that_saw_something_else_is_caught() {
    let mut story = good();
    story.read(2, "a", Some((0, "1")));
    assert_caught(&story.report(), Rule::WrongRead, "client 7");
}

#[test]
fn a_row_that_is_missing_from_a_range_is_caught() {
    let mut story = good();
    let read = story.read(2, "a", Some((1, "2")));
    read.seen.ranges.push(RangeSeen {
        range: range("a", "b"),
        rows: Vec::new(),
    });
    assert_caught(&story.report(), Rule::WrongRead, "client 7");
}

#[test]
fn a_position_inside_a_transaction_is_caught() {
    let mut story = good();
    let mut request = put("b", "x");
    request.writes.extend(put("c", "y").writes);
    story.commit(3, request);
    story.read(3, "b", Some((2, "x"))).requested = Requested::At(Position(3));
    assert_caught(&story.report(), Rule::WrongPosition, &id(3));
}

#[test]
fn a_read_that_misses_an_earlier_acknowledgement_is_caught() {
    let mut story = good();
    story.read(1, "a", Some((0, "1")));
    assert_caught(&story.report(), Rule::RealTime, "client 7");
}

#[test]
fn a_read_that_stops_short_of_the_position_it_waits_for_is_caught() {
    let mut story = good();
    let read = story.read(2, "a", Some((1, "2")));
    read.requested = Requested::After(Position(3));
    assert_caught(&story.report(), Rule::RealTime, "client 7");
}

#[test]
fn an_order_against_real_time_is_caught() {
    let mut story = Story::default();
    story.commit(1, put("a", "1"));
    story.commit(2, put("b", "1"));
    // The second was sent only after the first had been answered, but is before it in the log.
    story.log.clear();
    let first = story.log(2, &put("b", "1"));
    let second = story.log(1, &put("a", "1"));
    story.history.commits[0].answer = Answer::Committed(second);
    story.history.commits[1].answer = Answer::Committed(first);
    assert_caught(&story.report(), Rule::RealTime, &id(2));
}

#[test]
fn a_guard_that_does_not_hold_is_caught() {
    let mut story = Story::default();
    story.commit(1, put("a", r#"{"n":1}"#));
    let mut request = put("b", "x");
    request.guards.push(Guard {
        table: TABLE,
        key: bytes("a"),
        predicate: Predicate::Field {
            path: FieldPath::parse("n").unwrap(),
            compare: Compare::Ge,
            value: json!(2).into(),
        },
    });
    story.commit(2, request);
    assert_caught(&story.report(), Rule::GuardBroken, &id(2));
}

fn conflict(version: u64, retry_at: u64) -> Refusal {
    Refusal::Conflict {
        subject: Subject::PointRead(0),
        table: TABLE,
        key: bytes("a"),
        version: Offset(version),
        retry_at: Position(retry_at),
    }
}

#[test]
fn a_conflict_with_a_real_write_is_legitimate() {
    let mut story = good();
    let request = having_read(put("a", "3"), 1, "a");
    story.call(3, request, Answer::Refused(conflict(1, 2)));
    assert!(story.report().is_clean(), "{}", story.report());
}

#[test]
fn a_conflict_with_nothing_is_caught() {
    // Below the read position; at an offset of another key; behind the log.
    for (at, version, retry_at) in [(2, 1, 2), (1, 2, 3), (1, 9, 3)] {
        let mut story = good();
        story.commit(3, put("b", "x"));
        let request = having_read(put("a", "3"), at, "a");
        story.call(4, request, Answer::Refused(conflict(version, retry_at)));
        assert_caught(&story.report(), Rule::WrongRefusal, &id(4));
    }
}

#[test]
fn a_conflict_on_a_key_that_was_not_read_is_caught() {
    let mut story = good();
    let request = having_read(put("a", "3"), 1, "b");
    story.call(3, request, Answer::Refused(conflict(1, 2)));
    assert_caught(&story.report(), Rule::WrongRefusal, &id(3));
}

#[test]
fn a_refusal_answered_before_its_cause_is_readable_is_caught() {
    let mut story = good();
    let call = story.commit(3, put("a", "3"));
    let Answer::Committed(told_late) = std::mem::replace(&mut call.answer, Answer::Unknown) else {
        panic!("the commit was acknowledged")
    };
    let request = having_read(put("a", "4"), 2, "a");
    story.call(4, request, Answer::Refused(conflict(2, 3)));
    // The client that heard the conflict reads, and the write that caused it is not there yet.
    story.read(2, "a", Some((1, "2")));
    story.history.commits[2].answer = Answer::Committed(told_late);
    story.history.commits[2].end = Some(Moment(1_000));
    assert_caught(&story.report(), Rule::RealTime, "client 7");
}

#[test]
fn a_guard_refused_for_a_value_that_was_not_there_is_caught() {
    let mut story = good();
    let mut request = put("b", "x");
    request.guards.push(Guard {
        table: TABLE,
        key: bytes("a"),
        predicate: Predicate::Absent,
    });
    let refusal = |met: &str, version| Refusal::GuardFailed {
        index: 0,
        met: Some(bytes(met)),
        version: Some(Offset(version)),
        retry_at: Position(2),
    };
    story.call(3, request.clone(), Answer::Refused(refusal("2", 1)));
    assert!(story.report().is_clean(), "{}", story.report());
    story.call(4, request, Answer::Refused(refusal("1", 0)));
    assert_caught(&story.report(), Rule::WrongRefusal, &id(4));
}

#[test]
fn a_guard_may_not_fail_on_what_was_replaced_and_answered_before() {
    let mut guarded = put("a", "3");
    guarded.guards.push(Guard {
        table: TABLE,
        key: bytes("a"),
        predicate: Predicate::Absent,
    });
    let refusal = |met: &str, version, retry_at| Refusal::GuardFailed {
        index: 0,
        met: Some(bytes(met)),
        version: Some(Offset(version)),
        retry_at: Position(retry_at),
    };
    // Given another key that was written since, then a lower position is right;
    let mut story = good();
    story.commit(3, put("b", "1"));
    story.call(4, guarded.clone(), Answer::Refused(refusal("2", 1, 2)));
    assert!(story.report().is_clean(), "{}", story.report());
    // where the key itself was, it is not.
    story.call(5, guarded, Answer::Refused(refusal("1", 0, 1)));
    assert_caught(&story.report(), Rule::RealTime, &id(5));
}

#[test]
fn a_retry_that_is_acknowledged_as_new_is_caught() {
    let mut story = good();
    let answer = story.history.commits[1].answer.clone();
    let request = story.history.commits[1].request.clone();
    story.call(2, request, answer);
    assert_caught(&story.report(), Rule::IdForgotten, &id(2));
}

#[test]
fn a_retry_that_is_answered_as_repeated_is_right() {
    let mut story = good();
    let request = story.history.commits[1].request.clone();
    let Answer::Committed(first) = story.history.commits[1].answer else {
        panic!("the good story commits")
    };
    let repeated = Committed {
        repeated: true,
        ..first
    };
    story.call(2, request, Answer::Committed(repeated));
    assert!(story.report().is_clean(), "{}", story.report());
}

#[test]
fn a_retry_that_is_refused_after_the_acknowledgement_is_caught() {
    let mut story = good();
    let again = story.history.commits[1].request.clone();
    story.call(2, again, Answer::Refused(conflict(1, 2)));
    assert_caught(&story.report(), Rule::IdForgotten, &id(2));
}

#[test]
fn a_value_that_two_keys_have_in_a_unique_field_is_caught() {
    let mut story = Story::default();
    story.tables.push(TableDefinition {
        id: TABLE,
        name: "users".into(),
        kind: TableKind::Keyed,
        value: ValueKind::Json,
        schema: None,
        unique: vec![FieldPath::parse("name").unwrap()],
        dropped: false,
    });
    // (key, name that it gives up, name that it takes)
    let mut rename = |id: u128, key: &str, from: Option<&str>, to: &str| {
        let request = put(key, &json!({"name": to}).to_string());
        story.commit(id, request);
        let last = story.log.last_mut().unwrap();
        let row = |name: &str| {
            let value = onelog_record::JsonText::from(json!(name));
            onelog_commit::unique_row_key(TABLE, 0, &value.json())
        };
        let mut rows = vec![(row(to), Some(bytes(key)))];
        rows.extend(from.map(|from| (row(from), None)));
        for (row, owner) in rows {
            last.records.push(Record {
                offset: Offset(last.end.0),
                op: if owner.is_some() { Op::Put } else { Op::Delete },
                table: TABLE_UNIQUE,
                key: row,
                value: owner,
                headers: Vec::new(),
            });
            last.end = Position(last.end.0 + 1);
        }
        let Answer::Committed(answered) = &mut story.history.commits.last_mut().unwrap().answer
        else {
            panic!("it was committed")
        };
        answered.position = last.end;
        answered.records = last.records.len() as u32;
        story.report()
    };
    rename(1, "a", None, "eve");
    rename(2, "a", Some("eve"), "ada");
    let report = rename(3, "b", None, "eve");
    assert!(report.is_clean(), "{report}");
    assert_caught(&rename(4, "c", None, "eve"), Rule::NotUnique, &id(4));
    // The rows for unique values must say the same as the values.
    story.log.truncate(3);
    story.history.commits.truncate(3);
    story.log[2].records[1].value = Some(bytes("a"));
    assert_caught(&story.report(), Rule::WrongRecords, &id(3));
}

#[test]
fn a_validated_read_that_had_changed_is_caught() {
    let mut story = good();
    let mut request = having_read(put("a", ""), 1, "a");
    request.writes.clear();
    let answered = Committed {
        id: TxnId(3),
        position: Position(2),
        first_offset: Offset(2),
        records: 0,
        repeated: false,
    };
    story.call(3, request, Answer::Committed(answered));
    assert_caught(&story.report(), Rule::StaleRead, &id(3));
}
