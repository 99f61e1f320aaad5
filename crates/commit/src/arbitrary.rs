//! Arbitrary bytes as requests: nothing that a client can send may panic, and what is accepted can
//! be read back.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use onelog_record::{
    BodyWriter, CommitRequest, Compare, FieldPath, Guard, Header, JsonText, KeyRange, Number,
    Offset, Operation, PointRead, Position, Predicate, TableDefinition, TableId, TableKind,
    Transactions, TxnId, ValueKind, Write,
};
use serde_json::Value;

use crate::{
    Decision, Latest, Rules, TableRules, Validator, ValidatorOptions, View, ViewError, Written,
};

const FIRST_TABLE: u32 = 1024;

/// Reads bytes as if they never ended: behind the end there are zeroes.
struct Tape<'b> {
    bytes: &'b [u8],
}

impl Tape<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else {
            return 0;
        };
        self.bytes = rest;
        *first
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    fn number_u64(&mut self) -> u64 {
        match self.below(4) {
            0 => u64::MAX - u64::from(self.byte()),
            _ => u64::from(self.byte()),
        }
    }

    fn blob(&mut self) -> Bytes {
        let length = match self.byte() {
            255 => 5_000, // over the limit of a key
            n => usize::from(n % 24),
        };
        (0..length).map(|_| self.byte()).collect()
    }

    fn number(&mut self) -> Number {
        let word = u64::from_le_bytes(std::array::from_fn(|_| self.byte()));
        match self.below(5) {
            0 => Number::from(word),
            1 => Number::from(word as i64),
            2 => Number::try_from(f64::from_bits(word)).unwrap_or_else(|_| Number::from(0)),
            3 => self.written(),
            _ => Number::from(word % 8),
        }
    }

    /// Digits, points and exponents, as far as they make a number.
    fn written(&mut self) -> Number {
        const PARTS: &[u8; 16] = b"00123456789-.eE+";
        let text: String = (0..self.byte() % 48)
            .map(|_| PARTS[usize::from(self.below(16))] as char)
            .collect();
        Number::parse(&text).unwrap_or_else(|_| Number::from(1))
    }

    fn value(&mut self) -> JsonText {
        let value = match self.below(7) {
            6 => return JsonText::parse(self.written().as_str()).unwrap_or(Value::Null.into()),
            n => self.plain_value(n),
        };
        value.into()
    }

    fn plain_value(&mut self, kind: u8) -> Value {
        match kind {
            0 => (0..self.byte()).fold(Value::Null, |inner, _| Value::Array(vec![inner])),
            1 => Value::String(String::from_utf8_lossy(&self.blob()).into_owned()),
            2 => Value::from(self.number_u64()),
            3 => Value::Bool(true),
            4 => {
                let name = String::from_utf8_lossy(&self.blob()).into_owned();
                Value::Object(
                    [(name, Value::from(self.number_u64()))]
                        .into_iter()
                        .collect(),
                )
            }
            _ => serde_json::from_slice(&self.blob()).unwrap_or(Value::Null),
        }
    }

    fn path(&mut self) -> FieldPath {
        let text = match self.below(6) {
            0 => "/a".repeat(usize::from(self.byte())),
            1 => String::from_utf8_lossy(&self.blob()).into_owned(),
            2 => "/u/0".into(),
            3 => String::new(),
            _ => "u".into(),
        };
        FieldPath::parse(&text).unwrap_or_else(|_| FieldPath::whole())
    }

    fn table(&mut self) -> TableId {
        TableId(FIRST_TABLE + u32::from(self.below(6)))
    }

    fn operation(&mut self) -> Operation {
        match self.below(8) {
            0 => Operation::Put(self.value().to_string().into()),
            1 => Operation::Delete,
            2 => Operation::Add(self.path(), self.number()),
            3 => Operation::Min(self.path(), self.number()),
            4 => Operation::Max(self.path(), self.number()),
            5 => Operation::Append(self.path(), self.value()),
            6 => Operation::AppendBytes(self.blob()),
            _ => Operation::Put(self.blob()),
        }
    }

    fn predicate(&mut self) -> Predicate {
        match self.below(5) {
            0 => Predicate::Exists,
            1 => Predicate::Absent,
            2 => Predicate::Version(Offset(self.number_u64())),
            n => Predicate::Field {
                path: self.path(),
                compare: [Compare::Eq, Compare::Lt, Compare::Ge][usize::from(n) % 3],
                value: self.value(),
            },
        }
    }

    fn request(&mut self) -> CommitRequest {
        CommitRequest {
            id: (self.below(2) == 0).then(|| TxnId(u128::from(self.byte()))),
            read_position: (self.below(4) != 0).then(|| Position(self.number_u64())),
            point_reads: (0..self.below(3))
                .map(|_| PointRead {
                    table: self.table(),
                    key: self.blob(),
                })
                .collect(),
            range_reads: (0..self.below(3))
                .map(|_| KeyRange {
                    table: self.table(),
                    from: self.blob(),
                    to: (self.below(2) == 0).then(|| self.blob()),
                })
                .collect(),
            guards: (0..self.below(3))
                .map(|_| Guard {
                    table: self.table(),
                    key: self.blob(),
                    predicate: self.predicate(),
                })
                .collect(),
            writes: (0..self.below(20))
                .map(|_| Write {
                    table: self.table(),
                    key: self.blob(),
                    operation: self.operation(),
                    headers: (0..self.byte() / 128)
                        .map(|_| Header {
                            name: self.blob(),
                            value: self.blob(),
                        })
                        .collect(),
                })
                .collect(),
        }
    }
}

