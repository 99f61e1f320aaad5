//! PostgreSQL under test.

use onelog_sinks::Replay;
use onelog_testkit::{Postgres, Server};
use serde_json::{Value, json};

use crate::rig::{Rig, columns};
use crate::world::World;

/// The sink's own, beside the one of the looks and edits.
const LOGIN: &str = "follower";

pub struct PostgresRig(Postgres);

impl PostgresRig {
    pub fn start() -> Self {
        let server = Postgres::start();
        server.sql(&format!("CREATE ROLE {LOGIN} SUPERUSER LOGIN"));
        Self(server)
    }

    /// Waits until new sessions see this value of `default_transaction_read_only`.
    fn reload(&self, value: &str) {
        self.0.sql("SELECT pg_reload_conf()");
        while self.0.sql("SHOW default_transaction_read_only") != value {}
    }
}

impl Rig for PostgresRig {
    fn server(&self) -> &dyn Server {
        &self.0
    }

    fn target(&self) -> Value {
        let url = self.0.url().replace("onelog@", &format!("{LOGIN}@"));
        json!({"kind": "postgres", "url": url})
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

    fn make_unique(&self, into: &str) {
        self.0.sql(&format!(
            "ALTER TABLE {into} ADD CONSTRAINT {into}_total UNIQUE (total)"
        ));
    }

    fn shut_out(&self) -> bool {
        self.0.sql(&format!("ALTER ROLE {LOGIN} NOLOGIN"));
        self.0.sql(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{LOGIN}'"
        ));
        true
    }

    fn let_in(&self) {
        self.0.sql(&format!("ALTER ROLE {LOGIN} LOGIN"));
    }

    fn freeze(&self, _into: &str) {
        self.0
            .sql("ALTER SYSTEM SET default_transaction_read_only = on");
        self.reload("on");
    }

    fn thaw(&self, _into: &str) {
        self.0
            .sql("ALTER SYSTEM RESET default_transaction_read_only");
        self.reload("off");
    }

    fn merges(&self) -> bool {
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

    fn add_many(&self, into: &str, keys: &[String]) {
        let rows: Vec<String> = keys.iter().map(|key| format!("('{key}', 0)")).collect();
        let rows = rows.join(", ");
        self.0
            .sql(&format!("INSERT INTO {into} (id, total) VALUES {rows}"));
    }

    fn make_table(&self, into: &str) -> bool {
        self.0.sql(&format!(
            "CREATE TABLE {into} (id text COLLATE \"C\" NOT NULL PRIMARY KEY, total bigint, note text)"
        ));
        true
    }

    fn make_family(&self, into: &str) -> bool {
        self.0.sql(&format!(
            "CREATE TABLE {into} (id text COLLATE \"C\" NOT NULL PRIMARY KEY, total bigint, note text COLLATE \"C\" REFERENCES {into})"
        ));
        true
    }

    fn narrow(&self, into: &str) -> Option<String> {
        self.0.sql(&format!(
            "ALTER TABLE {into} ALTER note TYPE varchar(3) USING left(note, 3)"
        ));
        let said = "'note' was text when onelog backfilled it and is character varying(3) now";
        Some(said.to_owned())
    }

    fn widen(&self, into: &str) {
        self.0
            .sql(&format!("ALTER TABLE {into} ALTER note TYPE text"));
    }
}

/// A rule that is checked at the commit names no row; the one at fault is found, in its table.
pub fn a_rule_that_is_checked_at_the_commit_parks_the_row_alone(rig: &PostgresRig) {
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
    assert_eq!(parked, [0, 1]);
    let listed = world.sinks().parked(world.sink()).unwrap();
    assert_eq!((&listed[0].key, &listed[0].into), (&json!("a"), &orders));
    assert!(
        listed[0].what.contains("not at the commit"),
        "{}",
        listed[0].what
    );
    assert_eq!(rig.total(&archive, "a").as_deref(), Some("-1"));
    assert_eq!(rig.total(&orders, "a").as_deref(), Some("1"));
    assert_eq!(rig.total(&orders, "b").as_deref(), Some("2"));
    // Mended in the store it is replayed.
    rig.0.sql(&format!("DROP TRIGGER late ON {orders}"));
    let done = world.sinks().replay(world.sink(), Replay::All).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (1, 0));
    assert_eq!(rig.total(&orders, "a").as_deref(), Some("-1"));
    world.end();
}

