//! Writing a batch, for clients that fetch it.

use std::io;

use bytes::{BufMut as _, BytesMut};

use super::{
    Batch, BatchRecord, CHECKED_FROM, CONTROL_BIT, Compression, HEADER_BYTES, LENGTH_END,
    LOG_TIME_BIT, MAGIC, TRANSACTION_BIT, varint,
};

/// Appends a batch to bytes.
///
/// # Errors
/// When the records cannot be compressed, or are larger than a batch can be.
pub fn write(batch: &Batch, out: &mut BytesMut) -> io::Result<()> {
    let from = out.len();
    out.put_bytes(0, HEADER_BYTES);
    match batch.compression {
        Compression::None => records(&batch.records, out),
        packed => {
            let mut raw = BytesMut::new();
            records(&batch.records, &mut raw);
            out.put_slice(&packed.pack(&raw)?);
        }
    }
    let length = out.len() - from - LENGTH_END;
    let too_large = |_| io::Error::other("the records are larger than a batch can be");
    let length = i32::try_from(length).map_err(too_large)?;
    let count = i32::try_from(batch.records.len()).map_err(too_large)?;

    let flag = |is_set: bool, bit: i16| if is_set { bit } else { 0 };
    let attributes = batch.compression as i16
        | flag(batch.has_log_time, LOG_TIME_BIT)
        | flag(batch.is_transactional, TRANSACTION_BIT)
        | flag(batch.is_control, CONTROL_BIT);
    let mut checked = &mut out[from + CHECKED_FROM..from + HEADER_BYTES];
    checked.put_i16(attributes);
    checked.put_i32(batch.last_offset_delta);
    checked.put_i64(batch.base_timestamp);
    checked.put_i64(batch.max_timestamp);
    checked.put_i64(batch.producer_id);
    checked.put_i16(batch.producer_epoch);
    checked.put_i32(batch.base_sequence);
    checked.put_i32(count);

    let checksum = crc32c::crc32c(&out[from + CHECKED_FROM..]);
    let mut unchecked = &mut out[from..from + CHECKED_FROM];
    unchecked.put_i64(batch.base_offset);
    unchecked.put_i32(length);
    unchecked.put_i32(batch.leader_epoch);
    unchecked.put_i8(MAGIC);
    unchecked.put_u32(checksum);
    Ok(())
}

fn records(records: &[BatchRecord], out: &mut BytesMut) {
    for record in records {
        varint::write(out, size(record) as i64);
        out.put_i8(0);
        varint::write(out, record.timestamp_delta);
        varint::write(out, i64::from(record.offset_delta));
        piece(record.key.as_deref(), out);
        piece(record.value.as_deref(), out);
        varint::write(out, record.headers.len() as i64);
        for header in &record.headers {
            piece(Some(&header.name), out);
            piece(header.value.as_deref(), out);
        }
    }
}

/// The bytes of a record behind its length.
fn size(record: &BatchRecord) -> usize {
    let headers = record.headers.iter();
    let headers: usize = headers
        .map(|header| piece_size(Some(&header.name)) + piece_size(header.value.as_deref()))
        .sum();
    1 + varint::size(record.timestamp_delta)
        + varint::size(i64::from(record.offset_delta))
        + piece_size(record.key.as_deref())
        + piece_size(record.value.as_deref())
        + varint::size(record.headers.len() as i64)
        + headers
}

fn piece_size(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::size(bytes.len() as i64) + bytes.len())
}

fn piece(bytes: Option<&[u8]>, out: &mut BytesMut) {
    match bytes {
        None => varint::write(out, -1),
        Some(bytes) => {
            varint::write(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
    }
}
