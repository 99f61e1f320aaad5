//! The digest that checkpoints keep is that of reading every row, whatever happened before, and equal
//! on two replicas whose checkpoints are at the same place.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use onelog_log::{CrashMode, Fault, SimulatedDisk};
use onelog_record::{Index, Position, TABLE_UNIQUE, TableId};
use onelog_state::{Digest, State};
use proptest::prelude::*;
use support::crash::compare_digest;
use support::transfer::take_in;
use support::{Change, Log, is_full, key, small};

const NODES: usize = 2;
const TABLES: [u32; 3] = [1_024, 1_025, u32::MAX];

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Change>),
    /// Drops one of the tables behind the last entry.
    Drop(usize),
    Checkpoint(usize),
    /// Power fails so many steps of the disk into a checkpoint.
    Crash(usize, u64, CrashMode),
    /// This node takes over the other one's checkpoint, where that is newer.
    Install(usize),
}

fn change() -> impl Strategy<Value = Change> {
    (0..TABLES.len(), 0usize..6, 0u8..8, 0usize..40).prop_map(|(table, number, kind, len)| {
        let unique = [&TABLES[table].to_be_bytes()[..], &key(16 + number)].concat();
        let unique = Bytes::from(unique);
        match kind {
            0..=3 => Change::Put(TABLES[table], key(number), len),
            4..=5 => Change::Delete(TABLES[table], key(number)),
            6 => Change::Put(TABLE_UNIQUE.0, unique, len),
            _ => Change::Delete(TABLE_UNIQUE.0, unique),
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let mode = prop::sample::select(CrashMode::ALL.to_vec());
    prop_oneof![
        6 => prop::collection::vec(change(), 0..12).prop_map(Step::Append),
        1 => (0..TABLES.len()).prop_map(Step::Drop),
        4 => (0..NODES).prop_map(Step::Checkpoint),
        1 => (0..NODES, 0u64..40, mode).prop_map(|(node, steps, mode)| Step::Crash(node, steps, mode)),
        1 => (0..NODES).prop_map(Step::Install),
    ]
}

struct Node {
    disk: SimulatedDisk,
    state: State,
}

struct World {
    log: Log,
    /// Behind which entry a table was dropped, and at what position.
    drops: Vec<(Index, TableId, Position)>,
    nodes: Vec<Node>,
    /// What any node's checkpoint at an entry had.
    seen: BTreeMap<Index, Digest>,
}

impl World {
    fn new() -> Self {
        let node = |seed| {
            let disk = SimulatedDisk::new(seed);
            let (state, _) = State::open(Arc::new(disk.clone()), small()).unwrap();
            Node { disk, state }
        };
        Self {
            log: Log::default(),
            drops: Vec::new(),
            nodes: (0..NODES as u64).map(node).collect(),
            seen: BTreeMap::new(),
        }
    }

    /// Applies what a node does not have, with the drops at their places.
    fn catch_up(&self, node: usize) {
        let state = &self.nodes[node].state;
        for entry in &self.log.entries[state.applied().index.0 as usize..] {
            state.apply(entry).unwrap();
            for (behind, table, position) in &self.drops {
                if *behind == entry.index {
                    state.drop_table(*table, *position);
                }
            }
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Append(changes) => self.log.append(std::slice::from_ref(changes)),
            Step::Drop(table) => {
                self.log.append(&[vec![Change::Event(7, key(1))]]);
                let applied = self.log.applied();
                let table = TableId(TABLES[*table]);
                self.drops.push((applied.index, table, applied.position));
            }
            Step::Checkpoint(node) => {
                self.catch_up(*node);
                if let Some(checkpoint) = self.nodes[*node].state.freeze() {
                    let report = checkpoint.run().unwrap();
                    assert_eq!(Some(report.digest), self.nodes[*node].state.digest());
                }
            }
            Step::Crash(node, steps, mode) => {
                self.catch_up(*node);
                let Node { disk, state } = &mut self.nodes[*node];
                disk.fail_at(disk.steps() + steps, Fault::CrashNow);
                let _ = state.freeze().map(|checkpoint| checkpoint.run().map(drop));
                disk.crash(*mode);
                *state = State::open(Arc::new(disk.clone()), small()).unwrap().0;
            }
            Step::Install(node) => {
                let (from, to) = (&self.nodes[1 - *node].state, &self.nodes[*node].state);
                if from.checkpointed().index > to.applied().index {
                    let imported = take_in(from, to).unwrap();
                    to.install(imported, &mut None).unwrap();
                }
            }
        }
    }

    fn check(&mut self) -> Result<(), String> {
        for node in &self.nodes {
            compare_digest(&node.state)?;
            let found = node.state.digest().unwrap();
            let index = found.applied.index;
            let before = self.seen.entry(index).or_insert(found.digest);
            if *before != found.digest {
                return Err(format!("two replicas differ at entry {index}"));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if is_full() { 3_000 } else { 150 },
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_digest_is_that_of_all_rows_after_any_history(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            prop_assert_eq!(world.check(), Ok(()));
        }
        for node in 0..NODES {
            world.take(&Step::Checkpoint(node));
        }
        prop_assert_eq!(world.check(), Ok(()));
    }
}

#[test]
fn a_copy_has_the_digest() {
    let mut log = Log::default();
    log.append(&[vec![Change::Put(1, key(1), 9), Change::Put(1, key(2), 9)]]);
    let (state, _) = log.open(Arc::new(SimulatedDisk::new(1)), small());
    state.freeze().unwrap().run().unwrap();
    let other = SimulatedDisk::new(2);
    state.copy_base(&other).unwrap();
    let (copy, opened) = State::open(Arc::new(other), small()).unwrap();
    assert_eq!((copy.digest(), opened.installed), (state.digest(), None));
}
