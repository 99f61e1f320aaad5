//! A sink as its supervisor has it: what is known of it, and its thread, where it runs here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use onelog::{Node, Position};
use onelog_mapping::Mapping;
use onelog_record::Offset;
use onelog_store::SinkDefinition;
use tokio::sync::mpsc;

use crate::error::{SinkError, SinksError};
use crate::lifecycle::Leave;
use crate::parking;
use crate::progress::{Place, Progress, SinkState, SinkStatus};
use crate::request::Command;
use crate::retention::RetentionHold;
use crate::runner::Runner;
use crate::sinks::Inner;
use crate::stored::{StoredSink, TableIds};

/// How many commands may wait for a sink.
const COMMANDS_MAX: usize = 64;

/// What is known of a sink.
pub(crate) struct Found {
    pub(crate) definition: SinkDefinition,
    pub(crate) progress: Arc<Progress>,
    pub(crate) retention: Arc<RetentionHold>,
    pub(crate) tables: TableIds,
    former: Vec<Mapping>,
}

#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) definition: SinkDefinition,
    pub(crate) tables: TableIds,
    former: Vec<Mapping>,
    /// The record that says all this, where it was compared with that.
    pub(crate) version: Option<Offset>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) retention: Arc<RetentionHold>,
    pub(crate) commands: mpsc::Sender<Command>,
    /// Set once the thread has the command to leave.
    leaving: Arc<AtomicBool>,
    /// Set by the thread, last of all.
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a sink's thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Absent,
    Runs,
    /// It was sent away, and ends its step.
    Leaves,
    /// It was sent away, and has ended.
    Left,
}

impl Found {
    /// What the log keeps of it.
    pub(crate) fn stored(&self) -> StoredSink {
        StoredSink {
            definition: self.definition.clone(),
            tables: self.tables.clone(),
            former: self.former.clone(),
            verified: self.progress.verified(),
        }
    }

    /// Mappings by which its store may have been backfilled, with other keys than those of `next`.
    pub(crate) fn former_of(&self, next: &SinkDefinition) -> Vec<Mapping> {
        let is_backfilled = self.progress.position().is_some();
        self.stored().former_of(next, is_backfilled)
    }

    /// Fails where another node runs it.
    pub(crate) fn check_here(&self) -> Result<(), SinkError> {
        let elsewhere = self.progress.place().elsewhere(&self.definition.name);
        elsewhere.map_or(Ok(()), Err)
    }

    /// Fails where another node runs it. While it waits for a lost one, any node changes what the log
    /// says of it; answers which node that is.
    pub(crate) fn check_changeable(&self) -> Result<Option<u64>, SinkError> {
        match self.progress.place() {
            Place::Waits(node) => Ok(Some(node)),
            _ => self.check_here().map(|()| None),
        }
    }

    /// How many keys are parked. Its thread knows that, and elsewhere the log.
    pub(crate) fn parked(&self, node: &Node) -> u64 {
        match self.progress.place() {
            Place::Here(_) => self.progress.parked(),
            Place::Elsewhere(_) | Place::Waits(_) => {
                let parked = parking::parked(node, &self.definition.name);
                parked.map_or(0, |keys| keys.len() as u64)
            }
        }
    }

    pub(crate) fn status(self, node: &Node) -> SinkStatus {
        let parked = self.parked(node);
        let mut status = self.progress.status(node, &self.retention, self.definition);
        status.parked = parked;
        status
    }
}

