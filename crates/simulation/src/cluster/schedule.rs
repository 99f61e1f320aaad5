//! How often what is done next: each seed draws its own mixture, so that some runs have long partitions,
//! others late flushes, others many crashes; and in it kinds of faults that never come, a node that is slow
//! and a disk that is, and times in which much fails, little or nothing.

use onelog_record::NodeId;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use crate::workloads::Random;

/// Of a hundred kinds of faults: those that never come in a seed.
const OFF_PERCENT: u32 = 30;
/// Into so many times a run is divided.
const TIMES: usize = 8;
/// How many times as often faults come in each.
const STORMS: [u32; 5] = [0, 1, 1, 1, 4];
/// Of a hundred seeds: those with a slow node, and those with a slow disk.
const SLOW_PERCENT: u32 = 30;
/// Of so many steps of a slow node, or of a slow disk, one is done.
const SLOW_ONE_OF: u32 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Act {
    Deliver,
    Turn,
    RunFlush,
    Report,
    Tick,
    Client,
    SendOn,
    Fetch,
    Snapshot,
    Checkpoint,
    Retain,
    Save,
    Idle,
    Crash,
    /// A process is killed and stays down.
    Down,
    Fault,
    Pause,
    Resume,
    CutLink,
    Isolate,
    Away,
    Heal,
    Transfer,
    ChangeMembers,
    Join,
    Leave,
    Rot,
    Sink,
    SinkWrite,
    TurnClock,
}

/// How often each is done at most; a seed draws less of each.
const WORK: [(Act, u32); 17] = [
    (Act::Deliver, 12_000),
    (Act::Turn, 3_000),
    (Act::RunFlush, 4_000),
    (Act::Report, 5_000),
    (Act::Tick, 3_000),
    (Act::Client, 5_000),
    (Act::SendOn, 2_500),
    (Act::Fetch, 700),
    (Act::Snapshot, 1_200),
    (Act::Checkpoint, 700),
    (Act::Retain, 500),
    (Act::Save, 300),
    (Act::Idle, 400),
    (Act::Sink, 1_000),
    (Act::SinkWrite, 300),
    // Without these two nothing that was paused or cut off would come back.
    (Act::Resume, 60),
    (Act::Heal, 40),
];
const FAULTS: [(Act, u32); 13] = [
    (Act::Crash, 16),
    (Act::Down, 8),
    (Act::Fault, 16),
    (Act::Pause, 12),
    (Act::CutLink, 16),
    (Act::Isolate, 8),
    (Act::Away, 16),
    (Act::Transfer, 24),
    (Act::ChangeMembers, 24),
    (Act::Join, 10),
    (Act::Leave, 10),
    (Act::Rot, 60),
    (Act::TurnClock, 40),
];

/// What one seed does, and when.
#[derive(Debug)]
pub(super) struct Schedule {
    /// One for each time of the run.
    times: Vec<Vec<(Act, u32)>>,
    steps: usize,
    slow_node: Option<NodeId>,
    slow_disk: Option<NodeId>,
}

impl Schedule {
    /// `nodes` are those that a run begins with.
    pub(super) fn drawn(steps: usize, nodes: u64, random: &mut Random) -> Self {
        let mut drawn = |(act, most): (Act, u32)| (act, random.random_range(most / 10..=most));
        let work = WORK.map(&mut drawn);
        let faults = FAULTS.map(&mut drawn);
        let is_on = |_: &(Act, u32)| !random.random_ratio(OFF_PERCENT, 100);
        let faults: Vec<_> = faults.into_iter().filter(is_on).collect();
        let mut slow = || {
            let node = NodeId(random.random_range(1..=nodes));
            random.random_ratio(SLOW_PERCENT, 100).then_some(node)
        };
        let (slow_node, slow_disk) = (slow(), slow());
        let mut times = Vec::new();
        for _ in 0..TIMES {
            let storm = *STORMS.choose(random).unwrap();
            let faults = faults.iter().map(|(act, often)| (*act, often * storm));
            times.push(work.into_iter().chain(faults).collect());
        }
        Self {
            times,
            steps,
            slow_node,
            slow_disk,
        }
    }

    pub(super) fn act(&self, step: usize, random: &mut Random) -> Act {
        let time = step * TIMES / self.steps;
        let acts = &self.times[time.min(TIMES - 1)];
        acts.choose_weighted(random, |act| act.1).unwrap().0
    }

    /// Whether this node is too slow to do that now.
    pub(super) fn dawdles(&self, id: NodeId, act: Act, random: &mut Random) -> bool {
        let is_slow = match act {
            Act::RunFlush => self.slow_disk == Some(id) || self.slow_node == Some(id),
            Act::Turn | Act::Report | Act::Checkpoint | Act::Save => self.slow_node == Some(id),
            _ => false,
        };
        is_slow && !random.random_ratio(1, SLOW_ONE_OF)
    }
}
