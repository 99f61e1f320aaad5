//! Writing many documents: what is sent, what each item was answered, what is sent again.
//!
//! Everything is encoded before the first request, so a record that does not fit its mapping
//! changes nothing. Then each item is judged by its own answer:
//! - done;
//! - 409: the store has this version or a later one. What it has says of which record it is: of
//!   ours or a later one, then ours is done; of an earlier one (or of none), then another client
//!   wrote to this document and raised its version: ours is written above it;
//! - 429 and 503: sent again after a pause, with the other items of that kind and no others;
//! - 404: the index is gone;
//! - anything else: the record is refused, with the store's message.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use onelog_mapping::{Cell, Plan, Row};
use onelog_store::{Change, Refusals, Remedy, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::connection::{Answer, Body, Client, Method, REQUEST_TIMEOUT};
use crate::encode::{Encoder, Version, id_of};
use crate::error::Fault;

/// About how many bytes one request has.
const REQUEST_BYTES: usize = 8 << 20;
/// How many documents are read at once.
const READ_MAX: usize = 1000;
/// How long items are sent again before the store counts as unavailable.
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// Pauses between attempts: doubled from the first to the last, then a random part of it.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(5);
/// How often one document is written above what another client wrote meanwhile.
const CONTESTS_MAX: usize = 8;

const DOING: &str = "writing documents to";

/// What is to be written to a document.
#[derive(Clone, Copy, Debug)]
struct Write<'b> {
    mapping: usize,
    change: &'b Change,
    version: Version,
}

/// A document as it is in the store.
#[derive(Debug, Deserialize)]
struct Found {
    #[serde(default)]
    found: bool,
    #[serde(rename = "_version", default)]
    version: u64,
    #[serde(rename = "_source", default)]
    source: Value,
    #[serde(default)]
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct FoundAll {
    docs: Vec<Found>,
}

#[derive(Deserialize)]
struct Items {
    items: Vec<ItemAnswer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ItemAnswer {
    Index(Outcome),
    Create(Outcome),
}

#[derive(Deserialize)]
struct Outcome {
    status: u16,
    #[serde(default)]
    error: Option<Fault>,
}

/// Writes the changes of a sink.
pub(crate) struct Bulk<'s> {
    pub(crate) client: &'s Client,
    pub(crate) plan: &'s Plan,
    /// The name to write to, for each mapping.
    pub(crate) targets: &'s [String],
    pub(crate) row: &'s mut Row,
    /// Checked before anything is written above a newer version: whether the sink is still ours.
    pub(crate) still_ours: &'s dyn Fn() -> Result<(), StoreError>,
}

impl Bulk<'_> {
    /// Writes changes of the log.
    pub(crate) fn follow<'b>(
        &mut self,
        changes: impl Iterator<Item = (usize, &'b Change)>,
    ) -> Result<(), StoreError> {
        let writes = changes.map(|(mapping, change)| Write {
            mapping,
            change,
            version: Version::OfRecord,
        });
        let conflicts = self.send(writes.collect())?;
        self.contest(conflicts, false)
    }

    /// Writes rows again, whatever the store has.
    pub(crate) fn repair<'b>(
        &mut self,
        changes: impl Iterator<Item = (usize, &'b Change)>,
    ) -> Result<(), StoreError> {
        let plan = self.plan;
        let writes = changes.map(|(mapping, change)| Write {
            mapping,
            change,
            version: Version::OfRecord,
        });
        // A key that makes no document never had one.
        let writes = writes.filter(|write| {
            let mapping = &plan.mappings[write.mapping];
            write.change.value.is_some() || id_of(mapping, write.change, &mut Cell::Null).is_ok()
        });
        self.contest(writes.collect(), true)
    }

    /// Reads the documents that conflict with these writes, and writes above those that are not
    /// newer.
    fn contest(&mut self, mut writes: Vec<Write<'_>>, always: bool) -> Result<(), StoreError> {
        for _ in 0..CONTESTS_MAX {
            if writes.is_empty() {
                return Ok(());
            }
            let mut again = Vec::new();
            for part in writes.chunks(READ_MAX) {
                for (write, found) in part.iter().zip(self.read_versions(part)?) {
                    let offset = found.source["_onelog"]["offset"].as_u64();
                    let is_newer = offset.is_some_and(|offset| offset >= write.change.offset.get());
                    let version = match found.found {
                        true if is_newer && !always => continue,
                        true => Version::Above(found.version),
                        false if write.change.value.is_none() => continue,
                        false => Version::New,
                    };
                    again.push(Write { version, ..*write });
                }
            }
            if again.is_empty() {
                return Ok(());
            }
            (self.still_ours)()?;
            writes = self.send(again)?;
        }
        match writes.is_empty() {
            true => Ok(()),
            false => Err(self.unavailable(
                "another client writes to the same documents all the time".to_owned(),
            )),
        }
    }