/// Rows that refer to another row of their table by its key, which is checked at the commit.
pub fn what_a_deferred_key_refuses_is_parked_alone(rig: &PostgresRig) {
    let world = World::new(rig, "orphans");
    let orders = world.table("orders");
    world.create(&json!({"on_refused": "park"}));
    rig.0.sql(&format!(
        "ALTER TABLE {orders} ADD CONSTRAINT parent FOREIGN KEY (note) REFERENCES {orders} (id)
         DEFERRABLE INITIALLY DEFERRED"
    ));
    let child = |parent: &str| json!({"total": 1, "note": parent});

    // Children before their parents, a long chain of them, and two that name each other; in the
    // same batch others of the kind beside one that has no parent.
    let before = world.node().position();
    world.sinks().pause(world.sink()).unwrap();
    let done = world.node().transact(|tx| {
        for n in 0..300 {
            tx.put_json(
                "shop.orders",
                format!("chain{n}"),
                &child(&format!("chain{}", n + 1)),
            )?;
        }
        tx.put_json("shop.orders", "chain300", &json!({"total": 1}))?;
        tx.put_json("shop.orders", "left", &child("right"))?;
        tx.put_json("shop.orders", "right", &child("left"))
    });
    done.unwrap();
    let done = world.node().transact(|tx| {
        tx.put_json("shop.orders", "ping", &child("pong"))?;
        tx.put_json("shop.orders", "orphan", &child("nobody"))?;
        tx.put_json("shop.orders", "pong", &child("ping"))
    });
    done.unwrap();
    for n in 0..300 {
        world.put(&format!("good{n}"), &child("chain7"));
    }
    world.sinks().resume(world.sink()).unwrap();
    let found = world.assert_equal();
    assert!(before < found.position);
    assert_eq!(world.parked(), ["orphan"]);
    let table = &found.tables[0];
    assert_eq!((table.rows, table.parked), (605, 1));
    let listed = world.sinks().parked(world.sink()).unwrap();
    assert!(listed[0].what.contains("parent"), "{}", listed[0].what);

    // So it is for one that is deleted under its children, and for a replay.
    world.delete("chain300");
    world.put("more", &json!({"total": 2}));
    world.assert_equal();
    assert_eq!(world.parked(), ["chain300", "orphan"]);
    let done = world.sinks().replay(world.sink(), Replay::All).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (0, 2));

    // What was missing comes, and what was in the way goes.
    world.put("nobody", &json!({"total": 1}));
    world.put("chain299", &json!({"total": 1}));
    world.wait();
    let done = world.sinks().replay(world.sink(), Replay::All).unwrap();
    assert_eq!((done.replayed, done.remaining.len()), (2, 0));
    world.end();
}

