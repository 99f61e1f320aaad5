//! Every kind of server: it starts, answers, survives a kill with its data and goes back to an
//! older copy of it.

use std::fs;
use std::thread;

use onelog_testkit::{Kind, Mariadb, Postgres, Redis, RedisCluster, Server, require};

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

    // and while it is paused it stands still, after which it answers as before.
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

#[test]
fn mariadb_keeps_its_promises() {
    require!(Kind::Mariadb);
    let server = Mariadb::start();
    server.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0)");
    keeps_its_promises(
        &server,
        &|n| _ = server.sql(&format!("UPDATE t SET n = {n}")),
        &|| server.sql("SELECT n FROM t"),
    );
}

#[test]
fn redis_keeps_its_promises() {
    require!(Kind::Redis);
    let server = Redis::start();
    keeps_its_promises(
        &server,
        &|n| _ = server.command(&["SET", "n", &n.to_string()]),
        &|| server.command(&["GET", "n"]),
    );
}

#[test]
fn a_redis_cluster_keeps_its_promises() {
    require!(Kind::Redis);
    let server = RedisCluster::start(3);
    // The key's slot belongs to one node; the others refuse it.
    let slot: usize = server.nodes()[0]
        .command(&["CLUSTER", "KEYSLOT", "n"])
        .parse()
        .unwrap_or(usize::MAX);
    assert!(slot < 16_384);
    let node = &server.nodes()[slot * 3 / 16_384];
    keeps_its_promises(
        &server,
        &|n| _ = node.command(&["SET", "n", &n.to_string()]),
        &|| node.command(&["GET", "n"]),
    );
}

#[test]
fn options_reach_the_servers() {
    require!(Kind::Postgres, Kind::Mariadb, Kind::Redis);
    let postgres = Postgres::start_with(&["fsync=on"]);
    assert_eq!(postgres.sql("SHOW fsync"), "on");
    let mariadb = Mariadb::start_with(&["sql-mode=ANSI_QUOTES"]);
    assert_eq!(mariadb.sql("SELECT @@GLOBAL.sql_mode"), "ANSI_QUOTES");
    let redis = Redis::start_with(&["maxmemory-policy=allkeys-lru"]);
    assert!(
        redis
            .command(&["INFO"])
            .contains("maxmemory_policy:allkeys-lru")
    );
}
