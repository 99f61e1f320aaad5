//! Tables that a user made and filled before a sink came.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use onelog_sinks::DryRunStore;
use onelog_store::{SinkDefinition, failpoint};
use serde_json::{Value, json};

use crate::rig::Rig;
use crate::world::{PATIENCE, World};

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
    refuses_what_does_not_fit(&world, &mapping(&json!({})));
    // When a sink is to backfill it, then it stops with the numbers, as a dry run has said, and
    // changes nothing.
    let careful = world.definition(world.sink(), &mapping(&json!({})));
    let dry_run = || foretold(&world, &careful);
    let foretold = dry_run();
    let counted = (foretold.rows, foretold.deletes, foretold.changes);
    assert_eq!(counted, (3, 1, 1));
    assert!(foretold.is_too_much && foretold.counted_all, "{foretold:?}");
    let replaced = world.definition(world.sink(), &mapping(&json!({"adopt": "replace"})));
    let replaced = self::foretold(&world, &replaced);
    assert_eq!((replaced.deletes, replaced.stop), (1, None));
    world.sinks().create(careful.clone()).unwrap();
    for _ in 0..2 {
        let text = world.wait_for_stop(world.sink());
        assert!(
            text.contains("of its 3 rows 1 are not in the log's table 'shop.orders' and 1 are"),
            "{text}"
        );
        let said = foretold.stop.as_deref().unwrap();
        assert!(text.contains(said), "{text}");
        assert_eq!(dry_run(), foretold);
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
    let foretold = dry_run();
    let counted = (foretold.rows, foretold.deletes, foretold.stop);
    assert_eq!(counted, (4, 1, None));
    world.sinks().rebuild(world.sink()).unwrap();
    world.put("later", &json!({"total": 5}));
    world.assert_equal();
    assert_eq!(rig.total(&people, "by hand"), None);
    let rival = world.definition("rival", &mapping(&json!({})));
    is_refused(&world, &rig.elsewhere(&rival));
    world.sinks().delete(world.sink()).unwrap();
    is_replaced(&world, rig, mapping(&json!({"adopt": "replace"})));
    is_replaced_within_its_bound(&world, rig, mapping(&json!({"adopt": "replace"})));
    world.end();
}

/// What a dry run says of the table of a definition's only mapping.
fn foretold(world: &World<'_>, definition: &SinkDefinition) -> DryRunStore {
    let found = world.sinks().dry_run(definition, 1).unwrap();
    found.mappings[0].store.clone().unwrap()
}

/// When a sink is to write a column that the table lacks, then the definition is refused, as a dry
/// run has said, and no sink is spoken of, because there is none.
fn refuses_what_does_not_fit(world: &World<'_>, mapping: &Value) {
    let mut wrong = mapping.clone();
    wrong["mappings"][0]["columns"]["nothing"] = json!({"from": "/nothing", "type": "text"});
    let wrong = world.definition(world.sink(), &wrong);
    let foretold = foretold(world, &wrong).stop.unwrap();
    let refused = world.sinks().create(wrong).unwrap_err().to_string();
    for text in [foretold, refused] {
        assert!(text.contains("'nothing'"), "{text}");
        assert!(text.contains("send the definition again"), "{text}");
        assert!(!text.contains("onelog sinks"), "{text}");
    }
}

/// When another sink of the same node is to write the table, at whatever address, then it is refused.
fn is_refused(world: &World<'_>, rival: &SinkDefinition) {
    let error = world.sinks().create(rival.clone()).unwrap_err().to_string();
    assert!(
        error.contains("it belongs to the sink 'adopting'"),
        "{error}"
    );
}

/// When a table is to be replaced in so many words, then it is.
fn is_replaced(world: &World<'_>, rig: &dyn Rig, mut replacing: Value) {
    let pets = world.table("pets");
    assert!(rig.make_table(&pets));
    rig.add(&pets, "mine", 3);
    replacing["mappings"][0]["into"] = json!(pets);
    let replacing = world.definition(world.sink(), &replacing);
    world.sinks().create(replacing).unwrap();
    world.assert_equal();
    assert_eq!(rig.total(&pets, "later"), Some("5".to_owned()));
}

