//! What the rest of onelog knows of an Elasticsearch or OpenSearch cluster.

use std::sync::Arc;

use onelog_mapping::{
    DefinitionError, FieldRule, FieldValue, KeyForm, MappingRules, Object, Plan, RowForm,
    no_further_check,
};
use onelog_store::{
    Address, CA_FILE, ServerAddress, Store, StoreError, StoreKind, StoreReader, Target, URL,
};
use serde_json::{Map, Value, json};

use crate::bookkeeping::read_ledger;
use crate::connection::Client;
use crate::reader::Reader;
use crate::store::ElasticsearchStore;

/// The option that holds the settings of an index.
pub const SETTINGS: &str = "settings";
const SCHEMES: &[&str] = &["http", "https"];

pub static KIND: ElasticsearchKind = ElasticsearchKind;

static RULES: MappingRules = MappingRules {
    kind: "elasticsearch",
    has_type: |_| true,
    full_text: false,
    folds_names: true,
    options: &[FieldRule {
        name: SETTINGS,
        help: "the settings of the index",
        value: FieldValue::Object,
    }],
    keys: KeyForm::Column,
    rows: RowForm::Document,
    columns_by: None,
    check: no_further_check,
};

/// Elasticsearch and OpenSearch clusters.
#[derive(Debug)]
pub struct ElasticsearchKind;

/// One Elasticsearch or OpenSearch cluster, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElasticsearchTarget {
    /// `http://user:password@host:port`, or `https://…`.
    pub server: ServerAddress,
}

impl StoreKind for ElasticsearchKind {
    fn rules(&self) -> &'static MappingRules {
        &RULES
    }

    fn schemes(&self) -> &'static [&'static str] {
        SCHEMES
    }

    fn fields(&self) -> &'static [FieldRule] {
        &[URL, CA_FILE]
    }

    fn example(&self) -> Value {
        json!({
            "name": "find", "kind": "elasticsearch", "url": "https://search.example:9200",
            "ca_file": "/etc/onelog/search-ca.pem",
            "mappings": [{
                "table": "shop.orders", "into": "orders",
                "settings": {"number_of_replicas": 1},
            }],
        })
    }

    fn target(&self, definition: &Object<'_>) -> Result<Arc<dyn Target>, DefinitionError> {
        Ok(Arc::new(ElasticsearchTarget {
            server: ServerAddress::read(definition, SCHEMES)?,
        }))
    }
}

impl Target for ElasticsearchTarget {
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
        self.server.fields(secrets, None)
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
        Ok(Box::new(ElasticsearchStore::open(
            self, sink, log_id, plan,
        )?))
    }

    fn open_reader(&self, plan: &Arc<Plan>) -> Result<Box<dyn StoreReader>, StoreError> {
        let client = Client::connect(self)?;
        Ok(Box::new(Reader::open_foreign(&client, plan)?))
    }

    fn followed_log(&self, sink: &str, _log_id: &str) -> Result<Option<String>, StoreError> {
        let page = read_ledger(&Client::connect(self)?, sink)?;
        Ok(page.map(|page| page.ledger.log_id))
    }
}
