//! What every server of the kit promises.

use std::fs;
use std::thread;

use onelog_testkit::Server;

/// What all servers promise; `put` stores a number under a key that `get` reads.
pub fn kept(server: &dyn Server, put: &dyn Fn(u32), get: &(dyn Fn() -> String + Sync)) {
    // Given a server with a value in it,
    let port = server.port();
    put(1);
    assert_eq!(get(), "1");

    // when it is killed and comes back, then the value and the port are the same,
    let first = server.pid();
    server.kill();
    server.kill();
    server.start_again();
    assert_ne!(server.pid(), first);
    assert_eq!(server.port(), port);
    assert_eq!(get(), "1");

    // and a copy of its data can be had once it is stopped,
    server.stop();
    let saved = server.save_data();
    server.start_again();
    put(2);
    assert_eq!(get(), "2");

    // to which it goes back, as often as one likes,
    for _ in 0..2 {
        server.kill();
        server.restore_data(&saved);
        server.start_again();
        assert_eq!(get(), "1");
        put(3);
    }

    // and while it is paused it does nothing, after which it answers as before.
    server.pause();
    assert_eq!(state(server.pid()), "T");
    thread::scope(|scope| {
        let question = scope.spawn(get);
        server.resume();
        let answer = question.join();
        assert_eq!(answer.ok().as_deref(), Some("3"));
    });
}

/// The state's letter in `/proc`: T is stopped.
fn state(process: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.trim_start().chars().take(1).collect()
}
