//! The highest offset of each table of a memtable, and of each block of neighbouring keys in it.
//!
//! "Was anything in this range written since?" is asked at the commit point, mostly about a wide
//! range and a short while ago. Walking the range costs as much as it is wide. A table, or a block,
//! whose highest offset lies below is decided without a look at its versions.
//!
//! A block is split when it holds too many versions, at a key: the versions of one key are never
//! apart. So only a block with one hot key grows beyond that, and there the newest version comes
//! first. One thread adds, after the version itself is in the memtable; readers wait for a block to
//! be split.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use foldhash::fast::RandomState;
use onelog_record::{Offset, TableId};

use crate::key::VersionKey;

/// A block with more versions than this is split. A split walks the block, which is cheap while its
/// versions are in the processor's cache: with 1024 insertions took longer.
const BLOCK_VERSIONS_MAX: usize = 256;

type Versions = SkipMap<VersionKey, Option<Bytes>>;

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) highest: Offset,
    versions: usize,
    split_at: usize,
}

/// One table: its blocks by their first place. The first one begins before every key.
#[derive(Debug)]
pub(crate) struct TableBlocks {
    pub(crate) highest: Offset,
    blocks: BTreeMap<VersionKey, Block>,
}

#[derive(Debug, Default)]
pub(crate) struct Blocks {
    tables: HashMap<TableId, TableBlocks, RandomState>,
}

impl Block {
    const fn new(highest: Offset, versions: usize) -> Self {
        Self {
            highest,
            versions,
            split_at: BLOCK_VERSIONS_MAX,
        }
    }

    fn add(&mut self, offset: Offset) {
        self.highest = self.highest.max(offset);
        self.versions += 1;
    }
}

impl Blocks {
    pub(crate) fn table(&self, table: TableId) -> Option<&TableBlocks> {
        self.tables.get(&table)
    }

    /// Adds a version that is in `versions` already.
    pub(crate) fn add(&mut self, key: &VersionKey, versions: &Versions) {
        let offset = key.offset();
        let table = self.tables.entry(key.table()).or_insert_with(|| {
            let first = VersionKey::before(key.table(), b"");
            TableBlocks {
                highest: offset,
                blocks: BTreeMap::from([(first, Block::new(offset, 0))]),
            }
        });
        table.highest = table.highest.max(offset);
        let Some((start, block)) = table.blocks.range_mut(..=key).next_back() else {
            return;
        };
        block.add(offset);
        if block.versions > block.split_at {
            let start = start.clone();
            table.split(&start, versions);
        }
    }
}

impl TableBlocks {
    /// The blocks from the one that holds `start` on, each with its first place.
    pub(crate) fn from(&self, start: &VersionKey) -> impl Iterator<Item = (&VersionKey, &Block)> {
        let first = self.blocks.range(..=start).next_back();
        let rest = self
            .blocks
            .range((Bound::Excluded(start), Bound::Unbounded));
        first.into_iter().chain(rest)
    }

    /// Splits the block at the first key behind its middle; where there is none, it is tried again
    /// when the block has grown to twice its size.
    fn split(&mut self, start: &VersionKey, versions: &Versions) {
        let next = (Bound::Excluded(start), Bound::Unbounded);
        let end = self.blocks.range(next).next().map(|(end, _)| end.clone());
        let end = end.or_else(|| VersionKey::end_of(start.table()));
        let Some(block) = self.blocks.get_mut(start) else {
            return;
        };
        let middle = block.versions / 2;
        let (mut lower, mut upper) = (Block::new(Offset::ZERO, 0), Block::new(Offset::ZERO, 0));
        let mut boundary: Option<VersionKey> = None;
        let mut last: Option<VersionKey> = None;
        let mut at = versions.lower_bound(Bound::Included(start));
        while let Some(entry) = at {
            let key = entry.key();
            if end.as_ref().is_some_and(|end| key >= end) {
                break;
            }
            let is_next_key = last.as_ref().is_some_and(|last| !key.is_same_key(last));
            if boundary.is_none() && lower.versions >= middle && is_next_key {
                boundary = Some(key.at(Offset(u64::MAX)));
            }
            match boundary {
                None => lower.add(key.offset()),
                Some(_) => upper.add(key.offset()),
            }
            last = Some(key.clone());
            at = entry.next();
        }
        match boundary {
            None => block.split_at = block.versions * 2,
            Some(boundary) => {
                *block = lower;
                self.blocks.insert(boundary, upper);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(5);

    #[derive(Default)]
    struct Both(Blocks, Versions);

    impl Both {
        fn add(&mut self, key: &str, offset: u64) {
            let key = VersionKey::of_record(TABLE, &Bytes::from(key.to_owned()), Offset(offset));
            self.1.insert(key.clone(), None);
            self.0.add(&key, &self.1);
        }

        fn all(&self) -> Vec<(&VersionKey, &Block)> {
            let start = VersionKey::before(TABLE, b"");
            self.0.table(TABLE).unwrap().from(&start).collect()
        }
    }

    #[test]
    fn each_block_knows_the_highest_offset_of_its_own_versions() {
        let mut both = Both::default();
        // In an order that is not that of the keys.
        for n in 0..10_000_u64 {
            both.add(&format!("key {:05}", n * 7_919 % 10_000), n);
        }
        let blocks = both.all();
        assert!(blocks.len() > 10_000 / BLOCK_VERSIONS_MAX);
        let ends = blocks.iter().skip(1).map(|(start, _)| Some(*start));
        for ((start, block), end) in blocks.iter().zip(ends.chain([None])) {
            let inside = both.1.range((*start).clone()..);
            let inside = inside.take_while(|entry| end.is_none_or(|end| entry.key() < end));
            let offsets: Vec<_> = inside.map(|entry| entry.key().offset()).collect();
            assert_eq!(offsets.iter().max(), Some(&block.highest));
            assert_eq!(offsets.len(), block.versions);
            assert!(block.versions <= BLOCK_VERSIONS_MAX);
        }
    }

    #[test]
    fn the_versions_of_one_key_stay_together() {
        let mut both = Both::default();
        both.add("a", 0);
        both.add("c", 1);
        for n in 2..5_000 {
            both.add("b", n);
        }
        both.add("a", 5_000);
        let starts: Vec<_> = both.all().iter().map(|(start, _)| start.key()).collect();
        assert!(starts.len() <= 3, "{starts:?}");
        assert!(
            starts[1..]
                .iter()
                .all(|start| *start != "b" || starts[0].is_empty())
        );
        let total: usize = both.all().iter().map(|(_, block)| block.versions).sum();
        assert_eq!(total, 5_001);
    }
}
