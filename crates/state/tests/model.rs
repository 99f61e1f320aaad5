//! The state against a model that keeps every version for ever.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;

use onelog_log::SimulatedDisk;
use onelog_record::Position;
use onelog_state::{Checkpoint, Snapshot, State};
use proptest::prelude::*;
use support::{Change, KEYS, Log, is_full, key, ranges, small};

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Vec<Change>>),
    NoOp,
    Freeze,
    Run,
    Reopen,
    Release,
    /// Takes a snapshot this many positions ago and holds it.
    Hold(u64),
    LetGo,
}

fn change() -> impl Strategy<Value = Change> {
    let table = prop_oneof![4 => Just(1u32), 2 => Just(2), 1 => Just(u32::MAX)];
    (table, 0..KEYS, 0u8..10, 0usize..60).prop_map(|(table, number, kind, len)| match kind {
        0..=5 => Change::Put(table, key(number), len),
        6..=8 => Change::Delete(table, key(number)),
        _ => Change::Event(3, key(number)),
    })
}

fn step() -> impl Strategy<Value = Step> {
    let transaction = prop::collection::vec(change(), 0..5);
    prop_oneof![
        8 => prop::collection::vec(transaction, 1..4).prop_map(Step::Append),
        1 => Just(Step::NoOp),
        3 => Just(Step::Freeze),
        3 => Just(Step::Run),
        1 => Just(Step::Reopen),
        1 => Just(Step::Release),
        2 => (0u64..20).prop_map(Step::Hold),
        1 => Just(Step::LetGo),
    ]
}

struct World {
    disk: SimulatedDisk,
    log: Log,
    state: State,
    pending: Option<Checkpoint>,
    held: Vec<Snapshot>,
}

impl World {
    fn new() -> Self {
        let disk = SimulatedDisk::new(1);
        let log = Log::default();
        let (state, _) = log.open(Arc::new(disk.clone()), small());
        Self {
            disk,
            log,
            state,
            pending: None,
            held: Vec::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Append(transactions) => {
                self.log.append(transactions);
                self.log.replay(&self.state);
            }
            Step::NoOp => {
                self.log.no_op();
                self.log.replay(&self.state);
            }
            Step::Freeze => {
                let was_running = self.pending.is_some();
                if let Some(checkpoint) = self.state.freeze() {
                    assert!(!was_running, "only one checkpoint runs at a time");
                    assert_eq!(checkpoint.position(), self.state.position());
                    self.pending = Some(checkpoint);
                }
            }
            Step::Run => {
                if let Some(checkpoint) = self.pending.take() {
                    let position = checkpoint.position();
                    assert_eq!(checkpoint.run().unwrap().position, position);
                    assert_eq!(self.state.checkpointed().position, position);
                }
            }
            Step::Reopen => self.reopen(),
            Step::Release => drop(self.state.release_old_view()),
            Step::Hold(ago) => {
                let at = self.log.position.saturating_sub(*ago);
                self.held.extend(self.state.snapshot_at(Position(at)));
            }
            Step::LetGo => self.held.clear(),
        }
    }

    /// A clean end and a new start: what the checkpoint did not cover comes from the log.
    fn reopen(&mut self) {
        self.pending = None;
        self.held.clear();
        let reached = self.state.checkpointed();
        let nothing = Log::default().open(Arc::new(SimulatedDisk::new(2)), small());
        self.state = nothing.0;
        let (state, opened) = self.log.open(Arc::new(self.disk.clone()), small());
        self.state = state;
        assert_eq!(opened.applied, reached);
        let expected: Vec<_> = self
            .log
            .ids
            .iter()
            .take_while(|id| id.position <= reached.position)
            .copied()
            .collect();
        // A transaction without records at the checkpoint's position may be on either side.
        assert!(opened.ids.len() <= expected.len());
        assert_eq!(opened.ids[..], expected[..opened.ids.len()]);
        let missing = &expected[opened.ids.len()..];
        assert!(missing.iter().all(|id| id.records == 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if is_full() { 3_000 } else { 100 },
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_state_is_the_model_after_every_step(steps in prop::collection::vec(step(), 1..40)) {
        let ranges = ranges();
        let mut world = World::new();
        for (number, step) in steps.iter().enumerate() {
            world.take(step);
            if number % 5 == 4 || number + 1 == steps.len() {
                let compared = world.log.compare_state(&world.state, &ranges);
                prop_assert_eq!(compared, Ok(()));
            }
            for snapshot in &world.held {
                prop_assert_eq!(world.log.compare(snapshot, &ranges[..3]), Ok(()));
            }
        }
        world.reopen();
        prop_assert_eq!(world.log.compare_state(&world.state, &ranges), Ok(()));
    }
}
