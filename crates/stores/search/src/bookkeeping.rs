//! The position of a sink, as one document of the index `onelog-sinks`; its id is the sink's name.
//!
//! ```text
//! sink              the sink's name
//! log_id            the log that the rows equal …
//! position          … at this position; null until the sink was backfilled
//! chain             the checksum of the log's chain there; null: not known
//! epoch             the number of the last takeover
//! plan              the fingerprint of the plan under which the position was reached
//! generation        the number at the end of the names of the indexes that are in use
//! newest_generation the highest number that was ever given out
//! swap              an exchange of indexes that may or may not have taken place:
//!                   generation, indexes, and the position, chain, log_id and plan that it brings
//! names             the aliases that the sink may have, see `claims`
//! ```
//! Every write names the version of the document that it replaces (`if_seq_no`), so of two writers
//! one is refused. Reads by id see the newest version without a refresh.

use onelog_record::Position;
use onelog_store::{LogPlace, StoreError, StorePosition};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::connection::{Body, Client, LONG_TIMEOUT, Method, REQUEST_TIMEOUT, escape};

/// The index of all sinks.
pub(crate) const INDEX: &str = "onelog-sinks";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) sink: String,
    pub(crate) log_id: String,
    pub(crate) position: Option<u64>,
    #[serde(default)]
    pub(crate) chain: Option<u32>,
    pub(crate) epoch: u64,
    pub(crate) plan: String,
    pub(crate) generation: Option<u64>,
    pub(crate) newest_generation: u64,
    pub(crate) swap: Option<Swap>,
    #[serde(default)]
    pub(crate) names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Swap {
    pub(crate) generation: u64,
    pub(crate) indexes: Vec<(String, String)>,
    pub(crate) position: u64,
    #[serde(default)]
    pub(crate) chain: Option<u32>,
    pub(crate) log_id: String,
    pub(crate) plan: String,
}

/// A ledger and the version of its document.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) ledger: Ledger,
    seq_no: u64,
    primary_term: u64,
}

#[derive(Deserialize)]
pub(crate) struct Found {
    #[serde(rename = "_seq_no")]
    seq_no: u64,
    #[serde(rename = "_primary_term")]
    primary_term: u64,
    #[serde(rename = "_source")]
    pub(crate) source: Value,
}

impl Found {
    /// What lets a write replace this version of the document and no later one.
    pub(crate) fn condition(&self) -> String {
        condition(self.seq_no, self.primary_term)
    }
}

fn condition(seq_no: u64, primary_term: u64) -> String {
    format!("if_seq_no={seq_no}&if_primary_term={primary_term}")
}

#[derive(Deserialize)]
struct Written {
    #[serde(rename = "_seq_no")]
    seq_no: u64,
    #[serde(rename = "_primary_term")]
    primary_term: u64,
}

impl Ledger {
    /// The position under `plan`.
    pub(crate) fn position_under(&self, plan: &str) -> Option<StorePosition> {
        let place = self.place().filter(|_| self.plan == plan)?;
        Some(StorePosition {
            log_id: self.log_id.clone(),
            position: place.position,
            chain: place.chain,
            epoch: self.epoch,
        })
    }

    /// The place under any plan.
    pub(crate) fn place(&self) -> Option<LogPlace> {
        Some(LogPlace {
            position: Position(self.position?),
            chain: self.chain,
        })
    }

    /// What the exchange brought, once it took place.
    pub(crate) fn swapped(&self, swap: &Swap) -> Self {
        Self {
            log_id: swap.log_id.clone(),
            position: Some(swap.position),
            chain: swap.chain,
            plan: swap.plan.clone(),
            generation: Some(swap.generation),
            swap: None,
            ..self.clone()
        }
    }
}

