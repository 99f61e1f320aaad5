//! A definition checked against the log's tables, ready to turn records into rows.

mod columns;

use std::collections::HashMap;

use bytes::Bytes;
use onelog_record::{Offset, Quoted, TableDefinition, TableId, TableKind, nearest_name};

use self::columns::{check_known_types, chosen_columns, default_columns, full_text, key_column};
use crate::options::{ADOPT, TTL_SECONDS};
use crate::projection::Extractor;
use crate::transform::Transform;
use crate::{
    Cell, ColumnType, DefinitionError, KeyForm, KeyTemplate, Mapping, MappingOptions, MappingRules,
    Row, Source, parse_uuid, show_key, uuid_text,
};

/// The column that is added for the key when no column comes from `$key`.
pub const KEY_COLUMN: &str = "_key";

const HALF_DIGITS: usize = 32;

/// How much of its hash of a plan a store keeps: what it has once kept, it keeps for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashLength {
    /// 32 digits, 128 bits.
    Half,
    /// 64 digits, 256 bits.
    Whole,
}

/// All of a sink's mappings, by number and by table.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The mappings in the definition's order.
    pub mappings: Vec<MappingPlan>,
    by_table: HashMap<TableId, Vec<usize>>,
}

/// One mapping, with every name resolved.
#[derive(Clone, Debug)]
pub struct MappingPlan {
    /// The number of the log's table.
    pub table: TableId,
    /// The name of the log's table.
    pub table_name: String,
    pub into: String,
    /// The columns, the key's among them.
    pub columns: Vec<ColumnPlan>,
    /// Which column is the key.
    pub key: usize,
    /// Which columns a full-text index covers.
    pub full_text: Vec<usize>,
    /// Whether no columns were chosen: the row is the key and the whole document.
    pub is_document: bool,
    /// How the row's key is made of the record's key. Where keys are names
    /// ([`KeyForm::Name`]) the store makes it; elsewhere the key's cell has it.
    pub key_template: KeyTemplate,
    renders_key: bool,
    /// What concerns some kinds of store only.
    pub options: MappingOptions,
    transform: Transform,
    extractor: Extractor,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ColumnPlan {
    pub name: String,
    /// Where its cells come from.
    pub from: Source,
    pub kind: ColumnType,
}

/// A record that does not fit its mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column '{column}': {what}")]
pub struct RowFault {
    pub column: String,
    /// Why the value does not fit it.
    pub what: String,
}

/// Where the log's tables are looked up.
pub trait Tables {
    /// The live table of this name.
    fn table(&self, name: &str) -> Option<TableDefinition>;
    /// The names of the live tables.
    fn names(&self) -> Vec<String>;
}

impl Tables for [TableDefinition] {
    fn table(&self, name: &str) -> Option<TableDefinition> {
        self.iter().find(|t| t.name == name && !t.dropped).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|table| table.name.clone()).collect()
    }
}

impl Plan {
    /// Checks the mappings of one sink against the tables of the log and the rules of its store.
    pub fn new<T: Tables + ?Sized>(
        rules: &MappingRules,
        definitions: &[Mapping],
        tables: &T,
    ) -> Result<Self, DefinitionError> {
        let mut mappings = Vec::with_capacity(definitions.len());
        let mut by_table: HashMap<TableId, Vec<usize>> = HashMap::new();
        for (n, mapping) in definitions.iter().enumerate() {
            let plan = MappingPlan::new(&format!("mappings[{n}]"), mapping, rules, tables)?;
            by_table.entry(plan.table).or_default().push(n);
            mappings.push(plan);
        }
        let plan = Self { mappings, by_table };
        (rules.check)(&plan)?;
        Ok(plan)
    }

    /// The numbers of the mappings that follow a table.
    #[must_use]
    pub fn of_table(&self, table: TableId) -> &[usize] {
        self.by_table.get(&table).map_or(&[], Vec::as_slice)
    }

    /// The tables that are followed, in any order.
    pub fn tables(&self) -> impl Iterator<Item = TableId> {
        self.by_table.keys().copied()
    }

