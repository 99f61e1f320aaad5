//! Clients that commit transactions under ids of their own until the server is gone.

use std::sync::mpsc::Sender;

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;
use ureq::Agent;

use crate::body;
use crate::server::PATIENCE;

pub const PAIRS: u32 = 20;
pub const TOTALS: [&str; 3] = ["a", "b", "c"];

/// One transaction: two keys that stay equal, one on a counter, one row of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    pub id: String,
    pub pair: u32,
    pub total: &'static str,
}

/// The answer to a committed transaction.
#[derive(Debug)]
pub struct Committed {
    pub position: u64,
    pub offsets: Vec<u64>,
    pub repeated: bool,
}

impl Committed {
    /// What may never change.
    pub fn place(&self) -> (u64, Vec<u64>) {
        (self.position, self.offsets.clone())
    }
}

/// What a client did until the server was gone.
pub struct Done {
    pub answered: Vec<(Transfer, Committed)>,
    pub unanswered: Transfer,
}

pub struct Answer {
    path: String,
    status: u16,
    pub text: String,
}

impl Answer {
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.path, self.text);
        serde_json::from_str(&self.text).unwrap()
    }
}

pub struct Client {
    agent: Agent,
    url: String,
}

impl Client {
    pub fn new(url: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            .build();
        Self {
            agent: config.new_agent(),
            url: url.to_owned(),
        }
    }

    /// Commits until the server does not answer.
    pub fn run(self, first_id: u128, rng: &mut StdRng, acknowledge: &Sender<()>) -> Done {
        let mut answered = Vec::new();
        for number in 1.. {
            let transfer = Transfer {
                id: hyphenated(first_id | number),
                pair: rng.random_range(0..PAIRS),
                total: TOTALS[rng.random_range(0..TOTALS.len())],
            };
            let Some(answer) = self.commit(&transfer) else {
                return Done {
                    answered,
                    unanswered: transfer,
                };
            };
            assert!(!answer.repeated, "the id {} is new", transfer.id);
            answered.push((transfer, answer));
            // The test may have heard enough: the load goes on until the server is gone.
            let _ = acknowledge.send(());
        }
        unreachable!("the server is killed before the numbers end")
    }

    /// Commits, again and again while the server is overloaded. `None`: no answer.
    pub fn commit(&self, transfer: &Transfer) -> Option<Committed> {
        loop {
            let answer = self.try_post("/v1/transactions", &body(transfer)).ok()?;
            if answer.status == 503 {
                continue;
            }
            let answer = answer.expect(200);
            assert_eq!(answer["id"], transfer.id.as_str());
            return Some(Committed {
                position: answer["position"].as_u64().unwrap(),
                offsets: serde_json::from_value(answer["offsets"].clone()).unwrap(),
                repeated: answer["repeated"] == true,
            });
        }
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body).unwrap()
    }

    fn try_post(&self, path: &str, body: &Value) -> Result<Answer, ureq::Error> {
        let request = self.agent.post(format!("{}{path}", self.url));
        read(path, request.send_json(body)?)
    }

    pub fn get(&self, path: &str) -> Answer {
        let request = self.agent.get(format!("{}{path}", self.url));
        read(path, request.call().unwrap()).unwrap()
    }
}

fn read(path: &str, mut response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(u64::MAX);
    Ok(Answer {
        path: path.to_owned(),
        status,
        text: body.read_to_string()?,
    })
}

/// An id as the server prints it.
fn hyphenated(id: u128) -> String {
    uuid::Uuid::from_u128(id).to_string()
}
