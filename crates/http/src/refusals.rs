//! What the answer is when a transaction cannot be parsed or is refused.

use axum::http::StatusCode;
use bytes::Bytes;
use onelog_record::{
    JsonText, Offset, Position, QUOTED_BYTES_MAX, Quoted, Refusal, Subject, TableId, ValueKind,
    code, quoted,
};
use serde_json::value::to_raw_value;

use crate::errors::{ApiError, TableNames, meant, show};
use onelog_request::ValueOut;
use onelog_request::{ParseError, Parsed};

impl From<ParseError> for ApiError {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Malformed { place, message } => Self::malformed(&place, message),
            ParseError::UnknownTable {
                place,
                name,
                nearest,
            } => {
                let message = format!(
                    "{place}: there is no table '{}'{}",
                    Quoted(&name),
                    meant(nearest.as_deref())
                );
                Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    code::UNKNOWN_TABLE,
                    message,
                )
                .at(place)
                .with(|body| {
                    body.table = Some(quoted(&name));
                    body.nearest = Some(nearest);
                })
            }
            ParseError::ReservedTable { place, name } => Self::reserved_table(&place, &name),
            ParseError::TooLarge(error) => Self::too_large(&error),
        }
    }
}

/// The answer to a refused transaction. `again` parses the body again, for what the refusal does
/// not repeat.
pub(crate) fn refused(
    refusal: Refusal,
    names: &dyn TableNames,
    again: impl FnOnce() -> Option<Parsed>,
) -> ApiError {
    let (code, message) = (refusal.code(), refusal.to_string());
    let error = |status, message: String| ApiError::new(status, code, message);
    match refusal {
        Refusal::Conflict {
            subject,
            table,
            key,
            version,
            retry_at,
        } => {
            let place = again().map(|parsed| parsed.place(&subject));
            conflict(place, &names.describe(table).0, &key, version, retry_at)
        }
        Refusal::GuardFailed {
            index,
            met,
            version,
            retry_at,
        } => guard_failed(index, met, version, names, again())
            .with(|body| body.retry_at = Some(retry_at)),
        Refusal::NotUnique {
            index,
            field,
            value,
            owner,
        } => not_unique(index, &field, value, &owner, names, again()),
        Refusal::BadOperation { index, fault } => {
            let message = format!("{}: {fault}", write_at(index));
            error(StatusCode::UNPROCESSABLE_ENTITY, message).at(write_at(index))
        }
        Refusal::UnknownTable { subject, table } => dropped(&subject, table, names, again()),
        Refusal::SnapshotTooOld { floor, .. } => {
            let message = format!("{message}; read again at a newer position and retry");
            error(StatusCode::GONE, message).with(|body| body.floor = Some(floor))
        }
        Refusal::SnapshotInFuture { latest, .. } => {
            error(StatusCode::UNPROCESSABLE_ENTITY, message)
                .at("read_position".to_owned())
                .with(|body| body.latest = Some(latest))
        }
        Refusal::IdMismatch { id, position } => {
            let message = format!("{message}; use a new id for a new request");
            error(StatusCode::CONFLICT, message).with(|body| {
                body.id = Some(id);
                body.position = Some(Some(position));
            })
        }
        Refusal::IdExpired { id, floor } => error(StatusCode::GONE, message).with(|body| {
            body.id = Some(id);
            body.floor = Some(floor);
        }),
        Refusal::ReservedTable { index, table } => {
            ApiError::reserved_table(&write_at(index), &table)
        }
        Refusal::Malformed(message) => ApiError::malformed("body", message),
        Refusal::TooLarge(error) => ApiError::too_large(&error),
        Refusal::DiskFull { .. } => error(StatusCode::INSUFFICIENT_STORAGE, message),
        Refusal::Overloaded {
            reason,
            retry_after_ms,
        } => ApiError::overloaded(&reason, retry_after_ms),
        Refusal::NoLeader | Refusal::NotLeader => ApiError::without_leader(code, message),
        Refusal::Stopped(why) => ApiError::stopped(why),
    }
}

fn write_at(index: usize) -> String {
    format!("writes[{index}]")
}

