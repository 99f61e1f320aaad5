//! Redis that is killed, cut off, restored, moved and full while a sink follows a log; and a
//! cluster of three.
//!
//! A reader in another thread looks at two rows and the position in one `MULTI … EXEC` all the
//! time: every transaction of the log changes both rows, so they must always agree.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use onelog::{NewTable, Node, Options, Position};
use onelog_mapping::Plan;
use onelog_redis::{RedisStore, RedisTarget};
use onelog_sinks::{SinkError, SinkState, SinkStatus, Sinks};
use onelog_store::conformance::{self, Capabilities, Harness, LOG, Model, ORDERS, SINK};
use onelog_store::{Batch, ServerAddress, SinkDefinition, Store, StoreError, failpoint};
use onelog_stores::KINDS;
use onelog_testkit::{Direction, Kind, Proxy, Redis, RedisCluster, Server, require};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(120);
const ROUNDS: usize = 20;
/// Rows of the table that grows, beside the two that must agree.
const KEYS: u64 = 500;

struct World {
    folder: tempfile::TempDir,
    node: Node,
    sinks: Sinks,
    written: AtomicU64,
}

impl World {
    fn new(url: &str, partitions: Option<u16>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (node, sinks) = open(folder.path());
        for table in ["t.left", "t.right", "t.many"] {
            node.create_table_blocking(NewTable::keyed(table)).unwrap();
        }
        let version = json!({"from": "$version", "type": "integer"});
        let columns = json!({"id": {"from": "$key", "type": "text"},
            "n": {"from": "n", "type": "integer"}, "at": version});
        let mut definition = json!({"name": "cache", "kind": "redis", "url": url, "mappings": [
            {"table": "t.left", "into": "left", "columns": columns},
            {"table": "t.right", "into": "right", "as": "hash", "columns": columns},
            {"table": "t.many", "into": "many", "columns": columns}]});
        if let Some(partitions) = partitions {
            definition["partitions"] = partitions.into();
        }
        let definition = SinkDefinition::from_json(KINDS, &definition).unwrap();
        let world = Self {
            folder,
            node,
            sinks,
            written: AtomicU64::new(0),
        };
        world.write(10);
        world.sinks.create(definition).unwrap();
        world.wait();
        world
    }

    /// So many transactions.
    fn write(&self, count: u64) -> Position {
        for _ in 0..count {
            let n = self.written.fetch_add(1, Ordering::Relaxed);
            let done = self.node.transact(|tx| {
                tx.put_json("t.left", "sum", &json!({"n": n}))?;
                tx.put_json("t.many", format!("k{}", n % KEYS), &json!({"n": n}))?;
                if n.is_multiple_of(7) {
                    tx.delete("t.many", format!("k{}", (n * 3) % KEYS))?;
                }
                tx.put_json("t.right", "sum", &json!({"n": n}))
            });
            done.unwrap();
        }
        self.node.position()
    }

    fn wait(&self) {
        let end = self.node.position();
        self.sinks.wait_blocking("cache", end, PATIENCE).unwrap();
    }

    /// Writes and waits until the store has it all and equals the log.
    fn assert_equal(&self) {
        self.write(5);
        self.wait();
        let found = self.sinks.verify("cache").unwrap();
        assert!(found.equal, "{found:#?}");
        assert_eq!((found.tables[0].rows, found.tables[1].rows), (1, 1));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.sinks.stop();
        let _ = self.node.stop();
        assert!(self.folder.path().exists());
    }
}

fn open(folder: &Path) -> (Node, Sinks) {
    let node = Node::open(Options::new(folder.join("log"))).unwrap();
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    (node, sinks)
}

#[derive(Default)]
struct Seen {
    looks: u64,
    whole: u64,
}

/// Looks at both rows and the position until `stop` is set; a server that is gone is queried again.
fn look(url: &str, stop: &AtomicBool) -> Seen {
    let client = redis::Client::open(url).unwrap();
    let mut seen = Seen::default();
    let mut connection = None;
    let mut newest = 0;
    while !stop.load(Ordering::Relaxed) {
        if connection.is_none() {
            connection = client
                .get_connection_with_timeout(Duration::from_secs(1))
                .ok();
            // Redis may have lost its newest steps when it was killed, but never goes back alive.
            newest = 0;
        }
        let Some(open) = connection.as_mut() else {
            std::thread::yield_now();
            continue;
        };
        type Answer = (Option<String>, Option<i64>, Option<u64>, Option<u64>);
        let answer: redis::RedisResult<Answer> = redis::pipe()
            .atomic()
            .cmd("GET")
            .arg("left:sum")
            .cmd("HGET")
            .arg("right:sum")
            .arg("n")
            .cmd("HGET")
            .arg("right:sum")
            .arg("at")
            .cmd("HGET")
            .arg("onelog:position:cache")
            .arg("position")
            .query(open);
        let Ok((left, right, at, position)) = answer else {
            connection = None;
            continue;
        };
        seen.looks += 1;
        let (Some(left), Some(right), Some(at), Some(position)) = (left, right, at, position)
        else {
            continue;
        };
        seen.whole += 1;
        let left: serde_json::Value = serde_json::from_str(&left).unwrap();
        assert_eq!(
            left["n"], right,
            "half a transaction at position {position}"
        );
        assert!(at < position, "a row of offset {at} at position {position}");
        assert!(
            position >= newest,
            "the position went back from {newest} to {position}"
        );
        newest = position;
    }
    seen
}

