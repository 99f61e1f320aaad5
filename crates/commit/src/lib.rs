//! The validator and the idempotency window: pure data structures.
//!
//! One thread owns a [`Validator`] and lets it decide each request in the order in which
//! requests are to be put into the log. It knows everything that was accepted before, whether
//! committed and applied already or still in flight, and reads the applied state through a
//! [`View`]. Nothing here does I/O, reads a clock or waits, so the same requests in the same order
//! give the same decisions.

mod guards;
mod ids;
mod json;
mod newest;
mod operations;
mod overlay;
pub mod planted;
mod prepared;
mod ranges;
mod reads;
mod rejection;
mod staged;
mod unique;
mod validator;
mod view;
mod window;
mod work;
mod writes;

#[cfg(test)]
mod arbitrary;
pub use ids::Remembered;
pub use prepared::Prepared;
pub use unique::unique_row_key;
pub use validator::{Decision, Validator, ValidatorOptions};
pub use view::{Latest, Rules, Schema, SchemaFault, TableRules, View, ViewError, Written};
pub use work::{DECISION_STEPS_MAX, JSON_BYTES_READ_MAX, SCHEMA_STEPS_MAX};
pub use writes::TRANSACTION_BODY_BYTES_MAX;
