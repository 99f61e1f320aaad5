//! A seeded workload over every operation of the log, and the model that judges what a crash left.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc;

use onelog_log::{
    Flush, FlushPool, HardStateRead, Log, LogReader, Place, Prepare, ReadError, Recovery, Retain,
    SaveWatermark, SimulatedDisk, check,
};
use onelog_record::{Entry, Index, Term};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{end_at, entry, hard_state, open};

const IN_FLIGHT_MAX: usize = 4;
/// With so many bytes in flight there is still room for any group.
const IN_FLIGHT_BYTES: usize = 32 << 10;
/// How many jobs beside the flushes wait at most.
const JOBS_MAX: usize = 3;

/// A job beside the flushes: it runs at any time after it was made.
#[derive(Debug)]
enum Job {
    Retain(Retain),
    Save(SaveWatermark),
    Prepare(Prepare),
}

impl Job {
    fn run(self) -> Result<(), Failed> {
        match self {
            Self::Retain(retain) => retain.run().map(drop).map_err(failed),
            Self::Save(save) => save.run().map_err(failed),
            Self::Prepare(prepare) => prepare.run().map_err(failed),
        }
    }
}

/// What may and what must be there after a crash.
#[derive(Debug, Default)]
pub struct Model {
    /// Up to here the log said "durable".
    acknowledged: u64,
    /// What was ever staged at each index and not taken back for good.
    staged: BTreeMap<u64, Vec<Entry>>,
    /// The highest index below which retention was allowed to drop.
    may_drop_below: u64,
    /// The place behind which a restart was begun and not ended.
    restarting: Option<Place>,
    saved_term: u64,
    tried_term: u64,
    is_closed: bool,
    /// Whether it was closed on a full disk, which takes no indexes.
    is_closed_full: bool,
}

pub struct Workload {
    pub model: Model,
    disk: SimulatedDisk,
    random: StdRng,
    log: Option<Log>,
    flushes: Vec<Flush>,
    jobs: Vec<Job>,
    term: u64,
    keep_going: bool,
}

type Failed = String;

fn failed(error: impl std::fmt::Display) -> Failed {
    error.to_string()
}

/// A disk may fail; what was acknowledged may not be damaged.
fn read(reader: &LogReader, from: Index, to: Index) -> Result<Vec<Entry>, Failed> {
    match reader.entries(from, to.next(), usize::MAX) {
        Err(error @ ReadError::Corrupt(_)) => panic!("{error}"),
        other => other.map_err(failed),
    }
}

impl Workload {
    /// `keep_going`: whether to go on after an error, as a careless caller would.
    pub fn new(disk: &SimulatedDisk, seed: u64, keep_going: bool) -> Self {
        Self {
            model: Model::default(),
            disk: disk.clone(),
            random: StdRng::seed_from_u64(seed),
            log: None,
            flushes: Vec::new(),
            jobs: Vec::new(),
            term: 1,
            keep_going,
        }
    }

    /// Does `operations` of them; answers how many there were before one failed.
    pub fn run(&mut self, operations: u64) -> Result<(), Failed> {
        let mut first_error = Ok(());
        for _ in 0..operations {
            let result = self.one();
            if result.is_err() && first_error.is_ok() {
                first_error = result;
            }
            if first_error.is_err() && !self.keep_going {
                break;
            }
        }
        first_error
    }

