//! One seed: faults for a while, then none. In the end all nodes agree, and the clients' history is
//! held against the log.

use std::hash::{Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use onelog_log::CrashMode;
use onelog_record::{NodeId, TABLE_UNIQUE, TableDefinition, TableKind, ValueKind, panic_message};
use rand::SeedableRng as _;

use super::clients::Clients;
use super::faults::{Faults, small};
use super::reached::Reached;
use super::world::{World, node};
use crate::checker::{Report, Rule, check};
use crate::history::Logged;
use crate::workloads::{self, Random};

/// How many steps a seed takes unless another number is wished for.
pub const STEPS: usize = 40_000;
/// How many steps lie between two looks at everything.
const CHECK_EVERY: usize = 2_000;
/// How long a cluster may take to agree once nothing fails any more.
const CALM_TICKS: usize = 60;

/// What one seed showed.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    pub report: Report,
    pub reached: Reached,
    /// A digest of everything that was done and answered, and of every byte of all disks.
    pub trace: u64,
}

pub(super) fn unique_rows() -> TableDefinition {
    TableDefinition {
        id: TABLE_UNIQUE,
        name: "onelog.unique".into(),
        kind: TableKind::Keyed,
        value: ValueKind::Bytes,
        schema: None,
        unique: Vec::new(),
        dropped: false,
    }
}

/// Runs one seed. What must hold at every moment and does not is a violation like those of the
/// checkers.
#[must_use]
pub fn run(seed: u64, steps: usize) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run_through(seed, steps))).unwrap_or_else(|panic| {
        let mut report = Report::default();
        let text = panic_message(&*panic).unwrap_or("a panic without a text");
        report.add(Rule::Cluster, text.to_owned());
        Outcome {
            seed,
            report,
            reached: Reached::default(),
            trace: 0,
        }
    })
}

fn run_through(seed: u64, steps: usize) -> Outcome {
    let mut random = Random::seed_from_u64(seed);
    let nodes = [3, 5][(seed % 2) as usize];
    let mut faults = Faults::drawn(steps, nodes, &mut random);
    let mut clients = Clients::new(workloads::with_definitions());
    let mut world = World::bare(seed, small(node(1)));
    clients.set_up(&mut world, node(1), &mut random);
    world.grow(nodes, small);
    for step in 0..steps {
        faults.step(&mut world, &mut clients, &mut random);
        if step % CHECK_EVERY == 0 {
            world.scrub();
            world.check_equal();
        }
    }
    let leader = calm(&mut world, &mut clients, &mut random);
    let begin = clients.moment();
    let snapshot = world.get(leader).life().state.snapshot();
    clients.audit(&snapshot, 0, begin);
    world.check_end();
    world.end_sink(leader);
    prove(seed, world, clients)
}

/// Nothing fails any more: one leads, and every request is answered.
fn calm(world: &mut World, clients: &mut Clients, random: &mut Random) -> NodeId {
    world.cut.clear();
    world.retire();
    for id in world.nodes.keys().copied().collect::<Vec<_>>() {
        world.get(id).is_paused = false;
        if world.get(id).may_fail || !world.get(id).runs() {
            world.crash(id, CrashMode::RandomPart);
        }
    }
    world.end_rot();
    for id in world.nodes.keys().copied().collect::<Vec<_>>() {
        if !world.get(id).runs() {
            world.crash(id, CrashMode::RandomPart);
        }
    }
    world.settle();
    world.elect();
    clients.finish(world, random);
    world.run(CALM_TICKS);
    clients.finish(world, random);
    world.elect()
}

fn prove(seed: u64, mut world: World, mut clients: Clients) -> Outcome {
    let seldom = clients.seldom;
    for (what, often) in [
        ("a request was sent on", seldom.sent_on),
        ("a later attempt was answered too", seldom.answered_again),
        (
            "an attempt was refused after another was committed",
            seldom.refused_again,
        ),
        ("a read waited for a barrier", seldom.barriers),
        ("a node that does not lead was read", seldom.followers_read),
    ] {
        world.reached.note(what, often);
    }
    let log: Vec<Logged> = world.logged();
    let mut report = check(&clients.history, &log, &clients.definitions());
    for violation in std::mem::take(&mut clients.report).violations {
        report.add(violation.rule, violation.message);
    }
    let mut trace = clients.trace;
    world.trace.finish().hash(&mut trace);
    for node in world.nodes.values() {
        for disk in [&node.log, &node.state] {
            disk.files().hash(&mut trace);
            disk.steps().hash(&mut trace);
        }
    }
    Outcome {
        seed,
        report,
        reached: world.reached(),
        trace: trace.finish(),
    }
}
