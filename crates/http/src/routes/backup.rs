//! Backups: a consistent copy of the running node, made by the server on its own machine.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use onelog::{ApartError, BackupError};

use super::{Answer, Shared, json};
use crate::api::{Backup, BackupMade};
use crate::body::read_body;
use crate::errors::ApiError;
use crate::object::read_object;

/// Copies the node into an empty folder of the server's machine while it runs.
#[utoipa::path(
    post,
    path = "/v1/backup",
    tag = "system",
    request_body = crate::api::Backup,
    responses(
        (status = 200, description = "The copy is whole; it has every transaction below `position`", body = crate::api::BackupMade),
        (status = 409, description = "`not_empty`: the folder holds something", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 500, description = "`backup_failed`, and why; what is in the folder is no backup", body = crate::api::Error),
        (status = 503, description = "`overloaded`: other long calls are running", body = crate::api::Error),
    )
)]
pub(crate) async fn make(State(app): State<Shared>, headers: HeaderMap, body: Body) -> Answer {
    let body = read_body(&app, &headers, body).await?;
    let wanted: Backup = read_object(&body.bytes)?;
    if !wanted.into.is_absolute() {
        return Err(ApiError::malformed(
            "into",
            "the path must be absolute: the server has a working folder of its own",
        ));
    }
    let into = wanted.into.clone();
    let made = app.verification(move |app| app.node.backup(&into)).await?;
    let position = made.map_err(|error| failed(&error))?;
    json(
        StatusCode::OK,
        &BackupMade {
            into: wanted.into,
            position,
        },
    )
}

fn failed(error: &BackupError) -> ApiError {
    match error {
        BackupError::Apart(ApartError::NotApart(_)) => ApiError::malformed("into", error),
        BackupError::NotEmpty { .. } => {
            ApiError::new(StatusCode::CONFLICT, "not_empty", error.to_string())
        }
        other => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "backup_failed",
            other.to_string(),
        ),
    }
}
