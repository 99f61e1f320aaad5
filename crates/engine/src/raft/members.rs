//! Who takes part in a cluster, and how that changes.

use std::collections::BTreeSet;

use bytes::Bytes;
use onelog_record::NodeId;
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};

/// The most nodes of a cluster, voters and learners together.
pub const MEMBERS_MAX: usize = 16;

/// The number of every read replica, which no member can have: it takes what is committed, and nobody
/// counts on it.
pub const READ_REPLICA: NodeId = NodeId(u64::MAX);

/// The bytes of one change in the log.
const CHANGE_BYTES: usize = 9;

/// Who votes, and who only follows.
///
/// While voters are exchanged there are two majorities to win, that of `voters` and that of
/// `outgoing` (joint consensus, chapter 4.3 of Ongaro's thesis).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    pub voters: BTreeSet<NodeId>,
    /// They get everything and decide nothing.
    pub learners: BTreeSet<NodeId>,
    /// The voters of before, while a change goes on.
    pub outgoing: BTreeSet<NodeId>,
    /// Outgoing voters that become learners when the change ends.
    pub demoted: BTreeSet<NodeId>,
    /// Whether the leader ends the change by itself.
    pub ends_by_itself: bool,
}

/// One change of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new voter, or a learner that becomes one.
    Voter(NodeId),
    /// A new learner, or a voter that becomes one.
    Learner(NodeId),
    Remove(NodeId),
}

/// A change of the members is not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    #[error("another change of the members is under way; try again when it has ended")]
    UnderWay,
    #[error("no voter would be left")]
    NoVoter,
    #[error("there would be {0} members, the limit is {MEMBERS_MAX}")]
    TooMany(usize),
    #[error("node {0} is no member")]
    NoMember(NodeId),
    #[error("the number {0} is that of read replicas, which are no members")]
    Reserved(NodeId),
    #[error("node {0} is named twice in one change")]
    Twice(NodeId),
    #[error("this changes nothing")]
    NoChange,
    #[error("this node does not lead the cluster now")]
    NotLeader,
}

impl Members {
    /// The members of a cluster that has no other node.
    #[must_use]
    pub fn alone(node: NodeId) -> Self {
        Self::of([node])
    }

