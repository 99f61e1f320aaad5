//! Clients of a cluster: each reads on any node, sends to any node, hears or not, and sends again under
//! the same id. A request that met a node which does not lead goes on to another one, as in the real
//! node: the client notices nothing.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash};

use onelog_record::{
    CommitRequest, Committed, NodeId, Operation, Position, Refusal, TABLE_TABLES, TableDefinition,
    TxnId, Write,
};
use onelog_replica::{Answer as Answered, Event};
use onelog_state::Snapshot;
use rand::Rng;

use super::node::Node;
use super::world::World;
use crate::checker::{Report, Rule};
use crate::history::{Answer, Clock, CommitCall, History, Moment, ReadCall, Requested, Seen};
use crate::workloads::{self, Random, Workload};

const CLIENTS: usize = 6;
/// How many requests of a client wait for their answers at most.
const WAITING_MAX: usize = 3;
/// How often a request is sent on before its client gives up.
const ATTEMPTS_MAX: usize = 40;
/// Of a hundred steps: reads that only audit, read barriers, requests that are sent again, ids that
/// are used for another request by mistake, answers that no client hears.
const AUDIT_PERCENT: u32 = 4;
const BARRIER_PERCENT: u32 = 8;
const RETRY_PERCENT: u32 = 10;
const MISTAKE_PERCENT: u32 = 1;
const DEAF_PERCENT: u32 = 8;
/// Of a hundred writes without reads: those that do not say since when their id is in use.
const BLIND_PERCENT: u32 = 50;
/// Of a hundred requests with reads: those that write nothing, and only ask whether these still hold.
const VALIDATED_PERCENT: u32 = 10;
/// Of a hundred requests: those that go to a node that leads, as far as it knows.
const LEADER_PERCENT: u32 = 70;
/// Ids from here on define the tables.
const TABLE_SETUP_FROM: u128 = 1 << 64;
/// How many of the acknowledged requests are sent again in the end.
const SENT_AGAIN_MAX: usize = 40;

#[derive(Clone, Debug, Default)]
struct Client {
    waiting: usize,
    prepared: Option<workloads::Attempt>,
    sent: Vec<usize>,
}

/// What an answer is for.
#[derive(Clone, Copy, Debug)]
enum Waits {
    Commit(usize),
    Barrier {
        client: usize,
        begin: Moment,
        node: NodeId,
    },
}

/// What the clients did that is rare.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seldom {
    pub sent_on: usize,
    pub answered_again: usize,
    pub refused_again: usize,
    pub barriers: usize,
    pub followers_read: usize,
}

#[derive(Debug)]
pub struct Clients {
    clients: Vec<Client>,
    workloads: Vec<Box<dyn Workload>>,
    pub(super) history: History,
    pub(super) report: Report,
    pub(super) trace: DefaultHasher,
    pub(super) seldom: Seldom,
    clock: Clock,
    waits: BTreeMap<u32, Waits>,
    /// Calls without an answer, and how often each was sent on.
    open: BTreeMap<usize, usize>,
    ticket: u32,
    set_up_at: Option<Position>,
}

impl Clients {
    pub fn new(workloads: Vec<Box<dyn Workload>>) -> Self {
        Self {
            clients: vec![Client::default(); CLIENTS],
            workloads,
            history: History::default(),
            report: Report::default(),
            trace: DefaultHasher::new(),
            seldom: Seldom::default(),
            clock: Clock::default(),
            waits: BTreeMap::new(),
            open: BTreeMap::new(),
            ticket: 0,
            set_up_at: None,
        }
    }

    /// The tables whose unique fields are checked.
    pub fn definitions(&self) -> Vec<TableDefinition> {
        let tables = self.workloads.iter().flat_map(|w| w.tables());
        std::iter::once(super::unique_rows())
            .chain(tables)
            .collect()
    }

    /// A number that no answer has been given yet.
    pub fn next_ticket(&mut self) -> u32 {
        self.ticket += 1;
        self.ticket
    }

    /// Sends what the workloads need at the beginning to a node that leads.
    pub fn set_up(&mut self, world: &mut World, leader: NodeId, random: &mut Random) {
        let tables: Vec<_> = self.workloads.iter().flat_map(|w| w.tables()).collect();
        for table in tables {
            let id = TxnId(TABLE_SETUP_FROM + u128::from(table.id.0));
            self.send_and_wait(world, leader, id, define(&table), random);
        }
        for n in 0..self.workloads.len() {
            let request = workloads::setup(&*self.workloads[n]);
            if !request.writes.is_empty() {
                self.send_and_wait(world, leader, TxnId(n as u128 + 1), request, random);
            }
        }
        self.set_up_at = Some(world.nodes[&leader].replica().applied().position);
    }

