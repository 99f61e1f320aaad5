//! A definition that makes other keys than before: the old ones go in the step that shows the new.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_redis::RedisStore;
use onelog_store::conformance::{self, LOG, Model};
use onelog_store::{Leftover, Store, StoreError, failpoint};
use onelog_testkit::{Kind, require};

use crate::harness::{OneServer, RedisShape};

fn plan_of(server: &OneServer, mappings: &[(&str, &str)]) -> Arc<Plan> {
    let text: Vec<String> = mappings
        .iter()
        .map(|(into, key)| {
            serde_json::json!({"table": "shop.orders", "into": into, "key": key}).to_string()
        })
        .collect();
    conformance::plan(server, &text.join(","))
}

fn opened(server: &OneServer, sink: &str, plan: &Arc<Plan>) -> RedisStore {
    let mut store = RedisStore::open(&server.target, sink, LOG, Arc::clone(plan)).unwrap();
    store.take_over().unwrap();
    store
}

fn keys(server: &OneServer) -> Vec<String> {
    let all = server.command(&["KEYS", "*"]);
    let rows = all.lines().filter(|key| !key.contains("onelog:"));
    let mut rows: Vec<String> = rows.map(str::to_owned).collect();
    rows.sort();
    rows
}

fn owners(server: &OneServer) -> String {
    let all = server.command(&["HKEYS", "onelog:owners"]);
    let mut all: Vec<&str> = all.lines().collect();
    all.sort_unstable();
    all.join(" ")
}

fn two_orders() -> Model {
    let mut model = Model::default();
    model.order("a", 1, "one");
    model.order("b", 2, "two");
    model
}

#[test]
fn keys_of_a_template_that_is_no_longer_used_go_with_the_backfill_and_nothing_else_does() {
    require!(Kind::Redis);
    type Mappings = &'static [(&'static str, &'static str)];
    const BEFORE: Mappings = &[("orders", "order:v1:{$key}")];
    for (after, expected) in [
        // Another prefix, and a suffix.
        (&[("orders", "o:{$key}:x")] as Mappings, "o:a:x o:b:x"),
        // One that is part of the old keys, and one of which the old keys are part.
        (
            &[("orders", "order:v1:n:{$key}")],
            "order:v1:n:a order:v1:n:b",
        ),
        (&[("orders", "order:{$key}")], "order:a order:b"),
        // The mapping under another name, and one more.
        (
            &[("other", "other:{$key}"), ("more", "more:{$key}")],
            "more:a more:b other:a other:b",
        ),
    ] {
        for partitions in [None, Some(5)] {
            let server = OneServer::with(RedisShape::String, partitions);
            // Given a store that is backfilled by one template, beside keys of others,
            let before = plan_of(&server, BEFORE);
            let model = two_orders();
            let mut store = opened(&server, "s", &before);
            model.rebuild(&before, &mut store).unwrap();
            server.command(&["SET", "theirs:order:v1:a", "1"]);
            server.command(&["SET", "order", "1"]);
            drop(store);
            // when it is backfilled by another one,
            let after = plan_of(&server, after);
            let mut store = opened(&server, "s", &after);
            store.check_target().unwrap();
            model.rebuild(&after, &mut store).unwrap();
            store.check_shape().unwrap();
            // then its keys are those of the new one, what others wrote stays, and the names are free.
            assert!(model.verify(&after, &mut store).equal);
            let bare = |key: String| match partitions {
                None => key,
                Some(_) => key
                    .split_once('}')
                    .map_or(key.clone(), |(_, k)| k.to_owned()),
            };
            let mut found: Vec<String> = keys(&server).into_iter().map(bare).collect();
            found.sort();
            let mut wanted: Vec<&str> = expected.split(' ').collect();
            wanted.extend(["order", "theirs:order:v1:a"]);
            wanted.sort_unstable();
            assert_eq!(found, wanted);
            assert!(
                !owners(&server).contains("order:v1:{$key}"),
                "{}",
                owners(&server)
            );
        }
    }
}

