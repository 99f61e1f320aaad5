//! Nodes go, and come back or do not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use onelog_testkit::until_ok;
use serde_json::{Value, json};

use crate::load::{keys_in_log, write};
use crate::rig::{Nodes, TABLE, agent, ready};
use crate::server::{Ran, Server, onelog};

/// How often a leader is killed.
const KILLS: usize = 3;
/// How much is acknowledged between two kills.
const BETWEEN: usize = 60;

#[test]
fn nothing_acknowledged_is_lost_or_doubled_when_leaders_are_killed_under_load() {
    // Given three nodes, and clients which repeat under their ids what was not answered,
    let mut nodes = Nodes::of_three();
    let (ends, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut found = BTreeMap::new();
    let mut clients = 0;
    for _ in 0..KILLS {
        ends.store(false, Ordering::Relaxed);
        let begin = |name: String| {
            let (urls, ends, count) = (nodes.urls(), Arc::clone(&ends), Arc::clone(&count));
            thread::spawn(move || write(&urls, &name, &ends, &count))
        };
        let running: Vec<_> = (clients..clients + 3)
            .map(|n| begin(format!("c{n}")))
            .collect();
        clients += 3;
        // when the leader is killed and the others go on,
        let more = |by: usize| {
            let enough = count.load(Ordering::Relaxed) + by;
            let waited = until_ok(|| {
                let is = count.load(Ordering::Relaxed);
                (is >= enough)
                    .then_some(())
                    .ok_or(format!("{is} of {enough}"))
            });
            waited.unwrap();
        };
        more(BETWEEN);
        let leader = nodes.leader();
        nodes.take(leader).kill();
        more(BETWEEN);
        ends.store(true, Ordering::Relaxed);
        for client in running {
            found.extend(client.join().unwrap());
        }
        nodes.start(leader, &["--join", "voter"]);
        nodes.wait_for_voters(3);
    }
    // then every node has all that was acknowledged, where the answer said, and nothing twice.
    let end = *found.values().max().unwrap();
    assert!(found.len() >= 2 * KILLS * BETWEEN, "{}", found.len());
    let mut logs = Vec::new();
    for id in [1, 2, 3] {
        for key in [found.keys().next().unwrap(), found.keys().last().unwrap()] {
            nodes.get(id, key, end);
        }
        logs.push(keys_in_log(nodes.url(id), end));
    }
    assert!(
        logs.iter().all(|log| *log == logs[0]),
        "the nodes have the same"
    );
    for key in found.keys() {
        assert!(logs[0].contains(key), "{key} is lost");
    }
}

#[test]
fn a_leader_that_is_stopped_hands_the_leadership_on() {
    let mut nodes = Nodes::of_three();
    let leader = nodes.leader();
    let before = nodes.status(leader)["term"].as_u64().unwrap();
    let (status, said) = nodes.take(leader).terminate();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("hand the leadership on"), "{said}");
    let next = nodes.leader();
    // One election: nobody had to wait for a silence.
    assert_eq!(nodes.status(next)["term"], before + 1);
    nodes.put(next, "a", "1");
    // The leadership is handed on by a command as well.
    let other = nodes.ids().into_iter().find(|id| *id != next).unwrap();
    nodes
        .run(next, &["cluster", "transfer", &other.to_string()])
        .good();
    assert_eq!(nodes.leader(), other);
    nodes
        .run(next, &["cluster", "transfer", "9"])
        .fails(1, "node 9 is no member");
}

/// Who leads, as a header of a node's answer says.
fn leader_in_header(nodes: &Nodes, id: u64) -> Option<u64> {
    let url = format!("{}/v1/tables", nodes.url(id));
    let answer = agent().get(url).call().unwrap();
    let leader = answer.headers().get("onelog-leader")?;
    leader.to_str().unwrap().parse().ok()
}

