//! The scheduler: picks one thing after the other that could happen next in the real node.

use onelog_record::Index;
use rand::Rng;

use super::world::{Stopped, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Client,
    Seal,
    RunFlush,
    ReportFlush,
    Freeze,
    RunCheckpoint,
    BeginPrepare,
    RunPrepare,
    SaveHardState,
    Retain,
    TurnClock,
}

/// What may happen, and how often relative to each other.
const WEIGHTS: [(Action, u32); 11] = [
    (Action::Client, 50),
    (Action::Seal, 14),
    (Action::RunFlush, 14),
    (Action::ReportFlush, 14),
    (Action::Freeze, 3),
    (Action::RunCheckpoint, 4),
    (Action::BeginPrepare, 3),
    (Action::RunPrepare, 4),
    (Action::SaveHardState, 3),
    (Action::Retain, 1),
    (Action::TurnClock, 1),
];

impl World {
    /// Opens the node where it is not, makes the beginning, and acts as the options say.
    pub fn run(&mut self) -> Result<(), Stopped> {
        if self.life.is_none() {
            self.open()?;
        }
        self.set_up()?;
        self.act(self.options.actions)?;
        self.drain()
    }

    /// Takes so many actions.
    pub(super) fn act(&mut self, count: usize) -> Result<(), Stopped> {
        let total: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        for _ in 0..count {
            let mut pick = self.random.random_range(0..total);
            let action = WEIGHTS.iter().find(|(_, weight)| {
                let hit = pick < *weight;
                pick = pick.saturating_sub(*weight);
                hit
            });
            let action = action.map_or(Action::Client, |(action, _)| *action);
            self.take(action)?;
            self.hear();
        }
        Ok(())
    }

    fn take(&mut self, action: Action) -> Result<(), Stopped> {
        let number: usize = self.random.random_range(0..1 << 20);
        if action == Action::Client {
            return self.client_step(number % self.clients.len());
        }
        if action == Action::Retain {
            self.archive_more()?;
        }
        let now_ms = self.now_ms;
        let Some(life) = &mut self.life else {
            return Ok(());
        };
        let in_flight = life.flushes.len() + life.flushed.len();
        match action {
            Action::Seal if in_flight < self.options.flushes_in_flight => life.seal(now_ms),
            Action::RunFlush if !life.flushes.is_empty() => {
                life.run_flush(number % life.flushes.len())
            }
            Action::ReportFlush if !life.flushed.is_empty() => {
                life.report_flush(number % life.flushed.len())
            }
            Action::Freeze if life.checkpoint.is_none() => {
                if life.state.wants_checkpoint() || number.is_multiple_of(4) {
                    life.checkpoint = life.state.freeze();
                }
                Ok(())
            }
            Action::RunCheckpoint => life.run_checkpoint(),
            Action::BeginPrepare if life.prepare.is_none() => {
                life.prepare = life.log.prepare();
                Ok(())
            }
            Action::RunPrepare => {
                // Not fatal: rolling makes the file itself and meets the error there.
                if let Some(prepare) = life.prepare.take() {
                    let _ = prepare.run();
                }
                Ok(())
            }
            Action::SaveHardState if in_flight == 0 && life.is_hard_state_behind() => {
                life.save_hard_state()
            }
            Action::Retain => {
                let back = (number % 40) as u64;
                let applied = life.engine.applied().index;
                life.retain(Index(applied.get().saturating_sub(back)))
            }
            Action::TurnClock => {
                // Clocks jump; nothing may rest on them.
                self.now_ms = if number.is_multiple_of(3) {
                    now_ms - 1_000
                } else {
                    now_ms + number as u64
                };
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Seals, flushes and reports until everything is answered.
    pub(super) fn drain(&mut self) -> Result<(), Stopped> {
        let now_ms = self.now_ms;
        while let Some(life) = &mut self.life {
            if life.engine.has_open() {
                life.seal(now_ms)?;
            } else if !life.flushes.is_empty() {
                life.run_flush(0)?;
            } else if !life.flushed.is_empty() {
                life.report_flush(0)?;
            } else {
                break;
            }
            self.hear();
        }
        self.hear();
        Ok(())
    }

    /// Ends the life cleanly.
    pub fn close(&mut self) -> Result<(), Stopped> {
        self.drain()?;
        if let Some(life) = &mut self.life {
            life.prepare = None;
            life.close()?;
        }
        self.life = None;
        Ok(())
    }
}
