//! Random requests over few tables, few keys and few values, so that they meet.

use bytes::Bytes;
use onelog_record::{
    CommitRequest, Compare, FieldPath, Guard, Header, JsonText, KeyRange, Number, Offset,
    Operation, PointRead, Position, Predicate, TABLE_UNIQUE, TableId, TxnId, Write,
};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::oracle::Oracle;
use super::world::{BYTES, CHECKED, DROPPED, JSON, STREAM, UNIQUE};

const KEYS: [&str; 7] = ["", "a", "ab", "b", "c", "d", "e"];
/// Numbers that no float tells apart, and one number in several forms.
const LONG: [&str; 8] = [
    "10000000000000000000000001",
    "10000000000000000000000001.0",
    "1e25",
    "12345678901234567.89",
    "12345678901234567.88",
    "0.10",
    "0.1",
    "-1E-7",
];
const PATHS: [&str; 9] = ["n", "u", "/v/w", "l", "", "/l/0", "s", "n", "/v"];

fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

pub fn key(rng: &mut StdRng) -> Bytes {
    Bytes::from_static(pick(rng, &KEYS).as_bytes())
}

fn keyed_table(rng: &mut StdRng) -> TableId {
    match rng.random_range(0..100) {
        0..40 => JSON,
        40..55 => BYTES,
        55..70 => CHECKED,
        70..95 => UNIQUE,
        95..98 => TABLE_UNIQUE,
        98 => STREAM,
        _ => DROPPED,
    }
}

fn path(rng: &mut StdRng) -> FieldPath {
    FieldPath::parse(pick(rng, &PATHS)).unwrap()
}

fn number(rng: &mut StdRng) -> Number {
    let value = match rng.random_range(0..40) {
        0 => json!(i64::MAX),
        1 => json!(i64::MIN),
        2 => json!(u64::MAX),
        3 => json!(1e308),
        4..8 => json!(f64::from(rng.random_range(-8..8)) / 2.0),
        8..12 => return Number::parse(pick(rng, &LONG)).unwrap(),
        _ => json!(rng.random_range(-3..6)),
    };
    Number::parse(&value.to_string()).unwrap()
}

fn scalar(rng: &mut StdRng) -> JsonText {
    let value = match rng.random_range(0..10) {
        0 => Value::Null,
        1 => json!(pick(rng, &["x", "y", ""])),
        2 => json!(true),
        3 => json!([1]),
        4 => json!({"b": 1, "a": 2.0}),
        _ => return JsonText::parse(number(rng).as_str()).unwrap(),
    };
    value.into()
}

fn document(rng: &mut StdRng) -> JsonText {
    if rng.random_ratio(1, 12) {
        return scalar(rng);
    }
    let mut document = json!({});
    if rng.random_ratio(2, 3) {
        document["n"] = json!(rng.random_range(0..60));
    }
    if rng.random_ratio(1, 2) {
        document["u"] = match rng.random_range(0..6) {
            0 => json!("unique"),
            n => json!(n),
        };
    }
    if rng.random_ratio(1, 3) {
        document["v"] = json!({"w": pick(rng, &["p", "q", "r", "s"])});
    }
    if rng.random_ratio(1, 4) {
        document["l"] = json!([rng.random_range(0..3)]);
    }
    if rng.random_ratio(1, 4) {
        document["s"] = json!("text");
    }
    // A field that holds any number, written as it is.
    let text = document.to_string();
    if text != "{}" && document.get("u").is_none() && rng.random_ratio(1, 3) {
        let rest = text.trim_start_matches('{');
        return JsonText::parse(&format!("{{\"u\":{},{rest}", scalar(rng))).unwrap();
    }
    document.into()
}

fn value(rng: &mut StdRng, table: TableId) -> Bytes {
    if table == BYTES || table == TABLE_UNIQUE {
        return key(rng);
    }
    document(rng).to_string().into()
}

