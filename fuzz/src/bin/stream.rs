//! The log on its way to a read replica: arbitrary bytes in arbitrary pieces, and items with right
//! checksums.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onelog_fuzz::{bodies, seeds};
use onelog_log::Place;
use onelog_log::frame::{MAGIC, SHARED_HEADER_BYTES};
use onelog_log::stream::{
    Decoder, Item, PULSE_BYTES, Pulse, START_BYTES, StreamError, encode_entry, encode_pulse,
    encode_start,
};
use onelog_record::{Compression, Index, Position, Term};

const LOG_ID: u128 = 0x5eed;
const BEHIND: Place = Place {
    index: Index(2),
    term: Term(1),
    end: Position(10),
    checksum: 0x0102_0304,
};

fuzz_target!(init: seeds::hand_out(make_seeds), |data: &[u8]| {
    let [way, piece, bytes @ ..] = data else {
        return;
    };
    let piece = usize::from(*piece).max(1);
    match way % 2 {
        0 => check(bytes, piece),
        _ => check(&with_right_checksums(bytes), piece),
    }
});

/// What is found does not depend on how the bytes come, and has the same bytes again.
fn check(bytes: &[u8], piece: usize) {
    let (found, error) = decode(bytes, piece);
    let at_once = decode(bytes, bytes.len().max(1));
    assert_eq!((&found, &error), (&at_once.0, &at_once.1));
    if found.is_empty() {
        return;
    }
    let mut again = encode_start(LOG_ID, BEHIND.index).to_vec();
    let (mut checksum, mut index) = (BEHIND.checksum, BEHIND.index);
    for item in &found {
        match item {
            Item::Entry(entry) => {
                index = index.next();
                assert_eq!(entry.index, index);
                checksum = encode_entry(entry, checksum, &mut again);
            }
            Item::Pulse(pulse) => again.extend_from_slice(&encode_pulse(*pulse)),
        }
    }
    assert!(bytes.starts_with(&again));
}

fn decode(bytes: &[u8], piece: usize) -> (Vec<Item>, Option<StreamError>) {
    let mut decoder = Decoder::new(LOG_ID, BEHIND);
    let mut found = Vec::new();
    for mut piece in bytes.chunks(piece) {
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(item)) => found.push(item),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

/// The bytes as items whose lengths, places and checksums are right, whatever else they say.
fn with_right_checksums(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = encode_start(LOG_ID, BEHIND.index).to_vec();
    bytes = bytes.get(START_BYTES..).unwrap_or_default();
    let (mut checksum, mut index) = (BEHIND.checksum, BEHIND.index);
    while bytes.len() >= SHARED_HEADER_BYTES {
        if bytes[0] == b'O' && bytes[3] == b'P' {
            let word = |at: usize| {
                let mut word = [0; 8];
                word.copy_from_slice(&bytes[at..at + 8]);
                u64::from_le_bytes(word)
            };
            out.extend_from_slice(&encode_pulse(Pulse {
                age_ms: 0,
                applied: Index(word(8)),
                position: Position(word(16)),
            }));
            bytes = &bytes[PULSE_BYTES..];
            continue;
        }
        let (head, rest) = bytes.split_at(SHARED_HEADER_BYTES);
        let mut head = head.to_vec();
        let wanted = usize::from(u16::from_le_bytes([head[8], head[9]]));
        let (body, rest) = rest.split_at(wanted.min(rest.len()));
        index = index.next();
        head[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        head[4..8].copy_from_slice(&[1, 0, 0, 0]);
        head[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
        head[12..16].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        head[24..32].copy_from_slice(&index.get().to_le_bytes());
        head[64..68].copy_from_slice(&checksum.to_le_bytes());
        checksum = crc32c::crc32c(&head[..68]);
        head[68..72].copy_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(body);
        bytes = rest;
    }
    out
}

fn make_seeds() -> Vec<Vec<u8>> {
    let mut whole = encode_start(LOG_ID, BEHIND.index).to_vec();
    let first = bodies::entry(3, 10, bodies::body(1, 3), 3, Compression::None);
    let checksum = encode_entry(&first, BEHIND.checksum, &mut whole);
    whole.extend_from_slice(&encode_pulse(Pulse {
        age_ms: 0,
        applied: Index(9),
        position: first.header.end(),
    }));
    let second = bodies::entry(
        4,
        first.header.end().get(),
        bodies::body(2, 1),
        1,
        Compression::None,
    );
    encode_entry(&second, checksum, &mut whole);
    vec![
        [&[0, 7], &whole[..]].concat(),
        [&[1, 200], &whole[..]].concat(),
        [&[0, 1], &whole[..START_BYTES]].concat(),
    ]
}
