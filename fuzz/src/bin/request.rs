//! Requests: arbitrary text through the parser of the HTTP door, and arbitrary requests, one after
//! another through a validator.
//!
//! An oracle that knows the last write of every key, applied or not, objects to any transaction
//! that was let through although something it read had changed.
#![no_main]

use std::collections::BTreeMap;

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{Result as Taken, Unstructured};
use libfuzzer_sys::fuzz_target;
use onelog_commit::{Decision, Validator, ValidatorOptions, View as _};
use onelog_fuzz::seeds;
use onelog_fuzz::world::{BLOBS, CLICKS, DOCUMENTS, TABLES, USERS, World};
use onelog_record::{
    BodyWriter, CommitRequest, Committed, Compare, FieldPath, Guard, Header, KeyRange, Number,
    Offset, Op, Operation, PointRead, Position, Predicate, Refusal, Subject, TableId, Transactions,
    TxnId, Write, nearest_name,
};
use onelog_request::{KnownTable, Tables, parse_request};
use serde_json::{Value, json};

const STEPS_MAX: usize = 24;
/// Small windows, so that short histories go over their ends.
const OPTIONS: ValidatorOptions = ValidatorOptions {
    window_writes_max: 8,
    ids_max: 6,
};

fuzz_target!(init: seeds::hand_out(make_seeds), |data: &[u8]| {
    let Some((way, bytes)) = data.split_first() else {
        return;
    };
    let mut run = Run::new();
    if way % 2 == 0 {
        for body in bytes.split(|byte| *byte == b'\n').take(STEPS_MAX) {
            run.text(body);
        }
    } else {
        // Input that ends early is simply a shorter history.
        let _ = run.history(&mut Unstructured::new(bytes));
    }
    run.end();
});

struct Known;

impl Tables for Known {
    fn table(&self, name: &str) -> Option<KnownTable> {
        let (_, id, kind, value) = TABLES.into_iter().find(|table| table.0 == name)?;
        Some(KnownTable { id, kind, value })
    }

    fn nearest(&self, name: &str) -> Option<String> {
        nearest_name(name, TABLES.map(|table| table.0)).map(str::to_owned)
    }
}

struct Run {
    world: World,
    validator: Validator,
    /// The bodies of accepted transactions that are not applied.
    open: Vec<u8>,
    whole: Vec<u8>,
    next: Offset,
    /// The last write of each key, and whether the key is there since.
    last_writes: BTreeMap<(TableId, Bytes), (Offset, bool)>,
}

impl Run {
    fn new() -> Self {
        Self {
            world: World::default(),
            validator: Validator::new(OPTIONS, Position::ZERO, std::iter::empty()),
            open: Vec::new(),
            whole: Vec::new(),
            next: Offset::ZERO,
            last_writes: BTreeMap::new(),
        }
    }