/// Runs `act` while others write and look.
fn under_load(world: &World, url: &str, act: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| look(url, &stop));
        let writer = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                world.write(20);
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        let seen = reader.join().unwrap();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        seen
    });
    assert!(
        seen.whole > 0,
        "the reader saw nothing in {} looks",
        seen.looks
    );
}

#[test]
fn redis_killed_under_load_gets_the_rest_again_and_never_shows_half_a_transaction() {
    require!(Kind::Redis);
    let server = Redis::start();
    let world = World::new(&server.url(), None);
    under_load(&world, &server.url(), || {
        for _ in 0..ROUNDS {
            let end = world.node.position();
            world.sinks.wait_blocking("cache", end, PATIENCE).unwrap();
            server.kill();
            server.start_again();
        }
    });
    world.assert_equal();
}

#[test]
fn a_commit_whose_answer_is_lost_counts_once() {
    require!(Kind::Redis);
    let server = Redis::start();
    let proxy = Proxy::in_front_of(&server);
    let world = World::new(&proxy.url_of(&server.url()), None);
    under_load(&world, &server.url(), || {
        for round in 0..ROUNDS {
            let cuts = proxy.cuts();
            match round % 2 {
                0 => proxy.cut_answer_after(b"EXEC"),
                _ => proxy.cut_after_bytes(Direction::ToServer, 3000 + 701 * round),
            }
            proxy.wait_for_cuts(cuts + 1);
            let end = world.node.position();
            world.sinks.wait_blocking("cache", end, PATIENCE).unwrap();
        }
    });
    world.assert_equal();
}

#[test]
fn redis_restored_from_an_older_copy_gets_the_rest_again() {
    require!(Kind::Redis);
    let server = Redis::start();
    let world = World::new(&server.url(), None);
    server.stop();
    let old = server.save_data();
    server.start_again();
    world.write(200);
    world.wait();
    server.stop();
    server.restore_data(&old);
    server.start_again();
    world.assert_equal();
}

#[test]
fn redis_without_persistence_is_backfilled_after_a_restart() {
    require!(Kind::Redis);
    let server = Redis::start_with(&["appendonly=no"]);
    let world = World::new(&server.url(), None);
    server.kill();
    server.start_again();
    world.assert_equal();
    // Emptied while it runs.
    server.command(&["FLUSHALL"]);
    world.assert_equal();
    let fault = world.sinks.get("cache").unwrap().last_error.unwrap();
    assert!(
        fault
            .what
            .contains("the store has no position of this sink"),
        "{fault}"
    );
}

#[test]
fn another_address_of_the_same_server_is_no_other_store() {
    require!(Kind::Redis);
    let server = Redis::start();
    let world = World::new(&server.url(), None);
    let mut by_name = world.sinks.definition("cache").unwrap().to_stored();
    by_name["url"] = server.url().replace("127.0.0.1", "localhost").into();
    let by_name = SinkDefinition::from_json(KINDS, &by_name).unwrap();
    // When what the sink writes is to be forgotten at another address, then that is refused.
    let error = world.sinks.forget(&by_name).unwrap_err();
    assert!(matches!(error, SinkError::StillThere { .. }), "{error}");
    world.assert_equal();
    // When it moves to that address, then it goes on where it was: nothing is written again.
    server.command(&["SET", "many:k3", "changed by hand"]);
    let remains = world.sinks.replace_and_leave(by_name).unwrap().remains;
    assert_eq!(remains, None);
    world.write(1);
    world.wait();
    assert_eq!(
        server.command(&["GET", "many:k3"]).trim(),
        "changed by hand"
    );
    assert!(world.sinks.verify_and_repair("cache").unwrap().equal);
}

#[test]
fn a_full_memory_holds_the_sink_until_there_is_room() {
    require!(Kind::Redis);
    let server = Redis::start();
    let world = World::new(&server.url(), None);
    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]);
    world.write(50);
    world
        .sinks
        .wait_blocking("cache", world.node.position(), Duration::from_millis(1))
        .unwrap_err();
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    world.assert_equal();
}

