//! Compares two stores that exist already and that onelog knows nothing of: which keys differ, and
//! how. Nothing is written to either.
//!
//! Each side is read in one consistent snapshot where the store has such a thing, the two one after
//! the other, while applications go on writing: a difference may be a write on its way. So the keys
//! that differ can be looked at again a little later, with new snapshots; what still differs then
//! stays so.

mod compare;
mod definition;
mod doubled;
mod normal;
mod side;

use std::sync::Arc;

use onelog_mapping::Row;
use onelog_record::JsonText;
use onelog_store::Target;
use serde::Serialize;
use serde_json::Value;

use self::compare::{Comparison, Difference, Differing, Full};
use self::definition::{Compare, SideName};
use self::side::{Side, SideFault};

pub use self::definition::{AuditDefinition, COMPARES_MAX};
pub use self::side::SideError;

/// The most keys that are held as differing; what is beyond is only known to be there.
pub const DIFFERENCES_HELD_MAX: usize = 1_000_000;
/// The most differences that are shown of one pair.
pub const SHOWN_MAX: usize = 10_000;

/// What is called between two looks: the name of the pair, and how many keys differ.
pub type Pause<'f> = &'f mut dyn FnMut(&str, u64);

/// How an audit is made.
#[allow(missing_debug_implementations)] // a function has none
pub struct AuditOptions<'f> {
    /// How many differences are shown of each pair, at most [`SHOWN_MAX`].
    pub show: usize,
    /// Given: the keys that differ are looked at again once this has let some time pass. It gets
    /// the name of the pair and how many keys differ.
    pub again: Option<Pause<'f>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Audit {
    /// The left store, without secrets.
    pub left: String,
    pub right: String,
    /// Whether every pair is equal.
    pub equal: bool,
    pub compared: Vec<Compared>,
}

/// What was found of one pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    pub name: String,
    pub left: String,
    pub right: String,
    /// How many rows the left side has.
    pub rows_left: u64,
    /// How many rows the right side has.
    pub rows_right: u64,
    /// Whether no key differs.
    pub equal: bool,
    /// Keys that only the left side has.
    pub missing_right: u64,
    /// Keys that only the right side has.
    pub missing_left: u64,
    /// Keys that both have, with different values.
    pub different: u64,
    /// Keys that stand more than once on a side: what was named as the key is none.
    pub keys_twice: u64,
    /// All of these together.
    pub differences_total: u64,
    /// Whether the numbers count all differences: not when there are very many.
    pub counted_all: bool,
    /// Keys that differed at first and no longer when they were looked at again: writes on their
    /// way. `None`: they were not looked at again.
    pub settled: Option<u64>,
    /// Keys that were left out because the template of the left side's key does not make them.
    #[serde(skip_serializing_if = "is_zero")]
    pub other_keys_left: u64,
    /// The same on the right.
    #[serde(skip_serializing_if = "is_zero")]
    pub other_keys_right: u64,
    /// The first differences, by key.
    pub differences: Vec<AuditDifference>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// Only the left side has it.
    MissingRight,
    /// Only the right side has it.
    MissingLeft,
    /// Both have it, with different values.
    Different,
    /// A side has it more than once.
    KeyTwice,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditDifference {
    pub key: Value,
    pub kind: DifferenceKind,
    /// How many rows the left side has under the key.
    pub rows_left: u32,
    /// How many rows the right side has under the key.
    pub rows_right: u32,
    /// What the left side has; where both have the key, only the columns that differ.
    pub left: Option<JsonText>,
    /// What the right side has.
    pub right: Option<JsonText>,
}

/// Why an audit could not be made.
#[derive(Debug, thiserror::Error)]
#[error("'{name}', {side} side: {cause}")]
pub struct AuditError {
    pub name: String,
    pub side: &'static str,
    pub cause: SideError,
}

/// Compares two stores. Blocks for as long as reading both takes.
pub fn audit(
    definition: &AuditDefinition,
    left: &Arc<dyn Target>,
    right: &Arc<dyn Target>,
    options: &mut AuditOptions<'_>,
) -> Result<Audit, AuditError> {
    let mut compared = Vec::with_capacity(definition.compares.len());
    for compare in &definition.compares {
        let one = OnePair {
            compare,
            left,
            right,
            show: options.show.min(SHOWN_MAX),
        };
        compared.push(one.run(options)?);
    }
    Ok(Audit {
        left: left.place(),
        right: right.place(),
        equal: compared.iter().all(|one| one.equal),
        compared,
    })
}

