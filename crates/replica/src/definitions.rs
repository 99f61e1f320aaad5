//! Definitions of tables: what is checked, and the transactions on `onelog.tables` that make and
//! delete tables.

use bytes::Bytes;
use onelog_record::{
    CommitRequest, Compare, FieldPath, Guard, KeyRange, Operation, Position, Predicate, Quoted,
    Refusal, TABLE_TABLES, TableDefinition, TableId, TableKind, TableNameError, ValueKind, Write,
    check_table_name,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalog::Catalog;
use crate::schema::{self, SchemaError};

/// How many unique fields a table may have.
const UNIQUE_FIELDS_MAX: usize = 16;

/// A table to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTable {
    /// Its name, `service.table`.
    pub name: String,
    /// Whether the state keeps the latest value of each key.
    pub kind: TableKind,
    pub value: ValueKind,
    /// The JSON Schema that each value must satisfy.
    #[serde(default)]
    pub schema: Option<Value>,
    /// Fields whose values may occur only once in the table.
    #[serde(default)]
    pub unique: Vec<FieldPath>,
}

impl NewTable {
    /// A keyed table of JSON documents.
    #[must_use]
    pub fn keyed(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: TableKind::Keyed,
            value: ValueKind::Json,
            schema: None,
            unique: Vec::new(),
        }
    }
}

