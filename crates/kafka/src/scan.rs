//! Reading one topic out of the log.
//!
//! A transaction's records of one table are one batch, at their own offsets. It reaches to the end of
//! the transaction, so that the offset behind it is the transaction's position. Records of other tables
//! are gaps between batches; at the end of what was read a *marker* leads clients over the last gap:
//! a control batch, as Kafka's transactions have it, which no client shows and every client passes.
//! Without it a reader of a table at rest in a busy log would never reach the end of its topic.
//!
//! The topic of the whole log has one record for each transaction, at the offset of its last one.

use std::io;

use bytes::{Bytes, BytesMut};
use onelog::{Catalog, LogTransaction, Node, ReadLogError};
use onelog_api as api;
use onelog_record::{Op, Position, Record, USER_TABLES_FROM, ValueKind};
use onelog_request::{BytesOut, ValueOut};

use crate::batch::{self, Batch, BatchHeader, BatchRecord, Compression, NONE};
use crate::options::{LOG_BATCH_BYTES, SCAN_BYTES_MAX};
use crate::topics::Topic;

/// The transaction's id.
pub const HEADER_TRANSACTION: &str = "onelog-tx";
/// The place of a record among those of its table in the transaction, from 0.
pub const HEADER_INDEX: &str = "onelog-index";
/// How many records of its table the transaction has.
pub const HEADER_COUNT: &str = "onelog-count";
/// The headers that onelog sets itself.
pub const OWN_HEADERS: [&str; 3] = [HEADER_TRANSACTION, HEADER_INDEX, HEADER_COUNT];

/// A control record that says "committed": version 0, type 1; then version 0, coordinator 0.
const MARKER_KEY: &[u8] = &[0, 0, 0, 1];
const MARKER_VALUE: &[u8] = &[0, 0, 0, 0, 0, 0];