/// When the definition has a bound as well, then it holds: for rows that are there, and for those that
/// are written meanwhile.
fn is_replaced_within_its_bound(world: &World<'_>, rig: &dyn Rig, mut replacing: Value) {
    let cars = world.table("cars");
    assert!(rig.make_table(&cars));
    for (key, total) in [("his", 3), ("hers", 4), ("same", 8)] {
        rig.add(&cars, key, total);
    }
    replacing["mappings"][0]["into"] = json!(cars);
    let mut bounded = |most: u64| {
        replacing["max_deletes"] = json!(most);
        world.definition("bounded", &replacing)
    };
    let says = format!("would delete 2 of the 3 rows of '{cars}'");
    let foretold = foretold(world, &bounded(1)).stop.unwrap();
    assert!(foretold.contains(&says), "{foretold}");
    world.sinks().create(bounded(1)).unwrap();
    let text = world.wait_for_stop("bounded");
    assert!(text.contains(&says), "{text}");
    assert_eq!(rig.total(&cars, "his"), Some("3".to_owned()));
    assert_eq!(rig.total(&cars, "same"), Some("8".to_owned()));
    let counted = Stop::of("bounded", "before_finish");
    world.sinks().replace(bounded(2)).unwrap();
    counted.meanwhile(|| rig.add(&cars, "theirs", 5));
    let text = world.wait_for_stop("bounded");
    let says = format!("would delete 3 of the 4 rows of '{cars}'");
    assert!(text.contains(&says), "{text}");
    assert_eq!(rig.total(&cars, "theirs"), Some("5".to_owned()));
    world.sinks().replace(bounded(3)).unwrap();
    let position = world.node().position();
    let followed = |status: &onelog_sinks::SinkStatus| status.position >= Some(position);
    let status = world.sinks().wait_for_status("bounded", PATIENCE, followed);
    status.unwrap();
    assert_eq!(rig.total(&cars, "his"), None);
    assert_eq!(rig.total(&cars, "later"), Some("5".to_owned()));
    world.sinks().delete("bounded").unwrap();
}

/// A sink's thread waits at a place until it is let go, once.
struct Stop {
    place: String,
    reached: Receiver<()>,
    go: Sender<()>,
}

impl Stop {
    fn at(world: &World<'_>, event: &str) -> Self {
        Self::of(world.sink(), event)
    }

    fn of(sink: &str, event: &str) -> Self {
        let place = format!("{sink}:{event}");
        let (reach, reached) = channel();
        let (go, gone) = channel::<()>();
        let gone = Mutex::new(gone);
        failpoint::set(&place, move || {
            reach.send(()).ok();
            gone.lock().unwrap().recv_timeout(PATIENCE).ok();
        });
        Self { place, reached, go }
    }

    /// Does something while the thread waits there.
    fn meanwhile(self, change: impl FnOnce()) {
        self.reached.recv_timeout(PATIENCE).unwrap();
        change();
        failpoint::clear(&self.place);
        self.go.send(()).unwrap();
    }
}

/// Nothing where the store has no tables that it does not make itself.
pub fn what_is_written_while_a_users_table_is_backfilled_first_is_kept(rig: &dyn Rig) {
    let world = World::of_its_own(rig, "meanwhile");
    let people = world.table("people");
    if !rig.make_table(&people) {
        return;
    }
    // Given a user's table that is as the log has it, and a sink that has counted its rows
    rig.add(&people, "same", 1);
    world.put("same", &json!({"total": 1}));
    world.put("new", &json!({"total": 2}));
    let mut mapping = rig.mapping(&people);
    mapping["existing"] = json!(true);
    let definition = world.definition(world.sink(), &json!({"mappings": [mapping]}));
    let counted = Stop::at(&world, "before_finish");
    world.sinks().create(definition).unwrap();
    // when the user adds a row before the sink writes, then it stops and the row is there.
    counted.meanwhile(|| rig.add(&people, "mine", 3));
    let text = world.wait_for_stop(world.sink());
    assert!(
        text.contains("of its 2 rows 1 are not in the log's table 'shop.orders' and 0 are"),
        "{text}"
    );
    assert_eq!(rig.total(&people, "mine"), Some("3".to_owned()));
    assert_eq!(rig.total(&people, "new"), None);
    // When he changes one, then so it is.
    world.put("mine", &json!({"total": 3}));
    let counted = Stop::at(&world, "before_finish");
    world.sinks().resume(world.sink()).unwrap();
    counted.meanwhile(|| rig.change(&people, "same", 9));
    let text = world.wait_for_stop(world.sink());
    assert!(
        text.contains("of its 2 rows 0 are not in the log's table 'shop.orders' and 1 are"),
        "{text}"
    );
    assert_eq!(rig.total(&people, "same"), Some("9".to_owned()));
    // When the log has it all and nobody writes, then the sink goes on.
    world.put("same", &json!({"total": 9}));
    world.sinks().resume(world.sink()).unwrap();
    world.assert_equal();
    // When so many rows come before a rebuild writes that it would have stopped, then it stops.
    let rows: Vec<String> = (0..150).map(|n| format!("extra{n}")).collect();
    let counted = Stop::at(&world, "before_finish");
    world.sinks().rebuild(world.sink()).unwrap();
    counted.meanwhile(|| rig.add_many(&people, &rows));
    let text = world.wait_for_stop(world.sink());
    assert!(
        text.contains(&format!("would delete 150 of the 153 rows of '{people}'")),
        "{text}"
    );
    assert_eq!(rig.total(&people, "extra7"), Some("0".to_owned()));
    world.sinks().rebuild_deleting(world.sink()).unwrap();
    world.assert_equal();
    assert_eq!(rig.total(&people, "extra7"), None);
    world.end();
}

