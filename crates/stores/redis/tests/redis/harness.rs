//! One server for all tests of this binary, and the store on it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use onelog_mapping::Plan;
use onelog_redis::{RedisStore, RedisTarget};
use onelog_store::conformance::{Capabilities, Harness, SINK};
use onelog_store::{ServerAddress, Store, StoreError};
use onelog_testkit::{Redis, Server};

pub(crate) static KINDS: onelog_store::Kinds = onelog_store::Kinds::new(&[&onelog_redis::KIND]);

/// One server for all tests of this file, a database for each harness.
pub(crate) static SERVER: LazyLock<Redis> =
    LazyLock::new(|| Redis::start_with(&["databases=200", "appendonly=no"]));
pub(crate) static DATABASES: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct OneServer {
    pub(crate) target: RedisTarget,
    pub(crate) shape: RedisShape,
    pub(crate) database: String,
}

impl OneServer {
    pub(crate) fn new() -> Self {
        Self::with(RedisShape::String, None)
    }

    pub(crate) fn with(shape: RedisShape, partitions: Option<u16>) -> Self {
        let database = DATABASES.fetch_add(1, Ordering::Relaxed).to_string();
        let url = format!("{}/{database}", SERVER.url());
        Self {
            target: RedisTarget {
                server: ServerAddress::from(url.as_str()),
                partitions,
            },
            shape,
            database,
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let mut all = vec!["-n", &self.database];
        all.extend(arguments);
        SERVER.command(&all)
    }

    pub(crate) fn store(&self, plan: Arc<Plan>, log_id: &str) -> Result<RedisStore, StoreError> {
        RedisStore::open(&self.target, SINK, log_id, shaped(plan, self.shape))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RedisShape {
    String,
    Hash,
}

pub(crate) fn shaped(plan: Arc<Plan>, shape: RedisShape) -> Arc<Plan> {
    let mut plan = Plan::clone(&plan);
    if shape == RedisShape::Hash {
        for mapping in &mut plan.mappings {
            mapping.options = std::mem::take(&mut mapping.options).with("as", "hash");
        }
    }
    Arc::new(plan)
}

pub(crate) const CAN: Capabilities = Capabilities {
    full_text: false,
    ..Capabilities::ALL
};

impl Harness for OneServer {
    fn open_as(&self, sink: &str, plan: Arc<Plan>, log_id: &str) -> Box<dyn Store> {
        let plan = shaped(plan, self.shape);
        Box::new(RedisStore::open(&self.target, sink, log_id, plan).unwrap())
    }

    fn capabilities(&self) -> Capabilities {
        CAN
    }

    fn kind(&self) -> &'static dyn onelog_store::StoreKind {
        &onelog_redis::KIND
    }
}
