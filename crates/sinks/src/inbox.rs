//! What reaches a sink's thread: its commands drive the state machine, its requests wait for their
//! turn.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use onelog::{Node, Position, Refusal, WaitError};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::lifecycle::{Action, Event, Leave, Lifecycle};
use crate::memory::{Held, Memory};
use crate::progress::{Progress, SinkState};
use crate::request::{Command, PendingRequest};
use crate::stored::TableIds;

pub(crate) struct Inbox {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) requests: Vec<PendingRequest>,
    /// The tables that the sink follows.
    pub(crate) tables: TableIds,
    /// Whether the next backfill may delete rows, however many.
    pub(crate) may_delete: bool,
    progress: Arc<Progress>,
    commands: mpsc::Receiver<Command>,
    runtime: Runtime,
}

impl Inbox {
    pub(crate) fn new(
        paused: bool,
        tables: TableIds,
        progress: Arc<Progress>,
        commands: mpsc::Receiver<Command>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            lifecycle: Lifecycle::new(paused),
            requests: Vec::new(),
            tables,
            may_delete: false,
            progress,
            commands,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()?,
        })
    }

    /// Takes every command that has come.
    pub(crate) fn receive(&mut self) {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.handle(Some(command)),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => return self.handle(None),
            }
        }
    }

    /// Waits for a command or until the log has reached a position. Whether the time ran out.
    pub(crate) fn wait(&mut self, node: &Node, position: Position, timeout: Duration) -> bool {
        enum Woken {
            Command(Option<Command>),
            Log(Result<(), WaitError>),
        }
        let commands = &mut self.commands;
        let woken = self.runtime.block_on(async {
            tokio::select! {
                biased;
                command = commands.recv() => Woken::Command(command),
                reached = node.wait_for(position, timeout) => Woken::Log(reached),
            }
        });
        match woken {
            Woken::Command(command) => self.handle(command),
            Woken::Log(Ok(())) => {}
            Woken::Log(Err(WaitError::TimedOut { .. })) => return true,
            Woken::Log(Err(WaitError::Stopped)) => self.lifecycle.apply(Event::Leave(Leave::Stop)),
        }
        false
    }

    /// Waits until everything that was acknowledged before is here, which shows that this node is part
    /// of its cluster. `None`: the sink is to leave.
    pub(crate) fn read_barrier(&mut self, node: &Node) -> Option<Result<Position, Refusal>> {
        enum Woken {
            Command(Option<Command>),
            Passed(Result<Position, Refusal>),
        }
        while !self.lifecycle.is_leaving() {
            let commands = &mut self.commands;
            let woken = self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    command = commands.recv() => Woken::Command(command),
                    passed = node.read_barrier() => Woken::Passed(passed),
                }
            });
            match woken {
                Woken::Command(command) => self.handle(command),
                Woken::Passed(passed) => return Some(passed),
            }
        }
        None
    }

    /// Waits for memory, in turn. `None`: a command came first, and was handled.
    pub(crate) fn wait_for_memory(&mut self, memory: &Memory, bytes: usize) -> Option<Held> {
        enum Woken {
            Command(Option<Command>),
            Held(Held),
        }
        let commands = &mut self.commands;
        let woken = self.runtime.block_on(async {
            tokio::select! {
                biased;
                held = memory.take(bytes) => Woken::Held(held),
                command = commands.recv() => Woken::Command(command),
            }
        });
        match woken {
            Woken::Held(held) => Some(held),
            Woken::Command(command) => {
                self.handle(command);
                None
            }
        }
    }

    fn handle(&mut self, command: Option<Command>) {
        let confirm = |reply: SyncSender<()>| {
            // The caller may have stopped waiting.
            let _ = reply.try_send(());
        };
        match command {
            Some(Command::Pause(reply)) => {
                self.lifecycle.apply(Event::Pause);
                // The leave to delete was given to a rebuild, and goes with it.
                self.may_delete &= self.lifecycle.is_rebuilding();
                // With a store that is open, what was applied is published first.
                if let Action::Connect | Action::BackOff { .. } = self.lifecycle.action() {
                    self.progress.set_state(self.lifecycle.shown());
                }
                confirm(reply);
            }
            Some(Command::Resume(reply)) => {
                self.lifecycle.apply(Event::Resume);
                self.progress.revive(match self.lifecycle.action() {
                    Action::Backfill { .. } => self.lifecycle.shown(),
                    _ => SinkState::Starting,
                });
                confirm(reply);
            }
            Some(Command::Rebuild {
                tables,
                may_delete,
                reply,
            }) => {
                self.tables = tables;
                self.may_delete = may_delete;
                self.lifecycle.apply(Event::Rebuild);
                self.progress.revive(SinkState::Rebuilding);
                confirm(reply);
            }
            Some(Command::Request(request)) => self.requests.push(PendingRequest::new(request)),
            Some(Command::Leave(reason)) => self.lifecycle.apply(Event::Leave(reason)),
            None => self.lifecycle.apply(Event::Leave(Leave::Stop)),
        }
    }
}
