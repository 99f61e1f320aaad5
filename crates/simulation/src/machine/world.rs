//! What outlives a node: its disks, its clients, what they remember, and the random numbers.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use onelog_log::{CrashMode, SimulatedDisk};
use onelog_record::{Index, Position, TABLE_UNIQUE, TableDefinition, TableKind, ValueKind};
use onelog_replica::Now;
use rand::SeedableRng;

use super::MachineOptions;
use super::clients::Client;
use super::life::Life;
use super::witness::{Archive, read};
use crate::checker::{Report, Rule, check};
use crate::history::{Clock, History, Logged, Moment};
use crate::workloads::{Random, Workload};

/// How many actions follow a recovery before the proof.
const ACTIONS_AFTER_RECOVERY: usize = 40;

/// The node stopped, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped(pub String);

/// A node's two disks.
#[derive(Clone, Debug)]
pub struct Image {
    pub log: SimulatedDisk,
    pub state: SimulatedDisk,
}

/// The files of a disk.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

impl Image {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            log: SimulatedDisk::new(seed),
            state: SimulatedDisk::new(seed ^ 1),
        }
    }

    pub(super) fn with_files(seed: u64, (log, state): (Files, Files)) -> Self {
        Self {
            log: SimulatedDisk::with_files(seed, log),
            state: SimulatedDisk::with_files(seed ^ 1, state),
        }
    }

    pub(super) fn files(&self) -> (Files, Files) {
        (self.log.files(), self.state.files())
    }

    fn crash(&self, mode: CrashMode) {
        self.log.crash(mode);
        self.state.crash(mode);
    }

    fn mend(&self) {
        self.log.mend();
        self.state.mend();
    }
}

/// Disks, clients and history; and the node, while it lives.
#[derive(Debug)]
pub struct World {
    pub(super) options: MachineOptions,
    pub(super) image: Image,
    pub(super) life: Option<Life>,
    pub(super) random: Random,
    pub(super) clock: Clock,
    pub(super) history: History,
    pub(super) report: Report,
    pub(super) clients: Vec<Client>,
    pub(super) workloads: Arc<Vec<Box<dyn Workload>>>,
    pub(super) archive: Archive,
    pub(super) archived_to: Index,
    pub(super) now: Now,
    /// When each client that waits for a read barrier requested it.
    pub(super) barriers: Vec<(usize, Moment)>,
    /// From here on everything that the workloads need at the beginning is there.
    pub(super) set_up_at: Option<Position>,
    pub(super) trace: DefaultHasher,
    pub(super) definitions: Vec<TableDefinition>,
}

fn unique_rows() -> TableDefinition {
    TableDefinition {
        id: TABLE_UNIQUE,
        name: "onelog.unique".into(),
        kind: TableKind::Keyed,
        value: ValueKind::Bytes,
        schema: None,
        unique: Vec::new(),
        dropped: false,
    }
}

impl World {
    /// A world with empty disks.
    #[must_use]
    pub fn new(seed: u64, options: MachineOptions, workloads: Vec<Box<dyn Workload>>) -> Self {
        let mut definitions = vec![unique_rows()];
        definitions.extend(workloads.iter().flat_map(|workload| workload.tables()));
        Self {
            image: Image::new(seed),
            life: None,
            random: Random::seed_from_u64(seed),
            clock: Clock::default(),
            history: History::default(),
            report: Report::default(),
            clients: vec![Client::default(); options.clients],
            workloads: Arc::new(workloads),
            archive: Archive::default(),
            archived_to: Index(1),
            now: Now {
                monotonic_ms: 0,
                unix_ms: 1_700_000_000_000,
            },
            barriers: Vec::new(),
            set_up_at: None,
            trace: DefaultHasher::new(),
            definitions,
            options,
        }
    }

    /// The same past on copies of the disks as they are now, with other random numbers. Only
    /// between two lives.
    #[must_use]
    pub(super) fn fork(&self, seed: u64) -> Self {
        assert!(self.life.is_none(), "a living node cannot be copied");
        Self {
            options: self.options.clone(),
            image: Image::with_files(seed, self.image.files()),
            life: None,
            random: Random::seed_from_u64(seed),
            clock: Clock::default(),
            history: self.history.clone(),
            report: self.report.clone(),
            clients: self.clients.clone(),
            workloads: Arc::clone(&self.workloads),
            archive: self.archive.clone(),
            archived_to: self.archived_to,
            now: self.now,
            barriers: self.barriers.clone(),
            set_up_at: self.set_up_at,
            trace: self.trace.clone(),
            definitions: self.definitions.clone(),
        }
        .at_moment(&self.clock)
    }

