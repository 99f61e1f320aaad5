//! The body of an entry: transactions side by side, each a fixed head and its records.
//!
//! ```text
//! transaction := id [16] | fingerprint u64 | record_count u32 | record *
//! record      := tag u8 | table varint | key_len varint | key
//!                | value_len varint | value            (not for a delete)
//!                | header_count varint | header *      (only when the tag's bit 7 is set)
//! header      := name_len varint | name | value_len varint | value
//! ```
//! Integers are little-endian, the id is big-endian. The tag's low bits are the operation.
//! Only after-images are stored: replaying a record twice is the same as once.

use bytes::Bytes;

use crate::{
    HEADERS_MAX, KEY_BYTES_MAX, Offset, TableId, TxnId, VALUE_BYTES_MAX, read_varint, write_varint,
};

const TRANSACTION_HEAD_BYTES: usize = 28;
const TAG_HEADERS: u8 = 0x80;
/// A writer gives a buffer back that has grown beyond this.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// What a record does. Stored; the numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// The key has this value now.
    Put = 1,
    Delete = 2,
    /// Something happened: a record of a stream table, which has no state.
    Event = 3,
}

/// A header of a record: a name and a value for readers of the log, invisible to the state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// The name, UTF-8 by convention.
    pub name: Bytes,
    pub value: Bytes,
}

/// One change, read back from a body. Its bytes share the body's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    pub op: Op,
    pub table: TableId,
    pub key: Bytes,
    /// The value; `None` exactly for a delete.
    pub value: Option<Bytes>,
    /// Headers, in the order in which they were given.
    pub headers: Vec<Header>,
}

/// The head of one transaction, and where its records are.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub id: TxnId,
    /// The fingerprint of the request, to tell a retry from another request under the same id.
    pub fingerprint: u64,
    /// The offset of its first record.
    pub first_offset: Offset,
    /// How many records it has.
    pub record_count: u32,
    body: Bytes,
    records_at: usize,
}

/// Bytes that are no body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry's body is malformed at byte {at}: {what}")]
pub struct BodyError {
    /// Where, in bytes from the start of the raw body.
    pub at: usize,
    pub what: &'static str,
}

/// Writes a body. A transaction is written in place and can be taken back until it is sealed.
#[derive(Debug, Default)]
pub struct BodyWriter {
    out: Vec<u8>,
    prefix: usize,
    records: u32,
    transactions: u32,
}

/// Where an open transaction starts, so that it can be taken back.
#[derive(Clone, Copy, Debug)]
pub struct TransactionMark {
    at: usize,
    records: u32,
}

impl BodyWriter {
    /// An empty body behind `prefix` zero bytes, which belong to the caller.
    #[must_use]
    pub fn with_prefix(prefix: usize) -> Self {
        Self {
            out: vec![0; prefix],
            prefix,
            records: 0,
            transactions: 0,
        }
    }

    /// Opens a transaction.
    pub fn begin(&mut self, id: TxnId, fingerprint: u64) -> TransactionMark {
        let mark = TransactionMark {
            at: self.out.len(),
            records: self.records,
        };
        self.out.extend_from_slice(&id.to_bytes());
        self.out.extend_from_slice(&fingerprint.to_le_bytes());
        self.out.extend_from_slice(&0u32.to_le_bytes());
        mark
    }

    /// Adds a record to the open transaction.
    pub fn record(
        &mut self,
        op: Op,
        table: TableId,
        key: &[u8],
        value: Option<&[u8]>,
        headers: &[Header],
    ) {
        assert_eq!(
            value.is_none(),
            op == Op::Delete,
            "a delete has no value, all else has one"
        );
        let tag = op as u8 | if headers.is_empty() { 0 } else { TAG_HEADERS };
        self.out.push(tag);
        write_varint(&mut self.out, u64::from(table.0));
        write_bytes(&mut self.out, key);
        if let Some(value) = value {
            write_bytes(&mut self.out, value);
        }
        if !headers.is_empty() {
            write_varint(&mut self.out, headers.len() as u64);
            for header in headers {
                write_bytes(&mut self.out, &header.name);
                write_bytes(&mut self.out, &header.value);
            }
        }
        self.records += 1;
    }

    /// Closes the open transaction; answers how many records it has.
    pub fn seal(&mut self, mark: TransactionMark) -> u32 {
        let count = self.records - mark.records;
        self.out[mark.at + 24..mark.at + 28].copy_from_slice(&count.to_le_bytes());
        self.transactions += 1;
        count
    }

    /// Takes the open transaction back, as if it had never begun.
    pub fn undo(&mut self, mark: TransactionMark) {
        self.out.truncate(mark.at);
        self.records = mark.records;
    }

