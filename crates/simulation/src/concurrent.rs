//! Many threads against one real node: each a client that reads snapshots, commits, drops answers,
//! sends requests again under the same id, and writes down everything.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use onelog::{CommitRequest, Node, Position, Refusal, Snapshot, Ticket, TxnId};
use rand::{Rng, SeedableRng};

use crate::checker::{Report, Rule};
use crate::history::{Answer, Clock, CommitCall, History, Logged, ReadCall, Requested, Seen};
use crate::workloads::{self, Random, Workload};

/// How long a client waits for a position that was answered: far longer than any flush.
const WAIT: Duration = Duration::from_secs(60);
/// How many requests a client sends before it waits for the answers.
const BURST_MAX: usize = 3;
/// How many of its calls a client remembers for sending again.
const REMEMBERED_MAX: usize = 64;
/// How much of the log is read at once, and how long the tail waits for more.
const TAIL_BYTES: usize = 8 << 10;
const TAIL_WAIT: Duration = Duration::from_millis(20);
/// How much of the log is read at once when it is at rest.
const READ_BYTES: usize = 1 << 20;
/// Of a hundred steps: audits, repeated requests, answers that no client waits for, ids that are
/// used for another request by mistake.
const AUDIT_PERCENT: u32 = 4;
const RETRY_PERCENT: u32 = 6;
const DEAF_PERCENT: u32 = 6;
/// Of a hundred writes without reads: those that do not say since when their id is in use.
const BLIND_PERCENT: u32 = 50;
const MISTAKE_PERCENT: u32 = 5;

#[derive(Clone, Debug)]
pub struct Load {
    /// How many clients at once.
    pub clients: usize,
    /// How many steps each takes.
    pub steps: usize,
    /// Random numbers start here.
    pub seed: u64,
    /// The client that takes this step, counted over all clients, stops the node under the others' feet.
    pub stop_at: Option<usize>,
}

/// What happened under a load.
#[derive(Debug, Default)]
pub struct Outcome {
    pub history: History,
    /// Invariants that an audit found broken, and reads that failed.
    pub report: Report,
    /// The log as readers saw it that tailed it from the start meanwhile.
    pub tails: Vec<Vec<Logged>>,
}

#[derive(Debug)]
struct Client<'n> {
    node: &'n Node,
    workloads: &'n [Box<dyn Workload>],
    clock: &'n Clock,
    steps_taken: &'n AtomicUsize,
    load: &'n Load,
    number: u32,
    random: Random,
    reached: Position,
    remembered: Vec<usize>,
    outcome: Outcome,
    is_stopped: bool,
}

/// Makes the tables and whatever the workloads need at the beginning.
///
/// # Errors
/// When the node refuses, and why: then nothing can be tested.
pub fn set_up(
    node: &Node,
    workloads: &[Box<dyn Workload>],
    clock: &Clock,
) -> Result<History, String> {
    let mut history = History::default();
    for (n, workload) in workloads.iter().enumerate() {
        for wanted in workload.tables() {
            let new = onelog::NewTable {
                name: wanted.name.clone(),
                kind: wanted.kind,
                value: wanted.value,
                schema: None,
                unique: wanted.unique.clone(),
            };
            let (made, _) = node
                .create_table_blocking(new)
                .map_err(|error| error.to_string())?;
            if made.id != wanted.id {
                return Err(format!("table {} has the number {}", made.name, made.id));
            }
        }
        let mut request = workloads::setup(&**workload);
        if request.writes.is_empty() {
            continue;
        }
        let id = TxnId(n as u128 + 1);
        request.id = Some(id);
        let begin = clock.tick();
        let committed = node
            .submit(request.clone())
            .wait()
            .map_err(|refusal| refusal.to_string())?;
        history.commits.push(CommitCall {
            client: 0,
            begin,
            end: Some(clock.tick()),
            id,
            request,
            seen: Seen::default(),
            answer: Answer::Committed(committed),
        });
    }
    Ok(history)
}

/// Puts a load on a node and waits until all clients are done.
pub fn run(node: &Node, workloads: &[Box<dyn Workload>], clock: &Clock, load: &Load) -> Outcome {
    let steps_taken = AtomicUsize::new(0);
    let client = |number: usize| Client {
        node,
        workloads,
        clock,
        steps_taken: &steps_taken,
        load,
        number: number as u32,
        random: Random::seed_from_u64(load.seed << 16 | number as u64),
        reached: node.position(),
        remembered: Vec::new(),
        outcome: Outcome::default(),
        is_stopped: false,
    };
    let mut all = Outcome::default();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let tail = scope.spawn(|| tail(node, &is_done));
        let threads: Vec<_> = (0..load.clients)
            .map(|number| {
                let mut client = client(number);
                scope.spawn(move || {
                    client.work();
                    client.outcome
                })
            })
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(outcome) => all.add(outcome),
                Err(_) => all
                    .report
                    .add(Rule::CannotGoOn, "a client panicked".to_owned()),
            }
        }
        is_done.store(true, Ordering::SeqCst);
        match tail.join() {
            Ok(Ok(tail)) => all.tails.push(tail),
            failed => {
                let text = format!("the log could not be tailed: {failed:?}");
                all.report.add(Rule::CannotGoOn, text);
            }
        }
    });
    all
}

