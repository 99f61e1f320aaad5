//! The engine's thread: drives the replica. It reports what has happened and what time it is, runs
//! the replica's jobs on other threads, and sends its answers.
//!
//! Only this thread touches the replica, and it never waits for the log's disk before the node stops.
//! Flushes run on the pool's threads, checkpoints on one worker, what else is done to the log's files
//! on another; all of them report back through one channel, also when they panic. Whatever fails here is final: the node stops acknowledging, says why, and every waiting
//! request is answered `Stopped`. With other nodes, their messages come through a channel of their own,
//! and the replica's messages are handed to the connections, which wait for nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, never, select};
use onelog_engine::{MemberChange, Message};
use onelog_log::{FlushPool, ReadError};
use onelog_record::NodeId;
use onelog_replica::{
    Answer, Event, FOUNDER, Failure, Job, Now, Outbox, ReadForFollower, Replica, Request,
    StartError, StartProgress,
};

use crate::cluster::{self, ClusterError, Messages, Reply};
use crate::open::OpenError;
use crate::panics::guarded;
use crate::queue::Exit;
use crate::shared::{Published, Shared};
use crate::space::{SpaceProbe, SpaceWatch};
use crate::stopping::Stopping;
use crate::worker::Worker;

pub(crate) const ENGINE_THREAD: &str = "onelog-engine";
pub(crate) const CHECKPOINT_THREAD: &str = "onelog-checkpoint";
pub(crate) const PREPARE_THREAD: &str = "onelog-prepare";
const FITS: &str = "one job of each kind at a time always fits the worker's queue";
const FETCH_THREAD: &str = "onelog-fetch";
/// How long nothing must happen before that is reported.
const IDLE_INTERVAL_MS: u64 = 200;

/// How many messages of other nodes are taken in one turn.
const MESSAGES_PER_TURN_MAX: usize = 256;
/// With so many bytes of them the turn ends.
const MESSAGE_BYTES_PER_TURN: usize = 8 << 20;

/// How a job ended: reported to the replica, or a failure of the thread that ran it.
pub(crate) type Completed = Result<Event<Reply>, Failure>;

/// What handles of the node send. As small as can be: the queue has thousands of places.
#[derive(Debug)]
pub(crate) enum Command {
    Submit(Box<Request<Reply>>),
    Barrier(Reply),
    ChangeMembers(Reply, Vec<MemberChange>),
    Transfer(Reply, NodeId),
    Stop,
}

impl Command {
    pub(crate) fn into_reply(self) -> Option<Reply> {
        match self {
            Self::Submit(request) => Some(request.submission.ticket),
            Self::Barrier(reply) | Self::ChangeMembers(reply, _) | Self::Transfer(reply, _) => {
                Some(reply)
            }
            Self::Stop => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) replica: Replica<Reply, Published>,
    pub(crate) outbox: Outbox<Reply>,
    pub(crate) pool: FlushPool,
    pub(crate) commands: Exit<Command>,
    pub(crate) messages: Option<Messages>,
    pub(crate) completed: Receiver<Completed>,
    pub(crate) complete: Sender<Completed>,
    pub(crate) checkpointer: Worker,
    pub(crate) preparer: Worker,
    pub(crate) space: SpaceWatch,
    /// To whom a message could not be sent.
    pub(crate) unreachable: BTreeSet<NodeId>,
    /// How many flushes have not ended.
    pub(crate) flushing: usize,
    pub(crate) stopping: Stopping,
    /// Read when the thread wakes and after each batch of requests.
    pub(crate) now: Now,
}

impl Driver {
    /// Leads the replica until it admits requests.
    pub(crate) fn start(&mut self) -> Result<(), OpenError> {
        if let Some(free) = self.space.probe.free_bytes() {
            self.handle(Event::FreeSpace(free))
                .map_err(StartError::from)?;
        }
        loop {
            while let Ok(completed) = self.completed.try_recv() {
                let event = completed.map_err(StartError::from)?;
                self.handle(event).map_err(StartError::from)?;
            }
            let is_alone = self.shared.cluster.is_none() && self.shared.following.is_none();
            if self.replica.has_replayed() && is_alone {
                self.refuse_members()?;
            }
            let progress = self.replica.start_more(self.now, &mut self.outbox);
            self.carry_out();
            if let Err(StartError::Replay(ReadError::Corrupt(fault))) = &progress
                && cluster::mend(&self.shared, fault)
            {
                continue;
            }
            match progress? {
                StartProgress::Ready => return Ok(()),
                StartProgress::More => self.now = self.shared.now(),
                StartProgress::Waits => {
                    self.wait_for_completion().map_err(StartError::from)?;
                }
            }
        }
    }

