//! OpenSearch under faults: killed under load, answers lost, data from yesterday, a full disk, a
//! server that turns requests away, rivals. After each the store equals the log and every document
//! was written once for its record.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use onelog::{NewTable, Node, Options, Position};
use onelog_mapping::{Cell, Plan};
use onelog_record::TableId;
use onelog_search::{ElasticsearchStore, ElasticsearchTarget};
use onelog_sinks::Sinks;
use onelog_store::conformance::{self, LOG, Model, SINK};
use onelog_store::{ServerAddress, SinkDefinition, Store, StoreError, StoreKind as _, StoreReader};
use onelog_stores::KINDS;
use onelog_testkit::{Kind, OpenSearch, Proxy, Server, require};
use serde_json::{Value, json};

/// How often the server is killed; each time it takes many seconds to start. With `ONELOG_TEST_FULL`
/// 20 times.
const KILLS: usize = 3;
/// How often two processes take a sink from each other.
const TAKEOVERS: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(120);
const BLOBS: TableId = TableId(1025);
/// Every transaction writes the same number to a row of both.
const PAIR: &str = r#"{"table":"shop.orders","into":"left","columns":{
    "id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"integer"}}},
  {"table":"shop.blobs","into":"right","columns":{
    "id":{"from":"$key","type":"text"},"total":{"from":"$value","type":"text"}}}"#;

/// A server's address.
struct Place(ElasticsearchTarget);

impl Place {
    fn at(url: &str) -> Self {
        Self(ElasticsearchTarget {
            server: ServerAddress::from(url),
        })
    }

    fn try_open(&self, sink: &str, plan: &Arc<Plan>) -> Result<ElasticsearchStore, StoreError> {
        ElasticsearchStore::open(&self.0, sink, LOG, Arc::clone(plan))
    }

    fn store(&self, plan: &Arc<Plan>) -> ElasticsearchStore {
        self.try_open(SINK, plan).unwrap()
    }
}

fn plan_of(mappings: &str) -> Arc<Plan> {
    let rules = onelog_search::KIND.rules();
    Arc::new(conformance::plan_by(rules, mappings))
}

fn transact(model: &mut Model, number: i64) {
    let key = format!("k{}", number % 50);
    model.order(&key, number, "a note");
    model.write(BLOBS, key.as_bytes(), Some(&number.to_string()));
}

fn backfilled(place: &Place) -> (ElasticsearchStore, Model, Arc<Plan>) {
    let plan = plan_of(PAIR);
    let mut model = Model::default();
    for n in 0..20 {
        transact(&mut model, n);
    }
    let mut store = place.store(&plan);
    store.take_over().unwrap();
    model.rebuild(&plan, &mut store).unwrap();
    (store, model, plan)
}

fn assert_equal(plan: &Plan, model: &Model, store: &mut dyn Store) {
    let verification = model.verify(plan, store);
    assert!(verification.equal, "{verification:#?}");
    assert_eq!(verification.position, model.position());
}

fn request(server: &OpenSearch, method: &str, path: &str, body: &str) -> Value {
    let (status, answer) = server.request(method, path, body);
    assert!(status < 300, "{method} {path}: {status} {answer}");
    serde_json::from_str(&answer).unwrap()
}

/// A document that was written twice for one record would have a higher version than its record's.
fn assert_written_once(server: &OpenSearch, name: &str) {
    request(server, "POST", &format!("/{name}/_refresh"), "");
    let found = request(
        server,
        "GET",
        &format!("/{name}/_search?version=true&size=1000"),
        "",
    );
    let hits = found["hits"]["hits"].as_array().unwrap();
    assert!(!hits.is_empty());
    for hit in hits {
        let offset = hit["_source"]["_onelog"]["offset"].as_u64().unwrap();
        assert_eq!(hit["_version"].as_u64().unwrap(), offset + 1, "{hit}");
    }
}

