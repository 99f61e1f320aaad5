//! One node: a replica, its disks, and the jobs that wait until the test lets them end.

use std::sync::Arc;

use bytes::Bytes;
use onelog_engine::{Message, Prepared, Submission};
use onelog_log::{
    Corruption, CrashMode, Flush, HardState, LogReader, Prepare, ReadError, Retain, SaveWatermark,
    SimulatedDisk,
};
use onelog_record::{
    CommitRequest, Compression, Entry, KeyRange, NodeId, Offset, TABLE_TABLES, TableId, TxnId,
};
use onelog_replica::{
    Answer, CheckpointJob, Event, Failure, Job, Now, Outbox, PinnedSnapshot, ReadForFollower,
    Recovered, Replica, ReplicaOptions, Request, SendSnapshot, StartError, StartProgress,
};
use onelog_state::State;

use super::invariants::{LogChange, Print};
use super::reached::Reached;
use super::watch::Watch;

const LOG_ID: u128 = 0x77;

/// Everything that a node has while it runs.
#[derive(Debug)]
pub struct Life {
    pub replica: Replica<u32, Watch>,
    pub reader: LogReader,
    pub state: State,
    out: Outbox<u32>,
    flushes: Vec<Flush>,
    /// The highest number of those that have run.
    flushed: Option<u64>,
    checkpoint: Option<CheckpointJob>,
    prepare: Option<Prepare>,
    retain: Option<Retain>,
    save: Option<SaveWatermark>,
    fetches: Vec<ReadForFollower>,
    snapshots: Vec<SendSnapshot>,
    /// Jobs that have ended and are not reported.
    ended: Vec<Event<u32>>,
}

#[derive(Debug)]
pub struct Node {
    pub id: NodeId,
    pub log: SimulatedDisk,
    pub state: SimulatedDisk,
    pub options: ReplicaOptions,
    pub now: Now,
    life: Option<Life>,
    pub sent: Vec<Message>,
    pub answers: Vec<Answer<u32>>,
    pub reached: Reached,
    /// Whether a disk is to fail.
    pub may_fail: bool,
    /// Whether a frame of its log is damaged.
    pub(super) has_rot: bool,
    /// What the planned fault is called.
    pub planned: Option<&'static str>,
    /// The process does nothing; time goes on.
    pub is_paused: bool,
    /// How often it was started.
    pub(super) starts: u64,
    /// How often it has saved how far its log is durable and committed.
    pub saves: u64,
    /// Why it has stopped by itself.
    pub failure: Option<Failure>,
}

pub fn options(node: NodeId) -> ReplicaOptions {
    ReplicaOptions {
        node,
        election_ms: onelog_replica::ELECTION_MS,
        new_log_id: LOG_ID,
        segment_bytes: 8 << 10,
        index_every_bytes: 1 << 10,
        memtable_bytes: 4 << 10,
        memtable_bytes_max: 256 << 10,
        cache_bytes: 1 << 20,
        checkpoint_interval_ms: u64::MAX,
        snapshot_age_ms_max: u64::MAX,
        retain_bytes: None,
        retain_ms: None,
        retain_past_followers: false,
        disk_reserve_bytes: 0,
        disk_warning_bytes: 0,
        compression: Compression::None,
        flushes_in_flight: 3,
        ids_max: 100_000,
        window_writes_max: 64,
    }
}

impl Node {
    /// A node with empty disks, which does not run.
    pub fn new(id: NodeId, seed: u64, options: ReplicaOptions) -> Self {
        Self {
            id,
            log: SimulatedDisk::new(seed),
            state: SimulatedDisk::new(seed ^ 1),
            options,
            now: Now {
                monotonic_ms: 0,
                unix_ms: 1_700_000_000_000,
            },
            life: None,
            sent: Vec::new(),
            answers: Vec::new(),
            reached: Reached::default(),
            may_fail: false,
            has_rot: false,
            planned: None,
            is_paused: false,
            starts: 0,
            saves: 0,
            failure: None,
        }
    }

    pub fn runs(&self) -> bool {
        self.life.is_some()
    }

    /// Whether it runs and is not paused.
    pub fn is_awake(&self) -> bool {
        self.runs() && !self.is_paused
    }

