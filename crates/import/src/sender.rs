//! Commits one batch: however often it must be sent, always under the same id.

use std::time::Duration;

use onelog_client::{Client, ClientError};
use onelog_record::code;
use rand::Rng;
use serde_json::Value;

use crate::batch::Batch;

/// The first wait after a lost connection; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The longest wait that an overloaded server may demand.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// How requests are sent and time is passed.
pub trait Transport {
    /// POST /v1/transactions.
    fn commit(&self, body: Vec<u8>) -> Result<Value, ClientError>;
    fn pause(&self, time: Duration);
}

impl Transport for Client {
    fn commit(&self, body: Vec<u8>) -> Result<Value, ClientError> {
        self.post_bytes("/v1/transactions", body)
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// What became of a batch.
#[derive(Debug)]
pub enum Sent {
    Committed {
        /// The position behind it, where the server answered it.
        position: Option<u64>,
        /// Whether an earlier run had committed it.
        repeated: bool,
    },
    /// One of its records is refused: the number of the row, and the server's message.
    BadRow(usize, String),
    /// It was not committed, or that is not known.
    Failed(ClientError),
}

/// Sends batches of one import.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Which file, and which attempt at it.
    pub identity: String,
    pub table: String,
    /// How long a lost server is waited for.
    pub patience: Duration,
}

impl Sender {
    pub fn send(&self, transport: &impl Transport, batch: &Batch, read_position: u64) -> Sent {
        let id = batch.id(&self.identity, &self.table);
        let body = batch.body(id, read_position, &self.table);
        let mut waited = Duration::ZERO;
        let mut backoff = BACKOFF_FIRST;
        // The answer to a lost request may have been that it was committed: by this run.
        let mut was_lost = false;
        loop {
            let error = match transport.commit(body.clone()) {
                Ok(answer) => {
                    return Sent::Committed {
                        position: answer["position"].as_u64(),
                        repeated: !was_lost && answer["repeated"].as_bool().unwrap_or(false),
                    };
                }
                Err(error) => error,
            };
            let pause = match &error {
                ClientError::Server(refusal) => match refusal.retry_after_ms {
                    Some(ms) => {
                        backoff = BACKOFF_FIRST;
                        Duration::from_millis(ms).min(RETRY_AFTER_MAX)
                    }
                    // The id is a hash of the records: another user of it wrote the same. Only the
                    // read position of that request can have been another.
                    None if refusal.error == code::ID_MISMATCH => {
                        return Sent::Committed {
                            position: refusal.body["position"].as_u64(),
                            repeated: true,
                        };
                    }
                    // It is the table that is refused, not a row.
                    None if matches!(&refusal.error[..], "unknown_table" | "reserved_table") => {
                        return Sent::Failed(error);
                    }
                    None => {
                        return match bad_row(&refusal.body, batch.rows.len()) {
                            Some(row) => Sent::BadRow(row, refusal.message.clone()),
                            None => Sent::Failed(error),
                        };
                    }
                },
                lost if lost.is_lost() => {
                    was_lost = true;
                    let pause = backoff;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    pause
                }
                _ => return Sent::Failed(error),
            };
            if waited >= self.patience {
                return Sent::Failed(error);
            }
            waited += pause;
            transport.pause(jitter(pause));
        }
    }
}

/// From the whole time down to half of it, so that clients do not come back all at once.
fn jitter(time: Duration) -> Duration {
    time.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// Which of the writes the refusal names, as `writes[n]`.
fn bad_row(body: &Value, rows: usize) -> Option<usize> {
    let fields = ["where", "place", "message"];
    let texts = fields.iter().filter_map(|name| body.get(name)?.as_str());
    let mut numbers = texts.filter_map(|text| {
        let (_, rest) = text.split_once("writes[")?;
        rest.split(']').next()?.parse::<usize>().ok()
    });
    numbers.next().filter(|row| *row < rows)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::json;

    use super::*;
    use crate::batch::Row;
    use onelog_client::ServerError;

    struct Script {
        answers: RefCell<Vec<Result<Value, ClientError>>>,
        bodies: RefCell<Vec<Vec<u8>>>,
        pauses: RefCell<Vec<Duration>>,
    }

    impl Script {
        fn new(answers: Vec<Result<Value, ClientError>>) -> Self {
            Self {
                answers: RefCell::new(answers),
                bodies: RefCell::default(),
                pauses: RefCell::default(),
            }
        }
    }

    impl Transport for Script {
        fn commit(&self, body: Vec<u8>) -> Result<Value, ClientError> {
            self.bodies.borrow_mut().push(body);
            self.answers.borrow_mut().remove(0)
        }

        fn pause(&self, time: Duration) {
            self.pauses.borrow_mut().push(time);
        }
    }

    fn server(status: u16, body: Value, retry_after_ms: Option<u64>) -> ClientError {
        ClientError::Server(Box::new(ServerError {
            status,
            error: body["error"].as_str().unwrap().to_owned(),
            message: body["message"].as_str().unwrap_or_default().to_owned(),
            body,
            met: None,
            retry_after_ms,
        }))
    }

    fn refused() -> ClientError {
        ClientError::Refused { base: "b".into() }
    }

    fn sender() -> Sender {
        Sender {
            identity: "i".into(),
            table: "t".into(),
            patience: Duration::from_secs(1),
        }
    }

    fn batch() -> Batch {
        let row = |line, key: &str| Row {
            line,
            key: key.into(),
            value: b"1".to_vec(),
        };
        Batch {
            start: 0,
            end: 20,
            last_line: 2,
            rows: vec![row(1, "a"), row(2, "b")],
            bad_lines: 0,
        }
    }

    #[test]
    fn a_lost_connection_and_a_busy_server_are_asked_again_under_the_same_id() {
        let busy = server(503, json!({"error": "overloaded"}), Some(200));
        let script = Script::new(vec![Err(refused()), Err(busy), Ok(json!({"position": 9}))]);
        let sent = sender().send(&script, &batch(), 3);
        assert!(matches!(
            sent,
            Sent::Committed {
                position: Some(9),
                repeated: false
            }
        ));
        let bodies = script.bodies.borrow();
        assert_eq!(bodies.len(), 3);
        assert!(bodies.iter().all(|body| *body == bodies[0]));
        assert_eq!(script.pauses.borrow().len(), 2);
    }

    #[test]
    fn patience_ends() {
        let script = Script::new((0..20).map(|_| Err(refused())).collect());
        let sent = sender().send(&script, &batch(), 3);
        assert!(matches!(sent, Sent::Failed(ClientError::Refused { .. })));
        assert!(script.bodies.borrow().len() < 10);
    }

    #[test]
    fn an_id_that_is_taken_means_that_the_batch_is_there() {
        let taken = server(409, json!({"error": "id_mismatch", "position": 4}), None);
        let script = Script::new(vec![Err(taken)]);
        let sent = sender().send(&script, &batch(), 3);
        assert!(matches!(
            sent,
            Sent::Committed {
                position: Some(4),
                repeated: true
            }
        ));
    }

    #[test]
    fn a_refusal_names_the_row() {
        let bad = server(
            422,
            json!({"error": "malformed", "message": "writes[1].value: no"}),
            None,
        );
        let script = Script::new(vec![Err(bad)]);
        let sent = sender().send(&script, &batch(), 3);
        assert!(matches!(sent, Sent::BadRow(1, message) if message.ends_with("no")));
        let other = server(413, json!({"error": "too_large", "message": "no"}), None);
        let script = Script::new(vec![Err(other)]);
        assert!(matches!(
            sender().send(&script, &batch(), 3),
            Sent::Failed(_)
        ));
    }
}