impl Inner {
    /// Ends the thread of a sink, which goes on with the next one that is spawned.
    pub(crate) fn hand_over(&self, name: &str) {
        let thread = {
            let mut sinks = self.sinks.lock();
            sinks.get_mut(name).and_then(|handle| {
                // A full queue is read to its end, and the sender is dropped with the handle.
                let _ = handle.commands.try_send(Command::Leave(Leave::HandOver));
                handle.thread.take()
            })
        };
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    /// Lets a sink whose thread has ended go on.
    pub(crate) fn go_on(&self, known: Found) -> Result<(), SinkError> {
        known.progress.revive(SinkState::Starting);
        let from = known.retention.position();
        Ok(self.begin(known.stored(), from, known.progress)?)
    }

    /// Starts a sink where it runs here; elsewhere it only keeps the log for it.
    pub(crate) fn begin(
        &self,
        sink: StoredSink,
        from: Position,
        progress: Arc<Progress>,
    ) -> Result<(), SinksError> {
        let place = self.place_of(&sink.definition);
        progress.set_place(place);
        match place {
            Place::Here(_) => self.spawn(sink, from, progress),
            Place::Elsewhere(_) | Place::Waits(_) => {
                self.hold_log(sink, from, progress);
                Ok(())
            }
        }
    }

    fn hold_log(&self, sink: StoredSink, from: Position, progress: Arc<Progress>) {
        let name = sink.definition.name.clone();
        if let Some(verified) = &sink.verified {
            progress.set_verified(verified.clone());
        }
        let limit = sink.definition.keep_log_bytes_max;
        let retention = Arc::new(RetentionHold::new(self.node.clone(), &name, limit, from));
        // Nobody receives: commands are refused.
        let (commands, _) = mpsc::channel(1);
        let handle = Handle {
            definition: sink.definition,
            tables: sink.tables,
            former: sink.former,
            version: None,
            progress,
            retention,
            commands,
            leaving: Arc::default(),
            ended: Arc::default(),
            thread: None,
        };
        self.sinks.lock().insert(name, handle);
        self.bell.ring();
    }

    pub(crate) fn spawn(
        &self,
        sink: StoredSink,
        from: Position,
        progress: Arc<Progress>,
    ) -> Result<(), SinksError> {
        let name = sink.definition.name.clone();
        if let Some(verified) = &sink.verified {
            progress.set_verified(verified.clone());
        }
        let failed = |cause| SinksError::Thread {
            name: name.clone(),
            cause,
        };
        let limit = sink.definition.keep_log_bytes_max;
        let retention = Arc::new(RetentionHold::new(self.node.clone(), &name, limit, from));
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let leaving = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicBool::new(false));
        let runner = Runner::new(
            self.node.clone(),
            sink.clone(),
            Arc::clone(&progress),
            received,
            Arc::clone(&retention),
            self.memory.clone(),
            Arc::clone(&leaving),
        )
        .map_err(failed)?;
        let thread = std::thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn({
                let (ended, bell) = (Arc::clone(&ended), self.placing.bell());
                move || {
                    runner.run();
                    ended.store(true, Ordering::Release);
                    bell.notify_one();
                }
            })
            .map_err(failed)?;
        let StoredSink {
            definition,
            tables,
            former,
            ..
        } = sink;
        let handle = Handle {
            definition,
            tables,
            former,
            version: None,
            progress,
            retention,
            commands,
            leaving,
            ended,
            thread: Some(thread),
        };
        self.sinks.lock().insert(name, handle);
        self.bell.ring();
        Ok(())
    }
}

impl Handle {
    pub(crate) fn found(&self) -> Found {
        Found {
            definition: self.definition.clone(),
            progress: Arc::clone(&self.progress),
            retention: Arc::clone(&self.retention),
            tables: self.tables.clone(),
            former: self.former.clone(),
        }
    }

    pub(crate) fn is_here(&self) -> bool {
        matches!(self.progress.place(), Place::Here(_))
    }

    /// Whether this is what the record says, but for what a comparison found.
    pub(crate) fn is_same(&self, sink: &StoredSink) -> bool {
        let known = self.found().stored();
        let without = |sink: &StoredSink| {
            let sink = StoredSink {
                verified: None,
                ..sink.clone()
            };
            sink.record()
        };
        without(&known) == without(sink)
    }

    /// Another node has changed the definition. A thread that runs is sent away, and the next one goes
    /// on.
    pub(crate) fn change(&mut self, sink: StoredSink) {
        self.send_away();
        self.progress.revive(SinkState::Starting);
        self.progress.set_position(None);
        self.definition = sink.definition;
        self.tables = sink.tables;
        self.former = sink.former;
    }

    /// What its thread is doing. One that has ended by itself, because the node did, is not followed by
    /// another.
    pub(crate) fn work(&mut self) -> Work {
        let is_leaving = self.leaving.load(Ordering::Acquire);
        let has_ended = match &self.thread {
            None => return Work::Absent,
            Some(thread) => self.ended.load(Ordering::Acquire) || thread.is_finished(),
        };
        match (is_leaving, has_ended) {
            (false, _) => Work::Runs,
            (true, false) => Work::Leaves,
            (true, true) => {
                let _ = self.thread.take().map(JoinHandle::join);
                Work::Left
            }
        }
    }

    /// Has the thread end its step and leave, without waiting for that.
    pub(crate) fn send_away(&mut self) {
        if self.thread.is_some() && !self.leaving.swap(true, Ordering::AcqRel) {
            // A full queue is read to its end, and the flag ends long steps.
            let _ = self.commands.try_send(Command::Leave(Leave::HandOver));
            // The thread hears of it at the end of the queue, too.
            self.commands = mpsc::channel(1).0;
        }
    }

    /// The thread, which leaves.
    pub(crate) fn leave(&mut self, reason: Leave) -> Option<JoinHandle<()>> {
        // A full queue is read to its end; an ended thread needs no command.
        let _ = self.commands.try_send(Command::Leave(reason));
        self.leaving.store(true, Ordering::Release);
        self.thread.take()
    }
}