    /// A node that is alone never has other members, and nothing would carry messages to them.
    fn refuse_members(&self) -> Result<(), OpenError> {
        match self.replica.members().all().len() {
            0 | 1 => Ok(()),
            _ => Err(ClusterError::NotAlone { node: FOUNDER }.into()),
        }
    }

    /// Runs until the node stops; the log is closed cleanly when nothing failed.
    pub(crate) fn run(mut self) {
        let result = guarded(ENGINE_THREAD, || self.serve().and_then(|()| self.close()));
        if let Err(failure) = result.flatten() {
            tracing::error!(%failure, "the node stops");
            self.shared.fail(&failure);
        }
        let reason = self.shared.stop_reason();
        for command in self.commands.close() {
            if let Some(reply) = command.into_reply() {
                reply.stopped(&reason);
            }
        }
        self.shared.applied_position.stop();
        for reply in self.replica.abandon() {
            reply.stopped(&reason);
        }
        self.shared.lead_no_more();
    }

    fn serve(&mut self) -> Result<(), Failure> {
        loop {
            while let Ok(completed) = self.completed.try_recv() {
                self.handle(completed?)?;
            }
            self.look_for_room();
            let has_heard = self.take_messages()?;
            let has_taken = self.take_requests()? || has_heard;
            if has_taken {
                // What is sealed now is stamped after its requests arrived.
                self.now = self.shared.now();
            }
            let has_sealed = self.replica.end_turn(self.now, &mut self.outbox);
            self.carry_out();
            let has_sealed = has_sealed?;
            self.report_unreachable()?;
            self.go_on_stopping()?;
            if self.has_given_up() {
                return Ok(());
            }
            if has_sealed || has_taken {
                self.now = self.shared.now();
                continue;
            }
            if self.has_stopped() {
                return Ok(());
            }
            self.wait()?;
        }
    }

    fn look_for_room(&mut self) {
        if !self.space.take_due(self.now) {
            return;
        }
        let (probe, complete) = (self.space.probe.clone(), self.complete.clone());
        let is_taken = self.preparer.push(move || {
            report_room(&probe, &complete);
            SpaceWatch::ended(&probe);
        });
        if !is_taken {
            SpaceWatch::ended(&self.space.probe);
        }
    }

    /// Takes what other nodes have sent.
    fn take_messages(&mut self) -> Result<bool, Failure> {
        let (mut has_heard, mut taken_bytes) = (false, 0);
        for _ in 0..MESSAGES_PER_TURN_MAX {
            if taken_bytes >= MESSAGE_BYTES_PER_TURN {
                break;
            }
            let Some((message, bytes)) =
                (self.messages.as_ref()).and_then(|messages| messages.receiver().try_recv().ok())
            else {
                break;
            };
            self.hear(message, bytes)?;
            taken_bytes += bytes;
            has_heard = true;
        }
        Ok(has_heard)
    }

    fn hear(&mut self, message: Message, bytes: usize) -> Result<(), Failure> {
        if let Some(messages) = &self.messages {
            messages.taken(bytes);
        }
        self.handle(Event::Message(Box::new(message)))
    }

    /// Reports those to whom messages could not be sent.
    fn report_unreachable(&mut self) -> Result<(), Failure> {
        for node in std::mem::take(&mut self.unreachable) {
            self.handle(Event::Unreachable(node))?;
        }
        Ok(())
    }

    fn take_requests(&mut self) -> Result<bool, Failure> {
        let mut has_taken = false;
        while self.replica.may_take() {
            let Ok(command) = self.commands.receiver().try_recv() else {
                break;
            };
            self.command(command)?;
            has_taken = true;
        }
        Ok(has_taken)
    }

    fn command(&mut self, command: Command) -> Result<(), Failure> {
        self.handle(match command {
            Command::Submit(request) => {
                self.shared
                    .queued_bytes
                    .fetch_sub(request.bytes, Ordering::Relaxed);
                Event::Submitted(request)
            }
            Command::Barrier(reply) => Event::ReadBarrier(reply),
            Command::ChangeMembers(reply, changes) => Event::ChangeMembers(reply, changes),
            Command::Transfer(reply, to) => Event::Transfer(reply, to),
            Command::Stop => return self.begin_stopping(),
        })
    }

    pub(crate) fn handle(&mut self, event: Event<Reply>) -> Result<(), Failure> {
        if matches!(event, Event::Flushed { .. }) {
            self.flushing -= 1;
        }
        let result = self.replica.handle(event, self.now, &mut self.outbox);
        self.carry_out();
        result
    }

