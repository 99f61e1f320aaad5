//! Workloads: transactions that keep something constant as long as every promise is kept, and
//! break it soon when one is not. A workload knows nothing of threads, nodes or disks.

mod attempt;
mod bank;
mod bookings;
mod lists;
mod names;
mod ring;
mod stock;
mod tables;

use std::fmt::Debug;

use bytes::Bytes;
use onelog_record::{
    Guard, KeyRange, Operation, PointRead, TableDefinition, TableId, TableKind, USER_TABLES_FROM,
    ValueKind, Write,
};
use rand::rngs::StdRng;

use crate::history::Seen;

pub use attempt::{Attempt, audit, make_blind, mark_as_other, prepare, read_into, setup};
pub use bank::Bank;
pub use bookings::Bookings;
pub use lists::Lists;
pub use names::Names;
pub use ring::Ring;
pub use stock::Stock;
pub use tables::Tables;

/// Seeded random numbers.
pub type Random = StdRng;

#[derive(Clone, Debug, Default)]
pub struct Reads {
    pub points: Vec<PointRead>,
    pub ranges: Vec<KeyRange>,
}

/// What to do about what was read.
#[derive(Clone, Debug, Default)]
pub struct Act {
    /// Conditions at the commit point.
    pub guards: Vec<Guard>,
    /// Writes; none of them and no guard either is a read-only transaction.
    pub writes: Vec<Write>,
}

/// One kind of transaction, and what it keeps constant.
pub trait Workload: Send + Sync + Debug {
    /// Its tables, with the numbers that it uses.
    fn tables(&self) -> Vec<TableDefinition>;

    /// What must be there before it begins.
    fn initial(&self) -> Vec<Write>;

    /// What to read next, given what was read so far; `None` when it is enough. MUST end.
    fn reads(&self, seen: &Seen, random: &mut Random) -> Option<Reads>;

    /// What to do, given everything that was read.
    fn act(&self, seen: &Seen, random: &mut Random) -> Act;

    /// Whether the request declares what was read, so that a change of it is a conflict. What is not
    /// declared is the client's own risk.
    fn declares(&self, _act: &Act) -> bool {
        true
    }

    /// The ranges that the invariant speaks of.
    fn audited(&self) -> Vec<KeyRange>;

    /// Whether the invariant holds on the audited ranges, in order; else why not.
    fn invariant(&self, seen: &Seen) -> Result<(), String>;
}

/// Every workload, and one that defines and drops tables meanwhile.
#[must_use]
pub fn with_definitions() -> Vec<Box<dyn Workload>> {
    let mut workloads = all();
    workloads.push(Box::new(Tables));
    workloads
}

/// Every workload on tables that stay, each with a table of its own.
#[must_use]
pub fn all() -> Vec<Box<dyn Workload>> {
    let id = |n: u32| TableId(USER_TABLES_FROM.0 + n);
    vec![
        Box::new(Bank { table: id(0) }),
        Box::new(Names { table: id(1) }),
        Box::new(Ring { table: id(2) }),
        Box::new(Bookings { table: id(3) }),
        Box::new(Lists { table: id(4) }),
        Box::new(Stock {
            table: id(5),
            orders: id(6),
        }),
    ]
}

fn table(id: TableId, name: &str) -> TableDefinition {
    TableDefinition {
        id,
        name: name.to_owned(),
        kind: TableKind::Keyed,
        value: ValueKind::Json,
        schema: None,
        unique: Vec::new(),
        dropped: false,
    }
}

fn whole(table: TableId) -> KeyRange {
    KeyRange {
        table,
        from: Bytes::new(),
        to: None,
    }
}

fn write(table: TableId, key: impl Into<Bytes>, operation: Operation) -> Write {
    Write {
        table,
        key: key.into(),
        operation,
        headers: Vec::new(),
    }
}

fn put(table: TableId, key: impl Into<Bytes>, value: &serde_json::Value) -> Write {
    write(table, key, Operation::Put(value.to_string().into()))
}

fn point(table: TableId, key: impl Into<Bytes>) -> PointRead {
    PointRead {
        table,
        key: key.into(),
    }
}

/// The whole number in a field of a document; `None` where there is none.
fn number(document: &[u8], field: &str) -> Option<i64> {
    serde_json::from_slice::<serde_json::Value>(document)
        .ok()?
        .get(field)?
        .as_i64()
}
