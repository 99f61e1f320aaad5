//! The store: its client, and what each step of the contract does.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onelog_mapping::{Plan, Row};
use onelog_record::Position;
use onelog_store::{
    Batch, Change, Followed, LogPlace, Store, StoreError, StorePosition, StoreReader, failpoint,
};

use crate::bookkeeping::{self, Ledger, Page};
use crate::claims;
use crate::connection::Client;
use crate::ddl;
use crate::kind::ElasticsearchTarget;
use crate::purge;
use crate::reader::Reader;
use crate::write::Bulk;

/// How often several writers may change one ledger at the same moment.
const LEDGER_ATTEMPTS_MAX: u32 = 10;
/// Requests of some megabytes cost the least for each document.
const BATCH_TIME: Range<Duration> = Duration::from_millis(250)..Duration::from_secs(1);
/// How often deleted documents are looked for …
const PURGE_EVERY: Duration = Duration::from_secs(600);
/// … and how long they stay: longer than any request can be under way.
const PURGE_AFTER: Duration = Duration::from_secs(3600);

/// A cluster that follows the log.
#[derive(Debug)]
pub struct ElasticsearchStore {
    pub(crate) client: Client,
    pub(crate) sink: String,
    pub(crate) log_id: String,
    pub(crate) plan: Arc<Plan>,
    pub(crate) fingerprint: String,
    pub(crate) epoch: Option<u64>,
    /// The epoch of a sink that is not known.
    first_epoch: u64,
    /// The generation that a rebuild under way loads.
    pub(crate) rebuilding: Option<u64>,
    /// Held by every snapshot.
    pub(crate) in_use: Arc<()>,
    /// Indexes that are deleted as soon as no snapshot needs them.
    pub(crate) retired: Vec<String>,
    pub(crate) purged: Instant,
    /// How often documents are purged that were marked as deleted, and for how long they stay.
    purging: (Duration, Duration),
    /// Indexes that were written to since they were last refreshed.
    pub(crate) unpublished: BTreeSet<String>,
    pub(crate) row: Row,
}

impl ElasticsearchStore {
    /// Connects to the cluster. Nothing is written.
    pub fn open(
        target: &ElasticsearchTarget,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            client: Client::connect(target)?,
            sink: sink.to_owned(),
            log_id: log_id.to_owned(),
            fingerprint: plan.fingerprint(),
            plan,
            epoch: None,
            first_epoch: 1,
            rebuilding: None,
            in_use: Arc::default(),
            retired: Vec::new(),
            purged: Instant::now(),
            purging: (PURGE_EVERY, PURGE_AFTER),
            unpublished: BTreeSet::new(),
            row: Row::default(),
        })
    }

    /// Purges `every` so often what was marked as deleted so long ago; otherwise an hour.
    pub const fn set_purging(&mut self, every: Duration, after: Duration) {
        self.purging = (every, after);
    }

    /// Deletes documents that were marked as deleted that long ago, some thousands at most, and
    /// answers how many there were.
    pub fn purge_deleted(&mut self, older_than: Duration) -> Result<u64, StoreError> {
        let page = self.owned_page()?;
        let position = page.ledger.position.unwrap_or(0);
        let mut purged = 0;
        for index in self.live_indexes(&page.ledger) {
            purged += purge::purge(&self.client, &index, position, older_than)?;
        }
        self.purged = Instant::now();
        Ok(purged)
    }

    fn read(&self) -> Result<Option<Page>, StoreError> {
        bookkeeping::read_ledger(&self.client, &self.sink)
    }

    /// The ledger, if the sink is still ours.
    pub(crate) fn owned_page(&self) -> Result<Page, StoreError> {
        #[allow(clippy::expect_used)]
        let ours = self
            .epoch
            .expect("the contract: take_over comes before every change");
        match self.read()? {
            Some(page) if page.ledger.epoch == ours => Ok(page),
            Some(page) => Err(StoreError::of_epoch(ours, page.ledger.epoch)),
            None => Err(StoreError::PositionMismatch {
                expected: None,
                found: None,
            }),
        }
    }

    /// Replaces our own ledger.
    pub(crate) fn replace(&self, page: &Page, ledger: Ledger) -> Result<Page, StoreError> {
        let expected = page.ledger.position.map(Position);
        if let Some(page) = bookkeeping::replace_ledger(&self.client, page, ledger)? {
            return Ok(page);
        }
        let found = self.owned_page()?;
        Err(StoreError::PositionMismatch {
            expected,
            found: found.ledger.position_under(&self.fingerprint),
        })
    }

    pub(crate) fn indexes(&self, generation: u64) -> Vec<String> {
        let mappings = self.plan.mappings.iter();
        mappings
            .map(|mapping| ddl::index_name(&mapping.into, generation))
            .collect()
    }

    fn live_indexes(&self, ledger: &Ledger) -> Vec<String> {
        ledger
            .generation
            .map_or_else(Vec::new, |generation| self.indexes(generation))
    }

    pub(crate) fn write<'b>(
        &mut self,
        generation: u64,
        changes: impl Iterator<Item = (usize, &'b Change)>,
        is_repair: bool,
    ) -> Result<(), StoreError> {
        let indexes = self.indexes(generation);
        let targets: Vec<String> = indexes.iter().map(|i| ddl::write_alias(i)).collect();
        let mut row = std::mem::take(&mut self.row);
        let mut bulk = Bulk {
            client: &self.client,
            plan: &self.plan,
            targets: &targets,
            row: &mut row,
            still_ours: &|| self.owned_page().map(|_| ()),
        };
        let outcome = match is_repair {
            true => bulk.repair(changes),
            false => bulk.follow(changes),
        };
        self.row = row;
        outcome
    }

    pub(crate) fn delete_retired(&mut self) -> Result<(), StoreError> {
        if Arc::strong_count(&self.in_use) > 1 {
            return Ok(());
        }
        for index in std::mem::take(&mut self.retired) {
            ddl::delete_index(&self.client, &index)?;
        }
        Ok(())
    }

    /// Work that is not urgent.
    fn maintenance(&mut self) -> Result<(), StoreError> {
        if !self.retired.is_empty() {
            self.delete_retired()?;
        }
        let (every, after) = self.purging;
        if self.purged.elapsed() >= every {
            self.purge_deleted(after)?;
        }
        Ok(())
    }
}

