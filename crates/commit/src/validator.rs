//! The validator: one pass over a request, in the order of the design.

use bytes::Bytes;
use onelog_record::{
    BodyError, BodyWriter, CommitRequest, Committed, Offset, Op, Position, Refusal, Subject,
    Transactions, TxnId, USER_TABLES_FROM,
};

use crate::guards;
use crate::ids::{IdWindow, Remembered};
use crate::newest::Now;
use crate::overlay::{Overlay, Row};
use crate::planted::{self, Bug};
use crate::prepared::Prepared;
use crate::ranges;
use crate::reads;
use crate::rejection::Rejection;
use crate::staged::Staged;
use crate::view::{Rules, View, ViewError};
use crate::window::{Fingerprints, WriteWindow};
use crate::work::Work;
use crate::writes::Writer;

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
            window_writes_max: 65_536,
            ids_max: 1_000_000,
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Its records are in the body and get the offsets from `next` on. Answered once
    /// `committed.position` is applied.
    Accepted(Committed),
    /// It writes nothing and is valid at `committed.position`, which is `next`: everything that it
    /// read or demanded is so there. Nothing enters the log and its id is not remembered. Answered once
    /// `committed.position` is applied, because what it was checked against may be in flight.
    Validated(Committed),
    /// The same request was accepted before under the same id, and this is its answer. Answered once
    /// `committed.position` is applied: it may still be in flight.
    Repeated(Committed),
    /// It takes no effect.
    Refused {
        refusal: Refusal,
        /// Answered once this position is applied: the refusal rests on transactions below it that may
        /// be in flight, and would be untrue if they were lost. Zero: at once.
        after: Position,
    },
}

/// Decides requests, one after another, and remembers what it accepted.
///
/// Invariant: every write at or above the applied position is in the overlay, whether this validator
/// accepted it or learned of it by [`Validator::replay`].
#[derive(Debug)]
pub struct Validator {
    fingerprints: Fingerprints,
    window: WriteWindow,
    overlay: Overlay,
    ids: IdWindow,
    staged: Staged,
    applied: Position,
    /// Right behind the last record that is known.
    end: Position,
    /// What all decisions have cost.
    steps: u64,
}

/// One request and what it is decided against.
struct Incoming<'a> {
    request: &'a CommitRequest,
    prepared: &'a Prepared,
    id: TxnId,
    fingerprint: u64,
    next: Offset,
    view: &'a dyn View,
    rules: &'a dyn Rules,
    work: &'a Work,
}

