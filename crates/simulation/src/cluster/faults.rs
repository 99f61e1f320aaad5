//! What may happen next to nodes, disks and network.

use std::collections::BTreeMap;

use onelog_log::{CrashMode, Fault};
use onelog_record::NodeId;
use onelog_replica::{Event, ReplicaOptions};
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use super::clients::Clients;
use super::membership::{change_members, join, leave, transfer};
use super::node::{Node, options};
use super::schedule::{Act, Schedule};
use super::world::World;
use crate::workloads::Random;

const SILENCE_MS: u64 = 400;
/// Within so many calls of a disk a planned fault comes.
const FAULT_WITHIN: u64 = 40;
/// How long a paused node is paused: often beyond several elections.
const PAUSE_MS_MAX: u64 = 30_000;
/// Of a thousand messages: those that come twice, and those that get lost.
const TWICE_PER_MILLE: u32 = 30;
const LOST_PER_MILLE: u32 = 30;
/// How far a message may be overtaken.
const OVERTAKEN_MAX: usize = 20;
const CLOCK_MS: u64 = 1_000_000;
/// How many steps a node that stays down is down at most.
const DOWN_STEPS_MAX: usize = 6_000;
/// How many steps pass until one that waits for a copy of a damaged entry asks again.
const WAITS_STEPS: usize = 200;

/// A node whose log is cut often.
pub(super) fn small(id: NodeId) -> ReplicaOptions {
    ReplicaOptions {
        checkpoint_interval_ms: 300,
        retain_bytes: Some(16 << 10),
        ..options(id)
    }
}

/// A fault comes at one of the next calls of a disk.
fn plan_fault(node: &mut Node, random: &mut Random) {
    node.may_fail = true;
    let disk = match random.random() {
        true => &node.log,
        false => &node.state,
    };
    let (fault, what) = match random.random_range(0..4) {
        0 => (Fault::Error, "a call of a disk failed"),
        1 => (Fault::Full, "a disk was full"),
        _ => (Fault::CrashNow, "power failed within a call"),
    };
    disk.fail_at(disk.steps() + random.random_range(0..FAULT_WITHIN), fault);
    node.planned = Some(what);
}

fn crash_mode(number: usize) -> CrashMode {
    CrashMode::ALL[number % CrashMode::ALL.len()]
}

/// The scheduler of one seed.
#[derive(Debug)]
pub(super) struct Faults {
    schedule: Schedule,
    step: usize,
    /// Until which step nodes stay down.
    down: BTreeMap<NodeId, usize>,
}

impl Faults {
    pub(super) fn drawn(steps: usize, nodes: u64, random: &mut Random) -> Self {
        Self {
            schedule: Schedule::drawn(steps, nodes, random),
            step: 0,
            down: BTreeMap::new(),
        }
    }

    /// A node, the network or a client does one thing.
    pub(super) fn step(&mut self, world: &mut World, clients: &mut Clients, random: &mut Random) {
        let id = any_node(world, random);
        let number = random.random_range(0..1000);
        let act = self.schedule.act(self.step, random);
        self.step += 1;
        let is_down = self.down.get(&id).is_some_and(|until| *until > self.step);
        if !world.get(id).runs() && !is_down {
            start_again(world, id, number, random);
            if !world.get(id).runs() {
                self.down.insert(id, self.step + WAITS_STEPS);
            }
        }
        let is_paused = world.get(id).is_paused || !world.get(id).runs();
        match act {
            Act::Deliver => deliver(world, random),
            Act::Client => clients.step(world, random),
            Act::SendOn => clients.send_on(world, random),
            Act::Sink => world.step_sink(id),
            Act::SinkWrite => world.write_sink(random),
            Act::Snapshot => drop(world.carry_snapshot(number)),
            Act::CutLink => {
                let other = any_node(world, random);
                world.cut.insert((id, other));
            }
            Act::Isolate => {
                let of = one_that_leads(world, random);
                world.isolate(of);
            }
            Act::Away => world.isolate(id),
            Act::Heal => world.cut.clear(),
            Act::Transfer => transfer(world, clients, random),
            Act::ChangeMembers => change_members(world, clients, random),
            Act::Join => join(world, clients, random),
            Act::Leave => leave(world, clients, random),
            Act::Down => {
                world.get(id).is_paused = false;
                world.stop(id, crash_mode(number));
                let until = self.step + random.random_range(0..DOWN_STEPS_MAX);
                self.down.insert(id, until);
            }
            Act::Crash if is_down => {}
            Act::Crash => {
                world.get(id).is_paused = false;
                world.stop(id, crash_mode(number));
                start_again(world, id, number, random);
            }
            Act::Resume => resume(world, id, random),
            Act::Pause => world.get(id).is_paused = true,
            Act::TurnClock => {
                let node = world.get(id);
                node.now.unix_ms += CLOCK_MS;
                node.now.unix_ms -= random.random_range(0..2 * CLOCK_MS);
            }
            _ if is_paused => {}
            Act::Rot => world.rot(id, random),
            Act::Retain if !world.may_retain(id) => {}
            Act::Fault => plan_fault(world.get(id), random),
            act if self.schedule.dawdles(id, act, random) => {}
            Act::Fetch => world.run_fetch(id),
            act => act_on(world.get(id), act, number),
        }
        world.gather();
        clients.hear(world, random);
    }
}

