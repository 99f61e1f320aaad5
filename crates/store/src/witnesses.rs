//! Some rows of a table, by which one that was made anew is distinguished from one that was altered.
//!
//! A table that was dropped and made anew lacks everything from before, and so does a column that was
//! dropped and added again. Where a product does not number what it makes, its own rows tell: a few of
//! them are known, and looked for whenever the definition is another one.
//!
//! What is known is kept in the store beside the position and written in the steps that move it. So it
//! is there when a session ends, and from the very step that backfills the tables on:
//!
//! ```text
//! [{"definition":"17","witnesses":[["61",[11,12,null]]]}]
//!    │                              │    └ of each column 8 bytes of a hash; null: it is NULL
//!    │                              └ the key of the log, in hex
//!    └ by what the store tells definitions apart; "": it has not looked since the backfill
//! ```
//!
//! A table with columns that were seen with another type has these as well (see [`Narrowed`]):
//! `"narrowed":{"note":["TEXT","BLOB"]}`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use onelog_mapping::{Cell, MappingPlan, Plan, Row};
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, Change};
use crate::shape::Narrowed;

/// So many rows of a table are known, at most.
pub const WITNESSES_MAX: usize = 8;
/// At least so many, where rows have many columns: with one alone a default looks like its value.
const WITNESSES_MIN: usize = 2;
/// Of so many cells something is known, at most.
const CELLS_MAX: usize = 512;
/// A row with a longer key is not known.
const KEY_BYTES_MAX: usize = 512;

/// What is said of a table that was made anew.
pub const TABLE_RENEWED: &str = "it was dropped and made anew, or replaced by another table, since onelog backfilled it, and may lack the rows from before; drop or rename what is there, then backfill it from the log: onelog sinks rebuild";

/// What is said of such a column.
pub fn column_renewed(name: &str) -> String {
    format!(
        "the column '{name}' was dropped and added again since onelog backfilled it, and lacks its values from before; backfill it from the log: onelog sinks rebuild"
    )
}

/// What is left of a cell; `None`: it is NULL.
type Print = Option<u64>;

/// Rows that a table has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    try_from = "Vec<(String, Vec<Print>)>",
    into = "Vec<(String, Vec<Print>)>"
)]
pub struct Witnesses(BTreeMap<Bytes, Vec<Print>>);

impl Witnesses {
    /// The rows that the table has of those that were found in it.
    pub fn of(plan: &MappingPlan, found: &[Row]) -> Self {
        let rows = found.iter();
        let rows = rows.filter_map(|row| Some((plan.key_of_row(row)?.into(), prints(row))));
        Self::some_of(plan, rows)
    }

    fn some_of(plan: &MappingPlan, rows: impl Iterator<Item = (Bytes, Vec<Print>)>) -> Self {
        let count = CELLS_MAX / plan.columns.len().max(1);
        let rows = rows.filter(|(key, _)| key.len() <= KEY_BYTES_MAX);
        Self(
            rows.take(count.clamp(WITNESSES_MIN, WITNESSES_MAX))
                .collect(),
        )
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys of the log whose rows are to be found.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.0.keys()
    }

    /// What is known once these changes are written; they are sorted by key, as a batch has them.
    /// `None`: the same.
    fn after(&self, plan: &MappingPlan, changes: &[Change]) -> Option<Self> {
        debug_assert!(changes.is_sorted_by(|a, b| a.key <= b.key));
        let is_changed = |key: &Bytes| changes.binary_search_by(|c| c.key.cmp(key)).is_ok();
        let mut kept = self.0.iter().filter(|(key, _)| !is_changed(key)).peekable();
        if kept.peek().is_some() {
            let kept: BTreeMap<_, _> = kept.map(|(key, row)| (key.clone(), row.clone())).collect();
            return (kept.len() < self.0.len()).then_some(Self(kept));
        }
        let mut row = Row::default();
        let put = |change: &Change| {
            let value = change.value.as_ref()?;
            plan.project(&change.key, change.offset, value, &mut row)
                .ok()?;
            Some((change.key.clone(), prints(&row)))
        };
        let next = Self::some_of(plan, changes.iter().filter_map(put));
        (next != *self).then_some(next)
    }

