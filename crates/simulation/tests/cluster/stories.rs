//! Stories of a cluster, each with the faults that it needs and no other.

use onelog_engine::PeerProgress;
use onelog_log::CrashMode;
use onelog_record::{Index, Refusal, TxnId};
use onelog_replica::{Event, ReplicaOptions, StartError};
use onelog_simulation::cluster::{Node, TABLE, World, node, options};

use crate::deposed;

#[test]
fn nothing_is_acknowledged_before_a_majority_has_it_on_disk() {
    let mut world = World::of(3, 2);
    world.put(node(1), 1);
    // Given a leader that has it on disk, and followers that received it,
    while world.get(node(1)).run_flush(0) || world.get(node(1)).report(0) {}
    world.gather();
    for message in std::mem::take(&mut world.mail) {
        world.deliver(message);
    }
    world.gather();
    assert!(!world.is_acknowledged(1));
    // when one of them has it on disk too, it is acknowledged.
    world.get(node(2)).run_all_jobs();
    world.gather();
    for message in std::mem::take(&mut world.mail) {
        world.deliver(message);
    }
    world.gather();
    assert!(world.is_acknowledged(1));
}

#[test]
fn requests_to_a_follower_are_refused_at_once_and_so_are_reads() {
    let mut world = World::of(3, 3);
    world.put(node(2), 1);
    world.read(node(2), 2);
    world.gather();
    assert_eq!(world.refused[&1], Refusal::NotLeader);
    assert_eq!(world.refused[&2], Refusal::NotLeader);
}

#[test]
fn the_leader_is_lost_and_the_others_go_on_with_everything_acknowledged() {
    let mut world = World::of(3, 4);
    for ticket in 1..=10 {
        world.put(node(1), ticket);
    }
    world.settle();
    // Given writes that reached nobody,
    world.isolate(node(1));
    for ticket in 11..=15 {
        world.put(node(1), ticket);
    }
    world.read(node(1), 16);
    world.settle();
    // when the others elect another leader, and the old one notices,
    let new = world.elect_of(&[node(2), node(3)]);
    world.put(new, 20);
    world.run(30);
    // then its clients hear that it does not lead,
    for ticket in 11..=16 {
        assert_eq!(world.refused[&ticket], Refusal::NotLeader);
    }
    assert!(world.is_acknowledged(20));
    // and what only it had is gone when it is back.
    world.cut.clear();
    world.run(30);
    assert!(
        world.reached().often("a tail was cut") > 0,
        "its tail was cut"
    );
    world.check_end();
}

#[test]
fn a_cut_waits_for_the_flushes_of_what_it_cuts() {
    // Given a leader that is not heard any more, whose own writes are still being flushed,
    let mut world = World::of(3, 5);
    world.cut = [(node(1), node(2)), (node(1), node(3))].into();
    for ticket in 1..=3 {
        world.put(node(1), ticket);
    }
    // when the entries of the next leader come before that has ended,
    for _ in 0..100 {
        for id in [node(2), node(3)] {
            world.get(id).tick();
            world.get(id).run_all_jobs();
        }
        world.gather();
        for message in std::mem::take(&mut world.mail) {
            world.deliver(message);
        }
        if world.nodes[&node(1)].replica().waits_for_jobs() {
            break;
        }
    }
    assert!(world.nodes[&node(1)].replica().waits_for_jobs());
    // then it confirms nothing until it has, and has the leader's entries at the end.
    world.get(node(1)).run_flush(1);
    world.get(node(1)).report(0);
    assert!(world.get(node(1)).sent.is_empty());
    assert!(world.nodes[&node(1)].replica().waits_for_jobs());
    world.cut.clear();
    world.run(20);
    assert_eq!(world.reached().often("a flush ended while a cut waited"), 3);
    for ticket in 1..=3 {
        assert_eq!(world.refused[&ticket], Refusal::NotLeader);
    }
    world.check_end();
}

