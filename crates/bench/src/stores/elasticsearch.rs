//! Elasticsearch and OpenSearch, bare: `_bulk` with external versions, a position document behind it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use onelog_search::http_tls;
use onelog_store::Trust;
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::{Agent, Body};

use super::{BARE_TABLE, Bare, Failure, Order, TABLE};

/// About 5 MB a request.
const BATCH_ROWS: u64 = 25_000;
const TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes of an answer: `_bulk` answers for each row.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

pub struct BareElasticsearch {
    client: Agent,
    url: String,
    version: u64,
}

fn checked(mut response: Response<Body>) -> Result<Value, Failure> {
    let status = response.status();
    let text = response
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_to_string()?;
    match status.is_success() {
        true => Ok(serde_json::from_str(&text)?),
        false => Err(format!("{status}: {text}").into()),
    }
}

impl BareElasticsearch {
    pub fn connect(url: &str) -> Result<Self, Failure> {
        let trust = match url.starts_with("https:") {
            true => Trust::System,
            false => Trust::NoCertificate,
        };
        let config = Agent::config_builder()
            .tls_config(http_tls(trust)?)
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .build();
        Ok(Self {
            client: config.new_agent(),
            url: url.trim_end_matches('/').to_owned(),
            version: 0,
        })
    }

    fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self
            .client
            .put(format!("{}/{path}", self.url))
            .header("content-type", "application/json");
        checked(request.send(&body.to_string())?)
    }
}

impl Bare for BareElasticsearch {
    fn name(&self) -> &'static str {
        "_bulk with external versions, about 5 MB a request, and a position document"
    }

    fn prepare(&mut self, rows: u64) -> Result<(), Failure> {
        let _ = self
            .client
            .delete(format!("{}/{BARE_TABLE}", self.url))
            .call()?;
        self.put(
            BARE_TABLE,
            &json!({"settings": {"number_of_shards": 1, "number_of_replicas": 0}}),
        )?;
        self.pass(rows, 0).map(|_| ())
    }

    fn pass(&mut self, rows: u64, pass: u64) -> Result<f64, Failure> {
        let started = Instant::now();
        for from in (0..rows).step_by(BATCH_ROWS as usize) {
            let to = (from + BATCH_ROWS).min(rows);
            let mut body = String::new();
            for number in from..to {
                self.version += 1;
                let order = Order::new(number, rows, pass);
                writeln!(
                    body,
                    r#"{{"index":{{"_id":"{}","version":{},"version_type":"external"}}}}"#,
                    order.key, self.version
                )?;
                writeln!(body, "{}", order.document())?;
            }
            let request = self
                .client
                .post(format!("{}/{BARE_TABLE}/_bulk", self.url))
                .header("content-type", "application/x-ndjson");
            let answer = checked(request.send(&body)?)?;
            if answer["errors"] != json!(false) {
                return Err(format!("_bulk had errors: {}", answer["items"][0]).into());
            }
            self.put(
                &format!("{BARE_TABLE}/_doc/position"),
                &json!({"customer": "", "total": 0.0, "note": to.to_string()}),
            )?;
        }
        Ok(started.elapsed().as_secs_f64())
    }

    fn clean(&mut self) -> Result<(), Failure> {
        // The sink's name is an alias; the answer's fields are its indexes.
        let found = checked(self.client.get(format!("{}/{TABLE}", self.url)).call()?)?;
        let indexes = found.as_object().into_iter().flat_map(|found| found.keys());
        for index in indexes.map(String::as_str).chain([BARE_TABLE]) {
            checked(self.client.delete(format!("{}/{index}", self.url)).call()?)?;
        }
        Ok(())
    }
}
