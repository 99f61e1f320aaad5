//! The scheduler: picks one thing after the other that could happen next in the real node.

use onelog_record::Position;
use rand::Rng;

use super::life::Life;
use super::world::{Stopped, World};
use crate::checker::Rule;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Client,
    TakeRequest,
    EndTurn,
    RunFlush,
    RunCheckpoint,
    RunPrepare,
    RunRetain,
    RunSave,
    Report,
    Idle,
    Follower,
    TurnClock,
}

/// What may happen, and how often relative to each other.
const WEIGHTS: [(Action, u32); 12] = [
    (Action::Client, 50),
    (Action::TakeRequest, 40),
    (Action::EndTurn, 14),
    (Action::RunFlush, 14),
    (Action::RunCheckpoint, 4),
    (Action::RunPrepare, 4),
    (Action::RunRetain, 4),
    (Action::RunSave, 4),
    (Action::Report, 18),
    (Action::Idle, 3),
    (Action::Follower, 1),
    (Action::TurnClock, 1),
];
/// An action takes less than this.
const ACTION_MS_MAX: u64 = 12;
/// How far the calendar jumps back.
const CLOCK_BACK_MS: u64 = 2_000_000;
/// A pause that is longer than any request waits in a queue.
const PAUSE_MS: u64 = 11_000;

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
            self.hear()?;
            self.check_published();
        }
        Ok(())
    }

    fn take(&mut self, action: Action) -> Result<(), Stopped> {
        let number: usize = self.random.random_range(0..1 << 20);
        self.now.monotonic_ms += number as u64 % ACTION_MS_MAX;
        match action {
            Action::Client => return self.client_step(number % self.clients.len()),
            Action::TurnClock => {
                self.turn_clock(number);
                return Ok(());
            }
            // Retention may cut now: what it cuts is read before.
            Action::Report | Action::Idle => self.archive_more()?,
            _ => {}
        }
        let now = self.now;
        let Some(life) = &mut self.life else {
            return Ok(());
        };
        match action {
            Action::TakeRequest => life.take_request(now).map(drop),
            Action::EndTurn => life.end_turn(now).map(drop),
            Action::RunFlush => life.run_flush(number).map(drop),
            Action::RunCheckpoint => {
                life.run_checkpoint();
                Ok(())
            }
            Action::RunPrepare => {
                life.run_prepare();
                Ok(())
            }
            Action::RunRetain => {
                life.run_retain();
                Ok(())
            }
            Action::RunSave => {
                life.run_save();
                Ok(())
            }
            Action::Report => life.report(number, now).map(drop),
            Action::Idle => life.idle(now),
            Action::Follower => {
                move_follower(life, number);
                Ok(())
            }
            Action::Client | Action::TurnClock => Ok(()),
        }
    }

    /// The calendar jumps, also back; nothing may rest on it. The other clock only pauses.
    fn turn_clock(&mut self, number: usize) {
        self.now.unix_ms = if number.is_multiple_of(3) {
            self.now.unix_ms - CLOCK_BACK_MS
        } else {
            self.now.unix_ms + number as u64
        };
        if number.is_multiple_of(8) {
            self.now.monotonic_ms += PAUSE_MS;
        }
    }

    /// Notes what the node made known and should not have.
    pub(super) fn check_published(&mut self) {
        let Some(life) = &mut self.life else {
            return;
        };
        let published = life.replica.observer();
        for fault in published.take_faults() {
            self.report.add(Rule::Published, fault);
        }
        let start = published.log_start();
        if let Some((_, held)) = life.follower.take_if(|(_, held)| start > *held) {
            let text = format!("the log was cut to {start}, a follower needs it from {held} on");
            self.report.add(Rule::CutTooFar, text);
        }
    }

    /// Takes, seals, flushes and reports until everything is answered.
    pub(super) fn drain(&mut self) -> Result<(), Stopped> {
        loop {
            self.archive_more()?;
            let now = self.now;
            let Some(life) = &mut self.life else { break };
            if !life.settle(now)? {
                break;
            }
            self.hear()?;
        }
        self.hear()?;
        self.check_published();
        Ok(())
    }

    /// Ends the life cleanly.
    pub fn close(&mut self) -> Result<(), Stopped> {
        self.drain()?;
        let now = self.now;
        if let Some(life) = &mut self.life {
            life.close(now)?;
        }
        self.hear()?;
        self.life = None;
        Ok(())
    }
}

/// A follower comes, gets on, lets go or leaves.
fn move_follower(life: &mut Life, number: usize) {
    let start = life.replica.observer().log_start().get();
    let end = life.replica.applied().position.get();
    life.follower = match life.follower.take() {
        None => {
            let at = start + number as u64 % (end - start + 1);
            let follower = life.replica.followers().join("sink", Position(at));
            Some((follower, Position(at)))
        }
        Some(_) if number.is_multiple_of(4) => None,
        Some((follower, held)) => {
            let at = held.get() + number as u64 % (end - held.get() + 1);
            follower.advance(Position(at));
            Some((follower, Position(at)))
        }
    };
}
