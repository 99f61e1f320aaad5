//! What is set up wrongly says so.

use crate::rig::Nodes;
use crate::server::{Ran, Server, onelog};

#[test]
fn settings_that_are_given_by_half_name_the_key_that_is_missing() {
    let serve = |args: &[&str]| {
        let mut command = onelog();
        Ran::of(
            command
                .args(["serve", "--folder", "/nowhere"])
                .args(args)
                .output()
                .unwrap(),
        )
    };
    serve(&["--peers", "1=127.0.0.1:7171"]).fails(2, "set cluster.node (--node, ONELOG_NODE)");
    serve(&["--node", "2", "--peer-key", "k"]).fails(2, "set cluster.certificate");
    serve(&["--node", "2", "--peers", "1=here"]).fails(2, "--peers: 'here' is not the address");
    serve(&["--node", "2", "--peers", "2=a:1"]).fails(2, "has the number of this node");
    serve(&["--node", "2", "--peer-listen", "0.0.0.0:7171"]).fails(2, "cluster.certificate");
    serve(&["--node", "2"]).fails(1, "/nowhere");
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
