//! The engine's thread: drives the replica. It reports what has happened and what time it is, runs
//! the replica's jobs on other threads, and sends its answers.
//!
//! Only this thread touches the replica, and it never waits for the log's disk before the node stops.
//! Flushes run on the pool's threads, checkpoints on one worker, what else is done to the log's files
//! on another; all of them report back through one channel, also when they panic. Whatever fails here is final: the node stops acknowledging, says why, and every waiting
//! request is answered `Stopped`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, never, select};
use onelog_log::FlushPool;
use onelog_record::Refusal;
use onelog_replica::{
    Answer, Event, Failure, Job, Now, Outbox, Replica, Request, StartError, StartProgress,
};

use crate::open::OpenError;
use crate::panics::guarded;
use crate::queue::Exit;
use crate::shared::{Published, Shared};
use crate::space::{SpaceProbe, SpaceWatch};
use crate::ticket;
use crate::worker::Worker;

pub(crate) const ENGINE_THREAD: &str = "onelog-engine";
pub(crate) const CHECKPOINT_THREAD: &str = "onelog-checkpoint";
pub(crate) const PREPARE_THREAD: &str = "onelog-prepare";
const FITS: &str = "one job of each kind at a time always fits the worker's queue";
/// How long nothing must happen before that is reported.
const IDLE_INTERVAL_MS: u64 = 200;

/// By which a client is answered.
pub(crate) type Reply = tokio::sync::oneshot::Sender<ticket::Answer>;

/// How a job ended: reported to the replica, or a failure of the thread that ran it.
pub(crate) type Completed = Result<Event<Reply>, Failure>;

/// What handles of the node send. As small as can be: the queue has thousands of places.
#[derive(Debug)]
pub(crate) enum Command {
    Submit(Box<Request<Reply>>),
    Stop,
}

#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) replica: Replica<Reply, Published>,
    pub(crate) outbox: Outbox<Reply>,
    pub(crate) pool: FlushPool,
    pub(crate) commands: Exit<Command>,
    pub(crate) completed: Receiver<Completed>,
    pub(crate) complete: Sender<Completed>,
    pub(crate) checkpointer: Worker,
    pub(crate) preparer: Worker,
    pub(crate) space: SpaceWatch,
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
            if self.replica.has_replayed() {
                self.refuse_members()?;
            }
            let progress = self.replica.start_more(self.now, &mut self.outbox);
            self.carry_out();
            match progress? {
                StartProgress::Ready => return Ok(()),
                StartProgress::More => self.now = self.shared.now(),
                StartProgress::Waits => {
                    self.wait_for_completion().map_err(StartError::from)?;
                }
            }
        }
    }

    /// Nothing carries messages to other nodes yet. A node that is alone never has any.
    fn refuse_members(&self) -> Result<(), OpenError> {
        match self.replica.members().all().len() {
            0 | 1 => Ok(()),
            members => Err(OpenError::Member { members }),
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
        let stopped = |reply: Reply| drop(reply.send(Err(Refusal::Stopped(reason.clone()))));
        for command in self.commands.close() {
            if let Command::Submit(request) = command {
                stopped(request.submission.ticket);
            }
        }
        self.shared.applied_position.stop();
        self.replica.abandon().into_iter().for_each(stopped);
    }

    fn serve(&mut self) -> Result<(), Failure> {
        loop {
            while let Ok(completed) = self.completed.try_recv() {
                self.handle(completed?)?;
            }
            self.look_for_room();
            let has_taken = self.take_requests()?;
            if has_taken {
                // What is sealed now is stamped after its requests arrived.
                self.now = self.shared.now();
            }
            let has_sealed = self.replica.end_turn(self.now, &mut self.outbox);
            self.carry_out();
            if has_sealed? || has_taken {
                continue;
            }
            if self.replica.is_drained() && self.commands.receiver().is_empty() {
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
            Command::Stop => Event::Stop,
        })
    }

    fn handle(&mut self, event: Event<Reply>) -> Result<(), Failure> {
        let result = self.replica.handle(event, self.now, &mut self.outbox);
        self.carry_out();
        result
    }

    /// Starts jobs and sends answers.
    fn carry_out(&mut self) {
        for job in self.outbox.jobs.drain(..) {
            let (complete, probe) = (self.complete.clone(), self.space.probe.clone());
            match job {
                Job::Flush(flush) => self.pool.push(flush),
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
                Job::Send(_) | Job::Fetch(_) | Job::SendSnapshot(_) => {
                    unreachable!(
                        "a folder with other members is not opened, and a change of the members is never requested"
                    )
                }
                Job::Release(released) => {
                    // Where it does not fit, it is dropped here.
                    let _ = self.preparer.push_if_room(move || drop(released));
                }
            }
        }
        for answer in self.outbox.answers.drain(..) {
            match answer {
                Answer::Decided(reply, answer) => self.shared.reply(reply, answer),
                // The node reports no barriers: the only voter's own position is one.
                Answer::Readable(..) => {}
                // It requests none.
                Answer::Members(..) | Answer::Transferred(..) => {}
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

fn report_room(probe: &SpaceProbe, complete: &Sender<Completed>) {
    if let Some(free) = probe.free_bytes() {
        let _ = complete.send(Ok(Event::FreeSpace(free)));
    }
}
