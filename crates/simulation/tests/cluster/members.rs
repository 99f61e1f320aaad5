//! Stories of members that come and go, and of a leadership that is handed on.

use onelog_engine::{MemberChange, Members, MembersError};
use onelog_log::CrashMode;
use onelog_replica::{Event, TransferError};
use onelog_simulation::cluster::{World, node, options};

use super::only_voter;

#[test]
fn three_nodes_grow_from_one_and_all_have_what_each_acknowledged() {
    let mut world = World::of_one(1);
    for ticket in 1..=20 {
        world.put(node(1), ticket);
    }
    world.settle();
    for id in [2, 3] {
        world.add(node(id), options(node(id)));
        assert!(!world.nodes[&node(id)].admits(), "a node that joins waits");
        world.change_and_wait(node(1), &[MemberChange::Learner(node(id))]);
        world.run(3);
    }
    let voters = [2, 3].map(|id| MemberChange::Voter(node(id)));
    world.change_and_wait(node(1), &voters);
    for ticket in 21..=40 {
        world.put(node(1), ticket);
    }
    world.run(3);
    assert!((1..=40).all(|ticket| world.is_acknowledged(ticket)));
    let three = Members::of([1, 2, 3].map(node));
    assert_eq!(*world.nodes[&node(3)].replica().members(), three);
    world.check_end();
}

#[test]
fn a_founder_whose_checkpoint_knows_of_no_other_member_asks_the_others_after_a_crash() {
    // Given one node that grew to three, which its checkpoint knows nothing of,
    let mut world = World::of(3, 8);
    world.put(node(1), 1);
    world.settle();
    // and entries of its own that the others never got,
    world.isolate(node(1));
    world.put(node(1), 2);
    world.settle();
    // when it crashes and starts again, while the others go on,
    world.crash(node(1), CrashMode::LoseAll);
    let new = world.elect_of(&[node(2), node(3)]);
    world.put(new, 3);
    world.run(30);
    // then what the log says of the members keeps it from leading alone.
    assert!(!world.nodes[&node(1)].admits());
    assert!(world.is_acknowledged(3) && !world.is_acknowledged(2));
    world.cut.clear();
    world.elect();
    world.run(10);
    world.check_end();
}

#[test]
fn a_change_of_members_with_entries_behind_it_is_committed_by_the_next_leader() {
    // Given a leader of two whose change to three reached no other node, and entries behind it,
    let mut world = World::of(2, 9);
    world.add(node(3), options(node(3)));
    world.change_and_wait(node(1), &[MemberChange::Learner(node(3))]);
    world.isolate(node(1));
    world.change(node(1), 5, &[MemberChange::Voter(node(3))]);
    world.put(node(1), 1);
    world.settle();
    // when it crashes, and is heard again,
    world.crash(node(1), CrashMode::LoseAll);
    world.run(30);
    assert!(!world.nodes[&node(1)].admits());
    world.cut.clear();
    world.elect();
    world.run(20);
    // then it leads, having the longest log, and the change is in force.
    let three = Members::of([1, 2, 3].map(node));
    assert_eq!(*world.nodes[&node(2)].replica().members(), three);
    world.check_end();
}

#[test]
fn a_founder_with_a_learner_leads_at_once_after_a_crash() {
    let mut world = World::of_one(9);
    world.add(node(2), options(node(2)));
    world.change_and_wait(node(1), &[MemberChange::Learner(node(2))]);
    for ticket in 1..=5 {
        world.put(node(1), ticket);
    }
    world.settle();
    world.crash(node(1), CrashMode::LoseAll);
    assert!(world.nodes[&node(1)].admits(), "no other vote is needed");
    world.put(node(1), 6);
    world.run(10);
    assert!((1..=6).all(|ticket| world.is_acknowledged(ticket)));
    world.check_end();
}

#[test]
fn a_learner_becomes_a_voter_whose_vote_counts() {
    let mut world = World::of_one(11);
    world.add(node(2), options(node(2)));
    world.change_and_wait(node(1), &[MemberChange::Learner(node(2))]);
    world.put(node(1), 1);
    world.run(3);
    world.change_and_wait(node(1), &[MemberChange::Voter(node(2))]);
    // Two voters: neither is a majority alone.
    world.isolate(node(1));
    world.put(node(1), 2);
    world.run(3);
    assert!(!world.is_acknowledged(2));
    world.cut.clear();
    let leader = world.elect();
    world.put(leader, 3);
    world.run(10);
    assert!(world.is_acknowledged(3));
    world.check_end();
}

