//! One side of a pair: a reader over a place as it is, which gives rows in the common form: the key
//! as text (or bytes where it is none), then every column in the type it is compared as.

use std::ops::ControlFlow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use onelog_mapping::{
    Cell, Column, ColumnPlan, ColumnType, Columns, DefinitionError, Extractor, KeyForm,
    KeyTemplate, Mapping, Plan, Row, Source,
};
use onelog_record::{FieldPath, TableDefinition, TableId, TableKind, USER_TABLES_FROM, ValueKind};
use onelog_store::{StoreError, StoreReader, Target};

use crate::definition::{Compare, FieldSource, Place, Rows, SideName};
use crate::normal::{normalise, normalise_key};

/// A table in the place of what wrote the store.
const TABLE: &str = "audit";

/// Why a side cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug)]
pub(super) struct SideFault {
    pub(super) side: SideName,
    pub(super) cause: SideError,
}

pub(super) struct Side {
    name: SideName,
    reader: Box<dyn StoreReader>,
    key: usize,
    /// What the key is stripped of; nothing where the reader does it.
    template: KeyTemplate,
    /// Whether the reader gives the bytes of keys as base64.
    has_byte_names: bool,
    form: Form,
    kinds: Vec<ColumnType>,
    /// Rows whose key the template does not make.
    pub(super) foreign_keys: u64,
}

/// How a row of the reader becomes one of the common form.
enum Form {
    /// The number of each column in the reader's row.
    Columns(Vec<usize>),
    /// Out of the document, which has this number in the reader's row.
    Document {
        at: usize,
        extractor: Extractor,
        columns: Vec<ColumnPlan>,
        whole: Vec<usize>,
        fields: Row,
    },
}

impl Side {
    pub(super) fn open(
        compare: &Compare,
        side: SideName,
        store: &Arc<dyn Target>,
    ) -> Result<Self, SideFault> {
        Self::try_open(compare, side, store).map_err(|cause| SideFault { side, cause })
    }

    fn try_open(
        compare: &Compare,
        side: SideName,
        store: &Arc<dyn Target>,
    ) -> Result<Self, SideError> {
        let place = match side {
            SideName::Left => &compare.left,
            SideName::Right => &compare.right,
        };
        let store = in_part(store, place)?;
        let keys = store.kind().rules().keys;
        let plan = Arc::new(plan(store.as_ref(), place)?);
        let mapping = &plan.mappings[0];
        let key = mapping.key;
        let form = match &place.rows {
            Rows::Columns { columns, .. } => {
                Form::Columns((0..=columns.len()).filter(|n| *n != key).collect())
            }
            Rows::Documents(fields) => Form::document(1 - key, fields),
        };
        Ok(Self {
            name: side,
            reader: store.open_reader(&plan)?,
            key,
            template: match keys {
                KeyForm::Name => KeyTemplate::default(),
                KeyForm::Column => place.template.clone(),
            },
            has_byte_names: place.has_byte_names,
            form,
            kinds: compare.columns.iter().map(|(_, kind)| *kind).collect(),
            foreign_keys: 0,
        })
    }

    /// Gives every row in the common form.
    pub(super) fn scan(&mut self, each: &mut dyn FnMut(&Row)) -> Result<(), SideFault> {
        let Self {
            name,
            reader,
            key,
            template,
            has_byte_names,
            form,
            kinds,
            foreign_keys,
        } = self;
        *foreign_keys = 0;
        let mut out = Row::new(kinds.len() + 1);
        let scanned = reader.scan(0, &mut |row| {
            out.cells[0].clone_from(&row.cells[*key]);
            normalise_key(&mut out.cells[0]);
            let is_named = !*has_byte_names || bytes_of_name(&mut out.cells[0]);
            if !is_named || !strip(template, &mut out.cells[0]) {
                *foreign_keys += 1;
                return ControlFlow::Continue(());
            }
            form.fill(row, &mut out);
            for (cell, kind) in out.cells[1..].iter_mut().zip(kinds.iter()) {
                normalise(*kind, cell);
            }
            each(&out);
            ControlFlow::Continue(())
        });
        scanned.map_err(|error| SideFault {
            side: *name,
            cause: error.into(),
        })
    }
}

/// Makes a document's name the bytes of which a sink made it. Whether it is such a name.
fn bytes_of_name(cell: &mut Cell) -> bool {
    let Cell::Text(name) = &*cell else {
        return false;
    };
    let Ok(bytes) = URL_SAFE_NO_PAD.decode(name) else {
        return false;
    };
    *cell = Cell::Blob(bytes);
    normalise_key(cell);
    true
}

