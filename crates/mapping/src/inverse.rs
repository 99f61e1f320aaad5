//! A mapping backwards: of a row of the store the record that the mapping would make it of. What has
//! no inverse is refused by name.
//!
//! A store can hold what no record makes: `infinity`, the year 10000, the JSON value null where the
//! mapping writes NULL. So the record of a row is projected again, and is only given out where that
//! makes the same row.

use onelog_record::{JSON_DEPTH_MAX, JsonText, Offset};
use serde_json::Value;

use crate::{Cell, ColumnType, DefinitionError, Mapping, MappingPlan, Row, RowFault, Source};
use crate::{date_text, numeric, numeric_as_written, timestamp_text, uuid_text};

/// A key of the log and the JSON document under it.
pub type Document = (Vec<u8>, String);

/// Makes documents of the rows of one mapping.
#[derive(Debug)]
pub struct Inverse {
    shape: Shape,
    /// The row that the mapping makes of the latest document.
    made: Row,
}

#[derive(Debug)]
enum Shape {
    /// The column that holds the whole document.
    Whole(usize),
    Fields(Tree),
}

/// The fields of the document in the order of the columns.
#[derive(Debug, Default)]
struct Tree(Vec<(String, Node)>);

#[derive(Debug)]
enum Node {
    Column(usize),
    Inner(Tree),
}

impl Inverse {
    /// Fails where the mapping forgets something of the documents, or makes it of something else.
    pub fn new(
        place: &str,
        mapping: &Mapping,
        plan: &MappingPlan,
    ) -> Result<Self, DefinitionError> {
        let refused = |field: &str, what: &str| {
            Err(DefinitionError::new(
                format!("{place}.{field}"),
                what.to_owned(),
            ))
        };
        let program = "a program has no inverse: what a document was before it cannot be derived from the row";
        if mapping.filter.is_some() {
            return refused("where", program);
        }
        if mapping.transform.is_some() {
            return refused("transform", program);
        }
        if !mapping.fields.is_empty() {
            return refused(
                "fields",
                "the fields that were not kept cannot be derived from the row",
            );
        }
        let columns = &plan.columns;
        let of = |source: &Source| columns.iter().position(|column| column.from == *source);
        if let Some(version) = of(&Source::Version) {
            let what =
                "'$version' has no inverse: the offset of a record is known when it is written";
            return refused(&format!("columns.{}", columns[version].name), what);
        }
        if let Some(whole) = of(&Source::Value) {
            if !matches!(columns[whole].kind, ColumnType::Json) {
                let what = "values that are not JSON cannot be imported";
                return refused(&format!("columns.{}", columns[whole].name), what);
            }
            return Ok(Self::of(Shape::Whole(whole)));
        }
        let mut tree = Tree::default();
        for (number, column) in columns.iter().enumerate() {
            let Source::Field(path) = &column.from else {
                continue;
            };
            if !tree.insert(path.steps(), number) {
                let what = "another column comes from this field, or from a part of it: which of the two makes the document?";
                return refused(&format!("columns.{}.from", column.name), what);
            }
        }
        Ok(Self::of(Shape::Fields(tree)))
    }

    fn of(shape: Shape) -> Self {
        Self {
            shape,
            made: Row::default(),
        }
    }

    /// The record of a row; the fault names what a column holds and no record makes.
    pub fn document(&mut self, plan: &MappingPlan, row: &Row) -> Result<Document, RowFault> {
        let (key, document) = self.shape.write(plan, row)?;
        plan.project(&key, Offset(0), document.as_bytes(), &mut self.made)
            .map_err(|fault| {
                let column = plan.column_names().position(|name| name == fault.column);
                let held = column.map_or_else(String::new, |column| held(&row.cells[column]));
                RowFault {
                    what: format!(
                        "it holds {held}, which the mapping does not write: {}",
                        fault.what
                    ),
                    ..fault
                }
            })?;
        let cells = self.made.cells.iter().zip(&row.cells);
        for (column, (made, read)) in plan.columns.iter().zip(cells) {
            if !is_same_value(made, read) {
                return Err(RowFault {
                    column: column.name.clone(),
                    what: format!(
                        "it holds {}, for which the mapping of the type '{}' writes {}",
                        held(read),
                        column.kind.name(),
                        held(made)
                    ),
                });
            }
        }
        Ok((key, document))
    }
}

