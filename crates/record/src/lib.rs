//! The terms of onelog as types, their encoding and their limits.
//!
//! Nothing here does I/O. Whatever is stored or sent is encoded and decoded here or in the
//! `log` crate, drawn in `docs/format.md` and pinned by a test.

mod byte_reader;
pub mod code;
mod compression;
mod entry;
mod field;
mod fingerprint;
mod json;
mod limits;
mod numbers;
mod outcome;
mod panic;
mod planted;
mod quoted;
mod request;
mod serde_message;
mod table;
mod transaction;
mod varint;
mod wire;

pub use byte_reader::{ByteReader, LengthError};
pub use compression::{CompressionError, compress, raw_body};
pub use entry::{Compression, Entry, EntryHeader, EntryKind, PAYLOAD_HEADER_BYTES, PayloadError};
pub use field::{FieldPath, FieldPathError, array_index};
pub use json::{
    FOUND_AT_ONCE_MAX, Json, JsonFault, JsonString, JsonText, NotANumber, Number, Place, find,
    place,
};
pub use limits::{
    BODY_BYTES_MAX, FIELD_PATH_BYTES_MAX, GUARDS_MAX, HEADERS_MAX, HTTP_BODY_BYTES_MAX,
    JSON_DEPTH_MAX, KEY_BYTES_MAX, READS_MAX, RECORDS_MAX, TABLE_NAME_BYTES_MAX,
    TRANSACTION_BYTES_MAX, TooLarge, VALUE_BYTES_MAX,
};
pub use numbers::{Index, NodeId, Offset, Position, TableId, Term, TxnId, TxnIdError};
pub use outcome::{Committed, OperationFault, Refusal, Subject};
pub use panic::panic_message;
pub use quoted::{QUOTED_BYTES_MAX, Quoted, quoted};
pub use request::{
    CommitRequest, Compare, Guard, KeyRange, Operation, PointRead, Predicate, Write,
};
pub use serde_message::in_json_terms;
pub use table::{
    SYSTEM_TABLES, TABLE_NODES, TABLE_PARKED, TABLE_SETTINGS, TABLE_SINK_POSITIONS, TABLE_SINKS,
    TABLE_TABLES, TABLE_UNIQUE, TableDefinition, TableKind, TableNameError, USER_TABLES_FROM,
    ValueKind, check_table_name, nearest_name, unique_rows_of,
};
pub use transaction::{
    BodyError, BodyWriter, Header, Op, Record, Records, Transaction, TransactionMark, Transactions,
};
pub use varint::{read_varint, write_varint};
pub use wire::{WireError, decode_answer, encode_answer};
