//! `onelog serve`: how it starts and how it ends.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::json;

use crate::server::{Ran, Server, onelog};

#[test]
fn a_server_starts_serves_stops_on_sigterm_and_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &[]);
    assert_eq!(server.position, 0);
    server.run(&["tables", "create", "shop.orders"]).good();
    server
        .run(&["put", "shop.orders", "o1", "{\"total\": 12.50}"])
        .good();
    let (status, said) = server.terminate();
    assert_eq!(status.code(), Some(0), "{said}");

    let server = Server::start(&data, &[]);
    assert_eq!(server.position, 2);
    assert_eq!(
        server.run(&["get", "shop.orders", "o1"]).good(),
        "{\"total\": 12.50}\n"
    );
}

#[test]
fn what_was_acknowledged_is_there_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &["--create-tables"]);
    server.run(&["put", "shop.orders", "o1", "1"]).good();
    server.kill();
    let server = Server::start(&data, &[]);
    assert_eq!(server.run(&["get", "shop.orders", "o1"]).good(), "1\n");
}

#[test]
fn a_port_in_use_and_a_folder_in_use_are_reported() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let serve = |listen: &str| {
        let mut command = onelog();
        command
            .args(["serve", "--listen", listen, "--folder"])
            .arg(&data);
        Ran::of(command.output().unwrap())
    };
    serve(&address).fails(1, &format!("{address} is in use"));
    assert!(
        !data.exists(),
        "nothing is touched before the port is there"
    );

    let running = Server::start(&data, &[]);
    serve("127.0.0.1:0").fails(1, "in use by another process");
    let mut check = onelog();
    check.arg("check").arg(&data);
    Ran::of(check.output().unwrap()).fails(1, "in use by another process");
    drop(running);
}

#[test]
fn a_wrong_configuration_is_wrong_use() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("onelog.toml"),
        "listen = \"127.0.0.1:0\"\nsegment_byte = 1\n",
    )
    .unwrap();
    let mut command = onelog();
    let ran = command
        .arg("serve")
        .current_dir(folder.path())
        .output()
        .unwrap();
    Ran::of(ran).fails(
        2,
        "onelog.toml, line 2: unknown key 'segment_byte'; did you mean 'segment_bytes'?",
    );

    let mut command = onelog();
    let ran = command
        .args(["serve", "--segment-bytes", "many"])
        .current_dir("/")
        .output()
        .unwrap();
    Ran::of(ran).fails(2, "--segment-bytes: 'many' is not a size");
    let mut command = onelog();
    let ran = command.args(["put", "t"]).output().unwrap();
    Ran::of(ran).fails(2, "Usage");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("onelog.toml");
    std::fs::write(
        &config,
        "ids_max = 11\nqueue_requests_max = 12\ncreate_tables = true\n",
    )
    .unwrap();
    let data = folder.path().join("data");
    let flags = [
        "--queue-requests-max",
        "14",
        "--config",
        config.to_str().unwrap(),
    ];
    let server = Server::start(&data, &flags);
    let status = server.run(&["status", "--json"]).json();
    assert_eq!(status["limits"]["ids_max"], 11);
    assert_eq!(status["limits"]["queue_requests_max"], 14);
    assert_eq!(status["http"]["create_tables"], true);
    assert!(
        server
            .run(&["status"])
            .good()
            .contains("queue requests max")
    );
}

#[test]
fn without_a_server_the_command_says_what_to_start() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{free}");
    let mut command = onelog();
    Ran::of(command.args(["status", "--url", &url]).output().unwrap()).fails(1, "onelog serve");
    let mut command = onelog();
    Ran::of(
        command
            .args(["status", "--url", "https://localhost"])
            .output()
            .unwrap(),
    )
    .fails(1, "plain HTTP");
}

#[test]
fn the_memory_of_all_sinks_is_what_the_settings_say() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--sinks-memory-bytes", "2MiB"];
    let server = Server::start(&folder.path().join("data"), &flags);
    server.run(&["tables", "create", "t.rows"]).good();
    let sink = json!({"name": "store", "kind": "sqlite", "path": folder.path().join("store.db"),
        "mappings": [{"table": "t.rows", "into": "rows"}]});
    server
        .run_fed(&["sinks", "create", "-"], &sink.to_string())
        .good();
    let address = server.url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).unwrap();
    connection
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut metrics = String::new();
    connection.read_to_string(&mut metrics).unwrap();
    let expected = format!("\nonelog_sinks_memory_bytes {}\n", 2 << 20);
    assert!(metrics.contains(&expected), "{metrics}");
}

#[test]
fn an_address_of_another_server_is_called_one() {
    // Given a server of something else,
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnot found",
        "-ERR unknown command 'GET'\r\n",
    ];
    let other = std::thread::spawn(move || {
        for answer in answers {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            client.write_all(answer.as_bytes()).unwrap();
        }
    });
    // when it is asked as if it were onelog, then the message leads to the address.
    for _ in answers {
        let mut command = onelog();
        let ran = Ran::of(command.args(["status", "--url", &url]).output().unwrap());
        assert!(
            ran.err
                .contains("is --url, or ONELOG_URL, the address of one?"),
            "{ran:?}"
        );
        ran.fails(1, "does not answer like an onelog server");
    }
    other.join().unwrap();
}

#[test]
fn the_status_is_json_too() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]);
    let status = server.run(&["status", "--json"]).json();
    assert_eq!(status["position"], json!(0));
}