/// A read of the log for a client failed.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error(transparent)]
    Log(#[from] ReadLogError),
    #[error("records cannot be written as a batch: {0}")]
    Write(#[from] io::Error),
    #[error("a transaction cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// How far one partition was read for one fetch.
#[derive(Debug)]
pub struct Scan {
    topic: Topic,
    epoch: i32,
    /// The offset that was asked for.
    from: u64,
    /// Up to where the log was looked at.
    next: Position,
    /// Behind the last batch that was found.
    behind: u64,
    out: BytesMut,
    /// Whether a batch was left out because there was no more room for it.
    is_full: bool,
}

impl Scan {
    /// Begins at `from`; of the records from there to `next` is known that none is the topic's.
    pub fn new(topic: Topic, epoch: i32, from: u64, next: Position) -> Self {
        Self {
            topic,
            epoch,
            from,
            next: next.max(Position(from)),
            behind: from,
            out: BytesMut::new(),
            is_full: false,
        }
    }

    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    pub const fn next(&self) -> Position {
        self.next
    }

    /// Whether there is nothing more to be read for this fetch.
    pub const fn is_full(&self) -> bool {
        self.is_full
    }

    /// Reads on, until `room` bytes are found, the log ends, or so much of it was looked at that others
    /// should have their turn. `room` holds for all but the first batch of a fetch. Reads files; blocks.
    pub fn read(&mut self, node: &Node, room: usize, is_first: bool) -> Result<(), ScanError> {
        let mut looked_at = 0;
        while !self.is_full && looked_at < SCAN_BYTES_MAX && self.next < node.position() {
            let packed = node.read_packed_log(self.next, LOG_BATCH_BYTES)?;
            looked_at += packed.unpacked_bytes();
            let batch = packed.unpack()?;
            // The catalog is loaded behind the batch: it knows every table of its records.
            let catalog = node.catalog();
            for transaction in &batch.transactions {
                let found = self.batch_of(&catalog, transaction)?;
                if let Some(found) = found {
                    let bytes = self.out.len();
                    batch::write(&found, &mut self.out)?;
                    let must = is_first && bytes == 0;
                    if self.out.len() > room && !must {
                        self.out.truncate(bytes);
                        self.is_full = true;
                        return Ok(());
                    }
                    self.behind = transaction.end.get();
                }
                self.next = transaction.end;
            }
            self.next = batch.next;
        }
        Ok(())
    }

    /// What was found, with the marker behind it where a gap is there.
    pub fn finish(mut self) -> Result<Bytes, ScanError> {
        if !self.is_full && self.next.get() > self.behind {
            let marker = self.marker();
            batch::write(&marker, &mut self.out)?;
        }
        Ok(self.out.freeze())
    }

    /// A batch of one control record right before `next`.
    fn marker(&self) -> Batch {
        let record = BatchRecord {
            timestamp_delta: 0,
            offset_delta: 0,
            key: Some(Bytes::from_static(MARKER_KEY)),
            value: Some(Bytes::from_static(MARKER_VALUE)),
            headers: Vec::new(),
        };
        Batch {
            is_transactional: true,
            is_control: true,
            ..self.batch(self.next.get() - 1, self.next, 0, vec![record])
        }
    }

    fn batch(
        &self,
        base_offset: u64,
        end: Position,
        timestamp_ms: u64,
        records: Vec<BatchRecord>,
    ) -> Batch {
        let timestamp = timestamp_ms.cast_signed();
        Batch {
            base_offset: base_offset.cast_signed(),
            leader_epoch: self.epoch,
            compression: Compression::None,
            has_log_time: true,
            is_transactional: false,
            is_control: false,
            last_offset_delta: (end.get() - 1 - base_offset) as i32,
            base_timestamp: timestamp,
            max_timestamp: timestamp,
            producer_id: NONE,
            producer_epoch: -1,
            base_sequence: -1,
            records,
        }
    }

    /// The batch of a transaction; `None` where the topic has nothing of it from `from` on.
    fn batch_of(
        &self,
        catalog: &Catalog,
        transaction: &LogTransaction,
    ) -> Result<Option<Batch>, ScanError> {
        let of_topic = |record: &&Record| match &self.topic {
            Topic::WholeLog => record.table >= USER_TABLES_FROM,
            Topic::Table(table) => record.table == table.id,
        };
        let records: Vec<&Record> = transaction.records.iter().filter(of_topic).collect();
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(None);
        };
        let (end, timestamp) = (transaction.end, transaction.timestamp_ms);
        let batch = match &self.topic {
            Topic::WholeLog => {
                let record = whole(catalog, transaction, &records)?;
                self.batch(end.get() - 1, end, timestamp, vec![record])
            }
            Topic::Table(_) if last.offset.get() < self.from => return Ok(None),
            Topic::Table(_) => {
                let base = first.offset.get();
                self.batch(base, end, timestamp, of_table(transaction, &records, base))
            }
        };
        Ok(Some(batch))
    }
}

fn of_table(transaction: &LogTransaction, records: &[&Record], base: u64) -> Vec<BatchRecord> {
    let id = Bytes::from(transaction.id.to_string());
    let count = Bytes::from(records.len().to_string());
    let one = |(index, record): (usize, &&Record)| {
        let header = |name: &'static str, value: Bytes| BatchHeader {
            name: Bytes::from_static(name.as_bytes()),
            value: Some(value),
        };
        let clients = record.headers.iter().map(|header| BatchHeader {
            name: header.name.clone(),
            value: Some(header.value.clone()),
        });
        let own = [
            header(HEADER_TRANSACTION, id.clone()),
            header(HEADER_INDEX, Bytes::from(index.to_string())),
            header(HEADER_COUNT, count.clone()),
        ];
        // An event without a key has an empty one in the log.
        let has_key = record.op != Op::Event || !record.key.is_empty();
        BatchRecord {
            timestamp_delta: 0,
            offset_delta: (record.offset.get() - base) as i32,
            key: has_key.then(|| record.key.clone()),
            value: record.value.clone(),
            headers: clients.chain(own).collect(),
        }
    };
    records.iter().enumerate().map(one).collect()
}

/// A transaction as one record: its id, and JSON as the HTTP API's event stream has it, without the
/// records of onelog itself.
fn whole(
    catalog: &Catalog,
    transaction: &LogTransaction,
    records: &[&Record],
) -> Result<BatchRecord, serde_json::Error> {
    let one = |record: &&'_ Record| {
        let (table, kind) = match catalog.by_id(record.table) {
            Some(table) => (table.name.clone(), table.value),
            None => (format!("#{}", record.table), ValueKind::Bytes),
        };
        (table, kind)
    };
    let names: Vec<_> = records.iter().map(one).collect();
    let records = records.iter().zip(names);
    let document = api::LogTransaction {
        position: transaction.end,
        id: transaction.id,
        timestamp_ms: transaction.timestamp_ms,
        records: records
            .map(|(record, (table, kind))| api::EventRecord {
                offset: record.offset,
                table,
                op: record.op.into(),
                key: BytesOut(&record.key),
                value: (record.value.as_deref()).map(|bytes| ValueOut { kind, bytes }),
                headers: api::Headers::of(record),
            })
            .collect(),
    };
    Ok(BatchRecord {
        timestamp_delta: 0,
        offset_delta: 0,
        key: Some(transaction.id.to_string().into()),
        value: Some(serde_json::to_vec(&document)?.into()),
        headers: Vec::new(),
    })
}