/// Takes the template off a key. Whether the key is one that the template makes.
fn strip(template: &KeyTemplate, cell: &mut Cell) -> bool {
    if template.is_plain() {
        return true;
    }
    let bytes = match &*cell {
        Cell::Text(text) => text.as_bytes(),
        Cell::Blob(bytes) => bytes,
        _ => return false,
    };
    let Some(bare) = template.strip(bytes) else {
        return false;
    };
    *cell = Cell::Blob(bare.to_vec());
    normalise_key(cell);
    true
}

impl Form {
    /// Fields are taken as their text in the document: a value of a wrong type is a
    /// difference to be shown, not an error.
    fn document(at: usize, fields: &[FieldSource]) -> Self {
        let columns: Vec<ColumnPlan> = fields
            .iter()
            .enumerate()
            .map(|(n, field)| ColumnPlan {
                name: n.to_string(),
                from: match field {
                    FieldSource::Value => Source::Value,
                    FieldSource::Field(path) => Source::Field(path.clone()),
                },
                kind: ColumnType::Json,
            })
            .collect();
        let whole = (0..fields.len())
            .filter(|n| fields[*n] == FieldSource::Value)
            .collect();
        Self::Document {
            at,
            extractor: Extractor::new(&columns),
            whole,
            fields: Row::new(columns.len()),
            columns,
        }
    }

    fn fill(&mut self, row: &Row, out: &mut Row) {
        match self {
            Self::Columns(order) => {
                for (cell, n) in out.cells[1..].iter_mut().zip(order.iter()) {
                    cell.clone_from(&row.cells[*n]);
                }
            }
            Self::Document {
                at,
                extractor,
                columns,
                whole,
                fields,
            } => {
                let document = match &row.cells[*at] {
                    Cell::Json(text) | Cell::Text(text) => text.as_bytes(),
                    Cell::Blob(bytes) => bytes,
                    _ => b"null",
                };
                let text = |bytes: &[u8]| Cell::Text(String::from_utf8_lossy(bytes).into_owned());
                if extractor.extract(columns, document, fields).is_err() {
                    // What is no JSON has no fields; the first column shows what is there instead.
                    fields.cells.fill(Cell::Null);
                    fields.cells[0] = text(document);
                }
                for n in whole.iter() {
                    fields.cells[*n] = text(document);
                }
                out.cells[1..].clone_from_slice(&fields.cells);
            }
        }
    }
}

/// A place may name its own part of the store.
fn in_part(store: &Arc<dyn Target>, place: &Place) -> Result<Arc<dyn Target>, DefinitionError> {
    let part = place.part.as_deref();
    let other = part.and_then(|part| store.with(store.kind().part()?, part.into()));
    other.unwrap_or_else(|| Ok(Arc::clone(store)))
}

/// The plan of a sink that would have written this place.
fn plan(store: &dyn Target, place: &Place) -> Result<Plan, DefinitionError> {
    let rules = store.kind().rules();
    let mapping = Mapping {
        table: TABLE.to_owned(),
        into: place.into.clone(),
        columns: columns(place)?,
        full_text: Vec::new(),
        filter: None,
        transform: None,
        fields: Vec::new(),
        key: (rules.keys == KeyForm::Name).then(|| place.template.clone()),
        options: place.options.clone(),
    };
    let table = TableDefinition {
        id: TableId(USER_TABLES_FROM.get()),
        name: TABLE.to_owned(),
        kind: TableKind::Keyed,
        value: ValueKind::Json,
        schema: None,
        unique: Vec::new(),
        dropped: false,
    };
    Plan::new(rules, &[mapping], [table].as_slice())
}

/// The columns as they are named in the store, the key's first.
fn columns(place: &Place) -> Result<Columns, DefinitionError> {
    let Rows::Columns { key, columns, .. } = &place.rows else {
        return Ok(Columns::default());
    };
    let (name, kind) = key.clone();
    let mut out = vec![(
        name,
        Column {
            from: Source::Key,
            kind,
        },
    )];
    for (name, kind) in columns {
        // Nothing is projected, so a column may come from whatever gives this type.
        let from = match kind {
            ColumnType::Blob => Source::Value,
            _ => Source::Field(FieldPath::whole()),
        };
        out.push((name.clone(), Column { from, kind: *kind }));
    }
    Ok(Columns(out))
}

#[cfg(test)]
mod tests {
    use onelog_record::Position;
    use serde_json::json;

