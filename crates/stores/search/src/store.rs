//! Elasticsearch and OpenSearch as a store: exactly once for every document, but not atomic.
//!
//! These products have no transactions. What holds instead:
//! - **Each document once.** A document's version is its record's offset + 1 (`external` versions),
//!   and the product refuses a version that is not higher. A batch that is sent again, in part or
//!   whole, early or late, therefore changes nothing that is as new or newer. This also holds for a
//!   zombie: what it still sends are images that the log has at those offsets. Older ones than the
//!   store's are refused; one that the new owner has not reached yet is what the new owner is about
//!   to write, byte for byte, and his own is then refused as already there.
//! - **The position moves last**, when every item of the batch was acknowledged, in a document that
//!   is replaced only in the version in which it was read. A zombie fails there, and before it
//!   writes anything at all. A crash in between repeats the batch.
//! - **A deletion stays** as a document that is marked, hidden by the filter of the alias, with the
//!   version of its record: a put that comes late cannot bring the row back. Such documents are
//!   purged after an hour, which no request survives.
//! - **A document that somebody else wrote** has a version of the product's own making, which may
//!   be above those that are to come. Refused items are looked at, and where the document is of an
//!   earlier record, ours is written above its version.
//!
//! What does not hold: a reader may see some rows of a transaction before the others. At the
//! barrier, when nothing is being applied and the indexes were refreshed, the store equals the log
//! at the position; [`Store::reader`] opens its picture there.
//!
//! An exchange of indexes (see `elasticsearch/index.rs`) is written into the ledger as an
//! intention, carried out as one step, then written as done. Whoever opens the store in between is
//! told by the aliases whether it took place, and whoever takes over completes it.

mod bulk;
mod client;
mod document;
mod fields;
mod index;
mod kind;
mod ledger;
mod purge;
mod reader;

pub use self::kind::{ElasticsearchKind, ElasticsearchTarget, KIND};

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onelog_record::Position;

pub use self::client::{http_tls, split_address};

use self::bulk::Bulk;
use self::client::Client;
use self::index::SwapState;
use self::ledger::{Ledger, Page, Swap};
use onelog_mapping::{Plan, Row};
use onelog_store::{Batch, Change, Store, StoreError, StorePosition, StoreReader, failpoint};

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
    client: Client,
    sink: String,
    log_id: String,
    plan: Arc<Plan>,
    fingerprint: String,
    epoch: Option<u64>,
    /// The generation that is being filled.
    filling: Option<u64>,
    /// Held by every picture.
    in_use: Arc<()>,
    /// Indexes that are deleted as soon as no picture needs them.
    retired: Vec<String>,
    purged: Instant,
    /// Indexes that were written to since they were last refreshed.
    unpublished: BTreeSet<String>,
    row: Row,
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
            filling: None,
            in_use: Arc::default(),
            retired: Vec::new(),
            purged: Instant::now(),
            unpublished: BTreeSet::new(),
            row: Row::default(),
        })
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
        ledger::read(&self.client, &self.sink)
    }

    /// The ledger, if the sink is still ours.
    fn owned_page(&self) -> Result<Page, StoreError> {
        #[allow(clippy::expect_used)]
        let ours = self
            .epoch
            .expect("the contract: take_over comes before every change");
        match self.read()? {
            Some(page) if page.ledger.epoch == ours => Ok(page),
            Some(page) => Err(StoreError::Fenced {
                ours,
                found: page.ledger.epoch,
            }),
            None => Err(StoreError::PositionMismatch {
                expected: Position::ZERO,
                found: None,
            }),
        }
    }

    /// Replaces our own ledger.
    fn replace(&self, page: &Page, ledger: Ledger) -> Result<Page, StoreError> {
        let expected = Position(page.ledger.position.unwrap_or(0));
        if let Some(page) = ledger::replace(&self.client, page, ledger)? {
            return Ok(page);
        }
        let found = self.owned_page()?;
        Err(StoreError::PositionMismatch {
            expected,
            found: found.ledger.at(&self.fingerprint),
        })
    }

    fn indexes(&self, generation: u64) -> Vec<String> {
        let mappings = self.plan.mappings.iter();
        mappings
            .map(|mapping| index::name(&mapping.into, generation))
            .collect()
    }

    fn live_indexes(&self, ledger: &Ledger) -> Vec<String> {
        ledger
            .generation
            .map_or_else(Vec::new, |generation| self.indexes(generation))
    }

    /// The ledger as it is once an exchange that took place is written as done.
    fn resolved(&self, ledger: Ledger) -> Result<Ledger, StoreError> {
        let Some(swap) = &ledger.swap else {
            return Ok(ledger);
        };
        match index::swap_state(&self.client, swap)? {
            SwapState::Done => Ok(ledger.swapped(swap)),
            SwapState::Waiting | SwapState::Lost => Ok(ledger),
        }
    }

    /// Carries an exchange out that was intended, unless its indexes are gone.
    fn complete(&self, ledger: Ledger) -> Result<Ledger, StoreError> {
        let Some(swap) = &ledger.swap else {
            return Ok(ledger);
        };
        if index::swap_state(&self.client, swap)? == SwapState::Waiting {
            index::swap(&self.client, swap)?;
        }
        match index::swap_state(&self.client, swap)? {
            SwapState::Done => Ok(ledger.swapped(swap)),
            SwapState::Lost => Ok(Ledger {
                swap: None,
                ..ledger
            }),
            SwapState::Waiting => Err(StoreError::Unavailable {
                what: format!("completing an exchange of indexes in {}", self.client.shown),
                cause: "the aliases changed meanwhile".into(),
            }),
        }
    }

    fn write<'b>(
        &mut self,
        generation: u64,
        changes: impl Iterator<Item = (usize, &'b Change)>,
        is_repair: bool,
    ) -> Result<(), StoreError> {
        let indexes = self.indexes(generation);
        let targets: Vec<String> = indexes.iter().map(|i| index::write_alias(i)).collect();
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

    /// Deletes this sink's indexes that are neither in use nor shown by a picture.
    fn discard(&mut self, keep: &[u64]) -> Result<(), StoreError> {
        self.retired.clear();
        for mapping in &self.plan.mappings {
            for (generation, name, found) in index::generations(&self.client, &mapping.into)? {
                let is_ours = found.owner() == index::Owner::Sink(&self.sink);
                let is_live = found.aliases.contains_key(&mapping.into);
                if is_ours && !is_live && !keep.contains(&generation) {
                    self.retired.push(name);
                }
            }
        }
        self.delete_retired()
    }

    fn delete_retired(&mut self) -> Result<(), StoreError> {
        if Arc::strong_count(&self.in_use) > 1 {
            return Ok(());
        }
        for index in std::mem::take(&mut self.retired) {
            index::delete(&self.client, &index)?;
        }
        Ok(())
    }

    /// Work that is not urgent, after a batch.
    fn tidy(&mut self) -> Result<(), StoreError> {
        if !self.retired.is_empty() {
            self.delete_retired()?;
        }
        if self.purged.elapsed() >= PURGE_EVERY {
            self.purge_deleted(PURGE_AFTER)?;
        }
        Ok(())
    }
}