#[test]
fn a_removed_node_is_not_needed_and_disturbs_nobody() {
    let mut world = World::of(3, 12);
    world.change_and_wait(node(1), &[MemberChange::Remove(node(3))]);
    world.put(node(1), 1);
    world.run(40);
    assert!(world.is_acknowledged(1));
    assert!(world.nodes[&node(1)].admits(), "it leads on");
    assert!(!world.nodes[&node(3)].admits());
    // Two are left, and both are needed.
    world.isolate(node(2));
    world.put(node(1), 2);
    world.settle();
    assert!(!world.is_acknowledged(2));
    world.cut.clear();
    let leader = world.elect();
    world.put(leader, 3);
    world.run(10);
    world.check_end();
}

#[test]
fn a_leader_that_removes_itself_answers_and_another_one_leads() {
    let mut world = World::of(3, 13);
    world.put(node(1), 1);
    world.settle();
    world.change(node(1), 5, &[MemberChange::Remove(node(1))]);
    world.settle();
    assert_eq!(world.changed[&5], Ok(Members::of([2, 3].map(node))));
    assert!(!world.nodes[&node(1)].admits());
    let leader = world.elect_of(&[node(2), node(3)]);
    world.put(leader, 2);
    world.run(10);
    assert!(world.is_acknowledged(2));
    world.check_end();
}

#[test]
fn a_change_of_members_is_refused_while_another_one_goes_on_or_the_leader_is_lost() {
    let mut world = World::of(3, 14);
    world.isolate(node(1));
    world.change(node(1), 1, &[MemberChange::Learner(node(4))]);
    world.change(node(1), 2, &[MemberChange::Learner(node(5))]);
    world.gather();
    assert_eq!(world.changed[&2], Err(MembersError::UnderWay));
    world.run(40);
    assert_eq!(world.changed[&1], Err(MembersError::NotLeader));
    world.change(node(2), 3, &[MemberChange::Remove(node(9))]);
    world.cut.clear();
    let leader = world.elect();
    world.change(leader, 4, &[MemberChange::Remove(node(9))]);
    world.gather();
    assert_eq!(world.changed[&4], Err(MembersError::NoMember(node(9))));
    world.run(20);
    world.check_end();
}

#[test]
fn leadership_is_handed_on_with_everything_acknowledged() {
    let mut world = World::of(3, 15);
    world.put(node(1), 1);
    world.settle();
    let transfer = |world: &mut World, ticket, to| {
        let event = Event::Transfer(ticket, node(to));
        world.get(node(1)).handle(event);
    };
    transfer(&mut world, 1, 3);
    world.run(3);
    assert_eq!(world.leader(), Some(node(3)));
    assert_eq!(world.transferred[&1], Ok(()));
    world.put(node(3), 2);
    world.run(3);
    assert!(world.is_acknowledged(2));
    // One that leads no longer cannot, and says so.
    transfer(&mut world, 2, 2);
    world.gather();
    let not_leader = TransferError::Members(MembersError::NotLeader);
    assert_eq!(world.transferred[&2], Err(not_leader));
    world.check_end();
}

#[test]
fn leadership_that_is_not_taken_is_kept_and_what_waited_is_decided() {
    let mut world = World::of(3, 16);
    world.isolate(node(3));
    let event = Event::Transfer(1, node(3));
    world.get(node(1)).handle(event);
    assert!(!world.nodes[&node(1)].replica().may_take(), "requests wait");
    world.run(15);
    assert_eq!(world.transferred[&1], Err(TransferError::NotTaken(node(3))));
    world.put(node(1), 1);
    world.settle();
    assert!(world.is_acknowledged(1));
    world.cut.clear();
    world.run(20);
    world.check_end();
}

#[test]
fn the_only_voter_that_is_left_leads_when_all_that_it_has_is_durable() {
    let (mut world, has_led) = only_voter::becomes_the_only_voter();
    let members = world.nodes[&node(2)].replica().members().clone();
    assert_eq!(members.voters, [node(2)].into());
    assert!(!has_led);
    only_voter::flush(&mut world, 2);
    world.run(only_voter::LONG);
    assert!(world.nodes[&node(2)].admits());
}
