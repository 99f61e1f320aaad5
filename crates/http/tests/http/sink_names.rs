//! Names of sinks, and what is said of definitions and keys that are wrong.

use bytes::Bytes;
use onelog::{CommitRequest, NewTable, Node, Operation, Options, Write};
use onelog_http::HttpOptions;
use onelog_record::TABLE_SINKS;
use serde_json::{Value, json};

use crate::server::Server;

fn definition(server: &Server, name: &str) -> Value {
    json!({"name": name, "kind": "sqlite", "path": server.folder.path().join(format!("{name}.db")),
        "mappings": [{"table": "shop.orders", "into": "orders"}]})
}

/// What an earlier version has put into the log.
fn make_as_before(options: &mut Options, names: &[&str]) {
    let node = Node::open(options.clone()).unwrap();
    node.create_table_blocking(NewTable::keyed("shop.orders"))
        .unwrap();
    for name in names {
        let record = json!({"name": name, "kind": "sqlite", "path": options.folder.join("../a.db"),
            "mappings": [{"table": "shop.orders", "into": format!("of-{name}")}]});
        let put = Write {
            table: TABLE_SINKS,
            key: Bytes::from((*name).to_owned()),
            operation: Operation::Put(record.to_string().into()),
            headers: Vec::new(),
        };
        let request = CommitRequest {
            writes: vec![put],
            ..CommitRequest::default()
        };
        node.submit_system(request).wait().unwrap();
    }
    node.stop().unwrap();
}

#[test]
fn a_sink_that_has_the_name_of_a_route_is_shown_changed_and_deleted() {
    // Given sinks of an earlier version, with names that are routes now.
    let names = ["dry-run", "try", "forget"];
    let server = Server::with_node(HttpOptions::default(), |options| {
        make_as_before(options, &names);
    });
    for name in names {
        let path = format!("/v1/sinks/{name}");
        // When each is read, paused, changed and deleted, then it is done,
        assert_eq!(server.get(&path).expect(200)["name"], name);
        server
            .post(&format!("{path}/pause"), &json!({}))
            .expect(200);
        let mut changed = definition(&server, name);
        changed["keep_log"] = json!("1GiB");
        let body = changed.to_string();
        let sink = server.send("PUT", &path, &[], body.as_bytes()).expect(200);
        assert_eq!(sink["definition"]["keep_log"], "1GiB");
        server.send("DELETE", &path, &[], b"").expect(200);
        // and no new one gets that name.
        server.get(&path).refused(404, "unknown_sink");
        let refused = server.post("/v1/sinks", &definition(&server, name));
        assert_eq!(refused.refused(422, "malformed")["where"], "name");
    }
    server
        .post("/v1/sinks/dry-run", &definition(&server, "other"))
        .expect(200);
}

#[test]
fn names_that_a_path_takes_for_a_folder_are_refused() {
    let server = Server::with_tables();
    for name in [".", ".."] {
        let mut wrong = definition(&server, "x");
        wrong["name"] = json!(name);
        let refused = server.post("/v1/sinks", &wrong).refused(422, "malformed");
        assert_eq!(refused["where"], "name", "{refused:?}");
    }
}

#[test]
fn a_definition_without_its_kind_says_that_the_kind_is_missing_also_where_the_path_has_the_name() {
    let server = Server::with_tables();
    server
        .post("/v1/sinks", &definition(&server, "search"))
        .expect(201);
    for body in ["{}", " { } ", r#"{"mappings": []}"#] {
        let answer = server.send("PUT", "/v1/sinks/search", &[], body.as_bytes());
        let refused = answer.refused(422, "malformed");
        assert_eq!(refused["where"], "kind", "{body}: {refused:?}");
    }
}

#[test]
fn a_mapping_of_a_table_of_onelog_says_that_it_is_onelogs() {
    let server = Server::with_tables();
    let mut wrong = definition(&server, "search");
    wrong["mappings"][0]["table"] = json!("onelog.sinks");
    for path in ["/v1/sinks", "/v1/sinks/dry-run"] {
        let refused = server.post(path, &wrong).refused(422, "malformed");
        assert_eq!(refused["where"], "mappings[0].table");
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains("belong to onelog itself"), "{message}");
    }
}

#[test]
fn a_key_that_is_replayed_and_is_not_parked_is_named() {
    let server = Server::with_tables();
    server
        .post("/v1/sinks", &definition(&server, "search"))
        .expect(201);
    let position = server.put("shop.orders", "a", json!({"note": 5}));
    let path = format!("/v1/sinks/search/wait?position={position}&timeout_ms=60000");
    server.get(&path).expect(200);
    let keys = json!({"keys": [{"into": "orders", "key": "a"}, {"into": "elsewhere", "key": "b"}]});
    let done = server.post("/v1/sinks/search/replay", &keys).expect(200);
    assert_eq!(done["replayed"], 0, "{done}");
    assert_eq!(done["not_parked"], keys["keys"], "{done}");
}

#[test]
fn a_number_that_is_written_as_text_is_refused_in_the_terms_of_json() {
    let server = Server::with_tables();
    let wrong = json!({"read_position": "7", "writes": [
        {"op": "put", "table": "shop.orders", "key": "a", "value": 1}]});
    let refused = server.commit(&wrong).refused(422, "malformed");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("expected a whole number"), "{message}");
    assert!(!message.contains("u64"), "{message}");
}
