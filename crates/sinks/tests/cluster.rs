//! Sinks in a cluster: real nodes on loopback, one store that they share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../../node/tests/cluster/rig.rs"]
mod rig;

use std::collections::{BTreeMap, HashSet};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use onelog::record::{TABLE_SINK_POSITIONS, TABLE_SINKS};
use onelog::{NewTable, NodeId, Options, Position};
use onelog_sinks::{DeclareError, DropTableError, SinkError, SinkState, Sinks};
use onelog_store::{SinkDefinition, failpoint};
use onelog_stores::KINDS;
use onelog_testkit::{Postgres, Server};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::rig::{Cluster, PATIENCE, small};

const SINK: &str = "orders";

/// The store that all nodes reach.
enum Store {
    Sqlite(tempfile::TempDir),
    Postgres(Postgres),
}

impl Store {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    fn target(&self) -> Value {
        match self {
            Self::Sqlite(folder) => {
                json!({"kind": "sqlite", "path": folder.path().join("store.db")})
            }
            Self::Postgres(server) => json!({"kind": "postgres", "url": server.url()}),
        }
    }

    /// The number that a query finds.
    fn number(&self, sql: &str) -> i64 {
        match self {
            Self::Sqlite(folder) => {
                let store = Self::open(folder);
                store.query_row(sql, [], |row| row.get(0)).unwrap()
            }
            Self::Postgres(server) => server.sql(sql).parse().unwrap(),
        }
    }

    fn change(&self, sql: &str) {
        match self {
            Self::Sqlite(folder) => drop(Self::open(folder).execute(sql, []).unwrap()),
            Self::Postgres(server) => drop(server.sql(sql)),
        }
    }

    fn open(folder: &tempfile::TempDir) -> Connection {
        let store = Connection::open(folder.path().join("store.db")).unwrap();
        store.busy_timeout(PATIENCE).unwrap();
        store
    }
}

/// The sinks end before their nodes, and these before the store.
struct World {
    sinks: BTreeMap<u64, Sinks>,
    cluster: Cluster,
    store: Store,
}

impl World {
    fn of_three() -> Self {
        Self::with(small, Store::Postgres(Postgres::start()))
    }

    fn with(options: fn(Options) -> Options, store: Store) -> Self {
        let mut cluster = Cluster::empty();
        cluster.options = options;
        cluster.place(1);
        cluster.start(1, &[]).unwrap();
        cluster.join(2);
        cluster.join(3);
        let made = cluster
            .get(1)
            .create_table_blocking(NewTable::keyed("shop.orders"));
        made.unwrap();
        let mut world = Self {
            sinks: BTreeMap::new(),
            cluster,
            store,
        };
        for id in [1, 2, 3] {
            world.start_sinks(id);
        }
        world
    }

    fn start_sinks(&mut self, id: u64) {
        let sinks = Sinks::start(self.cluster.get(id).clone(), KINDS).unwrap();
        self.sinks.insert(id, sinks);
    }

    fn stop(&mut self, id: u64) {
        self.sinks.remove(&id).unwrap().stop();
        self.cluster.stop(id);
    }

    fn definition(&self, name: &str, more: &Value) -> SinkDefinition {
        let mut value = json!({
            "name": name,
            "mappings": [{"table": "shop.orders", "into": name, "columns": {
                "id": {"from": "$key", "type": "text"},
                "total": {"from": "/total", "type": "integer"}}}],
        });
        let target = self.store.target();
        let target = target.as_object().unwrap().clone();
        for (field, more) in target.iter().chain(more.as_object().unwrap()) {
            value[field] = more.clone();
        }
        SinkDefinition::from_json(KINDS, &value).unwrap()
    }

    fn epoch(&self, name: &str) -> i64 {
        let sql = format!("SELECT epoch FROM onelog_position WHERE sink = '{name}'");
        self.store.number(&sql)
    }

    fn total(&self, name: &str, key: &str) -> i64 {
        let sql = format!("SELECT total FROM {name} WHERE id = '{key}'");
        self.store.number(&sql)
    }

    fn put(&self, id: u64, key: &str, total: i64) -> Position {
        let made = self
            .cluster
            .get(id)
            .transact(|tx| tx.put_json("shop.orders", key, &json!({"total": total})));
        made.unwrap().position
    }

    /// Waits until the sinks of a node are so.
    #[track_caller]
    fn until(&self, id: u64, is_so: impl Fn(&Sinks) -> bool) {
        let sinks = &self.sinks[&id];
        let waited = self
            .cluster
            .get(id)
            .wait_for_cluster(PATIENCE, |_| is_so(sinks));
        waited.unwrap_or_else(|error| panic!("node {id}: {error}: {:#?}", sinks.list()));
    }

