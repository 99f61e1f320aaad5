//! What nodes send to each other: the topics of messages and requests, and their bytes
//! (docs/peers.md). Numbers are little-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use onelog_log::Copied;
use onelog_record::{
    Entry, EntryHeader, Index, PAYLOAD_HEADER_BYTES, PayloadError, Position, Term,
};
use onelog_replica::{Contents, DIGESTS_MAX, DigestAt};
use onelog_state::{Digest, Head, Malformed};

/// What Raft sends, but for announced snapshots.
pub(crate) const RAFT: u16 = 1;

/// A transaction for the leader.
pub(crate) const COMMIT: u16 = 2;
/// At which position a read is linearizable.
pub(crate) const BARRIER: u16 = 3;
/// A change of the members, or of who leads.
pub(crate) const MEMBERS: u16 = 4;
/// A snapshot is to be fetched.
pub(crate) const SNAPSHOT: u16 = 5;
/// A piece of a snapshot.
pub(crate) const CHUNK: u16 = 6;
/// A snapshot was fetched, or will not be.
pub(crate) const FETCHED: u16 = 7;
/// What the programs that use the nodes have to say to each other.
pub(crate) const CALL: u16 = 8;
/// A node requests that it becomes a member.
pub(crate) const JOIN: u16 = 10;

/// An entry of the log that is damaged on the node which requests it.
pub(crate) const ENTRY: u16 = 9;

/// Whether a node with an empty folder is a new one.
pub(crate) const NEWCOMER: u16 = 11;

/// What a node has at the places of its last checkpoints. (12 was the same without the log.)
pub(crate) const DIGESTS: u16 = 14;

/// A client's request that this node is to carry out.
pub(crate) const REQUEST: u16 = 13;

/// Why a node does not follow.
pub(crate) const NOT_FOLLOWING: u16 = 15;
/// The bytes that such a reason has at most.
pub(crate) const REASON_BYTES_MAX: usize = 400;

/// Bytes of another node are not as nodes send them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("they end early")]
    Short,
    #[error(transparent)]
    Message(#[from] onelog_engine::MessageError),
    #[error(transparent)]
    Head(#[from] Malformed),
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error("reserved bits are not zero")]
    Reserved,
    #[error("they are more than {REASON_BYTES_MAX}")]
    Long,
    #[error(transparent)]
    Text(#[from] std::str::Utf8Error),
}

/// An announced snapshot: `number u64 | message_len u32 | message | head`.
#[derive(Debug)]
pub(crate) struct Announced {
    /// By which its pieces are requested.
    pub(crate) number: u64,
    pub(crate) message: onelog_engine::Message,
    pub(crate) head: Head,
}

pub(crate) fn announcement(number: u64, message: &onelog_engine::Message, head: &Head) -> Bytes {
    let (message, head) = (message.encode(), head.encode());
    let mut out = BytesMut::with_capacity(12 + message.len() + head.len());
    out.put_u64_le(number);
    out.put_u32_le(message.len() as u32);
    out.put_slice(&message);
    out.put_slice(&head);
    out.freeze()
}

impl Announced {
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, WireError> {
        if bytes.len() < 12 {
            return Err(WireError::Short);
        }
        let number = bytes.get_u64_le();
        let message_len = bytes.get_u32_le() as usize;
        if bytes.len() < message_len {
            return Err(WireError::Short);
        }
        let message = onelog_engine::Message::decode(bytes.split_to(message_len))?;
        let head = Head::decode(&bytes)?;
        Ok(Self {
            number,
            message,
            head,
        })
    }
}

/// `number u64 | rest`.
pub(crate) fn numbered(number: u64, rest: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + rest.len());
    out.put_u64_le(number);
    out.put_slice(rest);
    out.freeze()
}

pub(crate) fn split_numbered(mut bytes: Bytes) -> Result<(u64, Bytes), WireError> {
    if bytes.len() < 8 {
        return Err(WireError::Short);
    }
    let number = bytes.get_u64_le();
    Ok((number, bytes))
}

const DIGEST_BYTES: usize = 16;
/// Of one place: index, digest, checksum.
const CONTENTS_BYTES: usize = 8 + DIGEST_BYTES + 1 + 4;

/// [`DIGESTS`]: for each `index u64 | digest [16] | has_chain u8 | chain u32`.
pub(crate) fn digests(digests: &[DigestAt]) -> Bytes {
    let mut out = BytesMut::with_capacity(digests.len() * CONTENTS_BYTES);
    for at in digests {
        let Contents { digest, chain } = at.contents;
        out.put_u64_le(at.index.get());
        out.put_slice(&digest.to_bytes());
        out.put_u8(u8::from(chain.is_some()));
        out.put_u32_le(chain.unwrap_or_default());
    }
    out.freeze()
}

pub(crate) fn decode_digests(mut bytes: Bytes) -> Result<Vec<DigestAt>, WireError> {
    let mut digests = Vec::new();
    while !bytes.is_empty() && digests.len() < DIGESTS_MAX {
        if bytes.len() < CONTENTS_BYTES {
            return Err(WireError::Short);
        }
        let index = Index(bytes.get_u64_le());
        let mut digest = [0; DIGEST_BYTES];
        bytes.copy_to_slice(&mut digest);
        let has_chain = bytes.get_u8() != 0;
        let chain = bytes.get_u32_le();
        digests.push(DigestAt {
            index,
            contents: Contents {
                digest: Digest::from_bytes(&digest),
                chain: has_chain.then_some(chain),
            },
        });
    }
    Ok(digests)
}

/// The first part of a reason that is too long.
pub(crate) fn bounded_reason(why: &str) -> &str {
    let mut end = why.len().min(REASON_BYTES_MAX);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    &why[..end]
}