    /// The bytes written so far, without the prefix.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len() - self.prefix
    }

    /// Whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many records have been written, those of an open transaction included.
    #[must_use]
    pub const fn records(&self) -> u32 {
        self.records
    }

    /// How many transactions have been sealed.
    #[must_use]
    pub const fn transactions(&self) -> u32 {
        self.transactions
    }

    /// The prefix and the body.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    /// The prefix and the body, in memory of exactly their size: a reader that keeps a value of it keeps
    /// all of it. The writer is empty again and keeps its buffer for the next body.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        let body = self.out.as_slice().to_vec();
        let prefix = self.prefix;
        if self.out.capacity() > BUFFER_BYTES_MAX {
            self.out = Vec::new();
        }
        self.out.clear();
        self.out.resize(prefix, 0);
        self.records = 0;
        self.transactions = 0;
        body
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The transactions of a raw body, in order. Ends after the first error.
#[derive(Debug)]
pub struct Transactions {
    body: Bytes,
    at: usize,
    offset: Offset,
}

impl Transactions {
    /// Reads `body`, whose first record has `base_offset`.
    #[must_use]
    pub const fn new(body: Bytes, base_offset: Offset) -> Self {
        Self {
            body,
            at: 0,
            offset: base_offset,
        }
    }

    fn read(&mut self) -> Result<Transaction, BodyError> {
        let start = self.at;
        let Some(head) = self.body[start..].first_chunk::<TRANSACTION_HEAD_BYTES>() else {
            return Err(fault(start, "the head of a transaction is cut off"));
        };
        let mut id = [0; 16];
        id.copy_from_slice(&head[..16]);
        let mut word = [0; 8];
        word.copy_from_slice(&head[16..24]);
        let mut count = [0; 4];
        count.copy_from_slice(&head[24..28]);
        let transaction = Transaction {
            id: TxnId::from_bytes(id),
            fingerprint: u64::from_le_bytes(word),
            first_offset: self.offset,
            record_count: u32::from_le_bytes(count),
            body: self.body.clone(),
            records_at: start + TRANSACTION_HEAD_BYTES,
        };
        let mut at = transaction.records_at;
        for _ in 0..transaction.record_count {
            skip_record(&self.body, &mut at)?;
        }
        let next = self
            .offset
            .0
            .checked_add(u64::from(transaction.record_count))
            .ok_or(fault(start, "the records' offsets do not fit 64 bits"))?;
        self.at = at;
        self.offset = Offset(next);
        Ok(transaction)
    }
}

impl Iterator for Transactions {
    type Item = Result<Transaction, BodyError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.body.len() {
            return None;
        }
        let item = self.read();
        if item.is_err() {
            self.at = self.body.len();
        }
        Some(item)
    }
}

impl Transaction {
    /// Its records, in order.
    #[must_use]
    pub fn records(&self) -> Records {
        Records {
            body: self.body.clone(),
            at: self.records_at,
            left: self.record_count,
            offset: self.first_offset,
        }
    }
}

/// The records of one transaction, in order.
#[derive(Debug)]
pub struct Records {
    body: Bytes,
    at: usize,
    left: u32,
    offset: Offset,
}

impl Iterator for Records {
    type Item = Result<Record, BodyError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let item = read_record(&self.body, &mut self.at, self.offset);
        self.offset = Offset(self.offset.0 + 1);
        if item.is_err() {
            self.left = 0;
        }
        Some(item)
    }
}

const fn fault(at: usize, what: &'static str) -> BodyError {
    BodyError { at, what }
}

fn read_tag(body: &[u8], at: &mut usize) -> Result<(Op, bool), BodyError> {
    let tag = *body.get(*at).ok_or(fault(*at, "a record is cut off"))?;
    let op = match tag & !TAG_HEADERS {
        1 => Op::Put,
        2 => Op::Delete,
        3 => Op::Event,
        _ => return Err(fault(*at, "unknown operation")),
    };
    *at += 1;
    Ok((op, tag & TAG_HEADERS != 0))
}

fn read_table(body: &[u8], at: &mut usize) -> Result<TableId, BodyError> {
    let start = *at;
    read_varint(body, at)
        .and_then(|number| u32::try_from(number).ok())
        .map(TableId)
        .ok_or(fault(start, "the table's number is malformed"))
}

fn read_range(
    body: &[u8],
    at: &mut usize,
    max: usize,
) -> Result<std::ops::Range<usize>, BodyError> {
    let start = *at;
    let length = read_varint(body, at).ok_or(fault(start, "a length is malformed"))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > max {
        return Err(fault(start, "a length is over its limit"));
    }
    let from = *at;
    if length > body.len() - from {
        return Err(fault(start, "a length reaches behind the end"));
    }
    *at = from + length;
    Ok(from..*at)
}

fn read_header_count(body: &[u8], at: &mut usize) -> Result<u64, BodyError> {
    let start = *at;
    read_varint(body, at)
        .filter(|count| (1..=HEADERS_MAX as u64).contains(count))
        .ok_or(fault(start, "the number of headers is malformed"))
}

