//! Random faults for a while, then none: all nodes must agree in the end.

use onelog_engine::MemberChange;
use onelog_record::NodeId;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::node::Reached;
use crate::world::World;

const STEPS: usize = 3_000;
const SEEDS: u64 = 300;
const SEEDS_FULL: u64 = 20_000;

#[derive(Clone, Copy, Debug)]
enum Act {
    Deliver,
    Flush,
    Tick,
    Put,
    Read,
    Fetch,
    Checkpoint,
    Retain,
    Crash,
    CutLink,
    Isolate,
    Heal,
    Transfer,
    ChangeMembers,
}

/// How often each is done at most. A seed draws less of each, so that some runs have long
/// partitions, others slow disks, others nothing but crashes.
const ACTS: [(Act, u32); 14] = [
    (Act::Deliver, 6_000),
    (Act::Flush, 2_000),
    (Act::Tick, 2_000),
    (Act::Put, 1_500),
    (Act::Read, 300),
    (Act::Fetch, 500),
    (Act::Checkpoint, 200),
    (Act::Retain, 200),
    (Act::Crash, 60),
    (Act::CutLink, 60),
    (Act::Isolate, 60),
    (Act::Heal, 60),
    (Act::Transfer, 60),
    (Act::ChangeMembers, 60),
];

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

    fn step(&mut self) {
        let id = self.any_node();
        match *self
            .acts
            .choose_weighted(&mut self.rng, |act| act.1)
            .unwrap()
        {
            (Act::Deliver, _) => self.deliver(),
            (Act::Flush, _) => self.world.get(id.get()).flush(self.rng.random_range(1..4)),
            (Act::Tick, _) => self.world.get(id.get()).tick(),
            (Act::Put, _) => {
                self.ticket += 1;
                let to = self.one_that_leads().unwrap_or(id);
                self.world.put(to, self.ticket);
            }
            (Act::Read, _) => {
                self.ticket += 1;
                let of = self.one_that_leads().unwrap_or(id);
                self.world.read(of, self.ticket);
            }
            (Act::Fetch, _) => self.world.get(id.get()).fetch(),
            (Act::Checkpoint, _) => self.world.get(id.get()).checkpoint(),
            (Act::Retain, _) => {
                let keep = self.rng.random_range(0..10);
                self.world.get(id.get()).retain(keep);
            }
            (Act::Crash, _) => self.world.crash(id),
            (Act::CutLink, _) => {
                let other = self.any_node();
                self.world.cut.insert((id, other));
            }
            (Act::Isolate, _) => {
                let of = self.one_that_leads().unwrap_or(id);
                self.world.isolate(of);
            }
            (Act::Heal, _) => self.world.cut.clear(),
            (Act::Transfer, _) => self.transfer(id),
            (Act::ChangeMembers, _) => self.change_members(id),
        }
        self.world.gather();
    }

    /// One of those that think so.
    fn one_that_leads(&mut self) -> Option<NodeId> {
        let nodes = self.world.nodes.values();
        let leaders: Vec<NodeId> = nodes.filter(|node| node.leads()).map(|n| n.id).collect();
        leaders.choose(&mut self.rng).copied()
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

    fn transfer(&mut self, id: NodeId) {
        let to = self.any_node();
        // It may not lead.
        self.world.get(id.get()).does(|engine, out| {
            let _ = engine.transfer(to, out).unwrap();
        });
    }

    fn change_members(&mut self, id: NodeId) {
        let other = self.any_node();
        let change = match self.rng.random_range(0..3) {
            0 => MemberChange::Learner(other),
            _ => MemberChange::Voter(other),
        };
        // It may not be possible.
        self.world.get(id.get()).does(|engine, out| {
            let _ = engine.propose_members(&[change], out).unwrap();
        });
    }
}

fn run(seed: u64) -> Reached {
    let mut rng = SmallRng::seed_from_u64(seed);
    let drawn = |(act, most): (Act, u32)| (act, rng.random_range(most / 10..=most));
    let mut run = Run {
        world: World::of([3, 5][(seed % 2) as usize], seed),
        acts: ACTS.into_iter().map(drawn).collect(),
        rng,
        ticket: 0,
    };
    for _ in 0..STEPS {
        run.step();
    }
    let world = &mut run.world;
    world.cut.clear();
    world.settle();
    let leader = world.elect();
    world.put(leader, run.ticket + 1);
    world.run(60);
    let leader = world.elect();
    world.put(leader, run.ticket + 2);
    world.run(20);
    assert!(world.is_acknowledged(run.ticket + 2));
    world.check_end();
    let mut reached = Reached::default();
    world
        .nodes
        .values()
        .for_each(|node| reached.add(node.reached));
    reached
}

#[test]
fn whatever_happens_nothing_acknowledged_is_lost_and_all_agree_in_the_end() {
    let is_full = std::env::var_os("ONELOG_TEST_FULL").is_some();
    let mut reached = Reached::default();
    for seed in 0..if is_full { SEEDS_FULL } else { SEEDS } {
        println!("seed {seed}");
        reached.add(run(seed));
    }
    // Without these it would say little.
    let Reached {
        cuts,
        cuts_behind_flushes,
        installs,
        fetches,
        member_changes,
        lost_answers,
    } = reached;
    let often = [
        cuts,
        cuts_behind_flushes,
        installs,
        fetches,
        member_changes,
        lost_answers,
    ];
    assert!(often.into_iter().all(|often| often > 20), "{reached:?}");
}
