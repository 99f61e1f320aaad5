//! Short ways to write transactions down.

use onelog_simulation::Moment;
use onelog_simulation::cycles::{Anomaly, Key, Kind, Operation, Outcome, Transaction, Value, find};

pub fn append(key: &str, value: u64) -> Operation {
    Operation::Append {
        key: Key::from(key),
        value: Value(value),
    }
}

pub fn replace(key: &str, value: u64) -> Operation {
    Operation::Replace {
        key: Key::from(key),
        value: Value(value),
    }
}

pub fn read(key: &str, list: &[u64]) -> Operation {
    Operation::Read {
        key: Key::from(key),
        list: list.iter().copied().map(Value).collect(),
    }
}

/// A transaction that overlaps every other one, so that real time orders nothing.
pub fn committed(name: &str, operations: &[Operation]) -> Transaction {
    at((0, 1_000), name, operations)
}

/// A transaction with its own begin and end, of a client of its own.
pub fn at((begin, end): (u64, u64), name: &str, operations: &[Operation]) -> Transaction {
    Transaction {
        name: name.to_owned(),
        note: String::new(),
        client: name.bytes().map(u32::from).sum(),
        begin: Moment(begin),
        end: Some(Moment(end)),
        is_timed: true,
        outcome: Outcome::Committed,
        operations: operations.to_vec(),
    }
}

pub fn refused(name: &str, operations: &[Operation]) -> Transaction {
    Transaction {
        outcome: Outcome::Refused,
        ..committed(name, operations)
    }
}

pub fn unknown(begin: u64, name: &str, operations: &[Operation]) -> Transaction {
    Transaction {
        outcome: Outcome::Unknown,
        end: None,
        ..at((begin, begin), name, operations)
    }
}

/// The only anomaly of a history, which is of this kind.
#[track_caller]
pub fn the_only(kind: Kind, transactions: &[Transaction]) -> Anomaly {
    let found = find(transactions).unwrap();
    let [only] = found.as_slice() else {
        panic!("{kind:?} is not all that was found: {}", print(&found));
    };
    println!("{only}");
    assert_eq!(only.kind, kind, "{only}");
    only.clone()
}

/// The history has nothing wrong.
#[track_caller]
pub fn assert_good(transactions: &[Transaction]) {
    let found = find(transactions).unwrap();
    assert!(found.is_empty(), "{}", print(&found));
}

pub fn print(found: &[Anomaly]) -> String {
    let lines: Vec<String> = found.iter().map(Anomaly::to_string).collect();
    lines.join("\n")
}
