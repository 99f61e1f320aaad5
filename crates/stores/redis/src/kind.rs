//! What the rest of onelog knows of a Redis server or cluster.

use std::sync::Arc;

use onelog_mapping::{
    DefinitionError, FieldRule, FieldValue, KeyForm, MappingRules, Object, Plan, RowForm,
    TTL_SECONDS,
};
use onelog_store::{
    Address, CA_FILE, ServerAddress, Store, StoreError, StoreKind, StoreReader, Target, URL,
};
use serde_json::{Map, Value, json};

use crate::bookkeeping::{Names, check_mappings, followed};
use crate::connection::Servers;
use crate::reader::RedisReader;
use crate::store::RedisStore;

/// The most partitions of a sink in a Redis Cluster.
pub const PARTITIONS_MAX: u64 = 4096;
const PARTITIONS: FieldRule = FieldRule {
    name: "partitions",
    help: "given for a cluster: into how many groups keys are spread",
    value: FieldValue::Count {
        max: PARTITIONS_MAX,
    },
};
/// The option that says what a row is, a string that holds JSON or a hash with one field a column.
pub const AS: &str = "as";
pub const HASH: &str = "hash";
/// The longest life of a row: ten years.
const TTL_SECONDS_MAX: u64 = 315_360_000;
const SCHEMES: &[&str] = &["redis", "rediss"];

pub static KIND: RedisKind = RedisKind;

static RULES: MappingRules = MappingRules {
    kind: "redis",
    has_type: |_| true,
    full_text: false,
    folds_names: false,
    options: &[
        FieldRule {
            name: AS,
            help: "what a row is, a string that holds JSON or a hash with one field a column",
            value: FieldValue::Choice {
                what: "shape",
                of: &["string", HASH],
            },
        },
        FieldRule {
            name: TTL_SECONDS,
            help: "for how long a row lives, in seconds",
            value: FieldValue::Count {
                max: TTL_SECONDS_MAX,
            },
        },
    ],
    keys: KeyForm::Name,
    rows: RowForm::Document,
    columns_by: Some((AS, HASH)),
    check: check_mappings,
};

/// Redis servers and clusters.
#[derive(Debug)]
pub struct RedisKind;

/// One Redis server or cluster, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisTarget {
    /// `redis://user:password@host:port/number`, or `rediss://…` with TLS.
    pub server: ServerAddress,
    /// Given for a cluster: into how many groups keys are spread.
    pub partitions: Option<u16>,
}

impl StoreKind for RedisKind {
    fn rules(&self) -> &'static MappingRules {
        &RULES
    }

    fn schemes(&self) -> &'static [&'static str] {
        SCHEMES
    }

    fn fields(&self) -> &'static [FieldRule] {
        &[URL, PARTITIONS, CA_FILE]
    }

    fn example(&self) -> Value {
        json!({
            "name": "cache", "kind": "redis", "url": "redis://cache.example:6379/0", "paused": true,
            "mappings": [{
                "table": "shop.orders", "into": "orders", "key": "order:{$key}",
                "fields": ["total"], "ttl_seconds": 3600,
            }],
        })
    }

    fn target(&self, definition: &Object<'_>) -> Result<Arc<dyn Target>, DefinitionError> {
        Ok(Arc::new(RedisTarget {
            server: ServerAddress::read(definition, SCHEMES)?,
            partitions: definition
                .optional_count(PARTITIONS.name, PARTITIONS_MAX)?
                .map(|count| count as u16),
        }))
    }
}

impl Target for RedisTarget {
    fn kind(&self) -> &'static dyn StoreKind {
        &KIND
    }

    fn address(&self) -> Option<&Address> {
        Some(&self.server.url)
    }

    fn place(&self) -> String {
        self.server.url.shown()
    }

    fn fields(&self, secrets: bool) -> Map<String, Value> {
        let partitions = self.partitions.map(|count| (PARTITIONS.name, count.into()));
        self.server.fields(secrets, partitions)
    }

    fn is_same_store(&self, other: &dyn Target) -> bool {
        (other as &dyn std::any::Any)
            .downcast_ref::<Self>()
            .is_some_and(|other| self.server.is_same_place(&other.server))
    }

    fn check_place(&self) -> Result<(), String> {
        self.server.check()
    }

    fn open(
        &self,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(RedisStore::open(self, sink, log_id, plan)?))
    }

    fn open_reader(&self, plan: &Arc<Plan>) -> Result<Box<dyn StoreReader>, StoreError> {
        let names = Names::new("", self.partitions);
        let servers = Servers::connect(self, &names)?;
        let plan = Arc::clone(plan);
        Ok(Box::new(RedisReader::unfixed(servers, names, plan)))
    }

    fn followed_log(&self, sink: &str, log_id: &str) -> Result<Option<String>, StoreError> {
        let names = Names::new(sink, self.partitions);
        let mut servers = Servers::connect(self, &names)?;
        let found = followed(&mut servers, &names, log_id)?;
        Ok(found.map(|found| found.log_id))
    }
}
