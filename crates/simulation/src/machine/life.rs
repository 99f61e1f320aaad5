//! One life of the node, from recovery on. What the real shell does with threads and channels is
//! done here by [`Life`]'s methods, one at a time, in whatever order the scheduler likes.

use std::fmt::Display;
use std::sync::Arc;

use onelog_commit::{Remembered, ValidatorOptions};
use onelog_engine::{Applied, Effect, Engine, EngineOptions, Raft, RaftOptions, Submission};
use onelog_log::{Flush, HardState, HardStateRead, Log, LogOptions, LogReader, Prepare, Recovery};
use onelog_record::{Committed, Entry, Index, Refusal, Term};
use onelog_state::{Checkpoint, Opened, State, StateOptions};

use super::rules::{FixedRules, StateView};
use super::{MachineOptions, ShellBug};
use crate::machine::world::{Image, Stopped};

const NODE: u64 = 1;
const LOG_ID: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;
const REPLAY_BYTES: usize = 1 << 20;
const CACHE_BYTES: usize = 4 << 20;
const INDEX_EVERY_BYTES: u64 = 1 << 10;

/// What the node tells a client.
pub(super) type Told = (usize, Result<Committed, Refusal>);

#[derive(Debug)]
pub(super) struct Life {
    pub(super) engine: Engine<usize>,
    pub(super) log: Log,
    pub(super) reader: LogReader,
    pub(super) state: State,
    hard_state: HardState,
    pub(super) flushes: Vec<Flush>,
    /// Flushes that have ended and were not reported yet, with their last index.
    pub(super) flushed: Vec<(u64, Index)>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) prepare: Option<Prepare>,
    pub(super) checkpointed: Index,
    effects: Vec<Effect<usize>>,
    pub(super) told: Vec<Told>,
    bug: ShellBug,
}

pub(super) fn stopped(doing: &'static str) -> impl Fn(&dyn Display) -> Stopped {
    move |cause| Stopped(format!("{doing}: {cause}"))
}

macro_rules! carry {
    ($doing:literal, $result:expr) => {
        $result.map_err(|cause| stopped($doing)(&cause))?
    };
}

impl Life {
    /// Recovers, replays, leads.
    pub(super) fn begin(image: &Image, options: &MachineOptions) -> Result<Self, Stopped> {
        let log_options = LogOptions {
            segment_bytes: options.segment_bytes,
            index_every_bytes: INDEX_EVERY_BYTES,
            ..LogOptions::default()
        };
        let log_disk = Arc::new(image.log.clone());
        let (log, recovery) = carry!("open the log", Log::open(log_disk, log_options));
        let state_options = StateOptions {
            memtable_bytes: options.memtable_bytes,
            memtable_bytes_max: 64 * options.memtable_bytes,
            cache_bytes: CACHE_BYTES,
            ids_max: options.ids_max,
            ..StateOptions::default()
        };
        let state_disk = Arc::new(image.state.clone());
        let (state, opened) = carry!("open the state", State::open(state_disk, state_options));
        let at = opened.applied.index;
        if at > recovery.last_index || at.next() < recovery.first_index {
            return Err(Stopped(format!(
                "the state covers index {at}, the log holds {} to {}",
                recovery.first_index, recovery.last_index
            )));
        }
        let mut life = Self::over(log, state, &recovery, opened, options)?;
        life.replay(recovery.last_index)?;
        carry!("campaign", life.engine.campaign(&mut life.effects));
        life.carry_out()?;
        while !life.engine.admits() {
            life.run_flush(0)?;
            life.report_flush(0)?;
        }
        Ok(life)
    }

    fn over(
        log: Log,
        state: State,
        recovery: &Recovery,
        opened: Opened,
        options: &MachineOptions,
    ) -> Result<Self, Stopped> {
        let hard_state = match &recovery.hard_state {
            HardStateRead::Present(found) => HardState {
                clean: false,
                ..*found
            },
            HardStateRead::Empty => HardState {
                log_id: LOG_ID,
                node: NODE,
                ..HardState::default()
            },
        };
        let term_of_last = recovery.terms.last().map_or(Term::ZERO, |(_, term)| *term);
        let consensus = RaftOptions {
            node: NODE,
            voters: vec![NODE],
            term: hard_state.term,
            vote: hard_state.vote,
            committed: recovery.last_index,
            committed_term: if recovery.last_index == opened.applied.index {
                opened.applied.term.max(term_of_last)
            } else {
                term_of_last
            },
            committed_end: recovery.end.max(opened.applied.position),
            uncommitted: Vec::new(),
        };
        let raft = carry!("start consensus", Raft::new(&consensus));
        let engine_options = EngineOptions {
            compression: options.compression,
            validator: ValidatorOptions {
                window_writes_max: options.window_writes_max,
                ids_max: options.ids_max,
            },
        };
        let applied = Applied {
            position: opened.applied.position,
            index: opened.applied.index,
            term: opened.applied.term,
        };
        let ids = opened.ids.into_iter().map(|id| Remembered {
            position: id.position,
            id: id.id,
            fingerprint: id.fingerprint,
            records: id.records,
        });
        let engine = Engine::new(engine_options, raft, applied, ids);
        Ok(Self {
            engine,
            reader: log.reader(),
            log,
            state,
            hard_state,
            flushes: Vec::new(),
            flushed: Vec::new(),
            checkpoint: None,
            prepare: None,
            checkpointed: applied.index,
            effects: Vec::new(),
            told: Vec::new(),
            bug: options.bug,
        })
    }