/// At the barrier each pair of rows says the same.
fn assert_whole_transactions(reader: &mut dyn StoreReader) {
    let mut sides = [Vec::new(), Vec::new()];
    for (number, side) in sides.iter_mut().enumerate() {
        let scanned = reader.scan(number, &mut |row| {
            let total = match &row.cells[1] {
                Cell::Integer(number) => number.to_string(),
                Cell::Text(text) => text.clone(),
                other => panic!("{other:?}"),
            };
            side.push((format!("{:?}", row.cells[0]), total));
            ControlFlow::Continue(())
        });
        // The server may be killed while it is read.
        if scanned.is_err() {
            return;
        }
        side.sort();
    }
    assert_eq!(
        sides[0],
        sides[1],
        "half a transaction at {}",
        reader.position()
    );
}

/// Opens the store and takes it over, however long the server is away.
fn reopen(
    place: &Place,
    plan: &Arc<Plan>,
    server_is_back: &mpsc::Receiver<()>,
) -> ElasticsearchStore {
    loop {
        let opened = place
            .try_open(SINK, plan)
            .and_then(|mut store| store.take_over().map(|_| store));
        match opened {
            Ok(store) => return store,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                // Either it is still down, or it was killed again since.
                let _ = server_is_back.recv_timeout(PATIENCE);
            }
        }
    }
}

#[test]
fn a_server_killed_under_load_ends_equal_to_the_log() {
    require!(Kind::OpenSearch);
    let server = OpenSearch::start();
    let place = Place::at(&server.url());
    let (mut store, mut model, plan) = backfilled(&place);
    let stop = AtomicBool::new(false);
    let snapshots = AtomicUsize::new(0);
    let (back, server_is_back) = mpsc::channel();
    let (applied, batches) = mpsc::channel();
    std::thread::scope(|scope| {
        let (place, plan, stop, snapshots) = (&place, &plan, &stop, &snapshots);
        let writer = scope.spawn(move || {
            for n in 20.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                (0..10).for_each(|more| transact(&mut model, n * 10 + more));
                loop {
                    let at = match store.position() {
                        Ok(at) => at.expect("it was backfilled").position,
                        Err(error) => {
                            assert!(error.is_retryable(), "{error}");
                            store = reopen(place, plan, &server_is_back);
                            continue;
                        }
                    };
                    if at == model.position() {
                        break;
                    }
                    let applied = store.apply(&model.batch(plan, at));
                    match applied.and_then(|()| store.publish()) {
                        Ok(()) => {}
                        Err(error) => {
                            assert!(error.is_retryable(), "{error}");
                            store = reopen(place, plan, &server_is_back);
                        }
                    }
                }
                let _ = applied.send(());
            }
            (store, model)
        });
        scope.spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let opened = place.try_open(SINK, plan);
                let snapshot = opened.and_then(|mut store| store.reader());
                if let Ok(mut snapshot) = snapshot {
                    assert_whole_transactions(snapshot.as_mut());
                    snapshots.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let kills = match std::env::var_os("ONELOG_TEST_FULL") {
            Some(_) => 20,
            None => KILLS,
        };
        for round in 0..kills {
            for _ in 0..3 + round % 5 * 3 {
                batches.recv_timeout(PATIENCE).expect("the writer goes on");
            }
            server.kill();
            server.start_again();
            let _ = back.send(());
        }
        batches.recv_timeout(PATIENCE).expect("the writer goes on");
        stop.store(true, Ordering::SeqCst);
        let (mut store, model) = writer.join().unwrap();
        assert_equal(plan, &model, &mut store);
        assert_whole_transactions(store.reader().unwrap().as_mut());
    });
    assert!(
        snapshots.load(Ordering::SeqCst) > 0,
        "no snapshot could be taken"
    );
    assert_written_once(&server, "left");
    assert_written_once(&server, "right");
}

