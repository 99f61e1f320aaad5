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

// The state keeps its key encoding to itself, so its file is compiled into this target.
#[allow(dead_code)]
#[path = "../../../crates/state/src/key.rs"]
mod key;

use key::{VersionKey, base_key, split_base_key, with_base_key};

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

type Plain = (u32, Vec<u8>, u64);

/// Every two of the input's versions compare as their parts do, in the memtable and in the tree.
fn keys(input: &mut Unstructured<'_>) -> Result<()> {
    let mut versions: Vec<Plain> = Vec::new();
    input.arbitrary_loop(Some(2), Some(6), |input| {
        let table = if input.arbitrary()? {
            u32::MAX
        } else {
            input.int_in_range(0..=2)?
        };
        let mut bytes = if input.arbitrary()? {
            // Shares a beginning with the one before.
            let before = versions.last().map_or(&[][..], |last| &last.1);
            before[..input.int_in_range(0..=before.len())?].to_vec()
        } else {
            Vec::new()
        };
        bytes.extend_from_slice(input.arbitrary::<&[u8]>()?);
        bytes.truncate(KEY_BYTES_MAX);
        versions.push((table, bytes, input.arbitrary()?));
        Ok(ControlFlow::Continue(()))
    })?;
    for a in &versions {
        comes_back(a);
        for b in &versions {
            keep_their_order(a, b);
        }
    }
    Ok(())
}

fn version((table, bytes, offset): &Plain) -> VersionKey {
    VersionKey::of_record(
        TableId(*table),
        &Bytes::from(bytes.clone()),
        Offset(*offset),
    )
}

fn comes_back(plain: &Plain) {
    let (table, bytes, offset) = plain;
    let made = version(plain);
    assert_eq!(made.key(), bytes);
    assert_eq!(
        (made.table(), made.offset()),
        (TableId(*table), Offset(*offset))
    );
    assert_eq!(
        VersionKey::probe(TableId(*table), bytes, Offset(*offset)),
        made
    );
    assert!(VersionKey::before(TableId(*table), bytes) <= made);
    assert!(VersionKey::end_of(TableId(*table)).is_none_or(|end| made < end));
    let row = base_key(TableId(*table), bytes);
    assert_eq!(split_base_key(&row), Some((TableId(*table), &bytes[..])));
    with_base_key(TableId(*table), bytes, |again| assert_eq!(again, row));
}

fn keep_their_order(a: &Plain, b: &Plain) {
    let keys = (a.0, &a.1).cmp(&(b.0, &b.1));
    assert_eq!(version(a).cmp(&version(b)), keys.then(b.2.cmp(&a.2)));
    assert_eq!(version(a).is_same_key(&version(b)), keys.is_eq());
    assert_eq!(
        version(a).at(Offset(b.2)),
        version(&(a.0, a.1.clone(), b.2))
    );
    let rows = base_key(TableId(a.0), &a.1).cmp(&base_key(TableId(b.0), &b.1));
    assert_eq!(rows, keys);
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