fn skip_record(body: &[u8], at: &mut usize) -> Result<(), BodyError> {
    let (op, has_headers) = read_tag(body, at)?;
    read_table(body, at)?;
    read_range(body, at, KEY_BYTES_MAX)?;
    if op != Op::Delete {
        read_range(body, at, VALUE_BYTES_MAX)?;
    }
    if has_headers {
        for _ in 0..read_header_count(body, at)? {
            read_range(body, at, VALUE_BYTES_MAX)?;
            read_range(body, at, VALUE_BYTES_MAX)?;
        }
    }
    Ok(())
}

fn read_record(body: &Bytes, at: &mut usize, offset: Offset) -> Result<Record, BodyError> {
    let (op, has_headers) = read_tag(body, at)?;
    let table = read_table(body, at)?;
    let key = body.slice(read_range(body, at, KEY_BYTES_MAX)?);
    let value = if op == Op::Delete {
        None
    } else {
        Some(body.slice(read_range(body, at, VALUE_BYTES_MAX)?))
    };
    let mut headers = Vec::new();
    if has_headers {
        for _ in 0..read_header_count(body, at)? {
            headers.push(Header {
                name: body.slice(read_range(body, at, VALUE_BYTES_MAX)?),
                value: body.slice(read_range(body, at, VALUE_BYTES_MAX)?),
            });
        }
    }
    Ok(Record {
        offset,
        op,
        table,
        key,
        value,
        headers,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_has_these_bytes() {
        let mut writer = BodyWriter::default();
        let mark = writer.begin(TxnId(1), 2);
        writer.record(Op::Put, TableId(300), b"k", Some(b"vv"), &[]);
        writer.record(Op::Delete, TableId(1), b"", None, &[]);
        assert_eq!(writer.seal(mark), 2);
        let expected = [
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // id
            2, 0, 0, 0, 0, 0, 0, 0, // fingerprint
            2, 0, 0, 0, // records
            1, 0xac, 2, 1, b'k', 2, b'v', b'v', // put, table 300, key, value
            2, 1, 0, // delete, table 1, empty key
        ];
        assert_eq!(writer.take(), expected);
    }

    #[test]
    fn a_transaction_that_is_taken_back_leaves_nothing() {
        let mut writer = BodyWriter::with_prefix(8);
        let mark = writer.begin(TxnId(1), 0);
        writer.record(Op::Event, TableId(9), b"a", Some(b"b"), &[]);
        writer.undo(mark);
        assert!(writer.is_empty());
        assert_eq!((writer.records(), writer.transactions()), (0, 0));
        assert_eq!(writer.take(), vec![0; 8]);
    }

    type Parts = (Op, u32, Vec<u8>, Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>);

    fn record() -> impl Strategy<Value = Parts> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40);
        (
            prop_oneof![Just(Op::Put), Just(Op::Delete), Just(Op::Event)],
            any::<u32>(),
            bytes(),
            bytes(),
            prop::collection::vec((bytes(), bytes()), 0..4),
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            transactions in prop::collection::vec((any::<u128>(), any::<u64>(), prop::collection::vec(record(), 0..6)), 0..6),
            base in 0u64..1 << 40,
        ) {
            let mut writer = BodyWriter::default();
            for (id, fingerprint, records) in &transactions {
                let mark = writer.begin(TxnId(*id), *fingerprint);
                for (op, table, key, value, headers) in records {
                    let headers: Vec<Header> = headers.iter()
                        .map(|(n, v)| Header { name: n.clone().into(), value: v.clone().into() }).collect();
                    let value = (*op != Op::Delete).then_some(value.as_slice());
                    writer.record(*op, TableId(*table), key, value, &headers);
                }
                writer.seal(mark);
            }
            let mut offset = base;
            let read: Vec<_> = Transactions::new(writer.take().into(), Offset(base))
                .collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(read.len(), transactions.len());
            for (found, (id, fingerprint, records)) in read.iter().zip(&transactions) {
                prop_assert_eq!((found.id, found.fingerprint), (TxnId(*id), *fingerprint));
                let found: Vec<_> = found.records().collect::<Result<_, _>>().unwrap();
                prop_assert_eq!(found.len(), records.len());
                for (found, (op, table, key, value, headers)) in found.iter().zip(records) {
                    prop_assert_eq!(found.offset, Offset(offset));
                    offset += 1;
                    prop_assert_eq!((found.op, found.table), (*op, TableId(*table)));
                    prop_assert_eq!(&found.key[..], &key[..]);
                    prop_assert_eq!(found.value.as_deref(), (*op != Op::Delete).then_some(value.as_slice()));
                    prop_assert_eq!(found.headers.len(), headers.len());
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for transaction in Transactions::new(bytes.into(), Offset(0)).flatten() {
                for record in transaction.records() {
                    prop_assert!(record.is_ok(), "a transaction that was accepted has readable records");
                }
            }
        }
    }
}
