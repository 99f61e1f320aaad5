//! Stories of a cluster, each with the faults that it needs and no other.

use onelog_engine::{ELECTION_TICKS, EngineError, MemberChange, Members, MembersError};
use onelog_record::{Index, NodeId};

use crate::node::Disk;
use crate::world::{World, node};

fn others(world: &World, leader: NodeId) -> Vec<NodeId> {
    world
        .nodes
        .keys()
        .copied()
        .filter(|id| *id != leader)
        .collect()
}

#[test]
fn three_nodes_elect_one_leader_and_follow_it() {
    let mut world = World::of(3, 1);
    let leader = world.elect();
    for ticket in 1..=20 {
        world.put(leader, ticket);
    }
    world.settle();
    world.run(3);
    assert!((1..=20).all(|ticket| world.is_acknowledged(ticket)));
    world.check_end();
}

#[test]
fn nothing_is_acknowledged_before_a_majority_has_it_on_disk() {
    // Given a leader whose followers receive, and flush nothing,
    let mut world = World::of(3, 2);
    let leader = world.elect();
    world.put(leader, 1);
    world.get(leader.get()).flush(usize::MAX);
    world.gather();
    for message in std::mem::take(&mut world.mail) {
        world.deliver(message);
    }
    world.gather();
    for message in std::mem::take(&mut world.mail) {
        world.deliver(message);
    }
    // then the leader's own disk is no majority,
    assert!(!world.is_acknowledged(1));
    // when one of them flushes, it is.
    let follower = others(&world, leader)[0];
    world.get(follower.get()).flush(usize::MAX);
    world.settle();
    assert!(world.is_acknowledged(1));
}

#[test]
fn the_tail_of_a_lost_leader_is_cut_and_its_clients_do_not_hear_of_success() {
    // Given a leader that is cut off with writes of its own,
    let mut world = World::of(3, 3);
    let old = world.elect();
    world.put(old, 1);
    world.settle();
    world.isolate(old);
    for ticket in 10..15 {
        world.put(old, ticket);
    }
    world.settle();
    // when the others go on without it, and it comes back,
    let new = loop {
        world.run(1);
        let leads = |id: &NodeId| world.nodes[id].leads();
        if let Some(new) = others(&world, old).into_iter().find(leads) {
            break new;
        }
    };
    for ticket in 20..23 {
        world.put(new, ticket);
    }
    world.settle();
    world.cut.clear();
    world.run(30);
    // then it has what they have, and nothing that only it had.
    assert!((10..15).all(|ticket| !world.is_acknowledged(ticket)));
    assert!((20..23).all(|ticket| world.is_acknowledged(ticket)));
    world.check_end();
}

#[test]
fn a_leader_without_a_majority_gives_up_and_its_waiting_clients_are_answered() {
    let mut world = World::of(3, 4);
    let leader = world.elect();
    world.isolate(leader);
    world.put(leader, 1);
    world.read(leader, 2);
    world.run(40);
    assert!(!world.nodes[&leader].leads());
    assert!(!world.is_acknowledged(1) && !world.is_readable(2));
    assert_eq!(world.get(leader.get()).engine.waiting(), 0);
}

#[test]
fn a_read_waits_for_a_majority_and_a_deposed_leader_answers_none() {
    // Given a leader that does not know that the others have another one,
    let mut world = World::of(3, 5);
    let old = world.elect();
    world.put(old, 1);
    world.settle();
    world.isolate(old);
    world.read(old, 100);
    for _ in 0..40 {
        for id in others(&world, old) {
            world.get(id.get()).tick();
        }
        world.settle();
    }
    let new = others(&world, old)
        .into_iter()
        .find(|id| world.nodes[id].leads());
    let new = new.unwrap();
    assert!(world.nodes[&old].leads(), "it heard of nothing");
    world.put(new, 2);
    world.settle();
    assert!(world.is_acknowledged(2));
    // when it is asked for a read, then there is no answer;
    world.read(old, 101);
    world.settle();
    assert!(!world.is_readable(100) && !world.is_readable(101));
    // the new leader's has what was acknowledged.
    world.read(new, 102);
    world.settle();
    assert!(world.is_readable(102));
}