#[test]
fn a_request_that_waits_for_the_store_is_not_said_to_be_undone() {
    require!(Kind::Redis);
    // Given a sink whose store has a write, and does not answer.
    let server = Redis::start();
    let world = World::new(&server.url(), None);
    world.write(5);
    world.assert_equal();
    server.command(&["CLIENT", "PAUSE", "600000", "WRITE"]);
    world.write(1);
    let is_waiting = |line: &str| {
        let mut fields = line.split(' ');
        fields.any(|field| field.starts_with("flags=") && field.contains('b'))
    };
    while !server.command(&["CLIENT", "LIST"]).lines().any(is_waiting) {
        std::thread::yield_now();
    }
    // When a pause is requested, then the answer says that it may still come,
    let unanswered = world.sinks.pause("cache").unwrap_err();
    assert!(
        unanswered.to_string().contains("may still be carried out"),
        "{unanswered}"
    );
    // and it comes.
    server.command(&["CLIENT", "UNPAUSE"]);
    let is_paused = |status: &SinkStatus| status.state == SinkState::Paused;
    let status = world.sinks.wait_for_status("cache", PATIENCE, is_paused);
    assert!(status.is_ok(), "{status:?}");
}

/// One cluster for the tests below, which take turns.
struct Cluster {
    servers: Arc<RedisCluster>,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Cluster {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(options: &[&str]) -> Self {
        let turn = TURN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Self {
            servers: Arc::new(RedisCluster::start_with(3, options)),
            _turn: turn,
        }
    }

    /// All nodes, separated by commas.
    fn url(&self) -> String {
        let hosts: Vec<String> = self.servers.nodes().iter().map(host).collect();
        format!("redis://{}", hosts.join(","))
    }
}

impl Cluster {
    /// The value of the only key that ends so.
    fn row(&self, key: &str) -> String {
        for node in self.servers.nodes() {
            let name = node.command(&["KEYS", &format!("*orders:{key}")]);
            if !name.trim().is_empty() {
                return node.command(&["GET", name.trim()]);
            }
        }
        String::new()
    }
}

fn host(node: &Redis) -> String {
    format!("127.0.0.1:{}", node.port())
}

struct InCluster {
    target: RedisTarget,
}

impl InCluster {
    fn new(cluster: &Cluster) -> Self {
        for node in cluster.servers.nodes() {
            node.command(&["FLUSHALL"]);
        }
        let target = RedisTarget {
            server: ServerAddress::from(cluster.url().as_str()),
            partitions: Some(64),
        };
        Self { target }
    }

    fn store(&self, plan: &Arc<Plan>) -> RedisStore {
        RedisStore::open(&self.target, SINK, LOG, Arc::clone(plan)).unwrap()
    }
}

impl Harness for InCluster {
    fn open_as(&self, sink: &str, plan: Arc<Plan>, log_id: &str) -> Box<dyn Store> {
        Box::new(RedisStore::open(&self.target, sink, log_id, plan).unwrap())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            full_text: false,
            atomic: false,
            ..Capabilities::ALL
        }
    }

    fn kind(&self) -> &'static dyn onelog_store::StoreKind {
        &onelog_redis::KIND
    }
}

#[test]
fn a_cluster_keeps_the_contract_of_every_store() {
    require!(Kind::Redis);
    let cluster = Cluster::start();
    conformance::all(&|| Box::new(InCluster::new(&cluster)));
}

#[test]
fn a_batch_that_ended_in_the_middle_of_a_cluster_is_finished_and_nothing_goes_back() {
    require!(Kind::Redis);
    // Otherwise a killed node forgets up to two seconds, which is another story.
    let cluster = Cluster::start_with(&["appendfsync=always"]);
    let harness = InCluster::new(&cluster);
    let plan = conformance::standard_plan(&harness);
    let open = || RedisStore::open(&harness.target, "midway", LOG, Arc::clone(&plan)).unwrap();
    let mut model = Model::default();
    model.order("a", 1, "one");
    let mut store = open();
    store.take_over().unwrap();
    model.rebuild(&plan, &mut store).unwrap();
    let start = model.position();
    for n in 0..300 {
        model.order(&format!("k{n}"), n, "first");
    }
    let (middle, first) = (model.position(), model.batch(&plan, start));
    for n in 0..300 {
        model.order(&format!("k{n}"), -n, "second");
    }
    let whole = model.batch(&plan, start);
    // One node dies when all have been sent theirs: the others do their parts of the long batch.
    let servers = Arc::clone(&cluster.servers);
    failpoint::set("midway:before_commit", move || servers.nodes()[2].kill());
    let error = store.apply(&whole).unwrap_err();
    failpoint::clear("midway:before_commit");
    assert!(error.is_retryable(), "{error}");
    cluster.servers.nodes()[2].start_again();
    cluster.servers.wait_until_whole();
    let mut store = open();
    store.take_over().unwrap();
    assert_eq!(store.position().unwrap().unwrap().position, start);
    // A snapshot needs all partitions at one position.
    let snapshot = store.reader().err().expect("no snapshot");
    assert!(snapshot.is_retryable(), "{snapshot}");
    // A shorter batch is no step back for the partitions that are further.
    store.apply(&first).unwrap();
    assert_eq!(store.position().unwrap().unwrap().position, middle);
    let second = "\"note\":\"second\"";
    let ahead = (0..300).filter(|n| cluster.row(&format!("k{n}")).contains(second));
    assert!((1..300).contains(&ahead.count()));
    store.apply(&model.batch(&plan, middle)).unwrap();
    let found = model.verify(&plan, &mut store);
    assert!(found.equal, "{found:#?}");
}

