//! Random faults for a while, then none: all nodes must agree in the end.

use onelog_engine::MemberChange;
use onelog_log::{CrashMode, Fault};
use onelog_record::{NodeId, TxnId};
use onelog_replica::{Event, ReplicaOptions};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::node::{Node, Reached, options};
use super::world::{World, node};

const STEPS: usize = 6_000;
/// Of a hundred writes: those that are sent again under the id of an earlier one.
const RETRY_PERCENT: u32 = 15;
const SILENCE_MS: u64 = 400;
/// Within so many calls of a disk a planned fault comes.
const FAULT_WITHIN: u64 = 40;
/// How many steps lie between two looks at everything.
const CHECK_EVERY: usize = 250;

#[derive(Clone, Copy, Debug)]
enum Act {
    Deliver,
    Turn,
    RunFlush,
    Report,
    Tick,
    Put,
    Define,
    Read,
    Fetch,
    Snapshot,
    Checkpoint,
    Retain,
    Save,
    Idle,
    Crash,
    Fault,
    CutLink,
    Isolate,
    Away,
    Heal,
    Transfer,
    ChangeMembers,
    TurnClock,
}

/// How often each is done at most. A seed draws less of each, so that some runs have long
/// partitions, others slow disks, others nothing but crashes.
const ACTS: [(Act, u32); 23] = [
    (Act::Deliver, 8_000),
    (Act::Turn, 2_000),
    (Act::RunFlush, 2_500),
    (Act::Report, 3_500),
    (Act::Tick, 4_000),
    (Act::Put, 3_000),
    (Act::Define, 100),
    (Act::Read, 300),
    (Act::Fetch, 500),
    (Act::Snapshot, 1_000),
    (Act::Checkpoint, 700),
    (Act::Retain, 400),
    (Act::Save, 300),
    (Act::Idle, 500),
    (Act::Crash, 40),
    (Act::Fault, 80),
    (Act::CutLink, 30),
    (Act::Isolate, 20),
    (Act::Away, 80),
    (Act::Heal, 80),
    (Act::Transfer, 60),
    (Act::ChangeMembers, 60),
    (Act::TurnClock, 60),
];

/// A node whose log is cut often.
fn small(id: NodeId) -> ReplicaOptions {
    ReplicaOptions {
        checkpoint_interval_ms: 300,
        retain_bytes: Some(16 << 10),
        ..options(id)
    }
}

/// Power will fail at one of the next calls of a disk.
fn plan_fault(node: &mut Node, number: usize) {
    node.may_fail = true;
    let disk = [&node.log, &node.state][number % 2];
    let step = disk.steps() + number as u64 % FAULT_WITHIN;
    disk.fail_at(step, Fault::CrashNow);
}

struct Run {
    world: World,
    acts: Vec<(Act, u32)>,
    rng: SmallRng,
    ticket: u32,
}

impl Run {
    fn any_node(&mut self) -> NodeId {
        let ids: Vec<NodeId> = self.world.nodes.keys().copied().collect();
        *ids.choose(&mut self.rng).unwrap()
    }

    /// One of those that think so, or any.
    fn one_that_leads(&mut self) -> NodeId {
        let nodes = self.world.nodes.values();
        let leaders: Vec<NodeId> = nodes.filter(|node| node.admits()).map(|n| n.id).collect();
        match leaders.choose(&mut self.rng) {
            Some(leader) if self.rng.random_bool(0.9) => *leader,
            _ => self.any_that_runs(),
        }
    }

    fn any_that_runs(&mut self) -> NodeId {
        loop {
            let id = self.any_node();
            if self.world.get(id).runs() {
                return id;
            }
        }
    }

