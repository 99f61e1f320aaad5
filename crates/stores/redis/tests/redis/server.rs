//! Settings of the server, a full memory, TLS.

use std::sync::Arc;

use onelog_redis::{RedisStore, RedisTarget};
use onelog_store::conformance::{self, LOG, Model, SINK};
use onelog_store::{Address, ServerAddress, Store, StoreError};
use onelog_testkit::{Certificates, Kind, Redis, Server, require};

use crate::harness::{OneServer, SERVER};

#[test]
fn a_database_that_is_not_there_is_a_fault_of_the_address() {
    require!(Kind::Redis);
    let harness = OneServer::new();
    let url = SERVER.url();
    let target = RedisTarget {
        server: ServerAddress::from(
            format!("{}/99999", url.trim_end_matches("/0").trim_end_matches('/')).as_str(),
        ),
        partitions: None,
    };
    let plan = conformance::standard_plan(&harness);
    let error = RedisStore::open(&target, SINK, LOG, plan).unwrap_err();
    assert!(
        matches!(error, StoreError::NoSuchPlace { field: "url", .. }),
        "{error}"
    );
}

#[test]
fn the_rights_that_the_page_lists_suffice() {
    require!(Kind::Redis);
    let page = include_str!("../../../../../docs/sinks/redis.md");
    let line = conformance::line_of(page, "ACL SETUSER onelog");
    let server = Redis::start();
    let command: Vec<&str> = line.split_whitespace().collect();
    server.command(&command);
    let url = server.url().replace("://", "://onelog:secret@");
    let harness = OneServer::new();
    let plan = conformance::standard_plan(&harness);
    for partitions in [None, Some(4)] {
        let target = RedisTarget {
            server: ServerAddress::from(url.as_str()),
            partitions,
        };
        let mut store = RedisStore::open(&target, SINK, LOG, Arc::clone(&plan)).unwrap();
        conformance::the_rights_suffice(&plan, &mut store);
    }
    server.stop();
}

#[test]
fn servers_that_would_lose_rows_are_refused_with_a_message() {
    require!(Kind::Redis);
    let harness = OneServer::new();
    let plan = conformance::standard_plan(&harness);
    let open = |url: &str| {
        let target = RedisTarget {
            server: ServerAddress::from(url),
            partitions: None,
        };
        RedisStore::open(&target, SINK, LOG, Arc::clone(&plan)).unwrap_err()
    };
    let server = Redis::start_with(&["maxmemory=50mb", "maxmemory-policy=allkeys-lru"]);
    let error = open(&server.url()).to_string();
    assert!(error.contains("noeviction"), "{error}");
    server.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    let port = SERVER.port().to_string();
    server.command(&["REPLICAOF", "127.0.0.1", &port]);
    let error = open(&server.url());
    assert_eq!(error.code().as_str(), "not_writable", "{error}");
    assert!(error.to_string().contains("replica"), "{error}");
    server.command(&["REPLICAOF", "NO", "ONE"]);
    server.command(&["CONFIG", "SET", "requirepass", "right"]);
    // A user without a right.
    server.command(&[
        "-a",
        "right",
        "--no-auth-warning",
        "ACL",
        "SETUSER",
        "u",
        "on",
        ">pw",
        "~*",
        "+@all",
        "-exec",
    ]);
    let url = server.url().replace("://", "://u:pw@");
    let target = RedisTarget {
        server: ServerAddress::from(url.as_str()),
        ..harness.target.clone()
    };
    let mut store = RedisStore::open(&target, SINK, LOG, Arc::clone(&plan)).unwrap();
    store.take_over().unwrap();
    let error = store.begin_rebuild().unwrap_err();
    assert!(
        !error.is_retryable() && error.to_string().contains("lacks a right"),
        "{error}"
    );
    server.stop();
    let error = open(&server.url());
    assert!(error.is_retryable(), "{error}");
}

