//! The engine, step by step, with a state that is a plain map and a disk that is a list.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use onelog_commit::{Latest, Rules, TableRules, ValidatorOptions, View, ViewError, Written};
use onelog_engine::{
    Applied, Effect, Engine, EngineOptions, Members, Prepared, Raft, RaftOptions, Submission,
};
use onelog_record::{
    CommitRequest, Committed, Compression, Entry, EntryKind, Index, KeyRange, NodeId, Offset,
    Operation, PointRead, Position, Refusal, TABLE_TABLES, TableDefinition, TableId, TableKind,
    Term, Transactions, TxnId, ValueKind, Write,
};

const TABLE: TableId = TableId(1024);

#[derive(Default)]
struct Model {
    rows: BTreeMap<(TableId, Bytes), (Offset, Option<Bytes>)>,
    position: Position,
}

impl View for Model {
    fn newest(&self, table: TableId, key: &[u8]) -> Result<Option<Latest>, ViewError> {
        let row = self.rows.get(&(table, Bytes::copy_from_slice(key)));
        Ok(row.map(|(version, value)| Latest {
            version: *version,
            value: value.clone(),
        }))
    }

    fn written_since(
        &self,
        range: &KeyRange,
        since: Position,
        _: &mut usize,
    ) -> Result<Written, ViewError> {
        let from = (range.table, range.from.clone());
        let rows = self.rows.range(from..).take_while(|((table, key), _)| {
            *table == range.table && range.to.as_ref().is_none_or(|to| key < to)
        });
        let mut written = rows.filter(|(_, (version, _))| !since.sees(*version));
        Ok(written
            .next()
            .map(|((_, key), (version, _))| (key.clone(), *version))
            .into())
    }

    fn floor(&self) -> Position {
        Position::ZERO
    }

    fn position(&self) -> Position {
        self.position
    }
}

fn new_raft() -> Raft {
    Raft::new(&RaftOptions {
        node: NodeId(1),
        members: Members::alone(NodeId(1)),
        term: Term(0),
        vote: 0,
        first: Index(1),
        terms: Vec::new(),
        committed: Index(0),
        committed_end: Position(0),
        uncommitted: Vec::new(),
        unapplied_bytes_max: 1 << 20,
        seed: 1,
    })
    .unwrap()
}

struct Tables(HashMap<TableId, TableRules>);

impl Rules for Tables {
    fn table(&self, table: TableId) -> Option<&TableRules> {
        self.0.get(&table)
    }
}

fn tables() -> Tables {
    let table = |id: TableId, name: &str| {
        let definition = TableDefinition {
            id,
            name: name.into(),
            kind: TableKind::Keyed,
            value: ValueKind::Json,
            schema: None,
            unique: Vec::new(),
            dropped: false,
        };
        (
            id,
            TableRules {
                definition: Arc::new(definition),
                schema: None,
            },
        )
    };
    Tables([table(TABLE, "t"), table(TABLE_TABLES, "onelog.tables")].into())
}

/// One node: what it has appended, what it has answered.
struct World {
    engine: Engine<u32>,
    model: Model,
    tables: Tables,
    log: Vec<Entry>,
    votes: Vec<(Term, u64)>,
    answers: Vec<(u32, Result<Committed, Refusal>)>,
    readable: Vec<(u32, Position)>,
    effects: Vec<Effect<u32>>,
}

impl World {
    fn starting_from(entries: Vec<Entry>) -> Self {
        let last = entries.last();
        let consensus = RaftOptions {
            node: NodeId(1),
            members: Members::alone(NodeId(1)),
            term: last.map_or(Term(0), |entry| entry.term),
            vote: 0,
            first: Index(1),
            terms: entries.iter().map(|e| (e.index, e.term)).collect(),
            committed: last.map_or(Index(0), |entry| entry.index),
            committed_end: last.map_or(Position(0), |entry| entry.header.end()),
            uncommitted: Vec::new(),
            unapplied_bytes_max: 1 << 20,
            seed: 1,
        };
        let consensus = Raft::new(&consensus).unwrap();
        let options = EngineOptions {
            compression: Compression::None,
            validator: ValidatorOptions::default(),
        };
        let mut world = Self {
            engine: Engine::new(options, consensus, Applied::default(), std::iter::empty()),
            model: Model::default(),
            tables: tables(),
            log: Vec::new(),
            votes: Vec::new(),
            answers: Vec::new(),
            readable: Vec::new(),
            effects: Vec::new(),
        };
        for entry in entries {
            world
                .engine
                .replay(entry.clone(), &mut world.effects)
                .unwrap();
            world.log.push(entry);
            world.carry_out();
        }
        world.engine.campaign(&mut world.effects).unwrap();
        world.carry_out();
        world
    }

    fn leading() -> Self {
        let mut world = Self::starting_from(Vec::new());
        world.flush();
        assert!(world.engine.admits());
        world
    }

