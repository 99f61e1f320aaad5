//! A scan: memtables and the B-tree, merged by key. Of each key the newest source wins; a delete
//! hides the key.

use std::cmp::Ordering;

use bytes::Bytes;
use onelog_record::{KeyRange, Offset, Position};

use crate::cursor::{Candidate, MemtableCursor};
use crate::snapshot::Reach;
use crate::tree::{BaseCursor, ReadError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub key: Bytes,
    /// The offset of the record that wrote it.
    pub version: Offset,
    pub value: Bytes,
}

#[derive(Debug)]
enum Feed {
    Memtable(MemtableCursor),
    Base(BaseCursor),
}

#[derive(Debug)]
struct Source {
    feed: Feed,
    head: Option<Candidate>,
}

impl Source {
    fn advance(&mut self) -> Result<Option<Candidate>, ReadError> {
        let next = match &mut self.feed {
            Feed::Memtable(cursor) => cursor.next(),
            Feed::Base(cursor) => cursor.next()?,
        };
        Ok(std::mem::replace(&mut self.head, next))
    }
}

/// The rows of a range, in order, each key once. Owns what it reads from; after an error it ends.
#[derive(Debug)]
pub struct Scan {
    /// From the newest to the oldest.
    sources: Vec<Source>,
    reverse: bool,
}

impl Scan {
    pub(crate) fn new(
        reach: &Reach,
        range: &KeyRange,
        position: Position,
        reverse: bool,
    ) -> Result<Self, ReadError> {
        let memtables = reach.memtables.iter().map(|memtable| {
            let cursor = MemtableCursor::new(memtable.clone(), range, position, reverse);
            Feed::Memtable(cursor)
        });
        let base = Feed::Base(reach.base.cursor(range, reverse)?);
        let mut sources: Vec<Source> = memtables
            .chain([base])
            .map(|feed| Source { feed, head: None })
            .collect();
        for source in &mut sources {
            source.advance()?;
        }
        Ok(Self { sources, reverse })
    }

    /// The source whose head comes first; of equal heads the newest.
    fn first(&self) -> Option<usize> {
        let mut first: Option<(usize, &Bytes)> = None;
        for (at, source) in self.sources.iter().enumerate() {
            let Some(head) = &source.head else { continue };
            let comes_first = first.is_none_or(|(_, key)| {
                let order = head.key.cmp(key);
                order
                    == if self.reverse {
                        Ordering::Greater
                    } else {
                        Ordering::Less
                    }
            });
            if comes_first {
                first = Some((at, &head.key));
            }
        }
        first.map(|(at, _)| at)
    }

    /// The newest version of the next key, deletes included.
    fn next_key(&mut self) -> Result<Option<Candidate>, ReadError> {
        let Some(first) = self.first() else {
            return Ok(None);
        };
        let newest = self.sources[first].advance()?;
        if let Some(newest) = &newest {
            for source in &mut self.sources[first + 1..] {
                if source
                    .head
                    .as_ref()
                    .is_some_and(|head| head.key == newest.key)
                {
                    source.advance()?;
                }
            }
        }
        Ok(newest)
    }
}

impl Iterator for Scan {
    type Item = Result<Row, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_key() {
                Ok(None) => return None,
                Ok(Some(Candidate { value: None, .. })) => {}
                Ok(Some(Candidate {
                    key,
                    version,
                    value: Some(value),
                })) => {
                    return Some(Ok(Row {
                        key,
                        version,
                        value,
                    }));
                }
                Err(error) => {
                    self.sources.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}
