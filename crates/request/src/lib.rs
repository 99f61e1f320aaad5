//! The body of `POST /v1/transactions` becomes a [`CommitRequest`](onelog_record::CommitRequest).
//! Nothing here reads or waits: the door that gets the body is above, and so is its fuzz target.
//!
//! One pass with serde, straight into the request: values of put stay the bytes that the client
//! wrote. While it runs, a `Place` remembers where it is, so that every error says where.

mod check;
mod guard;
mod read;
mod request;
mod text;
mod write;

use std::cell::{Cell, RefCell};
use std::fmt;

use bytes::Bytes;
use onelog_record::{
    JsonText, Number, Quoted, TableId, TableKind, TooLarge, ValueKind, nearest_name,
};
use serde::de::{Error as _, MapAccess};
use serde_json::value::RawValue;

pub use check::check_json;
pub use read::prefix_end;
pub use request::{Parsed, parse_request};
pub use text::{BytesOut, ValueOut, WireBytes, decode_base64};

use crate::text::{EXPECTED, Name};

/// The longest wait that a request may name.
pub const WAIT_TIMEOUT_MS_MAX: u64 = 60_000;

/// What parsing must know of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownTable {
    pub id: TableId,
    pub kind: TableKind,
    pub value: ValueKind,
}

/// The tables that a request may name.
pub trait Tables {
    /// The live table of this name.
    fn table(&self, name: &str) -> Option<KnownTable>;
    /// The known name that was probably meant.
    fn nearest(&self, name: &str) -> Option<String>;
}

/// Why a body is no transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("{place}: {message}")]
    Malformed { place: String, message: String },
    #[error("{place}: there is no table '{}'", Quoted(name))]
    UnknownTable {
        place: String,
        name: String,
        nearest: Option<String>,
    },
    #[error(
        "{place}: the table '{}' belongs to onelog itself and cannot be written",
        Quoted(name)
    )]
    ReservedTable { place: String, name: String },
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// Where parsing is, and the fault that it met, when serde's own errors cannot carry it.
pub(crate) struct Place<'t> {
    tables: &'t dyn Tables,
    list: Cell<&'static str>,
    index: Cell<usize>,
    field: Cell<&'static str>,
    fault: RefCell<Option<ParseError>>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.list.get(), self.field.get()) {
            ("", "") => f.write_str("body"),
            ("", field) => f.write_str(field),
            (list, "") => write!(f, "{list}[{}]", self.index.get()),
            (list, field) => write!(f, "{list}[{}].{field}", self.index.get()),
        }
    }
}

impl<'t> Place<'t> {
    fn new(tables: &'t dyn Tables) -> Self {
        Self {
            tables,
            list: Cell::new(""),
            index: Cell::new(0),
            field: Cell::new(""),
            fault: RefCell::new(None),
        }
    }

    /// Keeps `fault` and answers the error that stops serde.
    fn stop<E: serde::de::Error>(&self, fault: ParseError) -> E {
        *self.fault.borrow_mut() = Some(fault);
        E::custom("stopped")
    }

    /// A fault right here.
    fn malformed<E: serde::de::Error>(&self, message: impl Into<String>) -> E {
        let fault = ParseError::Malformed {
            place: self.to_string(),
            message: message.into(),
        };
        self.stop(fault)
    }

    /// A fault at `field` of the present item.
    fn malformed_at<E: serde::de::Error>(
        &self,
        field: &'static str,
        message: impl Into<String>,
    ) -> E {
        self.field.set(field);
        self.malformed(message)
    }

    /// A field that must be there.
    fn required<T, E: serde::de::Error>(
        &self,
        field: &'static str,
        value: Option<T>,
    ) -> Result<T, E> {
        value.ok_or_else(|| self.malformed(format!("the field '{field}' is missing")))
    }

    /// The table of a name.
    fn table<E: serde::de::Error>(&self, name: &str) -> Result<KnownTable, E> {
        self.tables.table(name).ok_or_else(|| {
            self.field.set("table");
            self.stop(ParseError::UnknownTable {
                place: self.to_string(),
                name: name.to_owned(),
                nearest: self.tables.nearest(name),
            })
        })
    }

    /// The bytes of a value that a table keeps: JSON as it was written, or bytes.
    fn stored_value<E: serde::de::Error>(
        &self,
        kind: ValueKind,
        raw: &RawValue,
    ) -> Result<Bytes, E> {
        self.field.set("value");
        match kind {
            ValueKind::Json => {
                check_json(raw.get()).map_err(|message| self.malformed(message))?;
                Ok(Bytes::copy_from_slice(raw.get().as_bytes()))
            }
            ValueKind::Bytes => serde_json::from_str::<WireBytes>(raw.get())
                .map(|wire| wire.0)
                .map_err(|error| {
                    self.malformed(format!(
                        "the table holds bytes, so the value must be {EXPECTED}: {error}"
                    ))
                }),
        }
    }

    /// A JSON value that is looked into.
    fn json_value<E: serde::de::Error>(
        &self,
        field: &'static str,
        raw: &RawValue,
    ) -> Result<JsonText, E> {
        self.field.set(field);
        check_json(raw.get()).map_err(|message| self.malformed(message))?;
        JsonText::parse(raw.get()).map_err(|error| self.malformed(error.to_string()))
    }

    /// A number, as it was written.
    fn number<E: serde::de::Error>(
        &self,
        field: &'static str,
        raw: &RawValue,
    ) -> Result<Number, E> {
        self.field.set(field);
        Number::parse(raw.get()).map_err(|error| self.malformed(error.to_string()))
    }

    /// The next field of an object whose fields are `known`, each at most once.
    fn next_field<'de, A: MapAccess<'de>>(
        &self,
        map: &mut A,
        known: &'static [&'static str],
        seen: &mut u32,
    ) -> Result<Option<&'static str>, A::Error> {
        self.field.set("");
        let Some(name) = map.next_key::<Name<'de>>()? else {
            return Ok(None);
        };
        let Some(at) = known.iter().position(|field| *field == name.as_str()) else {
            return Err(self.malformed(unknown_field(name.as_str(), known)));
        };
        self.field.set(known[at]);
        if *seen & 1 << at != 0 {
            return Err(A::Error::custom("the field occurs twice"));
        }
        *seen |= 1 << at;
        Ok(Some(known[at]))
    }
}

/// What is said of a name that is not among the known ones.
pub fn unknown_field(name: &str, known: &[&str]) -> String {
    let shown: String = name.chars().take(64).collect();
    match nearest_name(&shown, known.iter().copied()) {
        Some(nearest) => format!("unknown field '{shown}'; did you mean '{nearest}'?"),
        None => format!("unknown field '{shown}'; known are: {}", known.join(", ")),
    }
}
