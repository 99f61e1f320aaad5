//! Elasticsearch or OpenSearch: a document with one field for each key.

use std::collections::BTreeSet;
use std::time::Duration;

use onelog_search::{http_tls, split_address};
use onelog_store::Trust;
use serde_json::{Value, json};
use ureq::http::header::{AUTHORIZATION, HeaderValue};
use ureq::http::{Method, StatusCode};
use ureq::typestate::WithBody;
use ureq::{Agent, RequestBuilder};

use super::{Contents, Direct, StoreClient, taken};
use crate::error::DemoError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// The most documents that are read; the product's own limit.
const DOCUMENTS_MAX: usize = 10_000;

pub const CLIENT: StoreClient = StoreClient {
    kind: "elasticsearch",
    help: "On this Elasticsearch or OpenSearch, http://host:9200",
    connect: |url, shown| Ok(Box::new(Elasticsearch::connect(url, shown)?)),
};

pub struct Elasticsearch {
    agent: Agent,
    authorization: Option<HeaderValue>,
    base: String,
    shown: String,
}

impl Elasticsearch {
    pub fn connect(url: &str, shown: &str) -> Result<Self, DemoError> {
        let failed = |what: &dyn std::fmt::Display| DemoError::Failed(format!("{shown}: {what}"));
        let (base, authorization) = split_address(url).map_err(|why| failed(&why))?;
        let trust = match base.starts_with("https:") {
            true => Trust::System,
            false => Trust::NoCertificate,
        };
        let config = Agent::config_builder()
            .tls_config(http_tls(trust).map_err(|why| failed(&why))?)
            .http_status_as_error(false)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(ANSWER_TIMEOUT))
            .build();
        let mut store = Self {
            agent: config.new_agent(),
            authorization: authorization
                .map(|value| secret(&value))
                .transpose()
                .map_err(|why| failed(&why))?,
            base,
            shown: shown.to_owned(),
        };
        let answer = store.call(Method::GET, "", None)?.unwrap_or_default();
        match answer["version"]["number"].is_string() {
            true => Ok(store),
            false => Err(failed(
                &"what answers there is neither Elasticsearch nor OpenSearch",
            )),
        }
    }

    /// One request. `None`: what was to be read, or deleted, is not there.
    fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Option<Value>, DemoError> {
        let failed = |what: String| DemoError::Failed(format!("{}: {what}", self.shown));
        let may_be_missing = matches!(method, Method::GET | Method::DELETE);
        let mut request = self.request(method, &format!("{}/{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                body.to_string()
            }
            None => String::new(),
        };
        let answer = request
            .send(&body)
            .map_err(|error| failed(error.to_string()))?;
        let status = answer.status();
        let text = answer
            .into_body()
            .into_with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .map_err(|error| failed(error.to_string()))?;
        if status == StatusCode::NOT_FOUND && may_be_missing {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(failed(format!("{status}: {text}")));
        }
        Ok(Some(serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    fn request(&self, method: Method, url: &str) -> RequestBuilder<WithBody> {
        match method {
            Method::PUT => self.agent.put(url),
            Method::DELETE => self.agent.delete(url).force_send_body(),
            Method::GET => self.agent.get(url).force_send_body(),
            _ => self.agent.post(url),
        }
    }

    fn refresh(&mut self, place: &str) -> Result<(), DemoError> {
        self.call(Method::POST, &format!("{place}/_refresh"), None)?;
        Ok(())
    }
}

fn secret(value: &str) -> Result<HeaderValue, &'static str> {
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| "the user, password or key has a line break in it")?;
    value.set_sensitive(true);
    Ok(value)
}

impl Direct for Elasticsearch {
    fn create(&mut self, place: &str) -> Result<(), DemoError> {
        if self.call(Method::GET, place, None)?.is_some() {
            return Err(taken(place, &self.shown));
        }
        let index = json!({
            "settings": {"number_of_shards": 1, "number_of_replicas": 0},
            "mappings": {"properties": {"text": {"type": "text"}}},
        });
        self.call(Method::PUT, place, Some(index))?;
        Ok(())
    }

    fn put(&mut self, place: &str, key: &str, text: &str) -> Result<(), DemoError> {
        let document = json!({ "text": text });
        self.call(Method::PUT, &format!("{place}/_doc/{key}"), Some(document))?;
        Ok(())
    }

    fn contents(&mut self, place: &str) -> Result<Contents, DemoError> {
        self.refresh(place)?;
        let query = json!({"size": DOCUMENTS_MAX, "query": {"match_all": {}}});
        let answer = self.call(Method::POST, &format!("{place}/_search"), Some(query))?;
        let answer = answer.unwrap_or_default();
        let hits = answer["hits"]["hits"].as_array();
        let pairs = hits.into_iter().flatten().filter_map(|hit| {
            let text = hit["_source"]["text"].as_str().unwrap_or_default();
            Some((hit["_id"].as_str()?.to_owned(), text.to_owned()))
        });
        Ok(pairs.collect())
    }

    fn traces(&mut self) -> Result<BTreeSet<String>, DemoError> {
        let path = "_cat/indices/*onelog*?format=json&h=index&expand_wildcards=all";
        let answer = self.call(Method::GET, path, None)?.unwrap_or_default();
        let names = answer.as_array().into_iter().flatten();
        Ok(names
            .filter_map(|name| name["index"].as_str().map(str::to_owned))
            .collect())
    }

    fn clean(&mut self, run: &str, before: &BTreeSet<String>) -> Result<(), DemoError> {
        for name in self.traces()?.iter().filter(|name| !before.contains(*name)) {
            let unused = name.contains(run) || {
                self.refresh(name)?;
                let count = self.call(Method::GET, &format!("{name}/_count"), None)?;
                count.is_some_and(|count| count["count"] == 0)
            };
            if unused {
                self.call(Method::DELETE, name, None)?;
            }
        }
        let answer = self.call(Method::GET, "_index_template/*onelog*", None)?;
        let templates = answer.unwrap_or_default();
        for template in templates["index_templates"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let name = template["name"].as_str().unwrap_or_default();
            if name.contains(run) {
                self.call(Method::DELETE, &format!("_index_template/{name}"), None)?;
            }
        }
        Ok(())
    }
}