impl Store for ElasticsearchStore {
    fn position(&mut self) -> Result<Option<StorePosition>, StoreError> {
        let Some(page) = self.read()? else {
            return Ok(None);
        };
        Ok(self
            .resolved(page.ledger)?
            .position_under(&self.fingerprint))
    }

    fn followed(&mut self) -> Result<Option<Followed>, StoreError> {
        let Some(page) = self.read()? else {
            return Ok(None);
        };
        let ledger = self.resolved(page.ledger)?;
        Ok(Some(Followed {
            place: ledger.place(),
            log_id: ledger.log_id,
        }))
    }

    fn set_first_epoch(&mut self, epoch: u64) {
        self.first_epoch = epoch;
    }

    fn take_over_from(&mut self, from: Option<&str>) -> Result<u64, StoreError> {
        for _ in 0..LEDGER_ATTEMPTS_MAX {
            let Some(page) = self.read()? else {
                let first = Ledger {
                    sink: self.sink.clone(),
                    log_id: self.log_id.clone(),
                    position: None,
                    chain: None,
                    epoch: self.first_epoch,
                    plan: self.fingerprint.clone(),
                    generation: None,
                    newest_generation: 0,
                    swap: None,
                    names: Vec::new(),
                };
                if bookkeeping::create_ledger(&self.client, &first)? {
                    self.epoch = Some(self.first_epoch);
                    return Ok(self.first_epoch);
                }
                continue;
            };
            let found = &page.ledger.log_id;
            if *found != self.log_id && from != Some(found) {
                return Err(StoreError::OtherLog {
                    ours: self.log_id.clone(),
                    found: found.clone(),
                });
            }
            let mut next = self.complete(page.ledger.clone())?;
            next.epoch += 1;
            if next.plan != self.fingerprint || next.log_id != self.log_id {
                next.plan.clone_from(&self.fingerprint);
                next.log_id.clone_from(&self.log_id);
                next.position = None;
            }
            let epoch = next.epoch;
            let shown = match next.position {
                Some(_) => self.live_indexes(&next),
                None => Vec::new(),
            };
            if bookkeeping::replace_ledger(&self.client, &page, next)?.is_some() {
                self.epoch = Some(epoch);
                self.rebuilding = None;
                // What the predecessor applied counts as reached from now on.
                ddl::refresh(&self.client, &shown)?;
                return Ok(epoch);
            }
        }
        Err(StoreError::Unavailable {
            what: format!("taking over {}", self.client.shown),
            cause: "others take the same sink over all the time".into(),
        })
    }

