//! All five stores behind one server, from one configuration file, and the commands that look at
//! stores which nobody started for a test: the audit and the demonstration.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use onelog_testkit::{Kind, Mariadb, OpenSearch, Postgres, Redis, Server as _, require};
use serde_json::Value;

use crate::server::{Ran, Server, onelog};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/packages.ndjson");
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/debian-packages");
/// How many of Debian's package records are taken where the lists are there.
const RECORDS_MAX: usize = 5_000;

/// Records of Debian packages as NDJSON: this machine's own where it has lists, else the sample.
fn records() -> Vec<String> {
    let mut listing = Command::new(PACKAGES)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(listing.stdout.take().unwrap()).lines();
    let found: Vec<String> = lines.take(RECORDS_MAX).map(Result::unwrap).collect();
    let _ = listing.kill();
    listing.wait().unwrap();
    let sample = std::fs::read_to_string(SAMPLE).unwrap();
    match found.len() < sample.lines().count() {
        true => sample.lines().map(str::to_owned).collect(),
        false => found,
    }
}

const CONFIG: &str = r#"
[[tables]]
name = "debian.packages"

[[sinks]]
name = "file"
kind = "sqlite"
path = "SQLITE"
[[sinks.mappings]]
table = "debian.packages"
into = "packages"
full_text = ["description"]
[sinks.mappings.columns]
name = { from = "$key", type = "text" }
size = { from = "/size", type = "integer" }
description = { from = "/description", type = "text" }

[[sinks]]
name = "warehouse"
kind = "postgres"
url = "POSTGRES"
[[sinks.mappings]]
table = "debian.packages"
into = "packages"
[sinks.mappings.columns]
name = { from = "$key", type = "text" }
version = { from = "/version", type = "text" }
size = { from = "/size", type = "integer" }
record = { from = "", type = "json" }

[[sinks]]
name = "shop"
kind = "mysql"
url = "MYSQL"
[[sinks.mappings]]
table = "debian.packages"
into = "packages"
[sinks.mappings.columns]
name = { from = "$key", type = "text" }
version = { from = "/version", type = "text" }
size = { from = "/size", type = "integer" }
record = { from = "", type = "json" }

[[sinks]]
name = "cache"
kind = "redis"
url = "REDIS"
[[sinks.mappings]]
table = "debian.packages"
into = "package"
[[sinks.mappings]]
table = "debian.packages"
into = "package-head"
as = "hash"
key = "head:{$key}"
[sinks.mappings.columns]
name = { from = "$key", type = "text" }
version = { from = "/version", type = "text" }
size = { from = "/size", type = "integer" }

[[sinks]]
name = "search"
kind = "elasticsearch"
url = "ELASTIC"
[[sinks.mappings]]
table = "debian.packages"
into = "packages"
fields = ["package", "version", "section", "size", "description"]
settings = { number_of_shards = 2, number_of_replicas = 0 }
"#;

const SINKS: [&str; 5] = ["cache", "file", "search", "shop", "warehouse"];

fn import(server: &Server, file: &Path) -> Value {
    let file = file.to_str().unwrap();
    let args = [
        "import",
        "debian.packages",
        file,
        "--key",
        "package",
        "--json",
    ];
    server.run(&args).json()
}

#[test]
fn one_configuration_feeds_five_stores_and_all_are_verified_equal() {
    require!(Kind::Postgres, Kind::Mariadb, Kind::Redis, Kind::OpenSearch);
    // Given five stores, a configuration that names them all, and half of the records
    let (postgres, mariadb) = (Postgres::start(), Mariadb::start());
    let (redis, search) = (Redis::start(), OpenSearch::start());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let config = CONFIG
        .replace("SQLITE", path("file.db").to_str().unwrap())
        .replace("POSTGRES", &postgres.url())
        .replace("MYSQL", &mariadb.url())
        .replace("REDIS", &redis.url())
        .replace("ELASTIC", &search.url());
    std::fs::write(path("onelog.toml"), config).unwrap();
    let records = records();
    let half = records.len() / 2;
    std::fs::write(path("first.ndjson"), records[..half].join("\n")).unwrap();
    std::fs::write(path("second.ndjson"), records[half..].join("\n")).unwrap();
    let config = path("onelog.toml");
    let flags = ["--config", config.to_str().unwrap()];
    let server = Server::start(&path("data"), &flags);
    assert_eq!(import(&server, &path("first.ndjson"))["records"], half);
    // When a store is killed while the rest comes, and comes back
    redis.kill();
    let rest = import(&server, &path("second.ndjson"));
    assert_eq!(rest["records"], records.len() - half);
    server
        .run(&["delete", "debian.packages", &key(&records[0])])
        .good();
    redis.start_again();
    // Then every store reaches the end of the log, and is verified equal,
    for sink in SINKS {
        server.run(&["sinks", "wait", sink, "--for", "120s"]).good();
        let found = server.run(&["sinks", "verify", sink, "--json"]).json();
        for table in found["tables"].as_array().unwrap() {
            assert_eq!(table["equal"], true, "{sink}: {found}");
            assert_eq!(table["rows"], distinct(&records) - 1, "{sink}: {found}");
        }
    }
    // and the list shows it.
    let list = server.run(&["sinks", "list"]).good();
    for (sink, kind) in SINKS
        .iter()
        .zip(["redis", "sqlite", "elasticsearch", "mysql", "postgres"])
    {
        let line = list.lines().find(|line| line.starts_with(sink)).unwrap();
        assert!(line.contains(kind) && line.contains("running"), "{list}");
    }
    let one = key(&records[1]);
    assert!(
        redis
            .command(&["GET", &format!("package:{one}")])
            .contains(&one)
    );
    assert_eq!(
        postgres.sql("SELECT count(*) FROM packages"),
        (distinct(&records) - 1).to_string()
    );
}

