//! The state machine: requests and completions in, effects out.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use onelog_commit::{
    DECISION_STEPS_MAX, Decision, Prepared, Remembered, Rules, Validator, ValidatorOptions, View,
    ViewError,
};
use onelog_record::{
    BodyError, BodyWriter, CommitRequest, Committed, Compression, CompressionError, Entry,
    EntryHeader, EntryKind, Index, PAYLOAD_HEADER_BYTES, Position, Refusal, TABLE_TABLES, Term,
    TxnId, compress, raw_body,
};

use crate::confirming::{Confirming, Unconfirmed};
use crate::consensus::{Consensus, ConsensusError};
use crate::planted::{self, Bug};
use crate::raft::{Fetch, Members, Message, Raft, SnapshotMark};
use crate::replies::Replies;

/// An open entry is sealed when its body reaches this size: larger groups gain nothing.
const ENTRY_BYTES_TARGET: usize = 1 << 20;
/// How many requests wait for a change of the catalog at most, and how many bytes of them.
const HELD_REQUESTS_MAX: usize = 1_024;
const HELD_BYTES_MAX: usize = 16 << 20;
/// How many refusals and repeated answers wait for what is in flight at most.
const LATE_MAX: usize = 8_192;
/// Bodies below this size are not worth compressing.
const COMPRESS_BYTES_MIN: usize = 256;

/// How the engine works.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How bodies are stored.
    pub compression: Compression,
    pub validator: ValidatorOptions,
}

/// One request on its way, with the ticket by which it is answered.
#[derive(Debug)]
pub struct Submission<T> {
    pub request: CommitRequest,
    /// What was found out about it before; nothing needs to be.
    pub prepared: Prepared,
    /// Given by the client or made on its behalf.
    pub id: TxnId,
    /// The fingerprint of the request, 0 when the id was made here.
    pub fingerprint: u64,
    pub ticket: T,
}

/// What the driver must do, in order, before the next step.
#[derive(Debug)]
pub enum Effect<T> {
    /// Save term and vote, flushed, before anything else.
    SaveVote(Term, u64),
    /// Replace log and state by this snapshot, which is here already; [`Engine::installed`] answers
    /// it.
    Install(SnapshotMark),
    /// Remove the log's entries from this one on, once no flush of them is under way. Until that is
    /// done, nothing must be reported to be stored.
    Cut(Index),
    /// Append these entries to the log and begin to flush them.
    Append(Vec<Entry>),
    /// Send these to other nodes. Any of them may get lost.
    Send(Vec<Message>),
    /// Read entries of the log; [`Engine::fetched`] answers it.
    Fetch(Fetch),
    /// This entry is committed: apply it to the state. The second part is its raw body.
    Apply(Entry, Bytes),
    /// From the entry at this index on, which is applied, these are the members.
    Members(Index, Members),
    Reply(T, Result<Committed, Refusal>),
    /// Answer a read barrier: a read at this position, which is applied, is linearizable.
    Readable(T, Position),
}

/// How far entries have been applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The position behind the last applied entry.
    pub position: Position,
    pub index: Index,
    pub term: Term,
    /// The highest timestamp of the entries so far.
    pub timestamp_ms: u64,
}

/// The engine cannot go on; the node must stop.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The state could not be read.
    #[error(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// A committed entry's body is malformed.
    #[error("entry {index}: {cause}")]
    Body { index: Index, cause: BodyError },
    /// A body could not be compressed.
    #[error(transparent)]
    Pack(#[from] CompressionError),
    /// A committed entry's body cannot be unpacked.
    #[error("entry {index}: {cause}")]
    Unpack {
        index: Index,
        cause: CompressionError,
    },
}