impl Validator {
    /// A validator over a state that is applied up to `position` and remembers `ids` (in any
    /// order). What the log holds above `position` must be given to [`Validator::replay`].
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
            end: position,
            steps: 0,
        }
    }

    /// How many steps all decisions have taken: what they looked at in what is stored. One takes at
    /// most about [`DECISION_STEPS_MAX`](crate::DECISION_STEPS_MAX).
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Decides one request against `view` and everything accepted before. Only an accepted one
    /// leaves records in `body`: one transaction of at most
    /// [`TRANSACTION_BODY_BYTES_MAX`](crate::TRANSACTION_BODY_BYTES_MAX) bytes, whose first record
    /// has the offset `next`.
    ///
    /// # Errors
    /// The state could not be read: nothing was decided, and `body` is as it was.
    ///
    /// # Panics
    /// When `next` lies below a record that was accepted or replayed: two records would share an
    /// offset. A caller that drops an accepted transaction must call [`Validator::reset`]. When the view
    /// does not show what was reported to [`Validator::applied`]: writes would be missed.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call per request; each part has another owner"
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
        let prepared = &Prepared::default();
        self.decide_prepared(request, prepared, id, fingerprint, next, view, rules, body)
    }

    /// [`Validator::decide`], with what was found out about the request before.
    ///
    /// # Errors
    /// See [`Validator::decide`].
    ///
    /// # Panics
    /// See [`Validator::decide`].
    #[expect(
        clippy::too_many_arguments,
        reason = "one call per request; each part has another owner"
    )]
    pub fn decide_prepared(
        &mut self,
        request: &CommitRequest,
        prepared: &Prepared,
        id: TxnId,
        fingerprint: u64,
        next: Offset,
        view: &dyn View,
        rules: &dyn Rules,
        body: &mut BodyWriter,
    ) -> Result<Decision, ViewError> {
        assert!(
            next.0 >= self.end.0,
            "offset {next} is taken: everything below {} is known",
            self.end
        );
        assert!(
            view.position() >= self.applied,
            "the view shows {}, but everything below {} was said to be applied to it",
            view.position(),
            self.applied
        );
        let work = Work::default();
        let incoming = Incoming {
            request,
            prepared,
            id,
            fingerprint,
            next,
            view,
            rules,
            work: &work,
        };
        let decided = self.try_decide(&incoming, body);
        self.steps += work.steps() as u64;
        match decided {
            Ok(decision) => Ok(decision),
            Err(Rejection::View(error)) => Err(error),
            Err(Rejection::Refused(refused)) => {
                let (refusal, after) = *refused;
                Ok(Decision::Refused { refusal, after })
            }
        }
    }

    fn try_decide(
        &mut self,
        incoming: &Incoming<'_>,
        body: &mut BodyWriter,
    ) -> Result<Decision, Rejection> {
        if let Some(committed) = self.check_id(incoming)? {
            return Ok(Decision::Repeated(committed));
        }
        self.check(incoming)?;
        if incoming.request.writes.is_empty() {
            return Ok(Decision::Validated(Committed {
                id: incoming.id,
                position: Position(incoming.next.0),
                first_offset: incoming.next,
                records: 0,
                repeated: false,
            }));
        }
        let mark = body.begin(incoming.id, incoming.fingerprint);
        if let Err(rejection) = self.write(incoming, body) {
            body.undo(mark);
            self.staged.clear();
            return Err(rejection);
        }
        let records = body.seal(mark);
        Ok(Decision::Accepted(self.accept(incoming, records)))
    }

    /// Entries below `position` are applied to the view.
    pub fn applied(&mut self, position: Position) {
        self.applied = self.applied.max(position);
        self.end = self.end.max(position);
        self.overlay.applied(position);
    }

    /// Learns of an entry that this validator did not decide: its raw body, and the offset of its
    /// first record. Entries come in the order of the log.
    ///
    /// # Errors
    /// The body is malformed. What comes before the fault is remembered; the caller stops.
    pub fn replay(&mut self, body: &Bytes, base_offset: Offset) -> Result<(), BodyError> {
        for transaction in Transactions::new(body.clone(), base_offset) {
            let transaction = transaction?;
            let end = Position(transaction.first_offset.0 + u64::from(transaction.record_count));
            self.end = self.end.max(end);
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
    /// what was in flight may be lost. What survives is given to [`Validator::replay`] again.
    pub fn reset(&mut self, position: Position) {
        self.overlay.clear();
        self.window.clear(position);
        self.ids.truncate(position);
        self.applied = position;
        self.end = position;
    }

    /// Whether a request was accepted under this id, as far as that is remembered.
    #[must_use]
    pub fn remembers(&self, id: TxnId) -> bool {
        self.ids.get(id).is_some()
    }

    /// Transactions below this position may be missing from the remembered ids.
    #[must_use]
    pub fn ids_floor(&self) -> Position {
        self.ids.floor()
    }

    fn check_id(&self, incoming: &Incoming<'_>) -> Result<Option<Committed>, Rejection> {
        let id = incoming.id;
        let Some(known) = self.ids.get(id) else {
            return self.check_id_age(incoming).map(|()| None);
        };
        let position = known.position;
        if !IdWindow::same_request(&known, incoming.fingerprint) {
            let in_flight = position > incoming.view.position();
            return Err(Rejection::after(
                Refusal::IdMismatch { id, position },
                if in_flight { position } else { Position::ZERO },
            ));
        }
        Ok(Some(Committed {
            id,
            position,
            first_offset: known.first_offset(),
            records: known.records,
            repeated: true,
        }))
    }

    /// An unknown id that may have been in use before ids were forgotten could be run twice. One
    /// that was made for this request, or writes nothing, cannot.
    fn check_id_age(&self, incoming: &Incoming<'_>) -> Result<(), Rejection> {
        let (request, id, floor) = (incoming.request, incoming.id, self.ids.floor());
        let could_run_twice = request.id.is_some() && !request.writes.is_empty();
        if could_run_twice && request.read_position.is_some_and(|since| since < floor) {
            return Err(Rejection::now(Refusal::IdExpired { id, floor }));
        }
        Ok(())
    }

    /// Everything up to the guards: what changes nothing.
    fn check(&self, incoming: &Incoming<'_>) -> Result<(), Rejection> {
        let request = incoming.request;
        request
            .check_limits()
            .map_err(|fault| Rejection::now(fault.into()))?;
        let now = Now::new(incoming.view, &self.overlay, incoming.work, incoming.next);
        // No client can have read above what is applied, though the log may reach further.
        if let Some(read_position) = request.read_position
            && read_position > now.applied
        {
            return Err(Rejection::now(Refusal::SnapshotInFuture {
                read_position,
                latest: now.applied,
            }));
        }
        if request.has_reads() {
            let read_position = request.read_position.ok_or_else(|| {
                Rejection::malformed(
                    "the request declares reads but no read_position: say at which position they were made".into(),
                )
            })?;
            self.check_reads(&now, incoming, read_position)?;
        }
        guards::check_all(&now, incoming.rules, &request.guards)?;
        let mut tables = request.writes.iter().map(|write| write.table);
        if tables.any(|table| table < USER_TABLES_FROM) {
            // The rules are those of everything before: nothing that changes them is in flight.
            let rules = incoming.rules;
            rules
                .check_system_writes(request)
                .and_then(|()| incoming.prepared.check_definitions(request, rules))
                .map_err(Rejection::now)?;
        }
        Ok(())
    }

    fn check_reads(
        &self,
        now: &Now<'_>,
        incoming: &Incoming<'_>,
        read_position: Position,
    ) -> Result<(), Rejection> {
        for (index, read) in incoming.request.point_reads.iter().enumerate() {
            reads::keyed_table(incoming.rules, read.table, || Subject::PointRead(index))?;
            let fingerprint = self.fingerprints.of(read.table, &read.key);
            reads::check_point(now, &self.window, fingerprint, index, read, read_position)?;
        }
        ranges::check(
            now,
            incoming.rules,
            &incoming.request.range_reads,
            read_position,
        )
    }

    fn write(&mut self, incoming: &Incoming<'_>, body: &mut BodyWriter) -> Result<(), Rejection> {
        self.staged.clear();
        Writer {
            now: Now::new(incoming.view, &self.overlay, incoming.work, incoming.next),
            rules: incoming.rules,
            fingerprints: &self.fingerprints,
            staged: &mut self.staged,
            body,
            prepared: incoming.prepared,
            offset: incoming.next,
        }
        .write_all(incoming.request)
    }

    fn accept(&mut self, incoming: &Incoming<'_>, records: u32) -> Committed {
        let end = Position(incoming.next.0 + u64::from(records));
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
            id: incoming.id,
            fingerprint: incoming.fingerprint,
            position: end,
            records,
        });
        self.end = end;
        Committed {
            id: incoming.id,
            position: end,
            first_offset: incoming.next,
            records,
            repeated: false,
        }
    }
}
