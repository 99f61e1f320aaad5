//! The faults, each as a story.

use std::path::Path;

use onelog::Position;
use onelog_sinks::SinkState;

use crate::victim::kill_at;
use crate::watcher::Watcher;
use crate::world::{PATIENCE, SINK, World, open, transfer};

/// Before the batch, between rows and commit, behind the commit.
pub fn onelog_is_killed_at_each_place(world: &mut World<'_>) {
    world.close();
    let rig = world.rig;
    std::thread::scope(|scope| {
        let watcher = Watcher::start(scope, rig);
        for place in ["before_apply", "before_commit", "after_commit"] {
            for round in 0..rig.rounds() {
                kill_at(place, &world.log(), round);
            }
            world.reopen();
            world.assert_equal();
            world.close();
        }
        let seen = watcher.stop();
        assert!(
            seen > 0 || rig.connect().is_none(),
            "the watcher read nothing"
        );
    });
    world.reopen();
    println!("killed at each place: ok");
}

/// SIGKILL to the server while batches are under way.
pub fn the_store_is_killed_under_load(world: &mut World<'_>) {
    let rig = world.rig;
    for _ in 0..rig.rounds() {
        std::thread::scope(|scope| {
            let watcher = Watcher::start(scope, rig);
            let load = world.load(scope);
            world.wait_for_progress(50);
            rig.server().kill();
            rig.server().start_again();
            world.wait_for_progress(50);
            load.stop();
            world.assert_equal();
            watcher.stop();
        });
    }
    println!("store killed: ok");
}

/// The commit took place, but no answer arrives.
pub fn the_answer_of_a_commit_is_lost(world: &mut World<'_>) {
    let rig = world.rig;
    for round in 0..rig.rounds() {
        std::thread::scope(|scope| {
            let watcher = Watcher::start(scope, rig);
            let cuts = rig.proxy().cuts();
            rig.proxy().cut_answer_after(rig.commit());
            transfer(world.node(), 7000 + round, 10);
            rig.proxy().wait_for_cuts(cuts + 1);
            world.assert_equal();
            watcher.stop();
        });
    }
    // Requests that are cut anywhere.
    for bytes in (0..rig.rounds() as usize).map(|n| 1 + n * 200) {
        let cuts = rig.proxy().cuts();
        rig.proxy()
            .cut_after_bytes(onelog_testkit::Direction::ToServer, bytes);
        while rig.proxy().cuts() == cuts {
            transfer(world.node(), bytes as u64, 5);
        }
        world.assert_equal();
    }
    println!("lost answers: ok");
}

/// Its processes are frozen, as on an overloaded machine; commits go on meanwhile.
pub fn the_store_hangs_and_comes_back(world: &mut World<'_>) {
    world.rig.server().pause();
    let end = transfer(world.node(), 99, 200);
    assert!(world.sinks().get(SINK).unwrap().position.unwrap() < end);
    world.rig.server().resume();
    world.assert_equal();
    println!("hangs: ok");
}

/// A full disk or a rule of the store: the sink says why, and goes on when it is mended.
pub fn the_store_refuses(world: &mut World<'_>) {
    world.rig.refuse_writes();
    let end = transfer(world.node(), 123, 20);
    // It stops, or keeps trying where the store says that it is a passing state.
    let before = world.sinks().get(SINK).unwrap().position.unwrap();
    loop {
        let status = world.sinks().get(SINK).unwrap();
        if matches!(status.state, SinkState::Stopped | SinkState::Waiting) {
            let message = status.last_error.unwrap().what;
            assert!(!message.is_empty());
            println!("the store refuses: {message}");
            break;
        }
        assert!(
            status.position.unwrap() < end,
            "the store took what it should refuse"
        );
        std::thread::yield_now();
    }
    assert!(before < end);
    world.rig.allow_writes();
    world.sinks().resume(SINK).unwrap();
    world.assert_equal();
}

/// An older copy of the store's data: the sink replays from there and skips nothing.
pub fn the_store_goes_back_in_time(world: &mut World<'_>) {
    let server = world.rig.server();
    server.stop();
    let saved = server.save_data();
    server.start_again();
    transfer(world.node(), 555, 100);
    world.assert_equal();
    server.kill();
    server.restore_data(&saved);
    server.start_again();
    transfer(world.node(), 556, 100);
    world.assert_equal();
    println!("back in time: ok");
}

/// A copy of the log's folder runs as a second process: it takes the sink over, and from then on
/// the first one changes nothing.
pub fn two_processes_feed_one_store(world: &mut World<'_>) {
    world.close();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("log");
    copy_folder(&world.log(), &copy);
    world.reopen();
    // No comparison here: what it finds is a record of the log, which the copy does not have.
    let end = world.node().position();
    world.sinks().wait_blocking(SINK, end, PATIENCE).unwrap();
    let (node, sinks) = open(&copy);
    sinks
        .wait_blocking(SINK, node.position(), PATIENCE)
        .unwrap();
    transfer(world.node(), 77, 10);
    let message = world.wait_until_stopped();
    assert!(
        message.contains("another process took this sink over"),
        "{message}"
    );
    let end: Position = transfer(&node, 78, 30);
    sinks.wait_blocking(SINK, end, PATIENCE).unwrap();
    let found = sinks.verify(SINK).unwrap();
    assert!(found.equal, "{found:#?}");
    sinks.stop();
    node.stop().unwrap();
    // The first one comes back; its log is another from the copy on, so its store is backfilled.
    world.rig.forget_writes();
    world.sinks().rebuild(SINK).unwrap();
    world.sinks().resume(SINK).unwrap();
    let after = transfer(world.node(), 79, 40);
    world.sinks().wait_blocking(SINK, after, PATIENCE).unwrap();
    println!("two processes: ok");
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
