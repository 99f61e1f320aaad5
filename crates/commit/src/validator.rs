//! The validator: one pass over a request, in the order of the design.

use bytes::Bytes;
use onelog_record::{
    BodyError, BodyWriter, CommitRequest, Committed, Offset, Op, Position, Refusal, Subject,
    Transactions, TxnId,
};

use crate::guards;
use crate::halt::Halt;
use crate::ids::{IdWindow, Remembered};
use crate::newest::Now;
use crate::overlay::{Overlay, Row};
use crate::planted::{self, Bug};
use crate::reads;
use crate::staged::Staged;
use crate::view::{Rules, View, ViewError};
use crate::window::{Fingerprints, WriteWindow};
use crate::writes::{JsonBudget, Writer};

/// The bounds of the validator's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidatorOptions {
    /// How many of the last writes the window for fast point checks holds (about 40 bytes each).
    pub window_writes_max: usize,
    /// How many of the last transaction ids are remembered (about 42 bytes each).
    pub ids_max: usize,
}

impl Default for ValidatorOptions {
    fn default() -> Self {
        Self {
            window_writes_max: 262_144,
            ids_max: 1_000_000,
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Its records stand in the body and get the offsets from `next` on. Told once
    /// `committed.position` is applied.
    Accepted(Committed),
    /// It writes nothing and is valid at `committed.position`, which is `next`: everything that it
    /// read or demanded is so there. Nothing enters the log and its id is not remembered. Told once
    /// `committed.position` is applied, because what it was checked against may be in flight.
    Validated(Committed),
    /// The same request was accepted before under the same id, and this is its answer. Told once
    /// `committed.position` is applied: it may still be in flight.
    Repeated(Committed),
    /// It takes no effect.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Told once this position is applied: the refusal rests on transactions below it that may
        /// be in flight, and would be untrue if they were lost. Zero: at once.
        after: Position,
    },
}

/// Decides requests, one after another, and remembers what it accepted.
///
/// Invariant: every write at or above the applied position is in the overlay, whether this validator
/// accepted it or was told by [`Validator::replay`].
#[derive(Debug)]
pub struct Validator {
    fingerprints: Fingerprints,
    window: WriteWindow,
    overlay: Overlay,
    ids: IdWindow,
    staged: Staged,
    applied: Position,
}

impl Validator {
    /// A validator over a state that is applied up to `position` and remembers `ids` (in any
    /// order). What the log holds above `position` must be told by [`Validator::replay`].
    #[must_use]
    pub fn new(
        options: ValidatorOptions,
        position: Position,
        ids: impl Iterator<Item = Remembered>,
    ) -> Self {
        let taken = if planted::is(Bug::IdsInMemoryOnly) {
            0
        } else {
            usize::MAX
        };
        Self {
            fingerprints: Fingerprints::default(),
            window: WriteWindow::new(options.window_writes_max, position),
            overlay: Overlay::default(),
            ids: IdWindow::new(options.ids_max, position, ids.take(taken)),
            staged: Staged::default(),
            applied: position,
        }
    }

