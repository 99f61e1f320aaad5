//! The highest offset of each table of a memtable, and of each block of neighbouring keys in it.
//!
//! "Was anything in this range written since?" is asked at the commit point, mostly about a wide
//! range and a short while ago. Walking the range costs as much as it is wide. A table, or a block,
//! whose highest offset lies below is decided without a look at its versions.
//!
//! Most tables are never asked about a range. So a table is one block until it is; from then on, and
//! in every later memtable, its blocks are split when they hold too many versions. A split is bounded:
//! what it leaves stays one block, whose highest offset may be too high, never too low.
//!
//! A block is split between two keys: the versions of one key are never apart. So only a block with
//! one hot key grows, and there the newest version comes first. One thread adds, after the version
//! itself is in the memtable.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use foldhash::fast::RandomState;
use onelog_record::{Offset, TableId};
use parking_lot::Mutex;

use crate::key::VersionKey;

/// A block with more versions than this is split into halves of it. A split walks the block, which
/// is cheap while its versions are in the processor's cache: with 1024 insertions took longer.
const BLOCK_VERSIONS_MAX: usize = 256;

const HALF: usize = BLOCK_VERSIONS_MAX / 2;

/// How many versions a split looks at: all of a memtable of the default size. The rest of a larger
/// one waits for the next question.
const SPLIT_VERSIONS_MAX: usize = if cfg!(test) { 1 << 12 } else { 1 << 19 };

type Versions = SkipMap<VersionKey, Option<Bytes>>;

/// The tables of which a range was asked. Shared by the memtables of a state; as many as there are
/// tables at most.
#[derive(Debug, Default)]
pub(crate) struct RangedTables(Mutex<HashSet<TableId, RandomState>>);

#[derive(Debug)]
pub(crate) struct Block {
    /// No version in the block has a higher one.
    pub(crate) highest: Offset,
    versions: usize,
    split_at: usize,
}

/// One table: its blocks by their first place. The first one begins before every key.
#[derive(Debug)]
pub(crate) struct TableBlocks {
    pub(crate) highest: Offset,
    versions: usize,
    /// `None` until a range of the table is asked.
    blocks: Option<BTreeMap<VersionKey, Block>>,
}

#[derive(Debug)]
pub(crate) struct Blocks {
    ranged: Arc<RangedTables>,
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

    const fn is_large(&self) -> bool {
        self.versions > self.split_at
    }
}

impl Blocks {
    pub(crate) fn new(ranged: Arc<RangedTables>) -> Self {
        Self {
            ranged,
            tables: HashMap::default(),
        }
    }

    pub(crate) fn table(&self, table: TableId) -> Option<&TableBlocks> {
        self.tables.get(&table)
    }

    /// Adds a version that is in `versions` already.
    pub(crate) fn add(&mut self, key: &VersionKey, versions: &Versions) {
        let (id, offset) = (key.table(), key.offset());
        let ranged = &self.ranged;
        let table = self.tables.entry(id).or_insert_with(|| TableBlocks {
            highest: offset,
            versions: 0,
            blocks: ranged
                .0
                .lock()
                .contains(&id)
                .then(|| one_block(id, offset, 0)),
        });
        table.add(key, versions);
    }

    /// Makes blocks of a table of which a range is asked, as far as one split gets.
    pub(crate) fn split_table(&mut self, id: TableId, versions: &Versions) {
        self.ranged.0.lock().insert(id);
        let Some(table) = self.tables.get_mut(&id) else {
            return;
        };
        let blocks = table
            .blocks
            .get_or_insert_with(|| one_block(id, table.highest, table.versions));
        let last = blocks.last_key_value();
        if let Some(start) = last.and_then(|(start, block)| block.is_large().then(|| start.clone()))
        {
            split(blocks, &start, versions);
        }
    }
}

impl TableBlocks {
    fn add(&mut self, key: &VersionKey, versions: &Versions) {
        self.highest = self.highest.max(key.offset());
        self.versions += 1;
        let Some(blocks) = &mut self.blocks else {
            return;
        };
        let Some((start, block)) = blocks.range_mut(..=key).next_back() else {
            return;
        };
        block.add(key.offset());
        if block.is_large() {
            let start = start.clone();
            split(blocks, &start, versions);
        }
    }

    /// Whether `split_table` would leave it as it is.
    pub(crate) fn is_split(&self) -> bool {
        let last = self.blocks.as_ref().and_then(BTreeMap::last_key_value);
        last.is_some_and(|(_, block)| !block.is_large())
    }

    /// The blocks from the one that holds `start` on, each with its first place; none where the table
    /// was not split.
    pub(crate) fn from(&self, start: &VersionKey) -> impl Iterator<Item = (&VersionKey, &Block)> {
        self.blocks.iter().flat_map(move |blocks| {
            let first = blocks.range(..=start).next_back();
            let rest = blocks.range((Bound::Excluded(start), Bound::Unbounded));
            first.into_iter().chain(rest)
        })
    }
}

fn one_block(table: TableId, highest: Offset, versions: usize) -> BTreeMap<VersionKey, Block> {
    let first = VersionKey::before(table, b"");
    BTreeMap::from([(first, Block::new(highest, versions))])
}

