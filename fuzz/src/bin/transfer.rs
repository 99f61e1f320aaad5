//! A state on its way to another node: what a hostile sender says is refused without large
//! allocations, or found out at the end at the latest.
#![no_main]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use onelog_fuzz::seeds;
use onelog_log::SimulatedDisk;
use onelog_record::{
    BodyWriter, Entry, EntryHeader, EntryKind, Index, Offset, Op, TableId, Term, TxnId,
};
use onelog_state::fuzz::transfer::{check_chunk, check_cursor, check_head, read_chunk};
use onelog_state::{Export, HEAD_BYTES_MAX, Head, Import, State, StateOptions};

const CHECKSUM: u32 = 0x5eed;
const ROWS: u64 = 12;

fuzz_target!(init: seeds::hand_out(make_seeds), |data: &[u8]| {
    let Some((way, bytes)) = data.split_first() else {
        return;
    };
    match way % 6 {
        0 => decode(bytes),
        1 => decode(&with_checksum(bytes)),
        2 => {
            let _ = check_cursor(bytes);
        }
        3 => {
            let _ = SENDER.chunk(bytes);
        }
        4 => exchanged_head(bytes),
        _ => exchanged_chunk(bytes),
    }
});

static SENDER: LazyLock<Export> = LazyLock::new(|| {
    let state = open();
    let mut body = BodyWriter::default();
    for number in 0..ROWS {
        let mark = body.begin(TxnId(u128::from(number) + 1), number);
        let key = [&b"key "[..], &number.to_be_bytes()].concat();
        let value = vec![b'v'; number as usize];
        body.record(Op::Put, TableId(1_024), &key, Some(&value), &[]);
        body.seal(mark);
    }
    let mut header = EntryHeader::empty(EntryKind::Transactions, Offset(0));
    header.record_count = body.records();
    header.transaction_count = body.transactions();
    let body = Bytes::from(body.finish());
    header.raw_len = body.len() as u32;
    let (term, index) = (Term(1), Index(1));
    let entry = Entry {
        term,
        index,
        header,
        body,
    };
    state.apply(&entry).expect("the entry is whole");
    state.set_members(b"members".to_vec());
    let checkpoint = state.freeze().expect("an entry was applied");
    checkpoint.run().expect("a simulated disk does not fail");
    state.export().expect("a simulated disk does not fail")
});

fn open() -> State {
    let options = StateOptions {
        memtable_bytes: 4 << 10,
        memtable_bytes_max: 64 << 10,
        cache_bytes: 1 << 20,
        ..StateOptions::default()
    };
    let opened = State::open(Arc::new(SimulatedDisk::new(1)), options);
    opened.expect("a simulated disk does not fail").0
}

/// Whatever is accepted has these bytes and no others; reading takes no memory beside what is kept.
fn decode(bytes: &[u8]) {
    let _ = check_head(bytes);
    let _ = check_chunk(bytes);
    let head = allocation_counter::measure(|| drop(Head::decode(bytes)));
    assert!(head.bytes_max <= HEAD_BYTES_MAX as u64, "{head:?}");
    let chunk = allocation_counter::measure(|| {
        let _ = read_chunk(bytes);
    });
    assert_eq!(chunk.count_total, 0, "{chunk:?}");
}

fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let crc = crc32c::crc32c(bytes);
    [bytes, &crc.to_le_bytes()].concat()
}

/// Some bytes of a whole message replaced, under a right checksum.
fn exchanged(whole: &[u8], input: &[u8]) -> Vec<u8> {
    let mut bytes = whole[..whole.len() - 4].to_vec();
    if let [at_low, at_high, patch @ ..] = input {
        let at = usize::from(u16::from_le_bytes([*at_low, *at_high])) % bytes.len();
        for (byte, new) in bytes[at..].iter_mut().zip(patch) {
            *byte = *new;
        }
    }
    with_checksum(&bytes)
}

fn exchanged_head(input: &[u8]) {
    let whole = SENDER.head(CHECKSUM);
    if let Ok(head) = Head::decode(&exchanged(&whole.encode(), input)) {
        let state = open();
        let mut import = Import::begin(&state, head).expect("there is no other");
        if take_rest(&mut import) {
            finish(import, &state);
        }
    }
}

/// One chunk is the input's; the others are right.
fn exchanged_chunk(input: &[u8]) {
    let Some((number, input)) = input.split_first() else {
        return;
    };
    let state = open();
    let mut import = Import::begin(&state, SENDER.head(CHECKSUM)).expect("there is no other");
    for _ in 0..number % 2 {
        put_next(&mut import);
    }
    let wanted = import.wanted().expect("there are two chunks");
    let whole = SENDER.chunk(&wanted).expect("it is wanted");
    let taken = import.taken();
    match import.put(&exchanged(&whole, input)) {
        Ok(()) => {
            if take_rest(&mut import) {
                finish(import, &state);
            }
        }
        Err(error) => {
            // Nothing of it is there, and the right one still is what is wanted.
            assert!(error.can_be_requested_again(), "{error}");
            assert_eq!((import.wanted(), import.taken()), (Some(wanted), taken));
            assert!(take_rest(&mut import) && finish(import, &state));
        }
    }
}

fn put_next(import: &mut Import) -> bool {
    let chunk = import
        .wanted()
        .and_then(|wanted| SENDER.chunk(&wanted).ok());
    chunk.is_some_and(|chunk| import.put(&chunk).is_ok())
}

/// Whether everything that is wanted came.
fn take_rest(import: &mut Import) -> bool {
    while import.wanted().is_some() {
        if !put_next(import) {
            return false;
        }
    }
    true
}

/// What is installed has the digest that its head promised.
fn finish(import: Import, state: &State) -> bool {
    let head = import.head().clone();
    let Ok(imported) = import.finish() else {
        return false;
    };
    // A head may name a place that the live state has.
    if state.install(imported, &mut None).is_ok() {
        let digest = state.scan_digest().expect("a simulated disk does not fail");
        assert_eq!((digest.digest, digest.applied), (head.digest, head.applied));
        assert_eq!(state.digest(), Some(digest));
    }
    true
}

fn make_seeds() -> Vec<Vec<u8>> {
    let head = SENDER.head(CHECKSUM).encode();
    let state = open();
    let mut import = Import::begin(&state, SENDER.head(CHECKSUM)).expect("there is no other");
    let mut messages = vec![head];
    let mut seeds = vec![vec![4, 0, 0], vec![5, 0, 0, 0], vec![5, 1, 40, 0, 1]];
    while let Some(wanted) = import.wanted() {
        for way in [2, 3] {
            seeds.push([&[way], &wanted[..]].concat());
        }
        messages.push(SENDER.chunk(&wanted).expect("it is wanted"));
        put_next(&mut import);
    }
    for message in messages {
        seeds.push([&[0], &message[..]].concat());
        seeds.push([&[1], &message[..message.len() - 4]].concat());
    }
    seeds
}