/// [`NOT_FOLLOWING`]: UTF-8, nothing where the node follows.
pub(crate) fn reason(why: &str) -> Bytes {
    Bytes::copy_from_slice(bounded_reason(why).as_bytes())
}

pub(crate) fn decode_reason(bytes: &[u8]) -> Result<String, WireError> {
    if bytes.len() > REASON_BYTES_MAX {
        return Err(WireError::Long);
    }
    Ok(std::str::from_utf8(bytes)?.to_owned())
}

const COPIED_HEAD_BYTES: usize = 24;

/// The answer to [`ENTRY`]: `checksum u32 | is_committed u8 | zero [3] | term u64 | index u64 |
/// payload header [32] | body`.
pub(crate) fn copied(copied: &Copied) -> Bytes {
    let Copied {
        entry,
        checksum,
        is_committed,
    } = copied;
    let len = COPIED_HEAD_BYTES + PAYLOAD_HEADER_BYTES + entry.body.len();
    let mut out = BytesMut::with_capacity(len);
    out.put_u32_le(*checksum);
    out.put_u8((*is_committed).into());
    out.put_bytes(0, 3);
    out.put_u64_le(entry.term.get());
    out.put_u64_le(entry.index.get());
    out.put_slice(&entry.header.encode());
    out.put_slice(&entry.body);
    out.freeze()
}

pub(crate) fn decode_copied(mut bytes: Bytes) -> Result<Copied, WireError> {
    if bytes.len() < COPIED_HEAD_BYTES + PAYLOAD_HEADER_BYTES {
        return Err(WireError::Short);
    }
    let checksum = bytes.get_u32_le();
    let flags = bytes.get_u32_le();
    if flags > 1 {
        return Err(WireError::Reserved);
    }
    let (term, index) = (Term(bytes.get_u64_le()), Index(bytes.get_u64_le()));
    let header = EntryHeader::decode(&bytes.split_to(PAYLOAD_HEADER_BYTES))?;
    Ok(Copied {
        entry: Entry {
            term,
            index,
            header,
            body: bytes,
        },
        checksum,
        is_committed: flags == 1,
    })
}

/// The answer to [`BARRIER`]: `position u64`, or nothing where the node does not lead.
pub(crate) fn barrier_answer(position: Option<Position>) -> Bytes {
    position.map_or_else(Bytes::new, |position| numbered(position.get(), &[]))
}

pub(crate) fn decode_barrier_answer(bytes: Bytes) -> Result<Option<Position>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (position, _) = split_numbered(bytes)?;
    Ok(Some(Position(position)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_travels_with_these_bytes() {
        let entry = Entry {
            term: Term(2),
            index: Index(3),
            header: EntryHeader::empty(onelog_record::EntryKind::NoOp, onelog_record::Offset(4)),
            body: Bytes::from_static(b"body"),
        };
        let sent = Copied {
            entry,
            checksum: 0x0102_0304,
            is_committed: true,
        };
        let bytes = copied(&sent);
        let head = b"\x04\x03\x02\x01\x01\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0";
        assert_eq!(&bytes[..24], head);
        assert_eq!(&bytes[24..56], sent.entry.header.encode());
        assert_eq!(&bytes[56..], b"body");
        assert_eq!(decode_copied(bytes.clone()).unwrap(), sent);
        assert!(decode_copied(bytes.slice(..55)).is_err());
        assert!(decode_copied(Bytes::from(vec![9; 60])).is_err());
    }

    #[test]
    fn digests_travel_with_these_bytes() {
        let sent = [(1, 7, Some(0x0102)), (2, 8, None)].map(|(index, byte, chain)| DigestAt {
            index: Index(index),
            contents: Contents {
                digest: Digest::from_bytes(&[byte; 16]),
                chain,
            },
        });
        let bytes = digests(&sent);
        assert_eq!(&bytes[..9], b"\x01\0\0\0\0\0\0\0\x07");
        assert_eq!(&bytes[24..29], b"\x01\x02\x01\0\0");
        assert_eq!(&bytes[53..], b"\0\0\0\0\0");
        assert_eq!(decode_digests(bytes.clone()).unwrap(), sent);
        assert!(decode_digests(bytes.slice(..57)).is_err());
    }

    #[test]
    fn a_reason_travels_with_these_bytes() {
        assert_eq!(NOT_FOLLOWING, 15);
        assert_eq!(&reason("no room: \u{e4}")[..], b"no room: \xc3\xa4");
        assert_eq!(&reason("")[..], b"");
        for why in ["", "no room: \u{e4}"] {
            assert_eq!(decode_reason(&reason(why)).unwrap(), why);
        }
        // A long one is cut between two characters.
        let long = format!("{}\u{e4}more", "a".repeat(399));
        let bytes = reason(&long);
        assert_eq!(&bytes[..], "a".repeat(399).as_bytes());
        assert!(matches!(decode_reason(&[b'a'; 401]), Err(WireError::Long)));
        assert!(matches!(decode_reason(b"\xff"), Err(WireError::Text(_))));
    }

    #[test]
    fn what_is_numbered_has_these_bytes() {
        let bytes = numbered(0x0102, b"rest");
        assert_eq!(&bytes[..], b"\x02\x01\0\0\0\0\0\0rest");
        let (number, rest) = split_numbered(bytes).unwrap();
        assert_eq!((number, &rest[..]), (0x0102, &b"rest"[..]));
        assert!(split_numbered(Bytes::from_static(b"1234567")).is_err());
        let answers = [None, Some(Position(7))];
        for answer in answers {
            assert_eq!(
                decode_barrier_answer(barrier_answer(answer)).unwrap(),
                answer
            );
        }
        assert!(Announced::decode(Bytes::from_static(b"12345678\xff\0\0\0")).is_err());
    }
}