    fn send_and_wait(
        &mut self,
        world: &mut World,
        leader: NodeId,
        id: TxnId,
        request: CommitRequest,
        random: &mut Random,
    ) {
        let call = self.begin(0, id, request, Seen::default());
        self.submit(world, leader, call);
        world.settle();
        self.hear(world, random);
        assert!(!self.open.contains_key(&call), "the setup {id} is answered");
    }

    fn begin(&mut self, client: usize, id: TxnId, mut request: CommitRequest, seen: Seen) -> usize {
        request.id = Some(id);
        let call = self.history.commits.len();
        self.history.commits.push(CommitCall {
            client: client as u32,
            begin: self.clock.tick(),
            end: None,
            id,
            request,
            seen,
            answer: Answer::Unknown,
        });
        self.clients[client].waiting += 1;
        self.clients[client].sent.push(call);
        self.open.insert(call, 0);
        call
    }

    fn submit(&mut self, world: &mut World, to: NodeId, call: usize) {
        let ticket = self.next_ticket();
        let (id, request) = (
            self.history.commits[call].id,
            self.history.commits[call].request.clone(),
        );
        let node = world.get(to);
        if !node.runs() || node.is_paused {
            return;
        }
        self.waits.insert(ticket, Waits::Commit(call));
        node.submit(ticket, id, request);
        node.turn_if_running();
    }

    /// One that leads, as far as it knows, or any.
    fn pick(world: &World, random: &mut Random) -> Option<NodeId> {
        let all: Vec<_> = world.nodes.values().filter(|n| n.is_awake()).collect();
        let leaders: Vec<_> = all.iter().filter(|n| n.admits()).map(|n| n.id).collect();
        let from_leaders = !leaders.is_empty() && random.random_ratio(LEADER_PERCENT, 100);
        let from: Vec<NodeId> = match from_leaders {
            true => leaders,
            false => all.iter().map(|node| node.id).collect(),
        };
        (!from.is_empty()).then(|| from[random.random_range(0..from.len())])
    }

    /// One step of some client.
    pub fn step(&mut self, world: &mut World, random: &mut Random) {
        let client = random.random_range(0..self.clients.len());
        if let Some(attempt) = self.clients[client].prepared.take() {
            let id = TxnId(random.random::<u128>() | 1 << 127);
            return self.send(world, client, id, attempt.request, attempt.seen, random);
        }
        if self.clients[client].waiting >= WAITING_MAX {
            return;
        }
        if random.random_ratio(RETRY_PERCENT, 100) {
            return self.retry_some(world, client, random);
        }
        if random.random_ratio(BARRIER_PERCENT, 100) {
            return self.request_barrier(world, client, random);
        }
        self.read(world, client, random);
    }

    fn send(
        &mut self,
        world: &mut World,
        client: usize,
        id: TxnId,
        request: CommitRequest,
        seen: Seen,
        random: &mut Random,
    ) {
        if !request.has_reads() && request.writes.is_empty() && request.guards.is_empty() {
            return;
        }
        let call = self.begin(client, id, request, seen);
        if let Some(to) = Self::pick(world, random) {
            self.submit(world, to, call);
        }
    }

    /// Sends one of the requests on that have no answer: its node does not lead, is gone, or is slow.
    pub fn send_on(&mut self, world: &mut World, random: &mut Random) {
        if self.open.is_empty() {
            return;
        }
        let place = random.random_range(0..self.open.len());
        let Some((&call, _)) = self.open.iter().nth(place) else {
            return;
        };
        self.send_open_on(world, call, random);
    }

    fn send_open_on(&mut self, world: &mut World, call: usize, random: &mut Random) {
        let attempts = self.open.entry(call).or_default();
        *attempts += 1;
        if *attempts > ATTEMPTS_MAX {
            self.give_up(call);
            return;
        }
        self.seldom.sent_on += 1;
        // To the history it is one more request under the same id, of which no answer is heard.
        let again = CommitCall {
            begin: self.clock.tick(),
            ..self.history.commits[call].clone()
        };
        self.history.commits.push(again);
        if let Some(to) = Self::pick(world, random) {
            self.submit(world, to, call);
        }
    }

    fn give_up(&mut self, call: usize) {
        if self.open.remove(&call).is_some() {
            let client = self.history.commits[call].client as usize;
            self.clients[client].waiting -= 1;
        }
    }

