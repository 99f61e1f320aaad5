//! Clients that append to lists and read them, through any node, and write down what they saw.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use onelog_simulation::Clock;
use onelog_simulation::cycles::{Key, Operation, Outcome, Transaction, Value};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::rig::{NODES, TABLE, agent, url};

/// After so long a client gives up a node, and goes to the next.
const PATIENCE: Duration = Duration::from_secs(3);
/// Before a client that no node answered tries again.
const PAUSE: Duration = Duration::from_millis(20);
/// How many lists are in use at once, and after how many values others are.
const LISTS: u64 = 4;
const VALUES_PER_LIST: u64 = 60;
/// Of a hundred: transactions that read first, those that only read, answers that are not awaited.
const READ_PERCENT: u32 = 50;
const ONLY_READ_PERCENT: u32 = 20;
const GIVEN_UP_PERCENT: u32 = 10;
/// Of a hundred reads: those that must see everything that was acknowledged.
const NEWEST_PERCENT: u32 = 40;
const NEWEST: &str = "?linearizable=true";

/// What all clients share.
#[derive(Default)]
pub struct Shared {
    pub clock: Clock,
    pub ends: AtomicBool,
    /// Transactions that were acknowledged.
    pub acknowledged: AtomicUsize,
    /// The highest position that was.
    pub position: AtomicU64,
    values: AtomicU64,
}

pub struct Client<'s> {
    shared: &'s Shared,
    number: u32,
    random: StdRng,
    agent: ureq::Agent,
    history: Vec<Transaction>,
}

/// A list by its name, as it was read.
type Shown = (String, Vec<Value>);

/// What a node answered to a transaction.
enum Answer {
    Committed,
    Refused,
    /// It is not known, or not carried out yet.
    Again,
}

impl<'s> Client<'s> {
    pub fn new(shared: &'s Shared, number: u32, seed: u64) -> Self {
        Self {
            shared,
            number,
            random: StdRng::seed_from_u64(seed << 32 | u64::from(number)),
            agent: agent(PATIENCE),
            history: Vec::new(),
        }
    }

