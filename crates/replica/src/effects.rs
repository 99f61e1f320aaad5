//! Carrying out what the engine wants, in its order.
//!
//! Some of it must wait for jobs that run: what comes behind that waits too. So what is carried out may
//! be behind what the engine has decided, and nothing here looks at the engine to know how far it is.
//!
//! | effect | waits until |
//! |---|---|
//! | `Cut` | no flush is under way: none may write what is cut |
//! | `Install` | no job is under way that touches the files of log or state; none begins |
//! | `Append` | what is in flight leaves room: only a follower can be sent more than that |

use std::sync::Arc;

use bytes::Bytes;
use onelog_engine::Effect;
use onelog_log::frame::frame_len;
use onelog_log::{CutEntries, LogOptions};
use onelog_record::{Entry, Index, NodeId, Op, TABLE_TABLES, Transactions};

use crate::failure::Failure;
use crate::jobs::{Answer, Job, Outbox, ReadForFollower};
use crate::observer::Observer;
use crate::planted::{self, Bug};
use crate::replica::Replica;

impl<T, O: Observer> Replica<T, O> {
    /// Carries out effects in order, as far as none must wait. Applying moves the position before any
    /// answer is handed out.
    pub(crate) fn carry_out(&mut self, out: &mut Outbox<T>) -> Result<(), Failure> {
        loop {
            self.queue.extend(self.effects.drain(..));
            let Some(effect) = self.queue.pop_front() else {
                break;
            };
            if self.must_wait(&effect) {
                self.queue.push_front(effect);
                break;
            }
            self.carry_out_one(effect, out)?;
        }
        self.note_role(out);
        Ok(())
    }

    fn must_wait(&self, effect: &Effect<T>) -> bool {
        match effect {
            Effect::Cut(_) => self.flushes_in_flight > 0,
            Effect::Install(_) => self.flushes_in_flight > 0 || self.has_background_job(),
            Effect::Append(entries) => {
                let bytes: usize = entries.iter().map(|e| frame_len(e.body.len())).sum();
                let max = LogOptions::default().in_flight_bytes_max;
                self.flushes_in_flight > 0 && self.log.in_flight_bytes() + bytes > max
            }
            _ => false,
        }
    }

    fn carry_out_one(&mut self, effect: Effect<T>, out: &mut Outbox<T>) -> Result<(), Failure> {
        match effect {
            Effect::SaveVote(term, vote) => self.save_vote(term, vote)?,
            Effect::Cut(index) => self.cut(index)?,
            Effect::Append(entries) => self.append(&entries, out)?,
            Effect::Send(messages) => self.send(messages, out)?,
            Effect::Fetch(fetch) => out.jobs.push(Job::Fetch(ReadForFollower {
                fetch,
                reader: self.reader.clone(),
            })),
            Effect::Apply(entry, raw) => self.apply_run((entry, raw))?,
            Effect::Members(index, members) => self.members_changed(index, members, out),
            Effect::Reply(ticket, answer) => out.answers.push(Answer::Decided(ticket, answer)),
            Effect::Readable(ticket, position) => {
                out.answers.push(Answer::Readable(ticket, position));
            }
            Effect::Install(mark) => self.install(mark)?,
        }
        Ok(())
    }

    /// Whether a cut is on its way: what is flushed until it is done may be what it cuts.
    fn has_cut_waiting(&self) -> bool {
        let mut queue = self.queue.iter();
        queue.any(|effect| matches!(effect, Effect::Cut(_) | Effect::Install(_)))
    }

    /// A later leader has other entries from `index` on.
    fn cut(&mut self, index: Index) -> Result<(), Failure> {
        if let Some(cut) = self.log.cut_end(index)? {
            warn_of_cut(
                &cut,
                "cut the end of the log: another leader has other entries there",
            );
        }
        self.observer.cut(index);
        let durable = self.log.durable();
        Ok(self.engine.stored(durable, &mut self.effects)?)
    }

    fn append(&mut self, entries: &[Entry], out: &mut Outbox<T>) -> Result<(), Failure> {
        for entry in entries {
            let bytes = entry.body.len() as u64;
            self.unsaved_bytes += bytes;
            self.turn_bytes += bytes;
            self.observer.appended(entry);
        }
        for flush in self.log.stage(entries)? {
            self.flushes_in_flight += 1;
            if planted::is(Bug::AnswerOnStage) {
                self.engine.stored(flush.last_index(), &mut self.effects)?;
            }
            out.jobs.push(Job::Flush(flush));
        }
        Ok(())
    }