    use super::*;
    use crate::AuditDefinition;
    use onelog_store::{EachRow, IndexCheck};

    /// A store of documents that is a list.
    struct Documents(Vec<(&'static str, &'static str)>);

    impl StoreReader for Documents {
        fn position(&self) -> Position {
            Position::ZERO
        }

        fn scan(&mut self, _: usize, each: EachRow<'_>) -> Result<(), StoreError> {
            let mut row = Row::new(2);
            for (key, document) in &self.0 {
                row.cells[0].set_text(key);
                row.cells[1].set_json(document);
                let _ = each(&row);
            }
            Ok(())
        }

        fn check_index(&mut self, _: usize, _: usize) -> Result<Option<IndexCheck>, StoreError> {
            Ok(None)
        }
    }

    /// The rows of such a place in the common form, and how many others there are.
    fn scanned(
        place: &serde_json::Value,
        columns: &serde_json::Value,
        documents: Vec<(&'static str, &'static str)>,
    ) -> (Vec<Vec<Cell>>, u64) {
        let search = onelog_stores::KINDS.target("http://h").unwrap();
        let definition = json!({"compare": [{
            "name": "n", "left": place, "right": {"index": "orders"}, "columns": columns,
        }]});
        let definition =
            AuditDefinition::from_json(&definition, search.kind(), search.kind()).unwrap();
        let compare = &definition.compares[0];
        let Rows::Documents(fields) = &compare.left.rows else {
            panic!()
        };
        let mut side = Side {
            name: SideName::Left,
            reader: Box::new(Documents(documents)),
            key: 0,
            template: compare.left.template.clone(),
            has_byte_names: compare.left.has_byte_names,
            form: Form::document(1, fields),
            kinds: compare.columns.iter().map(|(_, kind)| *kind).collect(),
            foreign_keys: 0,
        };
        let mut rows = Vec::new();
        side.scan(&mut |row| rows.push(row.cells.clone())).unwrap();
        (rows, side.foreign_keys)
    }

    fn text(text: &str) -> Cell {
        Cell::Text(text.into())
    }

    #[test]
    fn documents_become_rows_of_the_compared_types_and_other_keys_are_counted() {
        let (rows, foreign_keys) = scanned(
            &json!({"index": "orders", "key": "order-{$key}"}),
            &json!([
                {"name": "total", "type": "numeric"},
                {"name": "city", "type": "text", "left": "/address/city"},
                {"name": "all", "type": "text", "left": "$value"},
            ]),
            vec![
                (
                    "order-1",
                    r#"{"total": "2.50", "address": {"city": "Ulm"}}"#,
                ),
                ("other", "{}"),
                ("order-2", "no json"),
                ("order-3", "{}"),
            ],
        );
        assert_eq!(
            rows,
            [
                vec![
                    text("1"),
                    Cell::Numeric("2.5".into()),
                    text("Ulm"),
                    text(r#"{"total": "2.50", "address": {"city": "Ulm"}}"#),
                ],
                vec![text("2"), text("no json"), Cell::Null, text("no json")],
                vec![text("3"), Cell::Null, Cell::Null, text("{}")],
            ]
        );
        assert_eq!(foreign_keys, 1);
    }

    #[test]
    fn keys_of_bytes_are_the_same_in_the_name_of_a_document_and_in_a_column() {
        // Given documents as a sink names them for keys of bytes, and one of another program,
        let columns = json!([{"name": "total", "type": "integer"}]);
        let documents = vec![("_-4A", "{}"), ("YS0x", "{}"), ("no bytes", "{}")];
        // when they are read as such,
        let place = json!({"index": "orders", "key_type": "blob"});
        let (rows, foreign_keys) = scanned(&place, &columns, documents.clone());
        // then the keys are those of a column of bytes,
        let mut column = [Cell::Blob(vec![255, 238, 0]), Cell::Blob(b"a-1".to_vec())];
        column.iter_mut().for_each(normalise_key);
        let keys: Vec<_> = rows.iter().map(|row| row[0].clone()).collect();
        assert_eq!(keys, column);
        assert_eq!(foreign_keys, 1);
        // with a template as well, which a sink applies to the bytes.
        let place = json!({"index": "orders", "key_type": "blob", "key": "a-{$key}"});
        let (rows, foreign_keys) = scanned(&place, &columns, documents);
        assert_eq!(rows, [vec![text("1"), Cell::Null]]);
        assert_eq!(foreign_keys, 2);
    }
}
