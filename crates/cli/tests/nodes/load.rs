//! A client that writes until it is to end, and sends what was not answered again under its id, to the
//! next node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::rig::{TABLE, agent};

/// The keys that were acknowledged, each with its position.
pub fn write(
    urls: &[String],
    name: &str,
    ends: &AtomicBool,
    count: &AtomicUsize,
) -> BTreeMap<String, u64> {
    let agent = agent();
    let mut acknowledged = BTreeMap::new();
    let mut next = 0;
    for n in 0.. {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{name}-{n}");
        let write = json!({"op": "put", "table": TABLE, "key": key, "value": n});
        let body =
            json!({"id": uuid::Uuid::from_u128(rand::random()).to_string(), "writes": [write]});
        let position = loop {
            let url = format!("{}/v1/transactions", urls[next % urls.len()]);
            let answer = agent.post(url).send_json(&body).ok();
            let answer = answer.and_then(|mut answer| {
                let status = answer.status().as_u16();
                let body: Value = answer.body_mut().read_json().ok()?;
                assert!([200, 503, 504].contains(&status), "{status}: {body}");
                (status == 200).then(|| body["position"].as_u64().unwrap())
            });
            match answer {
                Some(position) => break position,
                None => next += 1,
            }
        };
        acknowledged.insert(key, position);
        count.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

/// The keys of the log's transactions, as a node has them; none is there twice.
pub fn keys_in_log(url: &str, end: u64) -> BTreeSet<String> {
    let agent = agent();
    let mut keys = BTreeSet::new();
    let mut at = 0;
    while at < end {
        let url = format!("{url}/v1/log?from={at}&limit=1000");
        let mut page = agent.get(url).call().unwrap();
        let page = page.body_mut().read_to_string().unwrap();
        for line in page.lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            assert_eq!(record["offset"], at, "no offset is left out");
            at += 1;
            if record["table"] == TABLE {
                let key = record["key"].as_str().unwrap().to_owned();
                assert!(keys.insert(key), "{record} is there twice");
            }
        }
    }
    keys
}
