//! Many consumers of one group with random faults: they are killed and start again, messages are
//! slow, get lost or are repeated, records are stored late or not at all, the coordinator is killed
//! and starts with what is stored. What must hold is checked in `checks.rs` at each step; when the
//! faults end, the group becomes stable and reads every partition.

mod checks;
mod client;
mod world;

use world::World;

const STEPS: u32 = 1_500;
/// Until sessions of killed members have ended, and rebalances since.
const CALM_MS: u64 = 120_000;

/// Runs a seed with so many of the clients being instances; panics where a rule is broken.
pub fn run(seed: u64, instances: usize) {
    let mut world = World::new(seed, instances);
    for _ in 0..STEPS {
        world.step();
    }
    world.calm();
    let end = world.now.monotonic_ms + CALM_MS;
    while world.now.monotonic_ms < end {
        world.step();
    }
    world.check_settled();
}