    /// Works until the load ends; everything that it saw.
    pub fn run(mut self) -> Vec<Transaction> {
        while !self.shared.ends.load(Ordering::SeqCst) {
            self.step();
        }
        self.history
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn node(&mut self) -> u64 {
        NODES[self.random.random_range(0..NODES.len())]
    }

    /// One of the lists in use. They change with the number of values, so that none grows without end.
    fn list(&mut self) -> String {
        let values = self.shared.values.load(Ordering::SeqCst);
        let generation = values / (LISTS * VALUES_PER_LIST);
        format!("{generation}-{}", self.random.random_range(0..LISTS))
    }

    fn step(&mut self) {
        let mut operations = Vec::new();
        let mut body = json!({"id": uuid::Uuid::from_u128(self.random.random()).to_string()});
        if self.percent(READ_PERCENT) {
            let Some((position, reads)) = self.read() else {
                return thread::sleep(PAUSE);
            };
            body["read_position"] = json!(position);
            let declared = reads
                .iter()
                .map(|(list, _)| json!({"table": TABLE, "key": list}));
            body["reads"] = declared.collect();
            operations.extend(reads.iter().map(|(list, values)| Operation::Read {
                key: Key::from(list.as_str()),
                list: values.clone(),
            }));
        }
        let mut writes = Vec::new();
        if operations.is_empty() || !self.percent(ONLY_READ_PERCENT) {
            for _ in 0..self.random.random_range(1..=2) {
                let list = self.list();
                let value = self.shared.values.fetch_add(1, Ordering::SeqCst);
                writes.push(json!({"op": "append", "table": TABLE, "key": list, "value": value}));
                operations.push(Operation::Append {
                    key: Key::from(list.as_str()),
                    value: Value(value),
                });
            }
        }
        body["writes"] = json!(writes);
        self.commit(&body, operations);
    }

    /// Reads one or two lists at one position of some node: the newest, or one that may be old, which
    /// is noted.
    fn read(&mut self) -> Option<(u64, Vec<Shown>)> {
        let node = self.node();
        let is_newest = self.percent(NEWEST_PERCENT);
        let query = if is_newest { NEWEST } else { "" };
        let list = self.list();
        let begin = self.shared.clock.tick();
        let (position, values) = read_list(&self.agent, node, &list, query)?;
        let mut reads = vec![(list, values)];
        let other = self.list();
        if reads[0].0 != other && self.percent(50) {
            let at = format!("?at={position}");
            let (_, values) = read_list(&self.agent, node, &other, &at)?;
            reads.push((other, values));
        }
        let operations = reads.iter().map(|(list, values)| Operation::Read {
            key: Key::from(list.as_str()),
            list: values.clone(),
        });
        self.history.push(Transaction {
            name: format!("R{}.{}", self.number, self.history.len()),
            note: format!("at node {node}"),
            client: self.number,
            begin,
            end: Some(self.shared.clock.tick()),
            is_timed: is_newest,
            outcome: Outcome::Committed,
            operations: operations.collect(),
        });
        Some((position, reads))
    }

    /// Sends a transaction to one node after the other, under its id, until its end is known.
    fn commit(&mut self, body: &serde_json::Value, operations: Vec<Operation>) {
        let begin = self.shared.clock.tick();
        let gives_up = self.percent(GIVEN_UP_PERCENT);
        let mut outcome = Outcome::Unknown;
        let mut end = None;
        loop {
            let node = self.node();
            match self.send(node, body) {
                Answer::Committed => outcome = Outcome::Committed,
                Answer::Refused => outcome = Outcome::Refused,
                // Without an end of the test's own, a cluster that is broken would hold it up.
                Answer::Again if gives_up || self.shared.ends.load(Ordering::SeqCst) => {}
                Answer::Again => {
                    thread::sleep(PAUSE);
                    continue;
                }
            }
            if outcome != Outcome::Unknown {
                end = Some(self.shared.clock.tick());
            }
            break;
        }
        if outcome == Outcome::Committed {
            self.shared.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        self.history.push(Transaction {
            name: format!("T{}.{}", self.number, self.history.len()),
            note: body["id"].to_string(),
            client: self.number,
            begin,
            end,
            is_timed: true,
            outcome,
            operations,
        });
    }

    fn send(&self, node: u64, body: &serde_json::Value) -> Answer {
        let sent = self
            .agent
            .post(format!("{}/v1/transactions", url(node)))
            .send_json(body);
        let Ok(mut answer) = sent else {
            return Answer::Again;
        };
        let status = answer.status().as_u16();
        let Ok(said) = answer.body_mut().read_json::<serde_json::Value>() else {
            return Answer::Again;
        };
        match status {
            200 => {
                let position = said["position"].as_u64().unwrap();
                self.shared.position.fetch_max(position, Ordering::SeqCst);
                Answer::Committed
            }
            409 | 410 => {
                let expected = ["conflict", "snapshot_too_old", "position_in_future"];
                let error = said["error"].as_str().unwrap_or_default();
                assert!(
                    expected.contains(&error),
                    "{status} from node {node}: {said}"
                );
                Answer::Refused
            }
            503 | 504 => Answer::Again,
            _ => panic!("{status} from node {node}: {said}"),
        }
    }
}

/// A list as a node shows it, and at which position; `None` when the node does not answer.
fn read_list(agent: &ureq::Agent, node: u64, list: &str, at: &str) -> Option<(u64, Vec<Value>)> {
    let url = format!("{}/v1/tables/{TABLE}/keys/{list}{at}", url(node));
    let mut answer = agent.get(url).call().ok()?;
    let position = answer.headers().get("onelog-position")?.to_str().ok()?;
    let position = position.parse().ok()?;
    match answer.status().as_u16() {
        404 => Some((position, Vec::new())),
        200 => {
            let values: Vec<u64> = answer.body_mut().read_json().unwrap();
            Some((position, values.into_iter().map(Value).collect()))
        }
        _ => None,
    }
}

/// Reads every list of a history, as it is in the end.
pub fn read_all(shared: &Shared, node: u64, history: &[Transaction]) -> Transaction {
    let agent = agent(PATIENCE);
    let begin = shared.clock.tick();
    let lists: BTreeSet<&Key> = history
        .iter()
        .flat_map(|transaction| &transaction.operations)
        .filter_map(|operation| match operation {
            Operation::Append { key, .. } => Some(key),
            Operation::Replace { .. } | Operation::Read { .. } => None,
        })
        .collect();
    let read = |list: &&Key| {
        let found = read_list(&agent, node, &list.0, NEWEST);
        let (_, values) = found.unwrap_or_else(|| panic!("node {node} does not show list {list}"));
        Operation::Read {
            key: (*list).clone(),
            list: values,
        }
    };
    Transaction {
        name: format!("E{node}"),
        note: format!("the end at node {node}"),
        client: u32::MAX,
        begin,
        operations: lists.iter().map(read).collect(),
        end: Some(shared.clock.tick()),
        is_timed: true,
        outcome: Outcome::Committed,
    }
}