/// Validator, numbering and consensus in one.
#[derive(Debug)]
pub struct Engine<T, C = Raft> {
    pub(crate) options: EngineOptions,
    pub(crate) consensus: C,
    pub(crate) validator: Validator,
    /// Those of the validators before a snapshot replaced them.
    pub(crate) earlier_steps: u64,
    pub(crate) replies: Replies<T>,
    pub(crate) confirming: Confirming<T>,
    open: BodyWriter,
    pub(crate) applied: Applied,
    /// Entries of this leadership behind this index were decided by this validator.
    decided_from: Option<Index>,
    /// Requests that wait until a change of the catalog has been applied.
    held: VecDeque<Submission<T>>,
    held_bytes: usize,
    barrier: Option<Position>,
    /// Reads that wait for their barrier, by its token.
    reads: BTreeMap<u64, T>,
    pub(crate) next_read: u64,
    /// Reads whose barrier is answered, by the index that must be applied first.
    readable: BTreeMap<(Index, u64), T>,
    /// The highest timestamp of the entries that were applied or sealed: no later one is below it.
    pub(crate) last_timestamp_ms: u64,
}

impl<T, C: Consensus> Engine<T, C> {
    /// Starts at an applied state, which may lie before the last committed entry: those between
    /// are given to [`Engine::replay`]. `ids` are the remembered transaction ids in log order.
    pub fn new(
        options: EngineOptions,
        consensus: C,
        applied: Applied,
        ids: impl Iterator<Item = Remembered>,
    ) -> Self {
        assert!(
            applied.index <= consensus.committed(),
            "what is applied is committed"
        );
        let validator = Validator::new(options.validator, applied.position, ids);
        Self {
            options,
            validator,
            earlier_steps: 0,
            replies: Replies::default(),
            confirming: Confirming::default(),
            open: BodyWriter::with_prefix(PAYLOAD_HEADER_BYTES),
            applied,
            decided_from: None,
            held: VecDeque::new(),
            held_bytes: 0,
            barrier: None,
            reads: BTreeMap::new(),
            next_read: 0,
            readable: BTreeMap::new(),
            last_timestamp_ms: applied.timestamp_ms,
            consensus,
        }
    }

    /// How far entries have been applied.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// Whether this node leads and has applied the first entry of its own term: only then are
    /// requests admitted.
    #[must_use]
    pub fn admits(&self) -> bool {
        let has_applied = self.applied.term == self.consensus.term();
        self.consensus.leads() && (has_applied || planted::is(Bug::AdmitsTooEarly))
    }