    fn carry_out(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::SaveVote(term, vote) => self.votes.push((term, vote)),
                Effect::Append(entries) => self.log.extend(entries),
                Effect::Apply(entry, raw) => {
                    for transaction in Transactions::new(raw, entry.header.base_offset) {
                        for record in transaction.unwrap().records() {
                            let record = record.unwrap();
                            self.model
                                .rows
                                .insert((record.table, record.key), (record.offset, record.value));
                        }
                    }
                    self.model.position = entry.header.end();
                }
                Effect::Reply(ticket, answer) => self.answers.push((ticket, answer)),
                Effect::Readable(ticket, position) => self.readable.push((ticket, position)),
                other => panic!("one voter has no use for {other:?}"),
            }
        }
    }

    fn submit(&mut self, ticket: u32, request: CommitRequest) {
        let submission = Submission {
            id: request.id.unwrap_or(TxnId(u128::from(ticket))),
            fingerprint: request.fingerprint(),
            request,
            prepared: Prepared::default(),
            ticket,
        };
        self.engine
            .submit(submission, &self.model, &self.tables, &mut self.effects)
            .unwrap();
        self.carry_out();
    }

    fn resume(&mut self) {
        self.engine
            .resume(&self.model, &self.tables, &mut self.effects)
            .unwrap();
        self.carry_out();
    }

    fn seal(&mut self) {
        self.engine.seal(1_000, &mut self.effects).unwrap();
        self.carry_out();
    }

    fn flush_to(&mut self, index: Index) {
        self.engine.stored(index, &mut self.effects).unwrap();
        self.carry_out();
    }

    fn flush(&mut self) {
        self.flush_to(self.log.last().unwrap().index);
    }

    fn answered(&mut self) -> Vec<(u32, Result<Committed, Refusal>)> {
        std::mem::take(&mut self.answers)
    }
}

fn put(key: &str, value: &str) -> CommitRequest {
    put_into(TABLE, key, value)
}

fn put_into(table: TableId, key: &str, value: &str) -> CommitRequest {
    CommitRequest {
        writes: vec![Write {
            table,
            key: Bytes::copy_from_slice(key.as_bytes()),
            operation: Operation::Put(Bytes::copy_from_slice(value.as_bytes())),
            headers: Vec::new(),
        }],
        ..CommitRequest::default()
    }
}

fn read_then_put(at: Position, read: &str, key: &str) -> CommitRequest {
    CommitRequest {
        read_position: Some(at),
        point_reads: vec![PointRead {
            table: TABLE,
            key: Bytes::copy_from_slice(read.as_bytes()),
        }],
        ..put(key, "2")
    }
}

#[test]
fn nothing_is_admitted_before_the_first_entry_of_the_term_is_durable() {
    let mut world = World::starting_from(Vec::new());
    assert_eq!(world.votes, [(Term(1), 1)], "the vote is saved first");
    assert_eq!(world.log.len(), 1);
    assert_eq!(world.log[0].header.kind, EntryKind::NoOp);

    world.submit(1, put("a", "1"));
    assert_eq!(world.answered(), [(1, Err(Refusal::NotLeader))]);

    world.flush();
    assert!(world.engine.admits());
    assert_eq!(world.model.position, Position(0), "a no-op takes no offset");
}

#[test]
fn an_answer_waits_for_the_flush() {
    let mut world = World::leading();
    world.submit(1, put("a", "1"));
    world.submit(2, put("b", "1"));
    world.seal();
    assert_eq!(world.answered(), [], "appended is not durable");
    assert_eq!(world.log.len(), 2, "both are in one entry");

    world.flush();
    let answers = world.answered();
    let positions: Vec<_> = answers
        .iter()
        .map(|(ticket, answer)| (*ticket, answer.as_ref().unwrap().position))
        .collect();
    assert_eq!(positions, [(1, Position(1)), (2, Position(2))]);
    assert_eq!(world.model.position, Position(2));
}

#[test]
fn groups_in_flight_are_answered_in_order() {
    let mut world = World::leading();
    for ticket in 1..=3 {
        world.submit(ticket, put("k", &ticket.to_string()));
        world.seal();
    }
    let first = world.log[1].index;
    world.flush_to(first);
    assert_eq!(world.answered().len(), 1);
    world.flush();
    let tickets: Vec<_> = world.answered().iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!(tickets, [2, 3]);
}

#[test]
fn a_conflict_with_an_entry_in_flight_is_answered_only_when_that_is_committed() {
    let mut world = World::leading();
    world.submit(1, put("a", "1"));
    world.seal();
    world.submit(2, read_then_put(Position(0), "a", "b"));
    assert_eq!(
        world.answered(),
        [],
        "the write that it conflicts with may still be lost"
    );

    world.flush();
    let answers = world.answered();
    assert!(answers[0].1.is_ok());
    let (
        2,
        Err(Refusal::Conflict {
            version, retry_at, ..
        }),
    ) = &answers[1]
    else {
        panic!("{answers:?}");
    };
    assert_eq!((*version, *retry_at), (Offset(0), Position(1)));
    assert_eq!(
        world.model.position,
        Position(1),
        "reading at retry_at is possible now"
    );
}

