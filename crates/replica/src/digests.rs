//! Whether all replicas have the same log and the same state: they compare the checksums of the log's
//! chain and the digests of checkpoints.
//!
//! Replicas apply the same entries, so at the same place their states are the same, unless a fault of
//! the program, of memory or of a disk has made one differ. No error says so. Records of streams leave
//! no rows in the state: for them the log itself is compared. A digest belongs to a checkpoint, and
//! those come at different places; so each replica makes one right behind every entry whose index is a
//! multiple of a power of two, where none is under way. Each then says to the others which digests it
//! has.
//!
//! Where most of the voters have one digest, a replica with another one stops. Where no majority says
//! which is right, as of two voters, both are named and go on.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use onelog_engine::Members;
use onelog_record::{Entry, EntryKind, Index, NodeId};
use onelog_state::{Digest, StateDigest};

use crate::failure::Failure;
use crate::observer::Observer;
use crate::replica::Replica;

/// How many digests of each replica are remembered.
pub const DIGESTS_MAX: usize = 8;
/// About so many bytes of a memtable there are for each entry, or more.
const ENTRY_BYTES: usize = 128;
const EVERY_MIN: u64 = 32;
const EVERY_MAX: u64 = 1 << 15;

/// What a replica has behind an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestAt {
    pub index: Index,
    pub contents: Contents,
}

/// The state and the log of a replica at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Of all rows of the state.
    pub digest: Digest,
    /// Of the last frame, which vouches for the log up to there; `None` where this log begins later.
    pub chain: Option<u32>,
}

impl Contents {
    fn differs_from(self, other: Self) -> bool {
        let is_another_log = matches!((self.chain, other.chain), (Some(a), Some(b)) if a != b);
        self.digest != other.digest || is_another_log
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.chain {
            Some(chain) => write!(f, "rows {}, log {chain:08x}", self.digest),
            None => write!(f, "rows {}", self.digest),
        }
    }
}

/// The digests that are known.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    own: VecDeque<DigestAt>,
    others: BTreeMap<NodeId, Vec<DigestAt>>,
    /// The last place at which a difference was reported that nobody can judge.
    reported: Index,
}

/// What a difference between digests means for this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Most voters have another digest than this replica.
    Mine {
        index: Index,
        own: Contents,
        others: Contents,
    },
    /// Which of the two is right is not known.
    Unclear {
        index: Index,
        own: Contents,
        other: NodeId,
        others: Contents,
    },
}

/// How often a digest is made: the multiples of a larger power are among those of a smaller one, so
/// replicas with other options meet as well.
fn every(memtable_bytes: usize) -> u64 {
    let entries = (memtable_bytes / ENTRY_BYTES) as u64;
    entries.next_power_of_two().clamp(EVERY_MIN, EVERY_MAX)
}

impl Digests {
    fn judge(&self, me: NodeId, members: &Members) -> Option<Verdict> {
        self.own
            .iter()
            .rev()
            .find_map(|own| self.judge_at(me, members, *own))
    }

    fn judge_at(&self, me: NodeId, members: &Members, at: DigestAt) -> Option<Verdict> {
        let DigestAt {
            index,
            contents: own,
        } = at;
        let voters = &members.voters;
        let known = self.others.iter().filter(|(node, _)| voters.contains(node));
        let there: Vec<(NodeId, Contents)> = known
            .filter_map(|(node, digests)| {
                let found = digests.iter().find(|at| at.index == index)?;
                Some((*node, found.contents))
            })
            .collect();
        let (other, others) = *there.iter().find(|(_, of)| of.differs_from(own))?;
        let having = |contents: Contents| {
            let alike = there.iter().filter(|(_, of)| !of.differs_from(contents));
            alike.count()
        };
        let with_me = having(own) + usize::from(voters.contains(&me));
        let majority = voters.len() / 2;
        let wins = there
            .iter()
            .find(|(_, of)| of.differs_from(own) && having(*of) > majority);
        match wins {
            Some((_, others)) => Some(Verdict::Mine {
                index,
                own,
                others: *others,
            }),
            // The other one stops, or hears of it from the others.
            None if with_me > majority => None,
            None => Some(Verdict::Unclear {
                index,
                own,
                other,
                others,
            }),
        }
    }
}

impl<T, O: Observer> Replica<T, O> {
    /// Whether a checkpoint may begin right behind this entry.
    pub(crate) fn may_freeze_behind(&self, entry: &Entry) -> bool {
        // A change of the members is in force only with the effect behind this one.
        let every = every(self.options.memtable_bytes);
        entry.index.get().is_multiple_of(every) && entry.header.kind != EntryKind::Membership
    }

    /// An entry is applied: at some places a checkpoint begins right here.
    pub(crate) fn freeze_for_digest(&mut self, entry: &Entry) {
        let is_place = self.may_freeze_behind(entry);
        let checkpoints = &self.checkpoints;
        let is_busy = checkpoints.is_running
            || checkpoints.unfinished.is_some()
            || checkpoints.frozen.is_some();
        if is_place && self.cluster.has_peers() && !is_busy && !self.has_install_waiting() {
            self.checkpoints.frozen = self.freeze();
        }
    }