#[test]
fn a_wrong_password_a_missing_one_and_a_missing_database_are_distinguished() {
    require!(Kind::Redis);
    let plan = conformance::standard_plan(&OneServer::new());
    let server = Redis::start();
    let open = |url: &str| {
        let target = RedisTarget {
            server: ServerAddress::from(url),
            partitions: None,
        };
        RedisStore::open(&target, SINK, LOG, Arc::clone(&plan)).unwrap_err()
    };
    let login = |password: &str| open(&server.url().replace("://", &format!("://{password}")));
    let number = open(&format!("{}/99999", server.url())).to_string();
    assert!(
        number.contains("There is no database of this number"),
        "{number}"
    );
    let needless = login(":wr0ng@").to_string();
    assert!(
        needless.contains("or the server has no password at all"),
        "{needless}"
    );
    server.command(&["CONFIG", "SET", "requirepass", "right"]);
    for (password, expected) in [
        ("", "wants a password and the address has none"),
        (":wr0ng@", "The password is wrong"),
        ("user:wr0ng@", "The password is wrong"),
    ] {
        let error = login(password);
        let said = error.to_string();
        assert!(matches!(error, StoreError::NoAccess { .. }), "{said}");
        assert!(!said.contains("wr0ng"), "{said}");
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("lacks a right"), "{said}");
    }
}

#[test]
fn a_full_memory_changes_nothing_and_is_waited_for() {
    require!(Kind::Redis);
    let server = Redis::start();
    let harness = OneServer::new();
    let target = RedisTarget {
        server: ServerAddress::from(server.url().as_str()),
        ..harness.target.clone()
    };
    let plan = conformance::standard_plan(&harness);
    let mut store = RedisStore::open(&target, SINK, LOG, Arc::clone(&plan)).unwrap();
    store.take_over().unwrap();
    let mut model = Model::default();
    model.order("a", 1, "one");
    model.rebuild(&plan, &mut store).unwrap();
    let from = model.position();
    model.order("a", 2, &"long ".repeat(10_000));
    let batch = model.batch(&plan, from);
    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let error = store.apply(&batch).unwrap_err();
    assert!(
        error.is_retryable() && error.to_string().contains("'maxmemory'"),
        "{error}"
    );
    assert_eq!(error.code().as_str(), "not_writable", "{error}");
    assert_eq!(store.position().unwrap().unwrap().position, from);
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    store.apply(&batch).unwrap();
    assert!(model.verify(&plan, &mut store).equal);
}

#[test]
fn the_server_is_only_talked_to_when_its_certificate_is_trusted() {
    require!(Kind::Redis);
    let certificates = Certificates::shared();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let option = |name: &str, path: &std::path::Path| format!("{name}={}", path.display());
    let _server = Redis::start_with(&[
        &format!("tls-port={port}"),
        &option("tls-cert-file", &certificates.certificate),
        &option("tls-key-file", &certificates.key),
        &option("tls-ca-cert-file", &certificates.root),
        "tls-auth-clients=no",
    ]);
    let harness = OneServer::new();
    let plan = conformance::standard_plan(&harness);
    let open = |host: &str, ca_file: Option<&std::path::Path>| {
        let target = RedisTarget {
            server: ServerAddress {
                url: Address::from(format!("rediss://{host}:{port}").as_str()),
                ca_file: ca_file.map(std::path::Path::to_owned),
            },
            partitions: None,
        };
        RedisStore::open(&target, SINK, LOG, Arc::clone(&plan))
    };
    let mut store = open("localhost", Some(&certificates.root)).unwrap();
    store.take_over().unwrap();
    let mut model = Model::default();
    for n in 0..2000 {
        model.order(&format!("k{n}"), n, "a note that fills a packet");
    }
    model.rebuild(&plan, &mut store).unwrap();
    assert!(model.verify(&plan, &mut store).equal);
    let error = open("localhost", None).unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    let missing = open("localhost", Some(std::path::Path::new("/nowhere.pem")));
    let error = missing.unwrap_err();
    assert!(
        !error.is_retryable() && error.to_string().contains("/nowhere.pem"),
        "{error}"
    );
}
