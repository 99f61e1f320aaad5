//! The client against a server that is written here: what it sends, and what it makes of answers
//! that are late, cut or large, and of connections that end.

use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use onelog_store::{ServerAddress, StoreError};
use serde_json::json;

use super::{Answer, Body, Client, Method, REQUEST_TIMEOUT, escape, split_address};
use crate::kind::ElasticsearchTarget;

const DOING: &str = "requesting";
const ROOT: &str = r#"{"version":{"number":"8.1.0"}}"#;

/// What the server does with the next request.
enum Reply {
    Text(String),
    /// Ends the connection behind the answer, without saying so in a header.
    TextAndClose(String),
    Close,
    /// A header that promises more than comes.
    Cut,
    /// The connection stays open.
    Silence,
}

struct Request {
    connection: usize,
    head: String,
    body: Vec<u8>,
}

struct Fake {
    url: String,
    requests: Receiver<Request>,
}

impl Fake {
    /// Answers the first request, for the version, by itself.
    fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (report, requests) = channel();
        std::thread::spawn(move || {
            let mut replies = std::iter::once(Reply::Text(ROOT.into())).chain(replies);
            let mut silent = Vec::new();
            for (connection, stream) in listener.incoming().enumerate() {
                let stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while let Some((head, body)) = read_request(&mut reader) {
                    let request = Request {
                        connection,
                        head,
                        body,
                    };
                    let (Ok(()), Some(reply)) = (report.send(request), replies.next()) else {
                        return;
                    };
                    if matches!(reply, Reply::Silence) {
                        silent.push(stream);
                        break;
                    }
                    if !answer(&stream, reply) {
                        break;
                    }
                }
            }
        });
        Self {
            url: format!("http://user:p%40ss@{address}"),
            requests,
        }
    }

    fn connect(&self) -> Client {
        Client::connect(&ElasticsearchTarget {
            server: ServerAddress::from(&self.url[..]),
        })
        .unwrap()
    }
}

