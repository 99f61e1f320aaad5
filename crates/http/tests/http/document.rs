//! The OpenAPI document against a running server: every example of a request is sent, and every
//! answer satisfies the schema that the document has for it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::server::{Answer, Server};

const METHODS: [&str; 4] = ["get", "put", "post", "delete"];
/// The sink of the paths' examples.
const SINK: &str = "search";

struct Document {
    json: Value,
    /// The schemas, closed: a field that they do not name is an error.
    components: Value,
}

struct Operation<'d> {
    method: &'d str,
    path: &'d str,
    json: &'d Value,
}

impl Document {
    fn of(server: &Server) -> Self {
        let json = server.get("/openapi.json").expect(200);
        let mut components = json["components"].clone();
        let flattened = flattened(&json);
        for (name, schema) in components["schemas"].as_object_mut().unwrap() {
            if schema.get("allOf").is_some() {
                schema["unevaluatedProperties"] = json!(false);
            } else if schema.get("properties").is_some() && !flattened.contains(name) {
                schema["additionalProperties"] = json!(false);
            }
        }
        Self { json, components }
    }

    fn schemas(&self) -> &Map<String, Value> {
        self.components["schemas"].as_object().unwrap()
    }

    #[track_caller]
    fn check(&self, what: &str, schema: &Value, instance: &Value) {
        let mut root = schema.clone();
        root["components"] = self.components.clone();
        let validator = jsonschema::draft202012::new(&root).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(instance)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{what}: {errors:#?}\n{instance:#}");
    }

    /// In the order in which they can all succeed on one server.
    fn operations(&self) -> Vec<Operation<'_>> {
        let mut operations = Vec::new();
        for (path, item) in self.json["paths"].as_object().unwrap() {
            for (method, json) in item.as_object().unwrap() {
                assert!(METHODS.contains(&method.as_str()), "{method}");
                operations.push(Operation { method, path, json });
            }
        }
        operations.sort_by_key(Operation::rank);
        operations
    }

    /// The examples of the schema that `schema` refers to.
    fn examples(&self, schema: &Value) -> Vec<Value> {
        let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let examples = &self.schemas()[name]["examples"];
        examples.as_array().cloned().unwrap_or_default()
    }

    /// The answer is one that the document has for the operation.
    #[track_caller]
    fn check_answer(&self, operation: &Operation<'_>, request: &str, answer: &Answer) {
        let what = format!(
            "{} {request} was answered {}: {}",
            operation.method,
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        let documented = &operation.json["responses"][answer.status.to_string()];
        assert!(documented.is_object(), "not in the document: {what}");
        let header = answer.header("content-type").unwrap();
        let kind = header.split(';').next().unwrap();
        let content = &documented["content"][kind];
        assert!(content.is_object(), "{kind} is not in the document: {what}");
        match kind {
            "application/json" => self.check(&what, &content["schema"], &answer.json()),
            "application/x-ndjson" => {
                for line in answer.lines() {
                    self.check(&what, &content["schema"], &line);
                }
            }
            _ => {}
        }
    }
}

/// The schemas that are parts of others, which close them.
fn flattened(json: &Value) -> BTreeSet<String> {
    let schemas = json["components"]["schemas"].as_object().unwrap();
    let parts = schemas
        .values()
        .filter_map(|schema| schema["allOf"].as_array())
        .flatten();
    parts
        .filter_map(|part| part["$ref"].as_str()?.rsplit('/').next())
        .map(str::to_owned)
        .collect()
}

impl Operation<'_> {
    fn rank(&self) -> usize {
        match (self.method, self.path) {
            ("post", "/v1/tables") => 0,
            ("post", "/v1/sinks") => 1,
            ("post", "/v1/transactions") => 2,
            ("post", "/v1/sinks/{name}/pause") => 4,
            ("post", "/v1/sinks/{name}/resume") => 5,
            ("post", "/v1/sinks/{name}/rebuild") => 6,
            ("delete", _) => 7,
            // What a deleted sink has left.
            ("post", "/v1/sinks/forget") => 8,
            _ => 3,
        }
    }

    fn body_schema(&self) -> Option<&Value> {
        let schema = &self.json["requestBody"]["content"]["application/json"]["schema"];
        (!schema.is_null()).then_some(schema)
    }

    fn parameters(&self, place: &str) -> Vec<&Value> {
        let parameters = self.json["parameters"].as_array();
        let all = parameters.into_iter().flatten();
        all.filter(|parameter| parameter["in"] == place).collect()
    }

