//! `onelog sinks …` and `onelog commit --wait-for`.

use std::path::PathBuf;

use crate::server::Server;

struct Shop {
    folder: tempfile::TempDir,
    server: Server,
}

impl Shop {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("data"), &[]);
        server.run(&["tables", "create", "shop.orders"]).good();
        Self { folder, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn definition(&self, more: &str) -> String {
        let path = self.path("reports.db");
        format!(
            "name = \"reports\"\nkind = \"sqlite\"\npath = \"{}\"\n{more}[[mappings]]\ntable = \"shop.orders\"\ninto = \"orders\"\n[mappings.columns]\nid = {{ from = \"$key\", type = \"text\" }}\ntotal = {{ from = \"/total\", type = \"integer\" }}\n",
            path.display()
        )
    }

    fn put(&self, key: &str, value: &str) {
        self.server.run(&["put", "shop.orders", key, value]).good();
    }

    fn database(&self, name: &str) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path(name)).unwrap()
    }
}

#[test]
fn a_sink_is_made_of_toml_or_of_flags_and_its_errors_have_a_line() {
    let shop = Shop::open();
    let good = shop.definition("");
    shop.server
        .run_fed(
            &["sinks", "create", "-"],
            &good.replace("integer", "intger"),
        )
        .fails(
            2,
            "standard input, line 9: mappings[0].columns.total.type: unknown type 'intger'",
        );
    shop.server.run_fed(&["sinks", "create", "-"], &good).good();
    let to = format!("sqlite://{}", shop.path("flags.db").display());
    shop.server
        .run(&[
            "sinks",
            "create",
            "--name",
            "flags",
            "--to",
            &to,
            "--table",
            "shop.orders",
            "--column",
            "id:text=$key",
            "--column",
            "total:integer",
            "--column",
            "town:text=/address/town",
        ])
        .good();
    shop.put("o1", r#"{"total": 7, "address": {"town": "Ulm"}}"#);
    shop.server.run(&["sinks", "wait", "flags", "2"]).good();
    shop.server.run(&["sinks", "wait", "flags"]).good();
    let row: (String, i64, String) = shop
        .database("flags.db")
        .query_row("SELECT id, total, town FROM orders", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!(row, ("o1".into(), 7, "Ulm".into()));
    shop.server
        .run(&[
            "sinks",
            "create",
            "--to",
            &to,
            "--table",
            "shop.orders",
            "--column",
            "total",
        ])
        .fails(2, "expected NAME:TYPE");
    shop.server.run(&["sinks", "create"]).fails(2, "required");
}

#[test]
fn rows_are_printed_with_every_digit_that_the_store_gets() {
    // Given a document with numbers that no float holds,
    let shop = Shop::open();
    let digits = r#""wei":10000000000000000000000001,"price":1.10,"total":12345678901234567.89"#;
    shop.put("o1", &format!("{{{digits}}}"));
    // when its rows are shown, for people and for programs,
    let documents = r#"{"kind":"redis","mappings":[{"table":"shop.orders","into":"orders"}]}"#;
    let columns = r#"{"kind":"postgres","mappings":[{"table":"shop.orders","into":"orders",
        "columns":{"id":{"from":"$key","type":"text"},"all":{"from":"$value","type":"json"}}}]}"#;
    for definition in [documents, columns] {
        for arguments in [&["sinks", "try", "-"][..], &["sinks", "try", "-", "--json"]] {
            let said = shop.server.run_fed(arguments, definition).good();
            // then they have all their digits,
            assert!(said.contains(digits), "{said}");
        }
    }
    // as the log has.
    let tail = [
        "tail",
        "--from",
        "start",
        "--table",
        "shop.orders",
        "--limit",
        "1",
    ];
    let said = shop.server.run(&tail).good();
    assert!(said.contains(&digits[..60]), "{said}");
}