    fn check_target(&mut self) -> Result<(), StoreError> {
        for mapping in &self.plan.mappings {
            ddl::check_mapping(mapping)?;
            ddl::check_owner(&self.client, &self.sink, &mapping.into)?;
        }
        Ok(())
    }

    fn check_shape(&mut self) -> Result<(), StoreError> {
        let ledger = match self.read()? {
            Some(page) => self.resolved(page.ledger)?,
            None => return Ok(()),
        };
        let indexes = self.live_indexes(&ledger);
        for (mapping, index) in self.plan.mappings.iter().zip(&indexes) {
            ddl::check_shape(&self.client, mapping, index)?;
        }
        // An idle sink has no batches behind which it could be done.
        match self.epoch {
            Some(_) => self.maintenance(),
            None => Ok(()),
        }
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let page = self.owned_page()?;
        let at = page.ledger.position_under(&self.fingerprint);
        let is_expected = at
            .as_ref()
            .is_some_and(|at| at.position == batch.from && at.log_id == self.log_id);
        let (true, Some(generation)) = (is_expected, page.ledger.generation) else {
            return Err(StoreError::PositionMismatch {
                expected: Some(batch.from),
                found: at,
            });
        };
        let changes = batch.changes.iter().enumerate();
        let changes = changes.flat_map(|(n, of)| of.iter().map(move |change| (n, change)));
        self.write(generation, changes, batch.is_repair())?;
        failpoint::hit(&self.sink, "before_commit");
        let ledger = Ledger {
            position: Some(batch.to.get()),
            chain: batch.chain,
            ..page.ledger.clone()
        };
        self.replace(&page, ledger)?;
        let indexes = self.indexes(generation);
        let touched = (indexes.into_iter().zip(&batch.changes))
            .filter(|(_, changes)| !changes.is_empty())
            .map(|(index, _)| index);
        self.unpublished.extend(touched);
        self.maintenance()
    }

    /// No lock is held during a bulk request: only the sink waits for it.
    fn batch_time(&self) -> Range<Duration> {
        BATCH_TIME
    }

    /// A refresh for every batch would cost more than the batch.
    fn publishes(&self) -> bool {
        true
    }

    fn publish(&mut self) -> Result<(), StoreError> {
        let indexes: Vec<String> = self.unpublished.iter().cloned().collect();
        ddl::refresh(&self.client, &indexes)?;
        self.unpublished.clear();
        Ok(())
    }

    fn begin_rebuild(&mut self) -> Result<(), StoreError> {
        self.begin()
    }

    fn load(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        self.stage(mapping, rows)
    }

    fn finish_rebuild(&mut self, place: LogPlace) -> Result<(), StoreError> {
        self.finish(place)
    }

    fn reader(&mut self) -> Result<Box<dyn StoreReader>, StoreError> {
        let mismatch = |found| StoreError::PositionMismatch {
            expected: None,
            found,
        };
        let ledger = match self.read()? {
            Some(page) => self.resolved(page.ledger)?,
            None => return Err(mismatch(None)),
        };
        let Some(at) = ledger.position_under(&self.fingerprint) else {
            return Err(mismatch(None));
        };
        let indexes = self.live_indexes(&ledger);
        ddl::refresh(&self.client, &indexes)?;
        let in_use = Arc::clone(&self.in_use);
        let reader = Reader::open(&self.client, &self.plan, &indexes, at.position, in_use)?;
        // Another process may have gone on while the snapshot was opened.
        let now = match self.read()? {
            Some(page) => self
                .resolved(page.ledger)?
                .position_under(&self.fingerprint),
            None => None,
        };
        match now == Some(at.clone()) {
            true => Ok(Box::new(reader)),
            false => Err(StoreError::PositionMismatch {
                expected: Some(at.position),
                found: now,
            }),
        }
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        let page = self.owned_page()?;
        let live = page.ledger.generation.unwrap_or(0);
        self.discard(&[live])?;
        for index in self.live_indexes(&page.ledger) {
            ddl::forget_owner(&self.client, &index)?;
        }
        let planned = self.plan.mappings.iter().map(|m| &m.into);
        for name in page.ledger.names.iter().chain(planned) {
            claims::release(&self.client, &self.sink, name)?;
        }
        if !bookkeeping::delete_ledger(&self.client, &page)? {
            self.owned_page()?;
        }
        self.epoch = None;
        self.rebuilding = None;
        Ok(())
    }
}
