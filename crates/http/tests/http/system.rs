//! How the server is.

use serde_json::json;

use crate::server::Server;

#[test]
fn health_readiness_and_status() {
    let server = Server::with_tables();
    assert_eq!(server.get("/healthz").expect(200), json!({"status": "ok"}));
    assert_eq!(
        server.get("/readyz").expect(200),
        json!({"status": "ready"})
    );
    let answer = server.get("/v1/status");
    let status = answer.expect(200);
    assert_eq!(status["position"], server.node.position().get());
    assert_eq!(
        answer.header("onelog-position"),
        Some(status["position"].to_string().as_str())
    );
    assert_eq!(status["log_start"], 0);
    assert!(status["version"].is_string() && status["uptime_s"].is_u64());
    assert_eq!(status["sinks"], json!([]));
    assert_eq!(status["limits"]["value_bytes_max"], 1 << 20);
    assert_eq!(status["http"]["list_limit_max"], 10_000);
}

#[test]
fn metrics_are_openmetrics() {
    let server = Server::with_tables();
    server.put("shop.orders", "a", json!(1));
    let answer = server.get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(
        answer.text().contains("onelog_commits_total"),
        "{}",
        answer.text()
    );
    assert!(answer.text().ends_with("# EOF\n"));
}

#[test]
fn a_stopped_node_is_not_ready_and_says_so() {
    let server = Server::with_tables();
    server.node.stop().unwrap();
    let write = json!({"op": "put", "table": "shop.orders", "key": "a", "value": 1});
    let answer = server.commit(&json!({"writes": [write]}));
    assert!(
        answer
            .header("retry-after")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= 1
    );
    answer.refused(503, "stopped");
    assert_eq!(server.get("/healthz").expect(200), json!({"status": "ok"}));
}

#[test]
fn the_document_is_served() {
    let server = Server::start();
    let document = server.get("/openapi.json").expect(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert!(document["paths"]["/v1/transactions"]["post"]["responses"]["412"].is_object());
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(
            schemas.contains_key(name),
            "{name} is referred to but not there"
        );
    }
}