#[test]
fn a_follower_that_is_far_behind_is_sent_what_is_only_on_disk() {
    let mut world = World::of(3, 6);
    let leader = world.elect();
    let behind = others(&world, leader)[0];
    world.isolate(behind);
    for ticket in 1..=50 {
        world.put(leader, ticket);
        world.settle();
    }
    // A leader that was started again has nothing of it in memory.
    world.get(leader.get()).checkpoint();
    world.crash(leader);
    world.cut.clear();
    let leader = world.elect();
    assert_ne!(leader, behind);
    world.run(30);
    world.check_end();
}

#[test]
fn a_follower_that_needs_what_was_cut_off_gets_a_snapshot_and_the_rest() {
    let mut world = World::of(3, 7);
    let leader = world.elect();
    let behind = others(&world, leader)[0];
    world.isolate(behind);
    for ticket in 1..=30 {
        world.put(leader, ticket);
        world.settle();
    }
    world.get(leader.get()).checkpoint();
    world.get(leader.get()).retain(3);
    for ticket in 31..=40 {
        world.put(leader, ticket);
    }
    world.settle();
    world.cut.clear();
    world.run(30);
    assert!(
        world.nodes[&behind].disk.start.0 > Index::ZERO,
        "it took a snapshot"
    );
    world.check_end();
}

#[test]
fn one_node_grows_to_three_and_shrinks_to_one_that_was_not_there_before() {
    // Given one node,
    let mut world = World::of(1, 8);
    world
        .get(1)
        .does(|engine, out| engine.campaign(out).unwrap());
    world.settle();
    world.put(node(1), 1);
    world.settle();
    // when two empty ones come as learners and become voters,
    for id in [2, 3] {
        world.start_empty(node(id));
        world.change(node(1), &[MemberChange::Learner(node(id))]);
        world.run(10);
        assert_eq!(world.get(id).applied.len(), world.get(1).applied.len());
    }
    world.change(
        node(1),
        &[MemberChange::Voter(node(2)), MemberChange::Voter(node(3))],
    );
    world.run(10);
    // then all know it, and a majority is two of them;
    let three = Members::of([node(1), node(2), node(3)]);
    for id in 1..=3 {
        assert_eq!(world.get(id).members, three, "node {id}");
    }
    world.isolate(node(1));
    let leader = loop {
        world.run(1);
        if let Some(leader) = [2, 3].into_iter().find(|id| world.get(*id).leads()) {
            break node(leader);
        }
    };
    world.put(leader, 2);
    world.settle();
    assert!(world.is_acknowledged(2));
    world.cut.clear();
    world.run(20);
    // when both others go, the leader goes on alone.
    let leader = world.elect();
    for id in others(&world, leader) {
        world.change(leader, &[MemberChange::Remove(id)]);
        world.run(10);
    }
    world.put(leader, 3);
    world.settle();
    assert!(world.is_acknowledged(3));
    assert_eq!(world.nodes[&leader].members, Members::alone(leader));
    world.check_end();
}

#[test]
fn a_leader_that_votes_no_longer_does_not_lead_on() {
    // Given a leader that makes itself a learner, with one voter left,
    let mut world = World::of(2, 13);
    let old = world.elect();
    let other = others(&world, old)[0];
    world.change(old, &[MemberChange::Learner(old)]);
    world.settle();
    // when it is asked for a read or a write,
    world.read(old, 1);
    world.put(old, 2);
    world.settle();
    // then it does neither: it cannot know whether the voter leads already.
    assert!(!world.nodes[&old].leads());
    assert!(!world.is_readable(1) && !world.is_acknowledged(2));
    world.run(30);
    assert_eq!(world.leader(), Some(other));
    world.check_end();
}

