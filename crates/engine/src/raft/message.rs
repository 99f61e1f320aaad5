//! What nodes of a cluster send to each other so that they agree, and its bytes.
//!
//! ```text
//!   0 kind u8 | 1 flags u8 | 2 zero u16 | 4 entries u32
//!   8 to u64 | 16 from u64 | 24 term u64 | 32 log_term u64 | 40 index u64 | 48 commit u64
//!  56 commit_term u64 | 64 reject_hint u64 | 72 request_snapshot u64 | 80 priority i64
//!  88 context_len u32 | 92 snapshot_len u32 | 96 context | snapshot | entries
//!
//!  entry:     0 kind u8 | 1 zero u8 × 3 | 4 data_len u32 | 8 term u64 | 16 index u64 | 24 data
//!  snapshot:  0 index u64 | 8 term u64 | 16 end u64 | 24 ends_by_itself u8 | 25 voters | learners |
//!             outgoing | demoted, each: 0 count u8 | 1 nodes u64 × count
//! ```
//!
//! The data of an entry is its payload; of a change of the members (kind 2) it is the entry's body.
//! Flags: bit 0 a refusal, bit 1 a snapshot follows. Numbers are little-endian. The kinds are those
//! of Raft's library and never change.

use std::collections::BTreeSet;

use ::raft::eraftpb::{self, EntryType, MessageType, Snapshot, SnapshotMetadata};
use bytes::Bytes;
use onelog_record::{
    BODY_BYTES_MAX, ByteReader, Index, LengthError, NodeId, PAYLOAD_HEADER_BYTES, Position, Term,
};

use super::members::{self, MEMBERS_MAX, Members, NoChangeError};

const HEAD_BYTES: usize = 96;
const ENTRY_HEAD_BYTES: usize = 24;
const REFUSED: u8 = 1;
const WITH_SNAPSHOT: u8 = 2;
/// A context is the token of a read, or the name of a kind of election.
const CONTEXT_BYTES_MAX: usize = 64;
/// The most entries of one message.
const ENTRIES_MAX: usize = 1 << 16;
/// The most bytes of one message: one entry always fits, several up to the target of a batch.
pub const MESSAGE_BYTES_MAX: usize = HEAD_BYTES
    + CONTEXT_BYTES_MAX
    + ENTRY_HEAD_BYTES
    + PAYLOAD_HEADER_BYTES
    + BODY_BYTES_MAX
    + 2 * super::BATCH_BYTES as usize;

/// A message from one node to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Message(pub(super) eraftpb::Message);

