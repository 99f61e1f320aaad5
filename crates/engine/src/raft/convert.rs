//! Entries as onelog has them, and as the library has them.

use ::raft::eraftpb::{Entry as RaftEntry, EntryType};
use bytes::Bytes;
use onelog_record::{Entry, EntryHeader, EntryKind, Index, Position, Term};

use super::members::{self, NoChangeError};
use crate::consensus::ConsensusError;

pub(super) fn to_raft(entry: &Entry) -> Result<RaftEntry, ConsensusError> {
    let mut raft_entry = RaftEntry {
        term: entry.term.get(),
        index: entry.index.get(),
        ..RaftEntry::default()
    };
    match entry.header.kind {
        EntryKind::Transactions => raft_entry.data = Bytes::from(entry.payload()),
        EntryKind::NoOp => {}
        EntryKind::Membership => {
            raft_entry.entry_type = EntryType::EntryConfChangeV2;
            let data = members::to_library(&entry.body);
            raft_entry.data = data.map_err(|cause| no_change(entry.index, cause))?;
        }
    }
    Ok(raft_entry)
}

pub(super) fn no_change(index: Index, cause: NoChangeError) -> ConsensusError {
    ConsensusError::Members {
        index,
        cause: Box::new(cause),
    }
}

/// Raft's own first entry of a term carries nothing; it is written as a no-op at its place in the
/// offsets, which is the same on every replica. So is a change of the members. Moves `end` behind the
/// last entry.
pub(super) fn from_raft(
    entries: &[RaftEntry],
    end: &mut Position,
) -> Result<Vec<Entry>, ConsensusError> {
    let mut out = Vec::with_capacity(entries.len());
    for raft_entry in entries {
        let (term, index) = (Term(raft_entry.term), Index(raft_entry.index));
        let without_records = |kind, body: Bytes| Entry {
            term,
            index,
            header: EntryHeader {
                raw_len: body.len() as u32,
                ..EntryHeader::empty(kind, end.next_offset())
            },
            body,
        };
        let entry = if raft_entry.entry_type != EntryType::EntryNormal {
            let body = members::from_library(&raft_entry.data);
            without_records(
                EntryKind::Membership,
                body.map_err(|cause| no_change(index, cause))?,
            )
        } else if raft_entry.data.is_empty() {
            without_records(EntryKind::NoOp, Bytes::new())
        } else {
            Entry::from_payload(term, index, &raft_entry.data)
                .map_err(|cause| ConsensusError::Payload { index, cause })?
        };
        assert_eq!(
            entry.header.base_offset,
            end.next_offset(),
            "entries are numbered without a gap"
        );
        *end = entry.header.end();
        out.push(entry);
    }
    Ok(out)
}
