//! Both search servers keep the promises of all servers and can do what a sink needs of them.
#![allow(clippy::panic)]

mod promises;

use onelog_testkit::{Elasticsearch, Kind, OpenSearch, Server, require};

trait Search: Server {
    fn send(&self, method: &str, path: &str, body: &str) -> (u16, String);

    /// Asks for what must work.
    fn do_it(&self, method: &str, path: &str, body: &str) -> String {
        let (status, answer) = self.send(method, path, body);
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        answer
    }
}

impl Search for OpenSearch {
    fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.request(method, path, body)
    }
}

impl Search for Elasticsearch {
    fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.request(method, path, body)
    }
}

fn keeps_its_promises(server: &(impl Search + Sync)) {
    promises::kept(
        server,
        &|n| _ = server.do_it("PUT", "/n/_doc/1", &format!(r#"{{"n":{n}}}"#)),
        &|| server.do_it("GET", "/n/_source/1", "")[5..6].to_owned(),
    );
}

/// All that the sinks' contract needs of a search server.
fn does_what_a_sink_needs(server: &impl Search, open_point_in_time: &str) {
    // Index templates fix the mapping of an index that is made by its first document.
    server.do_it(
        "PUT",
        "/_index_template/t",
        r#"{"index_patterns":["t-*"],"template":{"settings":{"number_of_replicas":0},
            "mappings":{"dynamic":"strict","properties":{
                "name":{"type":"keyword"},"deleted":{"type":"boolean"}}}}}"#,
    );

    // Bulk writes by external versions: an older version changes nothing and is reported.
    let bulk = |lines: &str| server.do_it("POST", "/_bulk?refresh=true", lines);
    let first = bulk(concat!(
        r#"{"index":{"_index":"t-1","_id":"a","version":7,"version_type":"external"}}"#,
        "\n",
        r#"{"name":"new","deleted":false}"#,
        "\n",
        r#"{"index":{"_index":"t-1","_id":"b","version":7,"version_type":"external"}}"#,
        "\n",
        r#"{"name":"gone","deleted":true}"#,
        "\n",
    ));
    assert!(first.contains(r#""errors":false"#), "{first}");
    let second = bulk(concat!(
        r#"{"index":{"_index":"t-1","_id":"a","version":6,"version_type":"external"}}"#,
        "\n",
        r#"{"name":"old","deleted":false}"#,
        "\n",
        r#"{"index":{"_index":"t-1","_id":"c","version":8,"version_type":"external"}}"#,
        "\n",
        r#"{"name":"refused","deleted":false,"unknown":1}"#,
        "\n",
    ));
    assert!(
        second.contains("version_conflict_engine_exception"),
        "{second}"
    );
    assert!(
        second.contains("strict_dynamic_mapping_exception"),
        "{second}"
    );

    // A filtered alias hides what is deleted softly.
    server.do_it(
        "POST",
        "/_aliases",
        r#"{"actions":[{"add":{"index":"t-1","alias":"t","filter":{"term":{"deleted":false}}}}]}"#,
    );
    assert!(
        server
            .do_it("GET", "/t/_count", "")
            .contains(r#""count":1"#)
    );
    assert!(
        server
            .do_it("GET", "/t-1/_count", "")
            .contains(r#""count":2"#)
    );

    // A point in time is read on with search_after.
    let opened = server.do_it("POST", open_point_in_time, "");
    let id = opened
        .split('"')
        .nth(3)
        .unwrap_or_else(|| panic!("no id: {opened}"));
    let page = |after: &str| {
        let pit = format!(r#""pit":{{"id":"{id}","keep_alive":"1m"}}"#);
        let body = format!(r#"{{"size":1,{pit},"sort":[{{"name":"asc"}}]{after}}}"#);
        server.do_it("POST", "/_search", &body)
    };
    assert!(page("").contains(r#""_id":"b""#));
    assert!(page(r#","search_after":["gone"]"#).contains(r#""_id":"a""#));

    // What is deleted softly is purged by a query.
    let purge = r#"{"query":{"term":{"deleted":true}}}"#;
    let purged = server.do_it("POST", "/t-1/_delete_by_query?refresh=true", purge);
    assert!(purged.contains(r#""deleted":1"#), "{purged}");
    assert!(
        server
            .do_it("GET", "/t-1/_count", "")
            .contains(r#""count":1"#)
    );

    // And an alias moves from one index to another in one step.
    server.do_it("PUT", "/t-2", "");
    server.do_it(
        "POST",
        "/_aliases",
        r#"{"actions":[{"remove_index":{"index":"t-1"}},{"add":{"index":"t-2","alias":"t"}}]}"#,
    );
    server.do_it("POST", "/t/_refresh", "");
    assert!(
        server
            .do_it("GET", "/t/_count", "")
            .contains(r#""count":0"#)
    );
    assert_eq!(server.send("GET", "/t-1", "").0, 404);
}

#[test]
fn opensearch_keeps_its_promises_and_does_what_a_sink_needs() {
    require!(Kind::OpenSearch);
    let server = OpenSearch::start();
    keeps_its_promises(&server);
    does_what_a_sink_needs(&server, "/t-1/_search/point_in_time?keep_alive=1m");
}

#[test]
fn elasticsearch_keeps_its_promises_and_does_what_a_sink_needs() {
    require!(Kind::Elasticsearch);
    let server = Elasticsearch::start();
    keeps_its_promises(&server);
    does_what_a_sink_needs(&server, "/t-1/_pit?keep_alive=1m");
}