#[test]
fn every_answer_of_a_follower_says_who_leads_also_after_the_leadership_has_moved() {
    // Given three nodes that agree who leads,
    let mut nodes = Nodes::of_three();
    let first = nodes.leader();
    // then the answers of all say it.
    for id in nodes.ids() {
        assert_eq!(leader_in_header(&nodes, id), Some(first), "node {id}");
    }
    // When the leadership is handed on, then they say who leads now,
    let second = first % 3 + 1;
    let transfer = ["cluster", "transfer", &second.to_string()];
    nodes.run(first, &transfer).good();
    assert_eq!(nodes.leader(), second);
    for id in nodes.ids() {
        assert_eq!(leader_in_header(&nodes, id), Some(second), "node {id}");
    }
    // and so they do when the leader is killed.
    nodes.take(second).kill();
    for id in nodes.ids() {
        until_ok(|| match leader_in_header(&nodes, id) {
            Some(leader) if leader != second => Ok(()),
            other => Err(format!("node {id} says {other:?}")),
        })
        .unwrap();
    }
}

#[test]
fn without_a_majority_a_node_lives_and_says_that_it_is_not_ready() {
    // Given three nodes of which two are killed,
    let mut nodes = Nodes::of_three();
    let end = nodes.put(1, "a", "1");
    nodes.get(3, "a", end);
    nodes.take(1).kill();
    nodes.take(2).kill();
    // when the third has noticed, then it lives and is not ready,
    nodes.wait(3, "no leader", |status| status["leader"].is_null());
    let url = nodes.url(3);
    let (status, body) = ready(url);
    assert_eq!((status, &body["status"]), (503, &"no_leader".into()));
    let health = crate::rig::agent()
        .get(format!("{url}/healthz"))
        .call()
        .unwrap();
    assert_eq!(health.status().as_u16(), 200);
    // it reads what it has,
    assert_eq!(nodes.get(3, "a", end), "1");
    // and writes nothing, which it says.
    let put = ["put", crate::rig::TABLE, "b", "1"];
    nodes.run(3, &put).fails(1, "nothing was done");
    let read = ["get", crate::rig::TABLE, "a", "--linearizable"];
    nodes.run(3, &read).fails(1, "the cluster has no leader");
    let read = format!("{}/v1/tables/{}/keys/a", nodes.url(3), crate::rig::TABLE);
    let read = format!("{read}?linearizable=true&timeout_ms=100");
    let mut answer = crate::rig::agent().get(read).call().unwrap();
    let said = answer.body_mut().read_to_string().unwrap();
    assert_eq!(answer.status().as_u16(), 504, "{said}");
    assert!(said.contains("wait_timed_out"), "{said}");
    let answer = crate::rig::agent()
        .post(format!("{}/v1/transactions", nodes.url(3)))
        .send(r#"{"writes":[{"op":"put","table":"shop.orders","key":"c","value":1}]}"#);
    let mut answer = answer.unwrap();
    let refusal: Value =
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!(refusal["error"], "no_leader", "{refusal}");
    assert_eq!(answer.status().as_u16(), 503);
    nodes
        .run(3, &["cluster", "add", "4", "127.0.0.1:1"])
        .fails(1, "nothing was changed");
    // With a majority it goes on.
    nodes.start(1, &[]);
    nodes.leader();
    nodes.put(3, "b", "1");
}

#[test]
fn a_removed_node_does_not_come_back_and_a_new_number_takes_its_place() {
    // Given three nodes,
    let mut nodes = Nodes::of_three();
    nodes.put(1, "a", "1");
    // when one is removed, which must be meant,
    nodes.run(1, &["cluster", "remove", "3"]).fails(2, "--yes");
    nodes.run(1, &["cluster", "remove", "3", "--yes"]).good();
    nodes.take(3).terminate();
    // then it does not come back with the folder that it has, whatever it requests,
    nodes.start(3, &["--join", "voter"]);
    nodes.wait(3, "removed", |status| status["is_removed"] == true);
    let (status, body) = ready(nodes.url(3));
    assert_eq!((status, &body["status"]), (503, &"removed".into()));
    assert!(
        body["failure"]
            .as_str()
            .unwrap()
            .contains("under a new number"),
        "{body}"
    );
    nodes.take(3).terminate();
    // nor with an empty one,
    std::fs::remove_dir_all(nodes.data(3)).unwrap();
    let refused = nodes.start_refused(3, &["--join", "voter"]);
    refused.fails(1, "node 3 was removed from the cluster");
    let address = nodes.address(3);
    nodes
        .run(2, &["cluster", "add", "3", &address])
        .fails(1, "numbers are not used again");
    // and a new number takes its place.
    nodes.start(4, &["--join", "voter"]);
    nodes.wait_for_voters(3);
    let end = nodes.put(4, "b", "1");
    assert_eq!(nodes.get(1, "b", end), "1");
}

#[test]
fn a_removal_that_would_end_all_commits_is_refused_unless_it_is_forced() {
    // Given three nodes of which one is lost,
    let mut nodes = Nodes::of_three();
    let leader = nodes.leader();
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
    let [lost, other] = others[..] else {
        panic!("{others:?}")
    };
    nodes.take(lost).kill();
    nodes.wait(leader, "the loss", |status| {
        let mut members = status["members"].as_array().unwrap().iter();
        members.any(|member| member["node"] == lost && member["is_connected"] == false)
    });
    // when one that lives is to be removed, then the reason is said,
    let remove = |id: u64| nodes.run(leader, &["cluster", "remove", &id.to_string(), "--yes"]);
    remove(other).fails(1, "2 must be");
    // and the lost one goes.
    remove(lost).good();
    nodes.put(other, "a", "1");
    nodes
        .run(leader, &["cluster", "remove", &other.to_string(), "--yes"])
        .good();
    nodes.put(leader, "a", "2");
}

#[test]
fn what_one_folder_has_is_a_log_of_its_own_when_all_others_are_lost() {
    // Given three nodes that are killed right behind an acknowledged transaction,
    let mut nodes = Nodes::of_three();
    let mut end = 0;
    for n in 0..20 {
        end = nodes.put(1, &format!("k{n}"), &n.to_string());
    }
    let leader = nodes.leader();
    assert_eq!(nodes.get(leader, "k19", end), "19");
    for id in nodes.ids() {
        nodes.take(id).kill();
    }
    // when a log is made of each folder, and the one that goes furthest is taken,
    let run = |args: &[&str]| Ran::of(onelog().args(args).output().unwrap());
    let mut furthest = (0, nodes.data(leader));
    for id in [1, 2, 3] {
        let (from, into) = (nodes.data(id), nodes.data(10 + id));
        let (from, into_text) = (from.to_str().unwrap(), into.to_str().unwrap());
        let made = run(&["restore", "--alone", "--json", from, into_text]).json();
        assert_eq!(made["node"], id, "{made}");
        let goes_to = made["log"]["end"].as_u64().unwrap();
        assert!(made["committed"].as_u64().unwrap() <= goes_to, "{made}");
        furthest = furthest.max((goes_to, into));
    }
    assert!(furthest.0 >= end, "{furthest:?}");
    let into = furthest.1;
    // then a node that is alone has everything that was acknowledged, and takes writes,
    let alone = Server::start(&into, &[]);
    let table = format!("{}/v1/tables/{TABLE}/keys", alone.url);
    let agent = agent();
    for n in 0..20 {
        let mut found = agent.get(format!("{table}/k{n}")).call().unwrap();
        assert_eq!(found.body_mut().read_to_string().unwrap(), n.to_string());
    }
    let write = json!({"op": "put", "table": TABLE, "key": "k0", "value": "new"});
    let url = format!("{}/v1/transactions", alone.url);
    let mut answer = agent
        .post(url)
        .send_json(json!({"writes": [write]}))
        .unwrap();
    let answer: Value = answer.body_mut().read_json().unwrap();
    assert!(answer["position"].as_u64().unwrap() > end, "{answer}");
    let status: Value = {
        let url = format!("{}/v1/cluster", alone.url);
        agent
            .get(url)
            .call()
            .unwrap()
            .body_mut()
            .read_json()
            .unwrap()
    };
    assert_eq!(status["members"].as_array().unwrap().len(), 1, "{status}");
    // and the folder itself is still that of the member.
    let (from, other) = (nodes.data(leader), nodes.data(8));
    let paths = [&from, &other].map(|path| path.to_str().unwrap());
    let copied = run(&["restore", paths[0], paths[1]]).good();
    assert!(!copied.contains("alone"), "{copied}");
}
