//! Servers of both products, shared by the tests of one binary: each test runs alone on an empty
//! one.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use onelog_mapping::Plan;
use onelog_search::{ElasticsearchStore, ElasticsearchTarget};
use onelog_store::conformance::{Capabilities, Harness, LOG, plan};
use onelog_store::{ServerAddress, Store};
use onelog_testkit::{Elasticsearch, OpenSearch, Server};
use serde_json::Value;

pub enum Fixture {
    OpenSearch(OpenSearch),
    Elasticsearch(Elasticsearch),
}

impl Fixture {
    pub fn server(&self) -> &dyn Server {
        match self {
            Self::OpenSearch(server) => server,
            Self::Elasticsearch(server) => server,
        }
    }

    /// A request that must succeed.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, answer) = match self {
            Self::OpenSearch(server) => server.request(method, path, body),
            Self::Elasticsearch(server) => server.request(method, path, body),
        };
        assert!(status < 300, "{method} {path}: {status} {answer}");
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }

    /// Deletes every index.
    pub fn wipe(&self) {
        self.request("DELETE", "/*", "");
    }

    pub fn harness(&self) -> SearchHarness {
        SearchHarness {
            url: self.server().url(),
        }
    }
}

/// Opens the sink `follower` on a server.
#[derive(Clone)]
pub struct SearchHarness {
    pub url: String,
}

impl SearchHarness {
    pub fn store(&self, plan: &Arc<Plan>) -> ElasticsearchStore {
        self.open_as("follower", plan, LOG)
    }

    pub fn open_as(&self, sink: &str, plan: &Arc<Plan>, log_id: &str) -> ElasticsearchStore {
        ElasticsearchStore::open(&self.target(), sink, log_id, Arc::clone(plan)).unwrap()
    }

    pub fn target(&self) -> ElasticsearchTarget {
        ElasticsearchTarget {
            server: ServerAddress::from(&self.url[..]),
        }
    }

    pub fn plan(&self, mappings: &str) -> Arc<Plan> {
        plan(self, mappings)
    }
}

impl Harness for SearchHarness {
    fn open_as(&self, sink: &str, plan: Arc<Plan>, log_id: &str) -> Box<dyn Store> {
        Box::new(Self::open_as(self, sink, &plan, log_id))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            full_text: false,
            atomic: false,
            empty_keys: false,
            any_name: false,
            ..Capabilities::ALL
        }
    }

    fn kind(&self) -> &'static dyn onelog_store::StoreKind {
        &onelog_search::KIND
    }
}

pub fn on_opensearch(test: fn(&Fixture)) {
    static SHARED: OnceLock<Mutex<Fixture>> = OnceLock::new();
    run(
        SHARED.get_or_init(|| Mutex::new(Fixture::OpenSearch(OpenSearch::start()))),
        test,
    );
}

pub fn on_elasticsearch(test: fn(&Fixture)) {
    static SHARED: OnceLock<Mutex<Fixture>> = OnceLock::new();
    run(
        SHARED.get_or_init(|| Mutex::new(Fixture::Elasticsearch(Elasticsearch::start()))),
        test,
    );
}

fn run(shared: &Mutex<Fixture>, test: fn(&Fixture)) {
    let fixture = shared.lock().unwrap_or_else(PoisonError::into_inner);
    fixture.wipe();
    test(&fixture);
}

/// Makes a test of each story on each product.
macro_rules! stories {
    ($($story:ident),+ $(,)?) => {
        mod opensearch {
            $(#[test]
            fn $story() {
                onelog_testkit::require!(onelog_testkit::Kind::OpenSearch);
                crate::search::on_opensearch(super::$story);
            })+
        }
        mod elasticsearch {
            $(#[test]
            fn $story() {
                onelog_testkit::require!(onelog_testkit::Kind::Elasticsearch);
                crate::search::on_elasticsearch(super::$story);
            })+
        }
    };
}
pub(crate) use stories;
