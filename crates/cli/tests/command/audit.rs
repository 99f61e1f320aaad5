//! `onelog audit`: two stores of a user who has no onelog.

use std::path::Path;

use onelog_testkit::{Kind, Mariadb, Redis, Server as _, require};

use crate::server::{Ran, onelog};

const MAPPING: &str = r#"
[[compare]]
name    = "orders"
left    = { table = "orders", key = "id", key_type = "integer" }
right   = { table = "report", key = "ref", key_template = "order-{$key}" }
columns = [ { name = "total",  type = "numeric", left_type = "text", right_type = "real" },
            { name = "status", type = "text", left = "state" } ]
"#;

struct Stores {
    folder: tempfile::TempDir,
}

impl Stores {
    fn equal() -> Self {
        let stores = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        stores.write("mapping.toml", MAPPING);
        stores.run(
            "shop.db",
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, total TEXT, state TEXT);
             INSERT INTO orders VALUES (1, '9.50', 'paid'), (2, '20.00', 'open'), (3, '5', 'paid')",
        );
        stores.run(
            "report.db",
            "CREATE TABLE report (ref TEXT, total REAL, status TEXT);
             INSERT INTO report VALUES ('order-1', 9.5, 'paid'), ('order-2', 20, 'open'), ('order-3', 5, 'paid')",
        );
        stores
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn run(&self, name: &str, sql: &str) {
        let path = self.folder.path().join(name);
        rusqlite::Connection::open(path)
            .unwrap()
            .execute_batch(sql)
            .unwrap();
    }

    fn audit(&self, more: &[&str]) -> Ran {
        audit(
            self.folder.path(),
            "sqlite://shop.db",
            "sqlite://report.db",
            more,
        )
    }
}

fn audit(folder: &Path, left: &str, right: &str, more: &[&str]) -> Ran {
    let mut command = onelog();
    command
        .current_dir(folder)
        .args(["audit", "--left", left, "--right", right, "mapping.toml"])
        .args(more);
    Ran::of(command.output().unwrap())
}

#[test]
fn equal_stores_are_equal_without_a_server() {
    let said = Stores::equal().audit(&[]).good();
    assert!(said.ends_with("\nequal\n"), "{said}");
}

#[test]
fn differences_are_counted_named_and_reported_by_the_exit_status() {
    let stores = Stores::equal();
    stores.run(
        "report.db",
        "UPDATE report SET status = 'paid' WHERE ref = 'order-2'; DELETE FROM report WHERE ref = 'order-3'",
    );
    let ran = stores.audit(&["--json"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    let found: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let orders = &found["compared"][0];
    assert_eq!(orders["missing_right"], 1, "{found}");
    assert_eq!(orders["different"], 1, "{found}");
    assert_eq!(orders["differences"][0]["left"]["status"], "open");
    assert_eq!(orders["differences"][0]["right"]["status"], "paid");

    let ran = stores.audit(&["--show", "1", "--again=1ms"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    let said = ran.out;
    assert!(said.contains("NOT equal: 2 keys differ"), "{said}");
    assert!(said.contains("… and 1 more"), "{said}");
    assert!(
        said.contains("looked at again, the same keys still differ"),
        "{said}"
    );
}

#[test]
fn what_the_numbers_do_not_say_is_reported_as_text() {
    let stores = Stores::equal();
    stores.run(
        "report.db",
        "INSERT INTO report VALUES ('order-3', 5, 'paid'), ('invoice-1', 1, 'x'), ('invoice-2', 1, 'x')",
    );
    let ran = stores.audit(&[]);
    assert_eq!(ran.status, 1, "{ran:?}");
    for text in [
        "orders: 1 key occurs more than once on a side",
        "orders: 2 rows on the right left out",
        "}  (twice) {",
        "NOT equal: 1 key differs",
        "--again looks a second time",
    ] {
        assert!(ran.out.contains(text), "'{text}' is not in: {}", ran.out);
    }
    assert!(!ran.out.contains("on the left left out"), "{}", ran.out);
}

#[test]
fn bounds_of_flags_are_reported() {
    let stores = Stores::equal();
    stores.audit(&["--again=11m"]).fails(2, "at most 600 s");
    stores
        .audit(&["--show", "10001"])
        .fails(2, "from 0 to 10000");
    for flag in ["--left-ca-file", "--right-ca-file"] {
        let side = &flag[..flag.len() - "-ca-file".len()];
        let message = format!("{side}: a store of the kind sqlite needs no certificates");
        stores.audit(&[flag, "ca.pem"]).fails(2, &message);
    }
}

#[test]
fn wrong_use_is_reported_with_the_place_and_no_password() {
    let stores = Stores::equal();
    stores.write("mapping.toml", &MAPPING.replace("\"numeric\"", "\"numbr\""));
    stores.audit(&[]).fails(
        2,
        "mapping.toml, line 6: compare[0].columns[0].type: unknown type 'numbr'",
    );
    let folder = stores.folder.path();
    audit(folder, "sqlite://gone.db", "sqlite://report.db", &[]).fails(2, "no file gone.db");
    audit(folder, "ftp://x", "sqlite://report.db", &[]).fails(2, "--left: it must start with");
    let ran = audit(
        folder,
        "postgres://me:${ONELOG_NOT_SET}@127.0.0.1/d",
        "sqlite://report.db",
        &[],
    );
    ran.fails(2, "'ONELOG_NOT_SET' is not set");

    // A column that is not there is no matter of sinks.
    stores.write("mapping.toml", &MAPPING.replace("\"state\"", "\"stat\""));
    let misspelled = stores.audit(&[]);
    assert!(!misspelled.err.contains("sink"), "{misspelled:?}");
    misspelled.fails(
        1,
        "it has no column 'stat'; its columns are id, total, state",
    );

    stores.write("mapping.toml", MAPPING);
    let ran = audit(
        folder,
        "postgres://me:hidden@127.0.0.1:1/d",
        "sqlite://report.db",
        &[],
    );
    assert_eq!(ran.status, 1);
    assert!(!ran.err.contains("hidden"), "{ran:?}");
    ran.fails(1, "'orders', left side:");
}

#[test]
fn a_login_that_is_refused_names_what_to_mend_and_nothing_of_sinks() {
    require!(Kind::Mariadb, Kind::Redis);
    let stores = Stores::equal();
    let mariadb = Mariadb::start();
    let redis = Redis::start();
    redis.command(&["CONFIG", "SET", "requirepass", "right"]);
    let at = |url: String, login: &str| {
        let (scheme, rest) = url.split_once("://").unwrap();
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("{scheme}://{login}{host}")
    };
    let in_redis = r#"
[[compare]]
name    = "orders"
left    = { key = "order:{$key}", as = "hash" }
right   = { table = "report", key = "ref" }
columns = [ { name = "status", type = "text" } ]
"#;
    let missing = "wants a password and the address has none";
    for (url, mapping, expected) in [
        (
            at(mariadb.url(), "nobody:wr0ng@"),
            MAPPING,
            "the password is wrong, or there is no such user",
        ),
        (at(redis.url(), ""), in_redis, missing),
        (
            at(redis.url(), ":wr0ng@"),
            in_redis,
            "The password is wrong",
        ),
    ] {
        // When a store refuses the login,
        stores.write("mapping.toml", mapping);
        let ran = audit(stores.folder.path(), &url, "sqlite://report.db", &[]);
        // then the message is about the address.
        for word in ["sink", "'url'", "wr0ng"] {
            assert!(!ran.err.contains(word), "'{word}' in {ran:?}");
        }
        ran.fails(1, expected);
    }
}