    /// A text that is the same exactly for plans that make the same rows of the same tables. A
    /// store keeps it beside the position, which means nothing under another plan.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let parts: Vec<serde_json::Value> = self
            .mappings
            .iter()
            .map(|mapping| {
                let columns: Vec<_> = mapping
                    .columns
                    .iter()
                    .map(|c| serde_json::json!([c.name, c.from.as_str(), c.kind.name()]))
                    .collect();
                let mut part =
                    serde_json::json!([mapping.table, mapping.into, columns, mapping.full_text]);
                let more = mapping.more_of_the_fingerprint();
                if let (false, Some(list)) = (more.is_null(), part.as_array_mut()) {
                    list.push(more);
                }
                part
            })
            .collect();
        serde_json::Value::from(parts).to_string()
    }

    /// A hash of [`Plan::fingerprint`] in hexadecimal digits, for stores in which a long text has no
    /// place; `besides` is what the rows rest on besides the plan. Stores keep it, so the same plan
    /// MUST give the same digits in every version.
    #[must_use]
    pub fn fingerprint_hash(&self, length: HashLength, besides: Option<&str>) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.fingerprint().as_bytes());
        if let Some(besides) = besides {
            hasher.update(b" ").update(besides.as_bytes());
        }
        let mut digits = hasher.finalize().to_hex().to_string();
        if length == HashLength::Half {
            digits.truncate(HALF_DIGITS);
        }
        digits
    }
}

impl MappingPlan {
    fn new<T: Tables + ?Sized>(
        place: &str,
        mapping: &Mapping,
        rules: &MappingRules,
        tables: &T,
    ) -> Result<Self, DefinitionError> {
        let table = find_table(place, &mapping.table, tables)?;
        let transform = Transform::new(place, mapping, table.value)?;
        let is_document = mapping.columns.0.is_empty();
        let columns = if is_document {
            default_columns(table.value)
        } else {
            chosen_columns(place, &mapping.columns, table.value)?
        };
        check_known_types(place, &columns, rules)?;
        let key = key_column(place, &columns)?;
        let full_text = full_text(place, mapping, &columns, key)?;
        let extractor = Extractor::new(&columns);
        let key_template = match &mapping.key {
            Some(template) => template.clone(),
            None if rules.keys == KeyForm::Name => KeyTemplate {
                prefix: format!("{}:", mapping.into),
                suffix: String::new(),
            },
            None => KeyTemplate::default(),
        };
        // A name is made of the record's bytes, whatever the column is.
        let is_rendered = rules.keys == KeyForm::Column && !key_template.is_plain();
        if is_rendered && columns[key].kind != ColumnType::Text {
            return Err(DefinitionError::new(
                format!("{place}.key"),
                format!(
                    "a key that is made by a template is a text; the column '{}' is of the type '{}'",
                    columns[key].name,
                    columns[key].kind.name()
                ),
            ));
        }
        Ok(Self {
            table: table.id,
            table_name: table.name,
            into: mapping.into.clone(),
            columns,
            key,
            full_text,
            is_document,
            key_template,
            renders_key: rules.keys == KeyForm::Column,
            options: mapping.options.clone(),
            transform,
            extractor,
        })
    }

    /// What the mapping makes of a record before columns are taken from it: `where`, `transform` and
    /// `fields`. `None`: the record has no row in this store.
    pub fn transform(
        &self,
        key: &[u8],
        version: Offset,
        value: &Bytes,
    ) -> Result<Option<Bytes>, RowFault> {
        self.transform.apply(key, version, value)
    }

    /// Whether [`MappingPlan::transform`] changes anything.
    #[must_use]
    pub fn has_transform(&self) -> bool {
        !self.transform.is_plain()
    }

    /// The key of the log that a row's key was made of. `None`: no key of the log makes this row.
    #[must_use]
    pub fn key_of_row(&self, row: &Row) -> Option<Vec<u8>> {
        let bytes = match row.cells.get(self.key)? {
            Cell::Text(text) => text.as_bytes().to_vec(),
            Cell::Blob(bytes) => bytes.clone(),
            Cell::Integer(number) => number.to_string().into_bytes(),
            Cell::Uuid(bytes) => uuid_text(bytes).into_bytes(),
            _ => return None,
        };
        match self.is_key_rendered() {
            true => self.key_template.strip(&bytes).map(<[u8]>::to_vec),
            false => Some(bytes),
        }
    }

    /// Whether the key's cell has the template in it.
    const fn is_key_rendered(&self) -> bool {
        self.renders_key && !self.key_template.is_plain()
    }

    /// What was added to mappings later, left out where it is not used: a store that was backfilled
    /// before keeps its position.
    fn more_of_the_fingerprint(&self) -> serde_json::Value {
        let mut more = self.transform.fingerprint();
        if !self.key_template.is_plain() {
            more.insert("key".into(), self.key_template.to_string().into());
        }
        // How a table is adopted changes no row of it later.
        let mut options = self.options.as_map().clone();
        options.remove(ADOPT);
        if !options.is_empty() {
            more.insert("options".into(), options.into());
        }
        match more.is_empty() {
            true => serde_json::Value::Null,
            false => more.into(),
        }
    }

