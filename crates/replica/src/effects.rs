//! Carrying out what the engine wants, in its order.

use std::sync::Arc;

use bytes::Bytes;
use onelog_engine::Effect;
use onelog_record::{Entry, Op, TABLE_TABLES, Transactions};

use crate::failure::Failure;
use crate::jobs::{Answer, Job, Outbox};
use crate::observer::Observer;
use crate::planted::{self, Bug};
use crate::replica::Replica;

impl<T, O: Observer> Replica<T, O> {
    /// Carries out effects in order. Applying moves the position before any answer is handed out.
    pub(crate) fn carry_out(&mut self, out: &mut Outbox<T>) -> Result<(), Failure> {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::SaveVote(term, vote) => self.save_vote(term, vote)?,
                Effect::Append(entries) => self.append(&entries, out)?,
                Effect::Apply(entry, raw) => self.apply(&entry, &raw)?,
                Effect::Reply(ticket, answer) => {
                    out.answers.push(Answer::Decided(ticket, answer));
                }
                Effect::Readable(ticket, position) => {
                    out.answers.push(Answer::Readable(ticket, position));
                }
                Effect::Install(_)
                | Effect::Cut(_)
                | Effect::Send(_)
                | Effect::Fetch(_)
                | Effect::Members(..) => {
                    unreachable!("a cluster of one voter has nobody to send to or to hear from")
                }
            }
        }
        if self.effects.is_empty() {
            self.effects = effects;
            return Ok(());
        }
        // Only a planted bug makes effects while effects are carried out.
        self.carry_out(out)
    }

    fn append(&mut self, entries: &[Entry], out: &mut Outbox<T>) -> Result<(), Failure> {
        for entry in entries {
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
        self.engine.stored(durable, &mut self.effects)?;
        self.carry_out(out)
    }

    fn apply(&mut self, entry: &Entry, raw: &Bytes) -> Result<(), Failure> {
        // The catalog leads: a reader who sees a row can name its table.
        let lags = planted::is(Bug::CatalogLags);
        if self.engine.may_define(entry) && !lags {
            self.apply_definitions(entry, raw)?;
        }
        self.state.apply_raw(entry, raw)?;
        self.view = None;
        self.observer.applied(entry);
        if lags {
            self.apply_definitions(entry, raw)?;
        }
        Ok(())
    }

    /// Applies replayed entries all at once; nothing reads yet.
    pub(crate) fn apply_replayed(&mut self) -> Result<(), Failure> {
        let mut entries = Vec::new();
        for effect in std::mem::take(&mut self.effects) {
            if let Effect::Apply(entry, raw) = effect {
                if self.engine.may_define(&entry) && !planted::is(Bug::CatalogOfCheckpoint) {
                    self.apply_definitions(&entry, &raw)?;
                }
                entries.push((entry, raw));
            }
        }
        self.state.apply_all(&entries)?;
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