/// Each row takes the unique value of the one before; the first is refused, so all of them stay.
pub fn a_refused_row_of_an_exchange_of_unique_values_takes_no_row_with_it(rig: &PostgresRig) {
    let world = World::new(rig, "chained");
    let key = |n: i64| format!("k{n}");
    for (kind, own) in [("own", ", mine text DEFAULT 'precious'"), ("plain", "")] {
        // Given a user's table, with and without a column of the user's own
        let into = world.table(kind);
        rig.0.sql(&format!(
            "CREATE TABLE {into} (id text COLLATE \"C\" PRIMARY KEY, total bigint UNIQUE{own})"
        ));
        for n in 0..20 {
            world.put(&key(n), &json!({ "total": n }));
        }
        let mut mapping = rig.mapping(&into);
        mapping["existing"] = json!(true);
        mapping["columns"].as_object_mut().unwrap().remove("note");
        let more = json!({"on_refused": "park", "max_deletes": 1, "mappings": [mapping]});
        world.create(&more);
        rig.forbid(&into);
        let before = rig.0.sql(&format!("SELECT t.* FROM {into} t ORDER BY id"));
        // When all move on by one, and there is no place for the first
        let moved = world.node().transact(|tx| {
            (0..20).try_for_each(|n| tx.put_json("shop.orders", key(n), &json!({ "total": n - 1 })))
        });
        moved.unwrap();
        world.wait();
        crate::refusing::rebuilt(&world);
        // then they are parked, and are as they were before.
        assert_eq!(world.parked().len(), 20, "{kind}");
        let after = rig.0.sql(&format!("SELECT t.* FROM {into} t ORDER BY id"));
        assert_eq!(after, before);
        // When the rule is gone, then a rebuild moves all of them.
        rig.allow(&into);
        crate::refusing::rebuilt(&world);
        assert!(world.parked().is_empty(), "{:?}", world.parked());
        assert_eq!(rig.total(&into, "k0").as_deref(), Some("-1"));
        world.sinks().delete(world.sink()).unwrap();
    }
}

