//! Nodes that join and leave while others fail: a new one begins with empty disks and becomes a learner,
//! then a voter; one that was removed is gone with its disks, and comes back under another number only.

use onelog_engine::MemberChange;
use onelog_record::NodeId;
use onelog_replica::Event;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use super::clients::Clients;
use super::faults::{any_node, one_that_leads, small};
use super::world::World;
use crate::workloads::Random;

/// How many nodes there are at once, and how many one run has seen.
const NODES_MAX: usize = 7;
const NODES_EVER_MAX: u64 = 14;
/// So many voters are left. Of two voters the one that stays may not know yet that the other is gone, and
/// would wait for it; so nobody takes the disks of the other away at once.
const VOTERS_MIN: usize = 2;

pub(super) fn transfer(world: &mut World, clients: &mut Clients, random: &mut Random) {
    let (of, to) = (one_that_leads(world, random), any_node(world, random));
    let ticket = clients.next_ticket();
    if world.get(of).is_awake() {
        world.get(of).handle(Event::Transfer(ticket, to));
    }
}

/// Any node becomes a learner or a voter, or two do at once: then a joint configuration comes between.
pub(super) fn change_members(world: &mut World, clients: &mut Clients, random: &mut Random) {
    let mut nodes = vec![any_node(world, random), any_node(world, random)];
    nodes.dedup();
    if random.random_bool(0.5) {
        nodes.truncate(1);
    }
    // One that leaves is not asked to stay.
    nodes.retain(|node| !world.leaving.contains(node));
    let mut changes = Vec::new();
    for node in nodes {
        changes.push(match random.random_range(0..3) {
            0 => MemberChange::Learner(node),
            _ => MemberChange::Voter(node),
        });
    }
    if !changes.is_empty() {
        request(world, clients, &changes, random);
    }
}

/// A node with empty disks is there, and is to be a learner.
pub(super) fn join(world: &mut World, clients: &mut Clients, random: &mut Random) {
    if world.nodes.len() >= NODES_MAX || world.last_id.get() >= NODES_EVER_MAX {
        return;
    }
    let id = NodeId(world.last_id.get() + 1);
    world.add(id, small(id));
    world.gather();
    request(world, clients, &[MemberChange::Learner(id)], random);
}

/// A member is to be removed, or one that was is gone with its disks.
pub(super) fn leave(world: &mut World, clients: &mut Clients, random: &mut Random) {
    world.retire();
    let members = &world.members.1;
    let all: Vec<NodeId> = members.all().into_iter().collect();
    let Some(&id) = all.choose(random) else {
        return;
    };
    if members.voters.len() <= VOTERS_MIN && members.voters.contains(&id) {
        return;
    }
    world.leaving.insert(id);
    request(world, clients, &[MemberChange::Remove(id)], random);
}

/// It may not be possible.
fn request(
    world: &mut World,
    clients: &mut Clients,
    changes: &[MemberChange],
    random: &mut Random,
) {
    let of = one_that_leads(world, random);
    let ticket = clients.next_ticket();
    if world.get(of).is_awake() {
        world.change(of, ticket, changes);
    }
}
