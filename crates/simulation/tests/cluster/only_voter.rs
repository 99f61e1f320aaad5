//! A follower that becomes the only voter before all that it has is durable. The planted bugs need this
//! story too.

use onelog_engine::MemberChange;
use onelog_simulation::cluster::{World, node};

/// Longer than any election timeout.
pub const LONG: usize = 100;

fn pass(world: &mut World) {
    world.gather();
    for message in std::mem::take(&mut world.mail) {
        world.deliver(message);
    }
    world.gather();
}

pub fn flush(world: &mut World, id: u64) {
    while world.get(node(id)).run_flush(0) || world.get(node(id)).report(0) {}
}

/// Whether it has led while its last entry was in memory alone; then that is flushed.
pub fn becomes_the_only_voter() -> (World, bool) {
    // Given a leader and a follower, which has flushed that the leader is to be removed,
    let mut world = World::of(2, 61);
    world.change(node(1), 9, &[MemberChange::Remove(node(1))]);
    flush(&mut world, 1);
    pass(&mut world);
    flush(&mut world, 2);
    world.gather();
    let confirmed = std::mem::take(&mut world.mail);
    // and has one more entry, which it has not flushed,
    world.put(node(1), 1);
    flush(&mut world, 1);
    pass(&mut world);
    // when the removal is committed, and the follower seeks the leadership alone.
    for message in confirmed {
        world.deliver(message);
    }
    flush(&mut world, 1);
    let mut has_led = false;
    for _ in 0..LONG {
        pass(&mut world);
        world.get(node(2)).tick();
        has_led |= world.nodes[&node(2)].replica().observer().role.leads;
    }
    (world, has_led)
}