    /// Flushes end in any order; what is durable advances in the order of the log.
    pub(crate) fn flushed(&mut self, number: u64, out: &mut Outbox<T>) -> Result<(), Failure> {
        self.flushes_in_flight -= 1;
        let durable = self.log.flushed(number);
        if !self.has_cut_waiting() || planted::is(Bug::StoredBeforeCut) {
            self.engine.stored(durable, &mut self.effects)?;
        }
        self.carry_out(out)
    }

    /// Applies an entry together with those that are applied right behind it: many at once cost less.
    fn apply_run(&mut self, first: (Entry, Bytes)) -> Result<(), Failure> {
        let mut run = vec![first];
        while !run
            .last()
            .is_some_and(|(last, _)| self.may_freeze_behind(last))
        {
            match self.queue.pop_front() {
                Some(Effect::Apply(entry, raw)) => run.push((entry, raw)),
                Some(other) => {
                    self.queue.push_front(other);
                    break;
                }
                None => break,
            }
        }
        self.apply(&run)
    }

    fn apply(&mut self, run: &[(Entry, Bytes)]) -> Result<(), Failure> {
        // The catalog leads: a reader who sees a row can name its table.
        let lags = planted::is(Bug::CatalogLags);
        if !lags {
            self.define(run)?;
        }
        let differs = planted::is(Bug::AppliesOtherwise) && self.options.node == NodeId(3);
        match run {
            _ if differs => {
                let without = run
                    .iter()
                    .map(|(entry, _)| planted::without_transactions(entry));
                let without: Vec<_> = without.map(|entry| (entry, Bytes::new())).collect();
                self.state.apply_all(&without)?;
            }
            [(entry, raw)] => self.state.apply_raw(entry, raw)?,
            _ => self.state.apply_all(run)?,
        }
        self.view = None;
        for (entry, _) in run {
            self.observer.applied(entry);
        }
        if lags {
            self.define(run)?;
        }
        if let Some((last, _)) = run.last() {
            self.freeze_for_digest(last);
        }
        Ok(())
    }

    fn define(&mut self, run: &[(Entry, Bytes)]) -> Result<(), Failure> {
        for (entry, raw) in run {
            if self.engine.may_define(entry) {
                self.apply_definitions(entry, raw)?;
            }
        }
        Ok(())
    }

    /// Applies replayed entries all at once; nothing reads yet.
    pub(crate) fn apply_replayed(&mut self) -> Result<(), Failure> {
        let mut entries = Vec::new();
        let mut changed = None;
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Apply(entry, raw) => {
                    if self.engine.may_define(&entry) && !planted::is(Bug::CatalogOfCheckpoint) {
                        self.apply_definitions(&entry, &raw)?;
                    }
                    entries.push((entry, raw));
                }
                Effect::Members(index, members) => changed = Some((index, members)),
                _ => {}
            }
        }
        self.state.apply_all(&entries)?;
        if let Some((index, members)) = changed {
            self.set_members(index, members);
        }
        if let Some((last, _)) = entries.last() {
            self.observer.replayed(last.index, last.header.end());
        }
        Ok(())
    }

    fn apply_definitions(&mut self, entry: &Entry, raw: &Bytes) -> Result<(), Failure> {
        let mut changed = None;
        let mut has_dropped = false;
        for transaction in Transactions::new(raw.clone(), entry.header.base_offset) {
            for record in transaction?.records() {
                let record = record?;
                if record.table != TABLE_TABLES || record.op == Op::Event {
                    continue;
                }
                let catalog = changed.get_or_insert_with(|| (*self.catalog).clone());
                if let Some(table) = catalog.apply(&record)? {
                    self.state.drop_table(table, record.offset.after());
                    has_dropped = true;
                }
            }
        }
        if let Some(catalog) = changed {
            let catalog = Arc::new(catalog);
            self.observer.catalog_changed(&catalog);
            if !(has_dropped && planted::is(Bug::DropForgotten)) {
                self.catalog = catalog;
            }
        }
        Ok(())
    }
}

/// Durable entries of this node are gone: an operator is to see how many.
pub(crate) fn warn_of_cut(cut: &CutEntries, why: &str) {
    tracing::warn!(
        from = %cut.from,
        to = %cut.to,
        entries = cut.count(),
        first_term = %cut.first_term,
        last_term = %cut.last_term,
        kept = %cut.kept,
        "{why}"
    );
}

impl<T, O> Replica<T, O> {
    /// Whether state and log are to be replaced, maybe behind something else that waits.
    pub(crate) fn has_install_waiting(&self) -> bool {
        let mut queue = self.queue.iter();
        queue.any(|effect| matches!(effect, Effect::Install(_)))
    }

    /// Whether state and log are to be replaced next: no job on their files may begin.
    pub(crate) fn waits_to_install(&self) -> bool {
        matches!(self.queue.front(), Some(Effect::Install(_)))
    }
}