    fn replay(&mut self, last: Index) -> Result<(), Stopped> {
        let mut at = self.engine.applied().index.next();
        while at <= last {
            let entries = carry!(
                "replay the log",
                self.reader.entries(at, last.next(), REPLAY_BYTES)
            );
            if entries.is_empty() {
                return Err(Stopped(format!("the log has no entry {at}")));
            }
            for mut entry in entries {
                at = entry.index.next();
                if self.bug == ShellBug::ReplayShort && entry.index == last {
                    entry = blank(&entry);
                }
                carry!("replay", self.engine.replay(entry, &mut self.effects));
                self.carry_out()?;
            }
        }
        Ok(())
    }

    /// Sends a request in.
    pub(super) fn submit(
        &mut self,
        submission: Submission<usize>,
        rules: &FixedRules,
    ) -> Result<(), Stopped> {
        let view = StateView(&self.state);
        carry!(
            "submit",
            self.engine
                .submit(submission, &view, rules, &mut self.effects)
        );
        self.carry_out()
    }

    /// Seals the open entry and stages it.
    pub(super) fn seal(&mut self, now_ms: u64) -> Result<(), Stopped> {
        carry!("seal", self.engine.seal(now_ms, &mut self.effects));
        self.carry_out()
    }

    fn carry_out(&mut self) -> Result<(), Stopped> {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::SaveVote(term, vote) => {
                        self.hard_state.term = term;
                        self.hard_state.vote = vote;
                        self.save_hard_state()?;
                    }
                    Effect::Append(entries) => self.append(&entries)?,
                    Effect::Apply(entry, raw) => {
                        carry!("apply", self.state.apply_raw(&entry, &raw));
                    }
                    Effect::Reply(ticket, answer) => self.told.push((ticket, answer)),
                    Effect::Readable(..) => {}
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), Stopped> {
        self.flushes
            .extend(carry!("stage", self.log.stage(entries)));
        if self.bug == ShellBug::AnswerOnStage
            && let Some(last) = entries.last()
        {
            carry!("durable", self.engine.stored(last.index, &mut self.effects));
        }
        Ok(())
    }

    /// Runs the flush at this place among those that wait.
    pub(super) fn run_flush(&mut self, place: usize) -> Result<(), Stopped> {
        let flush = self.flushes.remove(place);
        carry!("flush", flush.run());
        self.flushed.push((flush.number, flush.last_index()));
        Ok(())
    }

    /// Reports the flush at this place among those that have ended.
    pub(super) fn report_flush(&mut self, place: usize) -> Result<(), Stopped> {
        let (number, last_index) = self.flushed.remove(place);
        let mut durable = self.log.flushed(number);
        if self.bug == ShellBug::FlushOutOfOrder {
            durable = durable.max(last_index);
        }
        carry!("durable", self.engine.stored(durable, &mut self.effects));
        self.carry_out()
    }

    pub(super) fn run_checkpoint(&mut self) -> Result<(), Stopped> {
        if let Some(checkpoint) = self.checkpoint.take() {
            carry!("checkpoint", checkpoint.run());
            self.checkpointed = self.state.checkpointed().index;
        }
        Ok(())
    }

    /// As an idle shell does: remembers how far the log is durable.
    pub(super) fn save_hard_state(&mut self) -> Result<(), Stopped> {
        self.hard_state.durable = self.log.durable();
        self.hard_state.commit = self.engine.applied().index;
        carry!(
            "save the hard state",
            self.log.save_hard_state(&self.hard_state)
        );
        Ok(())
    }

    pub(super) fn is_hard_state_behind(&self) -> bool {
        self.hard_state.durable < self.log.durable()
    }

    pub(super) fn retain(&mut self, wanted: Index) -> Result<(), Stopped> {
        let needed = self.checkpointed.next();
        let from = if self.bug == ShellBug::RetainPastCheckpoint {
            wanted
        } else {
            wanted.min(needed)
        };
        carry!("retention", self.log.retain_from(from));
        Ok(())
    }

    /// A clean end.
    pub(super) fn close(&mut self) -> Result<(), Stopped> {
        self.run_checkpoint()?;
        if let Some(checkpoint) = self.state.freeze() {
            carry!("checkpoint", checkpoint.run());
        }
        self.hard_state.commit = self.engine.applied().index;
        carry!("close", self.log.close(&self.hard_state));
        Ok(())
    }
}

/// The same entry as if its transactions had been deletes of nothing.
fn blank(entry: &Entry) -> Entry {
    Entry {
        header: onelog_record::EntryHeader {
            record_count: entry.header.record_count,
            ..onelog_record::EntryHeader::empty(
                onelog_record::EntryKind::NoOp,
                entry.header.base_offset,
            )
        },
        body: bytes::Bytes::new(),
        ..entry.clone()
    }
}
