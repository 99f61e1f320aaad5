//! Elasticsearch or OpenSearch: a document with one field for each key.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::blocking::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};

use super::{Contents, Direct, taken};
use crate::error::DemoError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The most documents that are read; the product's own limit.
const DOCUMENTS_MAX: usize = 10_000;

pub struct Elasticsearch {
    client: Client,
    url: Url,
    shown: String,
}

impl Elasticsearch {
    pub fn connect(url: &str, shown: &str) -> Result<Self, DemoError> {
        let failed = |what: &dyn std::fmt::Display| DemoError::Failed(format!("{shown}: {what}"));
        onelog_store::choose_cryptography();
        let mut url = Url::parse(url).map_err(|error| failed(&error))?;
        let mut headers = HeaderMap::new();
        if let Some(value) = api_key(&url) {
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| failed(&"the key has a line break in it"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        url.set_query(None);
        let client = Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| failed(&error))?;
        let mut store = Self {
            client,
            url,
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

    /// One request. `None`: what was asked for, or deleted, is not there.
    fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Option<Value>, DemoError> {
        let failed = |what: String| DemoError::Failed(format!("{}: {what}", self.shown));
        let url = format!("{}/{path}", self.url.as_str().trim_end_matches('/'));
        let may_be_missing = matches!(method, Method::GET | Method::DELETE);
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answer = request.send().map_err(|error| failed(words(error)))?;
        let status = answer.status();
        let text = answer.text().map_err(|error| failed(words(error)))?;
        if status == StatusCode::NOT_FOUND && may_be_missing {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(failed(format!("{status}: {text}")));
        }
        Ok(Some(serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    fn refresh(&mut self, place: &str) -> Result<(), DemoError> {
        self.call(Method::POST, &format!("{place}/_refresh"), None)?;
        Ok(())
    }
}

/// Where the address has a key instead of a user: what the header says.
fn api_key(url: &Url) -> Option<String> {
    let mut parameters = url.query_pairs();
    let (_, key) = parameters.find(|(name, _)| name == "api_key")?;
    Some(format!("ApiKey {key}"))
}

/// An error with its causes and without the address, which may hold a password.
fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
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
