//! The two failures of dual writes that "Using logs to build a solid data infrastructure" describes
//! (Kleppmann, 2015), on real stores that follow one log: they cannot happen.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use onelog::{NewTable, Node, Options};
use onelog_sinks::Sinks;
use onelog_store::SinkDefinition;
use onelog_stores::KINDS;
use onelog_testkit::{Kind, Mariadb, OpenSearch, Postgres, Redis, Server, require};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);

fn open(folder: &tempfile::TempDir, tables: &[&str]) -> (Node, Sinks) {
    let node = Node::open(Options::new(folder.path().join("log"))).unwrap();
    for table in tables {
        node.create_table_blocking(NewTable::keyed(*table)).unwrap();
    }
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    (node, sinks)
}

fn follow(sinks: &Sinks, name: &str, kind: &str, url: &str, mapping: &Value) {
    let definition = json!({"name": name, "kind": kind, "url": url, "mappings": [mapping]});
    sinks
        .create(SinkDefinition::from_json(KINDS, &definition).unwrap())
        .unwrap();
}

/// Two clients set X, one to A, one to B, at the same time and again and again. Written by each
/// client to each store they would reach the stores in different orders.
#[test]
fn two_clients_that_race_leave_all_stores_equal() {
    require!(Kind::Postgres, Kind::Mariadb, Kind::Redis, Kind::OpenSearch);
    let (postgres, mariadb) = (Postgres::start(), Mariadb::start());
    let (redis, search) = (Redis::start(), OpenSearch::start());
    let folder = tempfile::tempdir().unwrap();
    let (node, sinks) = open(&folder, &["t.values"]);
    let columns =
        json!({"id": {"from": "$key", "type": "text"}, "value": {"from": "value", "type": "text"}});
    let row = json!({"table": "t.values", "into": "x", "columns": columns});
    let document = json!({"table": "t.values", "into": "x"});
    follow(&sinks, "postgres", "postgres", &postgres.url(), &row);
    follow(&sinks, "mariadb", "mysql", &mariadb.url(), &row);
    follow(&sinks, "redis", "redis", &redis.url(), &document);
    follow(&sinks, "search", "elasticsearch", &search.url(), &document);

    std::thread::scope(|scope| {
        for client in ["A", "B"] {
            let node = node.clone();
            scope.spawn(move || {
                for n in 0..300 {
                    let value = json!({"value": format!("{client}{n}")});
                    node.transact(|tx| tx.put_json("t.values", "X", &value))
                        .unwrap();
                }
            });
        }
    });

    let end = node.position();
    for sink in ["postgres", "mariadb", "redis", "search"] {
        sinks.wait_blocking(sink, end, PATIENCE).unwrap();
        let found = sinks.verify(sink).unwrap();
        assert!(
            found.equal && found.tables[0].rows == 1,
            "{sink}: {found:#?}"
        );
    }
    // Seen by each store's own client.
    let table = node.catalog().by_name("t.values").unwrap().id;
    let last = node.snapshot().get(table, b"X").unwrap().unwrap().value;
    let last: Value = serde_json::from_slice(&last).unwrap();
    let last = last["value"].as_str().unwrap();
    assert_eq!(
        postgres.sql("SELECT value FROM x WHERE id = 'X'").trim(),
        last
    );
    assert_eq!(
        mariadb.sql("SELECT value FROM x WHERE id = 'X'").trim(),
        last
    );
    assert!(
        redis
            .command(&["GET", "x:X"])
            .contains(&format!("\"{last}\""))
    );
    let (status, answer) = search.request("GET", "/x/_search", "");
    assert!(
        status == 200 && answer.contains(&format!("\"{last}\"")),
        "{answer}"
    );
    sinks.stop();
    node.stop().unwrap();
}

/// A message goes into a database and the counter of unread messages into a cache. Written by the
/// application, a crash between the two leaves the counter wrong for ever.
#[test]
fn an_inbox_and_its_unread_counter_agree_whatever_crashes() {
    require!(Kind::Postgres, Kind::Redis);
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let folder = tempfile::tempdir().unwrap();
    let (node, sinks) = open(&folder, &["mail.messages", "mail.unread"]);
    let messages = json!({"table": "mail.messages", "into": "messages", "columns": {
        "id": {"from": "$key", "type": "text"}, "owner": {"from": "owner", "type": "text"},
        "unread": {"from": "unread", "type": "boolean"}}});
    let unread = json!({"table": "mail.unread", "into": "unread"});
    follow(&sinks, "inbox", "postgres", &postgres.url(), &messages);
    follow(&sinks, "counters", "redis", &redis.url(), &unread);
    let owners = ["ann", "bob", "eve"];
    let count = |by: i64, owner: &str, message: String, unread: bool| {
        node.transact(|tx| {
            let document = json!({"owner": owner, "unread": unread});
            tx.put_json("mail.messages", message.clone(), &document)?;
            let old = tx.get_json("mail.unread", owner)?;
            let old = old.and_then(|old| old.as_i64()).unwrap_or(0);
            tx.put_json("mail.unread", owner, &json!(old + by))
        })
        .unwrap();
    };

    // Messages come and are read while each store dies and comes back.
    for round in 0..12 {
        for n in 0..40 {
            count(1, owners[n % 3], format!("{round}-{n}"), true);
        }
        match round % 4 {
            1 => postgres.kill(),
            2 => redis.kill(),
            _ => {}
        }
        for n in (0..40).step_by(4) {
            count(-1, owners[n % 3], format!("{round}-{n}"), false);
        }
        match round % 4 {
            1 => postgres.start_again(),
            2 => redis.start_again(),
            _ => {}
        }
    }

    let end = node.position();
    for sink in ["inbox", "counters"] {
        sinks.wait_blocking(sink, end, PATIENCE).unwrap();
        assert!(sinks.verify(sink).unwrap().equal);
    }
    let rows = postgres.sql("SELECT owner, count(*) FROM messages WHERE unread GROUP BY owner");
    let counted: BTreeMap<&str, &str> = rows
        .lines()
        .filter_map(|line| line.split_once('|'))
        .collect();
    assert_eq!(counted.len(), 3, "{rows}");
    for (owner, unread) in counted {
        let cached = redis.command(&["GET", &format!("unread:{owner}")]);
        assert_eq!(cached.trim(), unread, "the counter of {owner}");
    }
    sinks.stop();
    node.stop().unwrap();
}