    #[track_caller]
    fn until_state(&self, id: u64, name: &str, state: SinkState, runs_on: u64) {
        self.until(id, |sinks| {
            sinks
                .get(name)
                .is_ok_and(|status| status.state == state && status.runs_on == Some(runs_on))
        });
    }

    fn lead(&self, to: u64) {
        let via = self.cluster.any();
        self.cluster
            .get(via)
            .transfer_leadership_blocking(NodeId(to))
            .unwrap();
        self.cluster.wait(to, |status| status.leads);
    }
}

#[test]
fn a_sink_runs_on_the_leader_alone_and_moves_with_the_leadership() {
    // Given a sink that was defined on a node which follows,
    let world = World::of_three();
    world.lead(1);
    let status = world.sinks[&3]
        .create(world.definition(SINK, &json!({})))
        .unwrap();
    assert_eq!(
        (status.state, status.runs_on),
        (SinkState::Elsewhere, Some(1))
    );
    let follows = world.sinks[&2].drop_table("shop.orders");
    assert!(matches!(follows, Err(DropTableError::Followed { .. })));
    // then it runs on the leader, and any node waits for it,
    world.until_state(1, SINK, SinkState::Running, 1);
    let mut total = 1;
    let at = world.put(3, "a", total);
    let reached = world.sinks[&3].wait_blocking(SINK, at, PATIENCE).unwrap();
    assert!(reached.position >= Some(at), "{reached:?}");
    assert_eq!(world.total(SINK, "a"), 1);
    // and the others show where, and nothing that they cannot know.
    for id in [2, 3] {
        world.until_state(id, SINK, SinkState::Elsewhere, 1);
        let status = world.sinks[&id].get(SINK).unwrap();
        assert_eq!((status.position, status.lag_records), (None, None));
        assert_eq!((status.lag_seconds, status.last_error), (None, None));
        let refused = world.sinks[&id].pause(SINK).unwrap_err();
        let SinkError::Elsewhere { runs_on, .. } = refused else {
            panic!("{refused}");
        };
        assert_eq!(runs_on, Some(1));
        assert!(world.sinks[&id].rebuild(SINK).is_err());
        assert!(world.sinks[&id].verify(SINK).is_err());
        assert!(world.sinks[&id].delete(SINK).is_err());
    }
    // When the leadership moves on,
    for leader in [2, 3, 1] {
        let epoch = world.epoch(SINK);
        world.lead(leader);
        // then so does the sink, with a higher epoch, though nothing was written meanwhile;
        world.until_state(leader, SINK, SinkState::Running, leader);
        assert!(world.epoch(SINK) > epoch);
        for id in [1, 2, 3].into_iter().filter(|id| *id != leader) {
            world.until_state(id, SINK, SinkState::Elsewhere, leader);
        }
        total += 1;
        let at = world.put(leader % 3 + 1, "a", total);
        world.sinks[&(leader % 3 + 1)]
            .wait_blocking(SINK, at, PATIENCE)
            .unwrap();
        assert_eq!(world.total(SINK, "a"), total);
        assert!(world.sinks[&leader].verify(SINK).unwrap().equal);
    }
}

#[test]
fn the_next_leader_knows_of_pauses_parked_keys_and_deletions() {
    // Given a sink on the leader,
    let world = World::of_three();
    world.lead(1);
    world.sinks[&1]
        .create(world.definition(SINK, &json!({"on_refused": "park"})))
        .unwrap();
    world.until_state(1, SINK, SinkState::Running, 1);
    // which has parked a key,
    let put = world
        .cluster
        .get(2)
        .transact(|tx| tx.put_json("shop.orders", "bad", &json!({"total": "many"})));
    let at = put.unwrap().position;
    world.sinks[&2].wait_blocking(SINK, at, PATIENCE).unwrap();
    assert_eq!(world.sinks[&2].get(SINK).unwrap().parked, 1);
    let table = world.cluster.get(3).catalog();
    let table = table.by_name("shop.orders").unwrap().id;
    let request = rig::request(table, "good", "{\"total\": 1}");
    let names = [SINK.to_owned()];
    let (_, waited) = world.sinks[&3]
        .submit_and_wait(request, &names, PATIENCE)
        .unwrap();
    let waited = &waited[SINK];
    assert!(waited.reached && waited.parked == Some(1), "{waited:?}");
    // when it is paused, and another node leads, then it is there, too;
    assert_eq!(
        world.sinks[&1].pause(SINK).unwrap().state,
        SinkState::Paused
    );
    world.lead(2);
    world.until_state(2, SINK, SinkState::Paused, 2);
    world.until(2, |sinks| sinks.get(SINK).unwrap().parked == 1);
    world.sinks[&2].resume(SINK).unwrap();
    world.until_state(2, SINK, SinkState::Running, 2);
    // and when it is deleted, all nodes forget it.
    world.sinks[&2].delete(SINK).unwrap();
    for id in [1, 2, 3] {
        world.until(id, |sinks| {
            matches!(sinks.get(SINK), Err(SinkError::Unknown { .. }))
        });
        let row = |table| world.cluster.get(id).snapshot().get(table, SINK.as_bytes());
        assert!(row(TABLE_SINKS).unwrap().is_none());
        assert!(row(TABLE_SINK_POSITIONS).unwrap().is_none());
    }
}