/// A table was not made or not deleted.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The name is not allowed.
    #[error(transparent)]
    Name(#[from] TableNameError),
    /// Another table has this name.
    #[error(
        "table '{name}' exists already, with another definition; delete it first or choose another name"
    )]
    Exists { name: String },
    /// No table has this name.
    #[error("there is no table '{}'{}", Quoted(name), nearest.as_ref().map(|n| format!("; did you mean '{n}'?")).unwrap_or_default())]
    Unknown {
        name: String,
        /// The nearest one that exists.
        nearest: Option<String>,
    },
    /// The schema does not compile.
    #[error("schema: {0}")]
    Schema(#[from] SchemaError),
    /// The definition contradicts itself.
    #[error("{0}")]
    Definition(&'static str),
    /// A unique field is there twice, perhaps as `a` and `/a`.
    #[error("the unique field '{}' occurs here twice; name it once", Quoted(.0.as_str()))]
    UniqueTwice(FieldPath),
    /// The transaction was refused.
    #[error("the definition could not be committed: {0}")]
    Refused(#[from] Refusal),
}

/// Whether a definition is one that can be accepted.
///
/// # Errors
/// When it contradicts itself or its schema does not compile.
pub fn check(table: &NewTable) -> Result<(), TableError> {
    check_table_name(&table.name)?;
    let is_json = table.value != ValueKind::Bytes;
    if !is_json && table.schema.is_some() {
        return Err(TableError::Definition("schema needs values of kind json"));
    }
    if !is_json && !table.unique.is_empty() {
        return Err(TableError::Definition("unique needs values of kind json"));
    }
    if table.kind == TableKind::Stream && !table.unique.is_empty() {
        return Err(TableError::Definition(
            "unique needs a keyed table: a stream keeps no state",
        ));
    }
    if table.unique.len() > UNIQUE_FIELDS_MAX {
        return Err(TableError::Definition(
            "a table may have at most 16 unique fields",
        ));
    }
    if table.unique.iter().any(FieldPath::is_whole) {
        return Err(TableError::Definition("a unique field needs a name"));
    }
    for (n, field) in table.unique.iter().enumerate() {
        let mut before = table.unique[..n].iter();
        if before.any(|other| other.steps() == field.steps()) {
            return Err(TableError::UniqueTwice(field.clone()));
        }
    }
    if let Some(schema) = &table.schema {
        schema::check_new(schema)?;
    }
    Ok(())
}

fn same(existing: &TableDefinition, wanted: &NewTable) -> bool {
    (existing.kind, existing.value) == (wanted.kind, wanted.value)
        && existing.schema == wanted.schema
        && existing.unique == wanted.unique
}

/// One attempt to make a table.
#[derive(Debug)]
pub enum Creation {
    /// The same table is there already, at this position.
    Done(TableDefinition, Position),
    /// To be committed; another definition at the same time is a conflict.
    Commit(TableDefinition, Box<CommitRequest>),
}

/// The transaction that makes a table. `position` MUST be read before `catalog`, which then shows at
/// least what lies below it; the range read conflicts with any definition written since.
///
/// # Errors
/// When another table has the name.
pub fn creation(
    position: Position,
    catalog: &Catalog,
    table: &NewTable,
) -> Result<Creation, TableError> {
    if let Some(existing) = catalog.by_name(&table.name) {
        if same(existing, table) {
            return Ok(Creation::Done(TableDefinition::clone(existing), position));
        }
        return Err(TableError::Exists {
            name: table.name.clone(),
        });
    }
    let definition = TableDefinition {
        id: catalog.next_id(),
        name: table.name.clone(),
        kind: table.kind,
        value: table.value,
        schema: table.schema.clone(),
        unique: table.unique.clone(),
        dropped: false,
    };
    let key = Bytes::from(table.name.clone());
    let request = CommitRequest {
        read_position: Some(position),
        range_reads: vec![KeyRange {
            table: TABLE_TABLES,
            from: Bytes::new(),
            to: None,
        }],
        writes: vec![put(key, &definition)],
        ..CommitRequest::default()
    };
    Ok(Creation::Commit(definition, Box::new(request)))
}

/// The transaction that deletes a table.
///
/// # Errors
/// When there is no such table.
pub fn removal(catalog: &Catalog, name: &str) -> Result<CommitRequest, TableError> {
    check_table_name(name)?;
    let Some(existing) = catalog.by_name(name) else {
        return Err(TableError::Unknown {
            name: name.to_owned(),
            nearest: catalog.nearest(name).map(str::to_owned),
        });
    };
    let key = Bytes::from(name.to_owned());
    let mut dropped = TableDefinition::clone(existing);
    dropped.dropped = true;
    let grave = grave_key(existing.id);
    let delete = Write {
        table: TABLE_TABLES,
        key: key.clone(),
        operation: Operation::Delete,
        headers: Vec::new(),
    };
    Ok(CommitRequest {
        guards: vec![Guard {
            table: TABLE_TABLES,
            key,
            // By its number: the name may belong to a younger table by the time of the commit.
            predicate: Predicate::Field {
                path: id_field(),
                compare: Compare::Eq,
                value: serde_json::json!(existing.id).into(),
            },
        }],
        writes: vec![delete, put(grave, &dropped)],
        ..CommitRequest::default()
    })
}

/// Where the end of a table is kept: beside the names, none of which has a '#'.
pub(crate) fn grave_key(id: TableId) -> Bytes {
    Bytes::from(format!("#{id}"))
}

#[expect(clippy::expect_used, reason = "the path is a constant")]
fn id_field() -> FieldPath {
    FieldPath::parse("/id").expect("a slash and a plain name are a path")
}

fn put(key: Bytes, definition: &TableDefinition) -> Write {
    let text = serde_json::json!(definition).to_string();
    Write {
        table: TABLE_TABLES,
        key,
        operation: Operation::Put(Bytes::from(text)),
        headers: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unique_field_is_named_once() {
        let table = |fields: &[&str]| NewTable {
            unique: fields
                .iter()
                .map(|path| FieldPath::parse(path).unwrap())
                .collect(),
            ..NewTable::keyed("t.users")
        };
        for twice in [["/a", "/a"], ["a", "/a"]] {
            let text = check(&table(&twice)).unwrap_err().to_string();
            assert_eq!(
                text,
                "the unique field '/a' occurs here twice; name it once"
            );
        }
        assert!(check(&table(&["/a", "/a/b", "/a~1b"])).is_ok());
    }
}