fn operation(rng: &mut StdRng, table: TableId) -> Operation {
    let kind = match table {
        STREAM => rng.random_range(0..31),
        BYTES => [0, 0, 30, 98, 98, 98, 70][rng.random_range(0..7)],
        _ => rng.random_range(0..99),
    };
    match kind {
        0..30 => Operation::Put(value(rng, table)),
        30..45 => Operation::Delete,
        45..65 => Operation::Add(path(rng), number(rng)),
        65..73 => Operation::Min(path(rng), number(rng)),
        73..81 => Operation::Max(path(rng), number(rng)),
        81..98 => Operation::Append(path(rng), scalar(rng)),
        _ => Operation::AppendBytes(key(rng)),
    }
}

fn write(rng: &mut StdRng) -> Write {
    let table = match rng.random_range(0..60) {
        0 => DROPPED,
        1..4 => STREAM,
        n if n < 25 => JSON,
        n if n < 33 => BYTES,
        n if n < 42 => CHECKED,
        _ => UNIQUE,
    };
    let headers = if rng.random_ratio(1, 10) {
        vec![Header {
            name: key(rng),
            value: key(rng),
        }]
    } else {
        Vec::new()
    };
    Write {
        table,
        key: key(rng),
        operation: operation(rng, table),
        headers,
    }
}

fn guard(rng: &mut StdRng, oracle: &Oracle) -> Guard {
    let table = keyed_table(rng);
    let key = key(rng);
    let compares = [
        Compare::Eq,
        Compare::Ne,
        Compare::Lt,
        Compare::Le,
        Compare::Gt,
        Compare::Ge,
    ];
    let last = oracle.versions(table, &key).last();
    let predicate = match rng.random_range(0..6) {
        0 => Predicate::Exists,
        1 => Predicate::Absent,
        2 => {
            let near = last.map_or(0, |version| version.offset);
            Predicate::Version(Offset(near + u64::from(rng.random_ratio(1, 5))))
        }
        _ => Predicate::Field {
            path: path(rng),
            compare: pick(rng, &compares),
            value: scalar(rng),
        },
    };
    Guard {
        table,
        key,
        predicate,
    }
}

fn range(rng: &mut StdRng) -> KeyRange {
    KeyRange {
        table: keyed_table(rng),
        from: key(rng),
        to: rng.random_ratio(2, 3).then(|| key(rng)),
    }
}

fn read_position(rng: &mut StdRng, oracle: &Oracle, floor: u64) -> u64 {
    match rng.random_range(0..100) {
        0 => oracle.next + 1,
        1 => oracle.applied + 1,
        2 => 0,
        3..6 => floor,
        6..8 => floor.saturating_sub(1),
        8..50 => oracle.applied,
        _ => oracle.applied.saturating_sub(rng.random_range(0..8)),
    }
}

/// A request, with an id or without.
pub fn request(rng: &mut StdRng, oracle: &Oracle, floor: u64, id: TxnId) -> CommitRequest {
    let few = |rng: &mut StdRng, chance| {
        if rng.random_ratio(chance, 10) {
            rng.random_range(1..4)
        } else {
            0
        }
    };
    let (points, ranges, guards) = (few(rng, 5), few(rng, 3), few(rng, 2));
    let writes = match rng.random_range(0..40) {
        0..2 => 0,
        2..25 => rng.random_range(1..3),
        25..39 => rng.random_range(1..6),
        _ => rng.random_range(10..40),
    };
    let point_reads: Vec<PointRead> = (0..points)
        .map(|_| PointRead {
            table: keyed_table(rng),
            key: key(rng),
        })
        .collect();
    let mut at = read_position(rng, oracle, floor);
    if let Some(read) = point_reads.first()
        && rng.random_ratio(1, 4)
    {
        // At or right behind some write of a key that is read, where an off-by-one would show.
        let versions = oracle.versions(read.table, &read.key);
        let version = versions.get(rng.random_range(0..versions.len().max(1)));
        let near = version.map_or(0, |version| version.offset);
        at = (near + rng.random_range(0..2)).min(oracle.applied);
    }
    CommitRequest {
        id: rng.random_ratio(3, 4).then_some(id),
        read_position: rng.random_ratio(19, 20).then_some(Position(at)),
        point_reads,
        range_reads: (0..ranges).map(|_| range(rng)).collect(),
        guards: (0..guards).map(|_| guard(rng, oracle)).collect(),
        writes: (0..writes).map(|_| write(rng)).collect(),
    }
}
