//! Whether anything was written, or deleted, into the ranges that the client scanned.
//!
//! All ranges of a transaction were read at one position, so what they cover together is asked about
//! once, however often and in whatever pieces it was declared. Which of them is to be named is only
//! looked for when something was written.

use std::cmp::Ordering;

use bytes::Bytes;
use onelog_record::{KeyRange, Offset, Position, Refusal, Subject};

use crate::newest::Now;
use crate::planted::{self, Bug};
use crate::reads::{conflict, keyed_table, too_old};
use crate::rejection::Rejection;
use crate::view::{Rules, Written};

/// Refuses the first range read into which anything was written at or after the read position, or
/// whose table cannot be read.
pub fn check(
    now: &Now<'_>,
    rules: &dyn Rules,
    ranges: &[KeyRange],
    read_position: Position,
) -> Result<(), Rejection> {
    let readable = |(index, range): (usize, &KeyRange)| {
        keyed_table(rules, range.table, || Subject::RangeRead(index)).map(drop)
    };
    let checked = ranges.iter().enumerate().map(readable);
    let (mut count, mut unreadable) = (0, Ok(()));
    for readable in checked {
        if readable.is_err() {
            unreadable = readable;
            break;
        }
        count += 1;
    }
    if count > 0 && !planted::is(Bug::SkipRangeCheck) {
        if read_position < now.view.floor() {
            return Err(too_old(now, read_position));
        }
        let since = if planted::is(Bug::OffByOneRead) {
            Position(read_position.0.saturating_add(1))
        } else {
            read_position
        };
        Sorted::new(&ranges[..count]).check(now, since)?;
    }
    unreadable
}

/// The ranges of a transaction with their places in it, in the order of their beginnings.
struct Sorted<'r>(Vec<(usize, &'r KeyRange)>);

/// A write into one of the ranges.
struct Hit {
    /// The first range that has the key.
    index: usize,
    key: Bytes,
    version: Offset,
}

impl<'r> Sorted<'r> {
    fn new(ranges: &'r [KeyRange]) -> Self {
        let is_empty = |range: &KeyRange| range.to.as_ref().is_some_and(|to| *to <= range.from);
        let ranges = ranges.iter().enumerate();
        let mut sorted: Vec<_> = ranges.filter(|(_, range)| !is_empty(range)).collect();
        sorted.sort_by(|(_, left), (_, right)| {
            (left.table, &left.from).cmp(&(right.table, &right.from))
        });
        Self(sorted)
    }

    fn check(&self, now: &Now<'_>, since: Position) -> Result<(), Rejection> {
        let everything = self.0.iter().map(|(index, _)| index + 1).max();
        let Some(mut first) = self.written(now, since, everything.unwrap_or(0))? else {
            return Ok(());
        };
        // Of those before it another may have been written, at other keys: the first one is named.
        let mut clean = 0;
        while clean < first.index {
            let middle = clean + (first.index - clean).div_ceil(2);
            match self.written(now, since, middle) {
                Ok(Some(hit)) => first = hit,
                Ok(None) => clean = middle,
                // That there is a conflict is known; this one is as true as the first.
                Err(Rejection::Refused(refused))
                    if matches!(refused.0, Refusal::TooLarge { .. }) =>
                {
                    break;
                }
                Err(other) => return Err(other),
            }
        }
        let range = self.0.iter().find(|(index, _)| *index == first.index);
        let Some((_, range)) = range else {
            return Ok(());
        };
        Err(conflict(
            now,
            Subject::RangeRead(first.index),
            range.table,
            first.key,
            first.version,
        ))
    }

    /// A write into one of the first `count` ranges of the transaction.
    fn written(
        &self,
        now: &Now<'_>,
        since: Position,
        count: usize,
    ) -> Result<Option<Hit>, Rejection> {
        for range in self.merged(count) {
            now.work.search(now)?;
            let Some((key, version)) = written_into(now, &range, since)? else {
                continue;
            };
            let holders = self.0.iter().filter(|(index, held)| {
                *index < count && held.table == range.table && holds(held, &key)
            });
            let index = holders.map(|(index, _)| *index).min();
            return Ok(index.map(|index| Hit {
                index,
                key,
                version,
            }));
        }
        Ok(None)
    }

    /// What the first `count` ranges of the transaction cover together: ranges that do not overlap.
    fn merged(&self, count: usize) -> impl Iterator<Item = KeyRange> {
        let mut ranges = self
            .0
            .iter()
            .filter(move |(index, _)| *index < count)
            .map(|(_, range)| *range)
            .peekable();
        std::iter::from_fn(move || {
            let mut merged = ranges.next()?.clone();
            while let Some(next) = ranges.next_if(|next| {
                next.table == merged.table && merged.to.as_ref().is_none_or(|to| next.from <= *to)
            }) {
                if compare_ends(&next.to, &merged.to).is_gt() {
                    merged.to.clone_from(&next.to);
                }
            }
            Some(merged)
        })
    }
}

fn holds(range: &KeyRange, key: &Bytes) -> bool {
    *key >= range.from && range.to.as_ref().is_none_or(|to| key < to)
}

/// The order of two ends; `None` is the end of the table.
fn compare_ends(left: &Option<Bytes>, right: &Option<Bytes>) -> Ordering {
    match (left, right) {
        (Some(left), Some(right)) => left.cmp(right),
        (left, right) => left.is_none().cmp(&right.is_none()),
    }
}

fn written_into(
    now: &Now<'_>,
    range: &KeyRange,
    since: Position,
) -> Result<Option<(Bytes, Offset)>, Rejection> {
    let mut left = now.work.left();
    if let Some((key, row)) = now.overlay.written_since(range, since, &mut left) {
        return Ok(Some((key.clone(), row.version)));
    }
    let written = match left {
        0 => Written::OutOfSteps,
        _ => now.view.written_since(range, since, &mut left)?,
    };
    match written {
        Written::Nothing => now.work.count(now, now.work.left() - left).map(|()| None),
        Written::At(key, version) => {
            now.work.count(now, now.work.left() - left)?;
            Ok(Some((key, version)))
        }
        Written::OutOfSteps => now.work.count(now, now.work.left() + 1).map(|()| None),
    }
}