    #[track_caller]
    pub fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("the node runs")
    }

    #[track_caller]
    pub fn replica(&self) -> &Replica<u32, Watch> {
        &self.life.as_ref().expect("the node runs").replica
    }

    pub fn admits(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.replica.admits())
    }

    /// Recovers and replays; the only voter leads then. Where a disk is to fail, it may run no more.
    pub fn start(&mut self) -> Result<(), StartError> {
        self.open()?;
        self.lead_on()
    }

    /// Recovers what the disks hold.
    pub fn open(&mut self) -> Result<(), StartError> {
        self.starts += 1;
        // Before it is opened: what a failing disk says of it is of no interest.
        let saved = HardState::read(&self.log).ok().flatten();
        let disks = (Arc::new(self.log.clone()), Arc::new(self.state.clone()));
        let recovered = Recovered::open(disks.0, disks.1, self.options.clone())?;
        self.reached.note(
            "an installation was finished by a start",
            usize::from(recovered.has_finished_install()),
        );
        let (reader, state) = (recovered.reader(), recovered.state());
        let replica = recovered.begin(Watch::default(), Arc::default(), self.now)?;
        let is_ahead = saved.is_some_and(|saved| replica.applied().index > saved.commit);
        let what = "a checkpoint was ahead of the saved commit";
        self.reached.note(what, usize::from(is_ahead));
        self.life = Some(Life {
            replica,
            reader,
            state,
            out: Outbox::default(),
            flushes: Vec::new(),
            flushed: None,
            checkpoint: None,
            prepare: None,
            retain: None,
            save: None,
            fetches: Vec::new(),
            snapshots: Vec::new(),
            ended: Vec::new(),
        });
        Ok(())
    }

    /// Replays what was recovered.
    pub fn lead_on(&mut self) -> Result<(), StartError> {
        loop {
            let now = self.now;
            let life = self.life();
            let progress = life.replica.start_more(now, &mut life.out);
            self.take_out();
            match progress? {
                StartProgress::Ready => break,
                StartProgress::More => {}
                StartProgress::Waits => {
                    assert!(self.run_all_jobs(), "a start waits for a job");
                    if !self.runs() {
                        return Ok(());
                    }
                }
            }
        }
        let replica = self.replica();
        let has_tail = replica.applied().index < replica.durable();
        self.reached.note(
            "a start had entries not known to be committed",
            usize::from(has_tail),
        );
        self.read_recovered()
    }

    /// What was replayed counts as applied, and what is durable as appended: the log is looked at again
    /// as it was recovered.
    fn read_recovered(&mut self) -> Result<(), StartError> {
        let life = self.life();
        let first = life.replica.first_index();
        let end = life.replica.durable().next();
        let entries = match life.reader.entries(first, end, usize::MAX) {
            Err(ReadError::Corrupt(fault)) if self.has_rot => {
                return Err(StartError::Replay(ReadError::Corrupt(fault)));
            }
            Err(_) if self.may_fail => {
                self.note_planned();
                self.end();
                return Ok(());
            }
            entries => entries.expect("nothing fails"),
        };
        let life = self.life();
        let watch = life.replica.observer();
        let recovered = entries.iter().map(Print::of).map(LogChange::Recovered);
        let log = std::iter::once(LogChange::Begins).chain(recovered);
        watch.log.borrow_mut().splice(0..0, log);
        let is_replayed = |entry: &Entry| entry.index <= watch.replayed_to;
        let applied = entries.into_iter().filter(is_replayed);
        watch.applied.borrow_mut().splice(0..0, applied);
        Ok(())
    }

    /// Power fails: the process is gone, and of what was not flushed as much as `mode` says.
    pub fn crash(&mut self, mode: CrashMode) {
        let is_overtaken = self.life.as_ref().is_some_and(|life| {
            let mut waiting = life.flushes.iter();
            waiting.any(|flush| Some(flush.number) < life.flushed)
        });
        let what = "power failed before a flush that a later one had overtaken";
        self.reached.note(what, usize::from(is_overtaken));
        self.log.crash(mode);
        self.state.crash(mode);
        self.end();
    }

    /// The process ends without a crash of the disks.
    pub fn end(&mut self) {
        let life = self.life.as_ref();
        let members = life.and_then(|life| life.replica.observer().members.as_ref());
        let is_joint = members.is_some_and(|(_, members)| !members.outgoing.is_empty());
        let what = "a node ended within a joint configuration";
        self.reached.note(what, usize::from(is_joint));
        self.note_reached();
        self.life = None;
        self.sent.clear();
    }

    pub fn note_reached(&mut self) {
        let Some(life) = &self.life else { return };
        let watch = life.replica.observer();
        self.reached.note("a tail was cut", watch.cuts);
        self.reached
            .note("a snapshot was installed", watch.installs);
        self.reached
            .note("a leadership was lost", watch.lost_leaderships);
    }

    pub fn handle(&mut self, event: Event<u32>) {
        let result = self.try_handle(event);
        self.survive(result);
    }

    /// Where a disk is to fail, the process ends with it.
    fn survive(&mut self, result: Result<impl Sized, Failure>) {
        match result {
            // Also where it meets a damaged frame itself: it is started again.
            Err(failure) if self.may_fail || self.has_rot && is_damage(&failure) => {
                self.note_planned();
                self.end();
                self.failure = Some(failure);
            }
            result => drop(result.expect("nothing fails")),
        }
    }

    fn note_planned(&mut self) {
        if let Some(what) = self.planned.take() {
            self.reached.note(what, 1);
        }
    }

    pub fn try_handle(&mut self, event: Event<u32>) -> Result<(), Failure> {
        let now = self.now;
        let life = self.life();
        let result = life.replica.handle(event, now, &mut life.out);
        self.take_out();
        result
    }

    /// Ends a turn; answers whether another one has something to do.
    pub fn turn(&mut self) -> bool {
        let now = self.now;
        let life = self.life();
        let result = life.replica.end_turn(now, &mut life.out);
        self.take_out();
        let more = matches!(result, Ok(true));
        self.survive(result);
        more
    }

    pub fn turn_if_running(&mut self) {
        if self.runs() {
            self.turn();
        }
    }

    /// A tick's time passes.
    pub fn tick(&mut self) {
        let ms = self.replica().tick_interval_ms();
        self.now.monotonic_ms += ms;
        self.now.unix_ms += ms;
        self.turn();
    }

    pub fn submit(&mut self, ticket: u32, id: TxnId, request: CommitRequest) {
        if !self.replica().may_take() {
            return;
        }
        let request = Request {
            bytes: request.size(),
            submission: Submission {
                id,
                fingerprint: request.fingerprint(),
                prepared: Prepared::default(),
                request,
                ticket,
            },
            queued_at_ms: self.now.monotonic_ms,
        };
        self.handle(Event::Submitted(Box::new(request)));
    }

    fn take_out(&mut self) {
        let Some(life) = &mut self.life else { return };
        for job in life.out.jobs.drain(..) {
            match job {
                Job::Flush(flush) => life.flushes.push(flush),
                Job::Checkpoint(job) => put(&mut life.checkpoint, job),
                Job::Prepare(job) => put(&mut life.prepare, job),
                Job::Retain(job) => put(&mut life.retain, job),
                Job::SaveWatermark(job) => put(&mut life.save, job),
                Job::Release(released) => drop(released),
                Job::Send(messages) => self.sent.extend(messages),
                Job::Fetch(job) => life.fetches.push(job),
                Job::SendSnapshot(job) => life.snapshots.push(*job),
            }
        }
        self.answers.append(&mut life.out.answers);
    }

    /// What was applied since the last call.
    pub fn take_applied(&mut self) -> Vec<Entry> {
        let watch = self.life().replica.observer();
        watch.applied.take()
    }

    /// What happened to the log since the last call.
    pub fn take_log_changes(&mut self) -> Vec<LogChange> {
        let watch = self.life().replica.observer();
        watch.log.take()
    }

    /// Every row of every table, with its version.
    pub fn rows(&mut self) -> Vec<(TableId, Bytes, Offset, Bytes)> {
        let life = self.life();
        let snapshot = life.state.snapshot();
        let catalog = life.replica.catalog();
        let users = catalog.tables().map(|table| table.id);
        let tables: Vec<TableId> = users.chain([TABLE_TABLES]).collect();
        let mut rows = Vec::new();
        for table in tables {
            let all = KeyRange {
                table,
                from: Bytes::new(),
                to: None,
            };
            for row in snapshot.scan(&all, false).unwrap() {
                let row = row.unwrap();
                rows.push((table, row.key, row.version, row.value));
            }
        }
        rows
    }

    /// Runs one of the flushes that wait; its end is not reported yet.
    pub fn run_flush(&mut self, number: usize) -> bool {
        let life = self.life();
        if life.flushes.is_empty() {
            return false;
        }
        let place = number % life.flushes.len();
        let flush = life.flushes.remove(place);
        life.flushed = life.flushed.max(Some(flush.number));
        life.ended.push(Event::Flushed {
            number: flush.number,
            result: flush.run(),
        });
        true
    }

    /// Reads entries of the log, if any are to be read. Answers what turns out to be damaged.
    pub fn run_fetch(&mut self) -> Option<Corruption> {
        let has_rot = self.has_rot;
        let life = self.life();
        let job = life.fetches.pop()?;
        match job.run() {
            Err(ReadError::Corrupt(fault)) if has_rot => {
                life.fetches.push(job);
                return Some(fault);
            }
            result => life.ended.push(Event::Fetched {
                id: job.id(),
                result,
            }),
        }
        let what = match life.replica.role().leads {
            true => "entries were read from the log for a follower",
            false => "a follower read what it had stored to apply it",
        };
        self.reached.note(what, 1);
        None
    }

    /// Answers whether there was any to read.
    fn run_any_fetch(&mut self) -> bool {
        let has_any = !self.life().fetches.is_empty();
        has_any && self.run_fetch().is_none()
    }

    /// Begins to send a snapshot, if one is to be sent and its checkpoint is still the last one.
    pub fn begin_snapshot(&mut self) -> Option<PinnedSnapshot> {
        let job = self.life().snapshots.pop()?;
        let to = job.to();
        let pinned = match job.pin() {
            Err(_) if self.may_fail => {
                self.end();
                return None;
            }
            pinned => pinned.expect("the state can be read"),
        };
        if pinned.is_none() {
            self.reached
                .note("a snapshot was overtaken by a checkpoint", 1);
            let is_whole = false;
            self.handle(Event::SnapshotSent { to, is_whole });
        }
        pinned
    }

    pub fn has_snapshot_to_send(&self) -> bool {
        self.life
            .as_ref()
            .is_some_and(|life| !life.snapshots.is_empty())
    }

    pub fn run_checkpoint(&mut self) -> bool {
        let life = self.life();
        let Some(job) = life.checkpoint.take() else {
            return false;
        };
        life.ended.push(Event::Checkpointed(Box::new(job.run())));
        self.reached.note("a checkpoint was made", 1);
        true
    }

    pub fn run_retain(&mut self) -> bool {
        let life = self.life();
        let Some(job) = life.retain.take() else {
            return false;
        };
        let result = job.run();
        let dropped = result.as_ref().map_or(0, Vec::len);
        life.ended.push(Event::Retained(result));
        self.reached.note("a segment was dropped", dropped);
        true
    }

    pub fn run_save(&mut self) -> bool {
        let life = self.life();
        let Some(job) = life.save.take() else {
            return false;
        };
        life.ended.push(Event::WatermarkSaved(job.run()));
        self.saves += 1;
        true
    }

    pub fn run_prepare(&mut self) -> bool {
        let life = self.life();
        let Some(job) = life.prepare.take() else {
            return false;
        };
        life.ended.push(Event::Prepared(job.run()));
        true
    }

    /// Reports one of the jobs that have ended.
    pub fn report(&mut self, number: usize) -> bool {
        let life = self.life();
        if life.ended.is_empty() {
            return false;
        }
        let place = number % life.ended.len();
        let event = life.ended.remove(place);
        let is_flush = matches!(event, Event::Flushed { .. });
        if is_flush && life.replica.waits_for_jobs() {
            self.reached.note("a flush ended while a cut waited", 1);
        }
        self.handle(event);
        true
    }

    /// Runs every job that waits, and those that come of it. Answers whether there was any.
    pub fn run_all_jobs(&mut self) -> bool {
        let mut any = false;
        while self.runs()
            && (self.run_flush(0)
                || self.run_any_fetch()
                || self.run_checkpoint()
                || self.run_retain()
                || self.run_save()
                || self.run_prepare()
                || self.report(0))
        {
            any = true;
        }
        any
    }
}

/// Whether it stopped because a frame of its log is damaged.
fn is_damage(failure: &Failure) -> bool {
    failure.to_string().contains("the log is corrupt")
}

fn put<J>(place: &mut Option<J>, job: J) {
    assert!(place.is_none(), "one job of a kind at a time");
    *place = Some(job);
}
