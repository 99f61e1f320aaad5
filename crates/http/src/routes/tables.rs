//! `/v1/tables`: definitions of tables.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use onelog::TableError;
use onelog_sinks::DropTableError;

use super::{Answer, Shared, at_position, json};
use crate::api::{Dropped, NewTable, TableAt, Tables};
use crate::body::read_body;
use crate::errors::ApiError;
use crate::object::read_object;
use crate::refusals::refused;

/// Makes a table. The same definition again is no error.
#[utoipa::path(
    post,
    path = "/v1/tables",
    tag = "tables",
    request_body = crate::api::NewTable,
    responses(
        (status = 200, description = "It was there already, defined the same", body = crate::api::TableAt),
        (status = 201, description = "It was made", body = crate::api::TableAt),
        (status = 403, description = "`reserved_table`", body = crate::api::Error),
        (status = 409, description = "`table_exists`, with another definition", body = crate::api::Error),
        (status = 413, description = "Over a limit", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::api::Error),
        (status = 507, description = "`disk_full`: nothing is written until there is room on the disk", body = crate::api::Error),
    )
)]
pub(crate) async fn create(State(app): State<Shared>, headers: HeaderMap, body: Body) -> Answer {
    let body = read_body(&app, &headers, body).await?;
    let table = new_table(&body.bytes)?;
    let made = app.in_time(app.node.define_table(table)).await?;
    let made = made.map_err(|error| table_error(&app, "name", error))?;
    let status = if made.is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let position = made.position;
    let table = (&made.definition).into();
    Ok(at_position(
        json(status, &TableAt { table, position })?,
        position,
    ))
}

/// Lists all tables with their definitions.
#[utoipa::path(
    get,
    path = "/v1/tables",
    tag = "tables",
    responses((status = 200, description = "All tables by name", body = crate::api::Tables))
)]
pub(crate) async fn list(State(app): State<Shared>) -> Answer {
    let position = app.node.position();
    let catalog = app.node.catalog();
    let tables = catalog.tables().map(|table| (&**table).into()).collect();
    let body = Tables { position, tables };
    Ok(at_position(json(StatusCode::OK, &body)?, position))
}

/// Reads the definition of a table.
#[utoipa::path(
    get,
    path = "/v1/tables/{table}",
    tag = "tables",
    params(("table" = String, Path, description = "The table", example = "shop.orders")),
    responses(
        (status = 200, description = "Its definition", body = crate::api::TableAt),
        (status = 404, description = "`unknown_table`", body = crate::api::Error),
    )
)]
pub(crate) async fn get(State(app): State<Shared>, Path(name): Path<String>) -> Answer {
    let position = app.node.position();
    let definition = &*app.table(&name)?;
    let table = definition.into();
    let body = TableAt { table, position };
    Ok(at_position(json(StatusCode::OK, &body)?, position))
}

/// Deletes a table with all its keys. Its records stay in the log until retention cuts them.
#[utoipa::path(
    delete,
    path = "/v1/tables/{table}",
    tag = "tables",
    params(("table" = String, Path, description = "The table", example = "shop.orders")),
    responses(
        (status = 200, description = "It is gone", body = crate::api::Dropped),
        (status = 403, description = "`reserved_table`", body = crate::api::Error),
        (status = 404, description = "`unknown_table`", body = crate::api::Error),
        (status = 409, description = "`table_in_use`: sinks follow it, or the configuration declares it", body = crate::api::Error),
        (status = 503, description = "Overloaded or stopped", body = crate::api::Error),
        (status = 507, description = "`disk_full`: nothing is written until there is room on the disk", body = crate::api::Error),
    )
)]
pub(crate) async fn delete(State(app): State<Shared>, Path(name): Path<String>) -> Answer {
    if name.starts_with("onelog.") {
        return Err(ApiError::reserved_table("table", &name));
    }
    app.table(&name)?;
    if let Some(place) = app.options.declared.tables.get(&name) {
        return Err(in_use(
            &name,
            format!(
                "{place} declares the table '{name}', and the next start would make it again, empty: take it out of the configuration, start again, then delete it"
            ),
        ));
    }
    let table = name.clone();
    let dropping = app.blocking(move |app| app.sinks.drop_table(&table));
    let dropped = app.in_time(dropping).await??;
    let position = dropped.map_err(|error| match error {
        DropTableError::Followed { .. } => in_use(&name, error.to_string()),
        DropTableError::Table(error) => table_error(&app, "table", error),
        DropTableError::Sinks(error) => ApiError::internal(error),
    })?;
    let body = Dropped {
        table: &name,
        position,
    };
    Ok(at_position(json(StatusCode::OK, &body)?, position))
}

fn in_use(table: &str, message: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "table_in_use", message)
        .with(|body| body.table = Some(table.to_owned()))
}

fn table_error(app: &Shared, place: &str, error: TableError) -> ApiError {
    match error {
        TableError::Exists { ref name } => {
            ApiError::new(StatusCode::CONFLICT, "table_exists", error.to_string())
                .with(|body| body.table = Some(name.clone()))
        }
        TableError::Unknown { name, nearest } => ApiError::unknown_table(&name, nearest.as_deref()),
        TableError::Schema(error) => ApiError::malformed("schema", error),
        TableError::Refused(refusal) => refused(refusal, &*app.node.catalog(), || None),
        TableError::Name(error) => ApiError::malformed(place, error),
        TableError::UniqueTwice(_) => ApiError::malformed("unique", error),
        TableError::Definition(message) if message.starts_with("schema") => {
            ApiError::malformed("schema", message)
        }
        TableError::Definition(message) if message.contains("unique") => {
            ApiError::malformed("unique", message)
        }
        other => ApiError::malformed("body", other),
    }
}

fn new_table(body: &[u8]) -> Result<onelog::NewTable, ApiError> {
    let table: NewTable = read_object(body)?;
    if table.name == "onelog" || table.name.starts_with("onelog.") {
        return Err(ApiError::reserved_table("name", &table.name));
    }
    Ok(table.into())
}

#[cfg(test)]
mod tests {
    use onelog_record::{TableKind, ValueKind};

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
            (r#"{"name":5}"#, "name", "integer `5`, expected a string"),
            (r#"{"name":"a","name":"b"}"#, "body", "twice"),
            (
                r#"{"name":"a","knd":"keyed"}"#,
                "body",
                "did you mean 'kind'",
            ),
            (
                r#"{"name":"a","kind":"queue"}"#,
                "kind",
                "`queue`, expected `keyed` or `stream`",
            ),
            (
                r#"{"name":"a","value":"xml"}"#,
                "value",
                "expected `json` or `bytes`",
            ),
            (r#"{"name":"a","unique":"/x"}"#, "unique", "expected a list"),
            (
                r#"{"name":"a","unique":["/x",1]}"#,
                "unique[1]",
                "expected a string",
            ),
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
