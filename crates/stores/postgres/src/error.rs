//! What PostgreSQL's errors mean for a sink, and how they are reported.
//!
//! Its codes come in classes: 22 and 23 are a row's fault, 08, 53 and 57 the moment's, 28 and 42
//! the set-up's. A password is in none of these messages: the driver's causes hold none, and an
//! address that cannot be read is never shown.

use std::error::Error as _;
use std::fmt;

use tokio_postgres::error::{DbError, SqlState};

use onelog_store::{StoreError, URL};

use crate::kind::SCHEMA;

/// How many bytes of the server's message are kept; its details can hold a whole row.
const MESSAGE_BYTES_MAX: usize = 2048;

/// A step that did not succeed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The server or the way to it.
    Sql(tokio_postgres::Error),
    /// An error that has its meaning for the sink already.
    Store(StoreError),
    /// The definition of this table was changed while rows were written, which are taken back.
    Redefined(String),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    /// As the contract has it; `what` was tried at `place`.
    pub(crate) fn into_store_error(self, what: &str, place: &str) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Sql(error) => classify(what, place, error),
            Self::Redefined(into) => unavailable(
                format!("{what} {place}"),
                format!(
                    "the definition of the table '{into}' was changed meanwhile; nothing was written, and it is looked at again"
                ),
            ),
        }
    }

    fn code(&self) -> Option<&str> {
        match self {
            Self::Sql(error) => error.code().map(SqlState::code),
            Self::Store(_) | Self::Redefined(_) => None,
        }
    }

    /// Whether the order of changes within the batch can be what the server objects to: keys that
    /// are unique beside the primary one, foreign keys, exclusions.
    pub(crate) fn is_between_rows(&self) -> bool {
        matches!(self.code(), Some("23505" | "23503" | "23P01"))
    }

    /// Whether two rows of the batch may have exchanged what each may have once.
    pub(crate) fn is_exchange(&self) -> bool {
        matches!(self.code(), Some("23505" | "23P01"))
    }

    /// Whether a row refers to one that is not there, or one that stays refers to it.
    pub(crate) fn is_reference(&self) -> bool {
        self.code() == Some("23503")
    }

    /// Whether trying again cannot help because of what a row holds.
    pub(crate) fn is_rejected_row(&self) -> bool {
        match self {
            Self::Sql(_) => self.code().is_some_and(is_rejected_row_code),
            Self::Store(error) => matches!(error, StoreError::Refused(_)),
            Self::Redefined(_) => false,
        }
    }

    pub(crate) fn is_rejected_row_error(error: &tokio_postgres::Error) -> bool {
        error
            .code()
            .is_some_and(|code| is_rejected_row_code(code.code()))
    }
}

/// Whether a value cannot be what a statement makes of it.
pub(crate) fn is_data_exception(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| code.code().starts_with("22"))
}

/// Classes 22 (data), 23 (constraints), 44 (a view's check), P0001 (a trigger's own refusal), and
/// what is too large for an index or a field.
fn is_rejected_row_code(code: &str) -> bool {
    code.starts_with("22")
        || code.starts_with("23")
        || code.starts_with("44")
        || matches!(code, "P0001" | "P0004" | "54000")
}