#[test]
fn a_learner_whose_leader_is_silent_for_an_election_timeout_knows_of_none() {
    // Given a learner,
    let mut world = World::of(1, 14);
    let leader = world.elect();
    let learner = node(2);
    world.start_empty(learner);
    world.change(leader, &[MemberChange::Learner(learner)]);
    world.run(5);
    let known = |world: &World| world.nodes[&learner].engine.raft().leader();
    assert_eq!(known(&world), Some(leader));
    // when it no longer hears of its leader,
    world.isolate(learner);
    world.run(2 * ELECTION_TICKS);
    // then it knows of none until it does.
    assert_eq!(known(&world), None);
    world.cut.clear();
    world.run(3);
    assert_eq!(known(&world), Some(leader));
}

#[test]
fn a_node_without_room_leads_when_no_other_one_can_and_not_before() {
    // Given three nodes of which the leader is lost and another one has no room,
    let mut world = World::of(3, 15);
    let leader = world.elect();
    let [full, other] = others(&world, leader)[..] else {
        unreachable!("there are three");
    };
    world.get(full.get()).engine.set_room(false);
    world.isolate(leader);
    // then the one that has room leads, with the vote of the other,
    let next = loop {
        world.run(1);
        let leads = |id: &NodeId| world.nodes[id].leads();
        if let Some(next) = [full, other].into_iter().find(leads) {
            break next;
        }
    };
    assert_eq!(next, other);
    // which does not take the leadership when it is handed over,
    world
        .get(other.get())
        .does(|engine, out| engine.transfer(full, out).unwrap().unwrap());
    world.run(2 * ELECTION_TICKS);
    assert!(world.nodes[&other].leads());
    // and leads where there is no other.
    world.isolate(other);
    world
        .cut
        .retain(|(from, to)| ![*from, *to].contains(&full) || ![*from, *to].contains(&leader));
    world.get(leader.get()).engine.set_room(false);
    for _ in 0..10 * ELECTION_TICKS {
        world.run(1);
    }
    assert!(world.nodes[&full].leads() || world.nodes[&leader].leads());
}

#[test]
fn one_change_of_members_at_a_time() {
    let mut world = World::of(3, 9);
    let leader = world.elect();
    world.change(leader, &[MemberChange::Learner(node(4))]);
    let change = |world: &mut World, change: MemberChange| {
        let mut answer = Ok(());
        world.get(leader.get()).does(|engine, out| {
            answer = engine.propose_members(&[change], out).unwrap();
        });
        answer
    };
    let second = change(&mut world, MemberChange::Learner(node(5)));
    assert_eq!(second, Err(MembersError::UnderWay));
    world.run(5);
    change(&mut world, MemberChange::Learner(node(5))).unwrap();
    world.run(5);
    assert_eq!(world.get(1).members.learners, [node(4), node(5)].into());
    let follower = others(&world, leader)[0];
    let mut answer = Ok(());
    world.get(follower.get()).does(|engine, out| {
        let change = MemberChange::Remove(node(4));
        answer = engine.propose_members(&[change], out).unwrap();
    });
    assert_eq!(answer, Err(MembersError::NotLeader));
}

#[test]
fn leadership_is_handed_on_with_everything_acknowledged() {
    let mut world = World::of(3, 10);
    let old = world.elect();
    world.put(old, 1);
    world.settle();
    let new = others(&world, old)[1];
    world
        .get(old.get())
        .does(|engine, out| engine.transfer(new, out).unwrap().unwrap());
    world.settle();
    world.run(3);
    assert_eq!(world.leader(), Some(new));
    world.put(new, 2);
    world.settle();
    world.run(3);
    world.check_end();
}