#[test]
fn a_former_leader_that_is_about_to_write_is_shut_out_by_the_next_one() {
    // Given a sink on the leader,
    let (name, world) = ("fenced", World::of_three());
    world.lead(1);
    world.sinks[&1]
        .create(world.definition(name, &json!({})))
        .unwrap();
    let at = world.put(1, "a", 1);
    world.sinks[&1].wait_blocking(name, at, PATIENCE).unwrap();
    // which has read a batch and hangs before it writes it,
    let (entered, has_entered) = channel();
    let (release, released) = channel::<()>();
    let gate = Mutex::new(Some((entered, released)));
    failpoint::set(&format!("{name}:before_apply"), move || {
        let first = gate.lock().unwrap().take();
        if let Some((entered, released)) = first {
            entered.send(std::thread::current().id()).unwrap();
            let _ = released.recv();
        }
    });
    world.put(1, "a", 2);
    let old_thread = has_entered.recv_timeout(PATIENCE).unwrap();
    let committed: Arc<Mutex<HashSet<ThreadId>>> = Arc::default();
    let seen = Arc::clone(&committed);
    failpoint::set(&format!("{name}:after_commit"), move || {
        seen.lock().unwrap().insert(std::thread::current().id());
    });
    // when another node leads, and its sink writes that and more,
    world.lead(2);
    world.until_state(1, name, SinkState::Elsewhere, 2);
    let at = world.put(2, "a", 3);
    world.sinks[&2].wait_blocking(name, at, PATIENCE).unwrap();
    let epoch = world.epoch(name);
    // then the former leader, which goes on now, writes nothing.
    drop(release);
    world.sinks[&1].stop();
    assert!(!committed.lock().unwrap().contains(&old_thread));
    assert!(!committed.lock().unwrap().is_empty());
    assert_eq!(world.total(name, "a"), 3);
    assert_eq!(world.epoch(name), epoch);
    assert!(world.sinks[&2].verify(name).unwrap().equal);
    for event in ["before_apply", "after_commit"] {
        failpoint::clear(&format!("{name}:{event}"));
    }
}

#[test]
fn a_sink_runs_on_the_node_that_it_names_and_on_the_leader_while_that_is_gone() {
    // Given a sink that names a node which follows, and whose store every node reaches,
    let mut world = World::of_three();
    world.lead(1);
    let definition = world.definition(SINK, &json!({"run_on": 3}));
    world.sinks[&1].create(definition).unwrap();
    world.until_state(3, SINK, SinkState::Running, 3);
    world.until_state(1, SINK, SinkState::Elsewhere, 3);
    let at = world.put(2, "a", 1);
    world.sinks[&2].wait_blocking(SINK, at, PATIENCE).unwrap();
    // when that node stops,
    world.stop(3);
    // then the leader runs it,
    world.until_state(1, SINK, SinkState::Running, 1);
    let at = world.put(2, "a", 2);
    world.sinks[&2].wait_blocking(SINK, at, PATIENCE).unwrap();
    assert_eq!(world.total(SINK, "a"), 2);
    // until it is back.
    world.cluster.start(3, &[1, 2]).unwrap();
    world.start_sinks(3);
    world.until_state(1, SINK, SinkState::Elsewhere, 3);
    world.until_state(3, SINK, SinkState::Running, 3);
    let at = world.put(2, "a", 3);
    world.sinks[&1].wait_blocking(SINK, at, PATIENCE).unwrap();
    assert_eq!(world.total(SINK, "a"), 3);
    // Another definition moves it, and backfills nothing.
    let ghost = format!("INSERT INTO {SINK} (id, total) VALUES ('ghost', 7)");
    world.store.change(&ghost);
    let definition = world.definition(SINK, &json!({"run_on": 2}));
    world.sinks[&3].replace(definition).unwrap();
    world.until_state(2, SINK, SinkState::Running, 2);
    world.until_state(3, SINK, SinkState::Elsewhere, 2);
    let at = world.put(1, "a", 4);
    world.sinks[&3].wait_blocking(SINK, at, PATIENCE).unwrap();
    assert_eq!((world.total(SINK, "a"), world.total(SINK, "ghost")), (4, 7));
}

