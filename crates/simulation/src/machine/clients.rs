//! Clients as scripts: read, decide, send, hear or not, send again.

use std::hash::Hash;

use onelog_engine::{Prepared, Submission};
use onelog_record::{
    CommitRequest, Committed, Operation, Position, Refusal, TABLE_TABLES, TableDefinition, TxnId,
    Write,
};
use onelog_replica::Answer as Answered;
use onelog_state::Snapshot;
use rand::Rng;

use super::life::{Ticket, stopped};
use super::world::{Stopped, World};
use crate::checker::Rule;
use crate::history::{Answer, CommitCall, ReadCall, Requested, Seen};
use crate::workloads::{self, Attempt};

/// How many requests of a client wait for their answers at most.
const WAITING_MAX: usize = 3;
/// Of a hundred: reads that only audit, answers that no client hears, requests that are sent again,
/// ids that are used for another request by mistake.
const AUDIT_PERCENT: u32 = 4;
const DEAF_PERCENT: u32 = 8;
const BARRIER_PERCENT: u32 = 5;
const RETRY_PERCENT: u32 = 10;
const MISTAKE_PERCENT: u32 = 1;
/// Of a hundred writes without reads: those that do not say since when their id is in use. Only
/// where so many ids are remembered that none is ever forgotten.
const BLIND_PERCENT: u32 = 50;
const IDS_ALL: usize = 100_000;
/// Ids from here on define the tables.
const TABLE_SETUP_FROM: u128 = 1 << 64;
/// How often the setup is sent; each answer is heard more often than not.
const SETUP_ATTEMPTS_MAX: usize = 32;
/// How many acknowledged requests are sent again after a recovery.
const SENT_AGAIN_MAX: usize = 12;

#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    waiting: usize,
    prepared: Option<Attempt>,
    /// The highest position that it was answered.
    reached: Position,
    sent: Vec<usize>,
}

impl Client {
    pub(super) fn forget_waiting(&mut self) {
        self.waiting = 0;
        self.prepared = None;
    }
}

