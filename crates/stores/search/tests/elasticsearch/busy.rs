//! What a busy server answers to single items, which no real one does on demand: a server that is
//! written here.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use onelog_record::Position;
use onelog_store::Store;
use onelog_store::conformance::Model;
use serde_json::{Value, json};

use crate::common::STANDARD;
use crate::search::SearchHarness;

/// Answers as a cluster with a backfilled sink of epoch 4 does; it reports bulk requests and
/// answers them with `answers`.
struct Fake {
    url: String,
    requests: Receiver<String>,
}

impl Fake {
    fn start(plan: String, answers: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (report, requests) = channel();
        // Ends with the process; it holds nothing.
        std::thread::spawn(move || {
            let mut answers = answers.into_iter();
            let mut ledger = json!({
                "sink": "follower", "log_id": "log-1", "position": 0, "epoch": 4, "plan": plan,
                "generation": 1, "newest_generation": 1, "swap": null});
            for connection in listener.incoming() {
                let _ = answer(connection.unwrap(), &mut ledger, &mut answers, &report);
            }
        });
        Self { url, requests }
    }
}

fn answer(
    connection: TcpStream,
    ledger: &mut Value,
    answers: &mut dyn Iterator<Item = Value>,
    report: &Sender<String>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let first = line.clone();
    let mut length = 0;
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let path = first.split(' ').nth(1).unwrap_or_default();
    let reply = match path.split('?').next().unwrap_or_default() {
        "/" => json!({"version": {"number": "7.17.0"}}),
        "/onelog-sinks/_doc/follower" if first.starts_with("GET") => {
            json!({"_seq_no": 1, "_primary_term": 1, "_source": ledger})
        }
        "/_bulk" => {
            let _ = report.send(String::from_utf8(body).unwrap());
            answers.next().unwrap()
        }
        path if path.starts_with("/onelog-sinks") => {
            *ledger = serde_json::from_slice(&body).unwrap();
            let _ = report.send("the position".into());
            json!({"_seq_no": 2, "_primary_term": 1})
        }
        _ => json!({}),
    };
    let reply = reply.to_string();
    write!(
        reader.into_inner(),
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{reply}",
        reply.len()
    )
}

fn items(statuses: &[u16]) -> Value {
    let item = |status: &u16| match status {
        200..=299 => json!({"index": {"status": status}}),
        _ => json!({"index": {"status": status, "error": {
            "type": "es_rejected_execution_exception", "reason": "the queue is full"}}}),
    };
    json!({"items": statuses.iter().map(item).collect::<Vec<_>>()})
}

fn ids(lines: &str) -> Vec<String> {
    let actions = lines.lines().step_by(2);
    actions
        .map(|line| {
            let action: Value = serde_json::from_str(line).unwrap();
            action["index"]["_id"].as_str().unwrap().to_owned()
        })
        .collect()
}

fn apply_four(answers: Vec<Value>) -> (Result<(), onelog_store::StoreError>, Vec<String>) {
    let harness = SearchHarness { url: String::new() };
    let plan = harness.plan(STANDARD);
    let fake = Fake::start(plan.fingerprint(), answers);
    let harness = SearchHarness {
        url: fake.url.clone(),
    };
    let mut store = harness.store(&plan);
    assert_eq!(store.take_over().unwrap(), 5);
    let mut model = Model::default();
    for key in ["a", "b", "c", "d"] {
        model.order(key, 1, "a note");
    }
    let outcome = store.apply(&model.batch(&plan, Position(0)));
    (outcome, fake.requests.try_iter().collect())
}

#[test]
fn only_items_that_were_turned_away_are_sent_again() {
    let (outcome, requests) = apply_four(vec![
        items(&[201, 429, 201, 503]),
        items(&[503, 201]),
        items(&[201]),
    ]);
    outcome.unwrap();
    let sent: Vec<Vec<String>> = requests[1..4].iter().map(|lines| ids(lines)).collect();
    assert_eq!(sent, [vec!["a", "b", "c", "d"], vec!["b", "d"], vec!["b"]]);
    // Only then the position moves.
    assert_eq!(requests[4], "the position");
}

#[test]
fn an_answer_with_too_few_items_moves_nothing() {
    let (outcome, requests) = apply_four(vec![items(&[201, 201, 201])]);
    let error = outcome.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(requests.len(), 2, "{requests:?}");
}
