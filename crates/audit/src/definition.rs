//! What an audit compares: pairs of places, and the columns that both have.
//!
//! ```toml
//! [[compare]]
//! name    = "orders"
//! left    = { table = "public.orders", key = "id", key_type = "integer" }
//! right   = { key = "order:{$key}", as = "hash" }
//! columns = [ { name = "total", type = "integer" },
//!             { name = "status", left = "state", right = "status", type = "text" } ]
//! ```

use onelog_mapping::{
    COLUMNS_MAX, ColumnType, DefinitionError, KeyForm, KeyTemplate, MappingOptions, MappingRules,
    Object, RowForm,
};
use onelog_record::FieldPath;
use onelog_store::StoreKind;
use serde_json::Value;

/// The most things that one audit compares.
pub const COMPARES_MAX: usize = 256;

/// Everything that an audit compares.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditDefinition {
    pub(super) compares: Vec<Compare>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compare {
    pub(super) name: String,
    pub(super) left: Place,
    pub(super) right: Place,
    /// The columns' common names and types.
    pub(super) columns: Vec<(String, ColumnType)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// The table, the index, or how a key is made.
    pub(super) into: String,
    /// The part of the store that the table is in, where one was given.
    pub(super) part: Option<String>,
    /// What the kind of store must know to read such rows.
    pub(super) options: MappingOptions,
    /// How the key is made of the common key.
    pub(super) template: KeyTemplate,
    /// Whether the key is bytes, which are base64 in the name of a document.
    pub(super) has_byte_names: bool,
    pub(super) rows: Rows,
}

/// How the rows of a place are read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rows {
    Columns {
        /// The key's column and its type there.
        key: (String, ColumnType),
        /// The others, with their types there, in the order of [`Compare::columns`].
        columns: Vec<(String, ColumnType)>,
    },
    /// Documents under keys; of each column where it is in the document.
    Documents(Vec<FieldSource>),
}

/// Where a column is in a document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FieldSource {
    /// `$value`: the whole, as it is, which need not be JSON.
    Value,
    Field(FieldPath),
}

/// Which side, in a definition and in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SideName {
    Left,
    Right,
}

impl SideName {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }

    const fn type_field(self) -> &'static str {
        match self {
            Self::Left => "left_type",
            Self::Right => "right_type",
        }
    }
}

/// A column as it is written.
struct Column<'v> {
    object: Object<'v>,
    name: String,
    kind: ColumnType,
}

impl AuditDefinition {
    /// Reads what is compared between two kinds of store.
    pub fn from_json(
        value: &Value,
        left: &dyn StoreKind,
        right: &dyn StoreKind,
    ) -> Result<Self, DefinitionError> {
        let object = Object::new("", value)?;
        object.only(&["compare"])?;
        let list = object.array("compare")?;
        if list.is_empty() || list.len() > COMPARES_MAX {
            return Err(DefinitionError::new(
                "compare",
                format!(
                    "1 to {COMPARES_MAX} things can be compared, these are {}",
                    list.len()
                ),
            ));
        }
        let mut compares: Vec<Compare> = Vec::with_capacity(list.len());
        for (n, value) in list.iter().enumerate() {
            let compare = Compare::from_json(&format!("compare[{n}]"), value, left, right)?;
            if compares.iter().any(|known| known.name == compare.name) {
                return Err(DefinitionError::new(
                    format!("compare[{n}].name"),
                    "another entry has this name",
                ));
            }
            compares.push(compare);
        }
        Ok(Self { compares })
    }
}

impl Compare {
    fn from_json(
        place: &str,
        value: &Value,
        left: &dyn StoreKind,
        right: &dyn StoreKind,
    ) -> Result<Self, DefinitionError> {
        let object = Object::new(place, value)?;
        object.only(&["name", "left", "right", "columns"])?;
        let columns = columns(&object)?;
        let side = |side: SideName, kind: &dyn StoreKind| {
            let name = side.name();
            let value = object.required(name)?;
            let spec = Object::new(&object.place(name), value)?;
            Place::from_object(&spec, side, kind, &columns)
        };
        Ok(Self {
            name: object.text("name")?.to_owned(),
            left: side(SideName::Left, left)?,
            right: side(SideName::Right, right)?,
            columns: columns
                .iter()
                .map(|column| (column.name.clone(), column.kind))
                .collect(),
        })
    }
}

