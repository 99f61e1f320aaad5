//! A cluster comes into being.

use std::process::Command;

use onelog_testkit::Authority;
use serde_json::{Value, json};

use crate::rig::{Nodes, TABLE, agent, ready};
use crate::server::Server;

#[test]
fn three_commands_make_three_voters_and_each_takes_reads_and_writes() {
    // Given three nodes of which two join by their own request,
    let nodes = Nodes::of_three();
    // when something is written through each of them,
    for id in [1, 2, 3] {
        let key = format!("by-{id}");
        let end = nodes.put(id, &key, "1");
        // then it is read through each of them, at once where that is requested,
        for reader in [1, 2, 3] {
            let read = ["get", TABLE, &key, "--linearizable"];
            assert_eq!(nodes.run(reader, &read).good(), "1\n");
            assert_eq!(nodes.get(reader, &key, end), "1");
        }
        assert_eq!(ready(nodes.url(id)).0, 200);
    }
    // and the status shows them, in a line as well.
    let text = nodes.run(2, &["cluster"]).good();
    for part in ["leads, term", "voters 3", "connected 3 of 3", "votes"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let status = nodes.run(2, &["status"]).good();
    assert!(status.contains("node 2: "), "{status}");
}

#[test]
fn a_position_that_one_node_reports_is_read_on_every_other_one() {
    // Given three nodes,
    let nodes = Nodes::of_three();
    let agent = agent();
    for round in 0..20 {
        for writer in [1, 2, 3] {
            // when one reports where it wrote,
            let key = format!("{round}-{writer}");
            let write = json!({"op": "put", "table": TABLE, "key": key, "value": 7});
            let url = format!("{}/v1/transactions", nodes.url(writer));
            let mut answer = agent
                .post(url)
                .send_json(json!({"writes": [write]}))
                .unwrap();
            let answer: Value = answer.body_mut().read_json().unwrap();
            let end = answer["position"].as_u64().unwrap();
            for reader in [1, 2, 3] {
                // then each reads that state, and the log from there on, though it may be behind.
                let table = format!("{}/v1/tables/{TABLE}/keys/{key}", nodes.url(reader));
                let log = format!("{}/v1/log", nodes.url(reader));
                for (url, expected) in [
                    (format!("{table}?at={end}"), "7"),
                    (format!("{log}?from={end}"), ""),
                ] {
                    let mut answer = agent.get(&url).call().unwrap();
                    let text = answer.body_mut().read_to_string().unwrap();
                    assert_eq!((answer.status().as_u16(), &*text), (200, expected), "{url}");
                }
            }
        }
    }
    // A position that no node has reached is refused, and the message names both remedies.
    let far = format!("{}/v1/log?from=1000000", nodes.url(2));
    let mut answer = agent.get(&far).call().unwrap();
    assert_eq!(answer.status().as_u16(), 422);
    let text = answer.body_mut().read_to_string().unwrap();
    for part in [
        "this node has the log up to",
        "request it again, or read there",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn nodes_that_start_together_by_their_files_join_and_get_the_declared_table() {
    // Given three files that differ in the number alone, each with all others,
    let mut nodes = Nodes::new();
    let addresses = [1, 2, 3].map(|id| (id, nodes.address(id)));
    let starting = [1, 2, 3].map(|id| {
        let others = addresses.iter().filter(|(other, _)| *other != id);
        let others: Vec<String> = others
            .map(|(other, address)| format!("\"{other}={address}\""))
            .collect();
        let (_, own) = &addresses[id as usize - 1];
        let text = format!(
            "[cluster]\nnode = {id}\nlisten = \"{own}\"\npeers = [{}]\njoin = \"voter\"\n[[tables]]\nname = \"{TABLE}\"\n",
            others.join(", ")
        );
        let file = nodes.file(&format!("onelog-{id}.toml"), &text);
        let data = nodes.data(id);
        // when all start at once,
        let start = move || Server::start(&data, &["--config", &file]);
        (id, std::thread::spawn(start))
    });
    for (id, server) in starting {
        nodes.adopt(id, server.join().unwrap());
    }
    // then they are a cluster, and the table is there once a leader is.
    nodes.wait_for_voters(3);
    let made = onelog_testkit::until_ok(|| {
        let listed = nodes.run(3, &["tables"]).good();
        listed.contains(TABLE).then_some(()).ok_or(listed)
    });
    made.unwrap();
    let end = nodes.put(2, "a", "1");
    assert_eq!(nodes.get(3, "a", end), "1");
}

#[test]
fn a_server_of_today_grows_to_three_and_a_restart_changes_nothing() {
    // Given a server that is alone, with data,
    let mut nodes = Nodes::new();
    let alone = Server::start(&nodes.data(1), &[]);
    alone.run(&["tables", "create", TABLE]).good();
    alone.run(&["put", TABLE, "old", "1"]).good();
    assert_eq!(alone.run(&["cluster", "--json"]).json()["alone"], true);
    alone
        .run(&["cluster", "add", "2", "127.0.0.1:1"])
        .fails(1, "this node is alone");
    alone.terminate();
    // when it gets a number and others join,
    nodes.start(1, &[]);
    nodes.start(2, &["--join", "learner"]);
    nodes.wait(2, "a learner", |status| status["is_member"] == true);
    nodes.start(3, &["--join", "voter"]);
    nodes.wait_for_voters(2);
    assert_eq!(nodes.get(2, "old", 0), "1");
    // then a learner becomes a voter by hand,
    nodes.run(3, &["cluster", "promote", "2"]).good();
    nodes.wait_for_voters(3);
    // and nodes that come back with the same flags, at another address, are what they were.
    let before = nodes.status(1)["members"].clone();
    nodes.take(3).terminate();
    nodes.move_to_another_port(3);
    nodes.start(3, &["--join", "voter"]);
    let address = nodes.address(3);
    nodes.wait(1, "the new address", |status| {
        let third = &status["members"][2];
        third["address"] == address.as_str() && third["is_connected"] == true
    });
    let roles = |members: &serde_json::Value| {
        let members = members.as_array().unwrap().iter();
        members
            .map(|member| (member["node"].clone(), member["is_voter"].clone()))
            .collect::<Vec<_>>()
    };
    nodes.wait_for_voters(3);
    assert_eq!(roles(&nodes.status(1)["members"]), roles(&before));
    // A server with a cluster's folder and no number would be a second log.
    nodes.take(2).terminate();
    let mut command = crate::server::onelog();
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--folder"])
        .arg(nodes.data(2));
    let ran = crate::server::Ran::of(command.output().unwrap());
    ran.fails(1, "the folder belongs to node 2 of a cluster");
}

#[test]
fn with_certificates_nodes_join_and_one_with_the_certificate_of_another_does_not_start() {
    let mut authority = Authority::new();
    let mut flags = |id: u64| {
        let issued = authority.issue(&format!("node-{id}.onelog"));
        let files = [
            ("--peer-certificate", issued.certificate),
            ("--peer-key", issued.key),
            ("--peer-authority", issued.root),
        ];
        let flags = files.map(|(flag, file)| format!("{flag}={}", file.display()));
        Vec::from(flags)
    };
    let mut nodes = Nodes::new();
    for id in [1, 2] {
        let flags = flags(id);
        let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        flags.extend(["--join", "voter"]);
        nodes.start(id, &flags);
    }
    nodes.wait_for_voters(2);
    let wrong = flags(2);
    let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
    let ran = nodes.start_refused(3, &wrong);
    ran.fails(1, "is not for node-3.onelog");
}

#[test]
fn the_certificates_of_the_operations_page_connect_nodes() {
    // Given the files that the commands of the page make,
    let page = include_str!("../../../../docs/operations.md");
    let (_, section) = page.split_once("\n## Certificates\n").unwrap();
    let (_, block) = section.split_once("\n```sh\n").unwrap();
    let (script, _) = block.split_once("\n```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]);
    let made = command.current_dir(folder.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    // when nodes are started with them, then they are connected.
    let mut nodes = Nodes::new();
    for id in [1, 3] {
        let file = |name: String| folder.path().join(name).display().to_string();
        let (certificate, key) = (
            file(format!("node-{id}.pem")),
            file(format!("node-{id}.key")),
        );
        let authority = file("ca.pem".to_owned());
        let flags = ["--peer-certificate", &certificate, "--peer-key", &key];
        let mut flags = Vec::from(flags);
        flags.extend(["--peer-authority", &authority, "--join", "voter"]);
        nodes.start(id, &flags);
    }
    nodes.wait_for_voters(2);
}