/// A snapshot: where it ends, and who took part there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMark {
    pub index: Index,
    pub term: Term,
    /// The position behind its last entry.
    pub end: Position,
    pub members: Members,
}

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("the message: {0}")]
    Length(#[from] LengthError),
    #[error("a message of kind {0} does not travel between nodes")]
    Kind(u8),
    #[error("an entry of unknown kind {0}")]
    EntryKind(u8),
    #[error("reserved bits are not zero")]
    Reserved,
    #[error("{what} has {is}, the limit is {max}")]
    TooLarge {
        what: &'static str,
        is: usize,
        max: usize,
    },
    #[error("its entries are not numbered without a gap")]
    Gap,
    #[error(transparent)]
    Change(#[from] NoChangeError),
}

impl Message {
    #[must_use]
    pub const fn to(&self) -> NodeId {
        NodeId(self.0.to)
    }

    #[must_use]
    pub const fn from(&self) -> NodeId {
        NodeId(self.0.from)
    }

    #[must_use]
    pub const fn term(&self) -> Term {
        Term(self.0.term)
    }

    /// The snapshot that the receiver must have before the message is given to it.
    #[must_use]
    pub fn snapshot(&self) -> Option<SnapshotMark> {
        let is_snapshot = self.0.msg_type == MessageType::MsgSnapshot;
        is_snapshot.then(|| SnapshotMark::from_raft(self.0.get_snapshot()))
    }

    /// Whether it may be dropped without harm to a lead: it will be sent again by itself.
    #[must_use]
    pub fn is_heartbeat(&self) -> bool {
        matches!(
            self.0.msg_type,
            MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse
        )
    }

    /// Whether it brings entries. It may be dropped: its sender notices, and sends them again.
    #[must_use]
    pub fn has_entries(&self) -> bool {
        !self.0.entries.is_empty()
    }

    /// About how many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        let entries = self.0.entries.iter();
        HEAD_BYTES
            + entries
                .map(|e| ENTRY_HEAD_BYTES + e.data.len())
                .sum::<usize>()
    }

    /// The message as it travels.
    #[expect(
        clippy::expect_used,
        reason = "`decode` and `propose_members` make the data of changes, and nothing else"
    )]
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let message = &self.0;
        let snapshot = self.snapshot().map(|mark| mark.encode());
        let mut flags = 0;
        if message.reject {
            flags |= REFUSED;
        }
        if snapshot.is_some() {
            flags |= WITH_SNAPSHOT;
        }
        let snapshot = snapshot.unwrap_or_default();
        let mut out = Vec::with_capacity(self.size() + snapshot.len() + message.context.len());
        out.extend_from_slice(&[message.msg_type as u8, flags, 0, 0]);
        out.extend_from_slice(&(message.entries.len() as u32).to_le_bytes());
        for number in [
            message.to,
            message.from,
            message.term,
            message.log_term,
            message.index,
            message.commit,
            message.commit_term,
            message.reject_hint,
            message.request_snapshot,
            message.priority.cast_unsigned(),
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&(message.context.len() as u32).to_le_bytes());
        out.extend_from_slice(&(snapshot.len() as u32).to_le_bytes());
        out.extend_from_slice(&message.context);
        out.extend_from_slice(&snapshot);
        for entry in message.entries.iter() {
            let data = match entry.entry_type {
                EntryType::EntryNormal => entry.data.clone(),
                _ => members::from_library(&entry.data).expect("this process has made it"),
            };
            out.extend_from_slice(&[entry.entry_type as u8, 0, 0, 0]);
            out.extend_from_slice(&(data.len() as u32).to_le_bytes());
            out.extend_from_slice(&entry.term.to_le_bytes());
            out.extend_from_slice(&entry.index.to_le_bytes());
            out.extend_from_slice(&data);
        }
        out
    }

    /// Reads a message. Its entries share the memory of `bytes`.
    ///
    /// # Errors
    /// When they are no message that a node may send.
    pub fn decode(bytes: Bytes) -> Result<Self, MessageError> {
        let mut reader = ByteReader::new(bytes);
        let kind = reader.u8()?;
        let msg_type = kind_of(kind).ok_or(MessageError::Kind(kind))?;
        let flags = reader.u8()?;
        if flags & !(REFUSED | WITH_SNAPSHOT) != 0 || reader.u8()? != 0 || reader.u8()? != 0 {
            return Err(MessageError::Reserved);
        }
        let entries = read_count(&mut reader, "the list of entries", ENTRIES_MAX)?;
        let mut message = eraftpb::Message {
            msg_type,
            to: reader.u64()?,
            from: reader.u64()?,
            term: reader.u64()?,
            log_term: reader.u64()?,
            index: reader.u64()?,
            commit: reader.u64()?,
            commit_term: reader.u64()?,
            reject_hint: reader.u64()?,
            request_snapshot: reader.u64()?,
            priority: reader.u64()?.cast_signed(),
            reject: flags & REFUSED != 0,
            ..eraftpb::Message::default()
        };
        let context_len = read_count(&mut reader, "the context", CONTEXT_BYTES_MAX)?;
        let snapshot_len = read_count(&mut reader, "the snapshot", SnapshotMark::BYTES_MAX)?;
        message.context = reader.take(context_len)?;
        let snapshot = reader.take(snapshot_len)?;
        let has_snapshot = flags & WITH_SNAPSHOT != 0;
        if has_snapshot != (msg_type == MessageType::MsgSnapshot)
            || has_snapshot == snapshot.is_empty()
        {
            return Err(MessageError::Reserved);
        }
        if has_snapshot {
            message.set_snapshot(SnapshotMark::decode(snapshot)?.to_raft());
        }
        let mut list = Vec::new();
        for _ in 0..entries {
            list.push(read_entry(&mut reader)?);
        }
        if list
            .windows(2)
            .any(|pair| pair[0].index.checked_add(1) != Some(pair[1].index))
        {
            return Err(MessageError::Gap);
        }
        message.entries = list.into();
        reader.end()?;
        Ok(Self(message))
    }
}

