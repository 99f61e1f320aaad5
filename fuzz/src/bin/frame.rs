//! Frames: arbitrary bytes, bytes with right checksums, and whole frames with a part exchanged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onelog_fuzz::{bodies, seeds};
use onelog_log::frame::{self, CHAIN_START, FRAME_HEADER_BYTES, FrameHead, MAGIC, Salt, frame_len};
use onelog_record::{Compression, Entry, Index, Transactions, compress, raw_body};

const LOG_ID: u128 = 0x5eed;

/// A CRC of 32 bits detects every change that lies within so many bytes. A longer one can carry
/// checksums of its own: another whole frame of the same log is valid in this one's place.
const BURST_BYTES_MAX: usize = 4;

fuzz_target!(init: seeds::hand_out(make_seeds), |data: &[u8]| {
    let Some((way, bytes)) = data.split_first() else {
        return;
    };
    match way % 3 {
        0 => {
            check(bytes);
        }
        1 => {
            check(&with_right_checksums(bytes));
        }
        _ => exchanged(bytes),
    }
});

/// Whatever is decoded is encoded to the same bytes, and all that follows a frame reads it.
fn check(bytes: &[u8]) -> bool {
    let salt = Salt::of(LOG_ID);
    let Ok(found) = frame::decode(bytes, salt) else {
        return false;
    };
    assert_eq!(FrameHead::decode(bytes, salt), Ok(found.head));
    let entry = Entry {
        term: found.head.term,
        index: found.head.index,
        header: found.head.header,
        body: bytes::Bytes::copy_from_slice(found.body),
    };
    let mut again = Vec::new();
    let crc = frame::encode(
        &entry,
        found.head.previous,
        found.head.durable,
        salt,
        &mut again,
    );
    assert_eq!(again, bytes[..found.head.frame_len()]);
    assert_eq!(crc, found.head.frame_crc);
    let carried = Entry::from_payload(entry.term, entry.index, &entry.payload().into());
    assert_eq!(carried.as_ref(), Ok(&entry));
    assert!(entry.header.end().0 >= entry.header.base_offset.0);
    read_body(&entry);
    true
}

fn read_body(entry: &Entry) {
    let Ok(raw) = raw_body(entry) else {
        return;
    };
    assert_eq!(raw.len(), entry.header.raw_len as usize);
    let (stored, packed) = compress(&raw, entry.header.compression).expect("it was compressed");
    let mut other = entry.clone();
    other.header.compression = stored;
    other.body = bytes::Bytes::copy_from_slice(&packed);
    assert_eq!(raw_body(&other).expect("it was just compressed"), raw);
    for transaction in Transactions::new(raw, entry.header.base_offset).flatten() {
        assert_eq!(
            transaction.records().filter(Result::is_ok).count(),
            transaction.record_count as usize
        );
    }
}

/// The bytes as a frame whose lengths and checksums are right, whatever else it says.
fn with_right_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    if out.len() < FRAME_HEADER_BYTES {
        return out;
    }
    let body_max = (out.len() - FRAME_HEADER_BYTES) as u32;
    let wanted = u32::from_le_bytes([out[8], out[9], out[10], out[11]]);
    let body_len = wanted.min(body_max);
    let body_end = FRAME_HEADER_BYTES + body_len as usize;
    let body_crc = crc32c::crc32c(&out[FRAME_HEADER_BYTES..body_end]);
    out.truncate(body_end);
    out.resize(frame_len(body_len as usize), 0);
    out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    out[8..12].copy_from_slice(&body_len.to_le_bytes());
    out[12..16].copy_from_slice(&body_crc.to_le_bytes());
    let frame_crc = crc32c::crc32c(&out[..68]);
    out[68..72].copy_from_slice(&frame_crc.to_le_bytes());
    let salt = crc32c::crc32c(&LOG_ID.to_le_bytes());
    let local_crc = crc32c::crc32c_append(salt, &out[68..80]);
    out[80..84].copy_from_slice(&local_crc.to_le_bytes());
    out
}

/// A whole frame in which the input replaces some bytes. An unchanged one passes; one that was
/// changed within a burst never does.
fn exchanged(input: &[u8]) {
    let [at_low, at_high, patch @ ..] = input else {
        return;
    };
    let mut whole = Vec::new();
    let entry = bodies::entry(9, 40, bodies::body(1, 3), 3, Compression::None);
    frame::encode(&entry, CHAIN_START, Index(7), Salt::of(LOG_ID), &mut whole);
    let mut bytes = whole.clone();
    let at = usize::from(u16::from_le_bytes([*at_low, *at_high])) % bytes.len();
    for (byte, new) in bytes[at..].iter_mut().zip(patch) {
        *byte = *new;
    }
    let passed = check(&bytes);
    let changed: Vec<usize> = (0..whole.len()).filter(|&i| bytes[i] != whole[i]).collect();
    match changed[..] {
        [] => assert!(passed),
        [first, .., last] if last - first >= BURST_BYTES_MAX => {}
        _ => assert!(!passed),
    }
}

fn make_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], vec![2, 0, 0, 1], vec![2, 8, 0, 0xff, 0xff]];
    for (number, wanted) in [Compression::None, Compression::Lz4, Compression::Zstd]
        .into_iter()
        .enumerate()
    {
        let body = bodies::body(1, 2 + number as u32);
        let entry = bodies::entry(3, 10, body, 2 + number as u32, wanted);
        for way in 0..2 {
            let mut seed = vec![way];
            frame::encode(&entry, 0x0102_0304, Index(1), Salt::of(LOG_ID), &mut seed);
            seeds.push(seed);
        }
        let mut in_its_place = vec![2, 0, 0];
        frame::encode(
            &entry,
            0x0102_0304,
            Index(1),
            Salt::of(LOG_ID),
            &mut in_its_place,
        );
        seeds.push(in_its_place);
    }
    seeds
}
