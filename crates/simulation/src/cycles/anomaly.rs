//! What can be wrong with a history, by the names that the literature has for it.

use std::fmt;

/// How many anomalies of each kind are kept.
pub const KEPT_MAX: usize = 16;
/// How many transactions of a cycle are described in full.
const DESCRIBED_MAX: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The history says something that no clients can have seen together: it was recorded wrongly.
    Malformed,
    /// A transaction reads something else than it read or wrote itself before.
    Internal,
    /// A value is in a list twice: it was applied twice.
    Duplicate,
    /// A list has a value that no transaction wrote into it.
    Unwritten,
    /// Two reads of one list agree with no single order of its versions.
    IncompatibleOrder,
    /// A value of a refused transaction is read.
    G1a,
    /// A value is read that its own transaction had overwritten before it committed.
    G1b,
    /// Two transactions read the same version of a list, and both wrote it.
    LostUpdate,
    /// A cycle of writes alone: each transaction wrote over the one before it.
    G0,
    /// A cycle of writes and reads of them: information flows in a circle.
    G1c,
    /// A cycle in which one transaction did not see what another one wrote.
    GSingle,
    /// A cycle in which two or more did not see what the next one wrote.
    G2Item,
    /// A transaction did not see what was committed before it began.
    StaleRead,
    /// What depends on what contradicts real time in another way.
    RealTime,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed history",
            Self::Internal => "internal inconsistency",
            Self::Duplicate => "duplicate",
            Self::Unwritten => "value that was never written",
            Self::IncompatibleOrder => "incompatible orders",
            Self::G1a => "G1a (aborted read)",
            Self::G1b => "G1b (intermediate read)",
            Self::LostUpdate => "lost update",
            Self::G0 => "G0 (write cycle)",
            Self::G1c => "G1c (circular information flow)",
            Self::GSingle => "G-single (read skew)",
            Self::G2Item => "G2-item (write skew)",
            Self::StaleRead => "stale read against real time",
            Self::RealTime => "order against real time",
        })
    }
}

/// Something that a strictly serializable system never shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    pub kind: Kind,
    /// The transactions of it by their places in the history, of a cycle in its order.
    pub transactions: Vec<usize>,
    /// The cycle, or the fact, in one line.
    pub summary: String,
    /// What each arrow rests on, and what each transaction did.
    pub details: Vec<String>,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.summary)?;
        self.details
            .iter()
            .try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Anomalies by kind, a bounded number of each.
#[derive(Debug, Default)]
pub(super) struct Anomalies(Vec<Anomaly>);

impl Anomalies {
    /// Whether one more of this kind would be kept.
    pub(super) fn has_room(&self, kind: Kind) -> bool {
        self.0.iter().filter(|known| known.kind == kind).count() < KEPT_MAX
    }

    /// Describes the transactions with `describe` and keeps the anomaly, if there is room.
    pub(super) fn add(
        &mut self,
        kind: Kind,
        transactions: &[u32],
        summary: String,
        mut reasons: Vec<String>,
        describe: impl Fn(u32) -> String,
    ) {
        if !self.has_room(kind) {
            return;
        }
        reasons.extend(
            transactions
                .iter()
                .take(DESCRIBED_MAX)
                .map(|at| describe(*at)),
        );
        self.0.push(Anomaly {
            kind,
            transactions: transactions.iter().map(|at| *at as usize).collect(),
            summary,
            details: reasons,
        });
    }

    pub(super) fn into_sorted(self) -> Vec<Anomaly> {
        let mut all = self.0;
        all.sort_by_key(|anomaly| anomaly.kind);
        all
    }
}
