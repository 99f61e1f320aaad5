//! Raft's view of the log: the newest entries in memory, the terms of all of them, and what is read
//! from the log when a follower lacks older ones.
//!
//! ```text
//!   start      first                 before                       last
//!     │ cut off │ only in the log      │ kept in memory             │
//!               └── Fetch ─▶ chunk ────┘    applied │ not applied   │
//! ```
//!
//! Of what is applied as much is kept as followers that are a little behind may need. What is not
//! applied is kept as well, unless this node itself is far behind: then what it has stored and knows to
//! be committed leaves memory, and is read from its own log when it is to be applied.
//!
//! ```text
//!              applied           before                       last
//!                 │ again ◀─ Fetch │ kept in memory             │
//! ```
//!
//! Raft reads all of it from the thread that steps it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;

use onelog_record::{Index, Position, Term};
use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use super::members::Members;
use super::message::SnapshotMark;

/// How many bytes of entries are read from the log at once for a follower that is behind.
const FETCH_BYTES: usize = 4 << 20;
/// How many bytes are read from this node's own log ahead of what it applies.
const AGAIN_BYTES_MAX: usize = 2 * FETCH_BYTES;
/// How many pieces of the log that were read for followers are kept.
const CHUNKS_MAX: usize = 4;

/// The number of a [`Fetch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchId(u64);

/// Entries of the log that a follower lacks and that are no longer in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub id: FetchId,
    /// From the first of these indexes on, and not beyond the last.
    pub indexes: Range<Index>,
    /// As many as fit, and at least one.
    pub bytes_max: usize,
}

/// A fetch, and which of Raft's calls wait for it.
#[derive(Debug)]
struct Wanted {
    fetch: Fetch,
    is_new: bool,
    waiting: Vec<GetEntriesContext>,
}

#[derive(Debug, Default)]
struct Wants {
    list: Vec<Wanted>,
    next: u64,
}