    /// A checkpoint has ended.
    pub(crate) fn note_digest(&mut self, found: StateDigest, chain: Option<u32>) {
        let own = &mut self.digests.own;
        while own.len() >= DIGESTS_MAX {
            own.pop_front();
        }
        own.push_back(DigestAt {
            index: found.applied.index,
            contents: Contents {
                digest: found.digest,
                chain,
            },
        });
        let known: Vec<DigestAt> = own.iter().copied().collect();
        self.observer.digests_known(&known);
    }

    /// Another replica has these digests.
    pub(crate) fn digests_came(
        &mut self,
        from: NodeId,
        mut digests: Vec<DigestAt>,
    ) -> Result<(), Failure> {
        if from == self.cluster.node || !self.cluster.members.all().contains(&from) {
            return Ok(());
        }
        digests.truncate(DIGESTS_MAX);
        self.digests.others.insert(from, digests);
        self.compare_digests()
    }

    pub(crate) fn compare_digests(&mut self) -> Result<(), Failure> {
        let me = self.cluster.node;
        match self.digests.judge(me, &self.cluster.members) {
            Some(Verdict::Mine { index, own, others }) => Err(Failure::StateDiverged {
                node: me,
                index,
                own,
                others,
            }),
            Some(Verdict::Unclear {
                index,
                own,
                other,
                others,
            }) => {
                if index > self.digests.reported {
                    self.digests.reported = index;
                    tracing::error!(
                        %index, node = %me, has = %own, %other, other_has = %others,
                        "what two nodes hold differs, and no majority says which is right: compare both with a store or a backup, and remove the node that is wrong"
                    );
                }
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(byte: u8) -> Contents {
        Contents {
            digest: Digest::from_bytes(&[byte; 16]),
            chain: None,
        }
    }

    fn log(checksum: u32) -> Contents {
        Contents {
            chain: Some(checksum),
            ..rows(7)
        }
    }

    /// What node 1 says where each node has the rows of this number at one place.
    fn judged(voters: &[u64], numbers: &[(u64, u8)]) -> Option<Verdict> {
        let contents: Vec<_> = numbers.iter().map(|(node, n)| (*node, rows(*n))).collect();
        judged_by(voters, &contents)
    }

    fn judged_by(voters: &[u64], contents: &[(u64, Contents)]) -> Option<Verdict> {
        let mut known = Digests::default();
        for (node, contents) in contents {
            let at = DigestAt {
                index: Index(64),
                contents: *contents,
            };
            match *node {
                1 => known.own.push_back(at),
                node => drop(known.others.insert(NodeId(node), vec![at])),
            }
        }
        known.judge(NodeId(1), &Members::of(voters.iter().copied().map(NodeId)))
    }

    #[test]
    fn the_one_that_differs_from_a_majority_stops_and_no_other_one() {
        let is_mine = |verdict| matches!(verdict, Some(Verdict::Mine { .. }));
        let is_unclear = |verdict| matches!(verdict, Some(Verdict::Unclear { .. }));
        let three = [1, 2, 3];
        assert_eq!(judged(&three, &[(1, 7), (2, 7), (3, 7)]), None);
        assert!(is_mine(judged(&three, &[(1, 8), (2, 7), (3, 7)])));
        assert_eq!(judged(&three, &[(1, 7), (2, 7), (3, 8)]), None);
        // Nothing is known of the third one yet.
        assert!(is_unclear(judged(&three, &[(1, 7), (3, 8)])));
        assert!(is_unclear(judged(&three, &[(1, 7), (2, 8), (3, 9)])));
        // Two cannot know.
        assert!(is_unclear(judged(&[1, 2], &[(1, 7), (2, 8)])));
        // A learner that differs stops, and one that is learner elsewhere decides nothing.
        assert!(is_mine(judged(&[2, 3], &[(1, 8), (2, 7), (3, 7)])));
        assert_eq!(judged(&[1, 2], &[(1, 7), (2, 7), (3, 8)]), None);
        assert_eq!(judged(&[1, 2], &[(1, 7), (3, 8)]), None);
    }

    #[test]
    fn a_log_that_differs_counts_though_the_rows_are_the_same() {
        let three = [1, 2, 3];
        let differs = judged_by(&three, &[(1, log(8)), (2, log(7)), (3, log(7))]);
        assert!(matches!(differs, Some(Verdict::Mine { .. })), "{differs:?}");
        let of_two = judged_by(&[1, 2], &[(1, log(8)), (2, log(7))]);
        assert!(
            matches!(of_two, Some(Verdict::Unclear { .. })),
            "{of_two:?}"
        );
        let same = [(1, log(7)), (2, log(7)), (3, log(8))];
        assert_eq!(judged_by(&three, &same), None);
        // One whose log begins later compares its rows.
        let later = [(1, rows(7)), (2, log(7)), (3, log(7))];
        assert_eq!(judged_by(&three, &later), None);
    }

    #[test]
    fn replicas_with_other_memtables_meet_at_the_same_places() {
        assert_eq!(every(1), EVERY_MIN);
        assert_eq!(every(usize::MAX / 2), EVERY_MAX);
        assert_eq!(every(3 << 20) % every(1 << 20), 0);
    }
}