#[test]
fn a_retry_of_a_request_in_flight_gets_the_same_answer() {
    let mut world = World::leading();
    let request = CommitRequest {
        id: Some(TxnId(77)),
        ..put("a", "1")
    };
    world.submit(1, request.clone());
    world.seal();
    world.submit(2, request.clone());
    assert_eq!(world.answered(), []);
    world.flush();
    world.submit(3, request);
    let answers: Vec<_> = world
        .answered()
        .into_iter()
        .map(|(ticket, answer)| (ticket, answer.unwrap()))
        .collect();
    let repeated: Vec<_> = answers
        .iter()
        .map(|(ticket, c)| (*ticket, c.position, c.repeated))
        .collect();
    assert_eq!(
        repeated,
        [
            (1, Position(1), false),
            (2, Position(1), true),
            (3, Position(1), true)
        ]
    );
    assert_eq!(world.log.len(), 2, "it is in the log once");
}

#[test]
fn requests_behind_a_change_of_the_catalog_wait_for_it() {
    let mut world = World::leading();
    world.submit(1, put_into(TABLE_TABLES, "new", "{}"));
    world.submit(2, put("a", "1"));
    world.seal();
    assert_eq!(
        world.log[1].header.transaction_count, 1,
        "the second one is not decided yet"
    );
    world.resume();
    assert!(world.engine.has_held(), "the change is not applied yet");

    world.flush();
    world.resume();
    world.seal();
    world.flush();
    let positions: Vec<_> = world
        .answered()
        .into_iter()
        .map(|(_, answer)| answer.unwrap().position)
        .collect();
    assert_eq!(positions, [Position(1), Position(2)]);
}

#[test]
fn a_restart_replays_the_log_and_remembers_its_ids() {
    let request = CommitRequest {
        id: Some(TxnId(5)),
        ..put("a", "1")
    };
    let mut world = World::leading();
    world.submit(1, request.clone());
    world.seal();
    world.flush();

    let mut again = World::starting_from(world.log);
    again.flush();
    assert_eq!(again.log.last().unwrap().term, Term(2));
    assert_eq!(again.model.position, Position(1));
    again.submit(2, request);
    let answers = again.answered();
    assert!(answers[0].1.as_ref().unwrap().repeated);
    again.submit(3, read_then_put(Position(0), "a", "b"));
    assert!(matches!(
        again.answered()[0].1,
        Err(Refusal::Conflict { .. })
    ));
}

#[test]
fn compressed_entries_are_applied_like_others() {
    let mut world = World::leading();
    let mut options = EngineOptions {
        compression: Compression::Zstd,
        validator: ValidatorOptions::default(),
    };
    for compression in [Compression::Lz4, Compression::Zstd] {
        options.compression = compression;
        world.engine = Engine::new(
            options.clone(),
            new_raft(),
            Applied::default(),
            std::iter::empty(),
        );
        world.model = Model::default();
        world.log.clear();
        world.engine.campaign(&mut world.effects).unwrap();
        world.carry_out();
        world.flush();
        let text = format!("\"{}\"", "long ".repeat(200));
        world.submit(1, put("a", &text));
        world.seal();
        assert_eq!(world.log[1].header.compression, compression);
        assert!(world.log[1].body.len() < text.len());
        world.flush();
        let row = world.model.newest(TABLE, b"a").unwrap().unwrap();
        assert_eq!(row.value.unwrap(), text.as_bytes());
    }
}

#[test]
fn a_read_barrier_shows_what_was_acknowledged_and_nothing_in_flight() {
    let mut world = World::leading();
    world.submit(1, put("a", "1"));
    world.seal();
    world.flush();
    world.submit(2, put("b", "1"));
    world.seal();
    world.engine.read_barrier(9, &mut world.effects).unwrap();
    world.carry_out();
    assert_eq!(world.readable, [(9, Position(1))]);
}

#[test]
fn no_barrier_before_the_first_entry_of_the_term_is_applied() {
    let mut world = World::starting_from(Vec::new());
    world.engine.read_barrier(9, &mut world.effects).unwrap();
    world.carry_out();
    assert_eq!(world.answered(), [(9, Err(Refusal::NotLeader))]);
    assert_eq!(world.readable, []);
}

#[test]
fn a_single_voter_stays_the_leader_however_often_it_ticks() {
    let mut world = World::leading();
    for _ in 0..1_000 {
        world.engine.tick(&mut world.effects).unwrap();
        world.carry_out();
    }
    assert!(world.engine.admits());
    assert_eq!(world.votes.len(), 1, "no further election");
    assert_eq!(world.log.len(), 1);
}