fn key(record: &str) -> String {
    let record: Value = serde_json::from_str(record).unwrap();
    record["package"].as_str().unwrap().to_owned()
}

fn distinct(records: &[String]) -> usize {
    let keys: std::collections::BTreeSet<String> = records.iter().map(|r| key(r)).collect();
    keys.len()
}

#[test]
fn the_audit_finds_what_two_writes_left_in_postgresql_and_redis() {
    require!(Kind::Postgres, Kind::Redis);
    // Given a shop that writes its orders into PostgreSQL and a cache, and that once lost a write,
    // once wrote in another order, and once deleted in one of them only
    let (postgres, redis) = (Postgres::start(), Redis::start());
    postgres.sql(
        "CREATE TABLE orders (id bigint PRIMARY KEY, total numeric(10, 2), state text);
         INSERT INTO orders SELECT n, n + 0.5, 'paid' FROM generate_series(1, 100) n",
    );
    for n in 1..=100 {
        let key = format!("order:{n}");
        redis.command(&["HSET", &key, "total", &format!("{n}.5"), "status", "paid"]);
    }
    redis.command(&["DEL", "order:7"]);
    redis.command(&["HSET", "order:8", "status", "open"]);
    postgres.sql("DELETE FROM orders WHERE id = 9");
    redis.command(&["SET", "something:else", "1"]);
    let folder = tempfile::tempdir().unwrap();
    let mapping = folder.path().join("orders.toml");
    std::fs::write(
        &mapping,
        r#"
[[compare]]
name    = "orders"
left    = { table = "public.orders", key = "id", key_type = "integer" }
right   = { key = "order:{$key}", as = "hash" }
columns = [ { name = "total",  type = "numeric" },
            { name = "status", type = "text", left = "state" } ]
"#,
    )
    .unwrap();
    let audit = || {
        let mut command = onelog();
        command
            .args(["audit", "--json", "--left", &postgres.url()])
            .args(["--right", &redis.url()])
            .arg(&mapping);
        Ran::of(command.output().unwrap())
    };
    // When the two are audited, then each is counted and named.
    let ran = audit();
    assert_eq!(ran.status, 1, "{ran:?}");
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    let orders = &found["compared"][0];
    let count = |name: &str| orders[name].as_u64().unwrap();
    assert_eq!(
        (count("rows_left"), count("rows_right")),
        (99, 99),
        "{found}"
    );
    assert_eq!(
        ["missing_right", "missing_left", "different"].map(count),
        [1, 1, 1],
        "{found}"
    );
    let named: Vec<&Value> = orders["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|difference| &difference["key"])
        .collect();
    assert_eq!(named, ["7", "8", "9"]);
    // When they are mended, they are equal.
    redis.command(&["HSET", "order:7", "total", "7.50", "status", "paid"]);
    redis.command(&["HSET", "order:8", "status", "paid"]);
    redis.command(&["DEL", "order:9"]);
    assert_eq!(audit().json()["equal"], true);
}

#[test]
fn the_demonstration_on_real_stores_leaves_nothing_behind() {
    require!(Kind::Postgres, Kind::Mariadb, Kind::Redis);
    let (postgres, mariadb, redis) = (Postgres::start(), Mariadb::start(), Redis::start());
    postgres.sql("CREATE TABLE mine (id int); INSERT INTO mine VALUES (1)");
    let folder = tempfile::tempdir().unwrap();
    let mut command = onelog();
    command
        .args(["demo", "--exit", "--json", "--postgres", &postgres.url()])
        .args(["--mysql", &mariadb.url(), "--redis", &redis.url()])
        .env("TMPDIR", folder.path());
    let outcome = Ran::of(command.output().unwrap()).json();
    // Part 1 is a race: how many keys differ is told, not demanded.
    println!("two writes: {}", outcome["two_writes_to_each_store"]);
    let through = &outcome["one_write_to_onelog"];
    assert_eq!(through["differing_keys"], 0, "{outcome}");
    assert_eq!(through["differing_from_the_log"], 0, "{outcome}");
    assert_eq!(through["records"], 2_000, "{outcome}");
    let stores = outcome["stores"].as_array().unwrap();
    assert_eq!(stores.len(), 3, "{outcome}");
    assert!(
        stores.iter().all(|s| s["verified_equal"] == true),
        "{outcome}"
    );

    let tables =
        "SELECT table_name FROM information_schema.tables WHERE table_name LIKE '%onelog%'";
    assert_eq!(postgres.sql(tables).trim(), "", "{outcome}");
    assert_eq!(mariadb.sql(tables).trim(), "", "{outcome}");
    assert_eq!(redis.command(&["KEYS", "*"]).trim(), "", "{outcome}");
    assert_eq!(postgres.sql("SELECT id FROM mine").trim(), "1");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "the temporary folder is gone: {left:?}");
}
