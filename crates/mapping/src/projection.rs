//! Fields out of a JSON document: read in passing, without building the document, wherever the
//! mapping's paths allow it.
//!
//! Both ways give the same cells; a property test says so. Every cell is made of the text in the
//! document, so that no number is rounded on its way.

mod scalar;

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::de::{Read, SliceRead, StrRead};
use serde_json::value::RawValue;

use self::scalar::set_raw;
use crate::{Cell, ColumnPlan, Row, RowFault, Source};

/// The columns that come from fields, arranged for one reading of the document.
#[derive(Clone, Debug)]
pub struct Extractor(Paths);

#[derive(Clone, Debug)]
enum Paths {
    /// No column comes from a field.
    Nothing,
    /// Along this tree of paths.
    InPassing(Node),
    /// Some path leads through another or could be met twice: once through the document for each
    /// column.
    OneByOne(Vec<Node>),
}

/// One step of the paths.
#[derive(Clone, Debug, Default)]
struct Node {
    children: Vec<(String, Option<usize>, Node)>,
    /// Columns whose path ends here.
    columns: Vec<usize>,
    /// Columns whose path ends here or below.
    below: Vec<usize>,
}

impl Extractor {
    pub fn new(columns: &[ColumnPlan]) -> Self {
        let mut root = Node::default();
        let mut any = false;
        for (n, column) in columns.iter().enumerate() {
            if let Source::Field(path) = &column.from {
                root.insert(path.steps(), n);
                any = true;
            }
        }
        match (any, root.is_plain()) {
            (false, _) => Self(Paths::Nothing),
            (true, true) => Self(Paths::InPassing(root)),
            (true, false) => Self::one_by_one(columns),
        }
    }

    pub(crate) fn one_by_one(columns: &[ColumnPlan]) -> Self {
        let mut trees = Vec::new();
        for (n, column) in columns.iter().enumerate() {
            if let Source::Field(path) = &column.from {
                let mut root = Node::default();
                root.insert(path.steps(), n);
                trees.push(root);
            }
        }
        Self(Paths::OneByOne(trees))
    }

    /// Writes every cell of `row` that comes from a field.
    pub fn extract(
        &self,
        columns: &[ColumnPlan],
        value: &[u8],
        row: &mut Row,
    ) -> Result<(), RowFault> {
        let trees = match &self.0 {
            Paths::Nothing => return Ok(()),
            Paths::InPassing(root) => std::slice::from_ref(root),
            Paths::OneByOne(trees) => trees,
        };
        // A text that is checked as a whole is not checked again at each name and value.
        let text = std::str::from_utf8(value);
        trees.iter().try_for_each(|root| match text {
            Ok(text) => in_passing(root, columns, StrRead::new(text), row),
            Err(_) => in_passing(root, columns, SliceRead::new(value), row),
        })
    }
}

impl Node {
    fn insert(&mut self, steps: &[String], column: usize) {
        self.below.push(column);
        let Some((step, rest)) = steps.split_first() else {
            self.columns.push(column);
            return;
        };
        if let Some((_, _, child)) = self.children.iter_mut().find(|(name, ..)| name == step) {
            child.insert(rest, column);
            return;
        }
        let mut child = Self::default();
        child.insert(rest, column);
        self.children.push((step.clone(), step.parse().ok(), child));
    }

    /// Whether no path leads through the end of another and no two steps name one list element.
    fn is_plain(&self) -> bool {
        let ends = self.columns.is_empty() || self.children.is_empty();
        let mut indices: Vec<usize> = self.children.iter().filter_map(|(_, i, _)| *i).collect();
        indices.sort_unstable();
        let distinct = indices.windows(2).all(|pair| pair[0] != pair[1]);
        ends && distinct && self.children.iter().all(|(.., child)| child.is_plain())
    }
}

fn not_json(columns: &[ColumnPlan], error: &serde_json::Error) -> RowFault {
    let first = columns.iter().find(|c| matches!(c.from, Source::Field(_)));
    RowFault {
        column: first.map_or_else(String::new, |column| column.name.clone()),
        what: format!("the value is not JSON: {error}"),
    }
}

fn in_passing<'v>(
    root: &Node,
    columns: &[ColumnPlan],
    value: impl Read<'v>,
    row: &mut Row,
) -> Result<(), RowFault> {
    row.seen.fill(false);
    let mut fault = None;
    let mut deserializer = serde_json::Deserializer::new(value);
    let seed = Step {
        node: root,
        columns,
        row,
        fault: &mut fault,
    };
    let result = seed
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end());
    if let Some(fault) = fault {
        return Err(fault);
    }
    result.map_err(|error| not_json(columns, &error))?;
    for column in &root.below {
        if !row.seen[*column] {
            row.cells[*column] = Cell::Null;
        }
    }
    Ok(())
}

/// Reads the value at one node of the paths: columns end at a node without children, so that what
/// such a node holds is taken whole, and of another only what is below it.
struct Step<'a> {
    node: &'a Node,
    columns: &'a [ColumnPlan],
    row: &'a mut Row,
    fault: &'a mut Option<RowFault>,
}

impl Step<'_> {
    /// A field that occurs twice counts as its last one, so what an earlier one gave is forgotten.
    fn forget(&mut self) {
        for column in &self.node.below {
            self.row.seen[*column] = false;
        }
    }

    fn note<E: Error>(&mut self, column: usize, set: Result<(), RowFault>) -> Result<(), E> {
        self.row.seen[column] = true;
        set.map_err(|fault| {
            *self.fault = Some(fault);
            E::custom("a value does not fit its column")
        })
    }
}

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        self.forget();
        if self.node.columns.is_empty() {
            return deserializer.deserialize_any(self);
        }
        let raw = <&RawValue as serde::Deserialize>::deserialize(deserializer)?;
        for column in &self.node.columns {
            let plan = &self.columns[*column];
            let set = set_raw(plan, plan.kind, raw.get(), &mut self.row.cells[*column]);
            self.note(*column, set)?;
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for at in 0usize.. {
            let child = self.node.children.iter().find(|(_, i, _)| *i == Some(at));
            let more = match child {
                Some((.., node)) => items
                    .next_element_seed(Step {
                        node,
                        columns: self.columns,
                        row: self.row,
                        fault: self.fault,
                    })?
                    .is_some(),
                None => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(child) = fields.next_key_seed(Name(self.node))? {
            match child {
                Some(at) => fields.next_value_seed(Step {
                    node: &self.node.children[at].2,
                    columns: self.columns,
                    row: self.row,
                    fault: self.fault,
                })?,
                None => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Which child a field's name leads to.
struct Name<'a>(&'a Node);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.children.iter().position(|(step, ..)| step == name))
    }
}