#[derive(Debug)]
struct Kept {
    entry: Entry,
    /// The position behind it.
    end: Position,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Tail {
    initial: RaftState,
    /// The first index that can be read.
    first: u64,
    /// From which index on each term holds; the first run has the entry before `first`.
    terms: VecDeque<(u64, u64)>,
    /// The index before the first one in memory, and the position behind it.
    before: (u64, Position),
    kept: VecDeque<Kept>,
    bytes: usize,
    applied: u64,
    /// Of those that are not applied.
    unapplied_bytes: usize,
    /// Of those that are not applied and were not kept.
    spilled_bytes: usize,
    /// The first of those that were not kept, read from the log to be applied.
    again: VecDeque<Entry>,
    again_bytes: usize,
    reading_again: Option<FetchId>,
    chunks: VecDeque<Vec<Entry>>,
    wants: RefCell<Wants>,
    snapshot: Option<SnapshotMark>,
}

impl Tail {
    /// `first` is the first entry of the log, and `terms` are those of its entries; `before` is the
    /// last entry that is not kept in memory. Those behind it are pushed.
    pub(super) fn new(
        hard_state: HardState,
        members: &Members,
        first: Index,
        terms: &[(Index, Term)],
        before: (Index, Position),
    ) -> Self {
        let mut runs: VecDeque<(u64, u64)> = terms
            .iter()
            // What is pushed brings its own: a run that is noted twice would be searched wrongly.
            .filter(|(index, _)| *index <= before.0)
            .map(|(index, term)| (index.get(), term.get()))
            .collect();
        // What is before entry 1 has term 0. What is before a log that was cut may not be known; then
        // its first entry serves as that.
        if first <= Index(1) {
            runs.push_front((0, 0));
        }
        let known_from = runs.front().map_or(0, |(index, _)| *index);
        let first = first.get().max(known_from + 1);
        Self {
            initial: RaftState::new(hard_state, members.to_raft()),
            first,
            terms: runs,
            before: (before.0.get(), before.1),
            kept: VecDeque::new(),
            bytes: 0,
            applied: before.0.get(),
            unapplied_bytes: 0,
            spilled_bytes: 0,
            again: VecDeque::new(),
            again_bytes: 0,
            reading_again: None,
            chunks: VecDeque::new(),
            wants: RefCell::default(),
            snapshot: None,
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.before.0 + self.kept.len() as u64
    }

    /// The position behind an entry that is kept, or behind the one before them.
    pub(super) fn end_of(&self, index: u64) -> Option<Position> {
        if index == self.before.0 {
            return Some(self.before.1);
        }
        self.at(index).map(|kept| kept.end)
    }

    /// The bytes of the entries behind `index`.
    pub(super) fn bytes_behind(&self, index: u64) -> usize {
        if index <= self.before.0 {
            return self.bytes;
        }
        let kept = self.kept.iter().rev();
        kept.take_while(|kept| kept.entry.index > index)
            .map(|kept| kept.entry.data.len())
            .sum()
    }

    pub(super) const fn unapplied_bytes(&self) -> usize {
        self.unapplied_bytes + self.spilled_bytes
    }

    /// Whether some of what is not applied is only in the log.
    pub(super) const fn has_spilled(&self) -> bool {
        self.before.0 > self.applied
    }

    /// Forgets what is not applied, up to `until`, which is stored and committed, while more than
    /// `bytes_max` are kept.
    pub(super) fn spill(&mut self, until: u64, bytes_max: usize) {
        while self.unapplied_bytes > bytes_max
            && let Some(front) = self.kept.front()
            && front.entry.index <= until
        {
            let (index, bytes) = (front.entry.index, front.entry.data.len());
            self.before = (index, front.end);
            self.bytes -= bytes;
            if index > self.applied {
                self.unapplied_bytes -= bytes;
                self.spilled_bytes += bytes;
            }
            self.kept.pop_front();
        }
    }

    /// The last entry of those in memory that are applied next and have about so many bytes together:
    /// one at least, where there is one.
    pub(super) fn next_to_apply(&self, bytes_max: usize) -> u64 {
        let (mut last, mut bytes) = (self.applied, 0);
        let from = self.applied.saturating_sub(self.before.0) as usize;
        let kept = self.kept.range(from..).map(|kept| &kept.entry);
        for entry in self.again.iter().chain(kept) {
            bytes += entry.data.len();
            let is_enough = last > self.applied && bytes > bytes_max;
            if is_enough || entry.index != last + 1 {
                break;
            }
            last = entry.index;
        }
        last
    }

    /// What is to be read again next, a piece ahead of what is applied.
    fn read_again(&mut self) {
        let last = self.again.back().map_or(self.applied, |last| last.index);
        let is_needed = self.has_spilled() && last < self.before.0;
        if !is_needed
            || self.reading_again.is_some()
            || self.again_bytes + FETCH_BYTES > AGAIN_BYTES_MAX
        {
            return;
        }
        let wants = self.wants.get_mut();
        wants.next += 1;
        let id = FetchId(wants.next);
        self.reading_again = Some(id);
        wants.list.push(Wanted {
            fetch: Fetch {
                id,
                indexes: Index(last + 1)..Index(self.before.0 + 1),
                bytes_max: FETCH_BYTES,
            },
            is_new: true,
            waiting: Vec::new(),
        });
    }

    /// Adds an entry behind the last one.
    pub(super) fn push(&mut self, entry: Entry, end: Position) {
        assert_eq!(entry.index, self.last() + 1, "entries follow each other");
        if self
            .terms
            .back()
            .is_none_or(|(_, term)| *term != entry.term)
        {
            self.terms.push_back((entry.index, entry.term));
        }
        self.bytes += entry.data.len();
        self.unapplied_bytes += entry.data.len();
        self.kept.push_back(Kept { entry, end });
    }

    /// Cuts the entries from `index` on: a new leader replaces them.
    pub(super) fn cut_end(&mut self, index: u64) {
        assert!(index > self.before.0, "what is applied is never replaced");
        while self.last() >= index {
            if let Some(kept) = self.kept.pop_back() {
                self.bytes -= kept.entry.data.len();
                self.unapplied_bytes -= kept.entry.data.len();
            }
        }
        while self.terms.back().is_some_and(|(from, _)| *from >= index) {
            self.terms.pop_back();
        }
    }

    /// The entries up to `applied` are. Forgets the first of them while more than `bytes_max` are
    /// kept.
    pub(super) fn forget(&mut self, applied: u64, bytes_max: usize) {
        while let Some(front) = self.again.front()
            && front.index <= applied
        {
            self.again_bytes -= front.data.len();
            self.spilled_bytes -= front.data.len();
            self.again.pop_front();
        }
        let place = |index: u64| index.saturating_sub(self.before.0) as usize;
        let newly = self.kept.range(place(self.applied)..place(applied));
        let bytes = newly.map(|kept| kept.entry.data.len()).sum::<usize>();
        self.unapplied_bytes -= bytes;
        self.applied = applied;
        while let Some(front) = self.kept.front()
            && front.entry.index <= applied
            && (bytes_max == 0 || self.bytes > bytes_max)
        {
            self.before = (front.entry.index, front.end);
            self.bytes -= front.entry.data.len();
            self.kept.pop_front();
        }
    }

    /// The log no longer has what is below `first`. The term of the entry before it is kept: a
    /// follower that lacks `first` has that one.
    pub(super) fn cut_start(&mut self, first: Index) {
        let first = first.get();
        if first <= self.first {
            return;
        }
        self.first = first.min(self.last() + 1);
        while let Some((next, _)) = self.terms.get(1)
            && *next < self.first
        {
            self.terms.pop_front();
        }
        self.chunks.retain(|chunk| chunk[0].index >= first);
    }

    /// The log's newest snapshot, for followers that need what was cut off.
    pub(super) fn set_snapshot(&mut self, mark: SnapshotMark) {
        self.snapshot = Some(mark);
    }

    /// Begins anew behind a snapshot.
    pub(super) fn restore(&mut self, mark: &SnapshotMark) {
        let (index, term) = (mark.index.get(), mark.term.get());
        self.first = index + 1;
        self.terms = VecDeque::from([(index, term)]);
        self.before = (index, mark.end);
        self.kept.clear();
        self.bytes = 0;
        self.applied = index;
        self.unapplied_bytes = 0;
        self.spilled_bytes = 0;
        self.again.clear();
        self.again_bytes = 0;
        self.reading_again = None;
        self.chunks.clear();
        self.wants.borrow_mut().list.clear();
        self.snapshot = None;
    }

    /// What is to be read from the log, once each.
    pub(super) fn take_fetches(&mut self) -> Vec<Fetch> {
        self.read_again();
        let wants = self.wants.get_mut().list.iter_mut();
        wants
            .filter_map(|wanted| std::mem::take(&mut wanted.is_new).then(|| wanted.fetch.clone()))
            .collect()
    }

    /// A fetch has ended; no entries where the log does not have them any more. Answers the calls
    /// that wait for it.
    pub(super) fn fetched(&mut self, id: FetchId, entries: Vec<Entry>) -> Vec<GetEntriesContext> {
        let list = &mut self.wants.get_mut().list;
        let Some(place) = list.iter().position(|wanted| wanted.fetch.id == id) else {
            return Vec::new();
        };
        let wanted = list.swap_remove(place);
        if self.reading_again == Some(id) {
            self.reading_again = None;
            self.again_bytes += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
            self.again.extend(entries);
            return Vec::new();
        }
        if !entries.is_empty() {
            self.chunks.truncate(CHUNKS_MAX - 1);
            self.chunks.push_front(entries);
        }
        wanted.waiting
    }

    fn at(&self, index: u64) -> Option<&Kept> {
        let place = index.checked_sub(self.before.0 + 1)?;
        self.kept.get(place as usize)
    }

    /// Notes that a call waits for entries which are only in the log.
    fn want(&self, low: u64, high: u64, context: GetEntriesContext) {
        let mut wants = self.wants.borrow_mut();
        if let Some(wanted) = wants
            .list
            .iter_mut()
            .find(|wanted| wanted.fetch.indexes.start.get() == low)
        {
            // The library shows what a context is by no other way.
            let shown = format!("{context:?}");
            let is_known = wanted
                .waiting
                .iter()
                .any(|other| format!("{other:?}") == shown);
            if !is_known {
                wanted.waiting.push(context);
            }
            return;
        }
        wants.next += 1;
        let fetch = Fetch {
            id: FetchId(wants.next),
            indexes: Index(low)..Index(high.min(self.before.0 + 1)),
            bytes_max: FETCH_BYTES,
        };
        wants.list.push(Wanted {
            fetch,
            is_new: true,
            waiting: vec![context],
        });
    }
}

/// As many entries as fit, and at least one.
fn fitting<'e>(entries: impl Iterator<Item = &'e Entry>, bytes_max: u64) -> Vec<Entry> {
    let mut bytes = 0u64;
    let mut found = Vec::new();
    for entry in entries {
        bytes = bytes.saturating_add(entry.data.len() as u64);
        if !found.is_empty() && bytes > bytes_max {
            break;
        }
        found.push(entry.clone());
    }
    found
}

impl Storage for Tail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let count = (high - low) as usize;
        if low > self.before.0 {
            let from = (low - self.before.0 - 1) as usize;
            let kept = self.kept.iter().skip(from).take(count);
            return Ok(fitting(kept.map(|kept| &kept.entry), bytes_max));
        }
        if let Some(first) = self.again.front().map(|first| first.index)
            && (first..first + self.again.len() as u64).contains(&low)
        {
            let again = self.again.iter().skip((low - first) as usize).take(count);
            return Ok(fitting(again, bytes_max));
        }
        let chunk = self.chunks.iter().find(|chunk| {
            let (first, last) = (chunk[0].index, chunk[chunk.len() - 1].index);
            (first..=last).contains(&low)
        });
        if let Some(chunk) = chunk {
            let from = (low - chunk[0].index) as usize;
            return Ok(fitting(chunk.iter().skip(from).take(count), bytes_max));
        }
        if !context.can_async() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        self.want(low, high, context);
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index + 1 < self.first {
            return Err(Error::Store(StorageError::Compacted));
        }
        if index > self.last() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let runs = self.terms.partition_point(|(from, _)| *from <= index);
        let run = runs.checked_sub(1).and_then(|run| self.terms.get(run));
        run.map(|(_, term)| *term)
            .ok_or(Error::Store(StorageError::Compacted))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        match &self.snapshot {
            Some(mark) if mark.index.get() >= request_index => Ok(mark.to_raft()),
            _ => Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable)),
        }
    }
}
