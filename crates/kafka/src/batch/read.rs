//! Reading a batch that a client sent. Nothing in it is believed before it was checked.

use bytes::{Buf as _, Bytes};

use onelog_record::RECORDS_MAX;

use super::{
    Batch, BatchHeader, BatchRecord, CHECKED_FROM, COMPRESSION_BITS, CONTROL_BIT, Compression,
    HEADER_BYTES, LENGTH_END, LOG_TIME_BIT, MAGIC, TRANSACTION_BIT, varint,
};

use crate::options::{BATCH_BYTES_MAX, BATCH_HEADERS_MAX};

/// The fewest bytes of a record: its length, attributes, two deltas, key, value, headers.
const RECORD_BYTES_MIN: usize = 7;
/// The fewest bytes of a header of a record.
const HEADER_OF_RECORD_BYTES_MIN: usize = 2;

/// Bytes that are no batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("it ends before what it says it has")]
    Short,
    #[error("bytes are behind its end, or a second batch")]
    Trailing,
    #[error("it has the format {0}, and only format 2 is taken")]
    Magic(i8),
    #[error("its checksum is {is:#010x}, of its bytes {of_bytes:#010x}")]
    Checksum { is: u32, of_bytes: u32 },
    #[error("its compression {0} is not known")]
    Compression(i16),
    #[error("it cannot be unpacked: {0}")]
    Unpack(String),
    #[error("it has more than {max} bytes when it is unpacked")]
    TooLarge { max: usize },
    #[error("it says that it has {said} records, which are more than its bytes can be")]
    Count { said: i32 },
    #[error("it has {count} records, the limit is {max}")]
    Records { count: usize, max: usize },
    #[error("a record in it has {count} headers, the limit is {max}")]
    Headers { count: usize, max: usize },
    #[error("a number in it is too long")]
    Number,
    #[error("a length in it is negative")]
    Length,
    #[error("record {record} has another length than it says")]
    Record { record: usize },
}

/// What a batch may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of its records, unpacked.
    pub bytes: usize,
    pub records: usize,
    /// Headers of one record.
    pub headers: usize,
}

/// What a transaction may have.
pub const LIMITS: Limits = Limits {
    bytes: BATCH_BYTES_MAX,
    records: RECORDS_MAX,
    headers: BATCH_HEADERS_MAX,
};

/// Reads one batch, which has to be all of the bytes.
pub fn read(bytes: &Bytes, limits: Limits) -> Result<Batch, BatchError> {
    let mut head = bytes.get(..HEADER_BYTES).ok_or(BatchError::Short)?;
    let base_offset = head.get_i64();
    let length = head.get_i32();
    let leader_epoch = head.get_i32();
    let magic = head.get_i8();
    if magic != MAGIC {
        return Err(BatchError::Magic(magic));
    }
    let length = usize::try_from(length).map_err(|_| BatchError::Length)?;
    match length.cmp(&(bytes.len() - LENGTH_END)) {
        std::cmp::Ordering::Greater => return Err(BatchError::Short),
        std::cmp::Ordering::Less => return Err(BatchError::Trailing),
        std::cmp::Ordering::Equal => {}
    }
    let (is, of_bytes) = (head.get_u32(), crc32c::crc32c(&bytes[CHECKED_FROM..]));
    if is != of_bytes {
        return Err(BatchError::Checksum { is, of_bytes });
    }
    let attributes = head.get_i16();
    let bits = attributes & COMPRESSION_BITS;
    let compression = Compression::of(bits).ok_or(BatchError::Compression(bits))?;
    let mut batch = Batch {
        base_offset,
        leader_epoch,
        compression,
        has_log_time: attributes & LOG_TIME_BIT != 0,
        is_transactional: attributes & TRANSACTION_BIT != 0,
        is_control: attributes & CONTROL_BIT != 0,
        last_offset_delta: head.get_i32(),
        base_timestamp: head.get_i64(),
        max_timestamp: head.get_i64(),
        producer_id: head.get_i64(),
        producer_epoch: head.get_i16(),
        base_sequence: head.get_i32(),
        records: Vec::new(),
    };
    let said = head.get_i32();
    let packed = bytes.slice(HEADER_BYTES..);
    let raw = match compression {
        Compression::None if packed.len() > limits.bytes => {
            return Err(BatchError::TooLarge { max: limits.bytes });
        }
        Compression::None => packed,
        _ => compression.unpack(&packed, limits.bytes)?.into(),
    };
    batch.records = records(&raw, said, limits)?;
    Ok(batch)
}

fn records(raw: &Bytes, said: i32, limits: Limits) -> Result<Vec<BatchRecord>, BatchError> {
    let count = usize::try_from(said).map_err(|_| BatchError::Count { said })?;
    if count > raw.len() / RECORD_BYTES_MIN {
        return Err(BatchError::Count { said });
    }
    if count > limits.records {
        let max = limits.records;
        return Err(BatchError::Records { count, max });
    }
    let mut left = &raw[..];
    let mut records = Vec::with_capacity(count);
    for record in 0..count {
        let length = length(varint::read(&mut left)?)?;
        let (mut inner, rest) = left.split_at_checked(length).ok_or(BatchError::Short)?;
        left = rest;
        records.push(one(raw, &mut inner, limits.headers)?);
        if !inner.is_empty() {
            return Err(BatchError::Record { record });
        }
    }
    match left.is_empty() {
        true => Ok(records),
        false => Err(BatchError::Trailing),
    }
}

fn one(raw: &Bytes, inner: &mut &[u8], headers_max: usize) -> Result<BatchRecord, BatchError> {
    let (_attributes, rest) = inner.split_first().ok_or(BatchError::Short)?;
    *inner = rest;
    let timestamp_delta = varint::read(inner)?;
    let offset_delta = varint::read(inner)?;
    let mut record = BatchRecord {
        timestamp_delta,
        offset_delta: i32::try_from(offset_delta).map_err(|_| BatchError::Number)?,
        key: piece(raw, inner)?,
        value: piece(raw, inner)?,
        headers: Vec::new(),
    };
    let count = length(varint::read(inner)?)?;
    if count > inner.len() / HEADER_OF_RECORD_BYTES_MIN {
        return Err(BatchError::Short);
    }
    if count > headers_max {
        return Err(BatchError::Headers {
            count,
            max: headers_max,
        });
    }
    record.headers.reserve_exact(count);
    for _ in 0..count {
        let name = piece(raw, inner)?.ok_or(BatchError::Length)?;
        let value = piece(raw, inner)?;
        record.headers.push(BatchHeader { name, value });
    }
    Ok(record)
}

fn length(number: i64) -> Result<usize, BatchError> {
    usize::try_from(number).map_err(|_| BatchError::Length)
}

/// Bytes with their length in front; `None` is null.
fn piece(raw: &Bytes, inner: &mut &[u8]) -> Result<Option<Bytes>, BatchError> {
    let number = varint::read(inner)?;
    if number == -1 {
        return Ok(None);
    }
    let taken = inner.split_at_checked(length(number)?);
    let (piece, rest) = taken.ok_or(BatchError::Short)?;
    *inner = rest;
    Ok(Some(raw.slice_ref(piece)))
}