/// Reads a sink's ledger. `None`: there is none.
pub(crate) fn read_ledger(client: &Client, sink: &str) -> Result<Option<Page>, StoreError> {
    const DOING: &str = "reading the position in";
    let path = format!("/{INDEX}/_doc/{}", escape(sink));
    let Some(answer) = client.get(DOING, &path)?.found(client, DOING)? else {
        return Ok(None);
    };
    let found: Found = answer.json(client, DOING)?;
    let ledger = serde_json::from_value(found.source).map_err(|error| StoreError::Broken {
        what: format!(
            "the document '{sink}' of the index '{INDEX}' in {} is not one of onelog's; delete it and rebuild the sink",
            client.shown
        ),
        cause: error.into(),
    })?;
    Ok(Some(Page {
        ledger,
        seq_no: found.seq_no,
        primary_term: found.primary_term,
    }))
}

/// Writes a sink's first ledger. `false`: another process was faster.
pub(crate) fn create_ledger(client: &Client, ledger: &Ledger) -> Result<bool, StoreError> {
    make_index(client)?;
    let path = format!("/{INDEX}/_create/{}", escape(&ledger.sink));
    Ok(write(client, &path, ledger)?.is_some())
}

/// Puts `ledger` in the place of `page`. `None`: another process changed it meanwhile.
pub(crate) fn replace_ledger(
    client: &Client,
    page: &Page,
    ledger: Ledger,
) -> Result<Option<Page>, StoreError> {
    let path = format!("{}?{}", document(&page.ledger.sink), page.condition());
    let written = write(client, &path, &ledger)?;
    Ok(written.map(|written| Page {
        ledger,
        seq_no: written.seq_no,
        primary_term: written.primary_term,
    }))
}

/// Deletes `page`. `false`: another process changed it meanwhile.
pub(crate) fn delete_ledger(client: &Client, page: &Page) -> Result<bool, StoreError> {
    const DOING: &str = "forgetting the position in";
    let path = format!("{}?{}", document(&page.ledger.sink), page.condition());
    let answer = client.call(DOING, Method::DELETE, &path, Body::Nothing, REQUEST_TIMEOUT)?;
    if matches!(answer.status, 404 | 409) {
        return Ok(false);
    }
    answer.success(client, DOING).map(|_| true)
}

impl Page {
    fn condition(&self) -> String {
        condition(self.seq_no, self.primary_term)
    }
}

fn document(sink: &str) -> String {
    format!("/{INDEX}/_doc/{}", escape(sink))
}

fn write(client: &Client, path: &str, ledger: &Ledger) -> Result<Option<Written>, StoreError> {
    const DOING: &str = "writing the position to";
    let body = serde_json::to_value(ledger).map_err(|error| StoreError::Broken {
        what: format!("{DOING} {}", client.shown),
        cause: error.into(),
    })?;
    let answer = client.call(DOING, Method::PUT, path, Body::Json(body), REQUEST_TIMEOUT)?;
    // 404: the index went away; so did the document that was to be replaced.
    if matches!(answer.status, 404 | 409) {
        return Ok(None);
    }
    let answer = answer.success(client, DOING)?;
    answer.json(client, DOING).map(Some)
}

pub(crate) fn make_index(client: &Client) -> Result<(), StoreError> {
    const DOING: &str = "making the index of positions in";
    let body = json!({
        "settings": {"index": {
            "number_of_shards": 1,
            "auto_expand_replicas": "0-1",
            "translog.durability": "request",
        }},
        "mappings": {"dynamic": false, "properties": {
            "sink": {"type": "keyword"},
            "log_id": {"type": "keyword"},
            "position": {"type": "long"},
            "epoch": {"type": "long"},
        }},
    });
    let path = format!("/{INDEX}");
    let answer = client.call(DOING, Method::PUT, &path, Body::Json(body), LONG_TIMEOUT)?;
    if answer.status == 400 && answer.fault().kind == "resource_already_exists_exception" {
        return Ok(());
    }
    answer.success(client, DOING).map(|_| ())
}
