//! PostgreSQL under test.

use onelog_sinks::Replay;
use onelog_testkit::{Postgres, Server};
use serde_json::{Value, json};

use crate::rig::{Rig, columns};
use crate::world::World;

pub struct PostgresRig(Postgres);

impl PostgresRig {
    pub fn start() -> Self {
        Self(Postgres::start())
    }
}

impl Rig for PostgresRig {
    fn server(&self) -> &dyn Server {
        &self.0
    }

    fn target(&self) -> Value {
        json!({"kind": "postgres", "url": self.0.url()})
    }

    fn mapping(&self, into: &str) -> Value {
        columns(into)
    }

    fn forbid(&self, into: &str) {
        self.0.sql(&format!(
            "ALTER TABLE {into} ADD CONSTRAINT {into}_not_negative CHECK (total >= 0)"
        ));
    }

    fn allow(&self, into: &str) -> bool {
        self.0.sql(&format!(
            "ALTER TABLE {into} DROP CONSTRAINT {into}_not_negative"
        ));
        true
    }

    fn message(&self) -> &str {
        "_not_negative"
    }

    fn total(&self, into: &str, key: &str) -> Option<String> {
        let found = self
            .0
            .sql(&format!("SELECT total FROM {into} WHERE id = '{key}'"));
        (!found.is_empty()).then_some(found)
    }

    fn change(&self, into: &str, key: &str, total: i64) {
        self.0.sql(&format!(
            "UPDATE {into} SET total = {total} WHERE id = '{key}'"
        ));
    }

    fn remove(&self, into: &str, key: &str) {
        self.0
            .sql(&format!("DELETE FROM {into} WHERE id = '{key}'"));
    }

    fn add(&self, into: &str, key: &str, total: i64) {
        self.0.sql(&format!(
            "INSERT INTO {into} (id, total) VALUES ('{key}', {total})"
        ));
    }

    fn make_table(&self, into: &str) -> bool {
        self.0.sql(&format!(
            "CREATE TABLE {into} (id text COLLATE \"C\" NOT NULL PRIMARY KEY, total bigint, note text)"
        ));
        true
    }
}

/// A constraint that is checked at the commit names no table: the record waits in every one that it
/// goes into, and nothing else does.
pub fn what_is_refused_at_the_commit_waits_in_every_table(rig: &PostgresRig) {
    let world = World::new(rig, "deferred");
    let (orders, archive) = (world.table("orders"), world.table("archive"));
    let mappings = json!([rig.mapping(&archive), rig.mapping(&orders)]);
    world.create(&json!({"on_refused": "park", "mappings": mappings}));
    world.order("a", 1);
    rig.0.sql(&format!(
        "CREATE FUNCTION refuse_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN IF NEW.total < 0 THEN RAISE EXCEPTION 'not at the commit' USING ERRCODE = 'check_violation'; END IF;
         RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE ON {orders} DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION refuse_at_commit()"
    ));
    world.put("a", &rig.refused());
    world.wait();
    world.order("b", 2);
    let found = world.assert_equal();
    let parked: Vec<u64> = found.tables.iter().map(|table| table.parked).collect();
    assert_eq!(parked, [1, 1]);
    let listed = world.sinks().parked(world.sink()).unwrap();
    for (parked, into) in listed.iter().zip([&archive, &orders]) {
        assert_eq!((&parked.key, &parked.into), (&json!("a"), into));
        assert!(parked.what.contains("not at the commit"), "{}", parked.what);
        assert_eq!(rig.total(into, "a").as_deref(), Some("1"));
        assert_eq!(rig.total(into, "b").as_deref(), Some("2"));
    }
    // Mended in the store, both are replayed.
    rig.0.sql(&format!("DROP TRIGGER late ON {orders}"));
    let done = world.sinks().replay(world.sink(), Replay::All).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (2, 0));
    assert_eq!(rig.total(&orders, "a").as_deref(), Some("-1"));
    assert_eq!(rig.total(&archive, "a").as_deref(), Some("-1"));
    world.end();
}