    /// Starts jobs and sends answers.
    fn carry_out(&mut self) {
        for job in self.outbox.jobs.drain(..) {
            let (complete, probe) = (self.complete.clone(), self.space.probe.clone());
            match job {
                Job::Flush(flush) => {
                    self.flushing += 1;
                    self.pool.push(flush);
                }
                Job::Checkpoint(checkpoint) => {
                    let is_taken = self.checkpointer.push(move || {
                        let _ = complete.send(guarded(CHECKPOINT_THREAD, || {
                            Event::Checkpointed(Box::new(checkpoint.run()))
                        }));
                        report_room(&probe, &complete);
                    });
                    assert!(is_taken, "{FITS}");
                }
                Job::Prepare(prepare) => {
                    let is_taken = self.preparer.push(move || {
                        let _ = complete
                            .send(guarded(PREPARE_THREAD, || Event::Prepared(prepare.run())));
                        report_room(&probe, &complete);
                    });
                    assert!(is_taken, "{FITS}");
                }
                Job::Retain(retain) => {
                    let is_taken = self.preparer.push(move || {
                        let _ = complete
                            .send(guarded(PREPARE_THREAD, || Event::Retained(retain.run())));
                        report_room(&probe, &complete);
                    });
                    assert!(is_taken, "{FITS}");
                }
                Job::SaveWatermark(save) => {
                    let is_taken = self.preparer.push(move || {
                        let _ = complete.send(guarded(PREPARE_THREAD, || {
                            Event::WatermarkSaved(save.run())
                        }));
                    });
                    assert!(is_taken, "{FITS}");
                }
                Job::Release(released) => {
                    // Where it does not fit, it is dropped here.
                    let _ = self.preparer.push_if_room(move || drop(released));
                }
                Job::Send(messages) => {
                    if let Some(cluster) = &self.shared.cluster {
                        let mut unreachable = cluster::send(cluster, messages);
                        self.unreachable.append(&mut unreachable);
                    }
                }
                Job::Fetch(read) => fetch(&self.shared, read),
                Job::SendSnapshot(snapshot) => cluster::send_snapshot(&self.shared, *snapshot),
            }
        }
        self.send_answers();
    }

    fn send_answers(&mut self) {
        for answer in self.outbox.answers.drain(..) {
            match answer {
                Answer::Decided(reply, answer) => self.shared.reply(reply, answer),
                Answer::Readable(reply, position) => reply.readable(position),
                Answer::Members(reply, answer) => reply.members(answer),
                Answer::Transferred(Reply::HandOver, answer) => {
                    if let Err(error) = answer {
                        tracing::info!(%error, "the leadership was not handed on");
                    }
                    self.stopping = Stopping::HandedOn;
                }
                Answer::Transferred(reply, answer) => reply.transferred(answer),
            }
        }
    }

    fn wait_for_completion(&mut self) -> Result<(), Failure> {
        let completed = self
            .completed
            .recv()
            .map_err(|_| Failure::Thread("completion"))?;
        self.now = self.shared.now();
        self.handle(completed?)
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let idle = never();
        let silence_ms = IDLE_INTERVAL_MS.min(self.replica.tick_interval_ms());
        let no_messages = never();
        let messages = match &self.messages {
            Some(messages) => messages.receiver().clone(),
            None => no_messages,
        };
        let commands = if self.replica.may_take() {
            self.commands.receiver()
        } else {
            &idle
        };
        select! {
            recv(self.completed) -> completed => {
                self.now = self.shared.now();
                self.handle(completed.map_err(|_| Failure::Thread("flush"))??)
            }
            recv(commands) -> command => {
                self.now = self.shared.now();
                self.command(command.unwrap_or(Command::Stop))
            }
            recv(messages) -> message => {
                self.now = self.shared.now();
                match message {
                    Ok((message, bytes)) => self.hear(message, bytes),
                    Err(_) => Err(Failure::Thread("peers")),
                }
            }
            default(Duration::from_millis(silence_ms)) => {
                self.now = self.shared.now();
                self.handle(Event::Idle)
            }
        }
    }

    fn close(&mut self) -> Result<(), Failure> {
        while self.replica.has_background_job() {
            self.wait_for_completion()?;
        }
        self.replica.close()
    }
}

/// Reads entries for a follower. What is not reported would stop its replication for ever.
fn fetch(shared: &Arc<crate::shared::Shared>, read: ReadForFollower) {
    let Some(cluster) = &shared.cluster else {
        return;
    };
    let job_of = Arc::clone(shared);
    let is_taken = cluster.fetcher.push(move || {
        let id = read.id();
        let ended = guarded(FETCH_THREAD, || Event::Fetched {
            id,
            result: cluster::read_mended(&job_of, || read.run()),
        });
        job_of.report_end(ended);
    });
    assert!(
        is_taken,
        "each member has one read at a time, and the worker's queue has room for all"
    );
}

fn report_room(probe: &SpaceProbe, complete: &Sender<Completed>) {
    if let Some(free) = probe.free_bytes() {
        let _ = complete.send(Ok(Event::FreeSpace(free)));
    }
}
