//! `onelog audit` between real servers: every store beside every other one, with the same orders in
//! each of them, written as that store's users write them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use onelog_testkit::{Kind, Mariadb, OpenSearch, Postgres, Redis, Server as _, require};
use serde_json::{Value, json};

use crate::server::{Ran, onelog};

const ORDERS: u32 = 300;

/// The stores as an audit sees them, and the plants of each: its number times 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Postgres = 1,
    Mariadb = 2,
    RedisHash = 3,
    RedisString = 4,
    OpenSearch = 5,
}

use Place::{Mariadb as InMariadb, OpenSearch as InSearch, Postgres as InPostgres};
use Place::{RedisHash, RedisString};

/// Each pair, with another store on the left each time.
const PAIRS: [(Place, Place); 9] = [
    (InPostgres, InSearch),
    (InMariadb, RedisHash),
    (InMariadb, InSearch),
    (InPostgres, InMariadb),
    (RedisHash, InPostgres),
    (InSearch, RedisHash),
    (RedisString, InMariadb),
    (InSearch, RedisString),
    (InPostgres, RedisString),
];

/// What is done to five orders of each store, by the last digit of their numbers.
const DELETED: u32 = 0;
const CHANGED: u32 = 1;
const TRUNCATED: u32 = 2;
const MOVED: u32 = 3;
const EMPTIED: u32 = 4;
/// And one that only this store has.
const EXTRA: u32 = 900;

/// One order, as all stores should have it.
struct Order(u32);

impl Order {
    /// Half a unit, but a whole number for every tenth order.
    fn is_whole(&self) -> bool {
        self.0.is_multiple_of(10)
    }

    fn total(&self, whole: &str, half: &str) -> String {
        format!("{}{}", self.0, if self.is_whole() { whole } else { half })
    }

    fn canonical_total(&self) -> String {
        self.total("", ".5")
    }

    fn note(&self) -> String {
        format!(
            "Straße {} – bitte \"klingeln\" 🔔 {}",
            self.0,
            "x".repeat(80)
        )
    }

    /// The time of day, an hour and so many seconds.
    fn time(&self, hour: u32) -> String {
        format!("{hour:02}:{:02}:{:02}", self.0 / 60, self.0 % 60)
    }

    fn canonical_moment(&self) -> String {
        format!("2026-03-01T{}Z", self.time(12))
    }

    fn day(&self) -> String {
        format!("2026-02-{:02}", 1 + self.0 % 28)
    }

    fn is_paid(&self) -> bool {
        self.0.is_multiple_of(2)
    }

    /// The seventh order has none.
    fn code(&self) -> Option<String> {
        (self.0 != 7).then(|| format!("67e55044-10b1-426f-9247-bb680e5f{:04x}", self.0))
    }

    fn sql_code(&self) -> String {
        self.code()
            .map_or_else(|| "NULL".to_owned(), |code| format!("'{code}'"))
    }

    /// For PostgreSQL: in another time zone, with needless zeros.
    fn postgres_row(&self) -> String {
        let (total, day, paid) = (self.total("", ".50"), self.day(), self.is_paid());
        let (note, code) = (self.note(), self.sql_code());
        let moment = format!("2026-03-01 {}+05", self.time(17));
        format!(
            "({}, {total}, '{note}', '{moment}', '{day}', {paid}, {code})",
            self.0
        )
    }

    /// For MariaDB: its session is in another time zone, a boolean is a number, codes are text.
    fn mariadb_row(&self) -> String {
        let (total, day, paid) = (self.total("", ".5"), self.day(), self.is_paid());
        let (note, code) = (self.note(), self.sql_code().to_uppercase());
        let moment = format!("2026-03-01 {}", self.time(7));
        format!(
            "({}, {total}, '{note}', '{moment}', '{day}', {paid}, {code})",
            self.0
        )
    }

