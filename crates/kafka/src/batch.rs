//! Record batches, version 2, as clients send them and as they get them.
//!
//! ```text
//!  0 base_offset i64 | 8 length i32: of all behind it | 12 leader_epoch i32 | 16 magic i8 = 2
//! 17 CRC-32C u32 of bytes 21.. | 21 attributes i16: bits 0-2 compression, 3 the time is the log's,
//!    4 of a transaction, 5 control | 23 last_offset_delta i32 | 27 base_timestamp i64
//! 35 max_timestamp i64 | 43 producer_id i64 | 51 producer_epoch i16 | 53 base_sequence i32
//! 57 records i32 | 61 the records, compressed together
//! record := length varint | attributes i8 = 0 | timestamp_delta varint | offset_delta varint
//!           | key | value | headers varint | header *
//! header := name | value
//! key, value, name := length varint, -1 is null | bytes
//! ```
//!
//! Numbers are big-endian, varints zigzag. Names of headers may repeat, and keep their order.

mod compression;
mod read;
mod varint;
mod write;

use bytes::Bytes;

pub use compression::Compression;
pub use read::{BatchError, LIMITS, read};
pub use write::write;

/// The bytes in front of the records.
pub const HEADER_BYTES: usize = 61;
/// Up to where `length` does not count.
const LENGTH_END: usize = 12;
const MAGIC: i8 = 2;
/// Where the bytes begin that the checksum covers.
const CHECKED_FROM: usize = 21;

const COMPRESSION_BITS: i16 = 0b111;
const LOG_TIME_BIT: i16 = 1 << 3;
const TRANSACTION_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;

/// The absence of a number in a header.
pub const NONE: i64 = -1;

/// A batch of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub compression: Compression,
    /// Whether the time of every record is `max_timestamp`, set where it was ordered.
    pub has_log_time: bool,
    pub is_transactional: bool,
    /// Whether it is a note to clients, which they do not show.
    pub is_control: bool,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records: Vec<BatchRecord>,
}

/// A record of a batch; its bytes share the batch's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRecord {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<BatchHeader>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub name: Bytes,
    pub value: Option<Bytes>,
}

#[cfg(test)]
mod tests;
