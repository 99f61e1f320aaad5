//! Which keys are ours, and which are not.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_record::{TableDefinition, TableKind, ValueKind};
use onelog_redis::RedisStore;
use onelog_store::conformance::{self, LOG, Model, ORDERS, SINK};
use onelog_store::{SinkDefinition, Store, StoreError};
use onelog_testkit::{Kind, require};

use crate::harness::{KINDS, OneServer};

pub(crate) fn definition(mappings: &str) -> Result<Plan, String> {
    let text =
        format!(r#"{{"name":"f","kind":"redis","url":"redis://h","mappings":[{mappings}]}}"#);
    let tables = [TableDefinition {
        id: ORDERS,
        name: "shop.orders".into(),
        kind: TableKind::Keyed,
        value: ValueKind::Json,
        schema: None,
        unique: Vec::new(),
        dropped: false,
    }];
    let definition =
        SinkDefinition::from_slice(KINDS, text.as_bytes()).map_err(|e| e.to_string())?;
    definition
        .plan(tables.as_slice())
        .map_err(|error| error.to_string())
}

#[test]
fn templates_that_could_name_the_same_key_are_refused() {
    let mapping = |into: &str, key: &str| {
        format!(r#"{{"table":"shop.orders","into":"{into}","key":"{key}"}}"#)
    };
    for (one, other) in [
        ("a:{$key}", "a:b:{$key}"),
        ("a{$key}:x", "a{$key}"),
        ("a{$key}", "a{$key}"),
    ] {
        let error = definition(&format!("{},{}", mapping("a", one), mapping("b", other)));
        let error = error.unwrap_err();
        assert!(
            error.starts_with("mappings[1].key") && error.contains("same key"),
            "{error}"
        );
    }
    for ours in [
        "{$key}",
        "{$key}:x",
        "onelog:{$key}",
        "onelog:position:{$key}",
        "{p{$key}",
    ] {
        let error = definition(&mapping("a", ours)).unwrap_err();
        assert!(error.contains("keeps for itself"), "{ours}: {error}");
    }
    definition(&format!(
        "{},{}",
        mapping("a", "a:{$key}"),
        mapping("b", "b:{$key}")
    ))
    .unwrap();
}

#[test]
fn keys_of_others_are_not_touched() {
    require!(Kind::Redis);
    let server = OneServer::new();
    let plan = conformance::standard_plan(&server);
    server.command(&["SET", "orders:theirs", "1"]);
    let mut store = server.store(Arc::clone(&plan), LOG).unwrap();
    let error = store.check_target().unwrap_err().to_string();
    assert!(
        error.contains("orders:theirs") && error.contains("onelog has not made"),
        "{error}"
    );
    store.take_over().unwrap();
    assert!(matches!(
        store.begin_rebuild(),
        Err(StoreError::NotOwner { .. })
    ));
    assert_eq!(server.command(&["GET", "orders:theirs"]).trim_end(), "1");
    // What the message says is what helps.
    server.command(&["HSET", "onelog:owners", "orders:{$key}", SINK]);
    let mut model = Model::default();
    model.order("a", 1, "one");
    model.rebuild(&plan, &mut store).unwrap();
    assert!(model.verify(&plan, &mut store).equal);
    // Another sink keeps away from these keys, and from any that could be the same.
    let other = |into: &str| {
        let plan = conformance::plan(
            &server,
            &format!(r#"{{"table":"shop.orders","into":"{into}"}}"#),
        );
        RedisStore::open(&server.target, "other", LOG, plan)
            .unwrap()
            .check_target()
    };
    for into in ["orders", "orders:eu"] {
        assert!(
            matches!(other(into), Err(StoreError::NotOwner { .. })),
            "{into}"
        );
    }
    other("orders2").unwrap();
    store.remove().unwrap();
    other("orders").unwrap();
}
