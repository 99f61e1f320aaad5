//! A definition is replaced while its sink is waited for.

use onelog::Position;
use serde_json::{Value, json};

use crate::rig::Rig;
use crate::world::{PATIENCE, World};

pub fn a_definition_changes_while_others_wait_for_its_sink(rig: &dyn Rig) {
    let mut world = World::new(rig, "replacing");
    let orders = world.table("orders");
    world.create(&json!({}));
    world.order("a", 1);
    world.order("b", 2);
    world.wait();

    // What does not concern the rows leaves them alone: a mark made by hand stays.
    rig.change(&orders, "a", 77);
    let lax = json!({"on_refused": "park", "verify_every": "1d"});
    let lax = world.definition(world.sink(), &lax);
    let status = world.sinks().replace(lax.clone()).unwrap();
    assert_eq!(status.definition, lax);
    world.order("c", 3);
    world.wait();
    world.assert_total("a", 77);
    world.assert_total("c", 3);

    // Other rows, and other columns where there are any, backfill the store; waiters for the
    // sink wait on.
    let mut mapping = rig.mapping(&orders);
    mapping["where"] = json!(".total > 1");
    if mapping.get("columns").is_some() {
        mapping["columns"]["written"] = json!({"from": "$version", "type": "integer"});
    }
    let changed = json!({"on_refused": "park", "mappings": [mapping]});
    let changed = world.definition(world.sink(), &changed);
    std::thread::scope(|scope| {
        let far = Position(world.node().position().get() + 3);
        let (sinks, name) = (world.sinks(), world.sink());
        let waiting = scope.spawn(move || sinks.wait_blocking(name, far, PATIENCE));
        sinks.replace(changed.clone()).unwrap();
        world.order("d", 4);
        world.order("b", 0);
        world.order("e", 5);
        waiting.join().unwrap().unwrap();
    });
    let found = world.assert_equal();
    assert_eq!((found.tables[0].rows, found.tables[0].store_rows), (3, 3));
    assert_eq!((world.total("a"), world.total("b")), (None, None));
    world.assert_total("d", 4);

    // It is what a restart finds.
    world.reopen();
    assert_eq!(world.sinks().definition(world.sink()).unwrap(), changed);
    world.order("a", 6);
    world.assert_equal();
    world.assert_total("a", 6);
    world.end();
}

pub fn a_dry_run_says_that_the_store_follows_another_log(rig: &dyn Rig) {
    // Given a sink, and the same definition on a node with another log.
    let world = World::new(rig, "foretold");
    world.create(&json!({}));
    world.order("a", 1);
    world.wait();
    let mut other = World::new(rig, "foretold");
    let stop = |more: &Value| {
        let definition = other.definition(other.sink(), more);
        let found = other.sinks().dry_run(&definition, 1).unwrap();
        found.mappings[0].store.clone().unwrap().stop
    };
    // When it is tried there, then the dry run says what its creation is refused for,
    let foretold = stop(&json!({})).unwrap();
    let definition = other.definition(other.sink(), &json!({}));
    let refused = other.sinks().create(definition).unwrap_err().to_string();
    assert!(refused.contains(&foretold), "{foretold}");
    assert!(foretold.contains("follows another log"), "{foretold}");
    // but not where the definition takes the store, nor on the node whose sink it is.
    let log = format!("{:032x}", world.node().log_id());
    assert_eq!(stop(&json!({"take_from_log": log})), None);
    let ours = world.definition(world.sink(), &json!({}));
    let ours = world.sinks().dry_run(&ours, 1).unwrap();
    assert_eq!(ours.mappings[0].store.clone().unwrap().stop, None);
    other.close();
    world.end();
}
