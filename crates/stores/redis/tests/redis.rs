//! Redis against the contract of every store, and what is its own: shapes, lifetimes, owners,
//! snapshots, settings, rebuilds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use onelog_mapping::{Plan, Row, timestamp_text};
use onelog_record::{Offset, Position, TableDefinition, TableId, TableKind, ValueKind};
use onelog_redis::{RedisStore, RedisTarget};
use onelog_store::conformance::{self, Capabilities, Harness, LOG, Model, ORDERS, SINK, filled};
use onelog_store::{
    Address, Batch, Change, LogSide, SinkDefinition, Store, StoreError, TableVerification,
    Verification, failpoint, verify,
};
use onelog_testkit::{Certificates, Kind, Redis, Server, require};

static KINDS: onelog_store::Kinds = onelog_store::Kinds::new(&[&onelog_redis::KIND]);

/// One server for all tests of this file, a database for each harness.
static SERVER: LazyLock<Redis> =
    LazyLock::new(|| Redis::start_with(&["databases=200", "appendonly=no"]));
static DATABASES: AtomicUsize = AtomicUsize::new(0);

struct OneServer {
    target: RedisTarget,
    shape: RedisShape,
    database: String,
}

impl OneServer {
    fn new() -> Self {
        Self::with(RedisShape::String, None)
    }

    fn with(shape: RedisShape, partitions: Option<u16>) -> Self {
        let database = DATABASES.fetch_add(1, Ordering::Relaxed).to_string();
        let url = format!("{}/{database}", SERVER.url());
        Self {
            target: RedisTarget {
                url: Address::from(url.as_str()),
                partitions,
                ca_file: None,
            },
            shape,
            database,
        }
    }

    fn command(&self, arguments: &[&str]) -> String {
        let mut all = vec!["-n", &self.database];
        all.extend(arguments);
        SERVER.command(&all)
    }

    fn store(&self, plan: Arc<Plan>, log_id: &str) -> Result<RedisStore, StoreError> {
        RedisStore::open(&self.target, SINK, log_id, shaped(plan, self.shape))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum RedisShape {
    String,
    Hash,
}

fn shaped(plan: Arc<Plan>, shape: RedisShape) -> Arc<Plan> {
    let mut plan = Plan::clone(&plan);
    if shape == RedisShape::Hash {
        for mapping in &mut plan.mappings {
            mapping.options = std::mem::take(&mut mapping.options).with("as", "hash");
        }
    }
    Arc::new(plan)
}

const CAN: Capabilities = Capabilities {
    full_text: false,
    ..Capabilities::ALL
};

impl Harness for OneServer {
    fn open(&self, plan: Arc<Plan>, log_id: &str) -> Box<dyn Store> {
        Box::new(self.store(plan, log_id).unwrap())
    }

    fn capabilities(&self) -> Capabilities {
        CAN
    }

    fn kind(&self) -> &'static dyn onelog_store::StoreKind {
        &onelog_redis::KIND
    }
}

#[test]
fn redis_keeps_the_contract_of_every_store_with_strings() {
    require!(Kind::Redis);
    conformance::all(&|| Box::new(OneServer::new()));
}

#[test]
fn redis_keeps_the_contract_of_every_store_with_hashes() {
    require!(Kind::Redis);
    conformance::all(&|| Box::new(OneServer::with(RedisShape::Hash, None)));
}

#[test]
fn one_server_with_partitions_keeps_the_contract_too() {
    require!(Kind::Redis);
    conformance::all(&|| Box::new(OneServer::with(RedisShape::String, Some(7))));
}

const TYPED: &str = r#"{"table":"shop.orders","into":"orders","columns":{
    "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"integer"},
    "note":{"from":"/note","type":"text"},"price":{"from":"/price","type":"numeric"},
    "at":{"from":"/at","type":"timestamp"},"tags":{"from":"/tags","type":"text[]"},
    "more":{"from":"/more","type":"json"},"version":{"from":"$version","type":"integer"}}},
  {"table":"shop.blobs","into":"blobs","columns":{
    "k":{"from":"$key","type":"blob"},"v":{"from":"$value","type":"blob"}}}"#;