    fn step(&mut self) {
        let id = self.any_node();
        let number = self.rng.random_range(0..1000);
        let acts = &self.acts;
        let act = acts.choose_weighted(&mut self.rng, |act| act.1).unwrap().0;
        if !self.world.get(id).runs() {
            // Its disk has failed.
            self.world
                .crash(id, CrashMode::ALL[number % CrashMode::ALL.len()]);
        }
        let node = self.world.get(id);
        match act {
            Act::Deliver => self.deliver(),
            Act::Turn => drop(node.turn()),
            Act::RunFlush => drop(node.run_flush(number)),
            Act::Report => drop(node.report(number)),
            Act::Tick => node.tick(),
            Act::Put => self.put(),
            Act::Define => {
                self.ticket += 1;
                let to = self.one_that_leads();
                let name = format!("u{}", number % 5);
                self.world.define(to, &name, self.ticket);
            }
            Act::Read => {
                self.ticket += 1;
                let of = self.one_that_leads();
                self.world.read(of, self.ticket);
            }
            Act::Fetch => drop(node.run_fetch()),
            Act::Snapshot => drop(self.world.carry_snapshot(number)),
            Act::Checkpoint => drop(node.run_checkpoint()),
            Act::Retain => drop(node.run_retain() || node.run_prepare()),
            Act::Save => drop(node.run_save()),
            Act::Idle => {
                node.now.monotonic_ms += SILENCE_MS;
                node.handle(Event::Idle);
            }
            Act::Crash => {
                let mode = CrashMode::ALL[number % CrashMode::ALL.len()];
                self.world.crash(id, mode);
            }
            Act::Fault => plan_fault(node, number),
            Act::CutLink => {
                let other = self.any_node();
                self.world.cut.insert((id, other));
            }
            Act::Isolate => {
                let of = self.one_that_leads();
                self.world.isolate(of);
            }
            Act::Away => self.world.isolate(id),
            Act::Heal => self.world.cut.clear(),
            Act::Transfer => {
                self.ticket += 1;
                let (of, to) = (self.one_that_leads(), self.any_node());
                self.world.get(of).handle(Event::Transfer(self.ticket, to));
            }
            Act::ChangeMembers => self.change_members(),
            Act::TurnClock => {
                node.now.unix_ms += 1_000_000;
                node.now.unix_ms -= self.rng.random_range(0..2_000_000);
            }
        }
        self.world.gather();
    }

    fn put(&mut self) {
        self.ticket += 1;
        let to = self.one_that_leads();
        let is_again = self.rng.random_ratio(RETRY_PERCENT, 100);
        let id = match is_again {
            true => self.rng.random_range(0..self.ticket),
            false => self.ticket,
        };
        if self.world.table(to, super::world::TABLE).is_some() {
            self.world.put_as(to, self.ticket, TxnId(u128::from(id)));
        }
    }

    /// Any message, which may get lost or come again later.
    fn deliver(&mut self) {
        if self.world.mail.is_empty() {
            return;
        }
        let place = self.rng.random_range(0..self.world.mail.len().min(20));
        let message = self.world.mail.swap_remove(place);
        if self.rng.random_bool(0.03) {
            self.world.mail.push(message.clone());
        }
        if self.rng.random_bool(0.97) {
            self.world.deliver(message);
        } else {
            self.world.lose(&message);
        }
    }

    fn change_members(&mut self) {
        self.ticket += 1;
        let (of, other) = (self.one_that_leads(), self.any_node());
        let change = match self.rng.random_range(0..3) {
            0 => MemberChange::Learner(other),
            _ => MemberChange::Voter(other),
        };
        // It may not be possible.
        self.world.change(of, self.ticket, &[change]);
    }
}

/// Runs one seed; answers what of the rare things it has reached.
pub fn run(seed: u64) -> Reached {
    let mut rng = SmallRng::seed_from_u64(seed);
    let drawn = |(act, most): (Act, u32)| (act, rng.random_range(most / 10..=most));
    let acts = ACTS.into_iter().map(drawn).collect();
    let mut run = Run {
        world: World::of_with([3, 5][(seed % 2) as usize], seed, small),
        acts,
        rng,
        ticket: 0,
    };
    for step in 0..STEPS {
        run.step();
        if step % CHECK_EVERY == 0 {
            run.world.check_equal();
        }
    }
    let world = &mut run.world;
    world.cut.clear();
    for number in (1..=world.nodes.len() as u64).map(node) {
        if world.get(number).may_fail {
            world.crash(number, CrashMode::RandomPart);
        }
    }
    world.settle();
    let leader = world.elect();
    world.put(leader, run.ticket + 1);
    world.run(60);
    let leader = world.elect();
    world.put(leader, run.ticket + 2);
    world.run(20);
    assert!(world.is_acknowledged(run.ticket + 2));
    // Nobody is left out: a node that was made a learner is one to the end.
    let all = (1..=world.nodes.len() as u64).map(node);
    assert!(all.eq(world.nodes[&leader].replica().members().all()));
    world.check_end();
    world.reached()
}
