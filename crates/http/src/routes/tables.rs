//! `/v1/tables`: definitions of tables.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use onelog::{NewTable, TableError};
use onelog_record::{FieldPath, Position, TableDefinition, TableKind, ValueKind};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Answer, Shared, at_position, json};
use crate::body::read_body;
use crate::errors::ApiError;
use crate::parse::{check_json, unknown_field};
use crate::refusals::refused;

const FIELDS: &[&str] = &["name", "kind", "value", "schema", "unique"];

#[derive(Serialize)]
struct TableOut<'t> {
    #[serde(flatten)]
    definition: &'t TableDefinition,
    position: Position,
}

#[derive(Serialize)]
struct TablesOut<'t> {
    position: Position,
    tables: Vec<&'t TableDefinition>,
}

#[derive(Serialize)]
struct DroppedOut<'t> {
    table: &'t str,
    position: Position,
}

/// Makes a table. The same definition again is no error.
#[utoipa::path(
    post,
    path = "/v1/tables",
    tag = "tables",
    request_body = crate::openapi::NewTable,
    responses(
        (status = 200, description = "It was there already, defined the same", body = crate::openapi::Table),
        (status = 201, description = "It was made", body = crate::openapi::Table),
        (status = 403, description = "`reserved_table`", body = crate::openapi::Error),
        (status = 409, description = "`table_exists`, with another definition", body = crate::openapi::Error),
        (status = 413, description = "Over a limit", body = crate::openapi::Error),
        (status = 422, description = "Malformed, and where", body = crate::openapi::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::openapi::Error),
    )
)]
pub(crate) async fn create(State(app): State<Shared>, headers: HeaderMap, body: Body) -> Answer {
    let body = read_body(&app, &headers, body).await?;
    let table = new_table(&body.bytes)?;
    let name = table.name.clone();
    let known = app.node.catalog().by_name(&name).is_some();
    let made = app.in_time(app.node.create_table(table)).await?;
    let (definition, position) = made.map_err(|error| table_error(&app, "name", error))?;
    let status = if known {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let definition = &definition;
    Ok(at_position(
        json(
            status,
            &TableOut {
                definition,
                position,
            },
        )?,
        position,
    ))
}

/// Lists the tables.
#[utoipa::path(
    get,
    path = "/v1/tables",
    tag = "tables",
    responses((status = 200, description = "All tables by name", body = crate::openapi::Tables))
)]
pub(crate) async fn list(State(app): State<Shared>) -> Answer {
    let position = app.node.position();
    let catalog = app.node.catalog();
    let tables = catalog.tables().map(|table| &**table).collect();
    let body = TablesOut { position, tables };
    Ok(at_position(json(StatusCode::OK, &body)?, position))
}

/// Tells the definition of a table.
#[utoipa::path(
    get,
    path = "/v1/tables/{table}",
    tag = "tables",
    params(("table" = String, Path, description = "The table")),
    responses(
        (status = 200, description = "Its definition", body = crate::openapi::Table),
        (status = 404, description = "`unknown_table`", body = crate::openapi::Error),
    )
)]
pub(crate) async fn get(State(app): State<Shared>, Path(name): Path<String>) -> Answer {
    let position = app.node.position();
    let definition = &*app.table(&name)?;
    let body = TableOut {
        definition,
        position,
    };
    Ok(at_position(json(StatusCode::OK, &body)?, position))
}

/// Deletes a table with all its keys. Its records stay in the log until retention cuts them.
#[utoipa::path(
    delete,
    path = "/v1/tables/{table}",
    tag = "tables",
    params(("table" = String, Path, description = "The table")),
    responses(
        (status = 200, description = "It is gone", body = crate::openapi::Dropped),
        (status = 403, description = "`reserved_table`", body = crate::openapi::Error),
        (status = 404, description = "`unknown_table`", body = crate::openapi::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::openapi::Error),
    )
)]
pub(crate) async fn delete(State(app): State<Shared>, Path(name): Path<String>) -> Answer {
    if name.starts_with("onelog.") {
        return Err(ApiError::reserved_table("table", &name));
    }
    app.table(&name)?;
    let dropped = app.in_time(app.node.drop_table(&name)).await?;
    let position = dropped.map_err(|error| table_error(&app, "table", error))?;
    let body = DroppedOut {
        table: &name,
        position,
    };
    Ok(at_position(json(StatusCode::OK, &body)?, position))
}

fn table_error(app: &Shared, place: &str, error: TableError) -> ApiError {
    match error {
        TableError::Exists { ref name } => {
            ApiError::new(StatusCode::CONFLICT, "table_exists", error.to_string())
                .with("table", name)
        }
        TableError::Unknown { name, nearest } => ApiError::unknown_table(&name, nearest.as_deref()),
        TableError::Schema(error) => ApiError::malformed("schema", error),
        TableError::Refused(refusal) => refused(refusal, &*app.node.catalog(), || None),
        TableError::Name(error) => ApiError::malformed(place, error),
        TableError::Definition(message) if message.contains("unique") => {
            ApiError::malformed("unique", message)
        }
        other => ApiError::malformed("body", other),
    }
}

