//! The records of a batch as the writes of one transaction.

use onelog_record::{
    CommitRequest, Header, Json, Operation, TableDefinition, TableKind, ValueKind, Write,
};

use crate::batch::{Batch, BatchHeader, BatchRecord};
use crate::refusals::Refused;
use crate::scan::OWN_HEADERS;

pub fn request(table: &TableDefinition, batch: &Batch) -> Result<CommitRequest, Refused> {
    let writes = batch.records.iter().enumerate();
    let writes = writes
        .map(|(place, record)| write(table, record).map_err(|why| Refused::record(place, why)));
    Ok(CommitRequest {
        writes: writes.collect::<Result<_, _>>()?,
        ..CommitRequest::default()
    })
}

fn write(table: &TableDefinition, record: &BatchRecord) -> Result<Write, String> {
    let name = &table.name;
    let key = match (&record.key, table.kind) {
        (Some(key), _) => key.clone(),
        (None, TableKind::Stream) => Default::default(),
        (None, TableKind::Keyed) => {
            return Err(format!(
                "table '{name}' keeps the latest value of each key, so a record needs a key"
            ));
        }
    };
    let operation = match (&record.value, table.kind) {
        (Some(value), _) => {
            if table.value == ValueKind::Json {
                Json::check(value).map_err(|fault| {
                    format!("table '{name}' holds JSON, and the value is none: {fault}")
                })?;
            }
            Operation::Put(value.clone())
        }
        (None, TableKind::Keyed) => Operation::Delete,
        (None, TableKind::Stream) => {
            return Err(format!(
                "table '{name}' is a stream, from which nothing is deleted: a record needs a value"
            ));
        }
    };
    let headers = record.headers.iter().filter(|header| !is_own(header));
    Ok(Write {
        table: table.id,
        key,
        operation,
        headers: headers
            .map(|header| Header {
                name: header.name.clone(),
                value: header.value.clone().unwrap_or_default(),
            })
            .collect(),
    })
}

/// Headers that onelog sets itself come from a record that was read here; they are of its transaction.
fn is_own(header: &BatchHeader) -> bool {
    OWN_HEADERS
        .iter()
        .any(|name| header.name == name.as_bytes())
}
