//! OpenSearch under test. Rows are whole documents, and nothing is refreshed but by onelog: what a
//! search finds is what onelog has shown.

use onelog_testkit::{OpenSearch, Server};
use serde_json::{Value, json};

use crate::rig::Rig;

pub struct SearchRig(OpenSearch);

impl SearchRig {
    pub fn start() -> Self {
        Self(OpenSearch::start())
    }

    /// A request that must succeed.
    fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let (status, answer) = self.0.request(method, path, &body);
        assert!(status < 300, "{method} {path}: {status} {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    fn block(&self, value: &Value) {
        let body = json!({ "index.blocks.read_only_allow_delete": value });
        self.request("PUT", "/_all/_settings?expand_wildcards=all", &body);
    }

    fn set_dynamic(&self, into: &str, dynamic: &Value) {
        let body = json!({ "dynamic": dynamic });
        self.request("PUT", &format!("/{into}/_mapping"), &body);
    }
}

impl Rig for SearchRig {
    fn server(&self) -> &dyn Server {
        &self.0
    }

    fn target(&self) -> Value {
        json!({"kind": "elasticsearch", "url": self.0.url()})
    }

    fn mapping(&self, into: &str) -> Value {
        json!({"table": "shop.orders", "into": into, "settings": {
            "refresh_interval": "-1", "number_of_replicas": 0,
            "mappings": {"properties": {"total": {"type": "long"}, "place": {"type": "object"}}}}})
    }

    /// Fields that were not there before are refused.
    fn forbid(&self, into: &str) {
        self.set_dynamic(into, &json!("strict"));
    }

    fn allow(&self, into: &str) -> bool {
        self.set_dynamic(into, &json!(true));
        true
    }

    /// What the product does to all indexes when the disk is nearly full.
    fn freeze(&self, _into: &str) {
        self.block(&json!(true));
    }

    fn thaw(&self, _into: &str) {
        self.block(&Value::Null);
    }

    /// What is no number is kept all the same, and not found by it; an object is no text.
    fn rejected(&self) -> Value {
        json!({"total": 0, "place": "Berlin"})
    }

    fn message(&self) -> &str {
        "strict_dynamic_mapping_exception"
    }

    fn is_atomic(&self) -> bool {
        false
    }

    fn total(&self, into: &str, key: &str) -> Option<String> {
        let query = json!({"query": {"ids": {"values": [key]}}});
        let found = self.request("POST", &format!("/{into}/_search"), &query);
        let total = found.pointer("/hits/hits/0/_source/total")?;
        Some(total.to_string())
    }

    fn change(&self, into: &str, key: &str, total: i64) {
        let path = format!("/{into}/_update/{key}?refresh=true");
        self.request("POST", &path, &json!({"doc": {"total": total}}));
    }

    fn remove(&self, into: &str, key: &str) {
        let path = format!("/{into}/_doc/{key}?refresh=true");
        self.request("DELETE", &path, &Value::Null);
    }

    fn add(&self, into: &str, key: &str, total: i64) {
        let path = format!("/{into}/_doc/{key}?refresh=true");
        self.request("PUT", &path, &json!({ "total": total }));
    }
}
