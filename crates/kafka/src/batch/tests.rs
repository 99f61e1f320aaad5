//! Batches as bytes.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::read::Limits;
use super::*;

const UNPACKED_MAX: usize = 1 << 20;
const SMALL: Limits = Limits {
    bytes: UNPACKED_MAX,
    ..LIMITS
};
const ALL: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

fn record(offset_delta: i32, key: &'static str, value: Option<&'static str>) -> BatchRecord {
    BatchRecord {
        timestamp_delta: 0,
        offset_delta,
        key: Some(Bytes::from_static(key.as_bytes())),
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
        headers: Vec::new(),
    }
}

fn batch(compression: Compression, records: Vec<BatchRecord>) -> Batch {
    Batch {
        base_offset: 5,
        leader_epoch: 3,
        compression,
        has_log_time: true,
        is_transactional: false,
        is_control: false,
        last_offset_delta: 2,
        base_timestamp: 1_000,
        max_timestamp: 1_000,
        producer_id: NONE,
        producer_epoch: -1,
        base_sequence: -1,
        records,
    }
}

fn bytes_of(batch: &Batch) -> Bytes {
    let mut out = BytesMut::new();
    write(batch, &mut out).unwrap();
    out.freeze()
}

#[test]
fn a_batch_is_these_bytes() {
    let header = |value| BatchHeader {
        name: Bytes::from_static(b"h"),
        value,
    };
    let mut first = record(0, "k", Some("v"));
    first.headers = vec![header(Some(Bytes::from_static(b"1"))), header(None)];
    let batch = batch(Compression::None, vec![first, record(2, "", None)]);

    let bytes = bytes_of(&batch);

    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = [
        "0000000000000005000000480000000302b8dc496200080000000200000000000003e80000000000",
        "0003e8ffffffffffffffffffffffffffff000000021e000000026b027604026802310268010c0000",
        "04000100",
    ];
    assert_eq!(hex, expected.concat());
    assert_eq!(read(&bytes, SMALL), Ok(batch));
}

#[test]
fn what_is_written_is_read_with_each_compression_and_equal_names_of_headers_are_kept() {
    for compression in ALL {
        let batch = batch(
            compression,
            vec![record(0, "k", Some("v")), record(2, "l", None)],
        );
        assert_eq!(read(&bytes_of(&batch), SMALL), Ok(batch));
    }
}

#[test]
fn a_batch_that_grows_beyond_the_bound_is_refused_with_each_compression() {
    let large = BatchRecord {
        value: Some(vec![b'x'; 2 * UNPACKED_MAX].into()),
        ..record(0, "k", None)
    };
    for compression in ALL {
        let bytes = bytes_of(&batch(compression, vec![large.clone()]));
        let refused = BatchError::TooLarge { max: UNPACKED_MAX };
        assert_eq!(read(&bytes, SMALL), Err(refused), "{compression:?}");
    }
}

#[test]
fn snappy_is_read_without_the_frame_of_javas_library_too() {
    let raw = b"some text, some text, some text";
    let packed = snap::raw::Encoder::new().compress_vec(raw).unwrap();
    let unpacked = Compression::Snappy.unpack(&packed, UNPACKED_MAX).unwrap();
    assert_eq!(unpacked, raw);
}

#[test]
fn a_changed_byte_is_found() {
    let bytes = bytes_of(&batch(Compression::None, vec![record(0, "k", Some("v"))]));
    for at in CHECKED_FROM..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        let read = read(&changed.into(), SMALL);
        assert!(
            matches!(read, Err(BatchError::Checksum { .. })),
            "byte {at}"
        );
    }
}

#[test]
fn only_one_batch_of_format_2_is_taken() {
    let bytes = bytes_of(&batch(Compression::None, vec![record(0, "k", Some("v"))]));
    let twice: Bytes = [&bytes[..], &bytes[..]].concat().into();
    assert_eq!(read(&twice, SMALL), Err(BatchError::Trailing));
    let shorter = bytes.slice(..bytes.len() - 1);
    assert_eq!(read(&shorter, SMALL), Err(BatchError::Short));
    let mut old = bytes.to_vec();
    old[16] = 1;
    assert_eq!(read(&old.into(), SMALL), Err(BatchError::Magic(1)));
}

/// Sets the checksum of changed bytes right, so that reading goes on behind it.
fn mend(bytes: &mut [u8]) {
    if bytes.len() > HEADER_BYTES {
        let length = (bytes.len() - LENGTH_END) as u32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        let checksum = crc32c::crc32c(&bytes[CHECKED_FROM..]);
        bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    }
}

proptest! {
    #[test]
    fn changed_bytes_never_end_in_a_panic(
        compression in 0_usize..5,
        changes in proptest::collection::vec((21_usize..200, any::<u8>()), 1..8),
    ) {
        let records = vec![record(0, "key", Some("value")), record(1, "k", None)];
        let mut bytes = bytes_of(&batch(ALL[compression], records)).to_vec();
        for (at, byte) in changes {
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
        }
        mend(&mut bytes);
        let _ = read(&bytes.into(), SMALL);
    }
}