#[test]
fn entries_that_are_not_known_to_be_committed_are_kept_by_a_start_and_not_applied() {
    // Given a leader that is cut off, with entries of its own on disk,
    let mut world = World::of(3, 6);
    for ticket in 1..=3 {
        world.put(node(1), ticket);
    }
    world.run(3);
    let applied = world.nodes[&node(1)].replica().applied();
    world.isolate(node(1));
    for ticket in 11..=15 {
        world.put(node(1), ticket);
    }
    world.settle();
    // when it crashes and starts again, alone,
    world.crash(node(1), CrashMode::LoseAll);
    world.run(30);
    // then it has applied none of them, and does not lead;
    let replica = world.nodes[&node(1)].replica();
    assert!(replica.applied().index <= applied.index);
    assert!(replica.durable() > applied.index, "they are on its disk");
    assert!(!replica.admits());
    // and the others, who never saw them, win.
    let new = world.elect_of(&[node(2), node(3)]);
    world.put(new, 20);
    world.cut.clear();
    world.run(30);
    assert!((11..=15).all(|ticket| !world.is_acknowledged(ticket)));
    world.check_end();
}

#[test]
fn all_nodes_crash_at_once_and_go_on() {
    let mut world = World::of(3, 7);
    for ticket in 1..=10 {
        world.put(node(1), ticket);
    }
    world.settle();
    for id in 1..=3 {
        world.crash(node(id), CrashMode::LoseAll);
    }
    let leader = world.elect();
    world.put(leader, 11);
    world.run(5);
    assert!((1..=11).all(|ticket| world.is_acknowledged(ticket)));
    world.check_end();
}

#[test]
fn a_follower_that_was_away_is_sent_what_is_only_on_disk() {
    let mut world = World::of(3, 10);
    world.isolate(node(3));
    for ticket in 1..=50 {
        world.put(node(1), ticket);
        world.settle();
    }
    // A leader that was started again has nothing of it in memory.
    world.crash(node(1), CrashMode::LoseAll);
    world.crash(node(2), CrashMode::LoseAll);
    world.elect_of(&[node(1), node(2)]);
    world.cut.clear();
    world.run(30);
    assert!(
        world
            .reached()
            .often("entries were read from the log for a follower")
            > 0
    );
    world.check_end();
}

#[test]
fn a_follower_whose_checkpoint_hangs_stores_and_confirms_what_it_applies_later() {
    // Given a follower that lacks more than its memtables may hold,
    let mut world = World::of(3, 61);
    world.isolate(node(3));
    for ticket in 1..=28 {
        world.put_value(node(1), ticket, TxnId(u128::from(ticket)), 16 << 10);
        world.settle();
    }
    let last = world.nodes[&node(1)].replica().durable();
    world.cut.clear();
    // when it is sent all of it while its checkpoint hangs,
    for _ in 0..100 {
        for id in 1..=3 {
            world.get(node(id)).tick();
        }
        for id in 1..=2 {
            world.get(node(id)).run_all_jobs();
        }
        let follower = world.get(node(3));
        follower.run_fetch();
        while follower.run_flush(0) || follower.report(0) {}
        world.gather();
        for message in std::mem::take(&mut world.mail) {
            world.deliver(message);
        }
    }
    // then it has stored it, and the leader knows,
    let leader = world.leader().unwrap();
    assert!(world.nodes[&node(3)].replica().durable() >= last);
    let peers = world.nodes[&leader].replica().peers();
    assert!(
        peers
            .iter()
            .any(|peer| peer.node == node(3) && peer.matched >= last)
    );
    let applied = world.nodes[&node(3)].replica().applied().index;
    assert!(applied < last, "{applied} of {last}");
    // and after a crash it knows that it is committed,
    world.crash(node(3), CrashMode::LoseAll);
    // and applies it in the end.
    world.run(10);
    assert!(world.nodes[&node(3)].replica().applied().index >= last);
    world.check_end();
}

