//! Clients as scripts: read, decide, send, hear or not, ask again.

use std::hash::Hash;

use onelog_engine::Submission;
use onelog_record::{CommitRequest, Position, Refusal, TxnId};
use onelog_state::Snapshot;
use rand::Rng;

use super::life::stopped;
use super::world::{Stopped, World};
use crate::checker::Rule;
use crate::history::{Answer, Asked, CommitCall, ReadCall, Seen};
use crate::workloads::{self, Attempt};

/// How many requests of a client wait for their answers at most.
const WAITING_MAX: usize = 3;
/// Of a hundred: reads that only audit, answers that nobody hears, requests that are asked again,
/// ids that are used for another request by mistake.
const AUDIT_PERCENT: u32 = 4;
const DEAF_PERCENT: u32 = 8;
const RETRY_PERCENT: u32 = 10;
const MISTAKE_PERCENT: u32 = 1;
/// Of a hundred writes without reads: those that do not say since when their id is in use. Only
/// where so many ids are remembered that none is ever forgotten.
const BLIND_PERCENT: u32 = 50;
const IDS_ALL: usize = 100_000;
/// How many acknowledged requests are asked again after a recovery.
const ASKED_AGAIN_MAX: usize = 12;

#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    waiting: usize,
    prepared: Option<Attempt>,
    /// The highest position that it was told.
    told: Position,
    /// Its calls.
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
        self.read(client)
    }

    fn snapshot(&mut self, client: usize) -> Option<(Asked, Snapshot)> {
        let life = self.life.as_ref()?;
        let told = self.clients[client].told;
        let newest = life.state.snapshot();
        match self.random.random_range(0..10) {
            0 if newest.position() >= told => Some((Asked::After(told), newest)),
            // The position may be too old by now; then there is nothing to see.
            1 => Some((Asked::At(told), life.state.snapshot_at(told).ok()?)),
            _ => Some((Asked::Newest, newest)),
        }
    }

    fn read(&mut self, client: usize) -> Result<(), Stopped> {
        let begin = self.clock.tick();
        let Some((asked, snapshot)) = self.snapshot(client) else {
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
        self.note_read(client, (begin, end), asked, snapshot.position(), seen);
        Ok(())
    }

    fn note_read(
        &mut self,
        client: usize,
        (begin, end): (crate::history::Moment, crate::history::Moment),
        asked: Asked,
        position: Position,
        seen: Seen,
    ) {
        let told = &mut self.clients[client].told;
        *told = (*told).max(position);
        (client, begin.0, position).hash(&mut self.trace);
        self.history.reads.push(ReadCall {
            client: client as u32,
            begin,
            end,
            asked,
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
        let ticket = self.history.commits.len();
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
        self.clients[client].sent.push(ticket);
        let submission = Submission {
            id,
            fingerprint: request.fingerprint(),
            request,
            ticket,
        };
        let Some(life) = &mut self.life else {
            return Ok(());
        };
        let result = life.submit(submission, &self.rules);
        self.hear();
        result
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

    /// Lets the clients hear what they were told.
    pub(super) fn hear(&mut self) {
        let told = match &mut self.life {
            Some(life) => std::mem::take(&mut life.told),
            None => return,
        };
        for (ticket, answer) in told {
            format!("{ticket} {answer:?}").hash(&mut self.trace);
            let client = self.history.commits[ticket].client as usize;
            self.clients[client].waiting = self.clients[client].waiting.saturating_sub(1);
            if self.percent(DEAF_PERCENT) {
                continue;
            }
            let position = match &answer {
                Ok(committed) => committed.position,
                Err(Refusal::Conflict { retry_at, .. } | Refusal::GuardFailed { retry_at, .. }) => {
                    *retry_at
                }
                Err(_) => Position::ZERO,
            };
            let told = &mut self.clients[client].told;
            *told = (*told).max(position);
            let call = &mut self.history.commits[ticket];
            call.end = Some(self.clock.tick());
            call.answer = match answer {
                Ok(committed) => Answer::Committed(committed),
                Err(refusal) => Answer::Refused(refusal),
            };
        }
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
        self.note_read(0, (begin, end), Asked::Newest, snapshot.position(), all);
        Ok(())
    }

    /// Sends what the workloads need at the beginning, until it is acknowledged.
    pub(super) fn set_up(&mut self) -> Result<(), Stopped> {
        if self.set_up_at.is_some() {
            return Ok(());
        }
        let workloads = std::sync::Arc::clone(&self.workloads);
        for (n, workload) in workloads.iter().enumerate() {
            let id = TxnId(n as u128 + 1);
            let is_done = |world: &Self| {
                world
                    .history
                    .commits
                    .iter()
                    .any(|call| call.id == id && matches!(call.answer, Answer::Committed(_)))
            };
            let request = workloads::setup(&**workload);
            while !request.writes.is_empty() && !is_done(self) {
                self.send(0, id, request.clone(), Seen::default())?;
                self.drain()?;
            }
        }
        let position = self.life.as_ref().map(|life| life.state.position());
        self.set_up_at = position;
        self.audit_all()
    }

    /// Asks again about everything whose answer is not known, and some of the rest.
    pub(super) fn ask_again(&mut self) -> Result<(), Stopped> {
        let commits = &self.history.commits;
        let unknown = |call: &CommitCall| call.answer == Answer::Unknown;
        let mut calls: Vec<usize> = (0..commits.len())
            .filter(|call| unknown(&commits[*call]))
            .collect();
        let known: Vec<usize> = (0..commits.len())
            .filter(|call| matches!(commits[*call].answer, Answer::Committed(_)))
            .collect();
        let step = (known.len() / ASKED_AGAIN_MAX).max(1);
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

pub(super) fn new_id(random: &mut impl Rng) -> TxnId {
    // The low numbers belong to the setup.
    TxnId(random.random::<u128>() | 1 << 127)
}
