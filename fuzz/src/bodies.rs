//! Valid bodies and entries, for seeds.

use bytes::Bytes;
use onelog_record::{
    BodyWriter, Compression, Entry, EntryHeader, EntryKind, Header, Index, Offset, Op, TableId,
    Term, TxnId,
};

/// A body of `transactions` transactions with one to three records each, from `first_id` on.
pub fn body(first_id: u128, transactions: u32) -> (Bytes, u32) {
    let mut writer = BodyWriter::default();
    for n in 0..transactions {
        let id = first_id + u128::from(n);
        let mark = writer.begin(TxnId(id), id as u64);
        let key = format!("key-{id}");
        writer.record(
            Op::Put,
            TableId(1024),
            key.as_bytes(),
            Some(b"{\"n\":1}"),
            &[],
        );
        if n % 2 == 0 {
            let header = Header {
                name: Bytes::from_static(b"trace"),
                value: Bytes::from_static(b"7"),
            };
            writer.record(
                Op::Event,
                TableId(1026),
                b"",
                Some(&[n as u8; 200]),
                &[header],
            );
        }
        if n % 3 == 0 {
            writer.record(Op::Delete, TableId(1025), b"gone", None, &[]);
        }
        writer.seal(mark);
    }
    let records = writer.records();
    (writer.finish().into(), records)
}

/// An entry that stores `raw` so.
pub fn entry(
    index: u64,
    base_offset: u64,
    (raw, records): (Bytes, u32),
    transactions: u32,
    wanted: Compression,
) -> Entry {
    let (compression, stored) =
        onelog_record::compress(&raw, wanted).expect("a small body can be compressed");
    Entry {
        term: Term(1),
        index: Index(index),
        header: EntryHeader {
            kind: EntryKind::Transactions,
            compression,
            raw_len: raw.len() as u32,
            base_offset: Offset(base_offset),
            record_count: records,
            transaction_count: transactions,
            timestamp_ms: 1_700_000_000_000 + index,
        },
        body: Bytes::copy_from_slice(&stored),
    }
}
