//! A consistent snapshot of a sink's indexes: a point in time for each shard.
//!
//! Within a shard documents have numbers that do not change in a point in time, so a shard is read
//! page by page in that order, which is the fastest one and needs no field to sort by. The points
//! are opened one after the other, by the thread that writes, between two batches: all of them show
//! the same position. Another process that writes at that moment is noticed by the ledger, and
//! documents of a batch that was begun and not finished by their offsets.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use onelog_mapping::{Cell, Plan, Row};
use onelog_record::Position;
use onelog_store::{EachRow, IndexCheck, Remedy, StoreError, StoreReader};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::connection::{Body, Client, Method, Product, REQUEST_TIMEOUT, escape};
use crate::ddl::{self, Index};
use crate::decode::{Decoder, KeyField};

/// How long a point in time lives after it was last read.
const KEEP_ALIVE: &str = "5m";
/// How many documents the first page has …
const PAGE_FIRST: usize = 200;
/// … and any page at most; the product's own limit is 10,000.
const PAGE_MAX: usize = 5_000;
/// About how many bytes a page has.
const PAGE_BYTES: usize = 4 << 20;
/// How long closing a snapshot may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A shard at a point in time.
#[derive(Debug)]
struct Shard {
    point: String,
    query: Value,
}

#[derive(Debug)]
pub(crate) struct Reader {
    client: Client,
    plan: Arc<Plan>,
    position: Position,
    shards: Vec<Vec<Shard>>,
    /// Whether these are onelog's own indexes.
    is_ours: bool,
    /// While a reader holds this, the indexes are not deleted.
    _in_use: Arc<()>,
}

#[derive(Deserialize)]
struct Opened {
    #[serde(alias = "pit_id")]
    id: String,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(default)]
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: ShardCount,
    #[serde(borrow)]
    hits: Hits<'a>,
    #[serde(default)]
    pit_id: Option<String>,
}

#[derive(Deserialize)]
struct ShardCount {
    failed: u32,
}

#[derive(Deserialize)]
struct Hits<'a> {
    #[serde(borrow)]
    hits: Vec<Hit<'a>>,
}

#[derive(Deserialize)]
struct Hit<'a> {
    #[serde(rename = "_id", borrow)]
    id: Cow<'a, str>,
    #[serde(rename = "_source", borrow, default)]
    source: Option<&'a RawValue>,
    #[serde(default)]
    sort: Vec<Value>,
}

impl Reader {
    /// Opens the indexes of a sink, in the plan's order.
    pub(crate) fn open(
        client: &Client,
        plan: &Arc<Plan>,
        indexes: &[String],
        position: Position,
        in_use: Arc<()>,
    ) -> Result<Self, StoreError> {
        let mut reader = Self::new(client, plan, position, true, in_use);
        for (mapping, name) in plan.mappings.iter().zip(indexes) {
            let found = ddl::find_indexes(client, name)?;
            let Some(found) = found.get(name) else {
                return Err(StoreError::not_there(mapping));
            };
            reader.shards.push(Vec::new());
            reader.add(name, found, &ddl::visible())?;
        }
        reader.check_finished(indexes)?;
        Ok(reader)
    }

    /// Opens whatever is behind the names of the plan, as it is.
    pub(crate) fn open_foreign(client: &Client, plan: &Arc<Plan>) -> Result<Self, StoreError> {
        let mut reader = Self::new(client, plan, Position::ZERO, false, Arc::default());
        for mapping in &plan.mappings {
            let found = ddl::find_indexes(client, &mapping.into)?;
            if found.is_empty() {
                return Err(StoreError::mismatch(
                    mapping,
                    "there is no index or alias of this name",
                    Remedy::NameAnother,
                ));
            }
            reader.shards.push(Vec::new());
            for (name, index) in &found {
                let filter = index
                    .aliases
                    .get(&mapping.into)
                    .and_then(|alias| alias.get("filter"));
                let all = json!({"match_all": {}});
                reader.add(name, index, filter.unwrap_or(&all))?;
            }
        }
        Ok(reader)
    }

    fn new(
        client: &Client,
        plan: &Arc<Plan>,
        position: Position,
        is_ours: bool,
        in_use: Arc<()>,
    ) -> Self {
        Self {
            client: client.clone(),
            plan: Arc::clone(plan),
            position,
            shards: Vec::with_capacity(plan.mappings.len()),
            is_ours,
            _in_use: in_use,
        }
    }

    fn add(&mut self, name: &str, index: &Index, query: &Value) -> Result<(), StoreError> {
        const DOING: &str = "opening a snapshot of";
        let way = match self.client.product {
            Product::Elasticsearch => "_pit",
            Product::OpenSearch => "_search/point_in_time",
        };
        for shard in 0..index.shards() {
            let path = format!(
                "/{}/{way}?keep_alive={KEEP_ALIVE}&preference=_shards:{shard}",
                escape(name)
            );
            let opened: Opened = self
                .client
                .read(DOING, Method::POST, &path, Body::Nothing, REQUEST_TIMEOUT)?
                .success(&self.client, DOING)?
                .json(&self.client, DOING)?;
            // Every mapping has an entry before its shards are added.
            if let Some(shards) = self.shards.last_mut() {
                shards.push(Shard {
                    point: opened.id,
                    query: query.clone(),
                });
            }
        }
        Ok(())
    }

