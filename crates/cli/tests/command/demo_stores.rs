//! `onelog demo` on stores that are there.

use onelog_testkit::{Kind, Mariadb, OpenSearch, Postgres, Redis, Server as _, require};
use serde_json::{Value, json};

use crate::server::{Ran, Server, onelog};

const TABLES: &str =
    "SELECT table_name FROM information_schema.tables WHERE table_name LIKE '%onelog%' ORDER BY 1";
/// The sinks of a user whose onelog feeds the same stores.
const SINKS: [&str; 4] = ["postgres", "mysql", "redis", "elasticsearch"];

struct Stores {
    postgres: Postgres,
    mariadb: Mariadb,
    redis: Redis,
    search: OpenSearch,
}

impl Stores {
    /// With something of a user's own in each.
    fn start() -> Self {
        let stores = Self {
            postgres: Postgres::start(),
            mariadb: Mariadb::start(),
            redis: Redis::start(),
            search: OpenSearch::start(),
        };
        let mine = "CREATE TABLE mine (id int); INSERT INTO mine VALUES (1)";
        stores.postgres.sql(mine);
        stores.mariadb.sql(mine);
        stores.redis.command(&["SET", "mine", "1"]);
        let made = stores
            .search
            .request("PUT", "/mine/_doc/1?refresh=true", "{}");
        assert_eq!(made.0, 201, "{made:?}");
        stores
    }

    fn addresses(&self) -> [(&'static str, String); 4] {
        let [postgres, mysql, redis, elasticsearch] = SINKS;
        [
            (postgres, self.postgres.url()),
            (mysql, self.mariadb.url()),
            (redis, self.redis.url()),
            (elasticsearch, self.search.url()),
        ]
    }

    /// Everything with a name, and the user's own rows.
    fn contents(&self) -> Vec<String> {
        let mut keys: Vec<String> = self
            .redis
            .command(&["KEYS", "*"])
            .lines()
            .map(str::to_owned)
            .collect();
        keys.sort();
        let mut contents = vec![
            self.postgres.sql(TABLES),
            self.postgres.sql("SELECT id FROM mine"),
            self.mariadb.sql(TABLES),
            self.mariadb.sql("SELECT id FROM mine"),
            keys.join("\n"),
            self.redis.command(&["HGETALL", "onelog:owners"]),
        ];
        for path in [
            "/_cat/indices?h=index&s=index&expand_wildcards=all",
            "/_cat/aliases?h=alias,index&s=alias&expand_wildcards=all",
            "/_cat/templates?h=name&s=name",
            "/_component_template",
            "/_cluster/settings",
            "/mine/_doc/1",
        ] {
            let (status, answer) = self.search.request("GET", path, "");
            assert_eq!(status, 200, "{path}: {answer}");
            contents.push(answer);
        }
        contents
    }

    /// Runs the demonstration on all four.
    fn demonstrate(&self) -> Value {
        let folder = tempfile::tempdir().unwrap();
        let mut command = onelog();
        command.args(["demo", "--exit", "--json"]);
        for (kind, url) in self.addresses() {
            command.args([&format!("--{kind}"), &url]);
        }
        command.env("TMPDIR", folder.path());
        let outcome = Ran::of(command.output().unwrap()).json();
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert!(left.is_empty(), "the temporary folder is gone: {left:?}");
        outcome
    }
}

fn assert_shows_what_it_promises(outcome: &Value) {
    // Part 1 is a race: on how many keys the stores differ is reported, not demanded.
    println!("two writes: {}", outcome["two_writes_to_each_store"]);
    let through = &outcome["one_write_to_onelog"];
    assert_eq!(through["differing_keys"], 0, "{outcome}");
    assert_eq!(through["differing_from_the_log"], 0, "{outcome}");
    assert_eq!(through["records"], 2_000, "{outcome}");
    let stores = outcome["stores"].as_array().unwrap();
    let kinds: Vec<&Value> = stores.iter().map(|store| &store["kind"]).collect();
    assert_eq!(kinds, SINKS, "{outcome}");
    assert!(
        stores.iter().all(|s| s["verified_equal"] == true),
        "{outcome}"
    );
    assert_eq!(outcome["left_behind"], json!([]), "{outcome}");
}

#[test]
fn the_demonstration_on_four_real_stores_leaves_everything_as_it_was() {
    require!(Kind::Postgres, Kind::Mariadb, Kind::Redis, Kind::OpenSearch);
    // Given four stores that have never seen onelog
    let stores = Stores::start();
    let before = stores.contents();
    // When the demonstration runs on them, then the stores that follow the log are equal, and in
    // each there is what was there before, and nothing else.
    assert_shows_what_it_promises(&stores.demonstrate());
    assert_eq!(stores.contents(), before);

    // Given a onelog that feeds the same stores
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]);
    server.run(&["tables", "create", "shop.orders"]).good();
    server.run(&["put", "shop.orders", "o1", "{}"]).good();
    for (kind, url) in stores.addresses() {
        let mut definition = json!({"name": kind, "kind": kind, "url": url, "mappings": [{
            "table": "shop.orders", "into": "orders",
            "columns": {"id": {"from": "$key", "type": "text"}}}]});
        if kind == "redis" {
            definition["mappings"][0]["key"] = json!("order:{$key}");
        }
        let create = ["sinks", "create", "-"];
        server.run_fed(&create, &definition.to_string()).good();
        server.run(&["sinks", "wait", kind, "--for", "60s"]).good();
    }
    let before = stores.contents();
    // When the demonstration runs beside it
    assert_shows_what_it_promises(&stores.demonstrate());
    // Then nothing of it is gone, and it goes on.
    assert_eq!(stores.contents(), before);
    server.run(&["put", "shop.orders", "o2", "{}"]).good();
    for (kind, _) in stores.addresses() {
        server.run(&["sinks", "wait", kind, "--for", "60s"]).good();
        let found = server.run(&["sinks", "verify", kind, "--json"]).json();
        assert_eq!(found["tables"][0]["equal"], true, "{kind}: {found}");
        assert_eq!(found["tables"][0]["rows"], 2, "{kind}: {found}");
    }
}
