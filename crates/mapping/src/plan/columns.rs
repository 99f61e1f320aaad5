//! The columns of a mapping: chosen by the definition or by default, and what each may be.

use onelog_record::ValueKind;

use super::{ColumnPlan, KEY_COLUMN};
use crate::{Column, ColumnType, Columns, DefinitionError, Mapping, MappingRules, Source, unknown};

pub(super) fn default_columns(value: ValueKind) -> Vec<ColumnPlan> {
    let column = |name: &str, from, kind| ColumnPlan {
        name: name.to_owned(),
        from,
        kind,
    };
    let document = match value {
        ValueKind::Json => ColumnType::Json,
        ValueKind::Bytes => ColumnType::Blob,
    };
    vec![
        column("key", Source::Key, ColumnType::Text),
        column("document", Source::Value, document),
    ]
}

pub(super) fn chosen_columns(
    place: &str,
    columns: &Columns,
    value: ValueKind,
) -> Result<Vec<ColumnPlan>, DefinitionError> {
    let mut out = Vec::with_capacity(columns.0.len() + 1);
    if !columns.0.iter().any(|(_, c)| c.from == Source::Key) {
        out.push(ColumnPlan {
            name: KEY_COLUMN.to_owned(),
            from: Source::Key,
            kind: ColumnType::Text,
        });
    }
    for (name, column) in &columns.0 {
        let place = format!("{place}.columns.{name}");
        if name.eq_ignore_ascii_case(KEY_COLUMN) && column.from != Source::Key {
            return Err(DefinitionError::new(
                place,
                format!("'{KEY_COLUMN}' is the column of the key; choose another name"),
            ));
        }
        check_type(&place, column, value)?;
        out.push(ColumnPlan {
            name: name.clone(),
            from: column.from.clone(),
            kind: column.kind,
        });
    }
    Ok(out)
}

fn check_type(place: &str, column: &Column, value: ValueKind) -> Result<(), DefinitionError> {
    use ColumnType::{Blob, Boolean, Date, Integer, Json, Numeric, Real, Text, Timestamp, Uuid};
    let allowed: &[ColumnType] = match (&column.from, value) {
        (Source::Key, _) => &[Text, Integer, Blob, Uuid],
        (Source::Version, _) => &[Integer],
        (Source::Value, ValueKind::Json) => &[Json, Text, Blob],
        (Source::Value, ValueKind::Bytes) => &[Blob, Text],
        (Source::Field(_), ValueKind::Json) if matches!(column.kind, ColumnType::List(_)) => {
            return Ok(());
        }
        (Source::Field(_), ValueKind::Json) => &[
            Text, Integer, Real, Boolean, Json, Numeric, Timestamp, Date, Uuid,
        ],
        (Source::Field(_), ValueKind::Bytes) => {
            return Err(DefinitionError::new(
                format!("{place}.from"),
                "the table's values are bytes, which have no fields; use '$value'",
            ));
        }
    };
    if allowed.contains(&column.kind) {
        return Ok(());
    }
    let names: Vec<&str> = allowed.iter().map(|kind| kind.name()).collect();
    Err(DefinitionError::new(
        format!("{place}.type"),
        format!(
            "a column from '{}' cannot be of type '{}'; it can be {}",
            column.from.as_str(),
            column.kind.name(),
            names.join(", ")
        ),
    ))
}

/// Checks that the store has a type for each column.
pub(super) fn check_known_types(
    place: &str,
    columns: &[ColumnPlan],
    rules: &MappingRules,
) -> Result<(), DefinitionError> {
    let Some(column) = columns.iter().find(|c| !(rules.has_type)(c.kind)) else {
        return Ok(());
    };
    let known = ColumnType::ALL
        .iter()
        .filter(|(_, of)| (rules.has_type)(*of));
    let known: Vec<&str> = known.map(|(name, _)| *name).collect();
    Err(DefinitionError::new(
        format!("{place}.columns.{}.type", column.name),
        format!(
            "a sink of the kind {} has no columns of the type '{}'; it has: {}",
            rules.kind,
            column.kind.name(),
            known.join(", ")
        ),
    ))
}

/// Which column is the key of the rows.
pub(super) fn key_column(place: &str, columns: &[ColumnPlan]) -> Result<usize, DefinitionError> {
    let keys: Vec<usize> = (0..columns.len())
        .filter(|n| columns[*n].from == Source::Key)
        .collect();
    match keys[..] {
        [key] => Ok(key),
        _ => Err(DefinitionError::new(
            format!("{place}.columns.{}", columns[keys[1]].name),
            "a second column from '$key'; exactly one is the key of the rows",
        )),
    }
}

pub(super) fn full_text(
    place: &str,
    mapping: &Mapping,
    columns: &[ColumnPlan],
    key: usize,
) -> Result<Vec<usize>, DefinitionError> {
    let mut out = Vec::with_capacity(mapping.full_text.len());
    for (n, name) in mapping.full_text.iter().enumerate() {
        let place = format!("{place}.full_text[{n}]");
        let found = columns.iter().position(|column| &column.name == name);
        let Some(at) = found else {
            let known = columns.iter().map(|column| column.name.as_str());
            return Err(DefinitionError::new(place, unknown("column", name, known)));
        };
        if !matches!(columns[at].kind, ColumnType::Text | ColumnType::Json) {
            return Err(DefinitionError::new(
                place,
                format!(
                    "the column '{name}' is of type '{}'; only 'text' and 'json' can be searched",
                    columns[at].kind.name()
                ),
            ));
        }
        out.push(at);
    }
    if out.is_empty() {
        return Ok(out);
    }
    // These names mean something else inside a full-text index.
    let indexed = out.iter().chain(std::iter::once(&key));
    for name in indexed.map(|n| columns[*n].name.as_str()) {
        if ["rank", "rowid", "_row"].contains(&name.to_ascii_lowercase().as_str())
            || name.eq_ignore_ascii_case(&format!("{}_fts", mapping.into))
        {
            return Err(DefinitionError::new(
                format!("{place}.columns.{name}"),
                "this name is reserved in a table with a full-text index",
            ));
        }
    }
    if let Some(column) = columns.iter().find(|c| c.name.eq_ignore_ascii_case("_row")) {
        return Err(DefinitionError::new(
            format!("{place}.columns.{}", column.name),
            "this name is reserved in a table with a full-text index",
        ));
    }
    Ok(out)
}
