//! What happens to the nodes while clients work.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::clients::Shared;
use crate::rig::{Cluster, NODES};

/// How many transactions are acknowledged between two events.
const BETWEEN: usize = 30;
/// Where the frames of a segment begin (docs/format.md).
const SEGMENT_HEADER_BYTES: usize = 4096;

/// How often each thing happens.
pub struct Plan {
    pub kills: usize,
    pub pauses: usize,
    pub partitions: usize,
    pub whole_kills: usize,
    pub restarts: usize,
    pub flips: usize,
    pub power_cuts: usize,
}

/// Which ways are closed.
#[derive(Clone, Copy, Debug)]
enum Partition {
    LeaderAlone,
    LeaderUnplugged,
    /// What the leader sends is lost; it hears the others.
    LeaderMute,
    /// What the others send to the leader is lost.
    LeaderDeaf,
    /// One that follows is alone.
    FollowerAlone,
    /// The leader and one other do not hear each other; both hear the third.
    OneLink,
}

const PARTITIONS: [Partition; 6] = [
    Partition::LeaderAlone,
    Partition::LeaderMute,
    Partition::LeaderUnplugged,
    Partition::FollowerAlone,
    Partition::LeaderDeaf,
    Partition::OneLink,
];

pub struct Faults<'s> {
    pub cluster: Cluster,
    pub shared: &'s Shared,
    pub random: StdRng,
    /// How long each fault of a leader left the others without one.
    pub without_leader: Vec<Duration>,
}

