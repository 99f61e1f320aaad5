//! Sinks in a cluster: any node takes what is requested of one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use onelog_testkit::{Kind, Postgres, Server as _, require, until_ok};
use serde_json::Value;

use crate::load::write;
use crate::rig::{Nodes, TABLE};

const SINK: &str = "copy";
/// How much is acknowledged before a node is killed, and after that.
const BETWEEN: usize = 60;
/// Notes each row that is written into the sink's table.
const COUNTS: &str = "CREATE TABLE written (id text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN INSERT INTO written VALUES (NEW.id); RETURN NULL; END$$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION note()";

fn definition(store: &Path, run_on: u64) -> Value {
    serde_json::json!({
        "name": SINK, "kind": "sqlite", "path": store, "run_on": run_on, "mappings": [{
            "table": TABLE, "into": "notes", "columns": {
                "id": {"from": "$key", "type": "text"}, "n": {"from": "", "type": "integer"}}}]})
}

/// A cluster in which node 2 runs a sink.
fn with_a_sink_on_node_2() -> (Nodes, PathBuf) {
    let nodes = Nodes::of_three();
    let store = nodes.data(2).with_extension("sqlite");
    let file = nodes.file("sink.json", &definition(&store, 2).to_string());
    let end = nodes.put(1, "a", "1");
    nodes.run(1, &["sinks", "create", &file]).good();
    wait(&nodes, 1, end);
    (nodes, store)
}

fn wait(nodes: &Nodes, id: u64, position: u64) {
    let position = position.to_string();
    nodes
        .run(id, &["sinks", "wait", SINK, "--position", &position])
        .good();
}

fn sql(store: &Path, statement: &str) {
    let mut sqlite = Command::new("sqlite3");
    let run = sqlite.arg(store).arg(statement).output().unwrap();
    assert!(run.status.success(), "{run:?}");
}

#[test]
fn any_node_takes_every_request_about_a_sink_that_another_one_runs() {
    // Given a sink on node 2, and a row that was changed in its store,
    let (nodes, store) = with_a_sink_on_node_2();
    sql(&store, "UPDATE notes SET n = 5 WHERE id = 'a'");
    for id in [1, 3] {
        // when other nodes are requested to show it,
        let shown = nodes.run(id, &["sinks", "show", SINK, "--json"]).json();
        let listed = nodes.run(id, &["sinks", "--json"]).json();
        // then they answer as the node that runs it,
        for sink in [&shown, &listed["sinks"][0]] {
            assert_eq!(sink["state"], "running", "node {id}: {sink}");
            assert_eq!(sink["runs_on"], 2);
            assert!(sink["position"].is_u64(), "{sink}");
        }
    }
    // and to compare, repair, pause, resume and rebuild it, then that happens.
    let verify = ["sinks", "verify", SINK, "--json"];
    let found: Value = serde_json::from_str(&nodes.run(3, &verify).out).unwrap();
    assert_eq!(found["tables"][0]["differences_total"], 1, "{found}");
    let repair = ["sinks", "verify", SINK, "--repair", "--json"];
    assert_eq!(nodes.run(1, &repair).json()["repaired"], 1);
    assert_eq!(nodes.run(3, &verify).json()["equal"], true);
    nodes.run(1, &["sinks", "pause", SINK]).good();
    let paused = nodes.run(3, &["sinks", "show", SINK, "--json"]).json();
    assert_eq!(paused["state"], "paused", "{paused}");
    nodes.run(3, &["sinks", "resume", SINK]).good();
    nodes.run(1, &["sinks", "rebuild", SINK]).good();
    let end = nodes.put(3, "b", "2");
    wait(&nodes, 1, end);
    assert_eq!(nodes.run(1, &verify).json()["equal"], true);
    let replayed = nodes.run(3, &["sinks", "replay", SINK, "--key", "none=a"]);
    let replayed = replayed.good();
    assert!(replayed.contains("not parked: none=a"), "{replayed}");
    // A refusal is that of the node that runs it, too.
    let url = format!("{}/v1/sinks/{SINK}/verify?repair=perhaps", nodes.url(3));
    let mut refused = crate::rig::agent().post(url).send_empty().unwrap();
    let body = refused.body_mut().read_to_string().unwrap();
    assert_eq!(refused.status().as_u16(), 422, "{body}");
    assert!(body.contains("repair"), "{body}");
    nodes.run(3, &["sinks", "delete", SINK]).good();
    for id in [1, 2, 3] {
        onelog_testkit::until_ok(|| {
            let shown = nodes.run(id, &["sinks", "show", SINK]);
            let is_gone = shown.status == 1 && shown.err.contains("there is no sink");
            is_gone.then_some(()).ok_or(format!("{shown:?}"))
        })
        .unwrap();
    }
}