/// The kinds that nodes send to each other. A proposal is never handed on: the one that leads has not
/// validated it.
fn kind_of(number: u8) -> Option<MessageType> {
    use MessageType as Kind;
    let kinds = [
        Kind::MsgAppend,
        Kind::MsgAppendResponse,
        Kind::MsgRequestVote,
        Kind::MsgRequestVoteResponse,
        Kind::MsgSnapshot,
        Kind::MsgHeartbeat,
        Kind::MsgHeartbeatResponse,
        Kind::MsgTimeoutNow,
        Kind::MsgRequestPreVote,
        Kind::MsgRequestPreVoteResponse,
    ];
    kinds.into_iter().find(|kind| *kind as u8 == number)
}

impl SnapshotMark {
    const BYTES_MAX: usize = 25 + 4 * (1 + 8 * MEMBERS_MAX);

    pub(super) fn from_raft(snapshot: &Snapshot) -> Self {
        let metadata = snapshot.get_metadata();
        // `to_raft` puts them there, and nothing else makes snapshots.
        let end = snapshot.data.first_chunk().copied().unwrap_or_default();
        Self {
            index: Index(metadata.index),
            term: Term(metadata.term),
            end: Position(u64::from_le_bytes(end)),
            members: Members::from_raft(metadata.get_conf_state()),
        }
    }

    pub(super) fn to_raft(&self) -> Snapshot {
        let mut metadata = SnapshotMetadata {
            index: self.index.get(),
            term: self.term.get(),
            ..SnapshotMetadata::default()
        };
        metadata.set_conf_state(self.members.to_raft());
        let mut snapshot = Snapshot::default();
        snapshot.set_metadata(metadata);
        snapshot.data = Bytes::copy_from_slice(&self.end.get().to_le_bytes());
        snapshot
    }

    /// Its bytes, as in a message and beside a checkpoint.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.index.get().to_le_bytes());
        out.extend_from_slice(&self.term.get().to_le_bytes());
        out.extend_from_slice(&self.end.get().to_le_bytes());
        out.extend_from_slice(&self.members.encode());
        out
    }

    /// Reads it.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(bytes: Bytes) -> Result<Self, MessageError> {
        let mut reader = ByteReader::new(bytes);
        let (index, term) = (Index(reader.u64()?), Term(reader.u64()?));
        let end = Position(reader.u64()?);
        let members = read_members(&mut reader)?;
        reader.end()?;
        Ok(Self {
            index,
            term,
            end,
            members,
        })
    }
}

impl Members {
    /// Its bytes, as at the end of a snapshot's mark and beside a checkpoint.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.ends_by_itself)];
        for nodes in [&self.voters, &self.learners, &self.outgoing, &self.demoted] {
            // `MEMBERS_MAX` bounds each list.
            out.push(nodes.len() as u8);
            for node in nodes {
                out.extend_from_slice(&node.get().to_le_bytes());
            }
        }
        out
    }

    /// Reads them.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(bytes: Bytes) -> Result<Self, MessageError> {
        let mut reader = ByteReader::new(bytes);
        let members = read_members(&mut reader)?;
        reader.end()?;
        Ok(members)
    }
}

const fn too_large(what: &'static str, is: usize, max: usize) -> MessageError {
    MessageError::TooLarge { what, is, max }
}

fn read_count(
    reader: &mut ByteReader,
    what: &'static str,
    max: usize,
) -> Result<usize, MessageError> {
    let is = reader.u32()? as usize;
    if is > max {
        return Err(too_large(what, is, max));
    }
    Ok(is)
}

fn read_members(reader: &mut ByteReader) -> Result<Members, MessageError> {
    let ends_by_itself = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(MessageError::Reserved),
    };
    let mut nodes = || -> Result<BTreeSet<NodeId>, MessageError> {
        let count = usize::from(reader.u8()?);
        if count > MEMBERS_MAX {
            return Err(too_large("a list of members", count, MEMBERS_MAX));
        }
        (0..count).map(|_| Ok(NodeId(reader.u64()?))).collect()
    };
    Ok(Members {
        voters: nodes()?,
        learners: nodes()?,
        outgoing: nodes()?,
        demoted: nodes()?,
        ends_by_itself,
    })
}

