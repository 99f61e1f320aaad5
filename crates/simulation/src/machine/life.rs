//! One life of the node: the replica, and what a driver keeps for it. Where the node has threads
//! and channels, here are lists, and the scheduler decides what of them comes next.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;

use onelog_engine::Submission;
use onelog_log::{Flush, LogReader, Prepare, Retain, SaveWatermark};
use onelog_record::Position;
use onelog_replica::{
    Answer, CheckpointJob, Event, FOUNDER, Follower, Job, Now, Outbox, Recovered, Replica,
    ReplicaOptions, Request, StartProgress,
};
use onelog_state::State;

use super::MachineOptions;
use super::published::Published;
use crate::machine::world::{Image, Stopped};

const LOG_ID: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;
const CACHE_BYTES: usize = 4 << 20;
const INDEX_EVERY_BYTES: u64 = 1 << 10;

/// What waits for an answer, by its place in the world's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ticket {
    Commit(usize),
    Barrier(usize),
}

#[derive(Debug)]
pub(super) struct Life {
    pub(super) replica: Replica<Ticket, Published>,
    pub(super) reader: LogReader,
    pub(super) state: State,
    outbox: Outbox<Ticket>,
    /// Requests that the replica has not taken yet.
    queue: VecDeque<Event<Ticket>>,
    flushes: Vec<Flush>,
    checkpoint: Option<CheckpointJob>,
    prepare: Option<Prepare>,
    retain: Option<Retain>,
    save: Option<SaveWatermark>,
    /// Jobs that have ended and were not reported yet.
    ended: Vec<Event<Ticket>>,
    pub(super) answered: Vec<Answer<Ticket>>,
    pub(super) follower: Option<(Follower, Position)>,
}

pub(super) fn stopped(doing: &'static str) -> impl Fn(&dyn Display) -> Stopped {
    move |cause| Stopped(format!("{doing}: {cause}"))
}

fn replica_options(options: &MachineOptions) -> ReplicaOptions {
    ReplicaOptions {
        node: FOUNDER,
        election_ms: onelog_replica::ELECTION_MS,
        new_log_id: LOG_ID,
        segment_bytes: options.segment_bytes,
        index_every_bytes: INDEX_EVERY_BYTES,
        memtable_bytes: options.memtable_bytes,
        memtable_bytes_max: options.memtable_bytes_max,
        cache_bytes: CACHE_BYTES,
        checkpoint_interval_ms: options.checkpoint_interval_ms,
        snapshot_age_ms_max: options.snapshot_age_ms_max,
        retain_bytes: options.retain_bytes,
        retain_ms: options.retain_ms,
        retain_past_followers: false,
        disk_reserve_bytes: 0,
        disk_warning_bytes: 0,
        compression: options.compression,
        flushes_in_flight: options.flushes_in_flight,
        ids_max: options.ids_max,
        window_writes_max: options.window_writes_max,
    }
}

impl Life {
    /// Recovers, replays, leads.
    pub(super) fn begin(
        image: &Image,
        options: &MachineOptions,
        now: Now,
    ) -> Result<Self, Stopped> {
        let recovered = Recovered::open(
            Arc::new(image.log.clone()),
            Arc::new(image.state.clone()),
            replica_options(options),
        )
        .map_err(|cause| stopped("open")(&cause))?;
        let published = Published::new(recovered.log_start());
        let mut life = Self {
            reader: recovered.reader(),
            state: recovered.state(),
            replica: recovered
                .begin(published, Arc::default(), now)
                .map_err(|cause| stopped("begin")(&cause))?,
            outbox: Outbox::default(),
            queue: VecDeque::new(),
            flushes: Vec::new(),
            checkpoint: None,
            prepare: None,
            retain: None,
            save: None,
            ended: Vec::new(),
            answered: Vec::new(),
            follower: None,
        };
        loop {
            let progress = life.replica.start_more(now, &mut life.outbox);
            life.take_out();
            match progress.map_err(|cause| stopped("start")(&cause))? {
                StartProgress::Ready => return Ok(life),
                StartProgress::More => {}
                StartProgress::Waits if life.run_flush(0)? || life.run_checkpoint() => {
                    life.report(0, now)?;
                }
                StartProgress::Waits => {
                    return Err(Stopped("the start waits for no job".to_owned()));
                }
            }
        }
    }

    fn take_out(&mut self) {
        for job in self.outbox.jobs.drain(..) {
            match job {
                Job::Flush(flush) => self.flushes.push(flush),
                Job::Checkpoint(checkpoint) => {
                    let before = self.checkpoint.replace(checkpoint);
                    assert!(before.is_none(), "one checkpoint at a time");
                }
                Job::Prepare(prepare) => {
                    let before = self.prepare.replace(prepare);
                    assert!(before.is_none(), "one preparation at a time");
                }
                Job::Retain(retain) => {
                    let before = self.retain.replace(retain);
                    assert!(before.is_none(), "one retention at a time");
                }
                Job::SaveWatermark(save) => {
                    let before = self.save.replace(save);
                    assert!(before.is_none(), "one saved watermark at a time");
                }
                Job::Release(released) => drop(released),
                Job::Send(_) | Job::Fetch(_) | Job::SendSnapshot(_) => {
                    unreachable!("one node has no others")
                }
            }
        }
        self.answered.append(&mut self.outbox.answers);
    }