fn conflict(
    place: Option<String>,
    table: &str,
    key: &[u8],
    version: Offset,
    retry_at: Position,
) -> ApiError {
    let message = format!(
        "conflict: key {} of table '{table}' was written at offset {version}, at or after the read position; read again at position {retry_at} and retry",
        show(key)
    );
    ApiError::new(StatusCode::CONFLICT, code::CONFLICT, message)
        .at(place)
        .with(|body| {
            body.table = Some(table.to_owned());
            body.key = Some(key.into());
            body.version = Some(Some(version));
            body.retry_at = Some(retry_at);
        })
}

fn guard_failed(
    index: usize,
    met: Option<Bytes>,
    version: Option<Offset>,
    names: &dyn TableNames,
    parsed: Option<Parsed>,
) -> ApiError {
    let place = format!("guards[{index}]");
    let guard = parsed.as_ref().and_then(|p| p.request.guards.get(index));
    let about = guard.map(|guard| (names.describe(guard.table), &guard.key));
    let found = match version {
        Some(version) => format!("the value written at offset {version}, see 'met'"),
        None => "no value".to_owned(),
    };
    let key = match &about {
        Some(((table, _), key)) => format!(" for key {} of table '{table}'", show(key)),
        None => String::new(),
    };
    let message = format!("{place} does not hold{key}: it met {found}");
    let mut error = ApiError::new(StatusCode::PRECONDITION_FAILED, code::GUARD_FAILED, message)
        .at(place)
        .with(|body| body.guard = Some(index));
    let mut kind = ValueKind::Json;
    if let Some(((table, value), key)) = about {
        kind = value;
        error = error.with(|body| {
            body.table = Some(table);
            body.key = Some(key.as_ref().into());
        });
    }
    let met = met.as_deref().map(|bytes| ValueOut { kind, bytes });
    error.with(|body| {
        body.met = to_raw_value(&met).ok();
        body.version = Some(version);
    })
}

fn not_unique(
    index: usize,
    field: &str,
    value: JsonText,
    owner: &[u8],
    names: &dyn TableNames,
    parsed: Option<Parsed>,
) -> ApiError {
    let place = format!("writes[{index}]");
    let message = format!(
        "{place}: field '{field}' must be unique, and {} belongs to key {}",
        Quoted(value.as_str()),
        show(owner)
    );
    let mut error = ApiError::new(StatusCode::CONFLICT, code::NOT_UNIQUE, message).at(place);
    if let Some(write) = parsed.as_ref().and_then(|p| p.request.writes.get(index)) {
        let (table, _) = names.describe(write.table);
        error = error.with(|body| {
            body.table = Some(table);
            body.key = Some(write.key.as_ref().into());
        });
    }
    error.with(|body| {
        body.field = Some(field.to_owned());
        // A longer one is known to who sent it.
        body.value = Some(value).filter(|value| value.as_str().len() <= QUOTED_BYTES_MAX);
        body.owner = Some(owner.into());
    })
}

fn dropped(
    subject: &Subject,
    table: TableId,
    names: &dyn TableNames,
    parsed: Option<Parsed>,
) -> ApiError {
    let place = parsed.map_or_else(|| "body".to_owned(), |parsed| parsed.place(subject));
    let (table, _) = names.describe(table);
    let message = format!("{place}: the table '{table}' was deleted meanwhile");
    ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        code::UNKNOWN_TABLE,
        message,
    )
    .at(place)
    .with(|body| {
        body.table = Some(table);
        body.nearest = Some(None);
    })
}

#[cfg(test)]
mod tests {
    use axum::http::header;
    use axum::response::IntoResponse as _;
    use onelog_record::{OperationFault, TooLarge, TxnId};

    use super::*;

    struct Names;

    impl TableNames for Names {
        fn describe(&self, table: TableId) -> (String, ValueKind) {
            (format!("shop.t{table}"), ValueKind::Json)
        }
    }