fn columns<'v>(object: &Object<'v>) -> Result<Vec<Column<'v>>, DefinitionError> {
    let list = object.array("columns")?;
    if list.is_empty() || list.len() > COLUMNS_MAX {
        return Err(DefinitionError::new(
            object.place("columns"),
            format!(
                "1 to {COLUMNS_MAX} columns can be compared, these are {}",
                list.len()
            ),
        ));
    }
    let mut out: Vec<Column<'v>> = Vec::with_capacity(list.len());
    for (n, value) in list.iter().enumerate() {
        let object = Object::new(&format!("{}[{n}]", object.place("columns")), value)?;
        object.only(&["name", "type", "left", "right", "left_type", "right_type"])?;
        let name = object.text("name")?.to_owned();
        if out.iter().any(|known| known.name == name) {
            return Err(DefinitionError::new(
                object.place("name"),
                "another column has this name",
            ));
        }
        let kind = column_type(&object, "type")?;
        out.push(Column { object, name, kind });
    }
    Ok(out)
}

fn column_type(object: &Object<'_>, field: &str) -> Result<ColumnType, DefinitionError> {
    ColumnType::parse(object.text(field)?)
        .map_err(|what| DefinitionError::new(object.place(field), what))
}

impl Column<'_> {
    /// Where this column is on a side, as it is written.
    fn source(&self, side: SideName) -> Result<&str, DefinitionError> {
        let given = self.object.optional_text(side.name())?;
        Ok(given.unwrap_or(&self.name))
    }

    fn of_row(&self, side: SideName) -> Result<(String, ColumnType), DefinitionError> {
        let kind = match self.object.fields.contains_key(side.type_field()) {
            true => column_type(&self.object, side.type_field())?,
            false => self.kind,
        };
        Ok((self.source(side)?.to_owned(), kind))
    }

    /// A field of a document, whose type the document tells.
    fn of_document(&self, side: SideName) -> Result<FieldSource, DefinitionError> {
        if self.object.fields.contains_key(side.type_field()) {
            return Err(DefinitionError::new(
                self.object.place(side.type_field()),
                "fields of a document have no type of their own; leave this out",
            ));
        }
        match self.source(side)? {
            "$value" => Ok(FieldSource::Value),
            path => FieldPath::parse(path)
                .map(FieldSource::Field)
                .map_err(|error| {
                    DefinitionError::new(self.object.place(side.name()), error.to_string())
                }),
        }
    }
}