impl Faults<'_> {
    pub fn run(&mut self, plan: &Plan) {
        for n in 0..plan.kills {
            // The leader every second time.
            let node = match n % 2 {
                0 => self.leader(),
                _ => NODES[self.random.random_range(0..NODES.len())],
            };
            self.kill(node);
        }
        for _ in 0..plan.pauses {
            self.pause_leader();
        }
        for n in 0..plan.partitions {
            self.part(PARTITIONS[n % PARTITIONS.len()]);
        }
        for _ in 0..plan.whole_kills {
            self.kill_all();
        }
        for _ in 0..plan.restarts {
            self.restart_each();
        }
        for _ in 0..plan.flips {
            let node = NODES[self.random.random_range(0..NODES.len())];
            self.flip_a_bit(node);
        }
        for n in 0..plan.power_cuts {
            self.cut_power(n % 2 == 0);
        }
        self.work_on();
    }

    fn leader(&self) -> u64 {
        self.cluster.wait_for_leader(&NODES).0
    }

    fn others(node: u64) -> Vec<u64> {
        NODES.into_iter().filter(|other| *other != node).collect()
    }

    /// Waits until the clients have got on in spite of what happened.
    fn work_on(&self) {
        let acknowledged = || self.shared.acknowledged.load(Ordering::SeqCst);
        let enough = acknowledged() + BETWEEN;
        self.cluster
            .wait("acknowledgements", |_| acknowledged() >= enough);
    }

    /// Waits until the others have a leader among them, and notes how long they had none.
    fn wait_for_another(&mut self, gone: u64) {
        let (_, waited) = self.cluster.wait_for_leader(&Self::others(gone));
        self.without_leader.push(waited);
    }

    /// The node is back, and has what was acknowledged meanwhile.
    fn catch_up(&self, node: u64) {
        let position = self.shared.position.load(Ordering::SeqCst);
        self.cluster.wait_for_position(node, position);
    }

    fn kill(&mut self, node: u64) {
        self.work_on();
        let led = self.leader() == node;
        self.cluster.kill(node);
        if led {
            self.wait_for_another(node);
        }
        self.work_on();
        self.cluster.start_node(node);
        self.catch_up(node);
    }

    /// The leader does nothing for longer than the others wait for it, and goes on as if it led.
    fn pause_leader(&mut self) {
        self.work_on();
        let leader = self.leader();
        self.cluster.signal(leader, "STOP");
        self.wait_for_another(leader);
        self.work_on();
        self.cluster.signal(leader, "CONT");
        self.catch_up(leader);
    }

    fn part(&mut self, partition: Partition) {
        self.work_on();
        let leader = self.leader();
        let others = Self::others(leader);
        let follower = others[self.random.random_range(0..others.len())];
        let network = &self.cluster.network;
        let ways: Vec<(u64, u64)> = match partition {
            Partition::LeaderAlone => both_ways(leader, &others),
            Partition::LeaderUnplugged => Vec::new(),
            Partition::LeaderMute => others.iter().map(|other| (leader, *other)).collect(),
            Partition::LeaderDeaf => others.iter().map(|other| (*other, leader)).collect(),
            Partition::FollowerAlone => both_ways(follower, &Self::others(follower)),
            Partition::OneLink => both_ways(leader, &[follower]),
        };
        let is_unplugged = matches!(partition, Partition::LeaderUnplugged);
        if is_unplugged {
            network.unplug(leader);
        }
        for (from, to) in &ways {
            network.block(*from, *to);
        }
        if !matches!(partition, Partition::FollowerAlone | Partition::OneLink) {
            self.wait_for_another(leader);
        }
        self.work_on();
        let network = &self.cluster.network;
        for (from, to) in &ways {
            network.unblock(*from, *to);
        }
        if is_unplugged {
            network.plug(leader);
        }
        for node in NODES {
            self.catch_up(node);
        }
    }

    fn kill_all(&mut self) {
        self.work_on();
        for node in NODES {
            self.cluster.kill(node);
        }
        for node in NODES {
            self.cluster.start_node(node);
        }
        self.leader();
        for node in NODES {
            self.catch_up(node);
        }
    }

    /// A bit of a node's log is another one when it starts again. In the first half of what is written,
    /// which is below what the node knows to be durable.
    fn flip_a_bit(&mut self, node: u64) {
        self.work_on();
        self.cluster.kill(node);
        let newest = self.cluster.newest_segment(node);
        let segment = File::options().read(true).write(true).open(newest).unwrap();
        let mut bytes = Vec::new();
        (&segment).read_to_end(&mut bytes).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        let at = self
            .random
            .random_range(SEGMENT_HEADER_BYTES..SEGMENT_HEADER_BYTES.midpoint(end));
        let flipped = [bytes[at] ^ (1 << self.random.random_range(0..8))];
        segment.write_all_at(&flipped, at as u64).unwrap();
        segment.sync_all().unwrap();
        self.cluster.start_node(node);
        self.catch_up(node);
        self.cluster.read_log(node);
        // Every byte there belongs to a frame: the zeros between two are checked as well.
        let what = format!("frame of node {node} that was mended, with byte {at}");
        self.cluster.wait(&what, |cluster| {
            cluster
                .view(node)
                .is_some_and(|view| view["mended_frames"] == 1)
        });
    }

    /// The disk of a node is without power for a while, and has lost what was not flushed.
    fn cut_power(&mut self, should_lead: bool) {
        let Some(node) = self.cluster.node_with_a_disk() else {
            return;
        };
        self.work_on();
        if should_lead && self.leader() != node {
            self.cluster.transfer(node);
        }
        let led = self.leader() == node;
        self.cluster.cut_power();
        self.cluster.kill(node);
        if led {
            self.wait_for_another(node);
        }
        self.work_on();
        self.cluster.power_on();
        self.cluster.start_node(node);
        self.catch_up(node);
        self.cluster.read_log(node);
    }

    fn restart_each(&mut self) {
        for node in NODES {
            self.work_on();
            self.cluster.stop(node);
            self.work_on();
            self.cluster.start_node(node);
            self.catch_up(node);
        }
    }
}

fn both_ways(alone: u64, others: &[u64]) -> Vec<(u64, u64)> {
    let ways = others
        .iter()
        .flat_map(|other| [(alone, *other), (*other, alone)]);
    ways.collect()
}
