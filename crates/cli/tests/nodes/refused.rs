//! What is set up wrongly says so.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use onelog_testkit::Port;

use crate::rig::{Nodes, TABLE};
use crate::server::{Ran, Server, onelog};

#[test]
fn settings_that_are_given_by_half_name_the_key_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let serve = |args: &[&str]| {
        let mut command = onelog();
        Ran::of(
            command
                .args(["serve", "--listen", "127.0.0.1:0", "--folder"])
                .arg(folder.path())
                .args(args)
                .output()
                .unwrap(),
        )
    };
    serve(&["--peers", "1=127.0.0.1:7171"]).fails(2, "set cluster.node (--node, ONELOG_NODE)");
    serve(&["--node", "2", "--peer-key", "k"]).fails(2, "set cluster.certificate");
    serve(&["--node", "2", "--peers", "1=here"]).fails(2, "--peers: 'here' is not the address");
    serve(&["--node", "2", "--peer-listen", "0.0.0.0:7171"]).fails(2, "cluster.certificate");
    let alone = ["--node", "2", "--peer-listen", "127.0.0.1:0"];
    serve(&alone).fails(1, "list at least one member with its address as a peer");
    // One that lists itself, as a file that is the same on all nodes does, has that many less.
    let itself = [&alone[..], &["--peers", "2=127.0.0.1:7171"]].concat();
    serve(&itself).fails(1, "list at least one member with its address as a peer");
}

#[test]
fn a_node_with_another_log_is_not_taken_and_says_why() {
    // Given two clusters, and a node that has begun to follow one of them,
    let mut ours = Nodes::new();
    ours.start(1, &[]);
    let mut theirs = Nodes::new();
    theirs.start(1, &[]);
    theirs.start(2, &[]);
    theirs.take(2).terminate();
    // when it is to join the other one,
    let peers = format!("1={}", ours.address(1));
    let listen = theirs.address(2);
    let flags = [
        "--node",
        "2",
        "--peer-listen",
        &listen,
        "--peers",
        &peers,
        "--join",
        "voter",
    ];
    let stray = Server::start(&theirs.data(2), &flags);
    // then the two are not connected, and it says why,
    let mut status = serde_json::Value::Null;
    let said = onelog_testkit::until_ok(|| {
        status = stray.run(&["cluster", "--json"]).json();
        let error = status["members"][0]["last_error"].as_str();
        let is_said = error.is_some_and(|error| error.contains("node 2 has the log"));
        is_said.then_some(()).ok_or_else(|| status.to_string())
    });
    said.unwrap();
    assert_eq!(status["join_error"], "no member is connected");
    assert_eq!(crate::rig::ready(&stray.url).1["status"], "not_member");
    // and nothing has changed where it came.
    assert_eq!(ours.status(1)["members"].as_array().unwrap().len(), 1);
}

#[test]
fn a_copy_of_a_node_that_runs_is_refused_and_says_why_and_the_node_stays_connected() {
    // Given two nodes, and a copy of the folder of the second one,
    let mut nodes = Nodes::new();
    nodes.start(1, &[]);
    nodes.start(2, &["--join", "voter"]);
    nodes.wait_for_voters(2);
    nodes.run(1, &["tables", "create", TABLE]).good();
    nodes.take(2).terminate();
    let copy = nodes.data(9);
    let mut restore = onelog();
    restore.arg("restore").arg(nodes.data(2)).arg(&copy);
    Ran::of(restore.output().unwrap()).good();
    nodes.start(2, &[]);
    nodes.wait(1, "node 2", |status| {
        status["members"][1]["is_connected"] == true
    });
    let end = nodes.put(2, "a", "1");
    // when the copy is started while the node runs,
    let (at, copy_at, first) = (nodes.address(2), nodes.address(9), nodes.address(1));
    let peers = format!("1={first}");
    let flags = ["--node", "2", "--peer-listen", &copy_at, "--peers", &peers];
    let copied = Server::start(&copy, &flags);
    // then it is refused, and says what to do and where both are,
    let said = onelog_testkit::until_ok(|| {
        let status = copied.run(&["cluster", "--json"]).json();
        let error = status["members"][0]["last_error"]
            .as_str()
            .unwrap_or_default();
        let parts = [
            "two processes are node 2: stop the wrong one",
            &at,
            &copy_at,
        ];
        let is_said = parts.iter().all(|part| error.contains(part));
        is_said.then_some(()).ok_or_else(|| status.to_string())
    });
    said.unwrap();
    // the other node shows it,
    let status = nodes.wait(1, "the copy", |status| {
        status["members"][1]["other_address"] == copy_at.as_str()
    });
    assert_eq!(status["members"][1]["is_connected"], true, "{status}");
    let listed = nodes.run(1, &["cluster"]).good();
    let expected = format!("refused: the same number at {copy_at}");
    assert!(listed.contains(&expected), "{listed}");
    // and the node goes on.
    let end = nodes.put(2, "a", "2").max(end);
    assert_eq!(nodes.get(1, "a", end), "2");
}

#[test]
fn a_node_that_waits_for_its_peers_says_that_it_lives_and_starts() {
    // Given a node whose only peer is not there,
    let folder = tempfile::tempdir().unwrap();
    let (http, nobody) = (Port::take(), Port::take());
    let mut command = onelog();
    command.args(["serve", "--node", "2", "--peer-listen", "127.0.0.1:0"]);
    command.args(["--listen", &format!("127.0.0.1:{}", http.number())]);
    command.args(["--peers", &format!("1=127.0.0.1:{}", nobody.number())]);
    let mut child = command.arg("--folder").arg(folder.path()).spawn().unwrap();
    // when it is asked whether it lives, then it does,
    let url = format!("http://127.0.0.1:{}", http.number());
    let lives = onelog_testkit::until_ok(|| {
        let answer = crate::rig::agent().get(format!("{url}/healthz")).call();
        match answer {
            Ok(answer) if answer.status().as_u16() == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    lives.unwrap();
    // and nothing is to be sent to it yet.
    let (code, answer) = crate::rig::ready(&url);
    assert_eq!((code, &answer["status"]), (503, &"starting".into()));
    let answer = crate::rig::agent().get(format!("{url}/v1/status")).call();
    assert_eq!(answer.unwrap().status().as_u16(), 503);
    crate::server::signal("TERM", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_wrong_number_or_address_is_named() {
    let mut nodes = Nodes::new();
    nodes.start(1, &[]);
    nodes.start(2, &["--join", "voter"]);
    nodes.wait_for_voters(2);
    // The folder of node 2 under another number;
    nodes.take(2).terminate();
    let (peers, listen) = (format!("1={}", nodes.address(1)), nodes.address(2));
    let mut command = onelog();
    command.args(["serve", "--listen", "127.0.0.1:0", "--node", "3"]);
    command.args(["--peer-listen", &listen, "--peers", &peers, "--folder"]);
    command.arg(nodes.data(2));
    Ran::of(command.output().unwrap()).fails(1, "belongs to node 2");
    // the address of another node.
    let peers = format!("9={}", nodes.address(1));
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--node",
        "3",
        "--peers",
        &peers,
    ];
    let mut command = onelog();
    command.args(flags).args(["--peer-listen", "127.0.0.1:0"]);
    let child = command
        .arg("--folder")
        .arg(folder.path())
        .stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    let said = lines.find(|line| line.contains("the address leads to node 1, wanted is node 9"));
    assert!(said.is_some());
    // It waits for a member, and a signal ends it all the same.
    crate::server::signal("TERM", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