    /// For a hash: everything is text.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("total", self.total(".000", ".5")),
            ("note", self.note()),
            ("placed", format!("2026-03-01T{}+02:00", self.time(14))),
            ("day", self.day()),
            ("paid", if self.is_paid() { "1" } else { "0" }.to_owned()),
        ];
        fields.extend(self.code().map(|code| ("code", code)));
        fields
    }

    /// For documents: numbers in all their forms, texts within an object.
    fn document(&self, kind: Place) -> String {
        let total = match self.0 % 4 {
            0 if self.is_whole() => format!("{}e1", self.0 / 10),
            1 => format!("\"{}\"", self.total(".00", ".50")),
            _ => self.total(".0", ".5"),
        };
        let moment = match kind {
            InSearch => format!("2026-03-01T{}.000Z", self.time(12)),
            _ => format!("2026-03-01T{}-03:30", self.half_past()),
        };
        let note = json!(self.note());
        let code = match self.code() {
            None if kind == InSearch => String::new(),
            code => format!(r#", "code": {}"#, json!(code)),
        };
        format!(
            r#"{{"paid": {}, "total": {total}, "more": {{"note": {note}, "day": "{}"}}, "placed": "{moment}"{code}}}"#,
            self.is_paid(),
            self.day(),
        )
    }

    /// 12:00 and so many seconds, where clocks are three hours and a half behind.
    fn half_past(&self) -> String {
        let seconds = 8 * 3600 + 30 * 60 + self.0;
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        format!("{:02}:{:02}:{seconds:02}", minutes / 60, minutes % 60)
    }

    /// As a report shows an order that only one side has.
    fn shown(&self) -> Value {
        json!({
            "total": self.canonical_total(), "note": self.note(), "placed": self.canonical_moment(),
            "day": self.day(), "paid": self.is_paid(), "code": self.code(),
        })
    }
}

struct Stores {
    folder: tempfile::TempDir,
    postgres: Postgres,
    mariadb: Mariadb,
    redis: Redis,
    search: OpenSearch,
}

