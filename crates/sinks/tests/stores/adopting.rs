//! Tables that a user made and filled before a sink came.

use serde_json::{Value, json};

use crate::rig::Rig;
use crate::world::World;

/// Nothing where the store has no tables that it does not make itself.
pub fn rows_that_were_there_before_are_kept_until_the_definition_says_otherwise(rig: &dyn Rig) {
    let world = World::new(rig, "adopting");
    let people = world.table("people");
    if !rig.make_table(&people) {
        return;
    }
    // Given a user's own table with three rows, of which the log has one as it is, and one otherwise.
    for (key, total) in [("same", 1), ("other", 2), ("mine", 3)] {
        rig.add(&people, key, total);
    }
    world.put("same", &json!({"total": 1}));
    world.put("other", &json!({"total": 20}));
    let mapping = |more: &Value| {
        let mut mapping = rig.mapping(&people);
        mapping["existing"] = json!(true);
        for (field, more) in more.as_object().unwrap() {
            mapping[field] = more.clone();
        }
        json!({"mappings": [mapping]})
    };
    // When a sink is to fill it, then it stops with the numbers, and changes nothing.
    let careful = world.definition(world.sink(), &mapping(&json!({})));
    world.sinks().create(careful.clone()).unwrap();
    for _ in 0..2 {
        let text = world.wait_for_stop(world.sink());
        assert!(
            text.contains("of its 3 rows 1 are not in the log's table 'shop.orders' and 1 are"),
            "{text}"
        );
        world.sinks().rebuild_deleting(world.sink()).unwrap();
    }
    world.wait_for_stop(world.sink());
    assert_eq!(rig.total(&people, "mine"), Some("3".to_owned()));
    assert_eq!(rig.total(&people, "other"), Some("2".to_owned()));
    // When the log has the rows, then the sink goes on.
    world.put("mine", &json!({"total": 3}));
    world.put("other", &json!({"total": 2}));
    world.sinks().resume(world.sink()).unwrap();
    world.assert_equal();
    // What is written by hand later is no longer a row from before: a rebuild takes it away.
    rig.add(&people, "by hand", 4);
    world.sinks().rebuild(world.sink()).unwrap();
    world.put("later", &json!({"total": 5}));
    world.assert_equal();
    assert_eq!(rig.total(&people, "by hand"), None);
    // When another sink of the same node is to write it, at whatever address, then it is refused.
    let rival = world.definition("rival", &mapping(&json!({})));
    let rival = rig.elsewhere(&rival);
    let error = world.sinks().create(rival).unwrap_err().to_string();
    assert!(
        error.contains("it belongs to the sink 'adopting'"),
        "{error}"
    );
    world.sinks().delete(world.sink()).unwrap();
    // When a table is to be replaced in so many words, then it is.
    let pets = world.table("pets");
    assert!(rig.make_table(&pets));
    rig.add(&pets, "mine", 3);
    let mut replacing = mapping(&json!({"adopt": "replace"}));
    replacing["mappings"][0]["into"] = json!(pets);
    let replacing = world.definition(world.sink(), &replacing);
    world.sinks().create(replacing).unwrap();
    world.assert_equal();
    assert_eq!(rig.total(&pets, "later"), Some("5".to_owned()));
    world.end();
}

/// Nothing where a key has no type in the store.
pub fn a_key_gets_another_type_which_some_keys_do_not_have(rig: &dyn Rig) {
    for (kind, fitting) in [
        ("integer", ["1", "-20"]),
        (
            "uuid",
            [
                "0190cdd5-2a1b-7000-8000-000000000001",
                "0190cdd5-2a1b-7000-8000-000000000002",
            ],
        ),
    ] {
        let story = format!("retyped_{kind}");
        let world = World::new(rig, Box::leak(story.into_boxed_str()));
        let orders = world.table("orders");
        if !rig.make_table(&world.table("other")) {
            return;
        }
        // Given a table whose key is a text,
        world.order(fitting[0], 1);
        world.order(fitting[1], 2);
        world.order("x", 3);
        world.create(&json!({"on_refused": "park"}));
        rig.add(&orders, "by hand", 4);
        // when the definition gives it another type, then the rows that have it are there, and the
        // others are parked by name.
        let mut mapping = rig.mapping(&orders);
        mapping["columns"]["id"]["type"] = json!(kind);
        let retyped = json!({"on_refused": "park", "mappings": [mapping]});
        let retyped = world.definition(world.sink(), &retyped);
        world.sinks().replace(retyped).unwrap();
        let found = world.assert_equal();
        assert_eq!((found.tables[0].rows, found.tables[0].parked), (2, 1));
        assert_eq!(world.parked(), ["x"]);
        world.delete("x");
        world.wait();
        let all = onelog_sinks::Replay::All;
        world.sinks().replay(world.sink(), all).unwrap();
        world.end();
    }
}
