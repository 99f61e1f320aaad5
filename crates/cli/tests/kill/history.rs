//! Everything that was sent and answered, and what the log says about it.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::load::{Client, Committed, Transfer};

pub const TABLES: [&str; 3] = ["kill.pairs", "kill.totals", "kill.ledger"];
const RECORDS_PER_TRANSFER: usize = 4;
const PAGE_ROWS: usize = 10_000;

type Place = (u64, Vec<u64>);

/// What was sent, what was answered, and the log as far as it was read.
#[derive(Default)]
pub struct History {
    sent: BTreeMap<String, Transfer>,
    unanswered: Vec<Transfer>,
    answered: Vec<(String, Place)>,
    repeated: usize,
    read: Read,
}

#[derive(Default)]
struct Read {
    position: u64,
    places: BTreeMap<String, Place>,
    pairs: BTreeMap<u32, String>,
    totals: BTreeMap<&'static str, u64>,
}

impl History {
    pub fn sent(&self) -> usize {
        self.sent.len()
    }

    pub fn committed(&self) -> usize {
        self.read.places.len()
    }

    /// Behind the last record that was read.
    pub const fn position(&self) -> u64 {
        self.read.position
    }

    pub fn summary(&self) -> String {
        format!(
            "{} transactions, each once; {} of those without an answer had been committed",
            self.committed(),
            self.repeated
        )
    }

    pub fn answered(&mut self, transfer: Transfer, answer: &Committed) {
        self.repeated += usize::from(answer.repeated);
        self.answered.push((transfer.id.clone(), answer.place()));
        self.sent.insert(transfer.id.clone(), transfer);
    }

    pub fn unanswered(&mut self, transfer: Transfer) {
        self.sent.insert(transfer.id.clone(), transfer.clone());
        self.unanswered.push(transfer);
    }

    pub fn take_unanswered(&mut self) -> Vec<Transfer> {
        std::mem::take(&mut self.unanswered)
    }

    /// An answered transaction and where it is.
    pub fn pick_answered(&self, rng: &mut StdRng) -> Option<(Transfer, Place)> {
        if self.answered.is_empty() {
            return None;
        }
        let (id, place) = &self.answered[rng.random_range(0..self.answered.len())];
        Some((self.sent[id].clone(), place.clone()))
    }

    /// The same history, before the log was read.
    pub fn with_nothing_read(&self) -> Self {
        Self {
            sent: self.sent.clone(),
            answered: self.answered.clone(),
            ..Self::default()
        }
    }

    /// Reads the log on from where it was read to, when every transaction has been answered: each
    /// that was sent is there once, whole, and where the answer said.
    pub fn read_log(&mut self, client: &Client) {
        let mut open: Vec<Value> = Vec::new();
        loop {
            let path = format!("/v1/log?from={}&limit={PAGE_ROWS}", self.read.position);
            let page = client.get(&path).text;
            if page.is_empty() {
                break;
            }
            for line in page.lines() {
                let record: Value = serde_json::from_str(line).unwrap();
                assert_eq!(
                    record["offset"], self.read.position,
                    "no offset is left out"
                );
                self.read.position += 1;
                if open
                    .first()
                    .is_some_and(|first| first["id"] != record["id"])
                {
                    self.read.take(&self.sent, &std::mem::take(&mut open));
                }
                open.push(record);
            }
        }
        self.read.take(&self.sent, &open);
        assert_eq!(self.read.places.len(), self.sent.len(), "each is there");
        for (id, place) in &self.answered {
            assert_eq!(
                self.read.places.get(id),
                Some(place),
                "{id} is where it was answered"
            );
        }
    }

    /// The state says what the log says.
    pub fn judge_state(&self, client: &Client) {
        let mut pairs = BTreeMap::new();
        for (number, id) in &self.read.pairs {
            pairs.insert(format!("left-{number}"), json!({"by": id}));
            pairs.insert(format!("right-{number}"), json!({"by": id}));
        }
        assert_eq!(rows(client, "kill.pairs"), pairs);
        let totals = self.read.totals.iter();
        let totals = totals.map(|(name, n)| ((*name).to_owned(), json!({"n": n})));
        assert_eq!(rows(client, "kill.totals"), totals.collect());
    }

    /// Each transaction has its own row.
    pub fn judge_ledger(&self, client: &Client) {
        let found = rows(client, "kill.ledger");
        assert!(found.keys().eq(self.sent.keys()));
        for (id, transfer) in &self.sent {
            assert_eq!(found[id], json!({"total": transfer.total}));
        }
    }
}

impl Read {
    /// Takes one transaction. Those of onelog itself, which make tables, are none of ours.
    fn take(&mut self, sent: &BTreeMap<String, Transfer>, records: &[Value]) {
        if !records.first().is_some_and(is_ours) {
            return;
        }
        let id = records[0]["id"].as_str().unwrap();
        let transfer = sent
            .get(id)
            .unwrap_or_else(|| panic!("{id} was never sent"));
        assert_eq!(records.len(), RECORDS_PER_TRANSFER, "{id} is whole");
        let total = self.totals.entry(transfer.total).or_default();
        *total += 1;
        let pair = transfer.pair;
        let expected = [
            ("kill.pairs", format!("left-{pair}"), json!({"by": id})),
            (
                "kill.totals",
                transfer.total.to_owned(),
                json!({"n": *total}),
            ),
            (
                "kill.ledger",
                id.to_owned(),
                json!({"total": transfer.total}),
            ),
            ("kill.pairs", format!("right-{pair}"), json!({"by": id})),
        ];
        for (found, (table, key, value)) in records.iter().zip(expected) {
            assert_eq!(
                (
                    &found["table"],
                    &found["key"],
                    &found["value"],
                    &found["op"]
                ),
                (&json!(table), &json!(key), &value, &json!("put"))
            );
        }
        let offset = |record: &Value| record["offset"].as_u64().unwrap();
        let offsets = records.iter().map(offset).collect();
        let position = records[0]["position"].as_u64().unwrap();
        let before = self.places.insert(id.to_owned(), (position, offsets));
        assert_eq!(before, None, "{id} is in the log twice");
        self.pairs.insert(pair, id.to_owned());
    }
}

fn is_ours(record: &Value) -> bool {
    TABLES.iter().any(|table| record["table"] == *table)
}

/// All rows of a table, in pages at one position.
fn rows(client: &Client, table: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut path = format!("/v1/tables/{table}/keys?limit={PAGE_ROWS}");
    loop {
        let page = client.get(&path).expect(200);
        for row in page["rows"].as_array().unwrap() {
            found.insert(
                row["key"].as_str().unwrap().to_owned(),
                row["value"].clone(),
            );
        }
        let Some(next) = page["next"].as_str() else {
            return found;
        };
        let position = &page["position"];
        path = format!("/v1/tables/{table}/keys?limit={PAGE_ROWS}&at={position}&from={next}");
    }
}