#[test]
fn a_read_of_a_deposed_leader_is_not_answered_and_the_new_one_has_what_was_acknowledged() {
    // Given a leader that does not know that the others have another one,
    let mut world = World::of(3, 17);
    world.isolate(node(1));
    for _ in 0..40 {
        for id in [node(2), node(3)] {
            world.get(id).tick();
        }
        world.settle();
    }
    assert!(world.nodes[&node(1)].admits(), "it heard of nothing");
    let new = [node(2), node(3)]
        .into_iter()
        .find(|id| world.nodes[id].admits());
    let new = new.expect("one leads");
    world.put(new, 1);
    world.settle();
    assert!(world.is_acknowledged(1));
    // when each is asked for a read, then only the new one answers.
    world.read(node(1), 100);
    world.read(new, 101);
    world.settle();
    assert!(!world.is_readable(100) && world.is_readable(101));
    world.cut.clear();
    world.run(20);
    assert_eq!(world.refused[&100], Refusal::NotLeader);
    world.check_end();
}

#[test]
fn a_deposed_leader_neither_validates_nor_refuses_what_it_cannot_know() {
    let (mut world, said) = deposed::requests_to_a_deposed_leader();
    // It says nothing, until it hears that it leads no more.
    assert!(said.is_empty(), "{said:?}");
    world.cut.clear();
    world.run(20);
    for ticket in deposed::TICKETS {
        assert_eq!(world.refused[&ticket], Refusal::NotLeader);
    }
    world.check_end();
}

#[test]
fn a_definition_that_races_with_a_change_of_leaders_is_there_once_or_not_at_all() {
    // Given a leader that defines a table, holds a write behind it, and is cut off,
    let mut world = World::of(3, 18);
    world.isolate(node(1));
    world.define(node(1), "u", 1);
    world.put(node(1), 2);
    world.settle();
    // when the new leader defines another one, which gets the same number,
    let new = world.elect_of(&[node(2), node(3)]);
    world.define(new, "v", 3);
    world.settle();
    world.put(new, 4);
    world.settle();
    assert!(world.is_acknowledged(3) && world.is_acknowledged(4));
    // then the old one has that one, and not its own.
    world.cut.clear();
    world.run(30);
    assert_eq!(world.refused[&1], Refusal::NotLeader);
    assert_eq!(world.refused[&2], Refusal::NotLeader);
    assert_eq!(world.table(node(1), "u"), None);
    assert_eq!(world.table(node(1), "v"), world.table(new, "v"));
    assert!(world.table(node(1), TABLE).is_some());
    world.check_end();
}

#[test]
fn a_retry_through_another_leader_is_answered_with_the_first_place() {
    // Given a write that is committed, and whose answer nobody heard,
    let mut world = World::of(3, 19);
    let id = TxnId(77);
    world.put_as(node(1), 1, id);
    world.settle();
    world.isolate(node(1));
    let new = world.elect_of(&[node(2), node(3)]);
    // when the client sends it again, to another leader, under the same id,
    world.put_as(new, 2, id);
    world.put_as(new, 3, id);
    world.settle();
    // then it is answered with its one place; and a write that was lost is made.
    assert!(world.is_acknowledged(2) && world.is_acknowledged(3));
    world.put_as(node(1), 4, TxnId(78));
    world.put_as(new, 5, TxnId(78));
    world.settle();
    assert!(world.is_acknowledged(5));
    world.cut.clear();
    world.run(30);
    world.check_end();
}

#[test]
fn timestamps_never_fall_when_a_node_whose_clock_is_behind_leads() {
    let mut world = World::of(3, 20);
    for id in [2, 3] {
        world.get(node(id)).now.unix_ms -= 1_000_000;
    }
    world.put(node(1), 1);
    world.settle();
    world.isolate(node(1));
    let new = world.elect_of(&[node(2), node(3)]);
    world.put(new, 2);
    world.settle();
    world.crash(new, CrashMode::LoseAll);
    world.cut.clear();
    world.run(30);
    let leader = world.elect();
    world.put(leader, 3);
    world.run(20);
    assert!((1..=3).all(|ticket| world.is_acknowledged(ticket)));
    world.check_end();
}