#[test]
fn a_sink_whose_store_is_on_one_machine_waits_for_its_node_or_for_another_definition() {
    // Given a sink with a file on the machine of a node which follows, and which it has to name,
    let mut world = World::with(small, Store::sqlite());
    world.lead(1);
    let refused = world.sinks[&1].create(world.definition(SINK, &json!({})));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("needs the number of a node"), "{refused}");
    let definition = world.definition(SINK, &json!({"run_on": 3}));
    world.sinks[&1].create(definition).unwrap();
    let at = world.put(2, "a", 1);
    world.sinks[&2].wait_blocking(SINK, at, PATIENCE).unwrap();
    // when that node stops,
    world.stop(3);
    // then the sink waits for it, and says so to each request,
    for id in [1, 2] {
        world.until(id, |sinks| {
            let status = sinks.get(SINK).unwrap();
            status.waits_for == Some(3) && status.runs_on.is_none()
        });
        let refused = world.sinks[&id].pause(SINK).unwrap_err();
        assert!(
            matches!(refused, SinkError::NodeLost { node: 3, .. }),
            "{refused}"
        );
    }
    let at = world.put(2, "a", 2);
    let waited = world.sinks[&2].wait_blocking(SINK, at, Duration::ZERO);
    assert!(
        matches!(waited, Err(SinkError::NodeLost { .. })),
        "{waited:?}"
    );
    assert_eq!(world.total(SINK, "a"), 1);
    // and goes on when it is back.
    world.cluster.start(3, &[1, 2]).unwrap();
    world.start_sinks(3);
    world.sinks[&2].wait_blocking(SINK, at, PATIENCE).unwrap();
    assert_eq!(world.total(SINK, "a"), 2);
    // When it is lost for good, any node gives the sink another one,
    world.stop(3);
    world.until(2, |sinks| sinks.get(SINK).unwrap().waits_for == Some(3));
    let definition = world.definition(SINK, &json!({"run_on": 1}));
    let remains = world.sinks[&2]
        .replace_and_leave(definition)
        .unwrap()
        .remains;
    // which goes on, and the answer says what stays on the lost machine.
    let at = world.put(2, "a", 3);
    world.sinks[&2].wait_blocking(SINK, at, PATIENCE).unwrap();
    world.until_state(1, SINK, SinkState::Running, 1);
    assert_eq!(world.total(SINK, "a"), 3);
    let why = remains.unwrap().why;
    assert!(why.contains("on the machine of node 3"), "{why}");
}

