//! A small log with its state, and requests in short form.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use onelog_commit::{
    Decision, Latest, Rules, Schema, SchemaFault, TableRules, Validator, ValidatorOptions, View,
    ViewError, Written,
};
use onelog_record::{
    BodyWriter, CommitRequest, Committed, Compare, FieldPath, Guard, Json, KeyRange, Number,
    Offset, Op, Operation, PointRead, Position, Predicate, Record, Refusal, TABLE_UNIQUE,
    TableDefinition, TableId, TableKind, Transactions, TxnId, ValueKind, Write,
};
use serde_json::Value;

pub const STOCK: TableId = TableId(1024);
pub const BLOBS: TableId = TableId(1025);
pub const USERS: TableId = TableId(1026);
pub const EVENTS: TableId = TableId(1027);
pub const STRICT: TableId = TableId(1028);
pub const UNKNOWN: TableId = TableId(4000);

#[derive(Debug)]
struct HasName;

impl Schema for HasName {
    fn check(&self, value: &Json<'_>, steps: &mut usize) -> Result<(), SchemaFault> {
        if let Some(Json::Number(needed)) = value.get(&path("steps")) {
            let left = steps.checked_sub(needed.parse().unwrap());
            *steps = left.ok_or(SchemaFault::OutOfSteps)?;
        }
        match value.get(&path("name")) {
            Some(Json::String(_)) => Ok(()),
            _ => Err(SchemaFault::Breaks("'name' must be a text".into())),
        }
    }
}

#[derive(Debug)]
pub struct Tables(Vec<TableRules>);

impl Rules for Tables {
    fn table(&self, table: TableId) -> Option<&TableRules> {
        self.0.iter().find(|rules| rules.definition.id == table)
    }
}

fn tables() -> Tables {
    let keyed = TableKind::Keyed;
    let all = [
        (STOCK, "shop.stock", keyed, ValueKind::Json),
        (BLOBS, "shop.blobs", keyed, ValueKind::Bytes),
        (USERS, "shop.users", keyed, ValueKind::Json),
        (EVENTS, "shop.events", TableKind::Stream, ValueKind::Json),
        (STRICT, "shop.strict", keyed, ValueKind::Json),
        (TABLE_UNIQUE, "onelog.unique", keyed, ValueKind::Bytes),
    ];
    let rules = all.map(|(id, name, kind, value)| TableRules {
        definition: Arc::new(TableDefinition {
            id,
            name: name.into(),
            kind,
            value,
            schema: None,
            unique: if id == USERS {
                vec![path("name"), path("/mail/work")]
            } else {
                Vec::new()
            },
            dropped: false,
        }),
        schema: (id == STRICT).then(|| Arc::new(HasName) as Arc<dyn Schema>),
    });
    Tables(rules.into())
}

#[derive(Debug, Default)]
pub struct State {
    rows: BTreeMap<(TableId, Bytes), Latest>,
    pub position: Position,
    pub floor: Position,
    pub unreadable: bool,
    /// How many steps a look at one row costs beyond the first.
    pub steps_per_row: usize,
}

impl View for State {
    fn newest(&self, table: TableId, key: &[u8]) -> Result<Option<Latest>, ViewError> {
        if self.unreadable {
            return Err(ViewError("the disk is gone".into()));
        }
        let at = (table, Bytes::copy_from_slice(key));
        let latest = self.rows.get(&at).cloned();
        Ok(latest.filter(|l| l.value.is_some() || !self.floor.sees(l.version)))
    }

    fn written_since(
        &self,
        range: &KeyRange,
        since: Position,
        steps: &mut usize,
    ) -> Result<Written, ViewError> {
        let rows = self.rows.iter().filter(|((table, key), _)| {
            *table == range.table
                && *key >= range.from
                && range.to.as_ref().is_none_or(|to| key < to)
        });
        for ((_, key), latest) in rows {
            let Some(left) = steps.checked_sub(1 + self.steps_per_row) else {
                return Ok(Written::OutOfSteps);
            };
            *steps = left;
            if !since.sees(latest.version) {
                return Ok(Written::At(key.clone(), latest.version));
            }
        }
        Ok(Written::Nothing)
    }

    fn floor(&self) -> Position {
        self.floor
    }

    fn position(&self) -> Position {
        self.position
    }
}

/// The log of one node: every accepted transaction is an entry of its own, in flight until applied.
#[derive(Debug)]
pub struct Node {
    pub validator: Validator,
    pub state: State,
    pub next: Offset,
    tables: Tables,
    in_flight: Vec<(Offset, Bytes)>,
    ids: u128,
}

impl Node {
    pub fn new() -> Self {
        Self::with(ValidatorOptions::default())
    }

    pub fn with(options: ValidatorOptions) -> Self {
        Self {
            validator: Validator::new(options, Position::ZERO, std::iter::empty()),
            state: State::default(),
            next: Offset::ZERO,
            tables: tables(),
            in_flight: Vec::new(),
            ids: 0,
        }
    }