    fn one(&mut self) -> Result<(), Failed> {
        if self.log.is_none() {
            let (log, recovery) = open(&self.disk).map_err(failed)?;
            self.model.judge(&log, &recovery)?;
            self.model.is_closed = false;
            self.log = Some(log);
            return self.save();
        }
        match self.random.random_range(0..100) {
            0..45 => self.stage(),
            45..75 => self.flush(),
            75..80 => self.save(),
            80..86 => self.prepare(),
            86..89 => self.retain(),
            89..90 => self.watermark(),
            90..92 => self.cut_end(),
            92..94 => self.read(),
            94..95 => self.restart(),
            95..97 => self.job(),
            97..99 => self.reopen(),
            _ => self.kill(),
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("opened before anything else")
    }

    fn stage(&mut self) -> Result<(), Failed> {
        if self.flushes.len() >= IN_FLIGHT_MAX {
            return self.flush();
        }
        let first = self.log().last_index().0 + 1;
        let count = self.random.random_range(1..5);
        let bytes = [10, 100, 600, 2_000][self.random.random_range(0..4)];
        let term = self.term;
        let group: Vec<Entry> = (first..first + count)
            .map(|index| entry(term, index, bytes))
            .collect();
        for entry in &group {
            let index = entry.index.0;
            self.model
                .staged
                .entry(index)
                .or_default()
                .push(entry.clone());
        }
        let flushes = self.log().stage(&group).map_err(failed)?;
        self.flushes.extend(flushes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failed> {
        if self.flushes.is_empty() {
            return Ok(());
        }
        let place = self.random.random_range(0..self.flushes.len());
        let flush = self.flushes.remove(place);
        flush.run().map_err(failed)?;
        let durable = self.log().flushed(flush.number).0;
        self.model.acknowledged = self.model.acknowledged.max(durable);
        Ok(())
    }

    /// Stages so many groups while a pool flushes them and another thread runs the jobs, until the
    /// power goes.
    pub fn run_on_threads(&mut self, groups: u64) {
        let Ok((mut log, _)) = open(&self.disk) else {
            return;
        };
        self.model.tried_term = 1;
        if log.save_hard_state(&hard_state(1)).is_err() {
            return;
        }
        self.model.saved_term = 1;
        let (done, ended) = mpsc::channel();
        let pool = FlushPool::start(IN_FLIGHT_MAX, move |number, result, _| {
            let _ = done.send((number, result.is_ok()));
        })
        .expect("threads can be started");
        let (job, jobs) = mpsc::channel::<Job>();
        let worker = std::thread::spawn(move || jobs.iter().try_for_each(Job::run));
        self.log = Some(log);
        for _ in 0..groups {
            if self.stage().is_err() || self.retain().is_err() || self.watermark().is_err() {
                break;
            }
            self.flushes.drain(..).for_each(|flush| pool.push(flush));
            let prepare = self.log().prepare().map(Job::Prepare);
            let waiting = self.jobs.drain(..).chain(prepare);
            waiting.for_each(|waiting| drop(job.send(waiting)));
            while self.log().in_flight_bytes() > IN_FLIGHT_BYTES
                || self.log().flushes_in_flight() >= IN_FLIGHT_MAX
            {
                let Ok((number, true)) = ended.recv() else {
                    break;
                };
                let durable = self.log().flushed(number).0;
                self.model.acknowledged = self.model.acknowledged.max(durable);
            }
        }
        drop((pool, job));
        for (number, is_done) in ended {
            if is_done {
                let durable = self.log().flushed(number).0;
                self.model.acknowledged = self.model.acknowledged.max(durable);
            }
        }
        let _ = worker.join().expect("no job panics");
        self.log = None;
    }

    fn drain(&mut self) -> Result<(), Failed> {
        while !self.flushes.is_empty() {
            self.flush()?;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), Failed> {
        self.term += 1;
        let term = self.term;
        self.model.tried_term = term;
        self.log()
            .save_hard_state(&hard_state(term))
            .map_err(failed)?;
        self.model.saved_term = term;
        Ok(())
    }

    fn prepare(&mut self) -> Result<(), Failed> {
        self.log()
            .prepare()
            .map_or(Ok(()), |job| job.run().map_err(failed))
    }

    fn retain(&mut self) -> Result<(), Failed> {
        // All that is durable, or all but the newest.
        let kept = [0, 25][self.random.random_range(0..2)];
        let below = (self.log().durable().0 + 1).saturating_sub(kept);
        self.model.may_drop_below = self.model.may_drop_below.max(below);
        let retain = self.log().retain_from(Index(below)).map_err(failed)?;
        let Some(retain) = retain.map(Job::Retain) else {
            return Ok(());
        };
        if self.random.random_range(0..2) == 0 {
            return retain.run();
        }
        self.jobs.push(retain);
        self.job_when_many()
    }

    fn watermark(&mut self) -> Result<(), Failed> {
        let save = self.log().watermark(Index::ZERO);
        self.jobs.push(Job::Save(save));
        self.job_when_many()
    }

    fn job_when_many(&mut self) -> Result<(), Failed> {
        if self.jobs.len() < JOBS_MAX {
            return Ok(());
        }
        self.job()
    }

    /// Runs one of the jobs that wait, in any order.
    fn job(&mut self) -> Result<(), Failed> {
        if self.jobs.is_empty() {
            return Ok(());
        }
        let place = self.random.random_range(0..self.jobs.len());
        self.jobs.remove(place).run()
    }

    fn cut_end(&mut self) -> Result<(), Failed> {
        self.drain()?;
        let (first, last) = (self.log().first_index().0, self.log().last_index().0);
        let lowest = first
            .max(last.saturating_sub(20))
            .max(self.model.may_drop_below);
        if last == 0 || lowest > last {
            return Ok(());
        }
        let from = self.random.random_range(lowest..=last);
        self.model.acknowledged = self.model.acknowledged.min(from - 1);
        self.log().cut_end(Index(from)).map_err(failed)?;
        self.model.staged.retain(|index, _| *index < from);
        self.save()
    }

    /// Begins anew behind an entry that the log has, had, or never had.
    fn restart(&mut self) -> Result<(), Failed> {
        self.drain()?;
        let (first, last) = (self.log().first_index().0, self.log().last_index().0);
        let index = Index(
            self.random
                .random_range(first.saturating_sub(10)..last + 30),
        );
        let known = self.log().reader().place(index).map_err(failed)?;
        let unknown = Place {
            index,
            term: Term(self.term),
            end: end_at(index.0),
            checksum: self.random.random(),
        };
        let at = known.unwrap_or(unknown);
        self.model.restarting = Some(at);
        self.log().restart_behind(at).map_err(failed)?;
        self.model.begin_behind(at);
        self.save()
    }

    fn read(&mut self) -> Result<(), Failed> {
        let (first, durable) = (self.log().first_index(), self.log().durable());
        let reader = self.log().reader();
        let found = read(&reader, first, durable)?;
        self.model.judge_entries(first.0, durable.0, &found);
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), Failed> {
        self.drain()?;
        while !self.jobs.is_empty() {
            self.job()?;
        }
        let term = self.term;
        self.log().close(&hard_state(term)).map_err(failed)?;
        self.log = None;
        self.model.is_closed = true;
        self.model.is_closed_full = self.disk.is_full();
        Ok(())
    }

    /// The process dies, the machine lives.
    fn kill(&mut self) -> Result<(), Failed> {
        self.flushes.clear();
        self.jobs.clear();
        self.log = None;
        Ok(())
    }
}

impl Model {
    fn begin_behind(&mut self, at: Place) {
        self.restarting = None;
        self.acknowledged = at.index.0;
        self.may_drop_below = at.index.0 + 1;
        self.staged.clear();
    }

    /// Judges a log that was just opened.
    pub fn judge(&mut self, log: &Log, recovery: &Recovery) -> Result<(), Failed> {
        let (first, last) = (log.first_index().0, log.last_index().0);
        assert_eq!(
            (recovery.first_index.0, recovery.last_index.0),
            (first, last)
        );
        assert_eq!((recovery.start, recovery.end), (log.start(), log.end()));
        assert_eq!(log.durable().0, last);
        if let Some(at) = self.restarting.take()
            && (at.index, at.end) == (Index(last), recovery.start)
            && first == last + 1
        {
            self.begin_behind(at);
            assert_eq!(log.reader().place(at.index).unwrap(), Some(at));
        }
        assert!(
            last >= self.acknowledged,
            "acknowledged up to {}, found up to {last}",
            self.acknowledged
        );
        assert!(
            first <= self.may_drop_below.max(1),
            "dropped up to {first}, allowed below {}",
            self.may_drop_below
        );
        if self.is_closed {
            assert_eq!(recovery.cut, None, "a clean shutdown loses nothing");
            assert!(recovery.scanned_segments <= 1 || self.is_closed_full);
        }
        let found = read(&log.reader(), log.first_index(), Index(last))?;
        self.judge_entries(first, last, &found);
        match recovery.hard_state {
            HardStateRead::Empty => assert_eq!(self.saved_term, 0, "the hard state is lost"),
            HardStateRead::Present(state) => {
                let term = state.term.0;
                assert!(
                    (self.saved_term..=self.tried_term).contains(&term),
                    "{term}"
                );
                self.saved_term = term;
            }
        }
        // What was found counts as durable from now on; what was not found is gone for good.
        self.acknowledged = last;
        self.staged.retain(|index, _| *index <= last);
        for entry in found {
            self.staged.insert(entry.index.0, vec![entry]);
        }
        Ok(())
    }

    fn judge_entries(&self, first: u64, last: u64, found: &[Entry]) {
        assert_eq!(
            found.len() as u64,
            (last + 1).saturating_sub(first),
            "whole"
        );
        for (entry, index) in found.iter().zip(first..) {
            assert_eq!(entry.index.0, index);
            let known = self.staged.get(&index);
            assert!(
                known.is_some_and(|known| known.contains(entry)),
                "entry {index} was never staged like that"
            );
        }
        assert!(found.is_sorted_by_key(|entry| entry.term));
    }
}

/// Opens what a crash left, judges it, and does it again: recovery is idempotent, and what it found
/// survives the next loss of power.
pub fn judge_after_crash(disk: &SimulatedDisk, model: &mut Model) {
    let (log, recovery) = open(disk).expect("nothing acknowledged is damaged");
    model.judge(&log, &recovery).expect("the disk works");
    model.is_closed = false;
    drop(log);
    disk.crash(onelog_log::CrashMode::LoseAll);
    let report = check(disk, &mut |_| ControlFlow::Continue(())).expect("the disk works");
    assert_eq!(report.faults, []);
    assert_eq!(report.wrong_indexes, Vec::<String>::new());
    assert_eq!(report.tail, None, "what was cut is gone");
    let (mut log, recovery) = open(disk).expect("as before");
    assert_eq!(recovery.cut, None, "it was cut once");
    model.judge(&log, &recovery).expect("the disk works");
    // And it goes on.
    let term = model.tried_term + 1;
    model.tried_term = term;
    log.save_hard_state(&hard_state(term))
        .expect("the disk works");
    let last = log.last_index().0;
    let more: Vec<Entry> = (last + 1..last + 4).map(|i| entry(term, i, 50)).collect();
    super::append(&mut log, &more);
    assert_eq!(
        super::read_all(&log)[(last + 1 - log.first_index().0) as usize..],
        more
    );
}