impl Place {
    fn from_object(
        spec: &Object<'_>,
        side: SideName,
        kind: &dyn StoreKind,
        columns: &[Column<'_>],
    ) -> Result<Self, DefinitionError> {
        let rules = kind.rules();
        match (rules.keys, rules.rows) {
            (KeyForm::Name, _) => Self::of_names(spec, side, rules, columns),
            (KeyForm::Column, RowForm::Document) => {
                spec.only(&["index", "key", "key_type"])?;
                Ok(Self {
                    into: spec.text("index")?.to_owned(),
                    part: None,
                    options: MappingOptions::default(),
                    template: template(spec, "key")?.unwrap_or_default(),
                    has_byte_names: key_type(spec)? == ColumnType::Blob,
                    rows: documents(side, columns)?,
                })
            }
            (KeyForm::Column, RowForm::Columns) => Self::of_table(spec, side, kind, columns),
        }
    }

    fn of_table(
        spec: &Object<'_>,
        side: SideName,
        kind: &dyn StoreKind,
        columns: &[Column<'_>],
    ) -> Result<Self, DefinitionError> {
        spec.only(&["table", "key", "key_type", "key_template"])?;
        let key_type = key_type(spec)?;
        let table = spec.text("table")?;
        let (part, into) = match table.split_once('.').filter(|_| kind.part().is_some()) {
            Some((part, table)) => (Some(part.to_owned()), table),
            None => (None, table),
        };
        let rows = Rows::Columns {
            key: (spec.text("key")?.to_owned(), key_type),
            columns: of_rows(side, columns)?,
        };
        Ok(Self {
            into: into.to_owned(),
            part,
            options: MappingOptions::default(),
            template: template(spec, "key_template")?.unwrap_or_default(),
            has_byte_names: false,
            rows,
        })
    }

    fn of_names(
        spec: &Object<'_>,
        side: SideName,
        rules: &MappingRules,
        columns: &[Column<'_>],
    ) -> Result<Self, DefinitionError> {
        let by = rules.columns_by.map(|(option, _)| option);
        spec.only(&["key"].into_iter().chain(by).collect::<Vec<_>>())?;
        // The text must be there, and a template without the key's place would match one key only.
        let text = spec.text("key")?;
        let options = MappingOptions::read(spec, by, rules)?;
        let rows = match rules.has_columns(&options) {
            false => documents(side, columns)?,
            true => Rows::Columns {
                key: ("$key".to_owned(), ColumnType::Text),
                columns: of_rows(side, columns)?,
            },
        };
        Ok(Self {
            into: text.to_owned(),
            part: None,
            options,
            template: template(spec, "key")?.unwrap_or_default(),
            has_byte_names: false,
            rows,
        })
    }

    /// The place for people.
    pub(super) fn shown(&self) -> String {
        match &self.part {
            Some(part) => format!("{part}.{}", self.into),
            None => self.into.clone(),
        }
    }
}

/// The type of a place's key; text where none is given.
fn key_type(spec: &Object<'_>) -> Result<ColumnType, DefinitionError> {
    let kind = match spec.fields.contains_key("key_type") {
        true => column_type(spec, "key_type")?,
        false => ColumnType::Text,
    };
    use ColumnType::{Blob, Integer, Text, Uuid};
    match [Text, Integer, Blob, Uuid].contains(&kind) {
        true => Ok(kind),
        false => Err(DefinitionError::new(
            spec.place("key_type"),
            "a key is of the type text, integer, uuid or blob",
        )),
    }
}

fn of_rows(
    side: SideName,
    columns: &[Column<'_>],
) -> Result<Vec<(String, ColumnType)>, DefinitionError> {
    columns.iter().map(|column| column.of_row(side)).collect()
}

fn documents(side: SideName, columns: &[Column<'_>]) -> Result<Rows, DefinitionError> {
    let fields = columns.iter().map(|column| column.of_document(side));
    Ok(Rows::Documents(fields.collect::<Result<_, _>>()?))
}

fn template(spec: &Object<'_>, field: &str) -> Result<Option<KeyTemplate>, DefinitionError> {
    spec.optional_text(field)?
        .map(KeyTemplate::parse)
        .transpose()
        .map_err(|what| DefinitionError::new(spec.place(field), what))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind(url: &str) -> &'static dyn StoreKind {
        onelog_stores::KINDS.target(url).unwrap().kind()
    }

    fn read(value: &Value) -> Result<AuditDefinition, DefinitionError> {
        AuditDefinition::from_json(value, kind("postgres://h/d"), kind("redis://h"))
    }

    fn example() -> Value {
        json!({"compare": [{
            "name": "orders",
            "left": {"table": "shop.orders", "key": "id", "key_type": "integer"},
            "right": {"key": "order:{$key}"},
            "columns": [
                {"name": "total", "type": "numeric"},
                {"name": "city", "type": "text", "left": "town", "right": "/address/city"}
            ]
        }]})
    }

    #[test]
    fn both_sides_have_their_own_names() {
        let definition = read(&example()).unwrap();
        let compare = &definition.compares[0];
        assert_eq!(compare.left.shown(), "shop.orders");
        let Rows::Columns { key, columns, .. } = &compare.left.rows else {
            panic!()
        };
        assert_eq!(key, &("id".to_owned(), ColumnType::Integer));
        assert_eq!(columns[1], ("town".to_owned(), ColumnType::Text));
        let Rows::Documents(fields) = &compare.right.rows else {
            panic!()
        };
        assert_eq!(
            fields[1],
            FieldSource::Field(FieldPath::parse("/address/city").unwrap())
        );
        assert_eq!(compare.right.template.prefix, "order:");
    }

    #[test]
    fn every_error_names_its_place() {
        let error = |change: fn(&mut Value)| {
            let mut value = example();
            change(&mut value["compare"][0]);
            read(&value).unwrap_err().to_string()
        };
        for (change, expected) in [
            (
                (|v| v["left"]["tabel"] = json!("x")) as fn(&mut Value),
                "compare[0].left.tabel: unknown field 'tabel'; did you mean 'table'?",
            ),
            (
                |v| v["columns"][0]["type"] = json!("numric"),
                "compare[0].columns[0].type: unknown type 'numric'; did you mean 'numeric'?",
            ),
            (
                |v| v["right"]["key"] = json!("order"),
                "compare[0].right.key: a key is made of the record's key",
            ),
            (
                |v| v["right"]["as"] = json!("list"),
                "compare[0].right.as: unknown shape 'list'",
            ),
            (
                |v| v["columns"] = json!([]),
                "compare[0].columns: 1 to 256 columns",
            ),
            (
                |v| v["columns"][1]["right_type"] = json!("text"),
                "compare[0].columns[1].right_type: fields of a document",
            ),
            (
                |v| v["left"]["key_type"] = json!("real"),
                "compare[0].left.key_type: a key is of the type",
            ),
        ] {
            let said = error(change);
            assert!(said.starts_with(expected), "{said}");
        }
    }
}