/// Whether a cell that the mapping makes is the one that was read, or the same number in a store whose
/// columns take numbers of any type.
fn is_same_value(made: &Cell, read: &Cell) -> bool {
    if let (Cell::List(made), Cell::List(read)) = (made, read) {
        let same = |(made, read): (&Cell, &Cell)| is_same_value(made, read);
        return made.len() == read.len() && made.iter().zip(read).all(same);
    }
    let number = |cell: &Cell| match cell {
        Cell::Integer(number) => Some(number.to_string()),
        Cell::Real(number) => numeric(&Value::from(*number).to_string()),
        Cell::Numeric(number) => numeric(number),
        Cell::Text(text) if matches!(made, Cell::Numeric(_)) => numeric(text),
        _ => None,
    };
    made.is_same(read) || (number(made).is_some() && number(made) == number(read))
}

/// What a cell holds, for people.
fn held(cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Json(_) => format!("the JSON value {}", cell.show()),
        Cell::Real(number) => number.to_string(),
        _ => cell.show().to_string(),
    }
}

impl Shape {
    fn write(&self, plan: &MappingPlan, row: &Row) -> Result<Document, RowFault> {
        let fault = |column: usize, what: &str| RowFault {
            column: plan.columns[column].name.clone(),
            what: format!("it holds {}: {what}", held(&row.cells[column])),
        };
        let key = plan.key_of_row(row).ok_or_else(|| {
            fault(plan.key, "no key of the log makes this row: it lacks the key's template, or is of another type")
        })?;
        let mut out = String::new();
        match self {
            Self::Whole(column) => write_cell(plan, row, *column, &mut out),
            Self::Fields(tree) => tree.write(plan, row, &mut out),
        }
        .map_err(|(column, what)| fault(column, &what))?;
        Ok((key, out))
    }
}

/// A column, and why its cell has no JSON.
type Fault = (usize, String);

impl Tree {
    /// Whether the path meets no other one.
    fn insert(&mut self, steps: &[String], column: usize) -> bool {
        let Some((step, rest)) = steps.split_first() else {
            return false;
        };
        let known = self.0.iter_mut().find(|(name, _)| name == step);
        match (known, rest.is_empty()) {
            (None, true) => self.0.push((step.clone(), Node::Column(column))),
            (None, false) => {
                let mut inner = Self::default();
                if !inner.insert(rest, column) {
                    return false;
                }
                self.0.push((step.clone(), Node::Inner(inner)));
            }
            (Some((_, Node::Inner(inner))), false) => return inner.insert(rest, column),
            (Some(_), _) => return false,
        }
        true
    }

    fn write(&self, plan: &MappingPlan, row: &Row, out: &mut String) -> Result<(), Fault> {
        out.push('{');
        for (number, (name, node)) in self.0.iter().enumerate() {
            if number > 0 {
                out.push(',');
            }
            out.push_str(&Value::from(name.as_str()).to_string());
            out.push(':');
            match node {
                Node::Inner(inner) => inner.write(plan, row, out)?,
                Node::Column(column) => write_cell(plan, row, *column, out)?,
            }
        }
        out.push('}');
        Ok(())
    }
}

fn write_cell(plan: &MappingPlan, row: &Row, column: usize, out: &mut String) -> Result<(), Fault> {
    match (&row.cells[column], plan.columns[column].kind) {
        // A store without decimal numbers keeps them as texts.
        (Cell::Text(text), ColumnType::Numeric)
            if numeric_as_written(text).as_ref() == Some(text) =>
        {
            out.push_str(text);
            Ok(())
        }
        (cell, _) => write(cell, out).map_err(|what| (column, what)),
    }
}

/// A cell as the JSON that makes the same cell again.
fn write(cell: &Cell, out: &mut String) -> Result<(), String> {
    let text = |text: &str| Value::from(text).to_string();
    match cell {
        Cell::Null => out.push_str("null"),
        Cell::Integer(number) => out.push_str(&number.to_string()),
        Cell::Real(number) if number.is_finite() => out.push_str(&Value::from(*number).to_string()),
        Cell::Real(_) => return Err("JSON has no such number".to_owned()),
        Cell::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
        Cell::Text(value) => out.push_str(&text(value)),
        // All digits, whatever their number.
        Cell::Numeric(number) => out.push_str(number),
        Cell::Json(json) => match JsonText::parse(json) {
            Ok(json) if json.nests_within(JSON_DEPTH_MAX) => out.push_str(json.as_str()),
            Ok(_) => return Err("the document nests too deeply".to_owned()),
            Err(error) => return Err(error.to_string()),
        },
        Cell::Timestamp(micros) => out.push_str(&text(&timestamp_text(*micros))),
        Cell::Date(days) => out.push_str(&text(&date_text(*days))),
        Cell::Uuid(bytes) => out.push_str(&text(&uuid_text(bytes))),
        Cell::Blob(_) => return Err("bytes have no place in a document".to_owned()),
        Cell::List(cells) => {
            out.push('[');
            for (number, cell) in cells.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                write(cell, out)?;
            }
            out.push(']');
        }
    }
    Ok(())
}