#[test]
fn lost_answers_are_requested_again() {
    require!(Kind::OpenSearch);
    let server = OpenSearch::start();
    let direct = Place::at(&server.url());
    let (_, mut model, plan) = backfilled(&direct);
    let proxy = Proxy::in_front_of(&server);
    let through = Place::at(&proxy.url_of(&server.url()));
    let bulk: &[u8] = b"POST /_bulk";
    let ledger: &[u8] = b"PUT /onelog-sinks/_doc/follower?if_seq_no";
    for (round, (pattern, has_moved)) in [(bulk, false), (ledger, true)]
        .repeat(10)
        .into_iter()
        .enumerate()
    {
        let mut store = through.store(&plan);
        store.take_over().unwrap();
        let from = model.position();
        (0..5).for_each(|n| transact(&mut model, 1000 + round as i64 * 5 + n));
        let cuts = proxy.cuts();
        proxy.cut_answer_after(pattern);
        let error = store.apply(&model.batch(&plan, from)).unwrap_err();
        assert!(error.is_retryable(), "{error}");
        proxy.wait_for_cuts(cuts + 1);
        drop(store);
        let mut store = through.store(&plan);
        store.take_over().unwrap();
        let at = store.position().unwrap().unwrap().position;
        assert_eq!(at, if has_moved { model.position() } else { from });
        if !has_moved {
            store.apply(&model.batch(&plan, at)).unwrap();
        }
        assert_equal(&plan, &model, &mut store);
    }
    assert_written_once(&server, "left");
    // The answer to the exchange of indexes.
    for _ in 0..3 {
        let mut store = through.store(&plan);
        store.take_over().unwrap();
        transact(&mut model, 5000);
        proxy.cut_answer_after(b"POST /_aliases");
        let error = model.rebuild(&plan, &mut store).unwrap_err();
        assert!(error.is_retryable(), "{error}");
        let mut store = through.store(&plan);
        assert_equal(&plan, &model, &mut store);
        store.take_over().unwrap();
        assert_equal(&plan, &model, &mut store);
        store.check_shape().unwrap();
    }
}

#[test]
fn a_server_with_older_data_is_given_what_it_lacks() {
    require!(Kind::OpenSearch);
    let server = OpenSearch::start();
    let place = Place::at(&server.url());
    let (store, mut model, plan) = backfilled(&place);
    let old = model.position();
    drop(store);
    server.stop();
    let saved = server.save_data();
    server.start_again();
    let mut store = place.store(&plan);
    store.take_over().unwrap();
    for n in 100..130 {
        let from = model.position();
        transact(&mut model, n);
        store.apply(&model.batch(&plan, from)).unwrap();
    }
    drop(store);
    server.stop();
    server.restore_data(&saved);
    server.start_again();
    let mut store = place.store(&plan);
    store.take_over().unwrap();
    assert_eq!(store.position().unwrap().unwrap().position, old);
    store.apply(&model.batch(&plan, old)).unwrap();
    assert_equal(&plan, &model, &mut store);
    assert_written_once(&server, "left");
}