/// Splits the block that begins at `start` into halves of `BLOCK_VERSIONS_MAX`, from its first
/// version on. Where there is no place to split, it is tried again when the block has grown to twice
/// its size.
fn split(blocks: &mut BTreeMap<VersionKey, Block>, start: &VersionKey, versions: &Versions) {
    let next = (Bound::Excluded(start), Bound::Unbounded);
    let end = blocks.range(next).next().map(|(end, _)| end.clone());
    let end = end.or_else(|| VersionKey::end_of(start.table()));
    let Some(whole) = blocks.remove(start) else {
        return;
    };
    let mut piece = (start.clone(), Block::new(Offset::ZERO, 0));
    let mut walked = 0;
    let mut last: Option<VersionKey> = None;
    let mut at = versions.lower_bound(Bound::Included(start));
    while let Some(entry) = at {
        let key = entry.key();
        if end.as_ref().is_some_and(|end| key >= end) {
            break;
        }
        let is_next_key = last.as_ref().is_some_and(|last| !key.is_same_key(last));
        let are_halves = piece.1.versions >= HALF && whole.versions.saturating_sub(walked) >= HALF;
        if is_next_key && are_halves {
            let next = (key.at(Offset(u64::MAX)), Block::new(Offset::ZERO, 0));
            let (place, block) = std::mem::replace(&mut piece, next);
            blocks.insert(place, block);
            if walked >= SPLIT_VERSIONS_MAX {
                // The rest was not looked at.
                piece.1 = Block::new(whole.highest, whole.versions.saturating_sub(walked));
                break;
            }
        }
        piece.1.add(key.offset());
        walked += 1;
        last = Some(key.clone());
        at = entry.next();
    }
    let (place, mut block) = piece;
    if place == *start {
        block.split_at = block.versions * 2;
    }
    blocks.insert(place, block);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(5);

    struct Both(Blocks, Versions);

    impl Both {
        fn new(ranged: &Arc<RangedTables>) -> Self {
            Self(Blocks::new(ranged.clone()), Versions::new())
        }

        /// Of which a range was asked before.
        fn ranged() -> Self {
            let mut both = Self::new(&Arc::default());
            both.0.split_table(TABLE, &both.1);
            both
        }

        fn add(&mut self, key: &str, offset: u64) {
            let key = VersionKey::of_record(TABLE, &Bytes::from(key.to_owned()), Offset(offset));
            self.1.insert(key.clone(), None);
            self.0.add(&key, &self.1);
        }

        fn all(&self) -> Vec<(&VersionKey, &Block)> {
            let start = VersionKey::before(TABLE, b"");
            self.0.table(TABLE).unwrap().from(&start).collect()
        }

        /// What each block says beside what its versions are: highest and count.
        fn said_and_true(&self) -> Vec<((Offset, usize), (Offset, usize))> {
            let blocks = self.all();
            let ends = blocks.iter().skip(1).map(|(start, _)| Some(*start));
            let each = blocks.iter().zip(ends.chain([None]));
            each.map(|((start, block), end)| {
                let inside = self.1.range((*start).clone()..);
                let inside = inside.take_while(|entry| end.is_none_or(|end| entry.key() < end));
                let offsets: Vec<_> = inside.map(|entry| entry.key().offset()).collect();
                let highest = offsets.iter().max().copied().unwrap_or(Offset::ZERO);
                ((block.highest, block.versions), (highest, offsets.len()))
            })
            .collect()
        }
    }

    #[test]
    fn each_block_knows_the_highest_offset_of_its_own_versions() {
        let mut both = Both::ranged();
        // In an order that is not that of the keys.
        for n in 0..10_000_u64 {
            both.add(&format!("key {:05}", n * 7_919 % 10_000), n);
        }
        let blocks = both.all();
        assert!(blocks.len() > 10_000 / BLOCK_VERSIONS_MAX);
        for (said, is) in both.said_and_true() {
            assert_eq!(said, is);
            assert!(said.1 <= BLOCK_VERSIONS_MAX);
        }
    }

    #[test]
    fn a_table_is_one_block_until_a_range_is_asked_and_split_from_the_start_in_later_memtables() {
        let ranged = Arc::default();
        let mut first = Both::new(&ranged);
        let keys = 3 * SPLIT_VERSIONS_MAX as u64;
        for n in 0..keys {
            first.add(&format!("key {:07}", n * 7_919 % keys), n);
        }
        let table = first.0.table(TABLE).unwrap();
        assert_eq!(table.highest, Offset(keys - 1));
        assert!(first.all().is_empty() && !table.is_split());
        // When a range is asked, again and again, while versions are added.
        let mut asked = 0;
        while !first.0.table(TABLE).unwrap().is_split() {
            let blocks = first.all().len();
            first.0.split_table(TABLE, &first.1);
            asked += 1;
            first.add(&format!("key {asked:07} more"), keys + asked);
            // Then each time a bounded part of the rest is split, and no highest is too low.
            let more = first.all().len() - blocks;
            assert!(more <= SPLIT_VERSIONS_MAX / HALF + 1, "{more}");
            let blocks = first.said_and_true();
            assert!(
                blocks
                    .iter()
                    .all(|(said, is)| said.0 >= is.0 && said.1 == is.1)
            );
        }
        assert!((3..=4).contains(&asked), "{asked}");
        let blocks = first.said_and_true();
        assert!(
            blocks
                .iter()
                .all(|(said, is)| said == is && said.1 <= BLOCK_VERSIONS_MAX)
        );
        // And the next memtable begins with blocks.
        let mut second = Both::new(&ranged);
        second.add("a", 0);
        assert!(second.0.table(TABLE).unwrap().is_split());
    }

    #[test]
    fn the_versions_of_one_key_stay_together() {
        let mut both = Both::ranged();
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
