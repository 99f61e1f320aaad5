//! The bytes between nodes, as docs/peers.md draws them.

use bytes::{BufMut as _, Bytes};
use onelog_peers::Lane;
use onelog_peers::frame::{Decoder, Frame, FrameError, FrameKind};
use onelog_peers::greeting::{Greeting, GreetingError, Refusal, Versions};
use onelog_record::NodeId;

const BODY_MAX: usize = 200_000;

fn decode(pieces: &[&[u8]]) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = Decoder::new(BODY_MAX);
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.space().put_slice(piece);
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn request() -> Frame {
    Frame {
        kind: FrameKind::Request,
        topic: 0x0102,
        id: 7,
        body: Bytes::from_static(b"body"),
    }
}

fn greeting() -> Greeting {
    Greeting {
        versions: Versions {
            oldest: 1,
            newest: 1,
        },
        log_id: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
        from: NodeId(2),
        to: NodeId(1),
        process: 9,
        lane: Lane::Bulk,
        address: "h:1".to_owned(),
    }
}

#[test]
fn a_frame_has_these_bytes() {
    let mut expected = vec![1, 4, 2, 1, 4, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
    let crc = crc32c::crc32c(&[&expected[..], b"body"].concat());
    expected.extend_from_slice(&crc.to_le_bytes());
    expected.extend_from_slice(b"body");
    assert_eq!(crc, 0x1b8c_a518, "the polynomial is that of CRC-32C");
    assert_eq!(request().encode(), expected);
    assert_eq!(decode(&[&expected]), Ok(vec![request()]));
}

#[test]
fn each_kind_has_its_number_and_there_is_no_other() {
    let kinds = [
        (1, FrameKind::Greeting),
        (2, FrameKind::Refusal),
        (3, FrameKind::Message),
        (4, FrameKind::Request),
        (5, FrameKind::Answer),
        (6, FrameKind::Failure),
        (7, FrameKind::Ping),
        (8, FrameKind::Pong),
    ];
    for (number, kind) in kinds {
        assert_eq!(Frame::bare(kind, 0, 0).encode()[1], number);
    }
    for number in (0..=u8::MAX).filter(|number| !(1..=8).contains(number)) {
        let mut bytes = request().encode();
        bytes[1] = number;
        assert_eq!(decode(&[&bytes]), Err(FrameError::Kind(number)));
    }
}

#[test]
fn frames_are_found_however_their_bytes_come() {
    let large = Frame {
        body: vec![5; 150_000].into(),
        ..request()
    };
    let frames = [
        request(),
        large,
        Frame::bare(FrameKind::Ping, 0, 1),
        request(),
    ];
    let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
    for piece in [1, 7, 20, 64 << 10, bytes.len()] {
        let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
        assert_eq!(decode(&pieces).as_deref(), Ok(&frames[..]), "{piece}");
    }
}

#[test]
fn no_damage_passes() {
    let bytes = request().encode();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let found = decode(&[&damaged]);
            let waits_for_more = found == Ok(vec![]) && (4..8).contains(&at);
            assert!(found.is_err() || waits_for_more, "byte {at}: {found:?}");
        }
    }
}

#[test]
fn a_length_that_is_too_large_is_refused_before_its_bytes_come() {
    let mut head = request().head();
    head[4..8].copy_from_slice(&(BODY_MAX as u32 + 1).to_le_bytes());
    let expected = FrameError::TooLarge {
        is: BODY_MAX + 1,
        max: BODY_MAX,
    };
    assert_eq!(decode(&[&head]), Err(expected));
}

#[test]
fn zeros_tls_and_other_versions_are_named() {
    let starts = |byte| decode(&[&[byte]]);
    assert_eq!(starts(0), Err(FrameError::Version(0)));
    assert_eq!(starts(2), Err(FrameError::Version(2)));
    assert_eq!(starts(21), Err(FrameError::Tls));
    assert_eq!(starts(22), Err(FrameError::Tls));
}

#[test]
fn a_greeting_has_these_bytes() {
    let mut expected = b"OLPR\x01\x00\x01\x00".to_vec();
    expected.extend_from_slice(&[
        0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
        0x00,
    ]);
    for number in [2_u64, 1, 9] {
        expected.extend_from_slice(&number.to_le_bytes());
    }
    expected.extend_from_slice(b"\x02\x00\x03\x00h:1");
    let frame = greeting().to_frame();
    assert_eq!(
        (frame.kind, frame.topic, frame.id),
        (FrameKind::Greeting, 0, 0)
    );
    assert_eq!(frame.body, expected);
    assert_eq!(Greeting::decode(&expected), Ok(greeting()));
    expected.extend_from_slice(b"of a later version");
    assert_eq!(Greeting::decode(&expected), Ok(greeting()));
}

#[test]
fn what_is_no_greeting_is_named() {
    let bytes = greeting().to_frame().body.to_vec();
    let changed = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        Greeting::decode(&bytes)
    };
    assert_eq!(changed(0, b'X'), Err(GreetingError::Magic));
    assert_eq!(changed(24, 0), Err(GreetingError::NodeZero));
    assert_eq!(changed(32, 0), Err(GreetingError::NodeZero));
    assert_eq!(changed(48, 3), Err(GreetingError::Lane(3)));
    assert_eq!(changed(50, 4), Err(GreetingError::Short));
    assert_eq!(changed(52, b'\n'), Err(GreetingError::Address));
    assert_eq!(changed(52, 0xff), Err(GreetingError::Address));
    for len in 4..bytes.len() {
        assert_eq!(Greeting::decode(&bytes[..len]), Err(GreetingError::Short));
    }
}

#[test]
fn a_refusal_travels_as_code_and_text() {
    let refusal = Refusal::NotAdmitted(NodeId(4));
    let frame = refusal.to_frame();
    assert_eq!((frame.kind, frame.topic), (FrameKind::Refusal, 6));
    assert_eq!(frame.body, "node 4 is no member here");
    let there = Refusal::of_frame(&frame);
    assert_eq!(there.to_string(), refusal.to_string());
    assert_eq!(there.code(), 6);
}

#[test]
fn the_text_of_a_refusal_is_short_and_cannot_write_into_the_log_what_it_likes() {
    let frame = Frame {
        topic: 99,
        body: format!("a\nb\u{1b}[31m{}", "ü".repeat(4000)).into(),
        ..Frame::bare(FrameKind::Refusal, 0, 0)
    };
    let text = Refusal::of_frame(&frame).to_string();
    assert!(text.starts_with(r"a\nb\u{1b}[31mü"), "{text}");
    assert!(text.len() < 300, "{text}");
}