#[test]
fn requests_wait_while_the_leadership_is_being_handed_on_and_go_on_when_it_was_not() {
    let mut world = World::of(3, 11);
    let leader = world.elect();
    let silent = others(&world, leader)[0];
    world.isolate(silent);
    world
        .get(leader.get())
        .does(|engine, out| engine.transfer(silent, out).unwrap().unwrap());
    world.put(leader, 1);
    world.settle();
    assert!(!world.is_acknowledged(1));
    world.run(12);
    world.get(leader.get()).seal();
    world.settle();
    assert!(
        world.is_acknowledged(1),
        "the handing on has ended by itself"
    );
}

#[test]
fn a_node_that_lost_the_end_of_its_log_is_stopped_by_its_leader() {
    // Given a follower that confirmed entries, and whose disk then forgot them,
    let mut world = World::of(3, 12);
    let leader = world.elect();
    for ticket in 1..=5 {
        world.put(leader, ticket);
    }
    world.settle();
    world.run(3);
    let follower = others(&world, leader)[0];
    let disk = &mut world.get(follower.get()).disk;
    disk.log.truncate(2);
    world.crash(follower);
    // when the leader's heartbeat counts on them,
    let message = loop {
        world.get(leader.get()).tick();
        world.gather();
        let mail = std::mem::take(&mut world.mail);
        if let Some(message) = mail
            .into_iter()
            .find(|m| m.to() == follower && m.is_heartbeat())
        {
            break message;
        }
    };
    let mut failed = None;
    world.get(follower.get()).does(|engine, out| {
        failed = engine.step(message, out).err();
    });
    // then the node says so and stops.
    let said = failed.unwrap();
    assert!(matches!(said, EngineError::Consensus(_)));
    assert!(
        said.to_string().contains("lost acknowledged entries"),
        "{said}"
    );
}

/// Three nodes. One of the two that acknowledged the last entries has forgotten them with an earlier
/// copy of its disk, and leads with the third one, which never had them. Answers the leader, the third,
/// and the one that is off and still has them.
fn with_an_earlier_copy(world: &mut World) -> (NodeId, NodeId, (NodeId, Disk)) {
    let old = world.elect();
    let [rolled_back, behind] = others(world, old)[..] else {
        unreachable!("there are three");
    };
    for ticket in 1..=5 {
        world.put(old, ticket);
        world.settle();
    }
    world.run(3);
    let copy = world.get(rolled_back.get()).disk.clone();
    world.isolate(behind);
    for ticket in 6..=20 {
        world.put(old, ticket);
        world.settle();
    }
    world.run(3);
    assert!((1..=20).all(|ticket| world.is_acknowledged(ticket)));
    world.get(old.get()).checkpoint();
    let kept = world.take_off(old);
    world.take_off(rolled_back);
    world.cut.clear();
    world.put_back(rolled_back, copy);
    let new = world.elect();
    let third = if new == behind { rolled_back } else { behind };
    (new, third, (old, kept))
}

#[test]
fn a_node_whose_committed_entries_the_leader_lacks_stops_and_counts_for_no_majority() {
    // Given a cluster that has forgotten what one node knows to be committed,
    let mut world = World::of(3, 13);
    let (leader, third, (keeper, kept)) = with_an_earlier_copy(&mut world);
    world.settle();
    // when that node comes back, and the leader has no other,
    world.doomed.insert(keeper, None);
    world.isolate(third);
    world.put_back(keeper, kept);
    world.put(leader, 100);
    world.read(leader, 200);
    world.run(5);
    // then nothing is acknowledged with its help, and it says why it stops.
    assert!(!world.is_acknowledged(100) && !world.is_readable(200));
    let said = world.doomed[&keeper].as_ref().unwrap().to_string();
    assert!(said.contains("is committed on this node"), "{said}");
    // The others go on.
    world.cut.clear();
    world.run(3);
    world.put(leader, 101);
    world.settle();
    assert!(world.is_acknowledged(101));
}