/// An error of the driver with its whole chain of causes as one message.
#[derive(Debug)]
struct DriverError {
    message: String,
    source: tokio_postgres::Error,
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DriverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The message of the server or the driver.
pub(crate) fn message(error: &tokio_postgres::Error) -> String {
    let mut out = match error.as_db_error() {
        Some(error) => server_message(error),
        None => {
            let mut out = error.to_string();
            let mut cause = error.source();
            while let Some(inner) = cause {
                out.push_str(": ");
                out.push_str(&inner.to_string());
                cause = inner.source();
            }
            out
        }
    };
    if out.len() > MESSAGE_BYTES_MAX {
        out.truncate(out.floor_char_boundary(MESSAGE_BYTES_MAX));
        out.push('…');
    }
    out
}

fn server_message(error: &DbError) -> String {
    let mut out = format!("{} (code {})", error.message(), error.code().code());
    for (name, part) in [("detail", error.detail()), ("hint", error.hint())] {
        if let Some(part) = part {
            out.push_str(&format!("; {name}: {part}"));
        }
    }
    out
}

const STATEMENT_POOL: &str = "the address leads to a pool that takes single statements only: a pool with pool_mode = transaction or session is needed, or the server's own port";

pub(crate) const DROP_DEPENDENTS: &str = "drop what depends on the table, then rebuild the sink";

/// What people can do about an error that does not pass by itself.
fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "42501" => "the user lacks a right: give it those that docs/sinks/postgres.md lists",
        "3F000" => "there is no such schema: create it, or name another one as 'schema'",
        "3D000" => "there is no such database: create it, or name another one in the address",
        "2BP01" => DROP_DEPENDENTS,
        "28P01" => "the password is wrong, or there is no such user: mend them in the address",
        _ if code.starts_with("28") => {
            "there is no such user, or it may not log in from here: mend the user in the address, or the server's pg_hba.conf"
        }
        _ => return None,
    })
}

/// The message, and what people can do about it.
fn message_and_advice(error: &tokio_postgres::Error) -> (String, Option<&'static str>) {
    let message = message(error);
    let advice = match message.contains("statement pooling mode") {
        true => Some(STATEMENT_POOL),
        false => error.code().and_then(|code| advice(code.code())),
    };
    (message, advice)
}

/// The message, with the advice behind it.
pub(crate) fn advising_message(error: &tokio_postgres::Error) -> String {
    match message_and_advice(error) {
        (message, Some(advice)) => format!("{message}; {advice}"),
        (message, None) => message,
    }
}

pub(crate) fn classify(what: &str, place: &str, error: tokio_postgres::Error) -> StoreError {
    let what = format!("{what} {place}");
    let message = advising_message(&error);
    let lasting = message_and_advice(&error).1.is_some();
    let passes = error
        .code()
        .is_some_and(|code| is_not_writable(code.code()));
    let code = error.code().map(|code| code.code().to_owned());
    let code = code.as_deref();
    let cause = Box::new(DriverError {
        message,
        source: error,
    });
    let field = match code {
        Some("3F000") => Some(SCHEMA.name),
        Some("3D000") => Some(URL.name),
        _ => None,
    };
    if let Some(field) = field {
        StoreError::NoSuchPlace { field, what, cause }
    } else if code.is_some_and(|code| code.starts_with("28")) {
        StoreError::NoAccess { what, cause }
    } else if lasting {
        StoreError::Broken { what, cause }
    } else if passes || is_no_host_writable(&cause) {
        StoreError::NotWritable { what, cause }
    } else {
        StoreError::Unavailable { what, cause }
    }
}

/// A read-only transaction, which a standby and a server with `default_transaction_read_only` have;
/// and a full disk.
fn is_not_writable(code: &str) -> bool {
    matches!(code, "25006" | "53100")
}

/// Whether servers answered, and none of them is what `target_session_attrs` wants.
fn is_no_host_writable(error: &DriverError) -> bool {
    let cause = error.source.source();
    let cause = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| {
        cause.kind() == std::io::ErrorKind::PermissionDenied
            && cause.to_string().contains("does not allow writes")
    })
}

pub(crate) fn not_writable(what: impl Into<String>, cause: impl Into<String>) -> StoreError {
    StoreError::NotWritable {
        what: what.into(),
        cause: cause.into().into(),
    }
}

/// A setting or a fact of the server that people must change.
pub(crate) fn broken(what: impl Into<String>, cause: impl Into<String>) -> StoreError {
    StoreError::Broken {
        what: what.into(),
        cause: cause.into().into(),
    }
}

pub(crate) fn unavailable(what: impl Into<String>, cause: impl Into<String>) -> StoreError {
    StoreError::Unavailable {
        what: what.into(),
        cause: cause.into().into(),
    }
}