/// Nothing where the store has no tables that it does not make itself.
pub fn what_is_written_while_a_sinks_own_table_is_made_anew_is_not_dropped_unasked(rig: &dyn Rig) {
    let world = World::of_its_own(rig, "anew");
    if !rig.make_table(&world.table("other")) {
        return;
    }
    // Given a table that a sink has made and makes anew
    let orders = world.table("orders");
    world.order("a", 1);
    world.create(&json!({}));
    world.assert_equal();
    let loaded = Stop::at(&world, "before_finish");
    world.sinks().rebuild(world.sink()).unwrap();
    // when others write many rows to it meanwhile, then it stops, and they are there.
    let rows: Vec<String> = (0..150).map(|n| format!("extra{n}")).collect();
    loaded.meanwhile(|| rig.add_many(&orders, &rows));
    let text = world.wait_for_stop(world.sink());
    assert!(
        text.contains(&format!("would delete 150 of the 151 rows of '{orders}'")),
        "{text}"
    );
    assert_eq!(rig.total(&orders, "extra7"), Some("0".to_owned()));
    world.sinks().rebuild_deleting(world.sink()).unwrap();
    world.assert_equal();
    assert_eq!(rig.total(&orders, "extra7"), None);
    world.end();
}

/// Nothing where the store has no tables that it does not make itself.
pub fn what_a_deleted_sink_left_is_asked_for_as_any_table_that_is_there(rig: &dyn Rig) {
    let world = World::new(rig, "left");
    let orders = world.table("orders");
    if !rig.make_table(&world.table("other")) {
        return;
    }
    // Given a table that a sink made and left, to which a row was added since
    world.order("a", 1);
    world.create(&json!({}));
    world.sinks().delete(world.sink()).unwrap();
    rig.add(&orders, "mine", 2);
    // When a sink is to backfill it as one that is there, then it stops with the numbers;
    let mut mapping = rig.mapping(&orders);
    mapping["existing"] = json!(true);
    let heir = world.definition("heir", &json!({"mappings": [mapping]}));
    world.sinks().create(heir).unwrap();
    let text = world.wait_for_stop("heir");
    assert!(
        text.contains("of its 2 rows 1 are not in the log's table 'shop.orders' and 0 are"),
        "{text}"
    );
    assert_eq!(rig.total(&orders, "mine"), Some("2".to_owned()));
    // in so many words it is replaced.
    world.sinks().delete("heir").unwrap();
    mapping["adopt"] = json!("replace");
    world.create(&json!({"mappings": [mapping]}));
    world.assert_equal();
    assert_eq!(rig.total(&orders, "mine"), None);
    world.end();
}

/// Nothing where the store has no tables that it does not make itself.
pub fn a_table_that_a_definition_left_is_asked_for_when_it_comes_back(rig: &dyn Rig) {
    let world = World::new(rig, "back");
    let (people, pets) = (world.table("people"), world.table("pets"));
    if !rig.make_table(&people) || !rig.make_table(&pets) {
        return;
    }
    // Given a sink that backfills a user's table, and then another one,
    let into = |name: &str| {
        let mut mapping = rig.mapping(name);
        mapping["existing"] = json!(true);
        world.definition(world.sink(), &json!({"mappings": [mapping]}))
    };
    world.order("a", 1);
    world.sinks().create(into(&people)).unwrap();
    world.assert_equal();
    world.sinks().replace(into(&pets)).unwrap();
    world.assert_equal();
    // when the user goes on with the first one and the sink comes back, then it stops with the numbers,
    rig.add(&people, "mine", 2);
    world.sinks().replace(into(&people)).unwrap();
    let text = world.wait_for_stop(world.sink());
    assert!(
        text.contains("of its 2 rows 1 are not in the log's table 'shop.orders' and 0 are"),
        "{text}"
    );
    assert_eq!(rig.total(&people, "mine"), Some("2".to_owned()));
    // and another sink may have the one that it left.
    let mut heir = rig.mapping(&pets);
    heir["existing"] = json!(true);
    let heir = world.definition("heir", &json!({"mappings": [heir]}));
    world.sinks().create(heir).unwrap();
    world.sinks().delete("heir").unwrap();
    // When the log has the row, then the sink goes on.
    world.put("mine", &json!({"total": 2}));
    world.sinks().resume(world.sink()).unwrap();
    world.assert_equal();
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
