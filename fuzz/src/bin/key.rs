//! Keys in the state and records in a body: what is encoded keeps its order and comes back.
#![no_main]

use std::ops::ControlFlow;

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use onelog_fuzz::{bodies, seeds};
use onelog_record::{
    BodyWriter, KEY_BYTES_MAX, Offset, TableId, Transactions, read_varint, write_varint,
};
use onelog_state::fuzz::{Version, check_keys};

fuzz_target!(init: seeds::hand_out(make_seeds), |data: &[u8]| {
    let Some((way, bytes)) = data.split_first() else {
        return;
    };
    match way % 3 {
        0 => body(bytes),
        1 => varint(bytes),
        _ => {
            // Input that ends early is simply a shorter list.
            let _ = keys(&mut Unstructured::new(bytes));
        }
    }
});

/// A body that is readable to its end has exactly these bytes.
fn body(bytes: &[u8]) {
    let mut writer = BodyWriter::default();
    let mut offset = 1 << 40;
    for transaction in Transactions::new(Bytes::copy_from_slice(bytes), Offset(offset)) {
        let Ok(transaction) = transaction else {
            return;
        };
        assert_eq!(transaction.first_offset, Offset(offset));
        let mark = writer.begin(transaction.id, transaction.fingerprint);
        for record in transaction.records() {
            let record = record.expect("a transaction that was accepted has readable records");
            assert_eq!(record.offset, Offset(offset));
            offset += 1;
            writer.record(
                record.op,
                record.table,
                &record.key,
                record.value.as_deref(),
                &record.headers,
            );
        }
        assert_eq!(writer.seal(mark), transaction.record_count);
    }
    assert_eq!(writer.finish(), bytes);
}

fn varint(bytes: &[u8]) {
    let mut at = 0;
    if let Some(value) = read_varint(bytes, &mut at) {
        let mut again = Vec::new();
        write_varint(&mut again, value);
        assert_eq!(again, bytes[..at]);
    }
}

/// Every two of the input's versions compare as their parts do, in the memtable and in the tree.
fn keys(input: &mut Unstructured<'_>) -> Result<()> {
    let mut versions: Vec<Version> = Vec::new();
    input.arbitrary_loop(Some(2), Some(6), |input| {
        let table = if input.arbitrary()? {
            u32::MAX
        } else {
            input.int_in_range(0..=2)?
        };
        let mut bytes = if input.arbitrary()? {
            // Shares a beginning with the one before.
            let before = versions.last().map_or(&[][..], |last| &last.key);
            before[..input.int_in_range(0..=before.len())?].to_vec()
        } else {
            Vec::new()
        };
        bytes.extend_from_slice(input.arbitrary::<&[u8]>()?);
        bytes.truncate(KEY_BYTES_MAX);
        versions.push(Version {
            table: TableId(table),
            key: bytes,
            offset: Offset(input.arbitrary()?),
        });
        Ok(ControlFlow::Continue(()))
    })?;
    check_keys(&versions);
    Ok(())
}

fn make_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], vec![1, 0x80, 1], vec![2; 64], vec![2; 300]];
    for transactions in 1..4 {
        let mut seed = vec![0];
        seed.extend_from_slice(&bodies::body(5, transactions).0);
        seeds.push(seed);
    }
    seeds
}
