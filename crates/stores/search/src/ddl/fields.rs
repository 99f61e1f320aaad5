//! The fields of an index, made of a mapping's columns.
//!
//! The row itself is the document's text (`_source`), which the product keeps as it was sent and
//! which alone is compared with the log. The types below say by what a row can be *searched*; a
//! value that does not fit its field's index is kept all the same and not found by that field.

use onelog_mapping::{ColumnType, Element, MappingPlan};
use serde_json::{Map, Value, json};

use crate::kind::SETTINGS;

/// The field of every document that is onelog's own.
pub(crate) const OWN: &str = "_onelog";
/// The most characters of a text that can be searched as a whole; the index takes 32766 bytes.
const EXACT_CHARACTERS_MAX: u32 = 8191;

/// The type of a column's field.
fn field(kind: ColumnType) -> Value {
    let exact = json!({"type": "keyword", "ignore_above": EXACT_CHARACTERS_MAX});
    match kind {
        ColumnType::Text | ColumnType::List(Element::Text) => {
            json!({"type": "text", "fields": {"keyword": exact}})
        }
        ColumnType::Integer | ColumnType::List(Element::Integer) => json!({"type": "long"}),
        ColumnType::Real | ColumnType::List(Element::Real) => json!({"type": "double"}),
        ColumnType::Boolean | ColumnType::List(Element::Boolean) => json!({"type": "boolean"}),
        ColumnType::Json => json!({"type": "object", "enabled": false}),
        ColumnType::Blob => json!({"type": "binary"}),
        ColumnType::Numeric | ColumnType::List(Element::Numeric) => json!({
            "type": "double", "ignore_malformed": true, "fields": {"exact": exact}}),
        ColumnType::Timestamp | ColumnType::List(Element::Timestamp) => json!({
            "type": "date", "format": "strict_date_optional_time", "ignore_malformed": true}),
        ColumnType::Date | ColumnType::List(Element::Date) => json!({
            "type": "date", "format": "strict_date", "ignore_malformed": true}),
        ColumnType::Uuid | ColumnType::List(Element::Uuid) => json!({"type": "keyword"}),
    }
}

/// The mappings of an index: ours, and over them what the definition's `settings.mappings` says.
pub(crate) fn mappings(mapping: &MappingPlan, sink: &str) -> Value {
    let mut properties = Map::new();
    if !mapping.is_document {
        for column in &mapping.columns {
            properties.insert(column.name.clone(), field(column.kind));
        }
    }
    let mut out = json!({"dynamic": mapping.is_document, "properties": properties});
    if mapping.is_document {
        out["date_detection"] = false.into();
    }
    if let Some(over) = mapping
        .options
        .object(SETTINGS)
        .and_then(|all| all.get("mappings"))
    {
        merge(&mut out, over);
    }
    out["_meta"]["onelog"] = json!({"sink": sink});
    out["properties"][OWN] = json!({"dynamic": false, "properties": {
        "offset": {"type": "long", "doc_values": false},
        "deleted": {"type": "boolean"},
        "at": {"type": "date", "format": "epoch_millis"},
        "value": {"type": "object", "enabled": false},
    }});
    out
}

fn merge(into: &mut Value, over: &Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (name, value) in over {
                match into.get_mut(name) {
                    // A field has one type: another one replaces it whole.
                    Some(known) if value.get("type").is_none() => merge(known, value),
                    _ => {
                        into.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (into, over) => *into = over.clone(),
    }
}

/// What of an index's fields differs from the mapping's, for messages.
pub(crate) fn mismatches(mapping: &MappingPlan, found: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let expected = mappings(mapping, "");
    let Some(properties) = expected["properties"].as_object() else {
        return out;
    };
    for (name, field) in properties {
        let wanted = kind_of(field);
        match find(&found["properties"], name).map(kind_of) {
            None => out.push(format!("the field '{name}' is missing")),
            Some(is) if is != wanted => out.push(format!(
                "the field '{name}' is of the type '{is}', and should be '{wanted}'"
            )),
            Some(_) => {}
        }
    }
    if found.pointer("/_source/enabled") == Some(&Value::Bool(false)) {
        out.push("it keeps no '_source', without which no row can be read back".into());
    }
    out
}

fn kind_of(field: &Value) -> &str {
    field
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("object")
}

/// A name with dots is a path through objects.
fn find<'v>(properties: &'v Value, name: &str) -> Option<&'v Value> {
    if let Some(found) = properties.get(name) {
        return Some(found);
    }
    let (first, rest) = name.split_once('.')?;
    find(properties.get(first)?.get("properties")?, rest)
}