    /// Whether something must get done before more is submitted: the open entry sealed, or what waits
    /// inside answered. Never where nothing is admitted: such a request is answered at once.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let has_room = self.may_decide()
            && self.consensus.may_propose()
            && self.held.len() < HELD_REQUESTS_MAX
            && self.held_bytes < HELD_BYTES_MAX;
        self.admits() && !has_room
    }

    fn may_decide(&self) -> bool {
        let late = self.replies.late_len() + self.confirming.len();
        self.open.len() < ENTRY_BYTES_TARGET && late < LATE_MAX
    }

    /// Whether there is something to seal.
    #[must_use]
    pub fn has_open(&self) -> bool {
        self.open.transactions() > 0
    }

    /// The bytes of what would be sealed.
    #[must_use]
    pub fn open_bytes(&self) -> usize {
        self.open.len()
    }

    /// Whether a request with this id is a repetition, or one under an id that is taken: it writes
    /// nothing.
    #[must_use]
    pub fn remembers(&self, id: TxnId) -> bool {
        self.validator.remembers(id)
    }

    /// Whether requests wait for [`Engine::resume`].
    #[must_use]
    pub fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether a change of the catalog is on its way: what comes behind it must wait.
    fn is_blocked(&self) -> bool {
        let is_waiting = |barrier| self.applied.position < barrier;
        self.barrier.is_some_and(is_waiting) && !planted::is(Bug::DecideBehindDefinition)
    }

    /// Whether a just applied entry may change the catalog. Of its own decisions the engine knows
    /// it; any other entry has to be looked through.
    #[must_use]
    pub fn may_define(&self, entry: &Entry) -> bool {
        let span = entry.header.base_offset.after()..=entry.header.end();
        let decided_here = self.decided_from.is_some_and(|from| entry.index > from);
        entry.header.kind == EntryKind::Transactions
            && (!decided_here || self.barrier.is_some_and(|barrier| span.contains(&barrier)))
    }

    /// How many steps the decisions so far have taken: how much of the state they looked at.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.earlier_steps + self.validator.steps()
    }

    /// How many requests wait for their answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.replies.len()
            + self.confirming.len()
            + self.held.len()
            + self.reads.len()
            + self.readable.len()
    }

    /// Applies a committed entry from the log while the node starts.
    pub fn replay(&mut self, entry: Entry, out: &mut Vec<Effect<T>>) -> Result<(), EngineError> {
        self.apply(entry, out)
    }

    /// Seeks the leadership; a single voter wins at once.
    pub fn campaign(&mut self, out: &mut Vec<Effect<T>>) -> Result<(), EngineError> {
        self.consensus.campaign()?;
        self.pump(out)
    }

    /// One tick of the clock has passed.
    pub fn tick(&mut self, out: &mut Vec<Effect<T>>) -> Result<(), EngineError> {
        self.consensus.tick()?;
        self.pump(out)
    }

    /// Answers [`Effect::Readable`] with a position that is at or above everything that was
    /// acknowledged anywhere before this call.
    pub fn read_barrier(&mut self, ticket: T, out: &mut Vec<Effect<T>>) -> Result<(), EngineError> {
        if !self.admits() {
            out.push(Effect::Reply(ticket, Err(Refusal::NotLeader)));
            return Ok(());
        }
        if planted::is(Bug::BarrierUnconfirmed) {
            out.push(Effect::Readable(ticket, self.applied.position));
            return Ok(());
        }
        self.next_read += 1;
        self.reads.insert(self.next_read, ticket);
        self.consensus.read_barrier(self.next_read);
        self.pump(out)
    }

    /// Decides a request. `view` and `rules` must show exactly what has been applied.
    pub fn submit(
        &mut self,
        submission: Submission<T>,
        view: &dyn View,
        rules: &dyn Rules,
        out: &mut Vec<Effect<T>>,
    ) -> Result<(), EngineError> {
        if !self.admits() {
            out.push(Effect::Reply(submission.ticket, Err(Refusal::NotLeader)));
            return Ok(());
        }
        if self.is_blocked() || !self.held.is_empty() {
            self.held_bytes += submission.request.size();
            self.held.push_back(submission);
            return Ok(());
        }
        self.decide(submission, view, rules, out)
    }

    /// Whether [`Engine::resume`] would decide a request now.
    #[must_use]
    pub fn may_resume(&self) -> bool {
        self.has_held() && self.may_decide() && !self.is_blocked()
    }

    /// Decides the requests that waited for a change of the catalog, once it is applied: some of
    /// them, when they take many steps.
    pub fn resume(
        &mut self,
        view: &dyn View,
        rules: &dyn Rules,
        out: &mut Vec<Effect<T>>,
    ) -> Result<(), EngineError> {
        let began_at_step = self.steps();
        while self.may_decide()
            && !self.is_blocked()
            && self.steps() - began_at_step < DECISION_STEPS_MAX as u64
        {
            self.barrier = None;
            let Some(submission) = self.held.pop_front() else {
                break;
            };
            self.held_bytes -= submission.request.size();
            self.decide(submission, view, rules, out)?;
        }
        Ok(())
    }

    fn decide(
        &mut self,
        submission: Submission<T>,
        view: &dyn View,
        rules: &dyn Rules,
        out: &mut Vec<Effect<T>>,
    ) -> Result<(), EngineError> {
        let Submission {
            request,
            prepared,
            id,
            fingerprint,
            ticket,
        } = submission;
        let end = self.consensus.end().get();
        let next = Position(end + u64::from(self.open.records())).next_offset();
        let decision = self.validator.decide_prepared(
            &request,
            &prepared,
            id,
            fingerprint,
            next,
            view,
            rules,
            &mut self.open,
        )?;
        let is_in_log = matches!(decision, Decision::Repeated(_));
        let (after, answer) = match decision {
            Decision::Accepted(committed) => {
                if request
                    .writes
                    .iter()
                    .any(|write| write.table == TABLE_TABLES)
                {
                    self.barrier = Some(committed.position);
                }
                if planted::is(Bug::AnswerOnDecision) {
                    out.push(Effect::Reply(ticket, Ok(committed)));
                    return Ok(());
                }
                self.replies.accepted(ticket, committed);
                return Ok(());
            }
            Decision::Validated(committed) | Decision::Repeated(committed) => {
                (committed.position, Ok(committed))
            }
            Decision::Refused { refusal, after } => (after, Err(refusal)),
        };
        let answer = Unconfirmed {
            ticket,
            after,
            answer,
        };
        if is_in_log || self.consensus.is_alone() || planted::is(Bug::RefusedUnconfirmed) {
            self.answer(answer, out);
            return Ok(());
        }
        self.confirming.push(answer);
        self.confirm();
        self.pump(out)
    }

    /// Seals the open entry, if there is one, and proposes it.
    pub fn seal(&mut self, now_ms: u64, out: &mut Vec<Effect<T>>) -> Result<(), EngineError> {
        if !self.has_open() || !self.consensus.may_propose() {
            return Ok(());
        }
        self.last_timestamp_ms = self.last_timestamp_ms.max(now_ms);
        let mut header = EntryHeader {
            kind: EntryKind::Transactions,
            compression: Compression::None,
            raw_len: self.open.len() as u32,
            base_offset: self.consensus.end().next_offset(),
            record_count: self.open.records(),
            transaction_count: self.open.transactions(),
            timestamp_ms: self.last_timestamp_ms,
        };
        let mut payload = self.open.take();
        if header.raw_len as usize >= COMPRESS_BYTES_MIN {
            let raw = &payload[PAYLOAD_HEADER_BYTES..];
            let (compression, packed) = compress(raw, self.options.compression)?;
            if compression != Compression::None {
                let packed = packed.into_owned();
                header.compression = compression;
                payload.truncate(PAYLOAD_HEADER_BYTES);
                payload.extend_from_slice(&packed);
            }
        }
        payload[..PAYLOAD_HEADER_BYTES].copy_from_slice(&header.encode());
        self.consensus.propose(payload)?;
        self.pump(out)
    }

    /// Everything up to `index` is durable here.
    pub fn stored(&mut self, index: Index, out: &mut Vec<Effect<T>>) -> Result<(), EngineError> {
        self.consensus.stored(index);
        self.pump(out)
    }

    /// Takes every waiting ticket when the node stops: what became of them is not known.
    pub fn abandon(&mut self) -> Vec<T> {
        let held = std::mem::take(&mut self.held);
        self.held_bytes = 0;
        let reads = std::mem::take(&mut self.reads);
        let readable = std::mem::take(&mut self.readable);
        self.replies
            .drain()
            .chain(self.confirming.drain())
            .chain(held.into_iter().map(|held| held.ticket))
            .chain(reads.into_values())
            .chain(readable.into_values())
            .collect()
    }

    pub(crate) fn pump(&mut self, out: &mut Vec<Effect<T>>) -> Result<(), EngineError> {
        loop {
            let Some(progress) = self.consensus.poll()? else {
                if self.admits() && self.confirm() {
                    continue;
                }
                return Ok(());
            };
            if progress.lost_leadership.is_some() {
                // Before anything of a later term: it may have the positions of what was decided
                // here, and must not release those answers.
                self.step_down(out);
            }
            if let Some((term, vote)) = progress.vote {
                out.push(Effect::SaveVote(term, vote));
            }
            if let Some(mark) = progress.install {
                self.install(mark, out);
            }
            out.extend(progress.cut.map(Effect::Cut));
            if !progress.entries.is_empty() {
                self.append(progress.entries, out);
            }
            if !progress.messages.is_empty() {
                out.push(Effect::Send(progress.messages));
            }
            out.extend(progress.fetches.into_iter().map(Effect::Fetch));
            let last = progress.committed.last().map(|entry| entry.index);
            for entry in progress.committed {
                self.apply(entry, out)?;
            }
            if let Some(last) = last {
                self.consensus.applied(last);
            }
            for (token, index) in progress.barriers {
                if let Some(ticket) = self.reads.remove(&token) {
                    self.readable.insert((index, token), ticket);
                }
                for answer in self.confirming.confirmed(token) {
                    self.answer(answer, out);
                }
            }
            self.release_reads(out);
        }
    }

    fn release_reads(&mut self, out: &mut Vec<Effect<T>>) {
        while let Some(((index, _), _)) = self.readable.first_key_value()
            && *index <= self.applied.index
        {
            if let Some((_, ticket)) = self.readable.pop_first() {
                out.push(Effect::Readable(ticket, self.applied.position));
            }
        }
    }

    fn append(&mut self, entries: Vec<Entry>, out: &mut Vec<Effect<T>>) {
        for entry in &entries {
            let begins_term =
                entry.header.kind == EntryKind::NoOp && entry.term == self.consensus.term();
            if begins_term && self.consensus.leads() && self.decided_from.is_none() {
                self.decided_from = Some(entry.index);
            }
        }
        out.push(Effect::Append(entries));
    }

    fn apply(&mut self, entry: Entry, out: &mut Vec<Effect<T>>) -> Result<(), EngineError> {
        let index = entry.index;
        assert_eq!(
            index,
            self.applied.index.next(),
            "entries are applied one after the other"
        );
        let raw = raw_body(&entry).map_err(|cause| EngineError::Unpack { index, cause })?;
        let decided_here = self.decided_from.is_some_and(|from| index > from);
        self.applied = Applied {
            position: entry.header.end(),
            index,
            term: entry.term,
            timestamp_ms: self.applied.timestamp_ms.max(entry.header.timestamp_ms),
        };
        self.last_timestamp_ms = self.last_timestamp_ms.max(entry.header.timestamp_ms);
        // The validator comes first: what is applied at once need not pass through the overlay.
        self.validator.applied(self.applied.position);
        if entry.header.kind == EntryKind::Transactions && !decided_here {
            self.validator
                .replay(&raw, entry.header.base_offset)
                .map_err(|cause| EngineError::Body { index, cause })?;
        }
        let members = match entry.header.kind {
            EntryKind::Membership => Some(self.consensus.change_members(&entry)?),
            EntryKind::Transactions | EntryKind::NoOp => None,
        };
        out.push(Effect::Apply(entry, raw));
        out.extend(members.map(|members| Effect::Members(index, members)));
        self.replies
            .release(self.applied.position, |ticket, answer| {
                out.push(Effect::Reply(ticket, answer))
            });
        Ok(())
    }

    /// What was known of the entries below the snapshot is gone with them.
    fn install(&mut self, mark: SnapshotMark, out: &mut Vec<Effect<T>>) {
        self.applied = Applied {
            position: mark.end,
            index: mark.index,
            term: mark.term,
            timestamp_ms: self.applied.timestamp_ms,
        };
        out.push(Effect::Install(mark));
    }

    /// Everything speculative rests on entries that may be lost now.
    fn step_down(&mut self, out: &mut Vec<Effect<T>>) {
        self.decided_from = None;
        self.barrier = None;
        self.open = BodyWriter::with_prefix(PAYLOAD_HEADER_BYTES);
        if !planted::is(Bug::OverlayKept) {
            self.validator.reset(self.applied.position);
        }
        if planted::is(Bug::RepliesKept) {
            return;
        }
        for ticket in self.abandon() {
            out.push(Effect::Reply(ticket, Err(Refusal::NotLeader)));
        }
    }
}