    /// What the store has of these documents, in their order.
    fn read_versions(&mut self, writes: &[Write<'_>]) -> Result<Vec<Found>, StoreError> {
        const DOING: &str = "reading documents of";
        let mut docs = Vec::with_capacity(writes.len());
        for write in writes {
            let mapping = &self.plan.mappings[write.mapping];
            let id = id_of(mapping, write.change, &mut Cell::Null)
                .map_err(|fault| StoreError::refused_change(mapping, write.change, fault))?;
            docs.push(json!({
                "_index": self.targets[write.mapping], "_id": id,
                "_source": ["_onelog.offset"]}));
        }
        let requested = docs.len();
        let body = Body::Json(json!({ "docs": docs }));
        let answer = self
            .client
            .read(DOING, Method::POST, "/_mget", body, REQUEST_TIMEOUT)?
            .success(self.client, DOING)?;
        let found: FoundAll = answer.json(self.client, DOING)?;
        if found.docs.len() != requested {
            return Err(self.unavailable("an answer has too few documents".to_owned()));
        }
        for (write, found) in writes.iter().zip(&found.docs) {
            match &found.error {
                None => {}
                Some(fault) if fault.kind == "index_not_found_exception" => {
                    return Err(self.gone(write.mapping, fault));
                }
                Some(fault) => return Err(self.unavailable(fault.to_string())),
            }
        }
        Ok(found.docs)
    }

    /// Sends writes until each has an answer; answers those that met another version.
    fn send<'b>(&mut self, writes: Vec<Write<'b>>) -> Result<Vec<Write<'b>>, StoreError> {
        let (lines, ends) = self.encode(&writes)?;
        let mut sending = Sending {
            bulk: self,
            writes: &writes,
            lines,
            ends,
            queue: VecDeque::new(),
            again: Vec::new(),
            why: String::new(),
            conflicts: Vec::new(),
            refused: Refusals::default(),
            attempts: 0,
            since: None,
        };
        sending.run()?;
        let conflicts = sending.conflicts;
        sending.refused.into_result()?;
        Ok(conflicts.into_iter().map(|n| writes[n]).collect())
    }

    fn encode(&mut self, writes: &[Write<'_>]) -> Result<(Bytes, Vec<usize>), StoreError> {
        let now_ms = now_ms();
        let mut lines = Vec::new();
        let mut ends = Vec::with_capacity(writes.len());
        let mut refusals = Refusals::default();
        for write in writes {
            let mapping = &self.plan.mappings[write.mapping];
            let encoder = Encoder {
                mapping,
                target: &self.targets[write.mapping],
                now_ms,
            };
            let start = lines.len();
            match encoder.encode(write.change, write.version, self.row, &mut lines) {
                Ok(()) => {}
                // A key that makes no document never had one.
                Err(_) if write.change.value.is_none() => lines.truncate(start),
                Err(fault) => {
                    lines.truncate(start);
                    let error = StoreError::refused_change(mapping, write.change, fault);
                    refusals.note(write.mapping, write.change, error)?;
                }
            }
            ends.push(lines.len());
        }
        refusals.into_result()?;
        Ok((lines.into(), ends))
    }

    fn unavailable(&self, cause: String) -> StoreError {
        StoreError::Unavailable {
            what: format!("{DOING} {}", self.client.shown),
            cause: cause.into(),
        }
    }

    fn not_writable(&self, cause: String) -> StoreError {
        StoreError::NotWritable {
            what: format!("{DOING} {}", self.client.shown),
            cause: cause.into(),
        }
    }

    fn gone(&self, mapping: usize, fault: &Fault) -> StoreError {
        // A process that took the sink over may have exchanged the index.
        match (self.still_ours)() {
            Err(error) => error,
            Ok(()) => {
                let what = format!("its index is gone ({fault})");
                StoreError::mismatch(&self.plan.mappings[mapping], what, Remedy::Rebuild)
            }
        }
    }
}

/// The writes of one call, on their way.
struct Sending<'a, 's, 'b> {
    bulk: &'a Bulk<'s>,
    writes: &'a [Write<'b>],
    lines: Bytes,
    /// Where the lines of each write end.
    ends: Vec<usize>,
    queue: VecDeque<Vec<usize>>,
    /// What was turned away for now.
    again: Vec<usize>,
    /// The store's message about that.
    why: String,
    conflicts: Vec<usize>,
    refused: Refusals,
    attempts: u32,
    since: Option<Instant>,
}