impl Store for ElasticsearchStore {
    fn position(&mut self) -> Result<Option<StorePosition>, StoreError> {
        let Some(page) = self.read()? else {
            return Ok(None);
        };
        Ok(self.resolved(page.ledger)?.at(&self.fingerprint))
    }

    fn take_over(&mut self) -> Result<u64, StoreError> {
        for _ in 0..LEDGER_ATTEMPTS_MAX {
            let Some(page) = self.read()? else {
                let first = Ledger {
                    sink: self.sink.clone(),
                    log_id: self.log_id.clone(),
                    position: None,
                    epoch: 1,
                    plan: self.fingerprint.clone(),
                    generation: None,
                    newest_generation: 0,
                    swap: None,
                };
                if ledger::create(&self.client, &first)? {
                    self.epoch = Some(1);
                    return Ok(1);
                }
                continue;
            };
            let mut next = self.complete(page.ledger.clone())?;
            next.epoch += 1;
            if next.plan != self.fingerprint {
                next.plan.clone_from(&self.fingerprint);
                next.position = None;
            }
            let epoch = next.epoch;
            let shown = match next.position {
                Some(_) => self.live_indexes(&next),
                None => Vec::new(),
            };
            if ledger::replace(&self.client, &page, next)?.is_some() {
                self.epoch = Some(epoch);
                self.filling = None;
                // What the predecessor applied counts as reached from now on.
                index::refresh(&self.client, &shown)?;
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
            index::check_mapping(mapping)?;
            index::check_owner(&self.client, &self.sink, &mapping.into)?;
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
            index::check_shape(&self.client, mapping, index)?;
        }
        Ok(())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let page = self.owned_page()?;
        let at = page.ledger.at(&self.fingerprint);
        let stands = at
            .as_ref()
            .is_some_and(|at| at.position == batch.from && at.log_id == self.log_id);
        let (true, Some(generation)) = (stands, page.ledger.generation) else {
            return Err(StoreError::PositionMismatch {
                expected: batch.from,
                found: at,
            });
        };
        let changes = batch.changes.iter().enumerate();
        let changes = changes.flat_map(|(n, of)| of.iter().map(move |change| (n, change)));
        self.write(generation, changes, batch.is_repair())?;
        failpoint::hit(&self.sink, "before_commit");
        let ledger = Ledger {
            position: Some(batch.to.get()),
            ..page.ledger.clone()
        };
        self.replace(&page, ledger)?;
        let indexes = self.indexes(generation);
        let touched = (indexes.into_iter().zip(&batch.changes))
            .filter(|(_, changes)| !changes.is_empty())
            .map(|(index, _)| index);
        self.unpublished.extend(touched);
        self.tidy()
    }

    /// Nobody waits for a bulk request but the sink.
    fn batch_time(&self) -> Range<Duration> {
        BATCH_TIME
    }

    /// A refresh for every batch would cost more than the batch.
    fn publishes(&self) -> bool {
        true
    }

    fn publish(&mut self) -> Result<(), StoreError> {
        let indexes: Vec<String> = self.unpublished.iter().cloned().collect();
        index::refresh(&self.client, &indexes)?;
        self.unpublished.clear();
        Ok(())
    }

    fn begin_rebuild(&mut self) -> Result<(), StoreError> {
        let page = self.owned_page()?;
        let ledger = self.complete(page.ledger.clone())?;
        self.discard(&[ledger.generation.unwrap_or(0)])?;
        let mut newest = ledger.newest_generation;
        for mapping in &self.plan.mappings {
            index::check_mapping(mapping)?;
            index::check_owner(&self.client, &self.sink, &mapping.into)?;
            for (generation, _, _) in index::generations(&self.client, &mapping.into)? {
                newest = newest.max(generation);
            }
        }
        let generation = newest + 1;
        let ledger = Ledger {
            newest_generation: generation,
            ..ledger
        };
        self.replace(&page, ledger)?;
        let indexes = self.indexes(generation);
        for (mapping, name) in self.plan.mappings.iter().zip(&indexes) {
            index::create(&self.client, mapping, &self.sink, name)?;
        }
        self.filling = Some(generation);
        Ok(())
    }

    fn load(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        self.owned_page()?;
        let generation = self.filling_generation()?;
        let changes = rows.iter().map(|change| (mapping, change));
        self.write(generation, changes, false)
    }

    fn finish_rebuild(&mut self, position: Position) -> Result<(), StoreError> {
        let page = self.owned_page()?;
        let generation = self.filling_generation()?;
        let indexes = self.indexes(generation);
        for (mapping, index) in self.plan.mappings.iter().zip(&indexes) {
            // Whoever made this name his own since the rebuild began keeps it.
            index::check_owner(&self.client, &self.sink, &mapping.into)?;
            index::settle(&self.client, mapping, index)?;
        }
        let names = self.plan.mappings.iter().map(|m| m.into.clone());
        let swap = Swap {
            generation,
            indexes: names.zip(indexes).collect(),
            position: position.get(),
            log_id: self.log_id.clone(),
            plan: self.fingerprint.clone(),
        };
        let intended = Ledger {
            swap: Some(swap.clone()),
            ..page.ledger.clone()
        };
        let page = self.replace(&page, intended)?;
        failpoint::hit(&self.sink, "before_swap");
        let done = self.complete(page.ledger.clone())?;
        if done.generation != Some(generation) {
            self.owned_page()?;
            return Err(StoreError::PositionMismatch {
                expected: position,
                found: done.at(&self.fingerprint),
            });
        }
        failpoint::hit(&self.sink, "after_swap");
        self.replace(&page, done)?;
        self.filling = None;
        self.unpublished.clear();
        self.discard(&[generation])
    }

    fn reader(&mut self) -> Result<Box<dyn StoreReader>, StoreError> {
        let moved = |found| StoreError::PositionMismatch {
            expected: Position::ZERO,
            found,
        };
        let ledger = match self.read()? {
            Some(page) => self.resolved(page.ledger)?,
            None => return Err(moved(None)),
        };
        let Some(at) = ledger.at(&self.fingerprint) else {
            return Err(moved(None));
        };
        let indexes = self.live_indexes(&ledger);
        index::refresh(&self.client, &indexes)?;
        let in_use = Arc::clone(&self.in_use);
        let reader = reader::Reader::open(&self.client, &self.plan, &indexes, at.position, in_use)?;
        // Somebody else may have gone on while the picture was opened.
        let now = match self.read()? {
            Some(page) => self.resolved(page.ledger)?.at(&self.fingerprint),
            None => None,
        };
        match now == Some(at.clone()) {
            true => Ok(Box::new(reader)),
            false => Err(StoreError::PositionMismatch {
                expected: at.position,
                found: now,
            }),
        }
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        let page = self.owned_page()?;
        let live = page.ledger.generation.unwrap_or(0);
        self.discard(&[live])?;
        for index in self.live_indexes(&page.ledger) {
            index::disown(&self.client, &index)?;
        }
        if !ledger::delete(&self.client, &page)? {
            self.owned_page()?;
        }
        self.epoch = None;
        self.filling = None;
        Ok(())
    }
}

impl ElasticsearchStore {
    fn filling_generation(&self) -> Result<u64, StoreError> {
        self.filling.ok_or_else(|| StoreError::PositionMismatch {
            expected: Position::ZERO,
            found: None,
        })
    }
}