#[test]
fn what_any_node_declares_of_a_sink_is_in_force_where_it_runs() {
    // Given a sink on the leader,
    let world = World::of_three();
    world.lead(1);
    let definition = world.definition(SINK, &json!({}));
    world.sinks[&1].create(definition).unwrap();
    let at = world.put(1, "a", 7);
    world.sinks[&1].wait_blocking(SINK, at, PATIENCE).unwrap();
    world.until_state(2, SINK, SinkState::Elsewhere, 1);
    // when another node starts with a file that declares it with another table,
    let mapping = json!({"table": "shop.orders", "into": "renamed", "columns": {
        "id": {"from": "$key", "type": "text"},
        "total": {"from": "/total", "type": "integer"}}});
    let declared = world.definition(SINK, &json!({"mappings": [mapping]}));
    world.sinks[&2].declare(declared).unwrap();
    // then the leader follows into that one,
    let at = world.put(3, "b", 8);
    world.sinks[&1].wait_blocking(SINK, at, PATIENCE).unwrap();
    assert_eq!(world.total("renamed", "a"), 7);
    assert_eq!(world.total("renamed", "b"), 8);
    // and a definition that the leader refuses is not in force, with the reason.
    let mapping = json!({"table": "shop.unknown", "into": "renamed"});
    let wrong = world.definition(SINK, &json!({"mappings": [mapping]}));
    let error = world.sinks[&2].declare(wrong).unwrap_err();
    assert!(
        matches!(error, DeclareError::Refused { node: 1, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("shop.unknown"), "{error}");
    assert!(world.sinks[&1].verify(SINK).unwrap().equal);
}

#[test]
fn a_store_that_is_ahead_of_the_log_is_named_by_the_next_leader_as_well() {
    // Given a sink whose store says that it has more than the log,
    let world = World::of_three();
    world.lead(1);
    world.sinks[&1]
        .create(world.definition(SINK, &json!({})))
        .unwrap();
    let at = world.put(1, "a", 1);
    world.sinks[&1].wait_blocking(SINK, at, PATIENCE).unwrap();
    world.sinks[&1].pause(SINK).unwrap();
    let moved = "UPDATE onelog_position SET position = position + 1000";
    world.store.change(moved);
    // when another node leads,
    world.lead(2);
    world.until_state(2, SINK, SinkState::Stopped, 2);
    // then it says so, and those who wait elsewhere hear it.
    let fault = world.sinks[&2].get(SINK).unwrap().last_error.unwrap();
    assert!(fault.what.contains("but the log ends at"), "{fault}");
    let heard = world.sinks[&3].wait_blocking(SINK, at, PATIENCE);
    let Err(SinkError::Stopped { fault, .. }) = heard else {
        panic!("{heard:?}");
    };
    assert!(fault.what.contains("but the log ends at"), "{fault}");
}

#[test]
fn nodes_on_which_a_sink_does_not_run_keep_the_log_for_it_and_no_more() {
    // Given nodes that keep as little of the log as they may, and a sink on the leader,
    let little = |options| Options {
        retain_bytes: Some(0),
        ..small(options)
    };
    let world = World::with(little, Store::Postgres(Postgres::start()));
    world.lead(1);
    world.sinks[&1]
        .create(world.definition(SINK, &json!({})))
        .unwrap();
    world.until_state(1, SINK, SinkState::Running, 1);
    let follower = world.cluster.get(2);
    let hold = || {
        let slowest = follower.status().slowest_follower;
        slowest.map(|slowest| (slowest.name, slowest.position))
    };
    let floor = || {
        let row = follower
            .snapshot()
            .get(TABLE_SINK_POSITIONS, SINK.as_bytes());
        let row: Option<Value> = row
            .unwrap()
            .map(|row| serde_json::from_slice(&row.value).unwrap());
        row.map_or(0, |row| row["position"].as_u64().unwrap())
    };
    // when much is written that cannot be compressed,
    let text = || -> String {
        let words = (0..1_000).map(|_| format!("{:016x}", rand::random::<u64>()));
        words.collect()
    };
    let write = |from: u64| {
        let mut last = Position::ZERO;
        for n in from..from + 60 {
            let value = json!({"total": n, "text": text()});
            let put = world
                .cluster
                .get(1)
                .transact(|tx| tx.put_json("shop.orders", format!("k{n}"), &value));
            last = put.unwrap().position;
        }
        last
    };
    let at = write(0);
    world.sinks[&1].wait_blocking(SINK, at, PATIENCE).unwrap();
    // then a follower hears how far the sink is, and lets go of what lies below;
    world.until(2, |_| {
        hold().is_some_and(|(name, held)| name == "sink orders" && held.get() + 45 > at.get())
    });
    world.until(2, |_| follower.log_start() > Position::ZERO);
    assert!(follower.log_start().get() <= floor());
    // and with what it has kept the sink goes on there, without a backfill.
    let ghost = format!("INSERT INTO {SINK} (id, total) VALUES ('ghost', 7)");
    world.store.change(&ghost);
    let at = write(60);
    world.lead(2);
    world.until_state(2, SINK, SinkState::Running, 2);
    world.sinks[&3].wait_blocking(SINK, at, PATIENCE).unwrap();
    assert_eq!(world.total(SINK, "k119"), 119);
    assert_eq!(world.total(SINK, "ghost"), 7);
}

#[test]
fn a_sink_that_was_shut_out_by_a_node_without_a_right_to_it_takes_its_store_back() {
    // Given a sink on the leader,
    let world = World::of_three();
    world.lead(1);
    world.sinks[&1]
        .create(world.definition(SINK, &json!({})))
        .unwrap();
    let at = world.put(1, "a", 1);
    world.sinks[&1].wait_blocking(SINK, at, PATIENCE).unwrap();
    // when another process takes the store over, and then nothing more comes of it,
    world
        .store
        .change("UPDATE onelog_position SET epoch = epoch + 1");
    let epoch = world.epoch(SINK);
    // then the leader takes it back, and goes on.
    let at = world.put(1, "a", 2);
    world.sinks[&3].wait_blocking(SINK, at, PATIENCE).unwrap();
    assert_eq!(world.total(SINK, "a"), 2);
    assert!(world.epoch(SINK) > epoch);
}