    fn handle(&mut self, event: Event<Ticket>, now: Now) -> Result<(), Stopped> {
        let result = self.replica.handle(event, now, &mut self.outbox);
        self.take_out();
        result.map_err(|cause| stopped("handle")(&cause))
    }

    /// Puts a request into the queue.
    pub(super) fn send(&mut self, submission: Submission<Ticket>, now: Now) {
        let request = Request {
            bytes: submission.request.size(),
            submission,
            queued_at_ms: now.monotonic_ms,
        };
        self.queue.push_back(Event::Submitted(Box::new(request)));
    }

    pub(super) fn request_barrier(&mut self, barrier: usize) {
        self.queue
            .push_back(Event::ReadBarrier(Ticket::Barrier(barrier)));
    }

    /// Lets the replica take the next request of the queue, if there is one and it may.
    pub(super) fn take_request(&mut self, now: Now) -> Result<bool, Stopped> {
        if !self.replica.may_take() {
            return Ok(false);
        }
        let Some(event) = self.queue.pop_front() else {
            return Ok(false);
        };
        self.handle(event, now)?;
        Ok(true)
    }

    pub(super) fn end_turn(&mut self, now: Now) -> Result<bool, Stopped> {
        let result = self.replica.end_turn(now, &mut self.outbox);
        self.take_out();
        result.map_err(|cause| stopped("end a turn")(&cause))
    }

    pub(super) fn idle(&mut self, now: Now) -> Result<(), Stopped> {
        self.handle(Event::Idle, now)
    }

    /// Silence, until what it brings about has ended too.
    pub(super) fn rest(&mut self, now: Now) -> Result<(), Stopped> {
        self.idle(now)?;
        while self.run_retain() || self.run_save() || self.report(0, now)? {}
        Ok(())
    }

    /// Runs one of the flushes that wait, if there is one.
    pub(super) fn run_flush(&mut self, number: usize) -> Result<bool, Stopped> {
        if self.flushes.is_empty() {
            return Ok(false);
        }
        let flush = self.flushes.remove(number % self.flushes.len());
        self.ended.push(Event::Flushed {
            number: flush.number,
            result: flush.run(),
        });
        Ok(true)
    }

    pub(super) fn run_checkpoint(&mut self) -> bool {
        let Some(checkpoint) = self.checkpoint.take() else {
            return false;
        };
        let result = Box::new(checkpoint.run());
        self.ended.push(Event::Checkpointed(result));
        true
    }

    pub(super) fn run_prepare(&mut self) -> bool {
        let Some(prepare) = self.prepare.take() else {
            return false;
        };
        self.ended.push(Event::Prepared(prepare.run()));
        true
    }

    pub(super) fn run_retain(&mut self) -> bool {
        let Some(retain) = self.retain.take() else {
            return false;
        };
        self.ended.push(Event::Retained(retain.run()));
        true
    }

    pub(super) fn run_save(&mut self) -> bool {
        let Some(save) = self.save.take() else {
            return false;
        };
        self.ended.push(Event::WatermarkSaved(save.run()));
        true
    }

    fn run_background(&mut self) -> bool {
        self.run_checkpoint() || self.run_prepare() || self.run_retain() || self.run_save()
    }

    /// Reports one of the jobs that have ended, if there is one.
    pub(super) fn report(&mut self, number: usize, now: Now) -> Result<bool, Stopped> {
        if self.ended.is_empty() {
            return Ok(false);
        }
        let event = self.ended.remove(number % self.ended.len());
        self.handle(event, now)?;
        Ok(true)
    }

    /// One step towards answering everything; `false` when nothing waits.
    pub(super) fn settle(&mut self, now: Now) -> Result<bool, Stopped> {
        Ok(self.take_request(now)?
            || self.report(0, now)?
            || self.run_flush(0)?
            || self.end_turn(now)?
            || (!self.queue.is_empty() && self.run_checkpoint()))
    }

    pub(super) fn close(&mut self, now: Now) -> Result<(), Stopped> {
        self.handle(Event::Stop, now)?;
        while self.replica.has_background_job() {
            if !self.run_background() && self.ended.is_empty() {
                return Err(Stopped("a job got lost".to_owned()));
            }
            self.report(0, now)?;
        }
        if !self.replica.is_drained() {
            return Err(Stopped("not everything was answered".to_owned()));
        }
        self.replica
            .close()
            .map_err(|cause| stopped("close")(&cause))
    }
}
