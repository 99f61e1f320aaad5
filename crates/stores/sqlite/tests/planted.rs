//! The contract's tests can see: stores with planted bugs must fail them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_record::Position;
use onelog_sqlite::SqliteStore;
use onelog_store::conformance::{self, Capabilities, Harness};
use onelog_store::{
    Batch, Change, Followed, LogPlace, Store, StoreError, StorePosition, StoreReader,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    None,
    ForgetsDeletes,
    IgnoresTheFence,
    IgnoresWhereTheBatchBegins,
    SkipsEmptyBatches,
    TakesAbsenceForPositionZero,
    DropsRefusedRecords,
    MovesThePositionFirst,
    LoadsIntoTheOldRows,
    RemembersThePosition,
    TakesOtherLogsSinks,
    TakesOtherSinksTables,
    ForgetsTheHistory,
    NamesNoLog,
}

const BUGS: [Bug; 13] = [
    Bug::ForgetsDeletes,
    Bug::IgnoresTheFence,
    Bug::IgnoresWhereTheBatchBegins,
    Bug::SkipsEmptyBatches,
    Bug::TakesAbsenceForPositionZero,
    Bug::DropsRefusedRecords,
    Bug::MovesThePositionFirst,
    Bug::LoadsIntoTheOldRows,
    Bug::RemembersThePosition,
    Bug::TakesOtherLogsSinks,
    Bug::TakesOtherSinksTables,
    Bug::ForgetsTheHistory,
    Bug::NamesNoLog,
];

struct Buggy {
    inner: SqliteStore,
    bug: Bug,
    path: PathBuf,
    remembered: Option<StorePosition>,
}

impl Buggy {
    fn without(batch: &Batch, drop: impl Fn(&Change) -> bool) -> Batch {
        let mut batch = batch.clone();
        for changes in &mut batch.changes {
            changes.retain(|change| !drop(change));
        }
        batch
    }
}

impl Store for Buggy {
    fn position(&mut self) -> Result<Option<StorePosition>, StoreError> {
        if self.bug == Bug::RemembersThePosition && self.remembered.is_some() {
            return Ok(self.remembered.clone());
        }
        let mut found = self.inner.position()?;
        if let Some(found) = found
            .as_mut()
            .filter(|_| self.bug == Bug::ForgetsTheHistory)
        {
            found.chain = None;
        }
        self.remembered = found.clone();
        if self.bug == Bug::TakesAbsenceForPositionZero && found.is_none() {
            return Ok(Some(StorePosition {
                log_id: conformance::LOG.into(),
                position: Position::ZERO,
                chain: None,
                epoch: 0,
            }));
        }
        Ok(found)
    }

    fn set_first_epoch(&mut self, epoch: u64) {
        self.inner.set_first_epoch(epoch);
    }

    fn followed(&mut self) -> Result<Option<Followed>, StoreError> {
        match self.bug {
            Bug::NamesNoLog => Ok(None),
            _ => self.inner.followed(),
        }
    }

    fn take_over_from(&mut self, from: Option<&str>) -> Result<u64, StoreError> {
        match self.inner.take_over_from(from) {
            Err(StoreError::OtherLog { found, .. }) if self.bug == Bug::TakesOtherLogsSinks => {
                self.inner.take_over_from(Some(&found))
            }
            other => other,
        }
    }

    fn check_target(&mut self) -> Result<(), StoreError> {
        match self.inner.check_target() {
            Err(StoreError::NotOwner { .. }) if self.bug == Bug::TakesOtherSinksTables => Ok(()),
            other => other,
        }
    }

    fn check_shape(&mut self) -> Result<(), StoreError> {
        self.inner.check_shape()
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        match self.bug {
            Bug::ForgetsDeletes => self
                .inner
                .apply(&Self::without(batch, |c| c.value.is_none())),
            Bug::SkipsEmptyBatches if batch.rows() == 0 => Ok(()),
            Bug::MovesThePositionFirst => {
                self.inner.apply(&Self::without(batch, |_| true))?;
                let mut rows = batch.clone();
                rows.from = rows.to;
                self.inner.apply(&rows)
            }
            Bug::DropsRefusedRecords => match self.inner.apply(batch) {
                Err(StoreError::Refused(refused)) => self
                    .inner
                    .apply(&Self::without(batch, |c| c.offset == refused.offset)),
                other => other,
            },
            Bug::IgnoresTheFence => match self.inner.apply(batch) {
                Err(StoreError::Fenced { .. }) => {
                    self.inner.take_over()?;
                    self.inner.apply(batch)
                }
                other => other,
            },
            Bug::IgnoresWhereTheBatchBegins => match self.inner.apply(batch) {
                Err(StoreError::PositionMismatch {
                    found: Some(found), ..
                }) => {
                    let mut batch = batch.clone();
                    batch.from = found.position;
                    self.inner.apply(&batch)
                }
                other => other,
            },
            _ => self.inner.apply(batch),
        }
    }

    fn begin_rebuild(&mut self) -> Result<(), StoreError> {
        self.inner.begin_rebuild()
    }

    fn load(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        self.inner.load(mapping, rows)?;
        if self.bug == Bug::LoadsIntoTheOldRows {
            let connection = rusqlite::Connection::open(&self.path).unwrap();
            // Not every plan's table looks like this one; those that do not are left alone.
            let _ = connection.execute(
                "INSERT INTO orders (id) VALUES (?1)",
                [String::from_utf8_lossy(&rows[0].key)],
            );
        }
        Ok(())
    }

    fn finish_rebuild(&mut self, place: LogPlace) -> Result<(), StoreError> {
        self.inner.finish_rebuild(place)
    }

    fn reader(&mut self) -> Result<Box<dyn StoreReader>, StoreError> {
        self.inner.reader()
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        self.inner.remove()
    }
}

struct Folder {
    folder: tempfile::TempDir,
    bug: Bug,
}

impl Harness for Folder {
    fn open_as(&self, sink: &str, plan: Arc<Plan>, log_id: &str) -> Box<dyn Store> {
        let path = self.folder.path().join("store.db");
        Box::new(Buggy {
            inner: SqliteStore::open(&path, sink, log_id, plan).unwrap(),
            bug: self.bug,
            path,
            remembered: None,
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn kind(&self) -> &'static dyn onelog_store::StoreKind {
        &onelog_sqlite::KIND
    }
}

fn passes(bug: Bug) -> bool {
    let new = || -> Box<dyn Harness> {
        Box::new(Folder {
            folder: tempfile::tempdir().unwrap(),
            bug,
        })
    };
    std::panic::catch_unwind(AssertUnwindSafe(|| conformance::all(&new))).is_ok()
}

#[test]
fn every_planted_bug_is_caught() {
    assert!(passes(Bug::None));
    for bug in BUGS {
        assert!(!passes(bug), "nothing noticed the bug {bug:?}");
    }
}
