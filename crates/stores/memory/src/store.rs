//! The store: each method is one step under the lock of its place.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_store::{
    Batch, Change, Followed, LogPlace, Store, StoreError, StorePosition, StoreReader,
};

use crate::bookkeeping::Owner;
use crate::connection::Connection;
use crate::ddl::{check_columns, check_owner};
use crate::error::not_backfilled;
use crate::reader::MemoryReader;
use crate::{rebuild, write};

/// Tables in memory that follow the log.
#[derive(Debug)]
pub struct MemoryStore {
    connection: Connection,
    owner: Owner,
    plan: Arc<Plan>,
}

impl MemoryStore {
    pub(crate) fn new(connection: Connection, sink: &str, log_id: &str, plan: Arc<Plan>) -> Self {
        let owner = Owner {
            sink: sink.to_owned(),
            log_id: log_id.to_owned(),
            plan: plan.fingerprint(),
            epoch: 0,
            first_epoch: 1,
        };
        Self {
            connection,
            owner,
            plan,
        }
    }
}

impl Store for MemoryStore {
    fn position(&mut self) -> Result<Option<StorePosition>, StoreError> {
        Ok(self.owner.position(&self.connection.lock()))
    }

    fn followed(&mut self) -> Result<Option<Followed>, StoreError> {
        Ok(self.owner.followed(&self.connection.lock()))
    }

    fn set_first_epoch(&mut self, epoch: u64) {
        self.owner.first_epoch = epoch.max(1);
    }

    fn take_over_from(&mut self, from: Option<&str>) -> Result<u64, StoreError> {
        self.owner.take_over(&mut self.connection.lock(), from)
    }

    fn check_target(&mut self) -> Result<(), StoreError> {
        let contents = self.connection.lock();
        let mut mappings = self.plan.mappings.iter();
        mappings.try_for_each(|mapping| check_owner(&contents, mapping, &self.owner.sink))
    }

    fn check_shape(&mut self) -> Result<(), StoreError> {
        let contents = self.connection.lock();
        let mut mappings = self.plan.mappings.iter();
        mappings.try_for_each(|mapping| check_columns(&contents, mapping))
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        write::apply(&mut self.connection.lock(), &self.owner, &self.plan, batch)
    }

    fn begin_rebuild(&mut self) -> Result<(), StoreError> {
        rebuild::begin(&mut self.connection.lock(), &self.owner, &self.plan)
    }

    fn load(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        let contents = &mut self.connection.lock();
        rebuild::load(contents, &self.owner, &self.plan, mapping, rows)
    }

    fn finish_rebuild(&mut self, place: LogPlace) -> Result<(), StoreError> {
        let contents = &mut self.connection.lock();
        rebuild::finish(contents, &self.owner, &self.plan, place)
    }

    fn reader(&mut self) -> Result<Box<dyn StoreReader>, StoreError> {
        let contents = self.connection.lock();
        let found = self.owner.position(&contents);
        let found = found.ok_or_else(not_backfilled)?;
        let reader = MemoryReader::at(found.position, &contents, &self.plan)?;
        Ok(Box::new(reader))
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        let contents = &mut *self.connection.lock();
        self.owner.entry(contents)?;
        contents.entries.remove(&self.owner.sink);
        for table in contents.tables.values_mut() {
            if table.owner.as_ref() == Some(&self.owner.sink) {
                Arc::make_mut(table).owner = None;
            }
        }
        Ok(())
    }
}