/// A number beyond the range of jsonb and a key beyond a page of an index, in a table that onelog
/// makes and in tables that are there.
pub fn what_jsonb_or_an_index_refuses_in_a_backfill_is_parked(rig: &PostgresRig) {
    let world = World::new(rig, "rejected");
    let mut seed = 1_u64;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + (seed >> 33) as u8 % 26)
    });
    let long: String = noise.take(3000).collect();
    for (key, value) in [
        ("good", r#"{"total": 1}"#),
        ("tiny", r#"{"total": 1, "note": [1e-20000]}"#),
        (&long, r#"{"total": 2}"#),
        ("also good", r#"{"total": 3, "note": {"a": 1e-200}}"#),
        // More than one message of a COPY.
        (
            "zz",
            &format!(r#"{{"note": "{long}"}}"#).replace(&long, &long.repeat(60)),
        ),
    ] {
        let put = world
            .node()
            .transact(|tx| tx.put("shop.orders", key, value));
        put.unwrap();
    }
    let parks = |note: &str, existing: bool| {
        // Given a table of this kind
        let into = world.table(note);
        let sink = format!("{}_{note}_{existing}", world.sink());
        let mut mapping = rig.mapping(&into);
        mapping["columns"]["note"]["type"] = json!("json");
        mapping["existing"] = json!(existing);
        if existing {
            rig.0.sql(&format!(
                "DROP TABLE IF EXISTS {into};
                 CREATE TABLE {into} (id text COLLATE \"C\" PRIMARY KEY, total int, note {note})"
            ));
        }
        // When a sink backfills it, then the two records are parked and the others are there.
        let more = json!({"on_refused": "park", "mappings": [mapping]});
        world
            .sinks()
            .create(world.definition(&sink, &more))
            .unwrap();
        world.wait_for(&sink);
        let found = world.verified(&sink);
        assert!(found.equal, "{found:#?}");
        let parked = world.sinks().parked(&sink).unwrap();
        let mut keys: Vec<&str> = parked.iter().map(|one| one.key.as_str().unwrap()).collect();
        keys.sort_unstable();
        let mut expected = [&long, "tiny"];
        expected.sort_unstable();
        assert_eq!(keys, expected, "{note} {existing}");
        assert_eq!(rig.0.sql(&format!("SELECT count(*) FROM {into}")), "3");
        // When the record of one comes again in a batch, then the table decides as it did before.
        let again = r#"{"total": 2, "note": [1e-20000]}"#;
        let put = world
            .node()
            .transact(|tx| tx.put("shop.orders", "tiny", again));
        put.unwrap();
        world.wait_for(&sink);
        let done = world.sinks().replay(&sink, Replay::All).unwrap();
        assert_eq!(done.remaining.len(), 2);
        world.sinks().delete(&sink).unwrap();
    };
    parks("jsonb", false);
    parks("jsonb", true);
    parks("json", true);
}

/// What the sink knows of the store, and its rows, are put back while it is connected, to what they
/// were two takeovers before; a pool that leads to a promoted standby does the same.
pub fn a_store_that_is_put_back_under_its_sink_is_followed_from_there(rig: &PostgresRig) {
    let mut world = World::new(rig, "put_back");
    let orders = world.table("orders");
    world.create(&json!({}));
    world.order("a", 1);
    world.assert_equal();
    let tables = [orders.as_str(), "onelog_position"];
    rig.0.sql("CREATE SCHEMA copy");
    for table in tables {
        rig.0.sql(&format!(
            "CREATE TABLE copy.{table} AS SELECT * FROM public.{table}"
        ));
    }
    for total in [2, 3] {
        world.reopen();
        world.order("a", total);
        world.order("b", total);
        world.assert_equal();
    }
    let put_back = tables.map(|table| {
        format!(
            "DELETE FROM public.{table}; INSERT INTO public.{table} SELECT * FROM copy.{table};"
        )
    });
    rig.0.sql(&format!("BEGIN; {} COMMIT", put_back.concat()));
    assert_eq!(world.total("b"), None);
    world.order("c", 4);
    world.assert_equal();
    world.assert_total("a", 3);
    let status = world.sinks().get(world.sink()).unwrap();
    assert!(status.last_error_over_at_ms.is_some(), "{status:#?}");
    let said = status.last_error.unwrap().what;
    assert!(said.contains("put back to an older copy"), "{said}");
    rig.0.sql("DROP SCHEMA copy CASCADE");
    world.end();
}

/// Ends the story's server.
pub fn a_standby_is_waited_for_or_another_host_is_taken(rig: &PostgresRig) {
    let world = World::new(rig, "standby");
    world.create(&json!({}));
    world.order("a", 1);
    world.assert_equal();
    // Rows that no other server has.
    let orders = world.table("orders");
    let by_hand = format!(
        "INSERT INTO {orders} (id, total) SELECT 'hand ' || n, n FROM generate_series(1, 300) n"
    );
    rig.0.sql(&by_hand);
    let data = rig.0.sql("SHOW data_directory");
    rig.0.stop();
    std::fs::write(format!("{data}/standby.signal"), "").unwrap();
    rig.0.start_again();
    world.order("a", 2);
    let message = world.wait_for_not_writable();
    assert!(message.contains("it is a standby"), "{message}");

    // Of several hosts the one that takes writes is found, wherever it is in the list, and what a
    // backfill would delete is counted there.
    let other = Postgres::start();
    let url = rig.0.url().replace(
        "/postgres",
        &format!(",127.0.0.1:{}/postgres", other.port()),
    );
    let both = world.definition("both", &json!({ "url": url }));
    world.sinks().create(both).unwrap();
    world.wait_for("both");
    assert!(world.verified("both").equal);
    other.stop();
    world.order("b", 3);
    let waits = |status: &onelog_sinks::SinkStatus| {
        let code = status
            .last_error
            .as_ref()
            .and_then(|fault| fault.code)
            .map(|code| code.as_str());
        matches!(code, Some("not_writable" | "unavailable"))
    };
    let status = world
        .sinks()
        .wait_for_status("both", crate::world::PATIENCE, waits);
    status.unwrap();
    other.start_again();
    world.wait_for("both");
    assert!(world.verified("both").equal);
    world.sinks().delete("both").unwrap();

    assert_eq!(rig.0.sql("SELECT pg_promote()"), "t");
    rig.0
        .sql(&format!("DELETE FROM {orders} WHERE id LIKE 'hand %'"));
    world.assert_equal();
    world.assert_total("a", 2);
    world.end();
}
