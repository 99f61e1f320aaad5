//! The input: transactions on lists as clients saw them.

use std::fmt;
use std::sync::Arc;

use crate::history::Moment;

/// How many transactions a history may have: nodes and edges are counted in 32 bits.
pub const TRANSACTIONS_MAX: usize = 1 << 24;
/// How many values of a list are printed, the last ones.
const SHOWN_VALUES_MAX: usize = 5;
/// How many operations of a transaction are printed.
const SHOWN_OPERATIONS_MAX: usize = 6;

/// The name of a list, as anomalies show it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub Arc<str>);

impl From<&str> for Key {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An element of a list; each is written once in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u64);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a transaction ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    /// For certain without effect.
    Refused,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Append {
        key: Key,
        value: Value,
    },
    /// The list is `[value]` from here on. The transaction MUST have read it before, so that it is
    /// known which list this one follows.
    Replace {
        key: Key,
        value: Value,
    },
    Read {
        key: Key,
        list: Vec<Value>,
    },
}

impl Operation {
    pub(super) fn key(&self) -> &Key {
        match self {
            Self::Append { key, .. } | Self::Replace { key, .. } | Self::Read { key, .. } => key,
        }
    }
}

/// A transaction and what its client knows about it.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// What it is called where an anomaly is printed.
    pub name: String,
    /// What else is known of it, such as its id.
    pub note: String,
    pub client: u32,
    pub begin: Moment,
    /// When the answer was there; `None` when none came.
    pub end: Option<Moment>,
    /// Whether real time binds it: `false` for a read that requested an old state.
    pub is_timed: bool,
    pub outcome: Outcome,
    /// In the order in which the transaction did them.
    pub operations: Vec<Operation>,
}

impl Transaction {
    /// Whether its end says when it had happened.
    pub(super) fn is_answered(&self) -> bool {
        self.outcome == Outcome::Committed
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if !self.note.is_empty() {
            write!(f, " ({})", self.note)?;
        }
        let (client, begin) = (self.client, self.begin.0);
        write!(f, " of client {client}, moments {begin} to ")?;
        match self.end {
            Some(end) => write!(f, "{}", end.0)?,
            None => write!(f, "?")?,
        }
        if !self.is_timed {
            write!(f, " (of an old state)")?;
        }
        match self.outcome {
            Outcome::Committed => {}
            Outcome::Refused => write!(f, ", refused")?,
            Outcome::Unknown => write!(f, ", never answered")?,
        }
        let mut before = ": ";
        for operation in self.operations.iter().take(SHOWN_OPERATIONS_MAX) {
            write!(f, "{before}{operation}")?;
            before = ", ";
        }
        if self.operations.len() > SHOWN_OPERATIONS_MAX {
            let more = self.operations.len() - SHOWN_OPERATIONS_MAX;
            write!(f, " and {more} operations more")?;
        }
        Ok(())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append { key, value } => write!(f, "append {value} to {key}"),
            Self::Replace { key, value } => write!(f, "replace {key} by [{value}]"),
            Self::Read { key, list } => write!(f, "read {key} as {}", List(list)),
        }
    }
}

/// The end of a list, for people.
pub(super) struct List<'l>(pub &'l [Value]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left_out = self.0.len().saturating_sub(SHOWN_VALUES_MAX);
        write!(f, "[")?;
        if left_out > 0 {
            write!(f, "{left_out} before, ")?;
        }
        for (n, value) in self.0.iter().skip(left_out).enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{value}")?;
        }
        write!(f, "]")
    }
}

/// Why a history cannot be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryError {
    TooManyTransactions {
        count: usize,
    },
    /// Which transaction wrote a value cannot be recognized when two wrote it.
    WrittenTwice {
        key: Key,
        value: Value,
        first: String,
        second: String,
    },
    EndBeforeBegin {
        transaction: String,
    },
    /// An answer came, so there is a moment when it came.
    AnsweredWithoutEnd {
        transaction: String,
    },
    /// Which list it replaced is not known.
    ReplacedUnread {
        key: Key,
        transaction: String,
    },
}

impl std::error::Error for HistoryError {}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyTransactions { count } => write!(
                f,
                "the history has {count} transactions, at most {TRANSACTIONS_MAX} can be checked: check it in parts"
            ),
            Self::WrittenTwice {
                key,
                value,
                first,
                second,
            } => write!(
                f,
                "{first} and {second} both write {value} into {key}: every value must be written once"
            ),
            Self::EndBeforeBegin { transaction } => {
                write!(f, "{transaction} ends before it begins")
            }
            Self::AnsweredWithoutEnd { transaction } => {
                write!(
                    f,
                    "{transaction} committed, but has no moment of its answer"
                )
            }
            Self::ReplacedUnread { key, transaction } => write!(
                f,
                "{transaction} replaces {key} without having read it: which list it follows is not known"
            ),
        }
    }
}
