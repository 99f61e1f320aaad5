//! The store: its connections, its names, and what each step of the contract does.

use std::sync::Arc;

use onelog_mapping::{Plan, Row};
use onelog_record::Position;
use onelog_store::{
    Batch, Change, Followed, Leftover, LogPlace, Store, StoreError, StorePosition, StoreReader,
};

use crate::bookkeeping::{
    Names, Record, TakeOver, followed, forget_former_records, plan_id, read_position, take_over,
};
use crate::connection::{Form, Servers};
use crate::encode::RowForm;
use crate::fence::Fence;
use crate::kind::RedisTarget;
use crate::reader::{RedisReader, read_contents};
use crate::scripts::Scripts;
use crate::snapshot::Gate;
use crate::write::{Rows, Step, commit_partitions, commit_watched};

/// A Redis that follows the log.
#[derive(Debug)]
pub struct RedisStore {
    pub(crate) place: String,
    pub(crate) sink: String,
    pub(crate) log_id: String,
    pub(crate) plan: Arc<Plan>,
    pub(crate) fingerprint: String,
    pub(crate) forms: Vec<RowForm>,
    pub(crate) names: Names,
    pub(crate) servers: Servers,
    pub(crate) scripts: Scripts,
    pub(crate) gate: Arc<Gate>,
    pub(crate) epoch: Option<u64>,
    /// The epoch of a sink that is not known.
    first_epoch: u64,
    /// The record as it was when it was last watched; one server only.
    pub(crate) watched: Option<Record>,
    /// How many rows of a rebuild were written, by partition and mapping.
    pub(crate) loaded: Vec<Vec<u64>>,
    /// Whether the keys of retired templates were named in the log.
    pub(crate) has_named_retired: bool,
    pub(crate) row: Row,
}

impl RedisStore {
    /// Connects, and refuses a server that would lose rows in silence.
    pub fn open(
        target: &RedisTarget,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<Self, StoreError> {
        let names = Names::new(sink, target.partitions);
        let mut servers = Servers::connect(target, &names)?;
        let mut scripts = Scripts::load(&mut servers.links[0])?;
        for link in &mut servers.links[1..] {
            scripts = Scripts::load(link)?;
        }
        let place = target.server.url.shown();
        Ok(Self {
            gate: Gate::of(&place, sink),
            place,
            sink: sink.to_owned(),
            log_id: log_id.to_owned(),
            fingerprint: plan_id(&plan, target.partitions),
            forms: plan.mappings.iter().map(RowForm::of).collect(),
            loaded: no_rows(&names, &plan),
            plan,
            names,
            servers,
            scripts,
            epoch: None,
            first_epoch: 1,
            watched: None,
            has_named_retired: false,
            row: Row::default(),
        })
    }

    pub(crate) fn epoch(&self) -> u64 {
        #[allow(clippy::expect_used)]
        self.epoch
            .expect("the contract: take_over comes before every change")
    }

    /// Runs one step: on one server all of it at once, on partitions one after the other.
    pub(crate) fn commit(
        &mut self,
        step: Option<(Position, LogPlace)>,
        mut steps: Vec<Step>,
    ) -> Result<(), StoreError> {
        let fence = Fence {
            sink: &self.sink,
            log: &self.log_id,
            plan: &self.fingerprint,
            epoch: self.epoch(),
            step,
        };
        if self.names.are_spread() {
            let (servers, names) = (&mut self.servers, &self.names);
            return commit_partitions(servers, names, &self.scripts, fence, &mut steps);
        }
        let name = self.names.position(0);
        let link = &mut self.servers.links[0];
        match steps.first() {
            Some(step) => commit_watched(link, &name, &mut self.watched, fence, step),
            None => Ok(()),
        }
    }

    /// Deletes the records of partitions that the sink has no longer.
    pub(crate) fn forget_former(&mut self) -> Result<(), StoreError> {
        let epoch = self.epoch();
        forget_former_records(&mut self.servers, &self.names, &self.scripts, epoch)
    }

    pub(crate) fn no_steps(&self) -> Vec<Step> {
        let form = match self.names.are_spread() {
            false => Form::Command,
            true => Form::Arguments,
        };
        vec![Step::new(form); self.names.partitions()]
    }

    /// Gives open snapshots what the keys of a batch hold.
    fn preserve_batch(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if self.gate.snapshots().is_empty() {
            return Ok(());
        }
        let mut wanted = Vec::with_capacity(batch.rows());
        for (mapping, changes) in batch.changes.iter().enumerate() {
            let template = &self.plan.mappings[mapping].key_template;
            for change in changes {
                let partition = self.names.partition_of(&change.key);
                let mut name = Vec::new();
                self.names.row(template, partition, &change.key, &mut name);
                wanted.push((mapping, partition, name));
            }
        }
        self.preserve(&wanted)
    }

    /// Gives open snapshots what keys hold, before they change: mapping, partition, key in Redis.
    pub(crate) fn preserve(
        &mut self,
        wanted: &[(usize, usize, Vec<u8>)],
    ) -> Result<(), StoreError> {
        let snapshots = self.gate.snapshots();
        let is_wanted = |mapping: usize, name: &[u8]| {
            snapshots
                .iter()
                .any(|snapshot| snapshot.wants(mapping, name))
        };
        let mut by_link = vec![Vec::new(); self.servers.links.len()];
        for (mapping, partition, name) in wanted {
            if is_wanted(*mapping, name) {
                by_link[self.servers.of_partition[*partition]].push((*mapping, name.as_slice()));
            }
        }
        for (link, keys) in by_link.into_iter().enumerate() {
            let requested: Vec<(RowForm, &[u8])> = keys
                .iter()
                .map(|(mapping, name)| (self.forms[*mapping], *name))
                .collect();
            let contents = read_contents(&mut self.servers.links[link], &requested)?;
            for ((mapping, name), content) in keys.iter().zip(&contents) {
                for snapshot in &snapshots {
                    snapshot.preserve(*mapping, name, content.as_ref());
                }
            }
        }
        Ok(())
    }
}

impl Store for RedisStore {
    fn position(&mut self) -> Result<Option<StorePosition>, StoreError> {
        read_position(&mut self.servers, &self.names, &self.fingerprint)
    }