    /// Whether rows end by themselves, some time after they were written.
    #[must_use]
    pub fn expires(&self) -> bool {
        self.options.count(TTL_SECONDS).is_some()
    }

    /// The names of the columns.
    pub fn column_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.columns.iter().map(|column| column.name.as_str())
    }

    pub fn project_key(&self, key: &[u8], cell: &mut Cell) -> Result<(), RowFault> {
        let column = &self.columns[self.key];
        let fault = |what: String| RowFault {
            column: column.name.clone(),
            what,
        };
        let rendered;
        let key = match self.is_key_rendered() {
            false => key,
            true => {
                let mut out = Vec::new();
                self.key_template.render(key, &mut out);
                rendered = out;
                &rendered
            }
        };
        match column.kind {
            ColumnType::Blob => cell.set_blob(key),
            ColumnType::Uuid => {
                // One key of the log for each UUID: only the usual form of its text is taken.
                let uuid = std::str::from_utf8(key)
                    .ok()
                    .and_then(|text| parse_uuid(text).filter(|uuid| uuid_text(uuid) == text));
                *cell = Cell::Uuid(uuid.ok_or_else(|| {
                    fault(format!(
                        "the key {} is not a UUID with hyphens, in lower case",
                        show_key(key)
                    ))
                })?);
            }
            ColumnType::Integer => {
                let number = std::str::from_utf8(key)
                    .ok()
                    .and_then(|text| text.parse::<i64>().ok().filter(|n| n.to_string() == text));
                *cell = Cell::Integer(number.ok_or_else(|| {
                    fault(format!(
                        "the key {} is not a whole number of 64 bits in its shortest form",
                        show_key(key)
                    ))
                })?);
            }
            _ => cell.set_text(std::str::from_utf8(key).map_err(|_| {
                fault("the key is not UTF-8; give the column of '$key' the type 'blob'".into())
            })?),
        }
        Ok(())
    }

    /// The row of a record: every cell of `row` is written, nothing else is allocated but what a
    /// longer text needs. The document is parsed once.
    pub fn project(
        &self,
        key: &[u8],
        version: Offset,
        value: &[u8],
        row: &mut Row,
    ) -> Result<(), RowFault> {
        row.resize(self.columns.len());
        for (n, column) in self.columns.iter().enumerate() {
            let cell = &mut row.cells[n];
            match column.from {
                Source::Key => self.project_key(key, cell)?,
                Source::Version => {
                    *cell = Cell::Integer(i64::try_from(version.get()).unwrap_or(i64::MAX));
                }
                Source::Value => whole_value(column, value, cell)?,
                Source::Field(_) => {}
            }
        }
        self.extractor.extract(&self.columns, value, row)
    }
}

fn whole_value(column: &ColumnPlan, value: &[u8], cell: &mut Cell) -> Result<(), RowFault> {
    let text = || {
        std::str::from_utf8(value).map_err(|_| RowFault {
            column: column.name.clone(),
            what: "the value is not UTF-8; give the column of '$value' the type 'blob'".into(),
        })
    };
    match column.kind {
        ColumnType::Blob => cell.set_blob(value),
        ColumnType::Json if value.trim_ascii() == b"null" => *cell = Cell::Null,
        ColumnType::Json => cell.set_json(text()?),
        _ => cell.set_text(text()?),
    }
    Ok(())
}

/// The beginning of the names of onelog's own tables.
const OWN_TABLES: &str = "onelog";

fn find_table<T: Tables + ?Sized>(
    place: &str,
    name: &str,
    tables: &T,
) -> Result<TableDefinition, DefinitionError> {
    let place = format!("{place}.table");
    if name == OWN_TABLES || name.starts_with(&format!("{OWN_TABLES}.")) {
        let what = format!(
            "the tables '{OWN_TABLES}.*' belong to onelog itself, so no sink follows '{name}'; follow a table of your own"
        );
        return Err(DefinitionError::new(place, what));
    }
    let Some(table) = tables.table(name) else {
        let names = tables.names();
        let what = match nearest_name(name, names.iter().map(String::as_str)) {
            Some(near) => format!("there is no table '{name}'; did you mean '{near}'?"),
            None => format!("there is no table '{}'", Quoted(name)),
        };
        return Err(DefinitionError::new(place, what));
    };
    if table.kind == TableKind::Stream {
        return Err(DefinitionError::new(
            place,
            format!("'{name}' is a stream: it has events but no rows, so no store can equal it"),
        ));
    }
    Ok(table)
}

#[cfg(test)]
mod tests;
