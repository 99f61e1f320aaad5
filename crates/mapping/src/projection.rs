//! Fields out of a JSON document: read in passing, without building the document, wherever the
//! mapping's paths allow it.
//!
//! Both ways give the same cells; a property test says so. Numbers that must stay exact and JSON
//! values are taken as the text that stands in the document.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_json::value::RawValue;

use crate::{
    Cell, ColumnPlan, ColumnType, Element, Row, RowFault, Source, numeric, parse_date,
    parse_timestamp, parse_uuid,
};

/// The largest whole number up to which every whole number is a `f64`.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scalar<'v> {
    Null,
    Boolean(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(&'v str),
    List,
    Object,
}

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
        match &self.0 {
            Paths::Nothing => Ok(()),
            Paths::InPassing(root) => in_passing(root, columns, value, row),
            Paths::OneByOne(trees) => trees
                .iter()
                .try_for_each(|root| in_passing(root, columns, value, row)),
        }
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

fn in_passing(
    root: &Node,
    columns: &[ColumnPlan],
    value: &[u8],
    row: &mut Row,
) -> Result<(), RowFault> {
    row.seen.fill(false);
    let mut fault = None;
    let mut deserializer = serde_json::Deserializer::from_slice(value);
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

/// Whether cells of this type are made of the text in the document.
const fn takes_text(kind: ColumnType) -> bool {
    matches!(
        kind,
        ColumnType::Json | ColumnType::Numeric | ColumnType::List(_)
    )
}

/// A cell of the text of a JSON value.
fn set_raw(
    column: &ColumnPlan,
    kind: ColumnType,
    raw: &str,
    cell: &mut Cell,
) -> Result<(), RowFault> {
    match (kind, raw.as_bytes().first()) {
        (_, Some(b'n')) => *cell = Cell::Null,
        (ColumnType::Json, _) => cell.set_json(raw),
        (ColumnType::Numeric, Some(b'-' | b'0'..=b'9')) => *cell = decimal(column, raw)?,
        (ColumnType::List(element), Some(b'[')) => *cell = list(column, element, raw)?,
        (ColumnType::List(_), Some(b'{')) => return Err(no_fit(column, kind, Scalar::Object)),
        (_, Some(b'[')) => return Err(no_fit(column, kind, Scalar::List)),
        (_, Some(b'{')) => return Err(no_fit(column, kind, Scalar::Object)),
        (_, Some(b'"')) => {
            let text: String =
                serde_json::from_str(raw).map_err(|error| misfit(column, error.to_string()))?;
            set_scalar(column, kind, Scalar::Text(&text), cell)?;
        }
        (_, Some(b't' | b'f')) => set_scalar(column, kind, Scalar::Boolean(raw == "true"), cell)?,
        _ => {
            let number: Number =
                serde_json::from_str(raw).map_err(|error| misfit(column, error.to_string()))?;
            set_scalar(column, kind, scalar_of(&number), cell)?;
        }
    }
    Ok(())
}

fn decimal(column: &ColumnPlan, text: &str) -> Result<Cell, RowFault> {
    match numeric(text) {
        Some(text) => Ok(Cell::Numeric(text)),
        None => Err(misfit(
            column,
            "the text is not a decimal number of at most 1,100 digits".to_owned(),
        )),
    }
}

fn list(column: &ColumnPlan, element: Element, raw: &str) -> Result<Cell, RowFault> {
    let items: Vec<&RawValue> =
        serde_json::from_str(raw).map_err(|error| misfit(column, error.to_string()))?;
    let mut cells = Vec::with_capacity(items.len());
    for (n, item) in items.iter().enumerate() {
        let mut cell = Cell::Null;
        set_raw(column, element.kind(), item.get(), &mut cell).map_err(|fault| RowFault {
            column: fault.column,
            what: format!("element {n}: {}", fault.what),
        })?;
        cells.push(cell);
    }
    Ok(Cell::List(cells))
}

fn scalar_of(number: &Number) -> Scalar<'static> {
    if let Some(number) = number.as_i64() {
        Scalar::Signed(number)
    } else if let Some(number) = number.as_u64() {
        Scalar::Unsigned(number)
    } else {
        Scalar::Float(number.as_f64().unwrap_or(f64::INFINITY))
    }
}

/// The defined projections of a scalar; everything else is a refusal.
fn set_scalar(
    column: &ColumnPlan,
    kind: ColumnType,
    scalar: Scalar<'_>,
    cell: &mut Cell,
) -> Result<(), RowFault> {
    use ColumnType::{Boolean, Date, Integer, Numeric, Real, Text, Timestamp, Uuid};
    let parsed = |found: Option<Cell>, wanted: &str| {
        found.ok_or_else(|| misfit(column, format!("the text is not {wanted}")))
    };
    match (kind, scalar) {
        (_, Scalar::Null) => *cell = Cell::Null,
        (Text, Scalar::Text(text)) => cell.set_text(text),
        (Text, Scalar::Boolean(value)) => cell.set_text(if value { "true" } else { "false" }),
        (Text, Scalar::Signed(_) | Scalar::Unsigned(_) | Scalar::Float(_)) => {
            cell.set_text(&scalar.to_string());
        }
        (Integer, Scalar::Signed(number)) => *cell = Cell::Integer(number),
        (Integer, Scalar::Float(number)) if number.fract() == 0.0 && number.abs() <= EXACT_MAX => {
            *cell = Cell::Integer(number as i64);
        }
        (Integer, Scalar::Unsigned(_)) => {
            return Err(misfit(
                column,
                format!("{scalar} is beyond a whole number of 64 bits, signed"),
            ));
        }
        (Real, Scalar::Signed(number)) => cell.set_real(number as f64),
        (Real, Scalar::Unsigned(number)) => cell.set_real(number as f64),
        (Real, Scalar::Float(number)) if number.is_finite() => cell.set_real(number),
        (Boolean, Scalar::Boolean(value)) => *cell = Cell::Boolean(value),
        (Numeric, Scalar::Text(text)) => *cell = decimal(column, text)?,
        (Timestamp, Scalar::Text(text)) => {
            let wanted = "a moment with an offset (RFC 3339, for example 2024-05-01T12:00:00Z)";
            *cell = parsed(parse_timestamp(text).map(Cell::Timestamp), wanted)?;
        }
        (Date, Scalar::Text(text)) => {
            let wanted = "a day (YYYY-MM-DD, from 0001-01-01 on)";
            *cell = parsed(parse_date(text).map(Cell::Date), wanted)?;
        }
        (Uuid, Scalar::Text(text)) => {
            *cell = parsed(parse_uuid(text).map(Cell::Uuid), "a UUID")?;
        }
        (kind, _) => return Err(no_fit(column, kind, scalar)),
    }
    Ok(())
}

fn no_fit(column: &ColumnPlan, kind: ColumnType, scalar: Scalar<'_>) -> RowFault {
    misfit(
        column,
        format!("{scalar} does not fit the column's type '{}'", kind.name()),
    )
}

fn misfit(column: &ColumnPlan, what: String) -> RowFault {
    RowFault {
        column: column.name.clone(),
        what,
    }
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(value) => value.fmt(f),
            Self::Signed(number) => number.fmt(f),
            Self::Unsigned(number) => number.fmt(f),
            Self::Float(number) => match Number::from_f64(*number) {
                Some(number) => number.fmt(f),
                None => number.fmt(f),
            },
            Self::Text(_) => f.write_str("a text"),
            Self::List => f.write_str("a list"),
            Self::Object => f.write_str("an object"),
        }
    }
}