#[test]
fn moved_slots_and_a_killed_node_are_survived_by_a_cluster() {
    require!(Kind::Redis);
    let cluster = Cluster::start();
    InCluster::new(&cluster);
    let world = World::new(&cluster.url(), Some(64));
    let nodes = cluster.servers.nodes();
    for round in 0..6 {
        let node = &nodes[round % 3];
        world.write(100);
        node.kill();
        world.write(100);
        node.start_again();
        cluster.servers.wait_until_whole();
        world.wait();
    }
    world.assert_equal();
    // The slots of two partitions go to another node, with their keys, while the sink follows.
    for tag in ["p003", "p017"] {
        let slot = nodes[0].command(&["CLUSTER", "KEYSLOT", tag]);
        move_slot(nodes, slot.trim());
        world.write(100);
    }
    world.wait();
    world.assert_equal();
}

/// Moves a slot and its keys to the next node.
fn move_slot(nodes: &[Redis], slot: &str) {
    let ids: Vec<String> = nodes
        .iter()
        .map(|node| node.command(&["CLUSTER", "MYID"]).trim().to_owned())
        .collect();
    let keys = |node: &Redis| node.command(&["CLUSTER", "COUNTKEYSINSLOT", slot]);
    let from = (0..3).find(|n| keys(&nodes[*n]).trim() != "0").unwrap();
    let to = (from + 1) % 3;
    nodes[to].command(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &ids[from]]);
    nodes[from].command(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &ids[to]]);
    let port = nodes[to].port().to_string();
    loop {
        let names = nodes[from].command(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]);
        let names: Vec<&str> = names.split_whitespace().collect();
        if names.is_empty() {
            break;
        }
        let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        command.extend(names);
        nodes[from].command(&command);
    }
    for node in [to, from, (to + 1) % 3] {
        nodes[node].command(&["CLUSTER", "SETSLOT", slot, "NODE", &ids[to]]);
    }
}

#[test]
fn two_processes_at_a_cluster_never_get_the_same_epoch() {
    require!(Kind::Redis);
    let cluster = Cluster::start();
    let harness = InCluster::new(&cluster);
    let plan = conformance::standard_plan(&harness);
    let (mut one, mut model) = conformance::backfilled(&harness, &plan);
    let mut other = harness.store(&plan);
    let mut last = 1;
    for _ in 0..10 {
        let epochs: Vec<u64> = std::thread::scope(|scope| {
            let rivals: Vec<&mut dyn Store> = vec![one.as_mut(), &mut other];
            let threads = rivals.into_iter().map(|rival| {
                scope.spawn(|| match rival.take_over() {
                    Ok(epoch) => Some(epoch),
                    Err(StoreError::Fenced { .. }) => None,
                    Err(error) => panic!("{error}"),
                })
            });
            let threads: Vec<_> = threads.collect();
            threads
                .into_iter()
                .filter_map(|t| t.join().unwrap())
                .collect()
        });
        assert!(
            !epochs.is_empty() && epochs.iter().all(|epoch| *epoch > last),
            "{epochs:?}"
        );
        assert!(epochs.len() < 2 || epochs[0] != epochs[1]);
        last = *epochs.iter().max().unwrap();
    }
    // One of them is the later one everywhere.
    let from = model.position();
    model.write(ORDERS, b"a", None);
    let batch: Batch = model.batch(&plan, from);
    let outcomes = [one.apply(&batch), other.apply(&batch)];
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
        1,
        "{outcomes:?}"
    );
    let mut store = harness.store(&plan);
    assert!(Model::verify(&model, &plan, &mut store).equal);
}
