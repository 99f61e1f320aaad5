//! How records of the log become rows of a store.
//!
//! ```text
//!  record ─▶ where? ─▶ transform ─▶ fields ─▶ columns or document ─▶ cells in canonical form
//!            (jq)      (jq)         (chosen)
//! ```
//!
//! A [`Mapping`] says what one table's records become; checked against the tables of the log and
//! the [`MappingRules`] of a kind of store it is part of a [`Plan`]. Everything here is pure: the
//! same record makes the same row again, which `verify` and `rebuild` rest on.

mod canonical;
mod cell;
mod column_type;
mod error;
mod inverse;
mod mapping;
mod moment;
mod object;
mod options;
mod plan;
mod projection;
mod rules;
mod transform;

pub use self::canonical::{encode_json, numeric, numeric_as_written};
pub use self::cell::{Cell, Row, show_key};
pub use self::column_type::{ColumnType, Element};
pub use self::error::{DefinitionError, unknown};
pub use self::inverse::{Document, Inverse};
pub use self::mapping::{Column, Columns, KeyTemplate, Mapping, Source};
pub use self::moment::{
    date_of_days, date_text, days_of_date, parse_date, parse_timestamp, parse_uuid, timestamp_text,
    uuid_text,
};
pub use self::object::Object;
pub use self::options::{
    ADOPT, ADOPT_RULE, EXISTING, EXISTING_RULE, FieldRule, FieldValue, MappingOptions, REPLACE,
    TTL_SECONDS,
};
pub use self::plan::{ColumnPlan, HashLength, KEY_COLUMN, MappingPlan, Plan, RowFault, Tables};
pub use self::projection::Extractor;
pub use self::rules::{KeyForm, MappingRules, RowForm, no_further_check};

/// The most bytes of the name of a sink, a table in a store or a column.
pub const NAME_BYTES_MAX: usize = 128;
/// The most columns of one mapping.
pub const COLUMNS_MAX: usize = 256;