    fn retry_some(&mut self, world: &mut World, client: usize, random: &mut Random) {
        let sent = &self.clients[client].sent;
        if sent.is_empty() {
            return;
        }
        let call = sent[random.random_range(0..sent.len())];
        let mut call = self.history.commits[call].clone();
        if random.random_ratio(MISTAKE_PERCENT, 100) {
            workloads::mark_as_other(&mut call.request);
        }
        self.send(world, client, call.id, call.request, call.seen, random);
    }

    fn request_barrier(&mut self, world: &mut World, client: usize, random: &mut Random) {
        let begin = self.clock.tick();
        let Some(node) = Self::pick(world, random) else {
            return;
        };
        let ticket = self.next_ticket();
        let waits = Waits::Barrier {
            client,
            begin,
            node,
        };
        self.waits.insert(ticket, waits);
        world.get(node).handle(Event::ReadBarrier(ticket));
    }

    /// Reads on any node, as far as that is, and prepares what follows from it.
    fn read(&mut self, world: &mut World, client: usize, random: &mut Random) {
        let begin = self.clock.tick();
        let Some(node) = Self::pick(world, random).map(|id| world.get(id)) else {
            return;
        };
        if node.may_fail {
            return;
        }
        self.seldom.followers_read += usize::from(!node.admits());
        let snapshot = node.life().state.snapshot();
        if self
            .set_up_at
            .is_none_or(|begin| snapshot.position() < begin)
        {
            return;
        }
        let number = random.random_range(0..self.workloads.len());
        let workload = &*self.workloads[number];
        let seen = if random.random_ratio(AUDIT_PERCENT, 100) {
            workloads::audit(workload, &snapshot).unwrap()
        } else {
            let mut attempt = workloads::prepare(workload, &snapshot, random).unwrap();
            if random.random_ratio(BLIND_PERCENT, 100) {
                workloads::make_blind(&mut attempt.request);
            }
            if attempt.request.has_reads() && random.random_ratio(VALIDATED_PERCENT, 100) {
                attempt.request.writes.clear();
            }
            let seen = attempt.seen.clone();
            self.clients[client].prepared = Some(attempt);
            seen
        };
        // What is read there is as old as that node is: the position is what was requested.
        let requested = Requested::At(snapshot.position());
        self.note_read(client, begin, requested, &snapshot, seen);
    }

    fn note_read(
        &mut self,
        client: usize,
        begin: Moment,
        requested: Requested,
        snapshot: &Snapshot,
        seen: Seen,
    ) {
        let position = snapshot.position();
        (client, begin.0, position).hash(&mut self.trace);
        self.history.reads.push(ReadCall {
            client: client as u32,
            begin,
            end: self.clock.tick(),
            requested,
            position,
            seen,
        });
    }

    /// Reads everything on a node as the newest, and holds it against the invariants.
    pub fn audit(&mut self, snapshot: &Snapshot, client: usize, begin: Moment) {
        let mut all = Seen::default();
        for number in 0..self.workloads.len() {
            let workload = &*self.workloads[number];
            let seen = workloads::audit(workload, snapshot).unwrap();
            if let Err(why) = workload.invariant(&seen) {
                let at = snapshot.position();
                let text = format!("{workload:?} at position {at}: {why}");
                self.report.add(Rule::Invariant, text);
            }
            all.ranges.extend(seen.ranges);
        }
        self.note_read(client, begin, Requested::Newest, snapshot, all);
    }

    pub fn moment(&self) -> Moment {
        self.clock.tick()
    }

    /// Lets the clients hear what was answered.
    pub fn hear(&mut self, world: &mut World, random: &mut Random) {
        for (id, answer) in std::mem::take(&mut world.heard) {
            match answer {
                Answered::Decided(ticket, answer) => match self.waits.remove(&ticket) {
                    Some(Waits::Commit(call)) => self.hear_answer(call, answer, random),
                    // Without the leadership there is no barrier; the client reads another time.
                    Some(Waits::Barrier { .. }) | None => {}
                },
                Answered::Readable(ticket, position) => {
                    if let Some(Waits::Barrier {
                        client,
                        begin,
                        node,
                    }) = self.waits.remove(&ticket)
                    {
                        assert_eq!(node, id, "who was requested answers");
                        self.read_at_barrier(world, client, begin, node, position);
                    }
                }
                Answered::Members(..) | Answered::Transferred(..) => {}
            }
        }
    }