/// Reads `{"name": …, "kind"?, "value"?, "schema"?, "unique"?}`; without a kind a table is keyed,
/// without a kind of values it holds JSON.
fn new_table(body: &[u8]) -> Result<NewTable, ApiError> {
    let fields = object(body, FIELDS)?;
    let Some(name) = fields.get("name") else {
        return Err(ApiError::malformed("name", "the field is missing"));
    };
    let name = text("name", name)?;
    if name == "onelog" || name.starts_with("onelog.") {
        return Err(ApiError::reserved_table("name", name));
    }
    let kind = match fields
        .get("kind")
        .map(|kind| text("kind", kind))
        .transpose()?
    {
        None | Some("keyed") => TableKind::Keyed,
        Some("stream") => TableKind::Stream,
        Some(other) => return Err(choice("kind", other, &["keyed", "stream"])),
    };
    let value = match fields
        .get("value")
        .map(|kind| text("value", kind))
        .transpose()?
    {
        None | Some("json") => ValueKind::Json,
        Some("bytes") => ValueKind::Bytes,
        Some(other) => return Err(choice("value", other, &["json", "bytes"])),
    };
    let schema = fields.get("schema").filter(|schema| !schema.is_null());
    Ok(NewTable {
        name: name.to_owned(),
        kind,
        value,
        schema: schema.cloned(),
        unique: unique(fields.get("unique"))?,
    })
}

fn unique(paths: Option<&Value>) -> Result<Vec<FieldPath>, ApiError> {
    let Some(paths) = paths else {
        return Ok(Vec::new());
    };
    let Some(paths) = paths.as_array() else {
        let message = format!("expected a list of fields such as [\"/email\"], found {paths}");
        return Err(ApiError::malformed("unique", message));
    };
    let parse = |(n, path): (usize, &Value)| {
        let place = format!("unique[{n}]");
        FieldPath::parse(text(&place, path)?).map_err(|error| ApiError::malformed(&place, error))
    };
    paths.iter().enumerate().map(parse).collect()
}

fn text<'v>(place: &str, value: &'v Value) -> Result<&'v str, ApiError> {
    value
        .as_str()
        .ok_or_else(|| ApiError::malformed(place, format!("expected a string, found {value}")))
}

fn choice(place: &str, found: &str, known: &[&str]) -> ApiError {
    let message = format!("'{found}' is not known; write one of: {}", known.join(", "));
    ApiError::malformed(place, message)
}

/// A body that is an object of `known` fields, each once.
fn object(body: &[u8], known: &[&str]) -> Result<Map<String, Value>, ApiError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        ApiError::malformed("body", format!("the body is not UTF-8 at byte {at}"))
    })?;
    check_json(text).map_err(|message| ApiError::malformed("body", message))?;
    let fields: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| ApiError::malformed("body", format!("expected an object: {error}")))?;
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(fields),
        Some(name) => Err(ApiError::malformed("body", unknown_field(name, known))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_read() {
        let table = new_table(
            br#"{"name":"shop.users","kind":"keyed","value":"json","schema":{"type":"object"},"unique":["/email"]}"#,
        )
        .unwrap();
        assert_eq!(table.name, "shop.users");
        assert_eq!(table.unique[0].as_str(), "/email");
        let table =
            new_table(br#"{"name":"shop.clicks","kind":"stream","value":"bytes"}"#).unwrap();
        assert_eq!(
            (table.kind, table.value),
            (TableKind::Stream, ValueKind::Bytes)
        );
    }

    #[test]
    fn every_fault_of_a_definition_says_where() {
        for (body, place, expected) in [
            ("", "body", "EOF"),
            ("[]", "body", "expected an object"),
            ("{}", "name", "missing"),
            (r#"{"name":5}"#, "name", "found 5"),
            (r#"{"name":"a","name":"b"}"#, "body", "twice"),
            (
                r#"{"name":"a","knd":"keyed"}"#,
                "body",
                "did you mean 'kind'",
            ),
            (r#"{"name":"a","kind":"queue"}"#, "kind", "keyed, stream"),
            (r#"{"name":"a","value":"xml"}"#, "value", "json, bytes"),
            (r#"{"name":"a","unique":"/x"}"#, "unique", "a list"),
            (r#"{"name":"a","unique":["/x",1]}"#, "unique[1]", "found 1"),
            (r#"{"name":"a","unique":["/~5"]}"#, "unique[0]", "~"),
        ] {
            let error = new_table(body.as_bytes()).unwrap_err();
            let (status, fields) = error.parts();
            assert_eq!(status, 422, "{body}");
            assert_eq!(fields["where"], place, "{body}");
            let message = fields["message"].as_str().unwrap();
            assert!(message.contains(expected), "{body}: {message}");
        }
    }
}
