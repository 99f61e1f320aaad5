//! All five stores behind one server, from one configuration file, through everything that can
//! happen to them, to the server and to the import while the records of all packages come in.
//!
//! With `ONELOG_TEST_FULL=1` there are more rounds of it.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use onelog_testkit::{
    Kind, Mariadb, OpenSearch, Port, Postgres, Redis, SavedData, Server as Store, require,
};
use serde_json::{Value, json};

use crate::records::{Expected, Head, records};
use crate::server::{Ran, Server, onelog};

const TABLE: &str = "debian.packages";
/// How often everything happens.
const ROUNDS: usize = 2;
const ROUNDS_FULL: usize = 8;
/// Small transactions, so that there is a middle of an import in which something can happen.
const BATCH_RECORDS: &str = "100";
/// One of so many records is written again, or deleted, while a part comes in.
const REWRITTEN: usize = 97;
const DELETED: usize = 211;
/// How often the log is read before an import counts as stuck; the server waits 5 s each time.
const LOG_ASKED_MAX: usize = 60;

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
version = { from = "/version", type = "text" }
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

/// Every sink, its kind, and how many mappings it has.
const SINKS: [(&str, &str, usize); 5] = [
    ("cache", "redis", 2),
    ("file", "sqlite", 1),
    ("search", "elasticsearch", 1),
    ("shop", "mysql", 1),
    ("warehouse", "postgres", 1),
];

/// The sinks whose stores are servers.
const SERVERS: [&str; 4] = ["warehouse", "shop", "cache", "search"];

