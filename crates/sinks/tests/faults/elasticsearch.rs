//! OpenSearch under test. It has no transactions: what it promises is equality at the barrier, which
//! every comparison is.

use std::time::Duration;

use onelog_testkit::{Proxy, Server};
use serde_json::{Value, json};

use crate::rig::{Auditor, RIGHT, Rig};

pub struct ElasticsearchRig {
    server: Box<dyn Server>,
    proxy: Proxy,
}

impl ElasticsearchRig {
    pub fn start(server: Box<dyn Server>) -> Self {
        let proxy = Proxy::in_front_of(server.as_ref());
        Self { server, proxy }
    }

    fn block(&self, blocked: bool) {
        let url = format!("{}/{RIGHT}/_settings", self.server.url());
        // Fails when a sink installed it before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::blocking::Client::builder()
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        let body = json!({"index.blocks.write": blocked});
        let answer = client
            .put(url)
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().unwrap());
    }
}

impl Rig for ElasticsearchRig {
    fn server(&self) -> &dyn Server {
        self.server.as_ref()
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn target(&self) -> Value {
        json!({"kind": "elasticsearch", "url": self.proxy.url_of(&self.server.url())})
    }

    /// The document of the position.
    fn commit(&self) -> &[u8] {
        b"/onelog-sinks/_doc/"
    }

    /// It takes long to start, and a refresh for each small batch.
    fn rounds(&self) -> u64 {
        match std::env::var_os("ONELOG_TEST_FULL") {
            Some(_) => 20,
            None => 3,
        }
    }

    fn connect(&self) -> Option<Box<dyn Auditor>> {
        None
    }

    fn refuse_writes(&self) {
        self.block(true);
    }

    fn allow_writes(&self) {
        self.block(false);
    }
}
