//! Clients that none of us wrote, as their users run them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail by them

mod rig;

use std::io::Write as _;
use std::process::{Command, Stdio};

use onelog::{NewTable, TableKind, ValueKind};
use onelog_testkit::{Kind, kafka_python, require};
use serde_json::json;

use rig::Rig;

fn kcat(rig: &Rig, arguments: &[&str], input: &str) -> String {
    let broker = format!("127.0.0.1:{}", rig.port());
    let mut command = Command::new("kcat");
    command.args(["-b", &broker]).args(arguments);
    output(command, input)
}

fn output(mut command: Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let done = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?} failed: {errors}");
    String::from_utf8(done.stdout).unwrap()
}

fn stream(name: &str) -> NewTable {
    NewTable {
        kind: TableKind::Stream,
        value: ValueKind::Bytes,
        ..NewTable::keyed(name)
    }
}

#[test]
fn kcat_lists_topics_and_reads_a_table_to_its_end() {
    require!(Kind::Kcat);
    let rig = Rig::start();
    let node = &rig.node;
    node.create_table_blocking(NewTable::keyed("shop.orders"))
        .unwrap();
    node.create_table_blocking(NewTable::keyed("shop.stock"))
        .unwrap();
    node.transact(|tx| tx.put_json("shop.orders", "o-1", &json!({"total": 12})))
        .unwrap();
    node.transact(|tx| tx.put_json("shop.stock", "apple", &json!(3)))
        .unwrap();

    let listed = kcat(&rig, &["-L"], "");
    assert!(
        listed.contains("topic \"shop.orders\" with 1 partitions"),
        "{listed}"
    );

    let format = [
        "-C",
        "-t",
        "shop.orders",
        "-o",
        "beginning",
        "-e",
        "-q",
        "-f",
        "%k=%s\n",
    ];
    assert_eq!(kcat(&rig, &format, ""), "o-1={\"total\":12}\n");
}

#[test]
fn kcat_writes_with_each_compression_and_reads_the_same() {
    require!(Kind::Kcat);
    let rig = Rig::start();
    let lines: String = (0..500)
        .map(|n| format!("key-{n}=value {n} {n} {n}\n"))
        .collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("kcat.{codec}");
        rig.node.create_table_blocking(stream(&topic)).unwrap();
        kcat(&rig, &["-P", "-t", &topic, "-K", "=", "-z", codec], &lines);
        let format = [
            "-C",
            "-t",
            &topic,
            "-o",
            "beginning",
            "-e",
            "-q",
            "-f",
            "%k=%s\n",
        ];
        assert_eq!(kcat(&rig, &format, ""), lines, "{codec}");
    }
}

#[test]
fn the_newest_librdkafka_and_kafka_python_write_and_read() {
    require!(Kind::KafkaPython);
    let rig = Rig::start();
    for script in ["confluent.py", "kafka_python.py"] {
        let topic = script.replace(".py", "");
        rig.node.create_table_blocking(stream(&topic)).unwrap();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
        let mut command = Command::new(kafka_python().unwrap());
        command
            .arg(format!("{folder}/{script}"))
            .args([&format!("127.0.0.1:{}", rig.port()), &topic]);
        assert_eq!(output(command, "").trim(), "ok", "{script}");
    }
}