    fn read_at_barrier(
        &mut self,
        world: &mut World,
        client: usize,
        begin: Moment,
        node: NodeId,
        position: Position,
    ) {
        let readable = |node: &&mut Node| node.runs() && !node.may_fail;
        let Some(node) = world.nodes.get_mut(&node).filter(readable) else {
            return;
        };
        let Ok(snapshot) = node.life().state.snapshot_at(position) else {
            return;
        };
        self.seldom.barriers += 1;
        self.audit(&snapshot, client, begin);
    }

    fn hear_answer(
        &mut self,
        call: usize,
        answer: Result<Committed, Refusal>,
        random: &mut Random,
    ) {
        format!("{call} {answer:?}").hash(&mut self.trace);
        if let Err(
            // Whether it happened is not known.
            Refusal::NotLeader
            | Refusal::Stopped(_)
            // Another node has applied what this one has not: it will.
            | Refusal::SnapshotInFuture { .. }
            // They come before an id is looked for, so an earlier attempt may have happened.
            | Refusal::Overloaded { .. }
            | Refusal::DiskFull { .. },
        ) = answer
        {
            // It is sent on under the same id.
            return;
        }
        if self.open.remove(&call).is_none() {
            self.hear_again(call, answer);
            return;
        }
        let client = self.history.commits[call].client as usize;
        self.clients[client].waiting -= 1;
        if random.random_ratio(DEAF_PERCENT, 100) {
            return;
        }
        let call = &mut self.history.commits[call];
        call.end = Some(self.clock.tick());
        call.answer = match answer {
            Ok(committed) => Answer::Committed(committed),
            Err(refusal) => Answer::Refused(refusal),
        };
    }

    /// A later attempt is answered too: with the same place, or with a refusal that was decided before the
    /// transaction was in the log.
    fn hear_again(&mut self, call: usize, answer: Result<Committed, Refusal>) {
        let known = &self.history.commits[call];
        let (id, has_writes) = (known.id, !known.request.writes.is_empty());
        let first = match &known.answer {
            Answer::Committed(first) => Some(first.position),
            Answer::Refused(_) | Answer::Unknown => None,
        };
        match answer {
            Ok(again) => {
                let Some(first) = first else { return };
                self.seldom.answered_again += 1;
                if has_writes && first != again.position {
                    let text = format!("{id} was answered {first} and {}", again.position);
                    self.report.add(Rule::WrongAnswer, text);
                }
            }
            Err(refusal) => {
                self.seldom.refused_again += usize::from(first.is_some());
                let rests_on = match &refusal {
                    Refusal::Conflict { retry_at, .. } | Refusal::GuardFailed { retry_at, .. } => {
                        Some(*retry_at)
                    }
                    _ => None,
                };
                if has_writes && first.is_some() && rests_on >= first {
                    let text = format!(
                        "{id} is in the log at {first:?}, and was refused by what is there: {refusal:?}"
                    );
                    self.report.add(Rule::IdForgotten, text);
                }
                // It must be as true as any other one.
                let again = CommitCall {
                    end: Some(self.clock.tick()),
                    answer: Answer::Refused(refusal),
                    ..self.history.commits[call].clone()
                };
                self.history.commits.push(again);
            }
        }
    }

    /// Sends everything again whose answer is not known, and some of the rest, until all is answered.
    pub fn finish(&mut self, world: &mut World, random: &mut Random) {
        self.hear(world, random);
        for client in &mut self.clients {
            client.prepared = None;
        }
        let commits = &self.history.commits;
        let is_known = |call: &CommitCall| matches!(call.answer, Answer::Committed(_));
        let known: Vec<usize> = (0..commits.len())
            .filter(|call| is_known(&commits[*call]))
            .collect();
        let step = (known.len() / SENT_AGAIN_MAX).max(1);
        for call in known.into_iter().step_by(step) {
            let call = self.history.commits[call].clone();
            let client = call.client as usize;
            self.send(world, client, call.id, call.request, call.seen, random);
        }
        for attempts in self.open.values_mut() {
            *attempts = 0;
        }
        for _ in 0..ATTEMPTS_MAX {
            if self.open.is_empty() {
                return;
            }
            let open: Vec<usize> = self.open.keys().copied().collect();
            for call in open {
                self.send_open_on(world, call, random);
            }
            world.run(1);
            self.hear(world, random);
        }
        let left = self.open.len();
        if left > 0 {
            let text = format!("{left} requests are never answered, though nothing fails any more");
            self.report.add(Rule::CannotGoOn, text);
        }
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
