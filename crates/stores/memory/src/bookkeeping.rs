//! What a place knows of each sink, and the checks that come before every change.

use onelog_record::Position;
use onelog_store::{Followed, LogPlace, StoreError, StorePosition};

use crate::connection::Contents;
use crate::ddl::Table;
use crate::error::not_backfilled;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) log_id: String,
    /// `None` until the tables were backfilled under `plan`.
    pub(crate) place: Option<LogPlace>,
    pub(crate) epoch: u64,
    pub(crate) plan: String,
    /// The tables of a rebuild under way, in the plan's order.
    pub(crate) rebuild: Option<Vec<Table>>,
}

/// The sink that works on the store.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) sink: String,
    pub(crate) log_id: String,
    /// The fingerprint of its plan.
    pub(crate) plan: String,
    /// The epoch of its takeover; 0, which no entry has, before that.
    pub(crate) epoch: u64,
    /// The epoch of a sink that is not known.
    pub(crate) first_epoch: u64,
}

impl Owner {
    pub(crate) fn position(&self, contents: &Contents) -> Option<StorePosition> {
        let entry = contents.entries.get(&self.sink)?;
        let place = entry.place.filter(|_| entry.plan == self.plan)?;
        Some(StorePosition {
            log_id: entry.log_id.clone(),
            position: place.position,
            chain: place.chain,
            epoch: entry.epoch,
        })
    }

    pub(crate) fn followed(&self, contents: &Contents) -> Option<Followed> {
        let entry = contents.entries.get(&self.sink)?;
        Some(Followed {
            log_id: entry.log_id.clone(),
            place: entry.place,
        })
    }

    pub(crate) fn take_over(
        &mut self,
        contents: &mut Contents,
        from: Option<&str>,
    ) -> Result<u64, StoreError> {
        let entry = contents.entries.entry(self.sink.clone());
        let entry = entry.or_insert_with(|| Entry {
            log_id: self.log_id.clone(),
            place: None,
            epoch: self.first_epoch - 1,
            plan: self.plan.clone(),
            rebuild: None,
        });
        let is_ours = entry.log_id == self.log_id;
        if !is_ours && from != Some(&entry.log_id) {
            return Err(StoreError::OtherLog {
                ours: self.log_id.clone(),
                found: entry.log_id.clone(),
            });
        }
        if entry.plan != self.plan || !is_ours {
            entry.log_id.clone_from(&self.log_id);
            entry.plan.clone_from(&self.plan);
            entry.place = None;
        }
        entry.epoch += 1;
        self.epoch = entry.epoch;
        Ok(self.epoch)
    }

    /// This sink's entry, unless another process took the sink over.
    pub(crate) fn entry<'c>(
        &self,
        contents: &'c mut Contents,
    ) -> Result<&'c mut Entry, StoreError> {
        match contents.entries.get_mut(&self.sink) {
            Some(entry) if entry.epoch == self.epoch => Ok(entry),
            Some(entry) => Err(StoreError::of_epoch(self.epoch, entry.epoch)),
            None => Err(not_backfilled()),
        }
    }

    /// Whether the store is where a batch from `from` begins.
    pub(crate) fn check_position(
        &self,
        contents: &mut Contents,
        from: Position,
    ) -> Result<(), StoreError> {
        self.entry(contents)?;
        match self.position(contents) {
            Some(found) if found.position == from && found.log_id == self.log_id => Ok(()),
            found => Err(StoreError::PositionMismatch {
                expected: Some(from),
                found,
            }),
        }
    }
}
