//! The server and the way to it: what is refused, by which message, and how soon.

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;

use onelog_store::conformance::{self, Harness as _, LOG, backfilled, standard_plan};
use onelog_store::{SinkDefinition, StoreError};
use onelog_testkit::{Kind, Postgres, Server as _, require};

use super::harness::{Pg, server};

static KINDS: onelog_store::Kinds = onelog_store::Kinds::new(&[&onelog_postgres::KIND]);

fn refused(pg: &Pg) -> StoreError {
    pg.try_open(&standard_plan(pg), LOG).err().unwrap()
}

#[test]
fn what_people_must_change_is_said_and_not_tried_again() {
    require!(Kind::Postgres);
    server();
    let url = server().url();
    let stranger = Pg::new().new_role("stranger");
    for (url, schema, message) in [
        (
            url.clone(),
            "no such schema",
            "there is no such schema: create it, or name another one",
        ),
        (
            url.replace("/postgres", "/nowhere"),
            "public",
            "there is no such database: create it",
        ),
        (
            url.replace("onelog@", "nobody:se%2Fcret@"),
            "public",
            "there is no such user",
        ),
        (
            url.replace("onelog@", &format!("{stranger}@")),
            "public",
            "the user lacks a right: give it those that docs/sinks/postgres.md lists",
        ),
        (
            url.replace("127.0.0.1:", "127.0.0.1:x"),
            "public",
            "it is not an address",
        ),
    ] {
        let pg = Pg::at(&url, schema);
        let plan = standard_plan(&Pg::new());
        let error = pg.try_open(&plan, LOG).err().unwrap();
        let text = error.to_string();
        assert!(text.contains(message), "{text}");
        assert!(!text.contains("cret"), "{text}");
        let field = match error {
            StoreError::NoSuchPlace { field, .. } => Some(field),
            StoreError::NoAccess { .. } | StoreError::Broken { .. } => None,
            _ => panic!("{text}"),
        };
        let expected = match message.split(' ').nth(4) {
            Some("schema:") => Some("schema"),
            Some("database:") => Some("url"),
            _ => None,
        };
        assert_eq!(field, expected, "{text}");
    }
}

#[test]
fn a_comparison_with_a_table_that_was_dropped_says_so() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let plan = standard_plan(&pg);
    let (mut store, _) = backfilled(&pg, &plan);
    pg.sql(&format!("DROP TABLE {}.orders", pg.quoted()));
    let mut reader = store.reader().unwrap();
    let scanned = reader.scan(0, &mut |_| std::ops::ControlFlow::Continue(()));
    let text = scanned.unwrap_err().to_string();
    assert!(
        text.contains("'orders'") && text.contains("dropped or renamed"),
        "{text}"
    );
}

#[test]
fn a_wrong_password_is_called_one() {
    require!(Kind::Postgres);
    // Given a server that wants a password of one user
    let server = Postgres::start();
    server.sql("CREATE ROLE locked LOGIN PASSWORD 'right'");
    let rules = server.sql("SHOW hba_file");
    server.sql(&format!(
        "COPY (SELECT * FROM (VALUES ('host all locked 127.0.0.1/32 scram-sha-256'),
           ('host all all 127.0.0.1/32 trust'), ('local all all trust')) AS lines) TO '{rules}'"
    ));
    server.sql("SELECT pg_reload_conf()");
    let refused = |login: &str| {
        let url = server.url().replace("onelog@", &format!("{login}@"));
        refused(&Pg::at(&url, "public"))
    };
    // The new rules are in force once a login without a password is refused.
    while !refused("locked").to_string().contains("password") {}
    // When the password is wrong, then that is what is said.
    let error = refused("locked:hunter2");
    let said = error.to_string();
    assert!(
        said.contains("the password is wrong, or there is no such user"),
        "{said}"
    );
    assert!(
        !said.contains("right:") && !said.contains("hunter2"),
        "{said}"
    );
    assert!(matches!(error, StoreError::NoAccess { .. }), "{said}");
}

#[test]
fn of_several_hosts_each_says_why_it_cannot_be_used() {
    require!(Kind::Postgres);
    // Given a server that refuses the login, and one that lets it in and takes no writes
    let (primary, standby) = (Postgres::start(), Postgres::start());
    primary.sql("CREATE ROLE shut NOLOGIN");
    standby.sql("CREATE ROLE shut LOGIN; ALTER ROLE shut SET default_transaction_read_only = on");
    let host = |server: &Postgres| {
        let url = server.url();
        let (_, host) = url.split_once('@').unwrap();
        host.split('/').next().unwrap().to_owned()
    };
    let hosts = [host(&primary), host(&standby)];
    for (first, second) in [(0, 1), (1, 0)] {
        // when a sink is opened with both, in either order, then the refused login is the fault, and
        // both are named with their answers.
        let both = format!("shut@{},{}", hosts[first], hosts[second]);
        let url = primary
            .url()
            .replace(&format!("onelog@{}", hosts[0]), &both);
        let error = refused(&Pg::at(&url, "public"));
        let said = error.to_string();
        assert!(
            said.contains(&format!(
                "{}: role \"shut\" is not permitted to log in",
                hosts[0]
            )),
            "{said}"
        );
        assert!(
            said.contains(&format!("{}: error connecting to server", hosts[1])),
            "{said}"
        );
        assert!(matches!(error, StoreError::NoAccess { .. }), "{said}");
    }
    // Where a host cannot be reached, it may be the one that takes writes: the sink waits for it.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let away = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let both = format!("shut@{},{away}", hosts[0]);
    let url = primary
        .url()
        .replace(&format!("onelog@{}", hosts[0]), &both);
    let error = refused(&Pg::at(&url, "public"));
    let said = error.to_string();
    assert!(
        said.contains("not permitted") && said.contains(&away),
        "{said}"
    );
    assert!(matches!(error, StoreError::Unavailable { .. }), "{said}");
}

