//! What the rest of onelog knows of this store.

use std::any::Any;
use std::sync::Arc;

use onelog_mapping::{
    DefinitionError, FieldRule, FieldValue, KeyForm, MappingRules, Object, Plan, RowForm,
    no_further_check,
};
use onelog_store::{Address, Store, StoreError, StoreKind, StoreReader, Target};
use serde_json::{Map, Value, json};

use crate::connection::Connection;
use crate::reader::MemoryReader;
use crate::store::MemoryStore;

const PLACE: FieldRule = FieldRule {
    name: "place",
    help: "the name of the place in memory",
    value: FieldValue::Text,
};
const SCHEME: &str = "memory";

pub static KIND: MemoryKind = MemoryKind;

static RULES: MappingRules = MappingRules {
    kind: "memory",
    has_type: |_| true,
    full_text: true,
    folds_names: false,
    options: &[],
    keys: KeyForm::Column,
    rows: RowForm::Columns,
    columns_by: None,
    check: no_further_check,
};

/// Tables in the memory of the process, by the name of a place.
#[derive(Debug)]
pub struct MemoryKind;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryTarget {
    pub place: String,
}

impl StoreKind for MemoryKind {
    fn rules(&self) -> &'static MappingRules {
        &RULES
    }

    fn schemes(&self) -> &'static [&'static str] {
        &[SCHEME]
    }

    fn fields(&self) -> &'static [FieldRule] {
        &[PLACE]
    }

    fn example(&self) -> Value {
        json!({"name": "fast", "kind": "memory", "place": "shelf", "mappings": [
            {"table": "shop.orders", "into": "orders"},
        ]})
    }

    fn target(&self, definition: &Object<'_>) -> Result<Arc<dyn Target>, DefinitionError> {
        let place = definition.text(PLACE.name)?.to_owned();
        Ok(Arc::new(MemoryTarget { place }))
    }

    fn fields_of(&self, address: &str) -> Map<String, Value> {
        let place = address
            .split_once("://")
            .map_or(address, |(_, place)| place);
        Map::from_iter([(PLACE.name.to_owned(), place.into())])
    }
}

impl Target for MemoryTarget {
    fn kind(&self) -> &'static dyn StoreKind {
        &KIND
    }

    fn address(&self) -> Option<&Address> {
        None
    }

    fn place(&self) -> String {
        self.place.clone()
    }

    fn fields(&self, _secrets: bool) -> Map<String, Value> {
        Map::from_iter([(PLACE.name.to_owned(), self.place().into())])
    }

    fn is_same_store(&self, other: &dyn Target) -> bool {
        (other as &dyn Any).downcast_ref::<Self>() == Some(self)
    }

    fn check_place(&self) -> Result<(), String> {
        Ok(())
    }

    fn open(
        &self,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<Box<dyn Store>, StoreError> {
        let connection = Connection::open(&self.place);
        Ok(Box::new(MemoryStore::new(connection, sink, log_id, plan)))
    }

    fn open_reader(&self, plan: &Arc<Plan>) -> Result<Box<dyn StoreReader>, StoreError> {
        let connection = Connection::open(&self.place);
        Ok(Box::new(MemoryReader::of_tables(&connection.lock(), plan)?))
    }
}