const ORDER: &str = r#"{"total":7,"note":"\"x\"\u0000","price":1.50,"at":"2026-11-22T20:00:00+01:00",
    "tags":["a",null],"more":{"b":[1,2]}}"#;

/// A store with one order and one blob.
fn typed(server: &OneServer) -> (Arc<Plan>, Box<dyn Store>, Model) {
    let plan = conformance::plan(server, TYPED);
    let mut model = Model::default();
    model.write(ORDERS, b"o1", Some(ORDER));
    model.write(ORDERS, b"o2", Some("{}"));
    model.write(TableId(1025), &[0xff, 0], Some("\u{0}bytes"));
    let mut store = server.open(Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert!(model.verify(&plan, store.as_mut()).equal);
    (plan, store, model)
}

#[test]
fn a_row_as_a_string_is_a_json_object_of_its_columns() {
    require!(Kind::Redis);
    let server = OneServer::new();
    let _store = typed(&server);
    assert_eq!(
        server.command(&["GET", "orders:o1"]).trim_end(),
        r#"{"id":"o1","total":7,"note":"\"x\"\u0000","price":"1.5","at":"2026-11-22T19:00:00Z","tags":["a",null],"more":{"b":[1,2]},"version":0}"#
            .replace("19:00:00Z", &timestamp_text(1_795_374_000_000_000)[11..])
    );
    assert_eq!(
        server.command(&["GET", "orders:o2"]).trim_end(),
        r#"{"id":"o2","total":null,"note":null,"price":null,"at":null,"tags":null,"more":null,"version":1}"#
    );
}

#[test]
fn a_row_as_a_hash_has_a_field_for_each_value() {
    require!(Kind::Redis);
    let server = OneServer::with(RedisShape::Hash, None);
    let _store = typed(&server);
    let get = |field| server.command(&["HGET", "orders:o1", field]);
    assert_eq!(get("price").trim_end(), "1.5");
    assert_eq!(get("tags").trim_end(), r#"["a",null]"#);
    assert_eq!(get("more").trim_end(), r#"{"b":[1,2]}"#);
    // Without a value there is no field, and the key alone makes the row.
    assert_eq!(
        server.command(&["HKEYS", "orders:o2"]).trim_end(),
        "id\nversion"
    );
}

#[test]
fn a_document_is_kept_byte_for_byte() {
    require!(Kind::Redis);
    let server = OneServer::new();
    let plan = conformance::plan(
        &server,
        r#"{"table":"shop.orders","into":"whole","key":"<{$key}>"}"#,
    );
    let mut model = Model::default();
    model.write(ORDERS, b"k", Some("{\"b\" : 1.50,\"a\":2}"));
    let mut store = server.open(Arc::clone(&plan), LOG);
    store.take_over().unwrap();
    model.rebuild(&plan, store.as_mut()).unwrap();
    assert_eq!(
        server.command(&["GET", "<k>"]).trim_end(),
        "{\"b\" : 1.50,\"a\":2}"
    );
    // The same JSON written otherwise is no difference, another number is one.
    server.command(&["SET", "<k>", r#"{"a":2,"b":1.5}"#]);
    assert!(model.verify(&plan, store.as_mut()).equal);
    server.command(&["SET", "<k>", r#"{"a":2,"b":1.51}"#]);
    assert!(!model.verify(&plan, store.as_mut()).equal);
}

/// Every key that differs, by mapping.
fn differing(found: &Verification) -> Vec<Vec<String>> {
    let keys = |table: &TableVerification| {
        assert_eq!(table.differences_total as usize, table.differences.len());
        let keys = table.differences.iter().map(|d| d.key.to_string());
        keys.collect()
    };
    found.tables.iter().map(keys).collect()
}

/// Writes keys of the first mapping again, or deletes them where the log has none.
fn repair(plan: &Plan, model: &Model, store: &mut dyn Store, keys: &[&str]) {
    let mut changes = vec![Vec::new(); plan.mappings.len()];
    for key in keys {
        let mut change = Change {
            key: Bytes::copy_from_slice(key.as_bytes()),
            offset: Offset(0),
            value: None,
        };
        let newest = &mut |of: &[u8], offset, value: &[u8]| {
            if of == key.as_bytes() {
                change.offset = offset;
                change.value = Some(Bytes::copy_from_slice(value));
            }
            Ok(())
        };
        model.scan(plan.mappings[0].table, newest).unwrap();
        changes[0].push(change);
    }
    let batch = Batch::repair(model.position(), changes);
    store.apply(&batch).unwrap();
}

#[test]
fn every_kind_of_planted_difference_is_found_named_and_mended() {
    require!(Kind::Redis);
    for (shape, partitions) in [
        (RedisShape::String, None),
        (RedisShape::Hash, None),
        (RedisShape::Hash, Some(3)),
    ] {
        let server = OneServer::with(shape, partitions);
        let plan = conformance::standard_plan(&server);
        let mut model = Model::default();
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            model.order(key, 1, "some note");
        }
        let mut store = server.open(Arc::clone(&plan), LOG);
        store.take_over().unwrap();
        model.rebuild(&plan, store.as_mut()).unwrap();
        let name = |key: &str| server.command(&["KEYS", &format!("*orders:{key}")]);
        let name = |key: &str| name(key).trim_end().to_owned();
        let hash = shape == RedisShape::Hash;
        let edit = |key: &str, field: &str, value: &str| {
            let name = name(key);
            if hash {
                server.command(&["HSET", &name, field, value]);
                return;
            }
            let text = server.command(&["GET", &name]);
            let mut row: serde_json::Value = serde_json::from_str(&text).unwrap();
            row[field] = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            server.command(&["SET", &name, &row.to_string()]);
        };
        edit("a", "total", "2");
        edit("b", "note", "some word");
        server.command(&["DEL", &name("c")]);
        let (d, x) = (name("d"), name("d").replace(":d", ":x"));
        server.command(&["RENAME", &d, &x]);
        server.command(&["RPUSH", &d, "of another type"]);
        edit("e", "added", "by hand");
        edit("f", "id", "g");
        edit("g", "total", "01");
        match hash {
            true => server.command(&["HDEL", &name("h"), "note"]),
            false => server.command(&["SETRANGE", &name("h"), "20", "?"]),
        };
        let found = model.verify(&plan, store.as_mut());
        let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "x"];
        let expected = keys.map(|key| format!("\"{key}\"")).to_vec();
        assert_eq!(
            differing(&found),
            [expected],
            "{shape:?} {partitions:?} {found:#?}"
        );
        // A repair also takes away a row in a partition where it does not belong.
        repair(&plan, &model, store.as_mut(), &keys);
        let found = model.verify(&plan, store.as_mut());
        assert!(found.equal, "{shape:?} {partitions:?} {found:#?}");
    }
}

#[test]
fn rows_with_a_lifetime_vanish_and_are_not_missed() {
    require!(Kind::Redis);
    for shape in [RedisShape::String, RedisShape::Hash] {
        let server = OneServer::with(shape, None);
        let plan = {
            let mut plan = Plan::clone(&conformance::standard_plan(&server));
            let options = &mut plan.mappings[0].options;
            *options = std::mem::take(options).with("ttl_seconds", 1000);
            Arc::new(plan)
        };
        let (mut store, mut model) = filled(&server, &plan);
        let life = |key| -> i64 { server.command(&["TTL", key]).trim().parse().unwrap() };
        assert!(
            (990..=1000).contains(&life("orders:a")),
            "of a first filling"
        );
        let from = model.position();
        model.order("d", 4, "four");
        store.apply(&model.batch(&plan, from)).unwrap();
        assert!((990..=1000).contains(&life("orders:d")), "of a batch");
        // Time passes: Redis takes them away.
        server.command(&["PEXPIRE", "orders:a", "0"]);
        server.command(&["PEXPIRE", "orders:d", "0"]);
        let found = model.verify(&plan, store.as_mut());
        assert!(found.equal, "{found:#?}");
        let table = &found.tables[0];
        assert_eq!((table.expired, table.differences_total), (2, 0));
        // A row that is there must be right, and no other may be there.
        server.command(&["RENAME", "orders:b", "orders:x"]);
        let found = model.verify(&plan, store.as_mut());
        assert!(!found.equal);
        assert_eq!(
            (found.tables[0].expired, differing(&found)),
            (3, vec![vec!["\"x\"".into()]])
        );
    }
}

fn definition(mappings: &str) -> Result<Plan, String> {
    let text =
        format!(r#"{{"name":"f","kind":"redis","url":"redis://h","mappings":[{mappings}]}}"#);
    let tables = [TableDefinition {
        id: ORDERS,
        name: "shop.orders".into(),
        kind: TableKind::Keyed,
        value: ValueKind::Json,
        schema: None,
        unique: Vec::new(),
        dropped: false,
    }];
    let definition =
        SinkDefinition::from_slice(KINDS, text.as_bytes()).map_err(|e| e.to_string())?;
    definition
        .plan(tables.as_slice())
        .map_err(|error| error.to_string())
}

#[test]
fn templates_that_could_name_the_same_key_are_refused() {
    let mapping = |into: &str, key: &str| {
        format!(r#"{{"table":"shop.orders","into":"{into}","key":"{key}"}}"#)
    };
    for (one, other) in [
        ("a:{$key}", "a:b:{$key}"),
        ("a{$key}:x", "a{$key}"),
        ("a{$key}", "a{$key}"),
    ] {
        let error = definition(&format!("{},{}", mapping("a", one), mapping("b", other)));
        let error = error.unwrap_err();
        assert!(
            error.starts_with("mappings[1].key") && error.contains("same key"),
            "{error}"
        );
    }
    for ours in [
        "{$key}",
        "{$key}:x",
        "onelog:{$key}",
        "onelog:position:{$key}",
        "{p{$key}",
    ] {
        let error = definition(&mapping("a", ours)).unwrap_err();
        assert!(error.contains("keeps for itself"), "{ours}: {error}");
    }
    definition(&format!(
        "{},{}",
        mapping("a", "a:{$key}"),
        mapping("b", "b:{$key}")
    ))
    .unwrap();
}

#[test]
fn keys_of_others_are_not_touched() {
    require!(Kind::Redis);
    let server = OneServer::new();
    let plan = conformance::standard_plan(&server);
    server.command(&["SET", "orders:theirs", "1"]);
    let mut store = server.store(Arc::clone(&plan), LOG).unwrap();
    let error = store.check_target().unwrap_err().to_string();
    assert!(
        error.contains("orders:theirs") && error.contains("onelog has not made"),
        "{error}"
    );
    store.take_over().unwrap();
    assert!(matches!(
        store.begin_rebuild(),
        Err(StoreError::NotOwner { .. })
    ));
    assert_eq!(server.command(&["GET", "orders:theirs"]).trim_end(), "1");
    // What the message says is what helps.
    server.command(&["HSET", "onelog:owners", "orders:{$key}", SINK]);
    let mut model = Model::default();
    model.order("a", 1, "one");
    model.rebuild(&plan, &mut store).unwrap();
    assert!(model.verify(&plan, &mut store).equal);
    // Another sink keeps away from these keys, and from any that could be the same.
    let other = |into: &str| {
        let plan = conformance::plan(
            &server,
            &format!(r#"{{"table":"shop.orders","into":"{into}"}}"#),
        );
        RedisStore::open(&server.target, "other", LOG, plan)
            .unwrap()
            .check_target()
    };
    for into in ["orders", "orders:eu"] {
        assert!(
            matches!(other(into), Err(StoreError::NotOwner { .. })),
            "{into}"
        );
    }
    other("orders2").unwrap();
    store.remove().unwrap();
    other("orders").unwrap();
}

#[test]
fn a_lost_position_is_not_position_0_and_what_was_left_goes() {
    require!(Kind::Redis);
    for lose in ["DEL onelog:position:follower", "FLUSHDB"] {
        let server = OneServer::new();
        let plan = conformance::standard_plan(&server);
        let (mut store, mut model) = filled(&server, &plan);
        let from = model.position();
        model.write(ORDERS, b"a", None);
        let batch = model.batch(&plan, from);
        server.command(&lose.split(' ').collect::<Vec<_>>());
        assert_eq!(store.position().unwrap(), None);
        let error = store.apply(&batch).unwrap_err();
        assert!(
            matches!(error, StoreError::PositionMismatch { found: None, .. }),
            "{error}"
        );
        let mut store = server.open(Arc::clone(&plan), LOG);
        store.take_over().unwrap();
        assert_eq!(store.position().unwrap(), None);
        model.rebuild(&plan, store.as_mut()).unwrap();
        assert!(model.verify(&plan, store.as_mut()).equal);
        assert_eq!(server.command(&["EXISTS", "orders:a"]).trim_end(), "0");
    }
}

/// The step itself finds out, not only the look before it.
#[test]
fn another_process_that_takes_over_between_looking_and_writing_fences_the_step() {
    require!(Kind::Redis);
    const SLEEPER: &str = "sleeper";
    for partitions in [None, Some(5)] {
        let server = Arc::new(OneServer::with(RedisShape::String, partitions));
        let plan = conformance::standard_plan(server.as_ref());
        let open = || RedisStore::open(&server.target, SLEEPER, LOG, Arc::clone(&plan)).unwrap();
        let mut model = Model::default();
        model.order("a", 1, "one");
        let mut store = open();
        let mut epoch = store.take_over().unwrap();
        model.rebuild(&plan, &mut store).unwrap();
        let rival = {
            let server = Arc::clone(&server);
            move || {
                for name in server
                    .command(&["KEYS", "*onelog:position:sleeper"])
                    .lines()
                {
                    server.command(&["HINCRBY", name, "epoch", "1"]);
                }
            }
        };
        let refuses = |store: &mut RedisStore, batch: &Batch, epoch: u64| {
            let error = store.apply(batch).unwrap_err();
            assert!(
                matches!(error, StoreError::Fenced { ours, found } if ours == epoch && found == epoch + 1),
                "{error}"
            );
            assert_eq!(server.command(&["KEYS", "*late*"]), "");
        };

        // Behind a step, whose answer said that all was well.
        let from = model.position();
        model.order("b", 2, "two");
        store.apply(&model.batch(&plan, from)).unwrap();
        let (before, from) = (model.clone(), model.position());
        model.order("late", 3, "three");
        let batch = model.batch(&plan, from);
        rival();
        refuses(&mut store, &batch, epoch);

        // Behind a look of its own.
        epoch = store.take_over().unwrap();
        let place = format!("{SLEEPER}:before_commit");
        failpoint::set(&place, rival);
        refuses(&mut store, &batch, epoch);
        failpoint::clear(&place);
        assert!(before.verify(&plan, &mut store).equal);
    }
}

#[test]
fn nothing_of_a_rebuild_is_left_behind() {
    require!(Kind::Redis);
    for partitions in [None, Some(5)] {
        let server = OneServer::with(RedisShape::String, partitions);
        let plan = conformance::standard_plan(&server);
        let (mut store, model) = filled(&server, &plan);
        let bookkeeping = 1 + partitions.unwrap_or(1) as usize;
        let keys = || server.command(&["DBSIZE"]).trim().parse::<usize>().unwrap();
        assert_eq!(keys(), 3 + bookkeeping);
        store.begin_rebuild().unwrap();
        let rows: Vec<Change> = model.batch(&plan, Position::ZERO).changes.remove(0);
        store.load(0, &rows).unwrap();
        assert!(keys() > 6 + bookkeeping);
        // The next owner cleans up.
        let mut store = server.open(Arc::clone(&plan), LOG);
        store.take_over().unwrap();
        assert_eq!(keys(), 3 + bookkeeping);
        store.remove().unwrap();
        assert_eq!(keys(), 3 + 1);
    }
}

#[test]
fn a_snapshot_is_the_same_however_much_is_written_meanwhile() {
    require!(Kind::Redis);
    for (shape, partitions) in [
        (RedisShape::String, None),
        (RedisShape::Hash, None),
        (RedisShape::String, Some(4)),
    ] {
        let server = OneServer::with(shape, partitions);
        let plan = conformance::standard_plan(&server);
        let mut model = Model::default();
        for n in 0..5000 {
            model.order(&format!("k{n}"), n, "before");
        }
        let mut store = server.open(Arc::clone(&plan), LOG);
        store.take_over().unwrap();
        model.rebuild(&plan, store.as_mut()).unwrap();
        let before = model.clone();
        let mut snapshot = store.reader().unwrap();
        let mut rounds = 0;
        let mut written = 0;
        // Between any two rows that are read, rows before and behind them change.
        let each = &mut |_: &Row| {
            written += 1;
            if written % 500 == 0 && rounds < 60 {
                let from = model.position();
                for n in 0..300 {
                    let key = format!("k{}", (n * 37 + rounds * 101) % 5500);
                    match (n + rounds) % 3 {
                        0 => model.write(ORDERS, key.as_bytes(), None),
                        _ => model.order(&key, -n, "after"),
                    }
                }
                rounds += 1;
                store.apply(&model.batch(&plan, from)).unwrap();
            }
            ControlFlow::Continue(())
        };
        snapshot.scan(0, each).unwrap();
        assert_eq!((written, rounds), (5000, 10));
        model.rebuild(&plan, store.as_mut()).unwrap();
        let found = verify(&plan, &before, snapshot.as_mut()).unwrap();
        assert!(found.equal, "{shape:?} {partitions:?} {found:#?}");
        assert!(model.verify(&plan, store.as_mut()).equal);
        // A process whose writes this one cannot see ends the snapshot.
        let mut other = server.target.clone();
        other.url = Address::from(
            other
                .url
                .as_written()
                .replace("127.0.0.1", "localhost")
                .as_str(),
        );
        let mut other =
            RedisStore::open(&other, SINK, LOG, shaped(Arc::clone(&plan), shape)).unwrap();
        other.take_over().unwrap();
        let error = verify(&plan, &before, snapshot.as_mut())
            .unwrap_err()
            .to_string();
        assert!(error.contains("another process"), "{error}");
    }
}

#[test]
fn servers_that_would_lose_rows_are_refused_in_words() {
    require!(Kind::Redis);
    let harness = OneServer::new();
    let plan = conformance::standard_plan(&harness);
    let open = |url: &str| {
        let target = RedisTarget {
            url: Address::from(url),
            partitions: None,
            ca_file: None,
        };
        RedisStore::open(&target, SINK, LOG, Arc::clone(&plan)).unwrap_err()
    };
    let server = Redis::start_with(&["maxmemory=50mb", "maxmemory-policy=allkeys-lru"]);
    let error = open(&server.url()).to_string();
    assert!(error.contains("noeviction"), "{error}");
    server.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    let port = SERVER.port().to_string();
    server.command(&["REPLICAOF", "127.0.0.1", &port]);
    let error = open(&server.url()).to_string();
    assert!(error.contains("replica"), "{error}");
    server.command(&["REPLICAOF", "NO", "ONE"]);
    server.command(&["CONFIG", "SET", "requirepass", "right"]);
    for password in ["", ":wr0ng@", "user:wr0ng@"] {
        let url = server.url().replace("://", &format!("://{password}"));
        let error = open(&url);
        assert!(
            !error.is_retryable() && !error.to_string().contains("wr0ng"),
            "{error}"
        );
    }
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
        url: Address::from(url.as_str()),
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
fn a_full_memory_changes_nothing_and_is_waited_for() {
    require!(Kind::Redis);
    let server = Redis::start();
    let harness = OneServer::new();
    let target = RedisTarget {
        url: Address::from(server.url().as_str()),
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
            url: Address::from(format!("rediss://{host}:{port}").as_str()),
            partitions: None,
            ca_file: ca_file.map(std::path::Path::to_owned),
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
