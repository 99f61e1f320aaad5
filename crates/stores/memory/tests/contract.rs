//! The store in memory against the contract of every store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use onelog_mapping::Plan;
use onelog_memory::{KIND, MemoryTarget};
use onelog_store::conformance::{
    self, Capabilities, Harness, LOG, SINK, backfilled, standard_plan,
};
use onelog_store::{Store, StoreError, StoreKind, Target};

struct Memory(MemoryTarget);

impl Memory {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let place = format!("contract {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Self(MemoryTarget { place })
    }
}

impl Harness for Memory {
    fn open_as(&self, sink: &str, plan: Arc<Plan>, log_id: &str) -> Box<dyn Store> {
        self.0.open(sink, log_id, plan).unwrap()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn kind(&self) -> &'static dyn StoreKind {
        &KIND
    }
}

#[test]
fn a_store_in_memory_keeps_the_contract_of_every_store() {
    conformance::all(&|| Box::new(Memory::new()));
}

#[test]
fn a_table_belongs_to_the_sink_that_made_it_until_that_is_removed() {
    let memory = Memory::new();
    let plan = standard_plan(&memory);
    let (mut store, model) = backfilled(&memory, &plan);
    let mut other = memory.0.open("other", LOG, Arc::clone(&plan)).unwrap();
    other.take_over().unwrap();
    for error in [
        other.check_target().unwrap_err(),
        model.rebuild(&plan, other.as_mut()).unwrap_err(),
    ] {
        let StoreError::NotOwner { into, what, .. } = error else {
            panic!("{error}");
        };
        assert!(into == "orders" && what.contains(SINK), "{what}");
    }
    assert!(model.verify(&plan, store.as_mut()).equal);
    store.remove().unwrap();
    other.check_target().unwrap();
    model.rebuild(&plan, other.as_mut()).unwrap();
    assert!(model.verify(&plan, other.as_mut()).equal);
}

#[test]
fn tables_are_read_without_their_sink() {
    let memory = Memory::new();
    let plan = standard_plan(&memory);
    let (_, model) = backfilled(&memory, &plan);
    let mut reader = memory.0.open_reader(&plan).unwrap();
    let found = onelog_store::verify(&plan, &model, reader.as_mut()).unwrap();
    assert!(found.equal, "{found:#?}");
    let more = conformance::plan(
        &memory,
        r#"{"table":"shop.orders","into":"orders","columns":{"sum":{"from":"/sum","type":"real"}}}"#,
    );
    let error = memory.0.open_reader(&more).err().unwrap();
    assert!(
        matches!(error, StoreError::SchemaMismatch { .. }),
        "{error}"
    );
}
