//! The coordinator, its table, the messages under way, and what goes wrong with all of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use onelog_groups::{
    Answer, Coordinator, ErrorCode, Moment, Options, Output, Record, Request, State, Token,
    TopicPartition,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::checks::Checks;
use super::client::{Client, HEARTBEAT_MS, PARTITIONS, REBALANCE_MS};

const CLIENTS_MAX: usize = 5;
const DELAY_MS_MAX: u64 = 400;
/// Longer than anything that a request may wait for here.
const ANSWER_MS_MAX: u64 = 5 * REBALANCE_MS as u64;
/// When a client gives a request up and sends the next one.
const REQUEST_TIMEOUT_MS: u64 = 2 * REBALANCE_MS as u64;

#[derive(Debug)]
enum Message {
    Request(u64, Request),
    /// With the run of the coordinator that it comes from.
    Answer(u64, u32, Answer),
}

struct Sent {
    process: u64,
    request: Request,
    at: u64,
}

pub struct World {
    random: StdRng,
    /// How many of the clients are instances.
    instances: usize,
    are_faults: bool,
    coordinator: Coordinator,
    run: u32,
    pub now: Moment,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    stores: VecDeque<(u64, Vec<Record>)>,
    clients: Vec<Client>,
    /// By the moment at which they arrive, and a number that makes them different.
    messages: BTreeMap<(u64, u64), Message>,
    /// When the last request of each process arrives.
    arrivals: BTreeMap<u64, u64>,
    sent: BTreeMap<u64, Sent>,
    /// Requests that the coordinator has and did not answer yet.
    asked: BTreeMap<u64, u64>,
    numbers: u64,
    checks: Checks,
}

fn options() -> Options {
    Options {
        initial_rebalance_delay_ms: 500,
        ..Options::default()
    }
}