impl Stores {
    fn with_equal_orders() -> Self {
        let stores = Self {
            folder: tempfile::tempdir().unwrap(),
            postgres: Postgres::start(),
            mariadb: Mariadb::start(),
            redis: Redis::start(),
            search: OpenSearch::start(),
        };
        stores.postgres.sql(
            "CREATE SCHEMA shop; CREATE TABLE shop.orders (id bigint PRIMARY KEY,
                total numeric(12, 2), note text, placed timestamptz, day date, paid boolean, code uuid)",
        );
        stores.mariadb.sql(
            "CREATE TABLE orders (number int PRIMARY KEY, total decimal(14, 4),
                note varchar(200) CHARACTER SET utf8mb4, placed timestamp(6) NULL, day date,
                paid tinyint(1), code char(36))",
        );
        let index = json!({
            "settings": {"number_of_replicas": 0},
            "mappings": {"dynamic": false, "properties": {"placed": {"type": "date"}}},
        });
        let made = stores.search.request("PUT", "/orders", &index.to_string());
        assert_eq!(made.0, 200, "{made:?}");
        let all: Vec<Order> = (1..=ORDERS).map(Order).collect();
        for place in [InPostgres, InMariadb, RedisHash, RedisString, InSearch] {
            stores.write(place, &all);
        }
        // And what is no order.
        stores.bulk("{\"index\": {\"_id\": \"invoice-1\"}}\n{\"total\": 1}\n");
        stores.redis.command(&["SET", "something:else", "1"]);
        stores
    }

    fn write(&self, place: Place, orders: &[Order]) {
        let rows = |row: fn(&Order) -> String| {
            let rows: Vec<String> = orders.iter().map(row).collect();
            format!("INTO orders VALUES {}", rows.join(","))
        };
        match place {
            InPostgres => {
                let rows = rows(Order::postgres_row);
                self.postgres
                    .sql(&format!("SET search_path = shop; INSERT {rows}"));
            }
            InMariadb => {
                let rows = rows(Order::mariadb_row);
                self.mariadb.sql(&format!(
                    "SET NAMES utf8mb4, time_zone = '-05:00'; REPLACE {rows}"
                ));
            }
            RedisHash => {
                for order in orders {
                    let name = format!("order:{}", order.0);
                    let mut command = vec!["HSET".to_owned(), name];
                    for (field, value) in order.fields() {
                        command.extend([field.to_owned(), value]);
                    }
                    let words: Vec<&str> = command.iter().map(String::as_str).collect();
                    self.redis.command(&words);
                }
            }
            RedisString => {
                for order in orders {
                    let document = order.document(RedisString);
                    let name = format!("json:{}:order", order.0);
                    self.redis.command(&["SET", &name, &document]);
                }
            }
            InSearch => {
                let mut lines = String::new();
                for order in orders {
                    let id = format!("o-{}", order.0);
                    writeln!(lines, "{}", json!({"index": {"_id": id}})).unwrap();
                    writeln!(lines, "{}", order.document(InSearch)).unwrap();
                }
                self.bulk(&lines);
            }
        }
    }

    fn bulk(&self, lines: &str) {
        let path = "/orders/_bulk?refresh=true";
        let (status, answer) = self.search.request("POST", path, lines);
        assert!(
            status == 200 && answer.contains("\"errors\":false"),
            "{answer}"
        );
    }

    /// A lost write, two that came in another order, a text that a column cut off, a clock that was
    /// a second behind, a value that was forgotten, and a delete that was lost, in this store only.
    fn plant(&self, place: Place) {
        let base = place as u32 * 10;
        self.write(place, &[Order(EXTRA + place as u32)]);
        match place {
            InPostgres => {
                self.postgres.sql(&sql_plants("shop.orders", "id", base));
            }
            InMariadb => {
                self.mariadb.sql(&sql_plants("orders", "number", base));
            }
            RedisHash => {
                let name = |digit: u32| format!("order:{}", base + digit);
                let set = |digit: u32, field: &str, value: &str| {
                    self.redis.command(&["HSET", &name(digit), field, value]);
                };
                self.redis.command(&["DEL", &name(DELETED)]);
                set(CHANGED, "total", "0.01");
                set(TRUNCATED, "note", "Straße");
                set(MOVED, "placed", "2026-03-01T12:00:00Z");
                self.redis.command(&["HDEL", &name(EMPTIED), "code"]);
            }
            RedisString => self.plant_documents(base, place, &mut |id, document| {
                let name = format!("json:{id}:order");
                match document {
                    Some(document) => self.redis.command(&["SET", &name, &document.to_string()]),
                    None => self.redis.command(&["DEL", &name]),
                };
            }),
            InSearch => self.plant_documents(base, place, &mut |id, document| {
                let id = format!("o-{id}");
                match document {
                    Some(document) => {
                        self.bulk(&format!("{}\n{document}\n", json!({"index": {"_id": id}})));
                    }
                    None => self.bulk(&format!("{}\n", json!({"delete": {"_id": id}}))),
                }
            }),
        }
    }

    fn plant_documents(&self, base: u32, place: Place, write: &mut dyn FnMut(u32, Option<Value>)) {
        write(base + DELETED, None);
        let mut changed = |digit: u32, change: &dyn Fn(&mut Value)| {
            let document = Order(base + digit).document(place);
            let mut document: Value = serde_json::from_str(&document).unwrap();
            change(&mut document);
            write(base + digit, Some(document));
        };
        changed(CHANGED, &|document| document["total"] = json!(0.01));
        changed(TRUNCATED, &|document| {
            document["more"]["note"] = json!("Straße")
        });
        changed(MOVED, &|document| {
            document["placed"] = json!("2026-03-01T12:00:00Z");
        });
        changed(EMPTIED, &|document| {
            document.as_object_mut().unwrap().remove("code");
        });
    }

    fn url(&self, place: Place) -> String {
        match place {
            InPostgres => self.postgres.url(),
            InMariadb => self.mariadb.url(),
            RedisHash | RedisString => self.redis.url(),
            InSearch => self.search.url(),
        }
    }

    fn mapping(&self, left: Place, right: Place) -> PathBuf {
        let place = |place: Place| match place {
            InPostgres => r#"{ table = "shop.orders", key = "id", key_type = "integer" }"#,
            InMariadb => r#"{ table = "orders", key = "number", key_type = "integer" }"#,
            RedisHash => r#"{ key = "order:{$key}", as = "hash" }"#,
            RedisString => r#"{ key = "json:{$key}:order" }"#,
            InSearch => r#"{ index = "orders", key = "o-{$key}" }"#,
        };
        let mut text = format!(
            "[[compare]]\nname = \"orders\"\nleft = {}\nright = {}\ncolumns = [\n",
            place(left),
            place(right)
        );
        for (name, kind) in [
            ("total", "numeric"),
            ("note", "text"),
            ("placed", "timestamp"),
            ("day", "date"),
            ("paid", "boolean"),
            ("code", "uuid"),
        ] {
            write!(text, "  {{ name = \"{name}\", type = \"{kind}\"").unwrap();
            for (side, place) in [("left", left), ("right", right)] {
                let is_deep = matches!(name, "note" | "day");
                if is_deep && matches!(place, RedisString | InSearch) {
                    write!(text, ", {side} = \"/more/{name}\"").unwrap();
                }
                // MariaDB's users keep them as text.
                if name == "code" && place == InMariadb {
                    write!(text, ", {side}_type = \"text\"").unwrap();
                }
            }
            text.push_str(" },\n");
        }
        text.push_str("]\n");
        let path = self.folder.path().join(format!("{left:?}-{right:?}.toml"));
        std::fs::write(&path, text).unwrap();
        path
    }

    fn audit(&self, left: Place, right: Place) -> Ran {
        let mut command = onelog();
        command
            .args(["audit", "--json", "--show", "100"])
            .args(["--left", &self.url(left), "--right", &self.url(right)])
            .arg(self.mapping(left, right));
        Ran::of(command.output().unwrap())
    }
}