#[test]
fn a_node_never_starts_in_the_folder_of_another_node_or_log() {
    let mut world = World::of(2, 21);
    world.run(3);
    for (change, expected) in [
        (3, "the folder belongs to node 2, and this is to be node 3"),
        (2, "the folder holds the log"),
    ] {
        let there = world.get(node(2));
        there.end();
        let mut other = Node::new(node(change), 1, options(node(change)));
        (other.log, other.state) = (there.log.clone(), there.state.clone());
        if change == 2 {
            other.options.new_log_id = 9;
        }
        let error = other.start().unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[test]
fn a_log_that_ends_before_what_was_committed_does_not_start() {
    // Given a follower that has saved how far the log is committed,
    let mut world = World::of(3, 22);
    for ticket in 1..=5 {
        world.put(node(1), ticket);
    }
    world.run(3);
    let old = world.get(node(2)).log.files();
    for ticket in 6..=30 {
        world.put(node(1), ticket);
        world.settle();
    }
    world.run(3);
    let follower = world.get(node(2));
    follower.handle(Event::Idle);
    follower.run_all_jobs();
    // when its disk has an older log with that knowledge,
    let hard_state = follower.log.files()["hard-state"].clone();
    follower.end();
    let mut files = old;
    files.insert("hard-state".to_owned(), hard_state);
    follower.log = onelog_log::SimulatedDisk::with_files(1, files);
    // then it refuses to start.
    let error = follower.start().unwrap_err();
    let is_named = matches!(error, StartError::LostTail { .. } | StartError::Log(_));
    assert!(is_named, "{error}");
}

#[test]
fn how_far_the_log_is_committed_is_saved_while_entries_flow() {
    // Given a follower that took much, without a moment of silence or a checkpoint,
    let large = |id| ReplicaOptions {
        memtable_bytes: 64 << 20,
        memtable_bytes_max: 256 << 20,
        ..options(id)
    };
    let mut world = World::of_with(3, 33, large);
    for ticket in 1..=20 {
        world.put_value(node(1), ticket, TxnId(u128::from(ticket)), 1 << 20);
        world.settle();
    }
    world.run(2);
    let end = world.nodes[&node(2)].replica().applied().index;
    // when it crashes and hears of no leader,
    world.isolate(node(2));
    world.crash(node(2), CrashMode::LoseAll);
    // then it knows of nearly all of it that it is committed.
    let replica = world.nodes[&node(2)].replica();
    assert!(replica.applied().index.get() + 6 > end.get());
    assert!(replica.applied().index < end);
    world.cut.clear();
    world.elect();
    world.run(10);
    world.check_end();
}

#[test]
fn entries_are_not_taken_while_the_disk_is_nearly_full_and_come_later() {
    let mut world = World::of(3, 34);
    world.get(node(3)).options.disk_reserve_bytes = 1 << 20;
    world.crash(node(3), CrashMode::LoseAll);
    world.run(5);
    // Given a follower without room,
    world.get(node(3)).handle(Event::FreeSpace(0));
    let before = world.nodes[&node(3)].replica().durable();
    for ticket in 1..=3 {
        world.put_value(node(1), ticket, TxnId(u128::from(ticket)), 32 << 10);
        world.settle();
    }
    world.run(10);
    // then the others go on, and it takes nothing that is large;
    assert!((1..=3).all(|ticket| world.is_acknowledged(ticket)));
    assert_eq!(world.nodes[&node(3)].replica().durable(), before);
    // when there is room again, it gets what it lacks.
    world.get(node(3)).handle(Event::FreeSpace(1 << 30));
    world.run(30);
    assert!(world.nodes[&node(3)].replica().durable() > before);
    world.check_end();
}

fn with_a_reserve(id: onelog_record::NodeId) -> ReplicaOptions {
    ReplicaOptions {
        // A new leader's first entry finds a place also where no other file can be made.
        segment_bytes: 1 << 20,
        disk_reserve_bytes: 1 << 20,
        ..options(id)
    }
}

#[test]
fn a_leader_without_room_hands_the_leadership_to_a_node_that_has_some() {
    // Given a leader without room, and a follower that has none either,
    let mut world = World::of_with(3, 56, with_a_reserve);
    world.run(3);
    let leader = world.elect();
    let others: Vec<_> = world
        .nodes
        .keys()
        .copied()
        .filter(|id| *id != leader)
        .collect();
    for full in [leader, others[0]] {
        world.get(full).handle(Event::FreeSpace(0));
    }
    // then the one that has room leads, and what is written is taken;
    world.run(60);
    assert_eq!(world.leader(), Some(others[1]));
    world.get(leader).handle(Event::FreeSpace(1 << 30));
    world.run(10);
    world.put(others[1], 1);
    world.run(10);
    assert!(world.is_acknowledged(1));
    // where none has room, the one that leads leads on.
    for id in world.nodes.keys().copied().collect::<Vec<_>>() {
        world.get(id).handle(Event::FreeSpace(0));
    }
    world.run(100);
    assert_eq!(world.leader(), Some(others[1]));
    for id in world.nodes.keys().copied().collect::<Vec<_>>() {
        world.get(id).handle(Event::FreeSpace(1 << 30));
    }
    world.run(30);
    world.check_end();
}

#[test]
fn elections_come_as_soon_as_it_is_chosen() {
    let slow = |id| ReplicaOptions {
        election_ms: 3_000,
        ..options(id)
    };
    let mut world = World::of_with(3, 54, slow);
    // Ticks without a leader lead to an election; how long one takes is chosen.
    assert_eq!(world.nodes[&node(1)].replica().tick_interval_ms(), 300);
    world.isolate(node(1));
    let before = world.nodes[&node(2)].now.monotonic_ms;
    world.elect_of(&[node(2), node(3)]);
    let passed = world.nodes[&node(2)].now.monotonic_ms - before;
    assert!((3_000..=9_000).contains(&passed), "{passed} ms");
}

#[test]
fn a_node_that_answers_counts_as_heard_of_at_every_moment() {
    // Given a leader of three connected nodes,
    let mut world = World::of(3, 37);
    world.run(20);
    // when it counts its majority again and again, then each of the others is heard of all the while.
    for tick in 0..50 {
        world.run(1);
        let leader = world.nodes[&node(1)].replica().observer();
        assert!(leader.role.leads, "tick {tick}");
        let active = leader.peers.iter().filter(|peer| peer.is_active).count();
        assert_eq!(active, 2, "tick {tick}: {:?}", leader.peers);
    }
}

#[test]
fn who_leads_and_how_far_the_others_are_is_made_known() {
    let mut world = World::of(3, 36);
    world.run(1);
    world.isolate(node(3));
    world.put(node(1), 1);
    world.run(12);
    let end = world.nodes[&node(1)].replica().durable();
    let peer = |number, matched, is_active| PeerProgress {
        node: node(number),
        matched,
        is_active,
        takes_snapshot: false,
    };
    let before = Index(end.get() - 1);
    let leader = world.nodes[&node(1)].replica().observer();
    let known = [peer(2, end, true), peer(3, before, false)];
    assert_eq!(leader.peers, known);
    assert!(leader.role.admits && leader.role.leader == Some(node(1)));
    let follower = world.nodes[&node(2)].replica().observer();
    assert!(!follower.role.leads && follower.role.leader == Some(node(1)));
    assert!(follower.members == leader.members && follower.peers.is_empty());
}