    /// Moments go on where another clock is.
    fn at_moment(self, clock: &Clock) -> Self {
        let last = clock.tick();
        while self.clock.tick() < last {}
        self
    }

    /// The oldest position in the log, while the node lives.
    #[must_use]
    pub fn log_start(&self) -> Option<Position> {
        Some(self.life.as_ref()?.replica.log_start())
    }

    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// What happened, and the log and the tables to hold it against. After [`World::prove`].
    #[must_use]
    pub fn into_witness(self) -> (History, Vec<Logged>, Vec<TableDefinition>) {
        (self.history, self.archive.log, self.definitions)
    }

    /// A digest of everything that was done and answered, and of every byte of both disks.
    #[must_use]
    pub fn trace(&self) -> u64 {
        let mut trace = self.trace.clone();
        self.image.log.files().hash(&mut trace);
        self.image.state.files().hash(&mut trace);
        self.image.log.steps().hash(&mut trace);
        self.image.state.steps().hash(&mut trace);
        trace.finish()
    }

    /// Begins a life of the node.
    pub fn open(&mut self) -> Result<(), Stopped> {
        let life = Life::begin(&self.image, &self.options, self.now)?;
        self.life = Some(life);
        Ok(())
    }

    /// Power fails: the node is gone, and of what was not flushed as much as `mode` says.
    pub fn crash(&mut self, mode: CrashMode) {
        // Handles die first, so that nothing is written by whatever is dropped.
        self.image.crash(mode);
        self.life = None;
        self.forget_waiting();
    }

    /// Does what an idle node does before nothing happens any more: answers everything, and saves
    /// how far the log is durable.
    pub fn settle(&mut self) -> Result<(), Stopped> {
        self.drain()?;
        self.archive_more()?;
        let now = self.now;
        self.life.as_mut().map_or(Ok(()), |life| life.rest(now))
    }

    /// The process ends; what it wrote stays as the disk has it. The disk is mended.
    pub fn kill(&mut self) {
        self.life = None;
        self.image.mend();
        self.forget_waiting();
    }

    fn forget_waiting(&mut self) {
        for client in &mut self.clients {
            client.forget_waiting();
        }
    }

    /// Reads the log as it is now into the archive.
    pub(super) fn archive_all(&mut self) -> Result<(), Stopped> {
        let Some(life) = &self.life else {
            return Ok(());
        };
        let first = life.replica.first_index();
        let to = life
            .replica
            .applied()
            .index
            .min(life.replica.durable())
            .next();
        let read = read(&life.reader, first, to)?;
        let end = life.replica.applied().position;
        let lost = self.archive.log.iter().filter(|known| known.end > end);
        for known in lost {
            let text = format!(
                "transaction {} was read from the log at offset {} and is gone: the log ends at {end}",
                known.id, known.first_offset
            );
            self.report.add(Rule::AcknowledgedLost, text);
        }
        self.archive.log.retain(|known| known.end <= end);
        self.archive.extend(read, &mut self.report);
        self.archived_to = to;
        Ok(())
    }

    /// Archives what is durable and not archived yet.
    pub(super) fn archive_more(&mut self) -> Result<(), Stopped> {
        let Some(life) = &self.life else {
            return Ok(());
        };
        let to = life
            .replica
            .applied()
            .index
            .min(life.replica.durable())
            .next();
        if to > self.archived_to {
            let read = read(&life.reader, self.archived_to, to)?;
            self.archive.extend(read, &mut self.report);
            self.archived_to = to;
        }
        Ok(())
    }

    /// Begins a life, looks at everything, sends everything again that is not known, goes on
    /// for a while, and proves the whole history.
    pub fn prove(&mut self) -> Report {
        if let Err(Stopped(why)) = self.prove_lives() {
            let text = format!("the node could not open or go on after a fault: {why}");
            // Without its log there is no witness to hold the history against.
            let mut report = std::mem::take(&mut self.report);
            report.add(Rule::CannotGoOn, text);
            return report;
        }
        let mut report = check(&self.history, &self.archive.log, &self.definitions);
        for violation in std::mem::take(&mut self.report).violations {
            report.add(violation.rule, violation.message);
        }
        report
    }

    fn prove_lives(&mut self) -> Result<(), Stopped> {
        if self.life.is_none() {
            self.open()?;
        }
        self.archive_all()?;
        self.audit_all()?;
        self.set_up()?;
        self.send_again()?;
        self.act(ACTIONS_AFTER_RECOVERY)?;
        self.drain()?;
        self.audit_all()?;
        self.archive_all()
    }
}
