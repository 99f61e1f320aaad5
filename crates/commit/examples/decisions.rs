//! How long a decision takes: two point reads and two puts of 100 bytes over a million keys, some
//! 512 transactions in flight, one thread. Prints nanoseconds per transaction, median of five: of
//! the processor's time where the system tells it (Linux), else of the clock's.
//!
//! `cargo run --release -p onelog-commit --example decisions`

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;
use onelog_commit::{
    Decision, Latest, Rules, TableRules, Validator, ValidatorOptions, View, ViewError, Written,
};
use onelog_record::{
    BodyWriter, CommitRequest, KeyRange, Offset, Operation, PointRead, Position, TableDefinition,
    TableId, TableKind, TxnId, ValueKind, Write,
};

const KEYS: u64 = 1_000_000;
const ROUND: usize = 200_000;
const ROUNDS: usize = 5;
const IN_FLIGHT: usize = 512;
const ENTRY: usize = 64;
const TABLE: TableId = TableId(1024);

/// It is never read: the window covers every read position.
struct Applied(Position);

impl View for Applied {
    fn newest(&self, _: TableId, _: &[u8]) -> Result<Option<Latest>, ViewError> {
        Ok(None)
    }

    fn written_since(
        &self,
        _: &KeyRange,
        _: Position,
        _: &mut usize,
    ) -> Result<Written, ViewError> {
        Ok(Written::Nothing)
    }

    fn floor(&self) -> Position {
        Position::ZERO
    }

    fn position(&self) -> Position {
        self.0
    }
}

struct One(TableRules);

impl Rules for One {
    fn table(&self, table: TableId) -> Option<&TableRules> {
        (table == TABLE).then_some(&self.0)
    }
}

fn requests(seed: &mut u64) -> Vec<CommitRequest> {
    let value = Bytes::from(vec![b'v'; 100]);
    let mut key = || {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Bytes::from(format!("key:{:012}", (*seed >> 20) % KEYS))
    };
    let request = |_| {
        let keys = [key(), key()];
        CommitRequest {
            point_reads: keys
                .iter()
                .map(|key| PointRead {
                    table: TABLE,
                    key: key.clone(),
                })
                .collect(),
            writes: keys
                .into_iter()
                .map(|key| Write {
                    table: TABLE,
                    key,
                    operation: Operation::Put(value.clone()),
                    headers: Vec::new(),
                })
                .collect(),
            ..CommitRequest::default()
        }
    };
    (0..ROUND).map(request).collect()
}

/// How long this thread has run, in nanoseconds.
fn thread_time_ns() -> u128 {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| STARTED.elapsed().as_nanos())
}

fn main() -> Result<(), ViewError> {
    let rules = One(TableRules {
        definition: Arc::new(TableDefinition {
            id: TABLE,
            name: "bench.rows".into(),
            kind: TableKind::Keyed,
            value: ValueKind::Bytes,
            schema: None,
            unique: Vec::new(),
            dropped: false,
        }),
        schema: None,
    });
    let mut validator = Validator::new(
        ValidatorOptions::default(),
        Position::ZERO,
        std::iter::empty(),
    );
    let mut view = Applied(Position::ZERO);
    let (mut next, mut ids, mut seed) = (Offset::ZERO, 0u128, 1u64);
    let mut times = Vec::new();
    for round in 0..=ROUNDS {
        let mut requests = requests(&mut seed);
        let mut refused = 0u32;
        let mut sealed = VecDeque::new();
        let started = thread_time_ns();
        for entry in requests.chunks_mut(ENTRY) {
            let mut body = BodyWriter::default();
            for request in entry {
                request.read_position = Some(view.0);
                ids += 1;
                let id = TxnId(ids << 64 | ids);
                let decision = validator.decide(request, id, 7, next, &view, &rules, &mut body)?;
                match decision {
                    Decision::Accepted(committed) => next = Offset(committed.position.0),
                    _ => refused += 1,
                }
            }
            sealed.push_back((Position(next.0), body.finish()));
            if sealed.len() > IN_FLIGHT / ENTRY
                && let Some((end, _)) = sealed.pop_front()
            {
                view.0 = end;
                validator.applied(end);
            }
        }
        let each = (thread_time_ns() - started) / ROUND as u128;
        view.0 = Position(next.0);
        validator.applied(view.0);
        // The first round fills the window and the memory.
        if round > 0 {
            println!("{each} ns per transaction, {refused} of {ROUND} refused");
            times.push(each);
        }
    }
    times.sort_unstable();
    println!("median: {} ns", times[times.len() / 2]);
    Ok(())
}