fn read_request(reader: &mut impl std::io::BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    let mut length = 0;
    loop {
        let start = head.len();
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        let line = head[start..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        assert!(!line.starts_with("transfer-encoding:"), "{line}");
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// Whether the connection goes on.
fn answer(mut stream: &TcpStream, reply: Reply) -> bool {
    let (text, goes_on) = match reply {
        Reply::Text(text) => (text, true),
        Reply::TextAndClose(text) => (text, false),
        Reply::Cut => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"half\":");
            return false;
        }
        Reply::Close | Reply::Silence => return false,
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
    stream
        .write_all(&[head.as_bytes(), text.as_bytes()].concat())
        .is_ok()
        && goes_on
}

fn post(client: &Client, body: Body) -> Result<Answer, StoreError> {
    client.call(DOING, Method::POST, "/_bulk", body, REQUEST_TIMEOUT)
}

#[test]
fn requests_carry_the_log_in_and_share_a_connection() {
    let fake = Fake::start(vec![
        Reply::Text("{}".into()),
        Reply::Text("{}".into()),
        Reply::Text("{}".into()),
    ]);
    let client = fake.connect();
    post(&client, Body::Lines("{}\n".into())).unwrap();
    let call = |method, body| client.call(DOING, method, "/x?a=b", body, REQUEST_TIMEOUT);
    call(Method::DELETE, Body::Json(json!({"id": "p"}))).unwrap();
    call(Method::PUT, Body::Nothing).unwrap();
    let requests: Vec<Request> = fake.requests.iter().take(4).collect();
    for request in &requests {
        let head = request.head.to_ascii_lowercase();
        assert_eq!(request.connection, 0, "{head}");
        assert!(
            request
                .head
                .contains("authorization: Basic dXNlcjpwQHNz\r\n"),
            "{head}"
        );
        assert!(!head.contains("p%40ss"), "{head}");
    }
    let [_, bulk, delete, put] = &requests[..] else {
        panic!("four requests");
    };
    assert!(bulk.head.contains("application/x-ndjson"), "{}", bulk.head);
    assert_eq!(bulk.body, b"{}\n");
    assert!(delete.head.starts_with("DELETE /x?a=b HTTP/1.1\r\n"));
    assert!(delete.head.contains("application/json"), "{}", delete.head);
    assert_eq!(delete.body, br#"{"id":"p"}"#);
    assert!(put.head.starts_with("PUT /x?a=b "), "{}", put.head);
}

#[test]
fn an_api_key_becomes_a_header() {
    let mut fake = Fake::start(Vec::new());
    fake.url = format!("{}/?api_key=k3y==", fake.url.replace("user:p%40ss@", ""));
    fake.connect();
    let request = fake.requests.recv().unwrap();
    let head = &request.head;
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: ApiKey k3y==\r\n"), "{head}");
}

#[test]
fn a_connection_that_ended_between_requests_is_replaced() {
    let fake = Fake::start(vec![
        Reply::TextAndClose("{}".into()),
        Reply::Text("{}".into()),
    ]);
    let client = fake.connect();
    post(&client, Body::Nothing).unwrap();
    // The server ends the connection after its answer; the pool may learn of that late.
    match post(&client, Body::Nothing) {
        Ok(_) => {}
        Err(error) => {
            assert!(error.is_retryable(), "{error}");
            post(&client, Body::Nothing).unwrap();
        }
    }
    assert_eq!(fake.requests.iter().nth(2).unwrap().connection, 1);
}

#[test]
fn a_server_that_hangs_up_or_cuts_its_answer_is_unavailable_and_the_next_request_works() {
    let fake = Fake::start(vec![Reply::Close, Reply::Cut, Reply::Text("{}".into())]);
    let client = fake.connect();
    for _ in 0..2 {
        let error = post(&client, Body::Lines("{}\n".into())).unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(
            error
                .to_string()
                .starts_with("requesting http://user:***@127.0.0.1"),
            "{error}"
        );
    }
    post(&client, Body::Nothing).unwrap();
    // Nothing was sent twice by itself.
    drop(client);
    let connections: Vec<usize> = fake.requests.try_iter().map(|r| r.connection).collect();
    assert_eq!(connections, [0, 0, 1, 2]);
}

#[test]
fn a_request_that_changes_nothing_is_sent_once_more_when_the_server_closed_its_connection() {
    let closes_once = vec![Reply::Close, Reply::Text("{}".into())];
    let closes_twice = vec![Reply::Close, Reply::Close, Reply::Text("{}".into())];
    for (replies, outcome) in [(closes_once, Ok(())), (closes_twice, Err(()))] {
        let fake = Fake::start(replies);
        let client = fake.connect();
        let body = Body::Json(json!({"query": {}}));
        let answer = client.read(DOING, Method::POST, "/_search", body, REQUEST_TIMEOUT);
        assert_eq!(answer.map(|_| ()).map_err(|_| ()), outcome);
        drop(client);
        let requests: Vec<Request> = fake.requests.try_iter().skip(1).collect();
        let connections: Vec<usize> = requests.iter().map(|r| r.connection).collect();
        assert_eq!(connections, [0, 1]);
        assert_eq!(requests[0].body, requests[1].body);
    }
}

#[test]
fn a_server_that_is_silent_is_unavailable_after_the_timeout() {
    let fake = Fake::start(vec![Reply::Silence]);
    let client = fake.connect();
    let begun = Instant::now();
    let timeout = Duration::from_millis(300);
    let error = client
        .call(DOING, Method::POST, "/_bulk", Body::Nothing, timeout)
        .unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("timeout"), "{error}");
    let took = begun.elapsed();
    assert!(took >= timeout && took < REQUEST_TIMEOUT, "{took:?}");
}

#[test]
fn large_requests_and_answers_come_whole() {
    // Above the limit of 10 MiB that the library has by default.
    let large = "x".repeat(40 << 20);
    let fake = Fake::start(vec![Reply::Text(large.clone())]);
    let client = fake.connect();
    let answer = post(&client, Body::Lines(large.clone().into())).unwrap();
    assert!(answer.into_bytes() == large.as_bytes());
    let request = fake.requests.iter().nth(1).unwrap();
    assert!(request.body == large.as_bytes());
}

#[test]
fn secrets_become_a_header() {
    for (text, base, header) in [
        ("http://h:9200", "http://h:9200", None),
        (
            "https://us%40er:p%3Aw@h:9200/",
            "https://h:9200",
            Some("Basic dXNAZXI6cDp3"),
        ),
        (
            "https://h/prefix/?api_key=abc==",
            "https://h/prefix",
            Some("ApiKey abc=="),
        ),
    ] {
        let (found, authorization) = split_address(text).unwrap();
        assert_eq!((&found[..], authorization.as_deref()), (base, header));
    }
    for wrong in [
        "",
        "h:9200",
        "ftp://h",
        "http://u:secret@h/?api_key=k",
        "http://h?secret=1",
    ] {
        let error = split_address(wrong).unwrap_err();
        assert!(!error.contains("secret@"), "{error}");
    }
}

#[test]
fn names_are_escaped_in_paths() {
    assert_eq!(escape("orders-ü/x?"), "orders-%C3%BC%2Fx%3F");
}

#[test]
fn a_wrong_password_a_missing_one_and_a_missing_right_are_distinguished() {
    let said = |url: &str, status: u16| {
        let client = Client::connect(&ElasticsearchTarget {
            server: ServerAddress::from(url),
        });
        let body = br#"{"error":{"type":"security_exception","reason":"no"}}"#.to_vec();
        let error = Answer { status, body }.classify(&client.unwrap(), DOING);
        assert_eq!(error.is_retryable(), status == 401, "{error}");
        error.to_string()
    };
    let known = Fake::start(Vec::new());
    let wrong = said(&known.url, 401);
    assert!(
        wrong.contains("the password is wrong, or there is no such user"),
        "{wrong}"
    );
    let stranger = Fake::start(Vec::new());
    let missing = said(&stranger.url.replace("user:p%40ss@", ""), 401);
    assert!(missing.contains("the address has none"), "{missing}");
    let limited = Fake::start(Vec::new());
    let without = said(&limited.url, 403);
    assert!(without.contains("the user lacks a right"), "{without}");
    assert!(!without.contains("password is wrong"), "{without}");
}