#[test]
fn two_processes_that_take_a_sink_from_each_other_harm_nothing() {
    require!(Kind::OpenSearch);
    let server = OpenSearch::start();
    let place = Place::at(&server.url());
    let (store, model, plan) = backfilled(&place);
    drop(store);
    let log = Mutex::new(model);
    let takeovers = AtomicUsize::new(0);
    let fenced = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while takeovers.load(Ordering::SeqCst) < TAKEOVERS as usize {
                    let mut store = place.store(&plan);
                    store.take_over().unwrap();
                    takeovers.fetch_add(1, Ordering::SeqCst);
                    loop {
                        let at = store.position().unwrap().unwrap().position;
                        let batch = {
                            let mut log = log.lock().unwrap();
                            let number = log.position().get() as i64;
                            transact(&mut log, number);
                            log.batch(&plan, at)
                        };
                        match store.apply(&batch) {
                            Ok(()) if takeovers.load(Ordering::SeqCst) >= TAKEOVERS as usize => {
                                break;
                            }
                            Ok(()) | Err(StoreError::PositionMismatch { .. }) => {}
                            Err(StoreError::Fenced { .. }) => {
                                fenced.fetch_add(1, Ordering::SeqCst);
                                break;
                            }
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    });
    assert!(fenced.load(Ordering::SeqCst) > 0, "they never met");
    let model = log.into_inner().unwrap();
    let mut store = place.store(&plan);
    store.take_over().unwrap();
    let at = store.position().unwrap().unwrap().position;
    store.apply(&model.batch(&plan, at)).unwrap();
    assert_equal(&plan, &model, &mut store);
    assert_written_once(&server, "left");
    assert_written_once(&server, "right");
}

#[test]
fn a_full_disk_is_waited_for() {
    require!(Kind::OpenSearch);
    let server = OpenSearch::start();
    let place = Place::at(&server.url());
    let (mut store, mut model, plan) = backfilled(&place);
    let from = model.position();
    transact(&mut model, 100);
    // What the product does to indexes when the disk is nearly full.
    let block = |on: bool| {
        let settings = json!({"index.blocks.read_only_allow_delete": on.then_some(true)});
        request(&server, "PUT", "/left/_settings", &settings.to_string());
    };
    block(true);
    let error = store.apply(&model.batch(&plan, from)).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(error.to_string().contains("block"), "{error}");
    assert_eq!(error.code().as_str(), "not_writable", "{error}");
    assert_eq!(store.position().unwrap().unwrap().position, from);
    block(false);
    store.apply(&model.batch(&plan, from)).unwrap();
    assert_equal(&plan, &model, &mut store);
}

#[test]
fn what_is_turned_away_is_sent_again_in_smaller_parts() {
    require!(Kind::OpenSearch);
    // 413 for a request above the first limit, 429 for one above the second.
    let server = OpenSearch::start_with(&[
        "http.max_content_length=400kb",
        "indexing_pressure.memory.limit=150kb",
    ]);
    let place = Place::at(&server.url());
    let (mut store, mut model, plan) = backfilled(&place);
    let from = model.position();
    for n in 0..300 {
        model.order(&format!("large {n}"), n, &"a long note ".repeat(200));
    }
    store.apply(&model.batch(&plan, from)).unwrap();
    assert_equal(&plan, &model, &mut store);
    assert_written_once(&server, "left");
    // One document that is too large for any request is refused by name.
    let from = model.position();
    let text = json!({"total": 1, "note": "x".repeat(500_000)}).to_string();
    let plan = plan_of(r#"{"table":"shop.orders","into":"whole"}"#);
    let mut whole = place.try_open("whole", &plan).unwrap();
    whole.take_over().unwrap();
    Model::default().rebuild(&plan, &mut whole).unwrap();
    let mut model = Model::default();
    model.order("small", 1, "fits");
    model.write(onelog_store::conformance::ORDERS, b"huge", Some(&text));
    let StoreError::Refused(refused) = whole.apply(&model.batch(&plan, Position(0))).unwrap_err()
    else {
        panic!("half a megabyte is too much for this server");
    };
    assert_eq!(
        (refused.key.as_str(), refused.offset.get()),
        (Some("huge"), 1)
    );
    assert!(from > Position(0));
}

#[test]
fn a_sink_follows_through_the_death_of_its_server() {
    require!(Kind::OpenSearch);
    let server = OpenSearch::start();
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(Options::new(folder.path().join("log"))).unwrap();
    let sinks = Sinks::start(node.clone(), KINDS).unwrap();
    node.create_table_blocking(NewTable::keyed("shop.orders"))
        .unwrap();
    let order = |key: &str, total: i64| {
        let done = node.transact(|tx| tx.put_json("shop.orders", key, &json!({"total": total})));
        done.unwrap().position
    };
    (0..50).for_each(|n| {
        order(&format!("early {n}"), n);
    });
    let url = json!(server.url());
    let text = format!(
        r#"{{"name":"search","kind":"elasticsearch","url":{url},
            "mappings":[{{"table":"shop.orders","into":"orders"}}]}}"#
    );
    sinks
        .create(SinkDefinition::from_slice(KINDS, text.as_bytes()).unwrap())
        .unwrap();
    let at = order("a", 1);
    sinks.wait_blocking("search", at, PATIENCE).unwrap();
    // Read your writes: what was waited for is found by a search.
    let found = request(&server, "GET", "/orders/_search?q=total:1", "");
    let hits = found["hits"]["hits"].as_array().unwrap();
    assert!(hits.iter().any(|hit| hit["_id"] == "a"), "{found}");

    server.kill();
    let mut at = at;
    for n in 0..500 {
        at = order(&format!("k{}", n % 70), n);
    }
    server.start_again();
    sinks.resume("search").unwrap();
    sinks.wait_blocking("search", at, PATIENCE).unwrap();
    let found = sinks.verify("search").unwrap();
    assert!(found.equal, "{found:#?}");
    assert_written_once(&server, "orders");
    sinks.stop();
    node.stop().unwrap();
}