impl Sending<'_, '_, '_> {
    fn run(&mut self) -> Result<(), StoreError> {
        self.fill_queue((0..self.writes.len()).collect(), REQUEST_BYTES);
        while let Some(numbers) = self.queue.pop_front() {
            self.request(numbers)?;
            if self.refused.is_full() {
                return Ok(());
            }
            if self.queue.is_empty() && !self.again.is_empty() {
                self.pause()?;
                let again = std::mem::take(&mut self.again);
                self.fill_queue(again, REQUEST_BYTES >> self.attempts.min(6));
            }
        }
        Ok(())
    }

    fn range(&self, n: usize) -> Range<usize> {
        let start = n.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[n]
    }

    /// Divides writes into requests of about `bytes`.
    fn fill_queue(&mut self, numbers: Vec<usize>, bytes: usize) {
        let mut request = Vec::new();
        let mut size = 0;
        for n in numbers {
            let length = self.range(n).len();
            if length == 0 {
                continue;
            }
            if size + length > bytes && !request.is_empty() {
                self.queue.push_back(std::mem::take(&mut request));
                size = 0;
            }
            size += length;
            request.push(n);
        }
        if !request.is_empty() {
            self.queue.push_back(request);
        }
    }

    fn body(&self, numbers: &[usize]) -> Bytes {
        if let (Some(first), Some(last)) = (numbers.first(), numbers.last())
            && last - first == numbers.len() - 1
        {
            return self
                .lines
                .slice(self.range(*first).start..self.range(*last).end);
        }
        let parts: Vec<&[u8]> = numbers
            .iter()
            .map(|n| &self.lines[self.range(*n)])
            .collect();
        parts.concat().into()
    }

    fn request(&mut self, numbers: Vec<usize>) -> Result<(), StoreError> {
        let client = self.bulk.client;
        let path = "/_bulk?require_alias=true&filter_path=items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by";
        let body = Body::Lines(self.body(&numbers));
        let answer = client.call(DOING, Method::POST, path, body, REQUEST_TIMEOUT)?;
        match answer.status {
            413 if numbers.len() > 1 => {
                self.halve(numbers);
                Ok(())
            }
            413 => {
                let what = format!("the document is too large: {}", answer.fault());
                self.refuse(numbers[0], what)
            }
            429 if !answer.fault().is_block() => {
                self.why = answer.fault().to_string();
                self.pause()?;
                self.halve(numbers);
                Ok(())
            }
            200 => self.judge(&numbers, &answer),
            _ => Err(answer.classify(client, DOING)),
        }
    }

    fn halve(&mut self, mut numbers: Vec<usize>) {
        let half = numbers.split_off(numbers.len().div_ceil(2));
        if !half.is_empty() {
            self.queue.push_front(half);
        }
        self.queue.push_front(numbers);
    }

    fn judge(&mut self, numbers: &[usize], answer: &Answer) -> Result<(), StoreError> {
        let found: Items = answer.json(self.bulk.client, DOING)?;
        if found.items.len() != numbers.len() {
            return Err(self.bulk.unavailable(format!(
                "{} items were sent and {} answered",
                numbers.len(),
                found.items.len()
            )));
        }
        let turned_away = self.again.len();
        for (n, item) in numbers.iter().zip(found.items) {
            let (ItemAnswer::Index(outcome) | ItemAnswer::Create(outcome)) = item;
            let fault = outcome.error.unwrap_or_default();
            match outcome.status {
                200..=299 => {}
                409 => self.conflicts.push(*n),
                403 | 429 if fault.is_block() => {
                    return Err(self.bulk.not_writable(fault.to_string()));
                }
                429 | 500..=599 => {
                    self.again.push(*n);
                    self.why = fault.to_string();
                }
                404 => return Err(self.bulk.gone(self.writes[*n].mapping, &fault)),
                401 | 403 => {
                    return Err(StoreError::Broken {
                        what: format!("{DOING} {}", self.bulk.client.shown),
                        cause: format!("{fault}; give the user the right to write").into(),
                    });
                }
                _ if fault.kind == "index_closed_exception" => {
                    let mapping = &self.bulk.plan.mappings[self.writes[*n].mapping];
                    let what =
                        format!("its index is closed ({fault}); open it, then resume the sink");
                    return Err(StoreError::mismatch(mapping, what, Remedy::Said));
                }
                _ => self.refuse(*n, format!("the store says: {fault}"))?,
            }
        }
        if self.again.len() - turned_away < numbers.len() {
            // The store works, however slowly.
            (self.since, self.attempts) = (None, 0);
        }
        Ok(())
    }

    fn refuse(&mut self, n: usize, what: String) -> Result<(), StoreError> {
        let write = &self.writes[n];
        let mapping = &self.bulk.plan.mappings[write.mapping];
        let error = StoreError::refused_change(mapping, write.change, what);
        self.refused.note(write.mapping, write.change, error)
    }

    fn pause(&mut self) -> Result<(), StoreError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() > AGAIN_MAX {
            return Err(self.bulk.not_writable(format!(
                "documents were turned away for {} seconds: {}",
                AGAIN_MAX.as_secs(),
                self.why
            )));
        }
        let pause = PAUSE_FIRST
            .saturating_mul(1 << self.attempts.min(16))
            .min(PAUSE_LAST)
            .mul_f64(rand::random_range(0.5..1.0));
        self.attempts += 1;
        std::thread::sleep(pause);
        Ok(())
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