    /// Documents from behind the position belong to a batch that was begun and not finished.
    fn check_finished(&self, indexes: &[String]) -> Result<(), StoreError> {
        const DOING: &str = "opening a snapshot of";
        let later = json!({"range": {"_onelog.offset": {"gte": self.position.get()}}});
        for (shards, index) in self.shards.iter().zip(indexes) {
            for shard in shards {
                let answer = search(&self.client, DOING, &shard.point, &later, 1, None)?;
                let page = read_page(&self.client, DOING, &answer)?;
                if let Some(hit) = page.hits.hits.first() {
                    return Err(StoreError::Unavailable {
                        what: format!("{DOING} {}", self.client.shown),
                        cause: format!(
                            "the document '{}' of the index '{index}' is of a record behind the sink's position {}: a batch was begun and not finished; let the sink go on, then verify again",
                            hit.id, self.position
                        )
                        .into(),
                    });
                }
            }
        }
        Ok(())
    }

    fn scan_shard(
        &self,
        shard: &Shard,
        decoder: &Decoder<'_>,
        key: usize,
        each: EachRow<'_>,
    ) -> Result<ControlFlow<()>, StoreError> {
        const DOING: &str = "reading documents of";
        let mut row = Row::new(0);
        let mut after = None;
        let mut size = PAGE_FIRST;
        let mut point = Cow::Borrowed(&shard.point[..]);
        loop {
            let answer = search(&self.client, DOING, &point, &shard.query, size, after)?;
            let page = read_page(&self.client, DOING, &answer)?;
            let hits = &page.hits.hits;
            for hit in hits {
                if self.give(decoder, hit, key, &mut row, each)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            // Elasticsearch adds a number of its own to the one that was requested.
            after = hits.last().and_then(|hit| hit.sort.first()).cloned();
            if hits.len() < size || after.is_none() {
                return Ok(ControlFlow::Continue(()));
            }
            let bytes = answer.len() / hits.len() + 1;
            size = (PAGE_BYTES / bytes).clamp(1, PAGE_MAX);
            if let Some(newer) = page.pit_id {
                point = Cow::Owned(newer);
            }
        }
    }

    fn give(
        &self,
        decoder: &Decoder<'_>,
        hit: &Hit<'_>,
        key: usize,
        row: &mut Row,
        each: EachRow<'_>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let broken = |cause: String| StoreError::Broken {
            what: format!("reading the document '{}' of {}", hit.id, self.client.shown),
            cause: cause.into(),
        };
        let source = hit
            .source
            .ok_or_else(|| broken("the index keeps no '_source'".to_owned()))?;
        if !self.is_ours {
            decoder
                .decode_foreign(&hit.id, source, row)
                .map_err(|error| broken(error.to_string()))?;
            return Ok(each(row));
        }
        let key_field = decoder
            .decode(&hit.id, source, row)
            .map_err(|error| broken(error.to_string()))?;
        let flow = each(row);
        if key_field == KeyField::Same || flow.is_break() {
            return Ok(flow);
        }
        // A document whose key field says another key than its `_id` counts a second time, without
        // its cells: so it never equals the log's row.
        for (n, cell) in row.cells.iter_mut().enumerate() {
            if n != key {
                *cell = Cell::Null;
            }
        }
        Ok(each(row))
    }

    fn close(&mut self) {
        let points: Vec<String> = self
            .shards
            .drain(..)
            .flatten()
            .map(|shard| shard.point)
            .collect();
        let close = |path: &str, body: Value| {
            // A point that is not closed ends by itself after its keep-alive time.
            let _ = self.client.call(
                "closing a snapshot of",
                Method::DELETE,
                path,
                Body::Json(body),
                CLOSE_TIMEOUT,
            );
        };
        match self.client.product {
            _ if points.is_empty() => {}
            Product::OpenSearch => close("/_search/point_in_time", json!({ "pit_id": points })),
            Product::Elasticsearch => {
                for point in points {
                    close("/_pit", json!({ "id": point }));
                }
            }
        }
    }
}

fn search(
    client: &Client,
    doing: &str,
    point: &str,
    query: &Value,
    size: usize,
    after: Option<Value>,
) -> Result<Vec<u8>, StoreError> {
    let mut body = json!({
        "size": size,
        "pit": {"id": point, "keep_alive": KEEP_ALIVE},
        "query": query,
        "sort": ["_doc"],
        "track_total_hits": false,
    });
    if let Some(after) = after {
        body["search_after"] = json!([after]);
    }
    let path = "/_search?allow_partial_search_results=false";
    let answer = client.read(doing, Method::POST, path, Body::Json(body), REQUEST_TIMEOUT)?;
    if answer.status == 404 {
        return Err(StoreError::Unavailable {
            what: format!("{doing} {}", client.shown),
            cause: format!(
                "the snapshot is gone: its index was replaced, or nothing was read for too long ({})",
                answer.fault()
            )
            .into(),
        });
    }
    Ok(answer.success(client, doing)?.into_bytes())
}

fn read_page<'a>(client: &Client, doing: &str, answer: &'a [u8]) -> Result<Page<'a>, StoreError> {
    let failed = |cause: String| StoreError::Unavailable {
        what: format!("{doing} {}", client.shown),
        cause: cause.into(),
    };
    let page: Page<'_> = serde_json::from_slice(answer)
        .map_err(|error| failed(format!("the answer cannot be read: {error}")))?;
    match page {
        Page {
            timed_out: false,
            shards: ShardCount { failed: 0 },
            ..
        } => Ok(page),
        _ => Err(failed("not every shard answered".to_owned())),
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.close();
    }
}

impl StoreReader for Reader {
    fn position(&self) -> Position {
        self.position
    }

    fn scan(&mut self, mapping: usize, each: EachRow<'_>) -> Result<(), StoreError> {
        let plan = &self.plan.mappings[mapping];
        let decoder = Decoder::new(plan);
        for shard in &self.shards[mapping] {
            if self.scan_shard(shard, &decoder, plan.key, each)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn check_index(
        &mut self,
        _mapping: usize,
        _faults_max: usize,
    ) -> Result<Option<IndexCheck>, StoreError> {
        Ok(None)
    }
}
