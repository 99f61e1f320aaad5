//! Which protocol a group uses: one that all members offer, by most votes.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits::{MEMBER_METADATA_BYTES_MAX, PROTOCOL_OVERHEAD_BYTES, PROTOCOLS_MAX, is_name};

/// A way to assign that a member knows, with what the leader needs to know of the member for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    pub name: String,
    #[serde(with = "crate::row::in_base64")]
    pub metadata: Bytes,
}

pub(crate) fn bytes(protocols: &[Protocol]) -> usize {
    let each = protocols.iter();
    each.map(|one| PROTOCOL_OVERHEAD_BYTES + one.name.len() + one.metadata.len())
        .sum()
}

pub(crate) fn within_limits(protocols: &[Protocol]) -> bool {
    protocols.len() <= PROTOCOLS_MAX
        && protocols.iter().all(|one| is_name(&one.name))
        && bytes(protocols) <= MEMBER_METADATA_BYTES_MAX
}

/// The first names in the order of each member that all members offer.
fn candidates<'a>(members: &[&'a [Protocol]]) -> Vec<&'a str> {
    let Some((first, others)) = members.split_first() else {
        return Vec::new();
    };
    let in_all = |name: &str| others.iter().all(|other| offers(other, name));
    let names = first.iter().map(|one| one.name.as_str());
    names.filter(|name| in_all(name)).collect()
}

pub(crate) fn offers(protocols: &[Protocol], name: &str) -> bool {
    protocols.iter().any(|one| one.name == name)
}

/// Whether members that offer these have one in common.
pub(crate) fn agree(members: &[&[Protocol]]) -> bool {
    members.is_empty() || !candidates(members).is_empty()
}

/// The protocol with most votes: a member votes for the first of its own that all offer. Of two with
/// the same number it is the first by name, so that the same members choose the same.
pub(crate) fn select(members: &[&[Protocol]]) -> Option<String> {
    let candidates = candidates(members);
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for member in members {
        let mut names = member.iter().map(|one| one.name.as_str());
        if let Some(vote) = names.find(|name| candidates.contains(name)) {
            *votes.entry(vote).or_default() += 1;
        }
    }
    let most = votes.values().max().copied()?;
    let mut winners = votes.iter().filter(|(_, count)| **count == most);
    winners.next().map(|(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offering(names: &[&str]) -> Vec<Protocol> {
        let each = names.iter();
        each.map(|name| Protocol {
            name: (*name).to_owned(),
            metadata: Bytes::new(),
        })
        .collect()
    }

    #[test]
    fn the_protocol_that_all_offer_and_most_prefer_is_selected() {
        let (a, b, c) = (
            offering(&["sticky", "range", "robin"]),
            offering(&["robin", "range"]),
            offering(&["range", "robin"]),
        );
        assert_eq!(select(&[&a, &b, &c]).as_deref(), Some("range"));
        assert_eq!(select(&[&a]).as_deref(), Some("sticky"));
        assert_eq!(
            select(&[&b, &c]).as_deref(),
            Some("range"),
            "a tie goes by name"
        );
    }

    #[test]
    fn members_without_a_common_protocol_do_not_agree() {
        let (a, b) = (offering(&["sticky"]), offering(&["range"]));
        assert!(!agree(&[&a, &b]));
        assert!(agree(&[&a]));
        assert!(agree(&[]));
        assert_eq!(select(&[&a, &b]), None);
    }
}