/// What happens in the middle of an import, and ends behind it.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// SIGKILL to this sink's store.
    StoreKilled(&'static str),
    /// Its process is sent SIGSTOP.
    StoreHangs(&'static str),
    /// It is killed and comes back with the data that it had when it was killed last.
    StoreGoesBack(&'static str),
    /// SIGKILL to onelog itself, which starts again while this store hangs.
    ServerKilled(&'static str),
    /// SIGKILL to the import, which is started again.
    ImportKilled,
}

const fn worst_off(round: usize) -> &'static str {
    SERVERS[round % SERVERS.len()]
}

/// Everything once; another store is worst off in each round.
fn faults(round: usize) -> [Fault; 11] {
    let worst = worst_off(round);
    let [postgres, mariadb, redis, search] = SERVERS;
    [
        Fault::StoreKilled(postgres),
        Fault::StoreHangs(mariadb),
        Fault::StoreKilled(redis),
        Fault::StoreHangs(search),
        Fault::ServerKilled(worst),
        Fault::StoreKilled(mariadb),
        Fault::StoreHangs(redis),
        Fault::StoreKilled(search),
        Fault::StoreHangs(postgres),
        Fault::ImportKilled,
        Fault::StoreGoesBack(worst),
    ]
}

struct World {
    folder: tempfile::TempDir,
    postgres: Postgres,
    mariadb: Mariadb,
    redis: Redis,
    search: OpenSearch,
    /// Its own, so that no other process takes it while the server is dead.
    port: Port,
    server: Option<Server>,
    expected: Expected,
    /// Where the log ends if nothing is lost and nothing is written twice.
    end: u64,
    parts: usize,
    /// The store that goes back in this round, and the data that it goes back to.
    worst: &'static str,
    saved: Option<SavedData>,
    /// The SQLite file of another round.
    saved_file: Option<tempfile::TempDir>,
}

impl World {
    fn start() -> Self {
        let mut world = Self {
            folder: tempfile::tempdir().unwrap(),
            postgres: Postgres::start(),
            mariadb: Mariadb::start(),
            redis: Redis::start(),
            search: OpenSearch::start(),
            port: Port::take(),
            server: None,
            expected: Expected::default(),
            end: 0,
            parts: 0,
            worst: SERVERS[0],
            saved: None,
            saved_file: None,
        };
        let config = CONFIG
            .replace("SQLITE", world.path("file.db").to_str().unwrap())
            .replace("POSTGRES", &world.postgres.url())
            .replace("MYSQL", &world.mariadb.url())
            .replace("REDIS", &world.redis.url())
            .replace("ELASTIC", &world.search.url());
        std::fs::write(world.path("onelog.toml"), config).unwrap();
        world.start_server();
        world.end = world.position();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start_server(&mut self) {
        let config = self.path("onelog.toml");
        let address = format!("127.0.0.1:{}", self.port.number());
        let flags = ["--config", config.to_str().unwrap()];
        self.server = Some(Server::start_at(&address, &self.path("data"), &flags));
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn position(&self) -> u64 {
        let status = self.server().run(&["status", "--json"]).json();
        status["position"].as_u64().unwrap()
    }

    fn store(&self, sink: &str) -> &dyn Store {
        match sink {
            "warehouse" => &self.postgres,
            "shop" => &self.mariadb,
            "cache" => &self.redis,
            "search" => &self.search,
            other => panic!("'{other}' has no server"),
        }
    }

    /// Waits until a sink has reached what was written before this part.
    fn wait_for_sink(&self, sink: &str) {
        let position = self.end.to_string();
        let wait = ["sinks", "wait", sink, &position, "--timeout", "300s"];
        self.server().run(&wait).good();
    }

    fn wait_for_log(&self, position: u64) {
        let position = position.to_string();
        for _ in 0..LOG_ASKED_MAX {
            let scan = ["scan", TABLE, "--after", &position, "--limit", "1"];
            let ran = self.server().run(&scan);
            if ran.status == 0 {
                return;
            }
            assert!(ran.err.contains("was not reached"), "{ran:?}");
        }
        panic!("the log does not reach {position}");
    }

    /// Imports a part, and writes some of what is there again; in the middle of it the fault
    /// happens, and while it lasts some keys are deleted.
    fn import_through(&mut self, fault: Fault, part: &[String]) {
        let began = Instant::now();
        self.parts += 1;
        let file = self.path(&format!("part-{}.ndjson", self.parts));
        let rewritten = self.expected.some_keys(self.parts, REWRITTEN);
        let rewritten = rewritten
            .iter()
            .map(|key| self.expected.rewritten(key, self.parts));
        let lines: Vec<String> = rewritten.chain(part.iter().cloned()).collect();
        std::fs::write(&file, lines.join("\n")).unwrap();

        if let Fault::StoreKilled(sink) | Fault::StoreHangs(sink) | Fault::StoreGoesBack(sink) =
            fault
        {
            // What it suffered before is over.
            self.wait_for_sink(sink);
        }
        let mut importing = self.start_import(&file);
        self.wait_for_log(self.end + lines.len() as u64 / 4);
        self.strike(fault, &mut importing, &file);
        let summary = Ran::of(importing.wait_with_output().unwrap()).json();
        assert_eq!(summary["records_in_all_runs"], lines.len(), "{summary}");
        lines.iter().for_each(|line| self.expected.put(line));
        self.end += lines.len() as u64;
        self.delete_some();
        self.mend(fault);
        assert_eq!(
            self.position(),
            self.end,
            "lost or written twice: {fault:?}"
        );
        println!(
            "{:5.1} s  {fault:?}, {} lines",
            began.elapsed().as_secs_f64(),
            lines.len()
        );
    }

    fn start_import(&self, file: &Path) -> Child {
        onelog()
            .args(["import", TABLE, file.to_str().unwrap(), "--key", "package"])
            .args(["--batch-records", BATCH_RECORDS, "--retry-for", "300s"])
            .args(["--json", "--url", &self.server().url])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn strike(&mut self, fault: Fault, importing: &mut Child, file: &Path) {
        match fault {
            Fault::StoreKilled(sink) => self.store(sink).kill(),
            Fault::StoreHangs(sink) => self.store(sink).pause(),
            Fault::StoreGoesBack(sink) => {
                self.store(sink).kill();
                let saved = self.saved.take().unwrap();
                self.store(sink).restore_data(&saved);
            }
            Fault::ServerKilled(sink) => {
                self.store(sink).pause();
                self.server.take().unwrap().kill();
                self.put_file_back();
                self.start_server();
            }
            Fault::ImportKilled => {
                importing.kill().unwrap();
                importing.wait().unwrap();
                *importing = self.start_import(file);
            }
        }
    }

    fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::StoreKilled(sink) => {
                if sink == self.worst {
                    self.saved = Some(self.store(sink).save_data());
                }
                self.store(sink).start_again();
            }
            Fault::StoreGoesBack(sink) => self.store(sink).start_again(),
            Fault::StoreHangs(sink) | Fault::ServerKilled(sink) => self.store(sink).resume(),
            Fault::ImportKilled => {}
        }
    }

    /// While no process has it open: keeps a copy of the SQLite file, or gives it the older copy.
    fn put_file_back(&mut self) {
        let files = |folder: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(folder).unwrap();
            let paths = entries.map(|entry| entry.unwrap().path());
            let is_file = |path: &PathBuf| {
                let name = path.file_name().unwrap().to_str().unwrap();
                name.starts_with("file.db")
            };
            paths.filter(is_file).collect()
        };
        let copy = |from: &Path, to: &Path| {
            for file in files(from) {
                std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
            }
        };
        match self.saved_file.take() {
            None => {
                let saved = tempfile::tempdir().unwrap();
                copy(self.folder.path(), saved.path());
                self.saved_file = Some(saved);
            }
            Some(saved) => {
                for file in files(self.folder.path()) {
                    std::fs::remove_file(file).unwrap();
                }
                copy(saved.path(), self.folder.path());
            }
        }
    }

    fn delete_some(&mut self) {
        let keys = self.expected.some_keys(self.parts, DELETED);
        if keys.is_empty() {
            return;
        }
        let delete = |key: &String| json!({"op": "delete", "table": TABLE, "key": key});
        let writes: Vec<Value> = keys.iter().map(delete).collect();
        let body = json!({ "writes": writes }).to_string();
        self.server().run_fed(&["commit", "-"], &body).good();
        keys.iter().for_each(|key| self.expected.remove(key));
        self.end += keys.len() as u64;
    }

    /// Stores get older data while nothing is written: onelog sends them nothing, so it notices
    /// only at a verification.
    fn go_back_while_nothing_is_written(&mut self, sinks: &[&str]) {
        let mut saved = Vec::new();
        for sink in sinks {
            self.store(sink).kill();
            saved.push(self.store(sink).save_data());
            self.store(sink).start_again();
        }
        self.parts += 1;
        self.delete_some();
        for (sink, saved) in sinks.iter().zip(saved) {
            self.wait_for_sink(sink);
            self.store(sink).kill();
            self.store(sink).restore_data(&saved);
            self.store(sink).start_again();
            // Equal at its present position, and brought forward from there.
            self.server().run(&["sinks", "verify", sink]).good();
        }
    }

    /// Every sink is at the end and proved equal, with as many rows as there must be.
    fn assert_verified(&self) {
        let list = self.server().run(&["sinks", "list"]).good();
        // What each comparison finds is a record of the log, too.
        let status = self.server().run(&["status", "--json"]).json();
        let before = status["position"].as_u64().unwrap();
        for (compared, (sink, kind, mappings)) in (0..).zip(SINKS) {
            self.wait_for_sink(sink);
            let verify = ["sinks", "verify", sink, "--json"];
            let found = self.server().run(&verify).json();
            let position = found["position"].as_u64().unwrap();
            let possible = self.end..=before + compared;
            assert!(possible.contains(&position), "{sink}: {found}");
            let tables = found["tables"].as_array().unwrap();
            assert_eq!(tables.len(), mappings, "{sink}: {found}");
            for table in tables {
                assert_eq!(table["equal"], true, "{sink}: {found}");
                assert_eq!(table["rows"], self.expected.rows(), "{sink}: {found}");
                assert_eq!(table["store_rows"], self.expected.rows(), "{sink}: {found}");
            }
            let line = list.lines().find(|line| line.starts_with(sink)).unwrap();
            assert!(line.contains(kind), "{list}");
        }
        let list = self.server().run(&["sinks", "list"]).good();
        assert_eq!(list.matches(" running ").count(), SINKS.len(), "{list}");
        println!("{list}");
    }

    /// The stores say so themselves, without onelog.
    fn assert_stores_hold_the_records(&self) {
        let expected = self.expected.heads();
        let rows = "SELECT name, version, coalesce(size, '') FROM packages";
        let found = self.mariadb.sql(rows);
        assert!(Head::of_lines(&found, '\t') == expected, "MariaDB differs");
        let rows = "SELECT name, version, size FROM packages";
        let found = self.postgres.sql(rows);
        assert!(
            Head::of_lines(&found, '|') == expected,
            "PostgreSQL differs"
        );

        let heads = "local out = {}
            for _, key in ipairs(redis.call('KEYS', 'head:*')) do
                local row = redis.call('HMGET', key, 'name', 'version', 'size')
                out[#out + 1] = row[1] .. '|' .. row[2] .. '|' .. (row[3] or '')
            end
            return out";
        let found = self.redis.command(&["EVAL", heads, "0"]);
        assert!(Head::of_lines(&found, '|') == expected, "Redis differs");
        let strings = "return #redis.call('KEYS', 'package:*')";
        let found = self.redis.command(&["EVAL", strings, "0"]);
        assert_eq!(found, expected.len().to_string());

        let database = rusqlite::Connection::open(self.path("file.db")).unwrap();
        let mut rows = database.prepare(rows).unwrap();
        let head = |row: &rusqlite::Row<'_>| {
            Ok(Head {
                name: row.get(0)?,
                version: row.get(1)?,
                size: row.get::<_, Option<i64>>(2)?.map(|size| size as u64),
            })
        };
        let found = rows.query_map([], head).unwrap();
        let mut found: Vec<Head> = found.map(Result::unwrap).collect();
        found.sort();
        assert!(found == expected, "SQLite differs");

        let total = json!({"size": 0, "track_total_hits": true,
            "aggs": {"bytes": {"sum": {"field": "size"}}}});
        let request = ("POST", "/packages/_search", total.to_string());
        let (status, found) = self.search.request(request.0, request.1, &request.2);
        assert_eq!(status, 200, "{found}");
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!(found["hits"]["total"]["value"], expected.len(), "{found}");
        let bytes: u64 = expected.iter().filter_map(|head| head.size).sum();
        assert_eq!(found["aggregations"]["bytes"]["value"], bytes as f64);
    }
}

#[test]
fn one_configuration_feeds_five_stores_and_all_are_equal_after_every_fault() {
    require!(Kind::Postgres, Kind::Mariadb, Kind::Redis, Kind::OpenSearch);
    let began = Instant::now();
    let rounds = match std::env::var("ONELOG_TEST_FULL") {
        Ok(value) if value == "1" => ROUNDS_FULL,
        _ => ROUNDS,
    };
    // Given five stores and one configuration that names them all
    let mut world = World::start();
    let records = records();
    println!(
        "{:5.1} s  everything is up, {} records",
        began.elapsed().as_secs_f64(),
        records.len()
    );
    // When all records come in, and in each part of them something else is killed, hangs, or goes
    // back in time
    let per_part = records.len().div_ceil(rounds * faults(0).len());
    let mut parts = records.chunks(per_part);
    for round in 0..rounds {
        world.worst = worst_off(round);
        for fault in faults(round) {
            world.import_through(fault, parts.next().unwrap_or_default());
        }
    }
    assert!(parts.next().is_none(), "every record was imported");
    // Then every store is at the end of the log and equal to it,
    world.assert_verified();
    // and holds exactly what it must;
    world.assert_stores_hold_the_records();
    // also when it goes back in time later, while nothing is written.
    world.go_back_while_nothing_is_written(&["warehouse", "shop", "cache"]);
    world.assert_verified();
    world.assert_stores_hold_the_records();
    println!("{:5.1} s  in all", began.elapsed().as_secs_f64());
}
