//! Every database server: it starts, answers, survives a kill with its data and goes back to an
//! older copy of it.

mod promises;

use onelog_testkit::{Kind, Mariadb, Postgres, Redis, RedisCluster, require};

#[test]
fn postgres_keeps_its_promises() {
    require!(Kind::Postgres);
    let server = Postgres::start();
    server.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0)");
    promises::kept(
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
    promises::kept(
        &server,
        &|n| _ = server.sql(&format!("UPDATE t SET n = {n}")),
        &|| server.sql("SELECT n FROM t"),
    );
}

#[test]
fn redis_keeps_its_promises() {
    require!(Kind::Redis);
    let server = Redis::start();
    promises::kept(
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
    promises::kept(
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