    /// What is not as it was, by the rows that were found of these keys.
    pub fn renewed(&self, plan: &MappingPlan, found: &[Row]) -> Vec<String> {
        let now = Self::of(plan, found).0;
        let both: Vec<(&Vec<Print>, &Vec<Print>)> = self
            .0
            .iter()
            .filter_map(|(key, was)| Some((was, now.get(key)?)))
            .collect();
        if both.is_empty() && !self.is_empty() {
            return vec![TABLE_RENEWED.to_owned()];
        }
        let is_renewed = |n: usize| {
            let was: BTreeSet<Print> = both.iter().map(|(was, _)| was[n]).collect();
            let is: BTreeSet<Print> = both.iter().map(|(_, is)| is[n]).collect();
            let had_values = was.iter().any(Option::is_some);
            // A default is one value for all.
            had_values && is.len() == 1 && (is.contains(&None) || was.len() > 1)
        };
        let columns = plan.columns.iter().enumerate();
        columns
            .filter(|(n, _)| *n != plan.key && is_renewed(*n))
            .map(|(_, column)| column_renewed(&column.name))
            .collect()
    }
}

impl From<Witnesses> for Vec<(String, Vec<Print>)> {
    fn from(witnesses: Witnesses) -> Self {
        let rows = witnesses.0.into_iter();
        rows.map(|(key, row)| (hex(&key), row)).collect()
    }
}

impl TryFrom<Vec<(String, Vec<Print>)>> for Witnesses {
    type Error = &'static str;

    fn try_from(rows: Vec<(String, Vec<Print>)>) -> Result<Self, Self::Error> {
        let rows = rows.into_iter();
        let rows = rows.map(|(key, row)| Some((unhex(&key)?, row)));
        rows.collect::<Option<_>>()
            .map(Self)
            .ok_or("a key that is not hex")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Bytes> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// A table as it was when it was last looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTable {
    /// By what the store tells the definition from another one.
    pub definition: String,
    pub witnesses: Witnesses,
    #[serde(default, skip_serializing_if = "Narrowed::is_empty")]
    pub narrowed: Narrowed,
}

/// The tables of a sink, by mapping, as its store keeps them beside the position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KnownTables(pub Vec<KnownTable>);

impl KnownTables {
    /// What a store has kept of these tables. Where it has not, as one that an earlier version wrote,
    /// nothing is known of them.
    pub fn read(text: Option<&str>, plan: &Plan) -> Self {
        let kept: Option<Self> = text.and_then(|text| serde_json::from_str(text).ok());
        kept.filter(|kept| kept.is_of(plan))
            .unwrap_or_else(|| Self(vec![KnownTable::default(); plan.mappings.len()]))
    }

    fn is_of(&self, plan: &Plan) -> bool {
        let columns = plan.mappings.iter().map(|mapping| mapping.columns.len());
        self.0.len() == columns.len()
            && self.0.iter().zip(columns).all(|(table, columns)| {
                let mut rows = table.witnesses.0.values();
                rows.all(|row| row.len() == columns)
            })
    }

    pub fn to_text(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// What is known once a batch is written, all of it. `None`: the same.
    pub fn after(&self, plan: &Plan, batch: &Batch) -> Option<Self> {
        let mut next = None;
        let changes = plan.mappings.iter().zip(&batch.changes).zip(&self.0);
        for (n, ((mapping, changes), table)) in changes.enumerate() {
            if let Some(witnesses) = table.witnesses.after(mapping, changes) {
                let next = next.get_or_insert_with(|| self.clone());
                next.0[n].witnesses = witnesses;
            }
        }
        next
    }
}

fn prints(row: &Row) -> Vec<Print> {
    let mut bytes = Vec::new();
    let mut print = |cell: &Cell| {
        if *cell == Cell::Null {
            return None;
        }
        bytes.clear();
        cell.encode(&mut bytes);
        let hash = blake3::hash(&bytes);
        let (first, _) = hash.as_bytes().split_first_chunk::<8>()?;
        Some(u64::from_le_bytes(*first))
    };
    row.cells.iter().map(&mut print).collect()
}

#[cfg(test)]
mod tests {
    use onelog_mapping::{KeyForm, Mapping, MappingRules, RowForm, no_further_check};
    use onelog_record::{Offset, Position, TableDefinition, TableId, TableKind, ValueKind};