/// What one node does by itself.
fn act_on(node: &mut Node, act: Act, number: usize) {
    match act {
        Act::Turn => drop(node.turn()),
        Act::RunFlush => drop(node.run_flush(number)),
        Act::Report => drop(node.report(number)),
        Act::Tick => node.tick(),
        Act::Checkpoint => drop(node.run_checkpoint()),
        Act::Retain => drop(node.run_retain() || node.run_prepare()),
        Act::Save => drop(node.run_save()),
        Act::Idle => {
            node.now.monotonic_ms += SILENCE_MS;
            node.handle(Event::Idle);
        }
        _ => unreachable!("the scheduler does the others"),
    }
}

/// A process begins again: its disk has failed, or it was killed. Power may fail at this start too.
fn start_again(world: &mut World, id: NodeId, number: usize, random: &mut Random) {
    if number.is_multiple_of(4) {
        let node = world.get(id);
        if node.runs() {
            world.stop(id, crash_mode(number));
        }
        let node = world.get(id);
        node.log.crash(crash_mode(number / 4));
        node.state.crash(crash_mode(number / 4));
        plan_fault(node, random);
        if node.start().is_err() || !node.runs() {
            node.end();
            let is_power = usize::from(!node.has_rot);
            world.reached.note("power failed at a start", is_power);
            world.gather();
            world.crash(id, crash_mode(number));
            return;
        }
        world.gather();
        return;
    }
    world.crash(id, crash_mode(number));
}

fn resume(world: &mut World, id: NodeId, random: &mut Random) {
    let terms = world.nodes.values().filter(|node| node.admits());
    let newest = terms.map(|node| node.replica().role().term).max();
    let node = world.get(id);
    if !node.is_paused {
        return;
    }
    node.is_paused = false;
    let ms = random.random_range(0..PAUSE_MS_MAX);
    node.now.monotonic_ms += ms;
    node.now.unix_ms += ms;
    let is_late = node.admits() && Some(node.replica().role().term) < newest;
    let what = "a paused leader found that it leads no more";
    world.reached.note(what, usize::from(is_late));
}

pub(super) fn any_node(world: &World, random: &mut Random) -> NodeId {
    let ids: Vec<NodeId> = world.nodes.keys().copied().collect();
    *ids.choose(random).unwrap()
}

/// One of those that think so, or any.
pub(super) fn one_that_leads(world: &World, random: &mut Random) -> NodeId {
    let nodes = world.nodes.values().filter(|node| node.is_awake());
    let leaders: Vec<NodeId> = nodes.filter(|node| node.admits()).map(|n| n.id).collect();
    match leaders.choose(random) {
        Some(leader) if random.random_bool(0.9) => *leader,
        _ => any_node(world, random),
    }
}

/// Any message, which may get lost or come again later.
fn deliver(world: &mut World, random: &mut Random) {
    let is_awake = |id: &NodeId| world.nodes.get(id).is_none_or(|node| !node.is_paused);
    let places = (0..world.mail.len()).filter(|place| is_awake(&world.mail[*place].to()));
    let places: Vec<usize> = places.take(OVERTAKEN_MAX).collect();
    let Some(&place) = places.choose(random) else {
        return;
    };
    let message = world.mail.swap_remove(place);
    if random.random_ratio(TWICE_PER_MILLE, 1000) {
        world.mail.push(message.clone());
    }
    match random.random_ratio(LOST_PER_MILLE, 1000) {
        true => world.lose(&message),
        false => world.deliver(message),
    }
}