    /// Decides one request against `view` and everything accepted before. Only an accepted one
    /// leaves records in `body`: one transaction, whose first record has the offset `next`.
    ///
    /// # Errors
    /// The state could not be read: nothing was decided, and `body` is as it was.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call per request, each part has its owner"
    )]
    pub fn decide(
        &mut self,
        request: &CommitRequest,
        id: TxnId,
        fingerprint: u64,
        next: Offset,
        view: &dyn View,
        rules: &dyn Rules,
        body: &mut BodyWriter,
    ) -> Result<Decision, ViewError> {
        let mut budget = JsonBudget::new();
        let checked = self
            .check_id(request, id, fingerprint, view)
            .and_then(|known| match known {
                Some(committed) => Ok(Some(Decision::Repeated(committed))),
                None => self
                    .check(request, next, view, rules, &mut budget)
                    .map(|()| None),
            })
            .and_then(|decision| match decision {
                Some(decision) => Ok(decision),
                None if request.writes.is_empty() => Ok(Decision::Validated(Committed {
                    id,
                    position: Position(next.0),
                    first_offset: next,
                    records: 0,
                    repeated: false,
                })),
                None => {
                    let now = Now::new(view, &self.overlay, next);
                    let mark = body.begin(id, fingerprint);
                    self.staged.clear();
                    let written = Writer {
                        now,
                        rules,
                        fingerprints: &self.fingerprints,
                        staged: &mut self.staged,
                        body: &mut *body,
                        budget: &mut budget,
                        offset: next,
                    }
                    .write_all(request);
                    if let Err(halt) = written {
                        body.undo(mark);
                        return Err(halt);
                    }
                    let records = body.seal(mark);
                    Ok(self.accept(id, fingerprint, next, records))
                }
            });
        match checked {
            Ok(decision) => Ok(decision),
            Err(Halt::View(error)) => Err(error),
            Err(Halt::Refused(refused)) => {
                let (refusal, after) = *refused;
                Ok(Decision::Refused { refusal, after })
            }
        }
    }

    /// Entries below `position` are applied to the view.
    pub fn applied(&mut self, position: Position) {
        self.applied = self.applied.max(position);
        self.overlay.applied(position);
    }

    /// Learns of an entry that this validator did not decide: its raw body, and the offset of its
    /// first record. Entries come in the order of the log.
    ///
    /// # Errors
    /// The body is malformed. What stands before the fault is remembered; the caller stops.
    pub fn replay(&mut self, body: &Bytes, base_offset: Offset) -> Result<(), BodyError> {
        for transaction in Transactions::new(body.clone(), base_offset) {
            let transaction = transaction?;
            let end = Position(transaction.first_offset.0 + u64::from(transaction.record_count));
            self.ids.insert(Remembered {
                id: transaction.id,
                fingerprint: transaction.fingerprint,
                position: end,
                records: transaction.record_count,
            });
            for record in transaction.records() {
                let record = record?;
                if record.op == Op::Event {
                    continue;
                }
                let fingerprint = self.fingerprints.of(record.table, &record.key);
                self.window.insert(fingerprint, record.offset);
                if self.applied.sees(record.offset) {
                    continue;
                }
                let row = Row {
                    version: record.offset,
                    end,
                    value: record.value,
                };
                self.overlay.insert(record.table, record.key, row);
            }
        }
        Ok(())
    }

    /// Forgets everything at or above `position`, the end of what is applied: a term has ended, and
    /// what was in flight may be lost. What survives is told again by [`Validator::replay`].
    pub fn reset(&mut self, position: Position) {
        self.overlay.clear();
        self.window.clear(position);
        self.ids.truncate(position);
        self.applied = position;
    }

    /// Transactions below this position may be missing from the remembered ids.
    #[must_use]
    pub fn ids_floor(&self) -> Position {
        self.ids.floor()
    }

    fn check_id(
        &self,
        request: &CommitRequest,
        id: TxnId,
        fingerprint: u64,
        view: &dyn View,
    ) -> Result<Option<Committed>, Halt> {
        let Some(known) = self.ids.get(id) else {
            return self.check_id_age(request, id).map(|()| None);
        };
        if !IdWindow::same_request(&known, fingerprint) {
            let in_flight = known.position > view.position();
            let position = known.position;
            return Err(Halt::after(
                Refusal::IdMismatch { id, position },
                if in_flight { position } else { Position::ZERO },
            ));
        }
        Ok(Some(Committed {
            id,
            position: known.position,
            first_offset: known.first_offset(),
            records: known.records,
            repeated: true,
        }))
    }

    /// An unknown id that may have been in use before ids were forgotten could be run twice. One
    /// that was made for this request, or writes nothing, cannot.
    fn check_id_age(&self, request: &CommitRequest, id: TxnId) -> Result<(), Halt> {
        let floor = self.ids.floor();
        match request.read_position {
            Some(since) if since < floor && request.id.is_some() && !request.writes.is_empty() => {
                Err(Halt::now(Refusal::IdExpired { id, floor }))
            }
            _ => Ok(()),
        }
    }

    /// Everything up to the guards: what changes nothing.
    fn check(
        &self,
        request: &CommitRequest,
        next: Offset,
        view: &dyn View,
        rules: &dyn Rules,
        budget: &mut JsonBudget,
    ) -> Result<(), Halt> {
        request
            .check_limits()
            .map_err(|fault| Halt::now(fault.into()))?;
        let now = Now::new(view, &self.overlay, next);
        // Nobody can have read above what is applied, though the log may reach further.
        if let Some(read_position) = request.read_position
            && read_position > now.applied
        {
            return Err(Halt::now(Refusal::SnapshotInFuture {
                read_position,
                latest: now.applied,
            }));
        }
        if request.has_reads() {
            let Some(read_position) = request.read_position else {
                return Err(Halt::malformed(
                    "the request declares reads but no read_position: say at which position they were made".into(),
                ));
            };
            self.check_reads(&now, request, read_position, rules)?;
        }
        for (index, guard) in request.guards.iter().enumerate() {
            guards::check(&now, rules, budget, index, guard)?;
        }
        Ok(())
    }

    fn check_reads(
        &self,
        now: &Now<'_>,
        request: &CommitRequest,
        read_position: Position,
        rules: &dyn Rules,
    ) -> Result<(), Halt> {
        for (index, read) in request.point_reads.iter().enumerate() {
            reads::keyed_table(rules, read.table, || Subject::PointRead(index))?;
            let fingerprint = self.fingerprints.of(read.table, &read.key);
            reads::check_point(now, &self.window, fingerprint, index, read, read_position)?;
        }
        for (index, range) in request.range_reads.iter().enumerate() {
            reads::keyed_table(rules, range.table, || Subject::RangeRead(index))?;
            reads::check_range(now, index, range, read_position)?;
        }
        Ok(())
    }

    fn accept(&mut self, id: TxnId, fingerprint: u64, next: Offset, records: u32) -> Decision {
        let end = Position(next.0 + u64::from(records));
        for write in self.staged.drain() {
            self.window.insert(write.fingerprint, write.offset);
            let row = Row {
                version: write.offset,
                end,
                value: write.value,
            };
            self.overlay.insert(write.table, write.key, row);
        }
        self.ids.insert(Remembered {
            id,
            fingerprint,
            position: end,
            records,
        });
        Decision::Accepted(Committed {
            id,
            position: end,
            first_offset: next,
            records,
            repeated: false,
        })
    }
}