impl World {
    pub fn new(seed: u64, instances: usize) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            instances,
            are_faults: true,
            coordinator: Coordinator::new(options()),
            run: 0,
            now: Moment {
                monotonic_ms: 0,
                unix_ms: 0,
            },
            rows: BTreeMap::new(),
            stores: VecDeque::new(),
            clients: Vec::new(),
            messages: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            sent: BTreeMap::new(),
            asked: BTreeMap::new(),
            numbers: 0,
            checks: Checks::default(),
        }
    }

    /// No faults from now on; everything that runs goes on.
    pub fn calm(&mut self) {
        self.are_faults = false;
        while self.clients.len() < 2 {
            self.start_client();
        }
    }

    pub fn step(&mut self) {
        let passed = self.random.random_range(1..200);
        self.now.monotonic_ms += passed;
        self.now.unix_ms += i64::try_from(passed).expect("it is short");
        if self.are_faults {
            self.disturb();
        }
        self.store();
        self.deliver();
        if self
            .coordinator
            .next_tick()
            .is_some_and(|at| at <= self.now.monotonic_ms)
        {
            let out = self.coordinator.tick(self.now);
            self.take(out);
        }
        self.send();
        let oldest = self.asked.values().min().copied();
        let age = oldest.map_or(0, |at| self.now.monotonic_ms - at);
        assert!(age < ANSWER_MS_MAX, "a request waits for {age} ms");
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn one_in(&mut self, many: u32) -> bool {
        self.random.random_ratio(1, many)
    }

    fn delay(&mut self) -> u64 {
        // Some messages are very slow: others overtake them.
        let most = if self.are_faults && self.one_in(20) {
            u64::from(REBALANCE_MS)
        } else {
            DELAY_MS_MAX
        };
        self.now.monotonic_ms + self.random.random_range(0..most)
    }

    fn disturb(&mut self) {
        if self.clients.len() < CLIENTS_MAX && self.one_in(30) {
            self.start_client();
        }
        if !self.clients.is_empty() && self.one_in(80) {
            let at = self.random.random_range(0..self.clients.len());
            let client = self.clients.swap_remove(at);
            if self.one_in(2) {
                let request = client.leave();
                let token = self.number();
                self.put(token, client.process, request);
            }
        }
        if self.one_in(300) {
            self.restart();
        }
    }

    fn start_client(&mut self) {
        let taken: BTreeSet<_> = self
            .clients
            .iter()
            .filter_map(|one| one.instance.clone())
            .collect();
        let names = (0..self.instances).map(|number| format!("i{number}"));
        let mut free: Vec<_> = names.filter(|name| !taken.contains(name)).collect();
        // Now and then two processes have one instance id by mistake.
        if self.are_faults && self.instances > 0 && self.one_in(10) {
            free.insert(0, "i0".to_owned());
        }
        let process = self.number();
        let client = Client::new(process, free.into_iter().next(), self.now.monotonic_ms);
        self.clients.push(client);
    }

    /// The coordinator is killed, or resigns; what waits to be stored is stored up to some place.
    fn restart(&mut self) {
        let stored = self.random.random_range(0..=self.stores.len());
        for _ in 0..stored {
            if let Some((_, records)) = self.stores.pop_front() {
                self.apply(records);
            }
        }
        self.stores.clear();
        let records = self.rows.iter();
        let records = records.map(|(key, value)| Record::of_row(key, value).expect("a row"));
        let loaded = Coordinator::load(options(), self.now, records);
        let former = std::mem::replace(
            &mut self.coordinator,
            loaded.expect("what was stored can be loaded"),
        );
        if self.one_in(2) {
            let out = former.resign(ErrorCode::NotCoordinator);
            self.take(out);
            assert!(
                self.asked.is_empty(),
                "a coordinator answers all when it resigns"
            );
        }
        self.run += 1;
        self.asked.clear();
        self.messages
            .retain(|_, message| matches!(message, Message::Answer(..)));
    }

    fn apply(&mut self, records: Vec<Record>) {
        for record in records {
            self.checks.stored(&record);
            let row = record.row();
            match row.value {
                Some(value) => self.rows.insert(row.key, value),
                None => self.rows.remove(&row.key),
            };
        }
    }

    fn store(&mut self) {
        while let Some((at, _)) = self.stores.front()
            && *at <= self.now.monotonic_ms
            && let Some((_, records)) = self.stores.pop_front()
        {
            let fails = self.are_faults && self.one_in(40);
            let result = if fails {
                Err(ErrorCode::CoordinatorNotAvailable)
            } else {
                self.apply(records);
                Ok(())
            };
            let out = self.coordinator.stored(self.now, result);
            self.take(out);
        }
    }

    fn take(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Answer { token, answer } => {
                    let asked = self.asked.remove(&token.0);
                    assert!(
                        asked.is_some(),
                        "a request is answered twice, or was never asked"
                    );
                    let lost = self.are_faults && self.one_in(40);
                    if !lost {
                        let key = (self.delay(), self.number());
                        self.messages
                            .insert(key, Message::Answer(token.0, self.run, answer));
                    }
                }
                Output::Store(records) => {
                    let after = self.stores.back().map_or(0, |(at, _)| *at);
                    let at = after.max(self.now.monotonic_ms + self.random.random_range(0..300));
                    self.stores.push_back((at, records));
                }
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(((at, _), _)) = self.messages.first_key_value()
            && *at <= self.now.monotonic_ms
            && let Some((_, message)) = self.messages.pop_first()
        {
            match message {
                Message::Request(token, request) => {
                    self.asked.insert(token, self.now.monotonic_ms);
                    let out = self.coordinator.request(self.now, Token(token), request);
                    self.take(out);
                }
                Message::Answer(token, run, answer) => self.receive(token, run, answer),
            }
        }
    }

    fn receive(&mut self, token: u64, run: u32, answer: Answer) {
        let Some(sent) = self.sent.remove(&token) else {
            return;
        };
        let mut clients = self.clients.iter_mut();
        let client =
            clients.find(|one| one.process == sent.process && one.waits_for == Some(token));
        let Some(client) = client else {
            return;
        };
        let coordinator = &self.coordinator;
        let offset = |partition| {
            let topic = "t".to_owned();
            let record = coordinator.offset("g", &TopicPartition { topic, partition });
            record.map(|record| record.offset)
        };
        client.waits_for = None;
        client.sends_at = self.now.monotonic_ms + 100;
        client.receive(run, &sent.request, answer, &mut self.checks, offset);
        if client.reading().is_some() {
            client.sends_at = self.now.monotonic_ms + HEARTBEAT_MS;
        }
        let fenced = client.is_fenced().then_some(client.process);
        self.clients.retain(|one| Some(one.process) != fenced);
    }

    fn send(&mut self) {
        for at in 0..self.clients.len() {
            let now = self.now.monotonic_ms;
            if let Some(token) = self.clients[at].waits_for {
                let since = self.sent.get(&token).map_or(0, |sent| sent.at);
                let impatient = self.are_faults && self.one_in(60);
                if now < since + REQUEST_TIMEOUT_MS && !impatient {
                    continue;
                }
            } else if self.clients[at].sends_at > now {
                continue;
            }
            let commits = self.one_in(2);
            let token = self.number();
            let client = &mut self.clients[at];
            client.waits_for = Some(token);
            let (request, process) = (client.request(commits, token), client.process);
            self.put(token, process, request);
        }
    }

    fn put(&mut self, token: u64, process: u64, request: Request) {
        let at = self.now.monotonic_ms;
        let sent = Sent {
            process,
            request: request.clone(),
            at,
        };
        self.sent.insert(token, sent);
        let lost = self.are_faults && self.one_in(40);
        if !lost {
            // A connection keeps its order: else an offset could go back.
            let before = self.arrivals.get(&process).copied().unwrap_or_default();
            let arrives = self.delay().max(before);
            self.arrivals.insert(process, arrives);
            let key = (arrives, self.number());
            self.messages.insert(key, Message::Request(token, request));
        }
    }

    pub fn check_settled(&self) {
        let group = self.coordinator.describe("g").expect("there is the group");
        assert_eq!(group.state, State::Stable);
        assert_eq!(group.members.len(), self.clients.len());
        let mut read = Vec::new();
        for client in &self.clients {
            let (generation, partitions) = client.reading().expect("each client reads");
            assert_eq!(generation, group.generation);
            read.extend_from_slice(partitions);
        }
        read.sort_unstable();
        assert_eq!(read, (0..PARTITIONS).collect::<Vec<_>>());
    }
}