    fn text(&mut self, body: &[u8]) {
        match parse_request(body, &Known) {
            Ok(parsed) => {
                parsed
                    .request
                    .check_limits()
                    .expect("the parser checks the limits");
                let again = parse_request(body, &Known).expect("it was parsed before");
                assert_eq!(again, parsed);
                let decision = self.decide(&parsed.request);
                if let Decision::Refused {
                    refusal: Refusal::Conflict { subject, .. },
                    ..
                } = decision
                {
                    assert!(parsed.place(&subject).starts_with("reads["));
                }
                assert!(parsed.place(&Subject::Write(0)).starts_with("writes["));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        if body.len() % 3 == 0 {
            self.apply();
        }
    }

    fn history(&mut self, input: &mut Unstructured<'_>) -> Taken<()> {
        for _ in 0..STEPS_MAX {
            if input.is_empty() {
                break;
            }
            match input.int_in_range(0..=9)? {
                0 => self.apply(),
                1 => {
                    self.apply();
                    self.world.forget_deletes();
                }
                2 => self.new_term(),
                _ => {
                    let request = request(input, self.next)?;
                    self.decide(&request);
                }
            }
        }
        Ok(())
    }

    fn decide(&mut self, request: &CommitRequest) -> Decision {
        let made = TxnId(1 << 64 | u128::from(self.next.0));
        let id = request.id.unwrap_or(made);
        let (decision, body) = self.submit(request, id);
        assert_eq!(!body.is_empty(), matches!(decision, Decision::Accepted(_)));
        match &decision {
            Decision::Accepted(committed) => {
                assert!(!request.writes.is_empty());
                assert_eq!(committed.id, id);
                self.assert_let_through(request);
                self.accept(committed, body, request.fingerprint());
                let (again, _) = self.submit(request, id);
                let repeated = Committed {
                    repeated: true,
                    ..*committed
                };
                assert_eq!(again, Decision::Repeated(repeated));
            }
            Decision::Validated(committed) => {
                assert!(request.writes.is_empty());
                assert_eq!(committed.position, Position(self.next.0));
                self.assert_let_through(request);
            }
            Decision::Repeated(committed) => assert!(committed.position.0 <= self.next.0),
            Decision::Refused { refusal, after } => {
                assert!(after.0 <= self.next.0);
                assert!(!refusal.to_string().is_empty());
            }
        }
        decision
    }

    fn submit(&mut self, request: &CommitRequest, id: TxnId) -> (Decision, Bytes) {
        let mut body = BodyWriter::default();
        let decision = self
            .validator
            .decide(
                request,
                id,
                request.fingerprint(),
                self.next,
                &self.world,
                &self.world,
                &mut body,
            )
            .expect("the world in memory can be read");
        (decision, body.finish().into())
    }

    fn accept(&mut self, committed: &Committed, body: Bytes, fingerprint: u64) {
        self.open.extend_from_slice(&body);
        self.whole.extend_from_slice(&body);
        let mut transactions = Transactions::new(body, self.next);
        let transaction = transactions
            .next()
            .expect("a transaction was written")
            .expect("it can be read");
        assert!(transactions.next().is_none(), "one transaction was written");
        assert_eq!(
            (transaction.id, transaction.fingerprint),
            (committed.id, fingerprint)
        );
        assert_eq!(transaction.record_count, committed.records);
        assert_eq!(committed.first_offset, self.next);
        for record in transaction.records() {
            let record = record.expect("it can be read");
            self.next = Offset(record.offset.0 + 1);
            if record.op == Op::Event {
                assert_eq!(record.table, CLICKS);
            } else {
                let last = (record.offset, record.op != Op::Delete);
                self.last_writes.insert((record.table, record.key), last);
            }
        }
        assert_eq!(committed.position, Position(self.next.0));
    }

    fn apply(&mut self) {
        self.world.apply(&std::mem::take(&mut self.open).into());
        self.validator.applied(self.world.position());
    }

    /// What is not applied is forgotten and replayed, as after an election.
    fn new_term(&mut self) {
        let applied = self.world.position();
        self.validator.reset(applied);
        self.validator
            .replay(&self.open.clone().into(), applied.next_offset())
            .expect("the validator reads what it wrote");
    }

    fn end(mut self) {
        self.apply();
        self.world.assert_rules();
        assert_eq!(self.world.position(), Position(self.next.0));
        Validator::new(OPTIONS, Position::ZERO, std::iter::empty())
            .replay(&self.whole.into(), Offset::ZERO)
            .expect("the validator reads what it wrote");
    }

    fn assert_let_through(&self, request: &CommitRequest) {
        let since = request.read_position.unwrap_or_default();
        let unseen = |(offset, _): &(Offset, bool)| !since.sees(*offset);
        for read in &request.point_reads {
            let last = self.last_writes.get(&(read.table, read.key.clone()));
            assert!(
                !last.is_some_and(unseen),
                "a changed key was overlooked: {read:?}"
            );
        }
        for read in &request.range_reads {
            let changed = self.last_writes.iter().any(|((table, key), last)| {
                *table == read.table
                    && *key >= read.from
                    && read.to.as_ref().is_none_or(|to| key < to)
                    && unseen(last)
            });
            assert!(!changed, "a changed range was overlooked: {read:?}");
        }
        for guard in &request.guards {
            let last = self.last_writes.get(&(guard.table, guard.key.clone()));
            let live = last.filter(|(_, is_there)| *is_there);
            let holds = match &guard.predicate {
                Predicate::Exists => live.is_some(),
                Predicate::Absent => live.is_none(),
                Predicate::Version(wanted) => live.is_some_and(|(found, _)| found == wanted),
                Predicate::Field { .. } => true,
            };
            assert!(holds, "a guard was overlooked: {guard:?}");
        }
    }
}

const KEYS: [&str; 5] = ["", "a", "a\0", "ab", "b"];
const PATHS: [&str; 6] = ["", "name", "/n", "/list", "/list/0", "/deep/er"];

fn request(input: &mut Unstructured<'_>, next: Offset) -> Taken<CommitRequest> {
    let mut request = CommitRequest::default();
    if input.ratio(1, 3)? {
        request.id = Some(TxnId(input.int_in_range(1..=12)?));
    }
    if input.ratio(2, 3)? {
        let behind = input.int_in_range(0..=10)?;
        request.read_position = Some(Position(next.0.saturating_sub(behind)));
    }
    for _ in 0..input.int_in_range(0..=2)? {
        let (table, key) = (table(input)?, key(input)?);
        request.point_reads.push(PointRead { table, key });
    }
    if input.ratio(1, 4)? {
        request.range_reads.push(KeyRange {
            table: table(input)?,
            from: key(input)?,
            to: if input.arbitrary()? {
                Some(key(input)?)
            } else {
                None
            },
        });
    }
    if input.ratio(1, 4)? {
        request.guards.push(Guard {
            table: table(input)?,
            key: key(input)?,
            predicate: predicate(input, next)?,
        });
    }
    for _ in 0..input.int_in_range(0..=4)? {
        request.writes.push(write(input)?);
    }
    Ok(request)
}

fn table(input: &mut Unstructured<'_>) -> Taken<TableId> {
    const ALL: [TableId; 8] = [
        DOCUMENTS,
        DOCUMENTS,
        USERS,
        USERS,
        BLOBS,
        CLICKS,
        TableId(3),
        TableId(9999),
    ];
    Ok(*input.choose(&ALL)?)
}

fn key(input: &mut Unstructured<'_>) -> Taken<Bytes> {
    if input.ratio(1, 20)? {
        return Ok(Bytes::copy_from_slice(input.arbitrary()?));
    }
    Ok(Bytes::from_static(input.choose(&KEYS)?.as_bytes()))
}

fn path(input: &mut Unstructured<'_>) -> Taken<FieldPath> {
    let text = if input.ratio(1, 10)? {
        input.arbitrary()?
    } else {
        *input.choose(&PATHS)?
    };
    Ok(FieldPath::parse(text).unwrap_or_else(|_| FieldPath::whole()))
}

fn value(input: &mut Unstructured<'_>) -> Taken<Value> {
    Ok(match input.int_in_range(0..=7)? {
        0 => Value::Null,
        1 => json!(input.arbitrary::<i64>()?),
        2 => json!(input.arbitrary::<u64>()?),
        3 => json!(input.arbitrary::<f64>()?),
        4 => json!(input.arbitrary::<&str>()?),
        5 => json!([input.int_in_range(0..=3)?, input.arbitrary::<bool>()?]),
        6 => json!({"name": input.choose(&["ann", "bob", "eve"])?, "n": input.arbitrary::<i8>()?}),
        _ => json!({"name": input.arbitrary::<i8>()?, "list": [1], "deep": {"er": 0.5}}),
    })
}

fn number(input: &mut Unstructured<'_>) -> Taken<Number> {
    Ok(match input.int_in_range(0..=4)? {
        0 => Number::from(input.arbitrary::<i64>()?),
        1 => Number::from(input.arbitrary::<u64>()?),
        2 => Number::try_from(input.arbitrary::<f64>()?).unwrap_or_else(|_| i64::MAX.into()),
        3 => decimal(input)?,
        _ => Number::from(input.arbitrary::<i8>()?),
    })
}

/// More digits than any number of the machine has.
fn decimal(input: &mut Unstructured<'_>) -> Taken<Number> {
    let (whole, part) = (input.arbitrary::<i128>()?, input.arbitrary::<u64>()?);
    let exponent = input.int_in_range(-40..=40)?;
    let text = format!("{whole}.{part}e{exponent}");
    Ok(Number::parse(&text).expect("it is written as JSON writes numbers"))
}

fn predicate(input: &mut Unstructured<'_>, next: Offset) -> Taken<Predicate> {
    const ALL: [Compare; 6] = [
        Compare::Eq,
        Compare::Ne,
        Compare::Lt,
        Compare::Le,
        Compare::Gt,
        Compare::Ge,
    ];
    Ok(match input.int_in_range(0..=3)? {
        0 => Predicate::Exists,
        1 => Predicate::Absent,
        2 => Predicate::Version(Offset(next.0.saturating_sub(input.int_in_range(0..=6)?))),
        _ => Predicate::Field {
            path: path(input)?,
            compare: *input.choose(&ALL)?,
            value: value(input)?.into(),
        },
    })
}

fn write(input: &mut Unstructured<'_>) -> Taken<Write> {
    let operation = match input.int_in_range(0..=9)? {
        0 => Operation::Delete,
        1 => Operation::Add(path(input)?, number(input)?),
        2 => Operation::Min(path(input)?, number(input)?),
        3 => Operation::Max(path(input)?, number(input)?),
        4 => Operation::Append(path(input)?, value(input)?.into()),
        5 => Operation::AppendBytes(Bytes::copy_from_slice(input.arbitrary()?)),
        6 => Operation::Put(Bytes::copy_from_slice(input.arbitrary()?)),
        _ => Operation::Put(value(input)?.to_string().into()),
    };
    let mut headers = Vec::new();
    if input.ratio(1, 10)? {
        headers.push(Header {
            name: Bytes::from_static(b"why"),
            value: Bytes::copy_from_slice(input.arbitrary()?),
        });
    }
    Ok(Write {
        table: table(input)?,
        key: key(input)?,
        operation,
        headers,
    })
}

fn make_seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"writes":[{"op":"put","table":"shop.documents","key":"1","value":{"a":[1.5,"x",null]}}]}"#,
        r#"{"id":"01900000-0000-7000-8000-000000000001","read_position":0,"reads":[{"table":"shop.users","key":"a"},{"table":"shop.users","prefix":"b"},{"table":"shop.documents","from":"","to":"z"}],"writes":[{"op":"add","table":"shop.documents","key":"n","field":"/n","by":2}]}"#,
        r#"{"guards":[{"table":"shop.users","key":"a","absent":true},{"table":"shop.documents","key":"n","field":"/n","ge":1},{"table":"shop.documents","key":"n","version":3}],"writes":[{"op":"put","table":"shop.users","key":"a","value":{"name":"ann"},"headers":{"why":"test"}}]}"#,
        r#"{"writes":[{"op":"append","table":"shop.blobs","key":{"base64":"/w=="},"value":{"base64":"AP8="}},{"op":"append","table":"shop.documents","key":"l","field":"/tags","value":"x"}]}"#,
        r#"{"writes":[{"op":"min","table":"shop.documents","key":"m","field":"low","by":-1.5},{"op":"max","table":"shop.documents","key":"m","by":18446744073709551615},{"op":"delete","table":"shop.blobs","key":"b"},{"op":"put","table":"shop.clicks","key":"","value":"é"}]}"#,
        r#"{"wait_for":["cache","search"],"wait_timeout_ms":2500,"writes":[{"op":"put","table":"shop.clicks","key":"c","value":1}]}"#,
    ];
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|text| seed(0, text.as_bytes())).collect();
    seeds.push(seed(0, texts.join("\n").as_bytes()));
    // Any bytes are a history: these are some that are long enough for several requests.
    for step in [1u8, 7, 29, 113] {
        let bytes: Vec<u8> = (0..600u32)
            .map(|n| (n * n) as u8 ^ step.wrapping_mul(n as u8))
            .collect();
        seeds.push(seed(1, &bytes));
    }
    seeds
}

fn seed(way: u8, bytes: &[u8]) -> Vec<u8> {
    [&[way], bytes].concat()
}