fn sql_plants(table: &str, key: &str, base: u32) -> String {
    let order = |digit: u32| format!("WHERE {key} = {}", base + digit);
    format!(
        "DELETE FROM {table} {};
         UPDATE {table} SET total = 0.01 {};
         UPDATE {table} SET note = 'Straße' {};
         UPDATE {table} SET placed = '2026-03-01 12:00:00' {};
         UPDATE {table} SET code = NULL {}",
        order(DELETED),
        order(CHANGED),
        order(TRUNCATED),
        order(MOVED),
        order(EMPTIED)
    )
}

/// Kind, what the left has, what the right has.
type Difference = (&'static str, Value, Value);

/// What an audit must find, by key: what was planted on either side.
fn planted(left: Place, right: Place) -> BTreeMap<String, Difference> {
    let mut all = BTreeMap::new();
    for (place, is_left) in [(left, true), (right, false)] {
        let base = place as u32 * 10;
        let mut add = |order: u32, kind: [&'static str; 2], here: Value, there: Value| {
            let (kind, left, right) = match is_left {
                true => (kind[0], here, there),
                false => (kind[1], there, here),
            };
            all.insert(order.to_string(), (kind, left, right));
        };
        let missing = ["missing_left", "missing_right"];
        let extra = ["missing_right", "missing_left"];
        add(
            base + DELETED,
            missing,
            Value::Null,
            Order(base + DELETED).shown(),
        );
        let other = EXTRA + place as u32;
        add(other, extra, Order(other).shown(), Value::Null);
        for (digit, field, value) in [
            (CHANGED, "total", json!("0.01")),
            (TRUNCATED, "note", json!("Straße")),
            (MOVED, "placed", json!("2026-03-01T12:00:00Z")),
            (EMPTIED, "code", Value::Null),
        ] {
            let right = Order(base + digit).shown()[field].clone();
            let (here, there) = (json!({field: value}), json!({field: right}));
            add(base + digit, ["different"; 2], here, there);
        }
    }
    all
}

/// The invoice in the search store is not looked at, and the report says so.
fn assert_others_are_left_out(orders: &Value, left: Place, right: Place) {
    for (side, place) in [("other_keys_left", left), ("other_keys_right", right)] {
        let others = orders.get(side).and_then(Value::as_u64);
        assert_eq!(others, (place == InSearch).then_some(1), "{orders}");
    }
}

fn assert_found(found: &Value, left: Place, right: Place) {
    let orders = &found["compared"][0];
    let counts = [
        "rows_left",
        "rows_right",
        "missing_right",
        "missing_left",
        "different",
        "keys_twice",
        "differences_total",
    ];
    let counts = counts.map(|name| orders[name].as_u64().unwrap());
    // On each side one order is missing and one is too many.
    let rows = u64::from(ORDERS);
    assert_eq!(
        counts,
        [rows, rows, 2, 2, 8, 0, 12],
        "{left:?} × {right:?}: {found}"
    );
    assert_others_are_left_out(orders, left, right);
    let named = orders["differences"].as_array().unwrap();
    let named: BTreeMap<String, (&str, Value, Value)> = named
        .iter()
        .map(|one| {
            let text = |name: &str| one[name].as_str().unwrap();
            let sides = (one["left"].clone(), one["right"].clone());
            (text("key").to_owned(), (text("kind"), sides.0, sides.1))
        })
        .collect();
    assert_eq!(named, planted(left, right), "{left:?} × {right:?}");
}

#[test]
fn every_two_stores_are_equal_in_their_own_words_and_each_planted_difference_is_named() {
    require!(Kind::Postgres, Kind::Mariadb, Kind::Redis, Kind::OpenSearch);
    // Given the same orders in five places, each in its own notation
    let stores = Stores::with_equal_orders();
    // When two of them are compared, then they are equal.
    for (left, right) in PAIRS {
        let ran = stores.audit(left, right);
        assert_eq!(ran.status, 0, "{left:?} × {right:?}: {ran:?}");
        let found = ran.json();
        assert_eq!(found["equal"], true, "{found}");
        assert_eq!(found["compared"][0]["rows_left"], ORDERS);
        assert_eq!(found["compared"][0]["rows_right"], ORDERS);
        assert_others_are_left_out(&found["compared"][0], left, right);
    }
    // When something else goes wrong in each of them, then it is counted and named as what it is,
    // and nothing else is.
    for place in [InPostgres, InMariadb, RedisHash, RedisString, InSearch] {
        stores.plant(place);
    }
    for (left, right) in PAIRS {
        let ran = stores.audit(left, right);
        assert_eq!(ran.status, 1, "{ran:?}");
        let found: Value = serde_json::from_str(&ran.out).unwrap();
        assert_found(&found, left, right);
    }
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