    /// A cluster of these voters.
    #[must_use]
    pub fn of(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            voters: voters.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Every node that gets the log.
    #[must_use]
    pub fn all(&self) -> BTreeSet<NodeId> {
        let lists = [&self.voters, &self.learners, &self.outgoing, &self.demoted];
        lists.into_iter().flatten().copied().collect()
    }

    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Whether a change goes on.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// What the members are once `changes` are made, or why that cannot be.
    ///
    /// # Errors
    /// When it is no change, or one that the cluster would not survive.
    pub fn after(&self, changes: &[MemberChange]) -> Result<Self, MembersError> {
        if self.is_changing() {
            return Err(MembersError::UnderWay);
        }
        let mut after = self.clone();
        let mut named = BTreeSet::new();
        for change in changes {
            let node = change.node();
            if node == READ_REPLICA {
                return Err(MembersError::Reserved(node));
            }
            if !named.insert(node) {
                return Err(MembersError::Twice(node));
            }
            let was_voter = after.voters.remove(&node);
            let was_learner = after.learners.remove(&node);
            match change {
                MemberChange::Voter(_) => after.voters.insert(node),
                MemberChange::Learner(_) => after.learners.insert(node),
                MemberChange::Remove(_) if was_voter || was_learner => true,
                MemberChange::Remove(_) => return Err(MembersError::NoMember(node)),
            };
        }
        let members = after.voters.len() + after.learners.len();
        match () {
            () if after == *self => Err(MembersError::NoChange),
            () if after.voters.is_empty() => Err(MembersError::NoVoter),
            () if members > MEMBERS_MAX => Err(MembersError::TooMany(members)),
            () => Ok(after),
        }
    }

    pub(crate) fn from_raft(state: &ConfState) -> Self {
        let set = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect();
        Self {
            voters: set(&state.voters),
            learners: set(&state.learners),
            outgoing: set(&state.voters_outgoing),
            demoted: set(&state.learners_next),
            ends_by_itself: state.auto_leave,
        }
    }

    pub(crate) fn to_raft(&self) -> ConfState {
        let list = |nodes: &BTreeSet<NodeId>| nodes.iter().map(|node| node.get()).collect();
        ConfState {
            voters: list(&self.voters),
            learners: list(&self.learners),
            voters_outgoing: list(&self.outgoing),
            learners_next: list(&self.demoted),
            auto_leave: self.ends_by_itself,
            ..ConfState::default()
        }
    }
}

impl MemberChange {
    #[must_use]
    pub const fn node(self) -> NodeId {
        match self {
            Self::Voter(node) | Self::Learner(node) | Self::Remove(node) => node,
        }
    }
}

/// The changes as Raft proposes them.
pub(crate) fn proposal(changes: &[MemberChange]) -> ConfChangeV2 {
    let single = |change: &MemberChange| ConfChangeSingle {
        change_type: match change {
            MemberChange::Voter(_) => ConfChangeType::AddNode,
            MemberChange::Learner(_) => ConfChangeType::AddLearnerNode,
            MemberChange::Remove(_) => ConfChangeType::RemoveNode,
        },
        node_id: change.node().get(),
        ..ConfChangeSingle::default()
    };
    ConfChangeV2 {
        changes: changes.iter().map(single).collect::<Vec<_>>().into(),
        ..ConfChangeV2::default()
    }
}

/// The changes of a proposal that this file made.
fn changes_of(proposal: &ConfChangeV2) -> Vec<MemberChange> {
    let changes = proposal.changes.iter().map(|single| {
        let node = NodeId(single.node_id);
        match single.change_type {
            ConfChangeType::AddNode => MemberChange::Voter(node),
            ConfChangeType::AddLearnerNode => MemberChange::Learner(node),
            ConfChangeType::RemoveNode => MemberChange::Remove(node),
        }
    });
    changes.collect()
}

/// Bytes that are no change of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes are no change of the members")]
pub struct NoChangeError(usize);

/// The body of an entry of kind `Membership`, in the log and between nodes: for each change its kind
/// u8 (1 voter, 2 learner, 3 removed) and the node u64. None of them ends a joint configuration.
pub(super) fn encode_changes(changes: &[MemberChange]) -> Vec<u8> {
    let mut out = Vec::with_capacity(changes.len() * CHANGE_BYTES);
    for change in changes {
        out.push(match change {
            MemberChange::Voter(_) => 1,
            MemberChange::Learner(_) => 2,
            MemberChange::Remove(_) => 3,
        });
        out.extend_from_slice(&change.node().get().to_le_bytes());
    }
    out
}

pub(super) fn decode_changes(body: &[u8]) -> Result<Vec<MemberChange>, NoChangeError> {
    let error = NoChangeError(body.len());
    let (changes, []) = body.as_chunks::<CHANGE_BYTES>() else {
        return Err(error);
    };
    if changes.len() > 2 * MEMBERS_MAX {
        return Err(error);
    }
    let read = changes.iter().map(|[kind, node @ ..]| {
        let node = NodeId(u64::from_le_bytes(*node));
        match kind {
            1 => Ok(MemberChange::Voter(node)),
            2 => Ok(MemberChange::Learner(node)),
            3 => Ok(MemberChange::Remove(node)),
            _ => Err(error),
        }
    });
    read.collect()
}

/// The body as the library carries it: in its own encoding, which no other process writes or reads.
pub(super) fn to_library(body: &[u8]) -> Result<Bytes, NoChangeError> {
    let bytes = proposal(&decode_changes(body)?).write_to_bytes();
    bytes.map_or(Err(NoChangeError(body.len())), |bytes| Ok(bytes.into()))
}

/// What the library carries, as a body.
pub(super) fn from_library(data: &[u8]) -> Result<Bytes, NoChangeError> {
    let mut proposal = ConfChangeV2::default();
    let read = proposal.merge_from_bytes(data);
    read.map_err(|_| NoChangeError(data.len()))?;
    Ok(encode_changes(&changes_of(&proposal)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(numbers: &[u64]) -> BTreeSet<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn the_body_of_a_change_has_these_bytes() {
        let changes = [
            MemberChange::Voter(NodeId(2)),
            MemberChange::Learner(NodeId(3)),
            MemberChange::Remove(NodeId(300)),
        ];
        let body = encode_changes(&changes);
        let mut expected = vec![1, 2, 0, 0, 0, 0, 0, 0, 0];
        expected.extend_from_slice(&[2, 3, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[3, 44, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(body, expected);
        assert_eq!(decode_changes(&body).unwrap(), changes);
        let carried = to_library(&body).unwrap();
        assert_eq!(from_library(&carried).unwrap(), body);
    }

    #[test]
    fn the_end_of_a_change_has_no_bytes() {
        assert_eq!(decode_changes(&[]), Ok(Vec::new()));
        assert!(to_library(&[]).unwrap().is_empty());
        assert!(from_library(&[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_change_is_refused() {
        assert!(decode_changes(&[1, 0]).is_err());
        assert!(decode_changes(&[4, 1, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(decode_changes(&[1; 33 * CHANGE_BYTES]).is_err());
        assert!(from_library(&[0xff]).is_err());
    }

    #[test]
    fn a_change_that_the_cluster_would_not_survive_is_refused() {
        use MemberChange::{Learner, Remove, Voter};
        let members = Members {
            learners: nodes(&[4]),
            ..Members::of(nodes(&[1, 2, 3]))
        };
        for (changes, expected) in [
            (vec![Voter(NodeId(1))], MembersError::NoChange),
            (vec![], MembersError::NoChange),
            (
                vec![Learner(READ_REPLICA)],
                MembersError::Reserved(READ_REPLICA),
            ),
            (vec![Remove(NodeId(9))], MembersError::NoMember(NodeId(9))),
            (
                vec![Voter(NodeId(4)), Remove(NodeId(4))],
                MembersError::Twice(NodeId(4)),
            ),
            (
                vec![Remove(NodeId(1)), Learner(NodeId(2)), Remove(NodeId(3))],
                MembersError::NoVoter,
            ),
            (
                (5..18).map(|node| Learner(NodeId(node))).collect(),
                MembersError::TooMany(17),
            ),
        ] {
            assert_eq!(members.after(&changes), Err(expected), "{changes:?}");
        }
        let after = members.after(&[Voter(NodeId(4)), Remove(NodeId(1))]);
        assert_eq!(after.unwrap(), Members::of(nodes(&[2, 3, 4])));
        let changing = Members {
            outgoing: nodes(&[1]),
            ..members
        };
        let refused = changing.after(&[Remove(NodeId(1))]);
        assert_eq!(refused, Err(MembersError::UnderWay));
    }

    #[test]
    fn the_members_are_the_same_after_a_way_through_raft() {
        let members = Members {
            voters: nodes(&[3, 1]),
            learners: nodes(&[7]),
            outgoing: nodes(&[1, 2]),
            demoted: nodes(&[2]),
            ends_by_itself: true,
        };
        assert_eq!(Members::from_raft(&members.to_raft()), members);
        assert_eq!(members.all(), nodes(&[1, 2, 3, 7]));
    }
}