#[test]
fn a_node_that_joins_makes_the_sink_of_its_file_on_a_table_that_others_have_made() {
    // Given two nodes with a table and much in the log,
    let mut nodes = Nodes::new();
    nodes.start(1, &[]);
    nodes.start(2, &["--join", "voter"]);
    nodes.wait_for_voters(2);
    nodes.run(1, &["tables", "create", TABLE]).good();
    let rows: String = (0..20_000)
        .map(|n| format!("{{\"id\":\"k{n}\",\"n\":{n}}}\n"))
        .collect();
    let rows = nodes.file("rows.ndjson", &rows);
    nodes
        .run(1, &["import", TABLE, &rows, "--key", "id"])
        .good();
    // when a third one joins whose file declares a sink of that table,
    let (own, first) = (nodes.address(3), nodes.address(1));
    let store = nodes.data(3).with_extension("sqlite");
    let text = format!(
        "[cluster]\nnode = 3\nlisten = \"{own}\"\npeers = [\"1={first}\"]\njoin = \"voter\"\n\
         [[sinks]]\nname = \"{SINK}\"\nkind = \"sqlite\"\npath = \"{}\"\nrun_on = 3\n\
         [[sinks.mappings]]\ntable = \"{TABLE}\"\ninto = \"notes\"\n\
         [sinks.mappings.columns]\nid = {{ from = \"$key\", type = \"text\" }}\nn = \"n\"\n",
        store.display()
    );
    let text = text.replace("n = \"n\"", "n = { from = \"/n\", type = \"integer\" }");
    let file = nodes.file("onelog-3.toml", &text);
    let server = crate::server::Server::start(&nodes.data(3), &["--config", &file]);
    nodes.adopt(3, server);
    // then the sink is made, and has all of it.
    let made = onelog_testkit::until_ok(|| {
        let shown = nodes.run(1, &["sinks", "show", SINK, "--json"]);
        (shown.status == 0)
            .then_some(())
            .ok_or(format!("{shown:?}"))
    });
    made.unwrap();
    let end = nodes.put(1, "last", "{\"n\":1}");
    wait(&nodes, 2, end);
}

#[test]
fn a_sink_whose_node_was_killed_waits_for_it_and_runs_on_the_one_that_it_is_given() {
    // Given a sink with a file on the machine of node 2, which is killed,
    let (mut nodes, store) = with_a_sink_on_node_2();
    nodes.take(2).kill();
    // when other nodes are requested to show it, then they say for which node it waits,
    for id in [1, 3] {
        onelog_testkit::until_ok(|| {
            let shown = nodes.run(id, &["sinks", "show", SINK, "--json"]).json();
            let waits = shown["state"] == "elsewhere" && shown["waits_for"] == 2;
            (waits && shown["runs_on"].is_null())
                .then_some(())
                .ok_or(shown.to_string())
        })
        .unwrap();
        let listed = nodes.run(id, &["sinks"]).good();
        assert!(listed.contains("waits for node 2"), "{listed}");
        nodes
            .run(id, &["sinks", "pause", SINK])
            .fails(1, "waits for node 2");
    }
    // and when it is given another node, it runs there.
    let file = nodes.file("moved.json", &definition(&store, 1).to_string());
    nodes.run(3, &["sinks", "replace", &file]).good();
    let end = nodes.put(3, "b", "2");
    wait(&nodes, 3, end);
    let shown = nodes.run(3, &["sinks", "show", SINK, "--json"]).json();
    assert_eq!(shown["runs_on"], 1, "{shown}");
}

#[test]
fn a_sink_whose_node_is_killed_goes_on_from_another_one_and_writes_nothing_twice() {
    require!(Kind::Postgres);
    // Given a sink into a server that every node reaches, on no node in particular,
    let mut nodes = Nodes::of_three();
    let store = Postgres::start();
    let mut definition = definition(Path::new(""), 0);
    let fields = definition.as_object_mut().unwrap();
    fields.retain(|name, _| !["path", "run_on"].contains(&name.as_str()));
    fields.insert("kind".to_owned(), "postgres".into());
    fields.insert("url".to_owned(), store.url().into());
    let file = nodes.file("sink.json", &definition.to_string());
    nodes.run(1, &["sinks", "create", &file]).good();
    let end = nodes.put(1, "first", "1");
    wait(&nodes, 1, end);
    store.sql(COUNTS);
    let runs_on = |id: u64| {
        let shown = nodes.run(id, &["sinks", "show", SINK, "--json"]).json();
        shown["runs_on"].as_u64()
    };
    let killed = runs_on(1).unwrap();
    // when the node that runs it is killed while clients write,
    let (urls, ends, count) = (nodes.urls(), AtomicBool::new(false), AtomicUsize::new(0));
    let acknowledged = thread::scope(|scope| {
        let client = |n: usize| write(&urls, &format!("c{n}"), &ends, &count);
        let clients: Vec<_> = (0..3).map(|n| scope.spawn(move || client(n))).collect();
        let more = || {
            let enough = count.load(Ordering::Relaxed) + BETWEEN;
            until_ok(|| match count.load(Ordering::Relaxed) >= enough {
                true => Ok(()),
                false => Err(format!("{count:?} of {enough}")),
            })
        };
        more().unwrap();
        nodes.take(killed).kill();
        let went_on = more();
        ends.store(true, Ordering::Relaxed);
        let found = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        let found: Vec<(String, u64)> = found.collect();
        went_on.unwrap();
        found
    });
    // then another one goes on with it,
    let other = nodes.ids()[0];
    let end = acknowledged.iter().map(|(_, end)| *end).max().unwrap();
    wait(&nodes, other, end);
    let shown = nodes.run(other, &["sinks", "show", SINK, "--json"]).json();
    assert_ne!(shown["runs_on"], killed, "{shown}");
    assert!(shown["runs_on"].is_u64(), "{shown}");
    // with every row, each written once.
    let verify = ["sinks", "verify", SINK, "--json"];
    assert_eq!(nodes.run(other, &verify).json()["equal"], true);
    let number = |sql: &str| store.sql(sql).parse::<usize>().unwrap();
    assert_eq!(number("SELECT count(*) FROM written"), acknowledged.len());
    let distinct = "SELECT count(DISTINCT id) FROM written";
    assert_eq!(number(distinct), acknowledged.len());
}
