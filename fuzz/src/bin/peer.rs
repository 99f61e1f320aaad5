//! Connections between nodes: arbitrary bytes in arbitrary pieces, and frames with right checksums.
#![no_main]

use bytes::BufMut as _;
use libfuzzer_sys::fuzz_target;
use onelog_fuzz::seeds;
use onelog_peers::Lane;
use onelog_peers::frame::{Decoder, FRAME_HEAD_BYTES, Frame, FrameError, FrameKind};
use onelog_peers::greeting::{Greeting, NO_LOG, Refusal, VERSIONS};
use onelog_peers::limits::GREETING_BYTES_MAX;
use onelog_record::NodeId;

fuzz_target!(init: seeds::hand_out(make_seeds), |data: &[u8]| {
    let [way, piece, bytes @ ..] = data else {
        return;
    };
    let piece = usize::from(*piece).max(1);
    match way % 2 {
        0 => frames(bytes, piece),
        _ => frames(&with_right_checksums(bytes), piece),
    }
});

/// What is found does not depend on how the bytes come, and has the same bytes again.
fn frames(bytes: &[u8], piece: usize) {
    let (found, error) = decode(bytes, piece);
    let at_once = decode(bytes, bytes.len().max(1));
    assert_eq!((&found, error), (&at_once.0, at_once.1));
    let again: Vec<u8> = found.iter().flat_map(Frame::encode).collect();
    assert!(bytes.starts_with(&again));
    for frame in found {
        assert!(frame.body.len() <= GREETING_BYTES_MAX);
        match frame.kind {
            FrameKind::Greeting => greeting(&frame.body),
            FrameKind::Refusal => {
                let text = Refusal::of_frame(&frame).to_string();
                assert!(!text.chars().any(char::is_control));
            }
            _ => {}
        }
    }
}

fn decode(bytes: &[u8], piece: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::new(GREETING_BYTES_MAX);
    let mut found = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.space().put_slice(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

fn greeting(body: &[u8]) {
    let Ok(found) = Greeting::decode(body) else {
        return;
    };
    let again = found.to_frame().body;
    assert_eq!(Greeting::decode(&again).as_ref(), Ok(&found));
    if let Err(refusal) = found.check(&ours(found.from)) {
        assert!(refusal.to_frame().body.len() <= GREETING_BYTES_MAX);
        return;
    }
    assert!(found.from != NodeId(1) && found.to == NodeId(1));
    assert!(found.log_id == NO_LOG || found.log_id == 0xa);
}

fn ours(to: NodeId) -> Greeting {
    Greeting {
        versions: VERSIONS,
        log_id: 0xa,
        from: NodeId(1),
        to,
        process: 7,
        lane: Lane::Control,
        address: "localhost:1".to_owned(),
    }
}

/// The bytes as frames whose versions, lengths and checksums are right, whatever else they say.
fn with_right_checksums(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>() {
        let mut head = *head;
        let wanted = usize::from(u16::from_le_bytes([head[4], head[5]]));
        let (body, rest) = rest.split_at(wanted.min(rest.len()).min(GREETING_BYTES_MAX));
        head[0] = 1;
        head[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..16]), body);
        head[16..].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(body);
        bytes = rest;
    }
    out
}

fn make_seeds() -> Vec<Vec<u8>> {
    let mut theirs = ours(NodeId(1));
    theirs.from = NodeId(2);
    let request = Frame {
        body: vec![1, 2, 3].into(),
        ..Frame::bare(FrameKind::Request, 5, 6)
    };
    let frames = [
        theirs.to_frame(),
        Refusal::NotAdmitted(NodeId(2)).to_frame(),
        request,
        Frame::bare(FrameKind::Ping, 0, 9),
    ];
    let all: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
    let mut seeds = Vec::new();
    for way in 0..2 {
        seeds.push([&[way, 7], &all[..]].concat());
        for frame in &frames {
            seeds.push([&[way, 200], &frame.encode()[..]].concat());
        }
    }
    seeds
}