#[derive(Default)]
struct State {
    rows: BTreeMap<(TableId, Bytes), Latest>,
    position: Position,
    floor: Position,
}

impl View for State {
    fn newest(&self, table: TableId, key: &[u8]) -> Result<Option<Latest>, ViewError> {
        let at = (table, Bytes::copy_from_slice(key));
        Ok(self.rows.get(&at).cloned())
    }

    fn written_since(
        &self,
        range: &KeyRange,
        since: Position,
        _: &mut usize,
    ) -> Result<Written, ViewError> {
        let hit = self.rows.iter().find(|((table, key), latest)| {
            *table == range.table
                && *key >= range.from
                && range.to.as_ref().is_none_or(|to| key < to)
                && !since.sees(latest.version)
        });
        Ok(hit
            .map(|((_, key), latest)| (key.clone(), latest.version))
            .into())
    }

    fn floor(&self) -> Position {
        self.floor
    }

    fn position(&self) -> Position {
        self.position
    }
}

struct Tables(Vec<TableRules>);

impl Tables {
    fn new() -> Self {
        use TableKind::{Keyed, Stream};
        let kinds = [
            (Keyed, ValueKind::Json, false),
            (Keyed, ValueKind::Bytes, false),
            (Keyed, ValueKind::Json, true),
            (Stream, ValueKind::Json, false),
            (Keyed, ValueKind::Bytes, true),
        ];
        let tables = kinds.into_iter().zip(FIRST_TABLE..);
        Self(
            tables
                .map(|((kind, value, unique), id)| TableRules {
                    definition: Arc::new(TableDefinition {
                        id: TableId(id),
                        name: format!("fuzz.t{id}"),
                        kind,
                        value,
                        schema: None,
                        unique: if unique {
                            vec![FieldPath::whole(), Tape { bytes: &[4] }.path()]
                        } else {
                            Vec::new()
                        },
                        dropped: false,
                    }),
                    schema: None,
                })
                .collect(),
        )
    }
}

impl Rules for Tables {
    fn table(&self, table: TableId) -> Option<&TableRules> {
        self.0.iter().find(|rules| rules.definition.id == table)
    }
}

/// Reads `bytes` as up to sixteen requests and decides them, one after another.
fn decide_arbitrary(bytes: &[u8]) {
    let mut tape = Tape { bytes };
    let (mut state, tables) = (State::default(), Tables::new());
    let options = ValidatorOptions {
        window_writes_max: usize::from(tape.byte()),
        ids_max: usize::from(tape.byte()),
    };
    let mut validator = Validator::new(options, Position::ZERO, std::iter::empty());
    let mut next = Offset::ZERO;
    let mut entry_at = next;
    let mut body = BodyWriter::default();
    for turn in 0..16_u8 {
        if tape.bytes.is_empty() {
            return;
        }
        let request = tape.request();
        let id = request.id.unwrap_or(TxnId(1 << 64 | u128::from(turn)));
        let before = body.len();
        let decision = validator.decide(
            &request,
            id,
            request.fingerprint(),
            next,
            &state,
            &tables,
            &mut body,
        );
        match decision {
            Ok(Decision::Accepted(committed)) => {
                assert!(
                    body.len() > before,
                    "an accepted transaction is in the body"
                );
                next = Offset(committed.position.0);
            }
            Ok(_) => assert_eq!(body.len(), before, "only an accepted one leaves bytes"),
            Err(error) => unreachable!("this state can always be read: {error}"),
        }
        match tape.below(8) {
            0..3 => {
                let sealed = std::mem::take(&mut body).finish();
                apply(&mut state, sealed.into(), entry_at);
                validator.applied(state.position);
                entry_at = next;
            }
            3 => state.floor = state.position,
            4 => {
                validator.reset(state.position);
                body = BodyWriter::default();
                (next, entry_at) = (Offset(state.position.0), Offset(state.position.0));
            }
            _ => {}
        }
    }
}

fn apply(state: &mut State, body: Bytes, base: Offset) {
    state.position = state.position.max(Position(base.0));
    for transaction in Transactions::new(body, base) {
        let Ok(transaction) = transaction else {
            unreachable!("what was accepted can be read back: {transaction:?}")
        };
        for record in transaction.records().flatten() {
            state.position = record.offset.after();
            let latest = Latest {
                version: record.offset,
                value: record.value,
            };
            state.rows.insert((record.table, record.key), latest);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn arbitrary_requests_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            super::decide_arbitrary(&bytes);
        }
    }
}
