//! Whole clusters in one thread: several replicas, each on two simulated disks, with a network in
//! memory and one seed for everything that is random.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what must hold and does not ends the run of a seed by a panic, which is its report"
)]

mod checks;
mod clients;
mod faults;
mod invariants;
mod membership;
mod node;
mod reached;
mod rot;
mod run;
mod schedule;
mod seeds;
mod sinks;
mod watch;
mod world;

pub use node::{Life, Node, options};
pub use reached::{RARE, Reached};
pub use run::{Outcome, STEPS, run};
pub use seeds::{Batch, Ran, run_all};
pub use watch::Watch;
pub use world::{TABLE, World, node};

use run::unique_rows;