    /// The path with the names of the body, else with the examples of the document.
    fn path_for(&self, body: Option<&Value>) -> String {
        let mut path = self.path.to_owned();
        for parameter in self.parameters("path") {
            let name = parameter["name"].as_str().unwrap();
            let of_body = body
                .map(|body| &body[name])
                .filter(|value| value.is_string());
            let value = of_body.unwrap_or(&parameter["example"]);
            assert!(!value.is_null(), "{path}: {name} has no example");
            path = path.replace(&format!("{{{name}}}"), &shown(value));
        }
        path
    }

    fn send(&self, server: &Server, path: &str, body: &[u8]) -> Answer {
        server.send(&self.method.to_uppercase(), path, &[], body)
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The example with folders that this machine has, and stores at a port where nothing listens.
fn here(server: &Server, example: &Value) -> Value {
    let folder = server.folder.path().to_str().unwrap();
    let text = example
        .to_string()
        .replace("/var/lib/onelog", folder)
        .replace("/var/backups/onelog", folder);
    let mut here: Value = serde_json::from_str(&text).unwrap();
    if let Some((scheme, _)) = example["url"]
        .as_str()
        .and_then(|url| url.split_once("://"))
    {
        here["url"] = json!(format!("{scheme}://onelog@127.0.0.1:1/shop"));
    }
    here
}

/// A sink of a store that is not here is refused because of that, not because of its definition;
/// then there is none to be replaced.
fn no_store(body: Option<&Value>, answer: &Answer) -> bool {
    body.is_some_and(|body| body["kind"].is_string() && body["kind"] != "sqlite")
        && ["store_failed", "unknown_sink"]
            .map(Value::from)
            .contains(&answer.json()["error"])
}

/// Deletes a sink that was made and is not the one of the paths' examples: it would hold the table
/// that is deleted later.
fn delete_another_sink(server: &Server, operation: &Operation<'_>, body: Option<&Value>) {
    let made = body.filter(|_| (operation.method, operation.path) == ("post", "/v1/sinks"));
    let name = made.and_then(|definition| definition["name"].as_str());
    if let Some(name) = name.filter(|name| *name != SINK) {
        server.send("DELETE", &format!("/v1/sinks/{name}"), &[], b"");
    }
}

/// A server that is alone has no members to change; `cluster.rs` has those that do.
fn no_cluster(operation: &Operation<'_>, answer: &Answer) -> bool {
    operation.path.starts_with("/v1/cluster/") && answer.json()["error"] == "not_a_cluster"
}

#[test]
fn every_example_satisfies_its_schema() {
    let server = Server::start();
    let document = Document::of(&server);
    let mut with_examples = BTreeSet::new();
    for (name, schema) in document.schemas() {
        let reference = json!({"$ref": format!("#/components/schemas/{name}")});
        for example in document.examples(&reference) {
            document.check(name, &reference, &example);
            with_examples.insert(name.as_str());
        }
        assert!(schema.get("example").is_none(), "{name} has an old example");
    }
    for operation in document.operations() {
        let mut schemas: Vec<&Value> = operation.body_schema().into_iter().collect();
        for response in operation.json["responses"].as_object().unwrap().values() {
            let content = response["content"].as_object();
            schemas.extend(content.into_iter().flatten().map(|(_, c)| &c["schema"]));
        }
        for reference in schemas.iter().filter_map(|schema| schema["$ref"].as_str()) {
            let name = reference.rsplit('/').next().unwrap();
            assert!(with_examples.contains(name), "{name} has no example");
        }
    }
}

#[test]
fn every_request_of_the_document_succeeds_and_is_answered_as_the_document_says() {
    let server = Server::start();
    let document = Document::of(&server);
    for operation in document.operations() {
        let bodies: Vec<Option<Value>> = match operation.body_schema() {
            None => vec![None],
            Some(schema) => {
                let examples = document.examples(schema);
                let bodies = examples.iter().map(|body| Some(here(&server, body)));
                bodies.collect()
            }
        };
        assert!(!bodies.is_empty(), "{} has no example", operation.path);
        for body in &bodies {
            let path = operation.path_for(body.as_ref());
            let mut requests = vec![path.clone()];
            for parameter in operation.parameters("query") {
                let name = parameter["name"].as_str().unwrap();
                let example = &parameter["example"];
                assert!(!example.is_null(), "{path}: {name} has no example");
                requests.push(format!("{path}?{name}={}", shown(example)));
            }
            let bytes = body.as_ref().map(Value::to_string).unwrap_or_default();
            if operation.path == "/v1/transactions" {
                // What the reads of the empty key find.
                server.put("shop.orders", "", json!({"total": 1}));
            }
            for request in requests {
                let answer = operation.send(&server, &request, bytes.as_bytes());
                document.check_answer(&operation, &request, &answer);
                assert!(
                    (200..300).contains(&answer.status)
                        || no_store(body.as_ref(), &answer)
                        || no_cluster(&operation, &answer),
                    "{} {request} {bytes}: {}",
                    operation.method,
                    answer.text()
                );
                delete_another_sink(&server, &operation, body.as_ref());
            }
        }
    }
}

#[test]
fn every_refusal_is_one_of_the_document() {
    let server = Server::with_tables();
    let document = Document::of(&server);
    for operation in document.operations() {
        let path = operation.path_for(None);
        for parameter in operation.parameters("path") {
            let (name, example) = (&parameter["name"], shown(&parameter["example"]));
            if name == "key" {
                continue;
            }
            let unknown = path.replace(&example, "no-such-name");
            let answer = operation.send(&server, &unknown, b"");
            document.check_answer(&operation, &unknown, &answer);
            assert!([404, 422].contains(&answer.status), "{unknown}");
        }
        if !operation.parameters("query").is_empty() {
            let unknown = format!("{path}?no_such_parameter=1");
            let answer = operation.send(&server, &unknown, b"");
            document.check_answer(&operation, &unknown, &answer);
            assert_eq!(answer.status, 422, "{unknown}");
        }
        if operation.body_schema().is_some() {
            for body in [r#"{"no_such_field": 1}"#, "{", "[]", "\u{fffd}"] {
                let answer = operation.send(&server, &path, body.as_bytes());
                document.check_answer(&operation, &path, &answer);
                assert_eq!(answer.status, 422, "{path} {body}");
            }
        }
    }
}

#[test]
fn refusals_of_transactions_and_reads_satisfy_the_schema_of_errors() {
    let server = Server::with_tables();
    let document = Document::of(&server);
    let position = server.put("shop.orders", "a", json!({"total": 1}));
    let write = |op: &str| json!({"op": op, "table": "shop.orders", "key": "a", "by": 1});
    let guard = |key: &str| json!({"table": "shop.orders", "key": key, "field": "/total", "gt": 5});
    let read = json!({"table": "shop.orders", "key": "a"});
    let schema = json!({"$ref": "#/components/schemas/Error"});
    for (transaction, code) in [
        (json!({"read_position": 0, "reads": [read]}), "conflict"),
        (json!({"guards": [guard("a")]}), "guard_failed"),
        (json!({"guards": [guard("none")]}), "guard_failed"),
        (json!({"writes": [write("add")]}), "bad_operation"),
        (json!({"writes": [write("ad")]}), "malformed"),
        (
            json!({"read_position": position + 9, "reads": [read]}),
            "position_in_future",
        ),
        (
            json!({"writes": [{"op": "delete", "table": "shop.order", "key": "a"}]}),
            "unknown_table",
        ),
        (
            json!({"writes": [{"op": "delete", "table": "onelog.tables", "key": "a"}]}),
            "reserved_table",
        ),
        (
            json!({"writes": [{"op": "delete", "table": "shop.orders", "key": "k".repeat(5000)}]}),
            "too_large",
        ),
        (
            json!({"wait_for": ["none"], "guards": [{"table": "shop.orders", "key": "a", "exists": true}]}),
            "unknown_sink",
        ),
    ] {
        let error = server.commit(&transaction).json();
        assert_eq!(error["error"], code, "{transaction}: {error}");
        document.check(code, &schema, &error);
    }
    for (path, code) in [
        ("/v1/tables/shop.orders/keys/none", "key_not_found"),
        ("/v1/tables/shop.clicks/keys", "wrong_table"),
        ("/v1/tables/shop.orders/keys?at=999", "position_in_future"),
        (
            "/v1/tables/shop.orders/keys?after=999&timeout_ms=1",
            "wait_timed_out",
        ),
        ("/v1/log?from=999", "position_in_future"),
        ("/v1/nothing", "not_found"),
    ] {
        let error = server.get(path).json();
        assert_eq!(error["error"], code, "{path}: {error}");
        document.check(code, &schema, &error);
    }
}

#[test]
fn an_event_is_what_the_document_says() {
    let server = Server::with_tables();
    let document = Document::of(&server);
    let headers = json!({"source": "test"});
    let write =
        json!({"op": "put", "table": "shop.orders", "key": "a", "value": 1, "headers": headers});
    server.commit(&json!({"writes": [write]})).expect(200);
    let (_, transaction) = server
        .follow("/v1/log?table=shop.orders&limit=1", &[])
        .transaction();
    let responses = &document.json["paths"]["/v1/log"]["get"]["responses"];
    let schema = &responses["200"]["content"]["text/event-stream"]["schema"];
    document.check("an event", schema, &transaction);
    assert_eq!(transaction["records"][0]["headers"], headers);
}
