//! Every database server: it starts, answers, survives a kill with its data and goes back to an
//! older copy of it.
#![allow(clippy::expect_used)]

mod promises;

use std::process::Command;

use onelog_testkit::{Certificates, Kind, Mariadb, Postgres, Redis, RedisCluster, Server, require};

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

#[test]
fn postgres_and_mariadb_speak_tls_with_the_kits_certificates() {
    require!(Kind::Postgres, Kind::Mariadb);
    let made = Certificates::shared();
    let answer = |command: &mut Command| {
        let output = command.output().expect("the client can be run");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };

    let postgres = Postgres::start_with(&["ssl=on"]);
    let url = format!(
        "{}?sslmode=verify-full&sslrootcert={}",
        postgres.url(),
        made.root.display()
    );
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let shown = answer(Command::new("psql").args(["-X", "-A", "-t", "-d", &url, "-c", sql]));
    assert_eq!(shown, "t\n");

    let mariadb = Mariadb::start_with(&[
        &format!("ssl-cert={}", made.certificate.display()),
        &format!("ssl-key={}", made.key.display()),
    ]);
    let shown = answer(
        Command::new("mariadb")
            .args(["--no-defaults", "--host=127.0.0.1", "--user=onelog"])
            .args(["--password=onelog", "--ssl-verify-server-cert", "--batch"])
            .arg(format!("--port={}", mariadb.port()))
            .arg(format!("--ssl-ca={}", made.root.display()))
            .arg("--execute=SHOW STATUS LIKE 'Ssl_version'"),
    );
    assert!(shown.contains("TLS"), "{shown}");
}