/// Reads the value at one node of the paths.
struct Step<'a> {
    node: &'a Node,
    columns: &'a [ColumnPlan],
    row: &'a mut Row,
    fault: &'a mut Option<RowFault>,
}

impl Step<'_> {
    /// A field that stands twice counts as its last one, so what an earlier one gave is forgotten.
    fn forget(&mut self) {
        for column in &self.node.below {
            self.row.seen[*column] = false;
        }
    }

    fn set<E: Error>(&mut self, scalar: Scalar<'_>) -> Result<(), E> {
        for column in &self.node.columns {
            let plan = &self.columns[*column];
            let set = set_scalar(plan, plan.kind, scalar, &mut self.row.cells[*column]);
            self.note(*column, set)?;
        }
        Ok(())
    }

    fn note<E: Error>(&mut self, column: usize, set: Result<(), RowFault>) -> Result<(), E> {
        self.row.seen[column] = true;
        set.map_err(|fault| {
            *self.fault = Some(fault);
            E::custom("a value does not fit its column")
        })
    }

    fn takes_text(&self) -> bool {
        let mut kinds = self.node.columns.iter().map(|n| self.columns[*n].kind);
        kinds.any(takes_text)
    }
}

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        self.forget();
        if !self.takes_text() {
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

    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.set(Scalar::Null)
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        self.set(Scalar::Boolean(value))
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<(), E> {
        self.set(Scalar::Signed(value))
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.set(Scalar::Signed(value)),
            Err(_) => self.set(Scalar::Unsigned(value)),
        }
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        self.set(Scalar::Float(value))
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<(), E> {
        self.set(Scalar::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.set(Scalar::List)?;
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

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        self.set(Scalar::Object)?;
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

/// Which child a field's name stands for.
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
