//! The members of a cluster, and who leads.

use onelog::{ClusterOptions, NodeId};
use onelog_http::HttpOptions;
use serde_json::json;

use crate::server::Server;

/// Node 1 of a cluster, its only member yet.
fn node_of_a_cluster() -> Server {
    Server::with_node(HttpOptions::default(), |options| {
        let listen = "127.0.0.1:0".parse().unwrap();
        options.cluster = Some(ClusterOptions::new(NodeId(1), listen));
    })
}

#[test]
fn a_server_that_is_alone_shows_itself_and_changes_nothing() {
    let server = Server::start();
    let answer = server.get("/v1/cluster");
    assert_eq!(answer.header("onelog-leader"), None);
    let cluster = answer.expect(200);
    assert_eq!(cluster["alone"], true);
    assert_eq!(cluster["leader"], 1);
    assert_eq!(cluster["members"].as_array().unwrap().len(), 1);
    let member = json!({"node": 2, "address": "127.0.0.1:1"});
    let changes = [
        server.post("/v1/cluster/members", &member),
        server.post("/v1/cluster/members/2/promote", &json!({})),
        server.send("DELETE", "/v1/cluster/members/2", &[], b""),
        server.post("/v1/cluster/transfer", &json!({"node": 2})),
    ];
    for answer in changes {
        answer.refused(409, "not_a_cluster");
    }
}

#[test]
fn members_are_added_and_removed_and_every_answer_says_who_leads() {
    // Given node 1 of a cluster, a node is added that does not run,
    let server = node_of_a_cluster();
    let member = json!({"node": 2, "address": "127.0.0.1:1"});
    let answer = server.post("/v1/cluster/members", &member);
    assert_eq!(answer.header("onelog-leader"), Some("1"));
    let cluster = answer.expect(200);
    assert_eq!(cluster["alone"], false);
    let added = &cluster["members"][1];
    assert_eq!(
        (&added["node"], &added["is_voter"]),
        (&json!(2), &json!(false))
    );
    assert_eq!(added["address"], "127.0.0.1:1");
    assert_eq!(
        server.get("/readyz").expect(200),
        json!({"status": "ready"})
    );
    server.make_tables();
    server.put("shop.orders", "a", json!(1));
    let read = "/v1/tables/shop.orders/keys/a";
    let found = server.get(&format!("{read}?linearizable=true"));
    assert_eq!(found.expect(200), 1);
    let both = server.get(&format!("{read}?linearizable=true&at=1"));
    assert_eq!(both.refused(422, "malformed")["where"], "linearizable");
    // when it is to vote or to lead, then it is refused, and says why;
    let promote = "/v1/cluster/members/2/promote";
    server
        .post(promote, &json!({}))
        .refused(409, "not_caught_up");
    let removed = server.send("DELETE", "/v1/cluster/members/2", &[], b"");
    assert_eq!(removed.expect(200)["members"].as_array().unwrap().len(), 1);
    // its number is used up.
    server
        .post("/v1/cluster/members", &member)
        .refused(409, "member_removed");
    server
        .post(promote, &json!({}))
        .refused(404, "unknown_member");
    let last = server.send("DELETE", "/v1/cluster/members/1", &[], b"");
    last.refused(409, "last_voter");
    server
        .post("/v1/cluster/transfer", &json!({"node": 1}))
        .expect(200);
    assert_eq!(server.get("/nothing").header("onelog-leader"), Some("1"));
}

#[test]
fn a_number_or_an_address_that_is_none_is_refused_with_its_place() {
    let server = node_of_a_cluster();
    for (body, place) in [
        (json!({"node": 0, "address": "127.0.0.1:1"}), "node"),
        (json!({"node": 2, "address": "here"}), "address"),
        (json!({"node": "2", "address": "127.0.0.1:1"}), "node"),
        (json!({"node": 2}), "address"),
    ] {
        let answer = server.post("/v1/cluster/members", &body);
        let error = answer.refused(422, "malformed");
        assert_eq!(error["where"], place, "{body}");
    }
    let answer = server.send("DELETE", "/v1/cluster/members/two", &[], b"");
    answer.refused(422, "malformed");
}