    type Case = (Refusal, u16, &'static str, &'static [&'static str]);

    /// What the state at the commit point does not allow.
    fn cases_of_the_state() -> Vec<Case> {
        let (key, version, retry_at) = (Bytes::from_static(b"k"), Offset(5), Position(9));
        vec![
            (
                Refusal::Conflict {
                    subject: Subject::Write(1),
                    table: TableId(1),
                    key: key.clone(),
                    version,
                    retry_at,
                },
                409,
                "conflict",
                &["table", "key", "version", "retry_at"][..],
            ),
            (
                Refusal::GuardFailed {
                    index: 0,
                    met: None,
                    version: None,
                    retry_at,
                },
                412,
                "guard_failed",
                &["where", "guard", "met", "version", "retry_at"],
            ),
            (
                Refusal::NotUnique {
                    index: 0,
                    field: "/a".into(),
                    value: serde_json::Value::Null.into(),
                    owner: key,
                },
                409,
                "not_unique",
                &["where", "field", "value", "owner"],
            ),
            (
                Refusal::BadOperation {
                    index: 3,
                    fault: OperationFault::Overflow,
                },
                422,
                "bad_operation",
                &["where"],
            ),
            (
                Refusal::UnknownTable {
                    subject: Subject::Write(1),
                    table: TableId(1),
                },
                422,
                "unknown_table",
                &["where", "table"],
            ),
        ]
    }

    /// What was possible once, or is not yet.
    fn cases_of_time() -> Vec<Case> {
        vec![
            (
                Refusal::SnapshotTooOld {
                    read_position: Position(1),
                    floor: Position(2),
                },
                410,
                "snapshot_too_old",
                &["floor"],
            ),
            (
                Refusal::SnapshotInFuture {
                    read_position: Position(3),
                    latest: Position(2),
                },
                422,
                "position_in_future",
                &["where", "latest"],
            ),
            (
                Refusal::IdMismatch {
                    id: TxnId(1),
                    position: Position(2),
                },
                409,
                "id_mismatch",
                &["id", "position"],
            ),
            (
                Refusal::IdExpired {
                    id: TxnId(1),
                    floor: Position(2),
                },
                410,
                "id_expired",
                &["id", "floor"],
            ),
        ]
    }

    /// What no state would allow.
    fn cases_of_form() -> Vec<Case> {
        let too_large = TooLarge {
            what: "the value".into(),
            limit: "VALUE_BYTES_MAX".into(),
            is: 2,
            max: 1,
            unit: "bytes".into(),
        };
        let reserved = Refusal::ReservedTable {
            index: 0,
            table: "onelog.tables".into(),
        };
        vec![
            (reserved, 403, "reserved_table", &["where", "table"]),
            (
                Refusal::Malformed("both".into()),
                422,
                "malformed",
                &["where"],
            ),
            (
                Refusal::TooLarge(too_large),
                413,
                "too_large",
                &["limit", "max", "is", "unit"],
            ),
        ]
    }

    /// What says something about the node, and not about the request.
    fn cases_of_the_node() -> Vec<Case> {
        vec![
            (
                Refusal::DiskFull {
                    free_bytes: 1,
                    needed_bytes: 2,
                },
                507,
                "disk_full",
                &[],
            ),
            (
                Refusal::Overloaded {
                    reason: "full".into(),
                    retry_after_ms: 1,
                },
                503,
                "overloaded",
                &["retry_after_ms"],
            ),
            (Refusal::NoLeader, 503, "no_leader", &[]),
            (Refusal::NotLeader, 503, "not_leader", &[]),
            (Refusal::Stopped("why".into()), 503, "stopped", &[]),
        ]
    }

    #[test]
    fn every_refusal_has_its_status_its_code_and_its_fields() {
        let cases = [
            cases_of_the_state(),
            cases_of_time(),
            cases_of_form(),
            cases_of_the_node(),
        ];
        for (refusal, status, code, fields) in cases.into_iter().flatten() {
            let error = refused(refusal, &Names, || None);
            let (found, body) = error.parts();
            assert_eq!((found, body["error"].as_str()), (status, Some(code)));
            assert!(!body["message"].as_str().unwrap().is_empty(), "{code}");
            for field in fields {
                assert!(body.contains_key(*field), "{code} has {field}");
            }
            let response = error.into_response();
            let retry_after = response.headers().get(header::RETRY_AFTER);
            assert_eq!(retry_after.is_some(), status == 503, "{code}");
        }
    }

    #[test]
    fn a_delay_is_sent_in_whole_seconds_and_never_as_none() {
        for (delay_ms, seconds) in [(0, "1"), (1_000, "1"), (1_001, "2")] {
            let response = ApiError::overloaded("full", delay_ms).into_response();
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds);
        }
    }
}
