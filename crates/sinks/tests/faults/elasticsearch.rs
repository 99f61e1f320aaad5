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
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        let body = json!({"index.blocks.write": blocked});
        let mut answer = config
            .new_agent()
            .put(url)
            .header("content-type", "application/json")
            .send(&body.to_string())
            .unwrap();
        let message = answer.body_mut().read_to_string();
        assert!(answer.status().is_success(), "{message:?}");
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