#[test]
fn a_database_of_another_encoding_is_refused() {
    require!(Kind::Postgres);
    server().sql("DROP DATABASE IF EXISTS latin");
    server().sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let pg = Pg::at(&server().url().replace("/postgres", "/latin"), "public");
    let error = refused(&pg).to_string();
    assert!(
        error.contains("LATIN1") && error.contains("UTF8"),
        "{error}"
    );
}

#[test]
fn a_server_that_is_not_there_may_come_back() {
    require!(Kind::Postgres);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let pg = Pg::at(&format!("postgres://u:secret@{address}/d"), "public");
    let error = refused(&pg);
    assert!(error.is_retryable(), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("refused") && !text.contains("secret"),
        "{text}"
    );
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    require!(Kind::Postgres);
    // Connections wait in the queue of the system; no answer ever comes.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pg = Pg::at(&format!("postgres://u@{address}/d"), "public");
    let error = refused(&pg);
    assert!(error.is_retryable(), "{error}");
    assert!(
        error.to_string().contains("no answer within 5 s"),
        "{error}"
    );
}

#[test]
fn the_rights_that_the_page_lists_suffice() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let role = pg.new_role("onelog");
    let page = include_str!("../../../../../docs/sinks/postgres.md");
    let grant = conformance::line_of(page, "GRANT USAGE, CREATE ON SCHEMA");
    let (rights, _) = grant.split_once(" SCHEMA ").unwrap();
    pg.sql(&format!("{rights} SCHEMA {} TO {role}", pg.quoted()));
    let plan = standard_plan(&pg);
    let mut store = pg.as_user(&role).open(Arc::clone(&plan), LOG);
    conformance::the_rights_suffice(&plan, store.as_mut());
}

#[test]
fn rows_that_a_policy_hides_are_an_error_and_not_missing() {
    require!(Kind::Postgres);
    let pg = Pg::new();
    let role = pg.new_role("onelog");
    pg.sql(&format!(
        "GRANT USAGE, CREATE ON SCHEMA {0} TO {role};
         CREATE TABLE orders (id text PRIMARY KEY, total bigint, note text);
         ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
         CREATE POLICY dear_ones ON orders USING (total > 1);
         GRANT ALL ON orders TO {role}",
        pg.quoted()
    ));
    let limited = pg.as_user(&role);
    let mut store = limited.open(standard_plan(&pg), LOG);
    let error = store.check_target().unwrap_err();
    assert!(error.to_string().contains("row-level security"), "{error}");
    assert!(!error.is_retryable());
}

fn openssl(folder: &std::path::Path, arguments: &[&str]) {
    let done = Command::new("openssl")
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
fn tls_is_spoken_and_a_strange_certificate_refused() {
    require!(Kind::Postgres);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    // An authority, and the server's certificate for this address.
    std::fs::write(
        folder.path().join("server.ext"),
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    )
    .unwrap();
    let new = [
        "req",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ];
    let of = |more: &[&str]| {
        let all: Vec<&str> = new.iter().chain(more).copied().collect();
        openssl(folder.path(), &all);
    };
    of(&[
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=authority",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    ]);
    of(&[
        "-subj",
        "/CN=server",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    ]);
    openssl(
        folder.path(),
        &[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "server.ext",
            "-out",
            "server.pem",
        ],
    );
    let server = Postgres::start();
    let certificate = std::fs::read_to_string(at("server.pem")).unwrap();
    let key = std::fs::read_to_string(at("server.key")).unwrap();
    let data = server.sql("SHOW data_directory");
    for (name, text) in [("server.crt", certificate), ("server.key", key)] {
        let dollar = text.lines().map(|line| format!("('{line}')"));
        let rows: Vec<String> = dollar.collect();
        server.sql(&format!(
            "COPY (SELECT * FROM (VALUES {}) AS lines) TO '{data}/{name}'",
            rows.join(",")
        ));
    }
    server.sql(&format!(
        "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; chmod 600 {data}/server.key'"
    ));
    server.sql("ALTER SYSTEM SET ssl = on");
    server.sql("SELECT pg_reload_conf()");
    let kind = |mode: &str, ca: Option<&str>| {
        let mut value = serde_json::json!({
            "name": "follower", "kind": "postgres", "url": format!("{}?sslmode={mode}", server.url()),
            "mappings": [{"table": "shop.orders", "into": "orders"}]});
        if let Some(ca) = ca {
            value["ca_file"] = at(ca).into();
        }
        SinkDefinition::from_json(KINDS, &value).unwrap()
    };
    let plan = conformance::standard_plan(&Pg::at(&server.url(), "public"));
    let open = |mode, ca| {
        kind(mode, ca)
            .target
            .open("follower", LOG, Arc::clone(&plan))
    };
    let mut store = open("verify-full", Some("ca.pem")).unwrap();
    store.take_over().unwrap();
    assert_eq!(
        server.sql("SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE s.ssl AND a.application_name = 'onelog:follower'"),
        "1"
    );
    let error = open("require", None).err().unwrap().to_string();
    assert!(error.contains("certificate"), "{error}");
    // The server's own certificate is no authority of it.
    open("require", Some("server.key")).err().unwrap();
    open("disable", None).unwrap();
}
