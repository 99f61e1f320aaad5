//! The end of deleted documents.
//!
//! A deletion is a document that is marked. It must stay until no older put can still be under way;
//! then it is deleted, unless it was written to meanwhile.

use std::time::Duration;

use bytes::Bytes;
use onelog_store::StoreError;
use serde::Deserialize;
use serde_json::json;

use super::ddl::write_alias;
use crate::connection::{Body, Client, Method, REQUEST_TIMEOUT, escape};
use crate::write::now_ms;

/// How many documents are purged at once …
const PAGE: usize = 1000;
/// … and how often one after the other.
const PAGES_MAX: u32 = 10;

#[derive(Deserialize)]
struct Page {
    hits: Hits,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_seq_no")]
    seq_no: u64,
    #[serde(rename = "_primary_term")]
    primary_term: u64,
}

#[derive(Deserialize)]
struct Deleted {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    delete: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    status: u16,
}

/// Deletes documents of an index that were marked that long ago and are of records below
/// `position`; answers how many.
pub(crate) fn purge(
    client: &Client,
    index: &str,
    position: u64,
    older_than: Duration,
) -> Result<u64, StoreError> {
    const DOING: &str = "purging deleted documents of";
    let before = now_ms().saturating_sub(older_than.as_millis() as u64);
    let search = json!({
        "size": PAGE,
        "_source": false,
        "seq_no_primary_term": true,
        "query": {"bool": {"filter": [
            {"term": {"_onelog.deleted": true}},
            {"range": {"_onelog.at": {"lte": before}}},
            {"range": {"_onelog.offset": {"lt": position}}},
        ]}},
        "sort": ["_doc"],
    });
    let mut purged = 0;
    for _ in 0..PAGES_MAX {
        let path = format!("/{}/_search", escape(index));
        let page: Page = client
            .call(
                DOING,
                Method::POST,
                &path,
                Body::Json(search.clone()),
                REQUEST_TIMEOUT,
            )?
            .success(client, DOING)?
            .json(client, DOING)?;
        let hits = page.hits.hits;
        if hits.is_empty() {
            break;
        }
        let mut lines = String::new();
        for hit in &hits {
            let action = json!({"delete": {
                "_index": write_alias(index), "_id": hit.id,
                "if_seq_no": hit.seq_no, "if_primary_term": hit.primary_term}});
            lines.push_str(&action.to_string());
            lines.push('\n');
        }
        let path = "/_bulk?require_alias=true&refresh=true&filter_path=items.*.status";
        let lines = Body::Lines(Bytes::from(lines));
        let answer: Deleted = client
            .call(DOING, Method::POST, path, lines, REQUEST_TIMEOUT)?
            .success(client, DOING)?
            .json(client, DOING)?;
        let done = answer.items.iter().filter(|item| item.delete.status < 300);
        let done = done.count() as u64;
        purged += done;
        if done == 0 {
            // Others write to all of them, or the store is busy: later is soon enough.
            break;
        }
    }
    Ok(purged)
}