    fn followed(&mut self) -> Result<Option<Followed>, StoreError> {
        followed(&mut self.servers, &self.names, &self.log_id)
    }

    fn set_first_epoch(&mut self, epoch: u64) {
        self.first_epoch = epoch;
    }

    fn take_over_from(&mut self, from: Option<&str>) -> Result<u64, StoreError> {
        let gate = Arc::clone(&self.gate);
        let _entered = gate.enter();
        self.watched = None;
        let by = TakeOver {
            log_id: &self.log_id,
            plan: &self.fingerprint,
            from,
            first_epoch: self.first_epoch,
        };
        let epoch = take_over(&mut self.servers, &self.names, &self.scripts, &by)?;
        gate.took_over(epoch);
        self.epoch = Some(epoch);
        if self.has_unfinished_rebuild()? {
            self.clear_leftovers()?;
        }
        Ok(epoch)
    }

    fn check_target(&mut self) -> Result<(), StoreError> {
        self.check_owners()
    }

    fn check_shape(&mut self) -> Result<(), StoreError> {
        self.check_owned()?;
        self.look_at_retired()
    }

    fn leftovers(&mut self) -> Result<Vec<Leftover>, StoreError> {
        self.count_retired()
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let mut rows = Rows::new(&self.plan, &self.forms, &self.names, &mut self.row);
        for (mapping, changes) in batch.changes.iter().enumerate() {
            if batch.is_repair() && self.names.are_spread() {
                rows.forget_copies(mapping, changes);
            }
            rows.changes(mapping, changes)?;
        }
        let steps = rows.finish();
        let gate = Arc::clone(&self.gate);
        let _entered = gate.enter();
        self.preserve_batch(batch)?;
        self.commit(Some((batch.from, batch.place())), steps)
    }

    fn begin_rebuild(&mut self) -> Result<(), StoreError> {
        self.begin()
    }

    fn load(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        let mut staged = Rows::new(&self.plan, &self.forms, &self.names, &mut self.row);
        staged.stage(mapping, rows)?;
        let steps = staged.finish();
        self.commit(None, steps)?;
        for change in rows.iter().filter(|change| change.value.is_some()) {
            self.loaded[self.names.partition_of(&change.key)][mapping] += 1;
        }
        Ok(())
    }

    fn finish_rebuild(&mut self, place: LogPlace) -> Result<(), StoreError> {
        self.finish(place)
    }

    fn reader(&mut self) -> Result<Box<dyn StoreReader>, StoreError> {
        let reader = RedisReader::open(
            self.servers.connect_again()?,
            self.names.clone(),
            Arc::clone(&self.plan),
            &self.fingerprint,
            &self.gate,
        )?;
        Ok(Box::new(reader))
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        let gate = Arc::clone(&self.gate);
        let _entered = gate.enter();
        self.check_epoch()?;
        self.clear_leftovers()?;
        self.forget_owners()?;
        self.forget_former()?;
        let mut steps = self.no_steps();
        for (partition, step) in steps.iter_mut().enumerate() {
            step.then.push(&[b"DEL", &self.names.position(partition)]);
        }
        self.commit(None, steps)?;
        self.watched = None;
        self.epoch = None;
        Ok(())
    }
}

pub(crate) fn no_rows(names: &Names, plan: &Plan) -> Vec<Vec<u64>> {
    vec![vec![0; plan.mappings.len()]; names.partitions()]
}
