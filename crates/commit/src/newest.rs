//! The newest state as a decision sees it: rows in flight over the applied state.

use bytes::Bytes;
use onelog_record::{Offset, Position, TableId};

use crate::overlay::Overlay;
use crate::rejection::Rejection;
use crate::view::View;
use crate::work::Work;

/// The last write of a key, as far as it is remembered.
#[derive(Clone, Debug, Default)]
pub struct Newest {
    /// The record that wrote it; `None` when none is remembered.
    pub version: Option<Offset>,
    /// The value; `None` when the key is not there.
    pub value: Option<Bytes>,
    /// Where the transaction that wrote it ends, when that is in flight; else zero.
    pub after: Position,
}

/// Where the newest state is read.
#[derive(Clone, Copy)]
pub struct Now<'a> {
    pub view: &'a dyn View,
    pub overlay: &'a Overlay,
    pub work: &'a Work,
    /// Everything below is applied.
    pub applied: Position,
    /// The offset of the next record.
    pub next: Offset,
}

impl<'a> Now<'a> {
    pub fn new(view: &'a dyn View, overlay: &'a Overlay, work: &'a Work, next: Offset) -> Self {
        Self {
            view,
            overlay,
            work,
            applied: view.position(),
            next,
        }
    }

    /// The last write of a key, in flight or applied.
    pub fn newest(&self, table: TableId, key: &[u8]) -> Result<Newest, Rejection> {
        self.work.search(self)?;
        if let Some(row) = self.overlay.get(table, key) {
            return Ok(Newest {
                version: Some(row.version),
                value: row.value.clone(),
                after: self.in_flight(row.end),
            });
        }
        let Some(latest) = self.view.newest(table, key)? else {
            return Ok(Newest::default());
        };
        self.work
            .copy(self, latest.value.as_ref().map_or(0, Bytes::len))?;
        Ok(Newest {
            version: Some(latest.version),
            value: latest.value,
            after: Position::ZERO,
        })
    }

    /// `end` when it is not applied yet, else zero.
    pub fn in_flight(&self, end: Position) -> Position {
        if end > self.applied {
            end
        } else {
            Position::ZERO
        }
    }

    /// From where on a reader sees what was met, when that is answered after `after`.
    pub fn readable(&self, after: Position) -> Position {
        self.applied.max(after)
    }

    /// Where everything in flight ends; zero when nothing is.
    pub fn everything(&self) -> Position {
        self.in_flight(Position(self.next.0))
    }
}