#[test]
fn a_definition_is_run_dry_and_replaced() {
    let shop = Shop::open();
    shop.put("o1", r#"{"total": 7, "state": "paid"}"#);
    shop.put("o2", r#"{"total": 8, "state": "draft"}"#);
    shop.put("o3", r#"{"total": "many", "state": "paid"}"#);
    let definition = shop.definition("");
    let filtered = definition.replace(
        "into = \"orders\"\n",
        "into = \"orders\"\nwhere = '.state != \"draft\"'\n",
    );
    // In a dry run the rows are shown and no store is touched.
    let dry_run = |name| shop.server.run_fed(&["sinks", name, "-"], &filtered).good();
    let said = dry_run("dry-run");
    assert_eq!(said, dry_run("try"), "the command's old name");
    assert!(
        said.contains("shop.orders into orders: 3 records looked at, 1 left out"),
        "{said}"
    );
    assert!(said.contains("{\"id\":\"o1\",\"total\":7}"), "{said}");
    assert!(said.contains("REFUSED"), "{said}");
    assert!(!shop.path("reports.db").exists());

    // When the filter comes later, the rows that it leaves out go.
    shop.server.run(&["delete", "shop.orders", "o3"]).good();
    shop.server
        .run_fed(&["sinks", "create", "-"], &definition)
        .good();
    shop.server.run(&["sinks", "wait", "reports"]).good();
    let ids = || -> Vec<String> {
        let database = shop.database("reports.db");
        let mut statement = database
            .prepare("SELECT id FROM orders ORDER BY id")
            .unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    assert_eq!(ids(), ["o1", "o2"]);
    shop.server
        .run_fed(&["sinks", "replace", "-"], &filtered)
        .good();
    shop.server.run(&["sinks", "wait", "reports"]).good();
    assert_eq!(ids(), ["o1"]);
}

#[test]
fn a_hand_edit_is_found_reported_by_the_exit_status_and_repaired() {
    let shop = Shop::open();
    shop.server
        .run_fed(&["sinks", "create", "-"], &shop.definition(""))
        .good();
    shop.put("o1", r#"{"total": 7}"#);
    shop.server.run(&["sinks", "wait", "reports"]).good();
    shop.database("reports.db")
        .execute("UPDATE orders SET total = 8", [])
        .unwrap();
    let ran = shop.server.run(&["sinks", "verify", "reports"]);
    assert_eq!(ran.status, 1);
    assert!(ran.out.contains("NOT equal at position"), "{}", ran.out);
    assert!(ran.out.contains("{\"total\":8}"), "{}", ran.out);
    let list = shop.server.run(&["sinks"]).good();
    assert!(list.contains("1 DIFFER at"), "{list}");

    let said = shop
        .server
        .run(&["sinks", "verify", "reports", "--repair"])
        .good();
    assert!(said.contains("repaired"), "{said}");
    let list = shop.server.run(&["sinks"]).good();
    assert!(list.contains("equal at"), "{list}");
    let total: i64 = shop
        .database("reports.db")
        .query_row("SELECT total FROM orders", [], |row| row.get(0))
        .unwrap();
    assert_eq!(total, 7);
    // The server's log has what was found and what was done.
    let (_, said) = shop.server.terminate();
    for line in [
        "a store differs from the log",
        "a store was repaired from the log",
    ] {
        assert!(said.contains(line), "'{line}' is not in: {said}");
    }
}

#[test]
fn a_refused_record_is_parked_shown_and_written_again_once_it_is_mended() {
    let shop = Shop::open();
    let definition = shop.definition("on_refused = \"park\"\n");
    shop.server
        .run_fed(&["sinks", "create", "-"], &definition)
        .good();
    shop.put("bad", r#"{"total": "many"}"#);
    shop.put("good", r#"{"total": 1}"#);
    shop.server.run(&["sinks", "wait", "reports"]).good();
    let said = shop.server.run(&["sinks", "parked", "reports"]).good();
    assert!(said.contains("bad") && said.contains("total"), "{said}");
    assert!(!said.contains("good"), "{said}");
    shop.server
        .run(&["sinks", "parked", "reports", "--replay"])
        .fails(1, "still refused");
    shop.put("bad", r#"{"total": "still many"}"#);
    shop.server.run(&["sinks", "wait", "reports"]).good();
    shop.put("bad", r#"{"total": 2}"#);
    shop.server.run(&["sinks", "wait", "reports"]).good();
    let said = shop
        .server
        .run(&[
            "sinks",
            "parked",
            "reports",
            "--replay",
            "--key",
            "orders=bad",
        ])
        .good();
    assert!(said.contains("1 key written again"), "{said}");
    let said = shop.server.run(&["sinks", "parked", "reports"]).good();
    assert_eq!(said, "no key is parked\n");
    // The server's log has it once, however often it was tried.
    let (_, said) = shop.server.terminate();
    assert_eq!(said.matches("a record is parked").count(), 1, "{said}");
}

#[test]
fn a_commit_waits_for_a_store_and_is_committed_when_the_store_does_not_come() {
    let shop = Shop::open();
    shop.server
        .run_fed(&["sinks", "create", "-"], &shop.definition(""))
        .good();
    let commit = |key: &str, more: &[&str]| {
        let body = format!(
            r#"{{"writes":[{{"op":"put","table":"shop.orders","key":"{key}","value":{{"total":1}}}}]}}"#
        );
        let args = [&["commit", "-", "--wait-for", "reports"], more].concat();
        shop.server.run_fed(&args, &body)
    };
    let answer = commit("o1", &[]).json();
    assert_eq!(answer["waited"]["reports"]["reached"], true, "{answer}");
    let there: i64 = shop
        .database("reports.db")
        .query_row("SELECT count(*) FROM orders WHERE id = 'o1'", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(there, 1);

    shop.server.run(&["sinks", "pause", "reports"]).good();
    commit("o2", &["--wait-timeout", "50ms"]).fails(1, "the transaction is committed at position");
    assert_eq!(
        shop.server.run(&["get", "shop.orders", "o2"]).good(),
        "{\"total\":1}\n"
    );
    // A name that no sink has is refused before anything is committed.
    let end = || shop.server.run(&["status", "--json"]).json()["position"].clone();
    let before = end();
    let body = r#"{"writes":[{"op":"delete","table":"shop.orders","key":"o1"}]}"#;
    shop.server
        .run_fed(&["commit", "-", "--wait-for", "no-such-sink"], body)
        .fails(1, "no sink 'no-such-sink'");
    assert_eq!(end(), before);
}

#[test]
fn a_sink_is_shown_rebuilt_and_deleted() {
    let shop = Shop::open();
    let definition = shop.definition("");
    shop.server
        .run_fed(&["sinks", "create", "-"], &definition)
        .good();
    shop.put("o1", r#"{"total": 7}"#);
    shop.server.run(&["sinks", "wait", "reports"]).good();
    let shown = shop.server.run(&["sinks", "show", "reports", "--json"]);
    let shown = shown.json();
    assert_eq!(
        (&shown["state"], &shown["lag_records"]),
        (&"running".into(), &0.into())
    );

    // When the store is spoiled, then a rebuild makes it again from the log.
    let total = || -> i64 {
        let query = "SELECT total FROM orders WHERE id = 'o1'";
        shop.database("reports.db")
            .query_row(query, [], |row| row.get(0))
            .unwrap()
    };
    shop.database("reports.db")
        .execute("UPDATE orders SET total = 8", [])
        .unwrap();
    assert_eq!(total(), 8);
    shop.server.run(&["sinks", "rebuild", "reports"]).good();
    shop.put("o2", r#"{"total": 9}"#);
    shop.server.run(&["sinks", "wait", "reports"]).good();
    assert_eq!(total(), 7);

    // When it is deleted, then nothing follows any more, and the store keeps what it has.
    let said = shop.server.run(&["sinks", "delete", "reports"]).good();
    assert_eq!(said, "sink 'reports' is deleted\n");
    shop.put("o1", r#"{"total": 10}"#);
    assert_eq!(total(), 7);
    shop.server
        .run(&["sinks", "show", "reports"])
        .fails(1, "no sink 'reports'");
}

#[test]
fn what_stays_in_a_store_that_cannot_be_reached_is_said_and_can_be_forgotten() {
    // Given a sink that follows, of which no key is parked,
    let shop = Shop::open();
    let definition = shop.definition("");
    shop.server
        .run_fed(&["sinks", "create", "-"], &definition)
        .good();
    shop.put("o1", r#"{"total": 7}"#);
    shop.server.run(&["sinks", "wait", "reports"]).good();
    let replay = ["sinks", "replay", "reports", "--key", "orders=o1"];
    let said = shop.server.run(&replay).good();
    assert!(said.contains("not parked: orders=o1"), "{said}");
    let take_away = |name: &str| {
        std::fs::rename(shop.path(name), shop.path(&format!("{name}.kept"))).unwrap();
        std::fs::create_dir(shop.path(name)).unwrap();
    };
    let is_noted = |ran: crate::server::Ran| {
        let note = "still says that its tables are this sink's";
        assert!(ran.err.contains(note), "{ran:?}");
        assert!(ran.err.contains("onelog sinks forget"), "{ran:?}");
        ran.good();
    };
    // when it moves while its store is away, or is deleted so, then that is noted.
    take_away("reports.db");
    let moved = definition.replace("reports.db", "moved.db");
    is_noted(shop.server.run_fed(&["sinks", "replace", "-"], &moved));
    shop.server.run(&["sinks", "wait", "reports"]).good();
    take_away("moved.db");
    is_noted(shop.server.run(&["sinks", "delete", "reports"]));
    // When the stores are back, then they forget it on request, once.
    for (name, former) in [("reports.db", &definition), ("moved.db", &moved)] {
        std::fs::remove_dir(shop.path(name)).unwrap();
        std::fs::rename(shop.path(&format!("{name}.kept")), shop.path(name)).unwrap();
        let forget = || {
            shop.server
                .run_fed(&["sinks", "forget", "-"], former)
                .good()
        };
        assert_eq!(forget(), "the store has forgotten the sink 'reports'\n");
        assert_eq!(forget(), "the store had nothing of the sink 'reports'\n");
    }
}

#[test]
fn a_wait_that_ends_before_the_store_is_there_fails() {
    let shop = Shop::open();
    shop.server
        .run_fed(&["sinks", "create", "-"], &shop.definition(""))
        .good();
    shop.server.run(&["sinks", "pause", "reports"]).good();
    shop.put("o1", r#"{"total": 7}"#);
    shop.server
        .run(&["sinks", "wait", "reports", "--timeout", "1ms"])
        .fails(1, "reports");
    shop.server.run(&["sinks", "resume", "reports"]).good();
    shop.server.run(&["sinks", "wait", "reports"]).good();
    // Replaying wants a place and a key.
    shop.server
        .run(&["sinks", "parked", "reports", "--replay", "--key", "o1"])
        .fails(2, "expected INTO=KEY");
    let nameless = shop.definition("").replace("name = \"reports\"\n", "");
    shop.server
        .run_fed(&["sinks", "replace", "-"], &nameless)
        .fails(2, "which sink shall it replace?");
}

#[test]
fn an_error_is_dated_and_called_over_when_the_sink_follows_again() {
    // Given a sink whose database another process holds
    let shop = Shop::open();
    let definition = shop.definition("");
    shop.server
        .run_fed(&["sinks", "create", "-"], &definition)
        .good();
    shop.put("o1", "{\"total\": 1}");
    shop.server.run(&["sinks", "wait", "reports"]).good();
    let database = shop.database("reports.db");
    database.execute_batch("BEGIN EXCLUSIVE").unwrap();
    shop.put("o2", "{\"total\": 2}");
    let show = || {
        shop.server
            .run(&["sinks", "show", "reports", "--json"])
            .json()
    };
    while show()["last_error"].is_null() {}
    // When it is shown, its error is dated and lasts;
    assert!(show()["last_error"]["over_at_ms"].is_null(), "{}", show());
    let list = shop.server.run(&["sinks"]).good();
    assert!(list.contains(" ago: ") && !list.contains("over"), "{list}");
    // once the database is free, it is over,
    database.execute_batch("ROLLBACK").unwrap();
    shop.server.run(&["sinks", "wait", "reports"]).good();
    assert!(show()["last_error"]["over_at_ms"].is_u64(), "{}", show());
    let list = shop.server.run(&["sinks"]).good();
    assert!(list.contains(" ago, over: "), "{list}");
    let replayed = shop.server.run(&["sinks", "replay", "reports"]).good();
    assert_eq!(replayed, "0 keys written again\n");
    shop.server.run(&["sinks", "delete", "reports"]).good();
    // and the server's log has it all.
    let (_, said) = shop.server.terminate();
    for line in [
        "a store is backfilled",
        "a sink will try again",
        "a sink follows again, this is over",
        "a sink was deleted; its rows stay in the store",
    ] {
        assert!(said.contains(line), "'{line}' is not in: {said}");
    }
}