impl World {
    fn percent(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    /// One step of a client's script.
    pub(super) fn client_step(&mut self, client: usize) -> Result<(), Stopped> {
        if let Some(attempt) = self.clients[client].prepared.take() {
            let id = new_id(&mut self.random);
            return self.send(client, id, attempt.request, attempt.seen);
        }
        if self.clients[client].waiting >= WAITING_MAX {
            return Ok(());
        }
        if self.percent(RETRY_PERCENT) {
            return self.retry_some(client);
        }
        if self.percent(BARRIER_PERCENT) {
            self.request_barrier(client);
            return Ok(());
        }
        self.read(client)
    }

    fn snapshot(&mut self, client: usize) -> Option<(Requested, Snapshot)> {
        let life = self.life.as_ref()?;
        let reached = self.clients[client].reached;
        let newest = life.state.snapshot();
        match self.random.random_range(0..10) {
            0 if newest.position() >= reached => Some((Requested::After(reached), newest)),
            // The position may be too old by now; then there is nothing to see.
            1 => Some((
                Requested::At(reached),
                life.state.snapshot_at(reached).ok()?,
            )),
            _ => Some((Requested::Newest, newest)),
        }
    }

    fn read(&mut self, client: usize) -> Result<(), Stopped> {
        let begin = self.clock.tick();
        let Some((requested, snapshot)) = self.snapshot(client) else {
            return Ok(());
        };
        let end = self.clock.tick();
        let workloads = std::sync::Arc::clone(&self.workloads);
        let workload = &*workloads[self.random.random_range(0..workloads.len())];
        let failed = |cause: onelog_state::ReadError| stopped("read")(&cause);
        let seen = if self.percent(AUDIT_PERCENT) {
            let seen = workloads::audit(workload, &snapshot).map_err(failed)?;
            self.check_invariant(workload, &seen, snapshot.position());
            seen
        } else {
            let mut attempt =
                workloads::prepare(workload, &snapshot, &mut self.random).map_err(failed)?;
            if self.options.ids_max >= IDS_ALL && self.percent(BLIND_PERCENT) {
                workloads::make_blind(&mut attempt.request);
            }
            let seen = attempt.seen.clone();
            self.clients[client].prepared = Some(attempt);
            seen
        };
        self.note_read(client, (begin, end), requested, snapshot.position(), seen);
        Ok(())
    }

    fn note_read(
        &mut self,
        client: usize,
        (begin, end): (crate::history::Moment, crate::history::Moment),
        requested: Requested,
        position: Position,
        seen: Seen,
    ) {
        self.reach(client, position);
        (client, begin.0, position).hash(&mut self.trace);
        self.history.reads.push(ReadCall {
            client: client as u32,
            begin,
            end,
            requested,
            position,
            seen,
        });
    }

    fn check_invariant(
        &mut self,
        workload: &dyn workloads::Workload,
        seen: &Seen,
        position: Position,
    ) {
        if self.set_up_at.is_none_or(|begin| position < begin) {
            return;
        }
        if let Err(why) = workload.invariant(seen) {
            let text = format!("{workload:?} at position {position}: {why}");
            self.report.add(Rule::Invariant, text);
        }
    }

    pub(super) fn send(
        &mut self,
        client: usize,
        id: TxnId,
        mut request: CommitRequest,
        seen: Seen,
    ) -> Result<(), Stopped> {
        if !request.has_reads() && request.writes.is_empty() && request.guards.is_empty() {
            return Ok(());
        }
        request.id = Some(id);
        let call = self.history.commits.len();
        self.history.commits.push(CommitCall {
            client: client as u32,
            begin: self.clock.tick(),
            end: None,
            id,
            request: request.clone(),
            seen,
            answer: Answer::Unknown,
        });
        self.clients[client].waiting += 1;
        self.clients[client].sent.push(call);
        let submission = Submission {
            id,
            fingerprint: request.fingerprint(),
            request,
            prepared: Prepared::default(),
            ticket: Ticket::Commit(call),
        };
        if let Some(life) = &mut self.life {
            life.send(submission, self.now);
        }
        Ok(())
    }

    fn retry_some(&mut self, client: usize) -> Result<(), Stopped> {
        let sent = &self.clients[client].sent;
        if sent.is_empty() {
            return Ok(());
        }
        let call = sent[self.random.random_range(0..sent.len())];
        if self.percent(MISTAKE_PERCENT) {
            let mut call = self.history.commits[call].clone();
            workloads::mark_as_other(&mut call.request);
            return self.send(client, call.id, call.request, call.seen);
        }
        self.retry(call)
    }

    fn retry(&mut self, call: usize) -> Result<(), Stopped> {
        let call = self.history.commits[call].clone();
        self.send(call.client as usize, call.id, call.request, call.seen)
    }

    fn reach(&mut self, client: usize, position: Position) {
        let reached = &mut self.clients[client].reached;
        *reached = (*reached).max(position);
    }

    fn request_barrier(&mut self, client: usize) {
        let begin = self.clock.tick();
        let barrier = self.barriers.len();
        self.barriers.push((client, begin));
        if let Some(life) = &mut self.life {
            life.request_barrier(barrier);
        }
    }

    /// Lets the clients hear their answers.
    pub(super) fn hear(&mut self) -> Result<(), Stopped> {
        let answers = match &mut self.life {
            Some(life) => std::mem::take(&mut life.answered),
            None => return Ok(()),
        };
        for answer in answers {
            match answer {
                Answered::Decided(Ticket::Commit(call), answer) => self.hear_answer(call, answer),
                Answered::Readable(Ticket::Barrier(barrier), position) => {
                    self.read_at_barrier(barrier, position)?;
                }
                // Without the leadership there is no barrier; the client reads another time.
                Answered::Decided(Ticket::Barrier(_), _) | Answered::Readable(..) => {}
                Answered::Members(..) | Answered::Transferred(..) => {}
            }
        }
        Ok(())
    }

    fn hear_answer(&mut self, call: usize, answer: Result<Committed, Refusal>) {
        format!("{call} {answer:?}").hash(&mut self.trace);
        let client = self.history.commits[call].client as usize;
        self.clients[client].waiting = self.clients[client].waiting.saturating_sub(1);
        if self.percent(DEAF_PERCENT) {
            return;
        }
        let position = match &answer {
            Ok(committed) => committed.position,
            Err(Refusal::Conflict { retry_at, .. } | Refusal::GuardFailed { retry_at, .. }) => {
                *retry_at
            }
            Err(_) => Position::ZERO,
        };
        self.reach(client, position);
        let call = &mut self.history.commits[call];
        call.end = Some(self.clock.tick());
        call.answer = match answer {
            Ok(committed) => Answer::Committed(committed),
            Err(refusal) => Answer::Refused(refusal),
        };
    }

    /// Reads at the position of a barrier: as the newest, it must show everything that was answered
    /// before the barrier was requested.
    fn read_at_barrier(&mut self, barrier: usize, position: Position) -> Result<(), Stopped> {
        let (client, begin) = self.barriers[barrier];
        let Some(Ok(snapshot)) = self
            .life
            .as_ref()
            .map(|life| life.state.snapshot_at(position))
        else {
            return Ok(());
        };
        let workloads = std::sync::Arc::clone(&self.workloads);
        let workload = &*workloads[self.random.random_range(0..workloads.len())];
        let seen =
            workloads::audit(workload, &snapshot).map_err(|cause| stopped("read")(&cause))?;
        self.check_invariant(workload, &seen, position);
        let end = self.clock.tick();
        self.note_read(client, (begin, end), Requested::Newest, position, seen);
        Ok(())
    }

    /// Reads everything, and holds it against the invariants.
    pub(super) fn audit_all(&mut self) -> Result<(), Stopped> {
        let begin = self.clock.tick();
        let Some(life) = &self.life else {
            return Ok(());
        };
        let snapshot = life.state.snapshot();
        let end = self.clock.tick();
        let workloads = std::sync::Arc::clone(&self.workloads);
        let mut all = Seen::default();
        for workload in workloads.iter() {
            let seen = workloads::audit(&**workload, &snapshot)
                .map_err(|cause| stopped("audit")(&cause))?;
            self.check_invariant(&**workload, &seen, snapshot.position());
            all.ranges.extend(seen.ranges);
        }
        self.note_read(0, (begin, end), Requested::Newest, snapshot.position(), all);
        Ok(())
    }

    /// Sends what the workloads need at the beginning, until it is acknowledged.
    pub(super) fn set_up(&mut self) -> Result<(), Stopped> {
        if self.set_up_at.is_some() {
            return Ok(());
        }
        let workloads = std::sync::Arc::clone(&self.workloads);
        let tables: Vec<_> = workloads.iter().flat_map(|w| w.tables()).collect();
        for table in tables {
            let id = TxnId(TABLE_SETUP_FROM + u128::from(table.id.0));
            self.send_until_done(id, &define(&table))?;
        }
        for (n, workload) in workloads.iter().enumerate() {
            self.send_until_done(TxnId(n as u128 + 1), &workloads::setup(&**workload))?;
        }
        let position = self.life.as_ref().map(|life| life.state.position());
        self.set_up_at = position;
        self.audit_all()
    }

    fn send_until_done(&mut self, id: TxnId, request: &CommitRequest) -> Result<(), Stopped> {
        let is_done = |world: &Self| {
            let mut calls = world.history.commits.iter().filter(|call| call.id == id);
            calls.any(|call| matches!(call.answer, Answer::Committed(_)))
        };
        if request.writes.is_empty() {
            return Ok(());
        }
        for _ in 0..SETUP_ATTEMPTS_MAX {
            if is_done(self) {
                return Ok(());
            }
            self.send(0, id, request.clone(), Seen::default())?;
            self.drain()?;
        }
        let answer = self.history.commits.last().map(|call| &call.answer);
        let text = format!("the setup {id} is refused again and again: {answer:?}");
        self.report.add(Rule::CannotGoOn, text);
        Ok(())
    }

    /// Sends everything again whose answer is not known, and some of the rest.
    pub(super) fn send_again(&mut self) -> Result<(), Stopped> {
        let commits = &self.history.commits;
        let unknown = |call: &CommitCall| call.answer == Answer::Unknown;
        let mut calls: Vec<usize> = (0..commits.len())
            .filter(|call| unknown(&commits[*call]))
            .collect();
        let known: Vec<usize> = (0..commits.len())
            .filter(|call| matches!(commits[*call].answer, Answer::Committed(_)))
            .collect();
        let step = (known.len() / SENT_AGAIN_MAX).max(1);
        calls.extend(known.into_iter().rev().step_by(step));
        for call in calls {
            self.retry(call)?;
            if self.percent(30) {
                self.drain()?;
            }
        }
        self.drain()
    }
}

/// The transaction that defines a table.
fn define(table: &TableDefinition) -> CommitRequest {
    CommitRequest {
        // Since the beginning, as in the workloads' own setup.
        read_position: Some(Position::ZERO),
        writes: vec![Write {
            table: TABLE_TABLES,
            key: table.name.clone().into(),
            operation: Operation::Put(serde_json::json!(table).to_string().into()),
            headers: Vec::new(),
        }],
        ..CommitRequest::default()
    }
}

pub(super) fn new_id(random: &mut impl Rng) -> TxnId {
    // The low numbers belong to the setup.
    TxnId(random.random::<u128>() | 1 << 127)
}
