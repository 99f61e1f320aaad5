//! Differences that other clients made: found, named and mended.

use std::sync::Arc;

use bytes::Bytes;
use onelog_mapping::Plan;
use onelog_record::Offset;
use onelog_store::conformance::{self, Harness, LOG, Model};
use onelog_store::{Batch, Change, LogSide, Store, TableVerification, Verification};
use onelog_testkit::{Kind, require};

use crate::harness::{OneServer, RedisShape};

/// Every key that differs, by mapping.
pub(crate) fn differing(found: &Verification) -> Vec<Vec<String>> {
    let keys = |table: &TableVerification| {
        assert_eq!(table.differences_total as usize, table.differences.len());
        let keys = table.differences.iter().map(|d| d.key.to_string());
        keys.collect()
    };
    found.tables.iter().map(keys).collect()
}

/// Writes keys of the first mapping again, or deletes them where the log has none.
pub(crate) fn repair(plan: &Plan, model: &Model, store: &mut dyn Store, keys: &[&str]) {
    let mut changes = vec![Vec::new(); plan.mappings.len()];
    for key in keys {
        let mut change = Change {
            key: Bytes::copy_from_slice(key.as_bytes()),
            offset: Offset(0),
            value: None,
        };
        let newest = &mut |of: &[u8], offset, value: &[u8]| {
            if of == key.as_bytes() {
                change.offset = offset;
                change.value = Some(Bytes::copy_from_slice(value));
            }
            Ok(())
        };
        model.scan(plan.mappings[0].table, newest).unwrap();
        changes[0].push(change);
    }
    let batch = Batch::repair(model.place(), changes);
    store.apply(&batch).unwrap();
}

#[test]
fn every_kind_of_planted_difference_is_found_named_and_mended() {
    require!(Kind::Redis);
    for (shape, partitions) in [
        (RedisShape::String, None),
        (RedisShape::Hash, None),
        (RedisShape::Hash, Some(3)),
    ] {
        let server = OneServer::with(shape, partitions);
        let plan = conformance::standard_plan(&server);
        let mut model = Model::default();
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            model.order(key, 1, "some note");
        }
        let mut store = server.open(Arc::clone(&plan), LOG);
        store.take_over().unwrap();
        model.rebuild(&plan, store.as_mut()).unwrap();
        let name = |key: &str| server.command(&["KEYS", &format!("*orders:{key}")]);
        let name = |key: &str| name(key).trim_end().to_owned();
        let hash = shape == RedisShape::Hash;
        let edit = |key: &str, field: &str, value: &str| {
            let name = name(key);
            if hash {
                server.command(&["HSET", &name, field, value]);
                return;
            }
            let text = server.command(&["GET", &name]);
            let mut row: serde_json::Value = serde_json::from_str(&text).unwrap();
            row[field] = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            server.command(&["SET", &name, &row.to_string()]);
        };
        edit("a", "total", "2");
        edit("b", "note", "some word");
        server.command(&["DEL", &name("c")]);
        let (d, x) = (name("d"), name("d").replace(":d", ":x"));
        server.command(&["RENAME", &d, &x]);
        server.command(&["RPUSH", &d, "of another type"]);
        edit("e", "added", "by hand");
        edit("f", "id", "g");
        edit("g", "total", "01");
        match hash {
            true => server.command(&["HDEL", &name("h"), "note"]),
            false => server.command(&["SETRANGE", &name("h"), "20", "?"]),
        };
        let found = model.verify(&plan, store.as_mut());
        let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "x"];
        let expected = keys.map(|key| format!("\"{key}\"")).to_vec();
        assert_eq!(
            differing(&found),
            [expected],
            "{shape:?} {partitions:?} {found:#?}"
        );
        // A repair also takes away a row in a partition where it does not belong.
        repair(&plan, &model, store.as_mut(), &keys);
        let found = model.verify(&plan, store.as_mut());
        assert!(found.equal, "{shape:?} {partitions:?} {found:#?}");
    }
}
