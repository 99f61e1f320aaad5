//! Every limit of a request, as a named constant with one error that says which limit was met.

use std::borrow::Cow;

/// The most bytes that keys, values and headers of one transaction may have together.
pub const TRANSACTION_BYTES_MAX: usize = 8 << 20;
/// The most records that one transaction may write.
pub const RECORDS_MAX: usize = 10_000;
/// The most point reads and range reads, each, that one transaction may declare.
pub const READS_MAX: usize = 10_000;
/// The most guards that one transaction may carry.
pub const GUARDS_MAX: usize = 10_000;
/// The most bytes of a key.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// The most bytes of a value.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// The most bytes of a table's name.
pub const TABLE_NAME_BYTES_MAX: usize = 128;
/// The most headers of a record.
pub const HEADERS_MAX: usize = 16;
/// The most bytes of a field path.
pub const FIELD_PATH_BYTES_MAX: usize = 512;
/// The deepest nesting of a JSON value: the limit of the parser, stated.
pub const JSON_DEPTH_MAX: usize = 128;
/// The most bytes of an HTTP request's body.
pub const HTTP_BODY_BYTES_MAX: usize = 16 << 20;
/// The most bytes of an entry's body, raw or stored. One transaction always fits: its own bytes,
/// the encoding's overhead per record, and the rows that unique fields add.
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// A request went over a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is too large: {is} {unit}, the limit is {max}")]
pub struct TooLarge {
    /// What was too large, for example `value of writes[3]`.
    pub what: String,
    /// The name of the limit, for example `VALUE_BYTES_MAX`.
    pub limit: Cow<'static, str>,
    pub is: usize,
    pub max: usize,
    /// The unit of both numbers.
    pub unit: Cow<'static, str>,
}
