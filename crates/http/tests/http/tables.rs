//! `/v1/tables`.

use serde_json::json;

use crate::server::Server;

#[test]
fn a_table_is_made_listed_shown_and_deleted() {
    let server = Server::start();
    let definition = json!({"name": "shop.users", "kind": "keyed", "value": "json", "schema": {"type": "object"}, "unique": ["/email"]});

    let made = server.post("/v1/tables", &definition);
    let body = made.expect(201);
    assert_eq!(
        made.header("onelog-position"),
        Some(body["position"].to_string().as_str())
    );
    for field in ["name", "kind", "value", "schema", "unique"] {
        assert_eq!(body[field], definition[field]);
    }
    server.post("/v1/tables", &definition).expect(200);
    let other = json!({"name": "shop.users", "kind": "stream"});
    let refused = server
        .post("/v1/tables", &other)
        .refused(409, "table_exists");
    assert_eq!(refused["table"], "shop.users");

    server
        .post("/v1/tables", &json!({"name": "shop.a"}))
        .expect(201);
    let listed = server.get("/v1/tables").expect(200);
    let names: Vec<_> = listed["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["shop.a", "shop.users"]);
    assert!(listed["position"].is_u64());
    assert_eq!(
        server.get("/v1/tables/shop.users").expect(200)["unique"],
        json!(["/email"])
    );

    let gone = server
        .send("DELETE", "/v1/tables/shop.users", &[], b"")
        .expect(200);
    assert_eq!(gone["table"], "shop.users");
    server
        .get("/v1/tables/shop.users")
        .refused(404, "unknown_table");
    server
        .send("DELETE", "/v1/tables/shop.users", &[], b"")
        .refused(404, "unknown_table");
}

#[test]
fn a_deleted_tables_name_starts_empty() {
    let server = Server::with_tables();
    server.put("shop.orders", "a", json!(1));
    server
        .send("DELETE", "/v1/tables/shop.orders", &[], b"")
        .expect(200);
    server
        .post("/v1/tables", &json!({"name": "shop.orders"}))
        .expect(201);
    server
        .get("/v1/tables/shop.orders/keys/a")
        .refused(404, "key_not_found");
}

#[test]
fn a_definition_that_cannot_be_says_where() {
    let server = Server::start();
    for (definition, place) in [
        (json!({"kind": "keyed"}), "name"),
        (json!({"name": "a b"}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"name": "a", "kind": "queue"}), "kind"),
        (json!({"name": "a", "schema": {"type": "objekt"}}), "schema"),
        (
            json!({"name": "a", "kind": "stream", "unique": ["/x"]}),
            "unique",
        ),
        (
            json!({"name": "a", "value": "bytes", "unique": ["/x"]}),
            "unique",
        ),
        (
            json!({"name": "a", "value": "bytes", "schema": {"type": "object"}}),
            "schema",
        ),
        (json!({"name": "a", "unique": ["/x", "/y", "x"]}), "unique"),
        (json!({"name": "a", "columns": []}), "body"),
    ] {
        let refused = server
            .post("/v1/tables", &definition)
            .refused(422, "malformed");
        assert_eq!(refused["where"], place, "{definition}: {refused}");
    }
    for name in ["onelog.mine", "onelog"] {
        server
            .post("/v1/tables", &json!({"name": name}))
            .refused(403, "reserved_table");
    }
    server
        .send("DELETE", "/v1/tables/onelog.tables", &[], b"")
        .refused(403, "reserved_table");
}

#[test]
fn of_equal_definitions_at_the_same_time_one_makes_the_table() {
    let server = Server::start();
    for round in 0..20 {
        let definition = json!({"name": format!("shop.t{round}")});
        let mut statuses: Vec<u16> = std::thread::scope(|scope| {
            let define = || server.post("/v1/tables", &definition).status;
            let all: Vec<_> = (0..8).map(|_| scope.spawn(define)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 201]);
    }
}