    use super::*;

    static RULES: MappingRules = MappingRules {
        kind: "test",
        has_type: |_| true,
        full_text: false,
        folds_names: true,
        options: &[],
        keys: KeyForm::Column,
        rows: RowForm::Columns,
        columns_by: None,
        check: no_further_check,
    };

    fn plan() -> Plan {
        let table = TableDefinition {
            id: TableId(1024),
            name: "orders".into(),
            kind: TableKind::Keyed,
            value: ValueKind::Json,
            schema: None,
            unique: Vec::new(),
            dropped: false,
        };
        let mapping = serde_json::json!({"table": "orders", "into": "orders", "columns": {
            "id": {"from": "$key", "type": "text"}, "total": {"from": "/total", "type": "integer"}}});
        let mapping = Mapping::from_json("mapping", &mapping, &RULES, &[&RULES]).unwrap();
        Plan::new(&RULES, &[mapping], std::slice::from_ref(&table)).unwrap()
    }

    fn batch(changes: &[(&str, Option<i64>)]) -> Batch {
        let change = |(key, total): &(&str, Option<i64>)| Change {
            key: Bytes::copy_from_slice(key.as_bytes()),
            offset: Offset(0),
            value: total.map(|total| format!(r#"{{"total":{total}}}"#).into()),
        };
        let changes = changes.iter().map(change).collect();
        Batch::repair(Position::ZERO.into(), vec![changes])
    }

    fn keys(known: &KnownTables) -> Vec<&[u8]> {
        known.0[0].witnesses.keys().map(|key| &key[..]).collect()
    }

    #[test]
    fn the_text_in_a_store_is_pinned() {
        let text = r#"[{"definition":"17","witnesses":[["61",[1,18446744073709551615]],["c3bc",[2,null]]]}]"#;
        let known = KnownTables::read(Some(text), &plan());
        assert_eq!(keys(&known), [&b"a"[..], "ü".as_bytes()]);
        assert_eq!(known.to_text(), text);
        let narrowed = r#"[{"definition":"","witnesses":[],"narrowed":{"note":["TEXT","BLOB"]}}]"#;
        let known = KnownTables::read(Some(narrowed), &plan());
        assert_eq!(known.to_text(), narrowed);
        // Nothing is known of other tables than these, nor by a text that cannot be read.
        let (no_hex, short) = (text.replace("61", "6x"), text.replace("[2,null]", "[2]"));
        for other in [None, Some("[]"), Some("{}"), Some(&*no_hex), Some(&*short)] {
            let known = KnownTables::read(other, &plan());
            assert_eq!(known.0, [KnownTable::default()], "{other:?}");
        }
    }

    #[test]
    fn rows_that_a_batch_changes_are_forgotten_and_others_known_when_none_is_left() {
        let plan = plan();
        let known = KnownTables::read(None, &plan);
        // Where nothing is known, the first rows of a batch are from then on.
        assert_eq!(known.after(&plan, &batch(&[("a", None)])), None);
        let many: Vec<String> = (0..20).map(|n| format!("k{n:02}")).collect();
        let many: Vec<_> = many.iter().map(|key| (key.as_str(), Some(1))).collect();
        let known = known.after(&plan, &batch(&many)).unwrap();
        assert_eq!(keys(&known).len(), WITNESSES_MAX);
        assert_eq!(known.after(&plan, &batch(&[("other", Some(1))])), None);
        // What changes is known no longer,
        let changes = batch(&[("k00", None), ("k03", Some(7)), ("new", Some(1))]);
        let known = known.after(&plan, &changes).unwrap();
        assert_eq!(
            keys(&known),
            [b"k01", b"k02", b"k04", b"k05", b"k06", b"k07"]
        );
        // until others take its place.
        let all: Vec<_> = many.iter().map(|(key, _)| (*key, None)).collect();
        let none = known.after(&plan, &batch(&all)).unwrap();
        assert_eq!(keys(&none), [b""; 0]);
        let known = none.after(&plan, &batch(&[("z", Some(1))])).unwrap();
        assert_eq!(keys(&known), [b"z"]);
        // A key that is too long is not kept.
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        assert_eq!(none.after(&plan, &batch(&[(&long, Some(1))])), None);
    }
}