/// Reads the log from its start, follows it, and ends when the load has ended and it has all.
fn tail(node: &Node, is_done: &AtomicBool) -> Result<Vec<Logged>, onelog::ReadLogError> {
    let (mut log, mut at) = (Vec::new(), Position::ZERO);
    loop {
        let was_done = is_done.load(Ordering::SeqCst);
        let batch = match node.read_log(at, TAIL_BYTES) {
            Err(onelog::ReadLogError::Stopped { .. }) => return Ok(log),
            read => read?,
        };
        if batch.next > at {
            at = batch.next;
            log.extend(batch.transactions.into_iter().map(Logged::from));
        } else if was_done {
            return Ok(log);
        } else {
            // Whether it comes or not, the end of the load is looked for again.
            let _ = node.wait_for_blocking(Position(at.get() + 1), TAIL_WAIT);
        }
    }
}

impl Outcome {
    /// Those who tailed the log must have seen a beginning of what it is now.
    pub fn check_tails(&mut self, log: &[Logged]) {
        for tail in &self.tails {
            if log.starts_with(tail) {
                continue;
            }
            let at = tail.iter().zip(log).take_while(|(a, b)| a == b).count();
            let text = format!(
                "a reader who tailed the log saw {:?} as transaction {at}; it is {:?}",
                tail.get(at),
                log.get(at)
            );
            self.report.add(Rule::LogBroken, text);
        }
    }

    /// Adds what others have seen.
    pub fn add(&mut self, other: Self) {
        self.history.merge(other.history);
        self.tails.extend(other.tails);
        for violation in other.report.violations {
            self.report.add(violation.rule, violation.message);
        }
    }

    /// Sends again, on a node that was opened again, every call whose outcome is not known
    /// and every `stride`th of the others.
    pub fn send_again(&mut self, node: &Node, clock: &Clock, stride: usize) {
        let open = |call: &CommitCall| {
            matches!(
                call.answer,
                Answer::Unknown | Answer::Refused(Refusal::Stopped(_))
            )
        };
        let calls: Vec<CommitCall> = self
            .history
            .commits
            .iter()
            .enumerate()
            .filter(|(n, call)| open(call) || n.is_multiple_of(stride))
            .map(|(_, call)| call.clone())
            .collect();
        for call in calls {
            let begin = clock.tick();
            let answer = node.submit(call.request.clone()).wait();
            self.history.commits.push(CommitCall {
                begin,
                end: Some(clock.tick()),
                answer: answered(answer),
                ..call
            });
        }
    }

    /// Reads everything that the workloads speak of and holds it against the invariants.
    pub fn audit(&mut self, node: &Node, workloads: &[Box<dyn Workload>], clock: &Clock) {
        for workload in workloads {
            let begin = clock.tick();
            let snapshot = node.snapshot();
            let end = clock.tick();
            match workloads::audit(&**workload, &snapshot) {
                Err(error) => self.report.add(Rule::CannotGoOn, error.to_string()),
                Ok(seen) => {
                    self.invariant(&**workload, &seen, snapshot.position());
                    self.history.reads.push(ReadCall {
                        client: 0,
                        begin,
                        end,
                        requested: Requested::Newest,
                        position: snapshot.position(),
                        seen,
                    });
                }
            }
        }
    }

    fn invariant(&mut self, workload: &dyn Workload, seen: &Seen, position: Position) {
        if let Err(why) = workload.invariant(seen) {
            let text = format!("{workload:?} at position {position}: {why}");
            self.report.add(Rule::Invariant, text);
        }
    }
}

fn answered(answer: Result<onelog::Committed, Refusal>) -> Answer {
    match answer {
        Ok(committed) => Answer::Committed(committed),
        Err(refusal) => Answer::Refused(refusal),
    }
}

/// The whole log of a node, from offset 0.
pub fn whole_log(node: &Node) -> Result<Vec<Logged>, onelog::ReadLogError> {
    let (mut log, mut at, end) = (Vec::new(), Position::ZERO, node.position());
    while at < end {
        let batch = node.read_log(at, READ_BYTES)?;
        at = batch.next;
        log.extend(batch.transactions.into_iter().map(Logged::from));
    }
    Ok(log)
}

