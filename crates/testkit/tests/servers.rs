//! Every kind of server: it starts, answers, survives a kill with its data and goes back to an
//! older copy of it.

use std::thread;

use onelog_testkit::{Kind, Postgres, Server, require};

/// What all servers promise; `put` stores a number under a key that `get` reads.
fn keeps_its_promises(server: &dyn Server, put: &dyn Fn(u32), get: &(dyn Fn() -> String + Sync)) {
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

    // and while it is paused nobody gets an answer.
    server.pause();
    thread::scope(|scope| {
        let question = scope.spawn(get);
        assert!(!question.is_finished());
        server.resume();
        assert_eq!(question.join().expect("the question is answered"), "3");
    });
}

#[test]
fn postgres_keeps_its_promises() {
    require!(Kind::Postgres);
    let server = Postgres::start();
    server.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0)");
    keeps_its_promises(
        &server,
        &|n| _ = server.sql(&format!("UPDATE t SET n = {n}")),
        &|| server.sql("SELECT n FROM t"),
    );
}