#[test]
fn a_mapping_that_is_taken_out_of_a_sink_takes_its_keys_with_it() {
    require!(Kind::Redis);
    let server = OneServer::new();
    let both = plan_of(&server, &[("a", "a:{$key}"), ("b", "b:{$key}")]);
    let one = plan_of(&server, &[("a", "a:{$key}")]);
    let model = two_orders();
    model
        .rebuild(&both, &mut opened(&server, "s", &both))
        .unwrap();
    let mut store = opened(&server, "s", &one);
    // How many these are is known before, for the guard.
    let left = store.leftovers().unwrap();
    let name = "b:{$key}".to_owned();
    assert_eq!(left, [Leftover { name, rows: 2 }]);
    model.rebuild(&one, &mut store).unwrap();
    assert_eq!(keys(&server), ["a:a", "a:b"]);
    assert_eq!(store.leftovers().unwrap(), []);
    // Another sink may have them now.
    let other = plan_of(&server, &[("b", "b:{$key}")]);
    let mut other_store = opened(&server, "other", &other);
    other_store.check_target().unwrap();
    model.rebuild(&other, &mut other_store).unwrap();
    // A rebuild of the first one leaves them alone.
    model.rebuild(&one, &mut store).unwrap();
    assert_eq!(keys(&server), ["a:a", "a:b", "b:a", "b:b"]);
}

#[test]
fn a_process_that_dies_on_either_side_of_the_swap_leaves_old_rows_or_new_ones() {
    require!(Kind::Redis);
    for (sink, place, expected) in [
        ("dies_before", "before_swap", ["old:a", "old:b"]),
        ("dies_after", "after_swap", ["new:a", "new:b"]),
    ] {
        let server = OneServer::new();
        let old = plan_of(&server, &[("orders", "old:{$key}")]);
        let new = plan_of(&server, &[("orders", "new:{$key}")]);
        let model = two_orders();
        model
            .rebuild(&old, &mut opened(&server, sink, &old))
            .unwrap();
        let mut store = opened(&server, sink, &new);
        let point = format!("{sink}:{place}");
        failpoint::set(&point, || panic!("the planned failure"));
        let died = AssertUnwindSafe(|| model.rebuild(&new, &mut store));
        let outcome = std::panic::catch_unwind(died);
        failpoint::clear(&point);
        assert!(outcome.is_err());
        assert_eq!(keys(&server), expected);
        // The next process finishes it, whichever it was.
        let mut store = opened(&server, sink, &new);
        if store.position().unwrap().is_none() {
            model.rebuild(&new, &mut store).unwrap();
        }
        store.check_shape().unwrap();
        assert_eq!(keys(&server), ["new:a", "new:b"]);
        assert_eq!(owners(&server), "new:{$key}");
        assert!(model.verify(&new, &mut store).equal);
        // Back to what it was before.
        let mut store = opened(&server, sink, &old);
        model.rebuild(&old, &mut store).unwrap();
        assert_eq!(keys(&server), ["old:a", "old:b"]);
    }
}

#[test]
fn a_process_of_the_old_definition_deletes_nothing_once_it_is_overtaken() {
    require!(Kind::Redis);
    let server = OneServer::new();
    let old = plan_of(&server, &[("orders", "old:{$key}")]);
    let new = plan_of(&server, &[("orders", "new:{$key}")]);
    let model = two_orders();
    let mut before = opened(&server, "s", &old);
    model.rebuild(&old, &mut before).unwrap();
    model.load(&old, &mut before).unwrap();
    let mut after = opened(&server, "s", &new);
    model.rebuild(&new, &mut after).unwrap();
    let error = before.finish_rebuild(model.place()).unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    assert_eq!(keys(&server), ["new:a", "new:b"]);
}

#[test]
fn a_row_that_becomes_a_hash_or_a_string_leaves_nothing_of_the_other_kind() {
    require!(Kind::Redis);
    let mut server = OneServer::new();
    let plan = plan_of(&server, &[("orders", "order:{$key}")]);
    let mut model = two_orders();
    for shape in [RedisShape::String, RedisShape::Hash, RedisShape::String] {
        server.shape = shape;
        let mut store = server.store(Arc::clone(&plan), LOG).unwrap();
        store.take_over().unwrap();
        model.rebuild(&plan, &mut store).unwrap();
        let kind = match shape {
            RedisShape::String => "string",
            RedisShape::Hash => "hash",
        };
        assert_eq!(server.command(&["TYPE", "order:a"]).trim_end(), kind);
        assert!(model.verify(&plan, &mut store).equal);
        model.order("a", 3, "three");
    }
}