impl Client<'_> {
    fn percent(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn work(&mut self) {
        for _ in 0..self.load.steps {
            let taken = self.steps_taken.fetch_add(1, Ordering::SeqCst) + 1;
            if self.load.stop_at == Some(taken)
                && let Err(error) = self.node.stop()
            {
                self.outcome.report.add(Rule::CannotGoOn, error.to_string());
            }
            if self.is_stopped {
                return;
            }
            if self.percent(RETRY_PERCENT) {
                self.retry();
            } else {
                self.read_and_send();
            }
        }
    }

    /// A snapshot at the newest position, at or after one that was answered, or at exactly that one.
    fn snapshot(&mut self) -> Option<(Requested, Snapshot)> {
        match self.random.random_range(0..10) {
            0 => {
                self.node.wait_for_blocking(self.reached, WAIT).ok()?;
                Some((Requested::After(self.reached), self.node.snapshot()))
            }
            // It may be too old by now; then there is nothing to see.
            1 => Some((
                Requested::At(self.reached),
                self.node.snapshot_at(self.reached).ok()?,
            )),
            _ => Some((Requested::Newest, self.node.snapshot())),
        }
    }

    fn read_and_send(&mut self) {
        let begin = self.clock.tick();
        let Some((requested, snapshot)) = self.snapshot() else {
            return;
        };
        let end = self.clock.tick();
        self.reached = self.reached.max(snapshot.position());
        let mut all = Seen::default();
        let mut sent = Vec::new();
        for _ in 0..self.random.random_range(1..=BURST_MAX) {
            let workload = &*self.workloads[self.random.random_range(0..self.workloads.len())];
            match self.step(workload, &snapshot) {
                Ok((seen, request)) => {
                    all.points.extend(seen.points.clone());
                    all.ranges.extend(seen.ranges.clone());
                    sent.extend(request.and_then(|request| self.send(request, seen)));
                }
                Err(error) => {
                    let text = format!("a snapshot cannot be read: {error}");
                    self.outcome.report.add(Rule::CannotGoOn, text);
                }
            }
        }
        self.outcome.history.reads.push(ReadCall {
            client: self.number,
            begin,
            end,
            requested,
            position: snapshot.position(),
            seen: all,
        });
        for (call, ticket) in sent {
            self.listen(call, ticket);
        }
    }

    fn step(
        &mut self,
        workload: &dyn Workload,
        snapshot: &Snapshot,
    ) -> Result<(Seen, Option<CommitRequest>), onelog::ReadError> {
        if self.percent(AUDIT_PERCENT) {
            let seen = workloads::audit(workload, snapshot)?;
            self.outcome.invariant(workload, &seen, snapshot.position());
            return Ok((seen, None));
        }
        let attempt = workloads::prepare(workload, snapshot, &mut self.random)?;
        let mut request = attempt.request;
        let is_empty =
            !request.has_reads() && request.writes.is_empty() && request.guards.is_empty();
        if self.percent(BLIND_PERCENT) {
            workloads::make_blind(&mut request);
        }
        // The low numbers belong to the setup.
        request.id = Some(TxnId(self.random.random::<u128>() | 1 << 127));
        Ok((attempt.seen, (!is_empty).then_some(request)))
    }

    fn send(&mut self, request: CommitRequest, seen: Seen) -> Option<(usize, Ticket)> {
        let id = request.id?;
        let call = self.outcome.history.commits.len();
        self.outcome.history.commits.push(CommitCall {
            client: self.number,
            begin: self.clock.tick(),
            end: None,
            id,
            request: request.clone(),
            seen,
            answer: Answer::Unknown,
        });
        if self.remembered.len() < REMEMBERED_MAX {
            self.remembered.push(call);
        } else {
            let place = self.random.random_range(0..REMEMBERED_MAX);
            self.remembered[place] = call;
        }
        Some((call, self.node.submit(request)))
    }

    fn listen(&mut self, call: usize, ticket: Ticket) {
        if self.percent(DEAF_PERCENT) {
            drop(ticket);
            return;
        }
        let answer = ticket.wait();
        let end = self.clock.tick();
        match &answer {
            Ok(committed) => self.reached = self.reached.max(committed.position),
            Err(Refusal::Conflict { retry_at, .. } | Refusal::GuardFailed { retry_at, .. }) => {
                self.reached = self.reached.max(*retry_at);
            }
            Err(Refusal::Stopped(_)) => self.is_stopped = true,
            Err(_) => {}
        }
        let call = &mut self.outcome.history.commits[call];
        call.end = Some(end);
        call.answer = answered(answer);
    }

    fn retry(&mut self) {
        if self.remembered.is_empty() {
            return;
        }
        let place = self.random.random_range(0..self.remembered.len());
        let call = &self.outcome.history.commits[self.remembered[place]];
        let (mut request, seen) = (call.request.clone(), call.seen.clone());
        if self.percent(MISTAKE_PERCENT) {
            workloads::mark_as_other(&mut request);
        }
        if let Some((call, ticket)) = self.send(request, seen) {
            self.listen(call, ticket);
        }
    }
}
