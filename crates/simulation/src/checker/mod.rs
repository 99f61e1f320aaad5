//! The witness-order checker: the log's own order is the claimed serial order, so the proof of
//! strict serializability is one replay, O(n log n), instead of a search.
//!
//! What is proved for every history and the log that was read back afterwards:
//! - the log is whole: offsets without gaps, timestamps that never fall, each id once, every transaction a client's request,
//!   its records what that request makes of the state before it;
//! - reads of an update transaction equal the state at its read position and did not change up to
//!   its place in the log, keys that appeared in a range included; its guards held there;
//! - a snapshot read equals the state at its position, which never splits a transaction;
//! - every acknowledged transaction is in the log once, at the place that was answered, and
//!   nothing is in the log that was only ever refused;
//! - what ended before something else began comes before it in the log;
//! - every record belongs to a table that the log itself defines at that place, and no two tables
//!   have one number;
//! - a refusal names something that is really so, and that its client can read.
//!
//! Beside all this, [`crate::cycles`] checks what clients saw of lists without the log.

mod answers;
mod json;
mod log;
mod model;
mod reads;
mod refusals;
mod tables;
#[cfg(test)]
mod tests;
mod time;
mod unique;

use std::collections::HashMap;
use std::fmt;

use onelog_record::{Position, TableDefinition, TxnId};

use crate::history::{CommitCall, History, Logged};
pub(crate) use log::is_final;
use model::Model;
use tables::Tables;
use time::Observed;

/// How many violations of each rule a report keeps; all are counted.
pub const VIOLATIONS_MAX: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Offsets have a gap or an overlap, or a transaction splits differently than it says.
    LogBroken,
    /// A timestamp is below one before it in the log.
    TimestampFell,
    /// An id is in the log more than once.
    AppliedTwice,
    /// A transaction that no client sent.
    Invented,
    /// Records differ from what the request makes of the state before it.
    WrongRecords,
    /// An acknowledged transaction is not in the log.
    AcknowledgedLost,
    /// A transaction of which every sender was answered that it did not happen.
    RefusedButLogged,
    /// The answer differs from the log.
    WrongAnswer,
    /// A retry of an acknowledged id was not answered with the original answer.
    IdForgotten,
    /// A snapshot read differs from the state at its position.
    WrongRead,
    /// A position inside a transaction, or behind the log's end.
    WrongPosition,
    /// A key that an update transaction read was written before its place in the log.
    StaleRead,
    /// Something appeared in or vanished from a range that an update transaction read.
    Phantom,
    /// A guard does not hold at the transaction's place.
    GuardBroken,
    /// Two keys have the same value in a unique field.
    NotUnique,
    /// Something that ended before comes after.
    RealTime,
    /// A refusal names something that is not so.
    WrongRefusal,
    /// A record of a table that is not defined at its place in the log.
    NoSuchTable,
    /// Two tables of the log have one number.
    NumberReused,
    /// The log's start was cut although something still needed it.
    CutTooFar,
    /// Readers were shown something out of order.
    Published,
    /// What clients saw of lists is not strictly serializable, whatever the log says.
    NotSerializable,
    /// What a workload keeps constant is not.
    Invariant,
    /// What must hold of a cluster at every moment does not.
    Cluster,
    /// The node does not open, or stops, although nothing is wrong with its disk any more.
    CannotGoOn,
}

/// A broken rule; the message names the transaction or the reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.message)
    }
}

/// What was checked and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub transactions: usize,
    /// Acknowledgements, repeated ones included.
    pub acknowledged: usize,
    /// Refusals that were checked.
    pub refused: usize,
    pub reads: usize,
    /// The first violations of each rule.
    pub violations: Vec<Violation>,
    pub violations_total: usize,
}

impl Report {
    pub fn add(&mut self, rule: Rule, message: String) {
        self.violations_total += 1;
        let same = self.violations.iter().filter(|known| known.rule == rule);
        if same.count() < VIOLATIONS_MAX {
            self.violations.push(Violation { rule, message });
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations_total == 0
    }

    /// Whether this rule was broken.
    #[must_use]
    pub fn broke(&self, rule: Rule) -> bool {
        self.violations.iter().any(|found| found.rule == rule)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} transactions in the log, {} acknowledgements, {} refusals, {} snapshot reads, {} violations",
            self.transactions, self.acknowledged, self.refused, self.reads, self.violations_total
        )?;
        self.violations
            .iter()
            .try_for_each(|violation| writeln!(f, "- {violation}"))
    }
}

/// Everything the single checks look at.
struct Checker<'h> {
    history: &'h History,
    model: Model<'h>,
    tables: &'h [TableDefinition],
    tables_by_log: Tables,
    /// The calls that carried each id.
    calls: HashMap<TxnId, Vec<&'h CommitCall>>,
    observed: Observed,
    report: Report,
}

/// Checks a history against the log that was read back. `log` begins at offset 0; `tables` are the
/// definitions whose unique fields are checked.
#[must_use]
pub fn check(history: &History, log: &[Logged], tables: &[TableDefinition]) -> Report {
    let mut calls: HashMap<TxnId, Vec<&CommitCall>> = HashMap::new();
    for call in &history.commits {
        calls.entry(call.id).or_default().push(call);
    }
    let mut checker = Checker {
        history,
        model: Model::new(log),
        tables,
        tables_by_log: Tables::new(log),
        calls,
        observed: Observed::new(history),
        report: Report::default(),
    };
    checker.report.transactions = log.len();
    checker.check_log();
    checker.check_tables();
    checker.check_unique();
    checker.check_reads();
    checker.check_answers();
    for anomaly in crate::cycles::check(history) {
        checker.add(Rule::NotSerializable, anomaly.to_string());
    }
    checker.report
}

impl Checker<'_> {
    fn add(&mut self, rule: Rule, message: String) {
        self.report.add(rule, message);
    }

    /// Notes a position that splits a transaction or lies behind the end.
    fn check_position(&mut self, position: Position, who: &str) {
        if let Some(fault) = self.model.position_fault(position) {
            self.add(Rule::WrongPosition, format!("{who}: {fault}"));
        }
    }
}