struct OnePair<'a> {
    compare: &'a Compare,
    left: &'a Arc<dyn Target>,
    right: &'a Arc<dyn Target>,
    show: usize,
}

impl OnePair<'_> {
    fn run(&self, options: &mut AuditOptions<'_>) -> Result<Compared, AuditError> {
        let (mut left, mut right) = self.open()?;
        let mut comparison = Comparison::new();
        let found = comparison
            .run(&mut left, &mut right)
            .map_err(|fault| self.failed(fault))?;
        let (mut differing, mut settled) = (found.differing, None);
        if let (Some(pause), false) = (&mut options.again, differing.is_empty()) {
            drop((left, right));
            let before = differing.len() as u64;
            pause(&self.compare.name, before);
            (left, right) = self.open()?;
            differing = comparison
                .again(&mut left, &mut right, &differing)
                .map_err(|fault| self.failed(fault))?;
            settled = Some(before - differing.len() as u64);
        }
        let differences = self.describe(&mut comparison, &mut left, &mut right, &differing)?;
        let count = |wanted: DifferenceKind| {
            let kinds = differing.values();
            kinds.filter(|one| one.kind == wanted).count() as u64
        };
        Ok(Compared {
            name: self.compare.name.clone(),
            left: self.compare.left.shown(),
            right: self.compare.right.shown(),
            rows_left: found.rows_left,
            rows_right: found.rows_right,
            equal: differing.is_empty() && found.counted_all,
            missing_right: count(DifferenceKind::MissingRight),
            missing_left: count(DifferenceKind::MissingLeft),
            different: count(DifferenceKind::Different),
            keys_twice: count(DifferenceKind::KeyTwice),
            differences_total: differing.len() as u64,
            counted_all: found.counted_all,
            settled,
            other_keys_left: left.foreign_keys,
            other_keys_right: right.foreign_keys,
            differences,
        })
    }

    fn open(&self) -> Result<(Side, Side), AuditError> {
        let open =
            |side, kind| Side::open(self.compare, side, kind).map_err(|fault| self.failed(fault));
        Ok((
            open(SideName::Left, self.left)?,
            open(SideName::Right, self.right)?,
        ))
    }

    fn failed(&self, fault: SideFault) -> AuditError {
        AuditError {
            name: self.compare.name.clone(),
            side: fault.side.name(),
            cause: fault.cause,
        }
    }

    fn describe(
        &self,
        comparison: &mut Comparison,
        left: &mut Side,
        right: &mut Side,
        differing: &Differing,
    ) -> Result<Vec<AuditDifference>, AuditError> {
        let keys: Vec<u128> = differing.keys().copied().take(self.show).collect();
        let rows = comparison
            .rows(left, right, &keys)
            .map_err(|fault| self.failed(fault))?;
        let mut out: Vec<AuditDifference> = rows
            .into_iter()
            .filter_map(|(key, full)| Some(self.difference(*differing.get(&key)?, &full)))
            .collect();
        out.sort_by_cached_key(|difference| difference.key.to_string());
        Ok(out)
    }

    fn difference(&self, found: Difference, (left, right): &Full) -> AuditDifference {
        let show = |row: &Row, other: Option<&Row>| {
            let columns = self.compare.columns.iter().zip(row.cells.iter().skip(1));
            let shown = columns.enumerate().filter(|(n, (_, cell))| {
                let differs = other.is_none_or(|other| !other.cells[n + 1].is_same(cell));
                differs || found.kind == DifferenceKind::KeyTwice
            });
            JsonText::object(shown.map(|(_, ((name, _), cell))| (&**name, cell.show())))
        };
        let key = left.as_ref().or(right.as_ref());
        AuditDifference {
            key: key.map_or(Value::Null, |row| row.cells[0].show_key()),
            kind: found.kind,
            rows_left: found.rows_left,
            rows_right: found.rows_right,
            left: left.as_ref().map(|row| show(row, right.as_ref())),
            right: right.as_ref().map(|row| show(row, left.as_ref())),
        }
    }
}