fn read_entry(reader: &mut ByteReader) -> Result<eraftpb::Entry, MessageError> {
    let entry_type = match reader.u8()? {
        0 => EntryType::EntryNormal,
        2 => EntryType::EntryConfChangeV2,
        other => return Err(MessageError::EntryKind(other)),
    };
    if reader.array()? != [0; 3] {
        return Err(MessageError::Reserved);
    }
    let len = read_count(reader, "an entry", PAYLOAD_HEADER_BYTES + BODY_BYTES_MAX)?;
    let (term, index) = (reader.u64()?, reader.u64()?);
    let data = reader.take(len)?;
    Ok(eraftpb::Entry {
        entry_type,
        term,
        index,
        data: match entry_type {
            EntryType::EntryNormal => data,
            _ => members::to_library(&data)?,
        },
        ..eraftpb::Entry::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append() -> Message {
        let entry = |index, data: &'static [u8]| eraftpb::Entry {
            term: 6,
            index,
            data: Bytes::from_static(data),
            ..eraftpb::Entry::default()
        };
        Message(eraftpb::Message {
            msg_type: MessageType::MsgAppend,
            to: 2,
            from: 1,
            term: 7,
            log_term: 5,
            index: 9,
            commit: 8,
            priority: -1,
            context: Bytes::from_static(b"c"),
            entries: vec![entry(10, b""), entry(11, b"data")].into(),
            ..eraftpb::Message::default()
        })
    }

    fn snapshot() -> Message {
        let members = Members {
            learners: [NodeId(9)].into(),
            ..Members::of([NodeId(1), NodeId(2)])
        };
        let mark = SnapshotMark {
            index: Index(40),
            term: Term(3),
            end: Position(99),
            members,
        };
        let mut message = eraftpb::Message {
            msg_type: MessageType::MsgSnapshot,
            to: 9,
            from: 1,
            reject: true,
            ..eraftpb::Message::default()
        };
        message.set_snapshot(mark.to_raft());
        Message(message)
    }

    #[test]
    fn a_message_has_these_bytes() {
        let mut expected = vec![3, 0, 0, 0, 2, 0, 0, 0];
        for number in [2, 1, 7, 5, 9, 8, 0, 0, 0, u64::MAX] {
            expected.extend_from_slice(&u64::to_le_bytes(number));
        }
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, b'c']);
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 10]);
        expected.extend_from_slice(&[0; 7]);
        expected.extend_from_slice(&[0, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 11]);
        expected.extend_from_slice(&[0; 7]);
        expected.extend_from_slice(b"data");
        assert_eq!(append().encode(), expected);
        assert_eq!(Message::decode(expected.into()), Ok(append()));
    }

    #[test]
    fn a_snapshot_has_these_bytes() {
        let mut expected = vec![40, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        expected.extend_from_slice(&[99, 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let message = snapshot();
        let mark = message.snapshot().unwrap();
        assert_eq!(mark.encode(), expected);
        let members = expected.split_off(24);
        assert_eq!(Members::decode(members.into()), Ok(mark.members.clone()));
        assert_eq!(SnapshotMark::decode(mark.encode().into()), Ok(mark));
        assert_eq!(Message::decode(message.encode().into()), Ok(message));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let changed = |at: usize, byte: u8| {
            let mut bytes = append().encode();
            bytes[at] = byte;
            Message::decode(bytes.into()).unwrap_err()
        };
        assert_eq!(changed(0, 2), MessageError::Kind(2), "a proposal");
        assert_eq!(changed(0, 99), MessageError::Kind(99));
        assert_eq!(changed(1, 4), MessageError::Reserved);
        assert_eq!(changed(1, 2), MessageError::Reserved, "no snapshot follows");
        assert_eq!(changed(2, 1), MessageError::Reserved);
        let expected = too_large("the list of entries", 0x0100_0002, ENTRIES_MAX);
        assert_eq!(changed(7, 1), expected);
        assert_eq!(changed(97, 1), MessageError::EntryKind(1));
        assert_eq!(changed(113, 11), MessageError::Gap);
        let bytes = append().encode();
        for len in 0..bytes.len() {
            let cut = Message::decode(Bytes::copy_from_slice(&bytes[..len]));
            assert!(
                matches!(cut, Err(MessageError::Length(LengthError::Short(_)))),
                "{len}: {cut:?}"
            );
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(
            Message::decode(longer.into()),
            Err(LengthError::Long(1).into())
        );
    }
}