    pub fn try_decide(&mut self, request: &CommitRequest) -> Result<Decision, ViewError> {
        self.ids += 1;
        let id = request.id.unwrap_or(TxnId(1 << 100 | self.ids));
        // Something is before the transaction in the body, and must still do so afterwards.
        let mut body = BodyWriter::with_prefix(4);
        let decision = self.validator.decide(
            request,
            id,
            request.fingerprint(),
            self.next,
            &self.state,
            &self.tables,
            &mut body,
        );
        if let Ok(Decision::Accepted(committed)) = &decision {
            assert_eq!(
                u64::from(body.records()),
                committed.position.0 - self.next.0
            );
            let body = Bytes::from(body.finish()).slice(4..);
            self.in_flight.push((self.next, body));
            self.next = Offset(committed.position.0);
        } else {
            assert!(body.is_empty() && body.transactions() == 0);
        }
        decision
    }

    pub fn decide(&mut self, request: &CommitRequest) -> Decision {
        self.try_decide(request).unwrap()
    }

    /// Decides what must be accepted.
    pub fn accept(&mut self, request: &CommitRequest) -> Committed {
        match self.decide(request) {
            Decision::Accepted(committed) => committed,
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// Decides what must be refused.
    pub fn refuse(&mut self, request: &CommitRequest) -> (Refusal, u64) {
        match self.decide(request) {
            Decision::Refused { refusal, after } => (refusal, after.0),
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Accepts and applies.
    pub fn commit(&mut self, request: &CommitRequest) -> Committed {
        let committed = self.accept(request);
        self.apply();
        committed
    }

    /// Applies everything in flight.
    pub fn apply(&mut self) {
        for (base, body) in std::mem::take(&mut self.in_flight) {
            for record in records(&body, base) {
                self.state.position = record.offset.after();
                let latest = Latest {
                    version: record.offset,
                    value: record.value,
                };
                self.state.rows.insert((record.table, record.key), latest);
            }
        }
        self.validator.applied(self.state.position);
    }

    /// The records of the transaction that was accepted last and is in flight.
    pub fn last_records(&self) -> Vec<Record> {
        let (base, body) = self.in_flight.last().unwrap();
        records(body, *base)
    }

    /// The entries in flight, and forgets them: their term is over.
    pub fn lose(&mut self) -> Vec<(Offset, Bytes)> {
        self.next = Offset(self.state.position.0);
        self.validator.reset(self.state.position);
        std::mem::take(&mut self.in_flight)
    }

    /// An entry that another leader put into the log.
    pub fn replay(&mut self, base: Offset, body: Bytes) {
        self.validator.replay(&body, base).unwrap();
        self.next = records(&body, base).last().unwrap().offset;
        self.next = Offset(self.next.0 + 1);
        self.in_flight.push((base, body));
    }
}

fn records(body: &Bytes, base: Offset) -> Vec<Record> {
    let transactions = Transactions::new(body.clone(), base);
    transactions
        .flat_map(|transaction| transaction.unwrap().records().collect::<Vec<_>>())
        .map(Result::unwrap)
        .collect()
}

/// What a record says, in one line.
pub fn line(record: &Record) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let op = match record.op {
        Op::Put => "put",
        Op::Delete => "delete",
        Op::Event => "event",
    };
    let value = record.value.as_ref().map(text).unwrap_or_default();
    format!("{op} {} {value}", text(&record.key))
}

pub fn path(text: &str) -> FieldPath {
    FieldPath::parse(text).unwrap()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn new_request() -> CommitRequest {
    CommitRequest::default()
}

/// A request, part by part.
pub trait RequestParts: Sized {
    fn id(self, id: u128) -> Self;
    fn at(self, position: u64) -> Self;
    fn read(self, table: TableId, key: &str) -> Self;
    fn scan(self, table: TableId, from: &str, to: &str) -> Self;
    fn guard(self, table: TableId, key: &str, predicate: Predicate) -> Self;
    fn write(self, table: TableId, key: &str, operation: Operation) -> Self;

    fn field(self, key: &str, field: &str, compare: Compare, value: Value) -> Self {
        let predicate = Predicate::Field {
            path: path(field),
            compare,
            value: value.into(),
        };
        self.guard(STOCK, key, predicate)
    }

    fn put(self, table: TableId, key: &str, value: &str) -> Self {
        self.write(table, key, Operation::Put(bytes(value)))
    }

    fn delete(self, table: TableId, key: &str) -> Self {
        self.write(table, key, Operation::Delete)
    }

    fn add(self, table: TableId, key: &str, field: &str, by: i64) -> Self {
        self.write(table, key, Operation::Add(path(field), Number::from(by)))
    }
}

impl RequestParts for CommitRequest {
    fn id(mut self, id: u128) -> Self {
        self.id = Some(TxnId(id));
        self
    }

    fn at(mut self, position: u64) -> Self {
        self.read_position = Some(Position(position));
        self
    }

    fn read(mut self, table: TableId, key: &str) -> Self {
        let key = bytes(key);
        self.point_reads.push(PointRead { table, key });
        self
    }

    fn scan(mut self, table: TableId, from: &str, to: &str) -> Self {
        let (from, to) = (bytes(from), Some(bytes(to)));
        self.range_reads.push(KeyRange { table, from, to });
        self
    }

    fn guard(mut self, table: TableId, key: &str, predicate: Predicate) -> Self {
        self.guards.push(Guard {
            table,
            key: bytes(key),
            predicate,
        });
        self
    }

    fn write(mut self, table: TableId, key: &str, operation: Operation) -> Self {
        self.writes.push(Write {
            table,
            key: bytes(key),
            operation,
            headers: Vec::new(),
        });
        self
    }
}
