//! `/v1/sinks`, over a real SQLite database.

use serde_json::{Value, json};

use crate::server::Server;

fn definition(server: &Server) -> Value {
    json!({"name": "search", "kind": "sqlite", "path": server.folder.path().join("search.db"), "mappings": [{
        "table": "shop.orders", "into": "orders",
        "columns": {"id": {"from": "$key", "type": "text"}, "note": {"from": "/note", "type": "text"}},
        "full_text": ["note"]}]})
}

fn with_sink() -> Server {
    let server = Server::with_tables();
    let made = server.post("/v1/sinks", &definition(&server)).expect(201);
    assert_eq!(
        (&made["name"], &made["kind"]),
        (&json!("search"), &json!("sqlite"))
    );
    server
}

fn wait(server: &Server, position: u64) -> Value {
    let path = format!("/v1/sinks/search/wait?position={position}&timeout_ms=60000");
    server.get(&path).expect(200)
}

#[test]
fn a_sink_follows_is_waited_for_and_proved_equal() {
    let server = with_sink();
    let position = server.put("shop.orders", "a", json!({"note": "two red apples"}));

    assert!(wait(&server, position)["position"].as_u64().unwrap() >= position);

    let database = rusqlite::Connection::open(server.folder.path().join("search.db")).unwrap();
    let note: String = database
        .query_row("SELECT note FROM orders WHERE id = 'a'", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(note, "two red apples");
    let verified = server
        .post("/v1/sinks/search/verify", &json!({}))
        .expect(200);
    assert_eq!(verified["tables"][0]["equal"], true);
    assert_eq!(
        (
            &verified["tables"][0]["rows"],
            &verified["tables"][0]["differences"]
        ),
        (&json!(1), &json!([]))
    );

    let status = server.get("/v1/sinks/search").expect(200);
    for field in [
        "position",
        "lag_records",
        "lag_seconds",
        "records_per_second",
    ] {
        assert!(status[field].is_number(), "{field}: {status}");
    }
    assert_eq!(status["last_error"], Value::Null);
    assert_eq!(
        server.get("/v1/sinks").expect(200)["sinks"][0]["name"],
        "search"
    );
    assert_eq!(
        server.get("/v1/status").expect(200)["sinks"][0]["name"],
        "search"
    );
}

#[test]
fn a_row_that_was_changed_in_the_store_is_named_and_rebuild_mends_it() {
    let server = with_sink();
    let position = server.put("shop.orders", "a", json!({"note": "right"}));
    wait(&server, position);
    let database = rusqlite::Connection::open(server.folder.path().join("search.db")).unwrap();
    database
        .busy_timeout(std::time::Duration::from_secs(60))
        .unwrap();
    database
        .execute("UPDATE orders SET note = 'wrong' WHERE id = 'a'", [])
        .unwrap();

    let verified = server
        .post("/v1/sinks/search/verify", &json!({}))
        .expect(200);

    assert_eq!(verified["tables"][0]["equal"], false);
    let difference = &verified["tables"][0]["differences"][0];
    assert_eq!(
        (
            &difference["key"],
            &difference["log"]["note"],
            &difference["store"]["note"]
        ),
        (&json!("a"), &json!("right"), &json!("wrong"))
    );
    server
        .post("/v1/sinks/search/rebuild", &json!({}))
        .expect(200);
    let position = server.put("shop.orders", "b", json!({"note": "later"}));
    wait(&server, position);
    let verified = server
        .post("/v1/sinks/search/verify", &json!({}))
        .expect(200);
    assert_eq!(verified["tables"][0]["equal"], true, "{verified}");
}

#[test]
fn a_paused_sink_stands_still_until_it_is_resumed() {
    let server = with_sink();
    let paused = server
        .post("/v1/sinks/search/pause", &json!({}))
        .expect(200);
    assert_eq!(paused["state"], "paused");
    let position = server.put("shop.orders", "a", json!({"note": "x"}));

    let path = format!("/v1/sinks/search/wait?position={position}&timeout_ms=1");
    let refused = server.get(&path).refused(504, "wait_timed_out");
    assert_eq!(refused["sink"], "search");

    server
        .post("/v1/sinks/search/resume", &json!({}))
        .expect(200);
    wait(&server, position);
}

#[test]
fn a_sink_that_is_deleted_is_gone() {
    let server = with_sink();
    let gone = server
        .send("DELETE", "/v1/sinks/search", &[], b"")
        .expect(200);
    assert_eq!(gone["sink"], "search");
    for (method, path) in [
        ("GET", "/v1/sinks/search"),
        ("DELETE", "/v1/sinks/search"),
        ("POST", "/v1/sinks/search/pause"),
        ("POST", "/v1/sinks/search/resume"),
        ("POST", "/v1/sinks/search/verify"),
        ("POST", "/v1/sinks/search/rebuild"),
        ("GET", "/v1/sinks/search/wait?position=0"),
    ] {
        let refused = server
            .send(method, path, &[], b"")
            .refused(404, "unknown_sink");
        assert_eq!(refused["sink"], "search", "{method} {path}");
    }
    assert_eq!(server.get("/v1/sinks").expect(200), json!({"sinks": []}));
}

#[test]
fn a_definition_that_cannot_be_says_where() {
    let server = with_sink();
    let good = definition(&server);
    let refused = server.post("/v1/sinks", &good).refused(409, "sink_exists");
    assert_eq!(refused["sink"], "search");
    let with = |pointer: &str, value: Value| {
        let mut changed = good.clone();
        changed["name"] = json!("other");
        *changed.pointer_mut(pointer).unwrap() = value;
        changed
    };
    for (definition, place) in [
        (with("/kind", json!("sqlight")), "kind"),
        (
            with("/mappings/0/table", json!("shop.order")),
            "mappings[0].table",
        ),
        (
            with("/mappings/0/columns/note/type", json!("txt")),
            "mappings[0].columns.note.type",
        ),
        (
            with("/mappings/0/columns/note", json!({"form": "/x"})),
            "mappings[0].columns.note.form",
        ),
        (with("/mappings", json!([])), "mappings"),
    ] {
        let refused = server
            .post("/v1/sinks", &definition)
            .refused(422, "malformed");
        assert_eq!(refused["where"], place, "{refused}");
    }
}

/// A server with a sink that wants numbers as notes.
fn with_a_sink_that_parks_notes() -> Server {
    let server = Server::with_tables();
    let mut parking = definition(&server);
    parking["on_refused"] = json!("park");
    parking["mappings"][0]["columns"]["note"]["type"] = json!("integer");
    parking["mappings"][0]["full_text"] = json!([]);
    server.post("/v1/sinks", &parking).expect(201);
    server
}

#[test]
fn a_refused_record_is_listed_and_replayed() {
    let server = with_a_sink_that_parks_notes();
    let position = server.put("shop.orders", "a", json!({"note": "five"}));
    let status = wait(&server, position);
    assert_eq!(status["parked"], 1, "{status}");
    let listed = server.get("/v1/sinks/search/parked").expect(200);
    assert_eq!(
        (&listed["sink"], &listed["total"]),
        (&json!("search"), &json!(1))
    );
    let parked = &listed["parked"][0];
    assert_eq!(
        (&parked["key"], &parked["into"]),
        (&json!("a"), &json!("orders"))
    );
    assert_eq!(parked["first_offset"], position - 1);
    assert!(parked["what"].as_str().unwrap().contains("note"));

    let wanted = json!({"keys": [{"into": "orders", "key": "a"}]});
    let still = server.post("/v1/sinks/search/replay", &wanted).expect(200);
    assert_eq!(
        (&still["replayed"], &still["remaining"][0]["key"]),
        (&json!(0), &json!("a"))
    );
    let position = server.put("shop.orders", "a", json!({"note": 5}));
    wait(&server, position);
    let done = server
        .send("POST", "/v1/sinks/search/replay", &[], b"")
        .expect(200);
    assert_eq!(
        (&done["replayed"], &done["remaining"]),
        (&json!(1), &json!([]))
    );
    let verified = server
        .post("/v1/sinks/search/verify", &json!({}))
        .expect(200);
    assert_eq!(
        (&verified["equal"], &verified["tables"][0]["parked"]),
        (&json!(true), &json!(0))
    );
    for body in [json!({"key": "a"}), json!({"keys": [{"key": "a"}]})] {
        server
            .post("/v1/sinks/search/replay", &body)
            .refused(422, "malformed");
    }
}

#[test]
fn verify_with_repair_writes_what_differs_again() {
    let server = with_sink();
    let position = server.put("shop.orders", "a", json!({"note": "right"}));
    wait(&server, position);
    let database = rusqlite::Connection::open(server.folder.path().join("search.db")).unwrap();
    database
        .busy_timeout(std::time::Duration::from_secs(60))
        .unwrap();
    database
        .execute_batch(
            "UPDATE orders SET note = 'wrong'; INSERT INTO orders (id, note) VALUES ('b', 'extra')",
        )
        .unwrap();
    let repaired = server
        .post("/v1/sinks/search/verify?repair=true", &json!({}))
        .expect(200);
    assert_eq!(
        (&repaired["equal"], &repaired["repaired"]),
        (&json!(true), &json!(2))
    );
    let status = server.get("/v1/sinks/search").expect(200);
    assert_eq!(status["last_verification"]["equal"], true);
    assert_eq!(status["left_behind"], false);
    assert!(status["held_log_bytes"].is_number());
}

#[test]
fn dry_runs_of_programs_that_take_long_keep_nobody_else_waiting() {
    // Given as many dry runs as there may be at once, of a program that takes its time with each row,
    let server = Server::with_tables();
    for n in 0..8 {
        server.put("shop.orders", &format!("k{n}"), json!({"total": n}));
    }
    let dry_run = |transform: &str| {
        let definition = json!({"kind": "sqlite", "mappings": [
            {"table": "shop.orders", "into": "orders", "transform": transform}]});
        server.post("/v1/sinks/dry-run?rows=8", &definition)
    };
    std::thread::scope(|threads| {
        // One of the others may be there when it comes.
        let long = || loop {
            let answer = dry_run("{total: reduce range(2000000) as $n (0; . + 1)}");
            if answer.status != 503 {
                break answer.expect(200);
            }
        };
        let running: Vec<_> = (0..4).map(|_| threads.spawn(long)).collect();
        // when another one comes, then it is refused at once,
        loop {
            let answer = dry_run(".");
            if answer.status == 503 {
                answer.refused(503, "overloaded");
                break;
            }
            assert!(running.iter().any(|long| !long.is_finished()));
        }
        // and what else reads files is answered.
        server.get("/v1/status").expect(200);
        server.get("/v1/tables/shop.orders/keys").expect(200);
        for long in running {
            let shown = long.join().unwrap();
            let found = &shown["mappings"][0];
            assert!(
                found["looked_at"] == 8 || found["ended_early"] == true,
                "{found}"
            );
        }
    });
    dry_run(".").expect(200);
}

#[test]
fn a_definition_is_replaced_after_a_dry_run() {
    let server = with_sink();
    let position = server.put("shop.orders", "a", json!({"note": "a note", "total": 7}));
    let columns = json!({"id": {"from": "$key", "type": "text"}, "total": {"from": "/total", "type": "integer"}});
    let changed = json!({"kind": "sqlite", "path": server.folder.path().join("search.db"),
        "mappings": [{"table": "shop.orders", "into": "orders", "columns": columns}]});
    let mut without_place = changed.clone();
    without_place.as_object_mut().unwrap().remove("path");
    let shown = server
        .post("/v1/sinks/dry-run?rows=1", &without_place)
        .expect(200);
    let rows = &shown["mappings"][0]["rows"];
    assert_eq!(rows[0]["columns"], json!({"id": "a", "total": 7}));
    server
        .post("/v1/sinks/dry-run?rows=101", &without_place)
        .refused(422, "malformed");
    let by_the_former_name = server.post("/v1/sinks/try?rows=1", &without_place);
    assert_eq!(by_the_former_name.expect(200), shown);

    let put = |path: &str, body: &Value| {
        let body = body.to_string();
        server.send("PUT", path, &[], body.as_bytes())
    };
    let status = put("/v1/sinks/search", &changed).expect(200);
    assert_eq!(status["name"], "search");
    wait(&server, position);
    let database = rusqlite::Connection::open(server.folder.path().join("search.db")).unwrap();
    let total: i64 = database
        .query_row("SELECT total FROM orders", [], |row| row.get(0))
        .unwrap();
    assert_eq!(total, 7);
    put("/v1/sinks/nobody", &changed).refused(404, "unknown_sink");
    let mut named = changed;
    named["name"] = json!("other");
    let refused = put("/v1/sinks/search", &named).refused(422, "malformed");
    assert_eq!(refused["where"], "name");
    for reserved in ["try", "dry-run"] {
        named["name"] = json!(reserved);
        let refused = server.post("/v1/sinks", &named).refused(422, "malformed");
        assert_eq!(refused["where"], "name");
    }
}

#[test]
fn a_commit_waits_for_the_sinks_that_it_names() {
    let server = with_sink();
    let write = |more: Value| {
        let mut body = json!({"writes": [{"op": "put", "table": "shop.orders", "key": "a", "value": {"note": "x"}}]});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        server.post("/v1/transactions", &body)
    };
    let done = write(json!({"wait_for": ["search"], "wait_timeout_ms": 60000})).expect(200);
    let waited = &done["waited"]["search"];
    assert_eq!(waited["reached"], true, "{done}");
    assert!(waited["position"].as_u64() >= done["position"].as_u64());
    assert_eq!(write(json!({})).expect(200)["waited"], Value::Null);

    server
        .post("/v1/sinks/search/pause", &json!({}))
        .expect(200);
    let done = write(json!({"wait_for": ["search"], "wait_timeout_ms": 1})).expect(200);
    let waited = &done["waited"]["search"];
    assert_eq!(waited["reached"], false, "{done}");
    assert!(waited["reason"].as_str().unwrap().contains("in time"));

    // What cannot be waited for is refused before anything is committed.
    let before = server.get("/v1/status").expect(200)["position"].clone();
    let refused = write(json!({"wait_for": ["serch"]})).refused(404, "unknown_sink");
    assert_eq!(refused["nearest"], "search");
    for wrong in [
        json!({"wait_for": "search"}),
        json!({"wait_timeout_ms": 60001}),
        json!({"wait_for": vec!["search"; 65]}),
    ] {
        write(wrong).refused(422, "malformed");
    }
    assert_eq!(server.get("/v1/status").expect(200)["position"], before);
}

#[test]
fn waiting_without_a_position_is_waiting_for_the_end_of_the_log() {
    let server = with_sink();
    let before = server.put("shop.orders", "a", json!({"note": "x"}));
    wait(&server, before);
    server
        .post("/v1/sinks/search/pause", &json!({}))
        .expect(200);
    let position = server.put("shop.orders", "a", json!({"note": "y"}));
    let refused = server
        .get("/v1/sinks/search/wait?timeout_ms=1")
        .refused(504, "wait_timed_out");
    // Pausing is a record of the log, too, which the sink may have passed before it stood still.
    let reached = refused["position"].as_u64().unwrap();
    assert!((before..position).contains(&reached), "{refused:?}");
    server
        .post("/v1/sinks/search/resume", &json!({}))
        .expect(200);
    let reached = server
        .get("/v1/sinks/search/wait?timeout_ms=60000")
        .expect(200);
    assert!(reached["position"].as_u64().unwrap() >= position);
}

#[test]
fn only_so_many_parked_keys_are_listed_and_all_are_counted() {
    let server = with_a_sink_that_parks_notes();
    server.put("shop.orders", "a", json!({"note": "five"}));
    let position = server.put("shop.orders", "b", json!({"note": "six"}));
    wait(&server, position);
    let listed = server.get("/v1/sinks/search/parked?limit=1").expect(200);
    assert_eq!(listed["total"], 2, "{listed}");
    assert_eq!(listed["parked"].as_array().unwrap().len(), 1, "{listed}");
    server
        .get("/v1/sinks/search/parked?limit=10001")
        .refused(422, "malformed");
    // One key is replayed, the other one stays where it is.
    server.put("shop.orders", "a", json!({"note": 5}));
    let position = server.put("shop.orders", "b", json!({"note": 6}));
    wait(&server, position);
    let one = json!({"keys": [{"into": "orders", "key": "b"}]});
    let done = server.post("/v1/sinks/search/replay", &one).expect(200);
    assert_eq!(done["replayed"], 1, "{done}");
    let listed = server.get("/v1/sinks/search/parked").expect(200);
    assert_eq!(listed["total"], 1, "{listed}");
    assert_eq!(listed["parked"][0]["key"], "a", "{listed}");
}

#[test]
fn a_client_that_waits_for_a_stopped_sink_learns_why_it_stopped() {
    let server = Server::with_tables();
    let mut strict = definition(&server);
    strict["mappings"][0]["columns"]["note"]["type"] = json!("integer");
    strict["mappings"][0]["full_text"] = json!([]);
    server.post("/v1/sinks", &strict).expect(201);
    let position = server.put("shop.orders", "a", json!({"note": "five"}));
    let path = format!("/v1/sinks/search/wait?position={position}&timeout_ms=60000");
    let refused = server.get(&path).refused(409, "sink_stopped");
    assert_eq!(refused["sink"], "search");
    let status = server.get("/v1/sinks/search").expect(200);
    assert_eq!(status["state"], "stopped", "{status}");
    let error = &status["last_error"];
    assert_eq!(
        (&error["table"], &error["key"], &error["offset"]),
        (&json!("shop.orders"), &json!("a"), &json!(position - 1))
    );
    // A stopped sink replays nothing either.
    server
        .send("POST", "/v1/sinks/search/replay", &[], b"")
        .refused(409, "sink_stopped");
    // Mended, it goes on.
    let position = server.put("shop.orders", "a", json!({"note": 5}));
    server
        .post("/v1/sinks/search/resume", &json!({}))
        .expect(200);
    wait(&server, position);
}
