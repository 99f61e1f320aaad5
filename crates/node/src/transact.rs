//! Transactions for embedding applications: begin, read, write, commit; and a closure that is
//! tried again after conflicts, with jitter, until a deadline.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog_record::{
    CommitRequest, Committed, FieldPath, Guard, Json, JsonText, KeyRange, Number, Operation,
    PointRead, Position, Predicate, Quoted, Refusal, TableId, Write,
};
use onelog_replica::Catalog;
use onelog_state::{ReadError, Row, Snapshot, Versioned};
use rand::Rng;
use serde::Serialize;
use serde_json::Value;

use crate::Node;

/// The first pause after a conflict; each further one may be twice as long.
const BACKOFF_FIRST: Duration = Duration::from_micros(200);
const BACKOFF_MAX: Duration = Duration::from_millis(50);
/// How long [`Node::transact`] tries.
const DEADLINE: Duration = Duration::from_secs(10);

/// As many characters of a number are shown.
const NUMBER_SHOWN_MAX: usize = 64;

/// A transaction was not committed.
#[derive(Debug, thiserror::Error)]
pub enum TransactError {
    /// The closure gave up, for its own reason.
    #[error("aborted: {0}")]
    Aborted(Box<dyn Error + Send + Sync>),
    /// No table has this name.
    #[error("there is no table '{}'{}", Quoted(name), nearest.as_ref().map(|n| format!("; did you mean '{n}'?")).unwrap_or_default())]
    UnknownTable {
        name: String,
        /// The nearest one that exists.
        nearest: Option<String>,
    },
    /// The state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A value is not JSON.
    #[error("the value of key {key:?} is not JSON: {cause}")]
    Json {
        key: Bytes,
        cause: serde_json::Error,
    },
    /// [`Transaction::get_json`] found a number that a [`Value`] cannot hold exactly.
    #[error(
        "the value of key {key:?} has the number {number}{}, which a serde_json::Value would round: read its text with `get`, or change it without reading it (`add`, `append`)",
        at_field(field)
    )]
    Rounded {
        key: Bytes,
        /// The path to the number; empty where the number is the whole value.
        field: String,
        /// Its beginning, where it is long.
        number: String,
    },
    /// The key was changed by `add`, `min`, `max` or `append` earlier in the same transaction; its
    /// value is decided only at commit.
    #[error(
        "key {key:?} has a pending operation in this transaction: its value is known only after the commit"
    )]
    Pending { key: Bytes },
    /// The commit was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Conflicts until the deadline.
    #[error("no success within the deadline, after {attempts} attempts; the last refusal: {last}")]
    Deadline {
        /// How often it was tried.
        attempts: u32,
        last: Box<Refusal>,
    },
}

fn at_field(field: &str) -> String {
    match field {
        "" => String::new(),
        _ => format!(" at '{}'", Quoted(field)),
    }
}

impl TransactError {
    /// Ends a [`Node::transact`] without a commit and without another try.
    pub fn abort(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Aborted(reason.into())
    }
}

/// How [`Node::transact_with`] tries.
#[derive(Clone, Debug)]
pub struct TransactOptions {
    /// No further attempt begins after this time.
    pub deadline: Duration,
}

impl Default for TransactOptions {
    fn default() -> Self {
        Self { deadline: DEADLINE }
    }
}

/// What a closure answered, and where its transaction is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transacted<R> {
    pub value: R,
    /// Reading at or after this position sees the transaction.
    pub position: Position,
    /// How often it was tried.
    pub attempts: u32,
}

#[derive(Debug, Default)]
struct Reads {
    points: Vec<PointRead>,
    known: HashSet<(TableId, Bytes)>,
    ranges: Vec<KeyRange>,
}

/// What this transaction has done to a key so far.
#[derive(Clone, Debug)]
enum Own {
    Image(Option<Bytes>),
    Pending,
}

/// An open transaction: reads come from one snapshot, writes wait for the commit. Dropping it
/// forgets it; no lock is ever held.
#[derive(Debug)]
pub struct Transaction {
    node: Node,
    snapshot: Snapshot,
    catalog: Arc<Catalog>,
    reads: RefCell<Reads>,
    guards: Vec<Guard>,
    writes: Vec<Write>,
    own: BTreeMap<(TableId, Bytes), Own>,
}

impl Transaction {
    /// The position that all reads are made at.
    #[must_use]
    pub fn position(&self) -> Position {
        self.snapshot.position()
    }

    /// The value of a key, with what this transaction has put or deleted before.
    pub fn get(&self, table: &str, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, TransactError> {
        let table = self.table(table)?;
        let key = Bytes::copy_from_slice(key.as_ref());
        match self.own.get(&(table, key.clone())) {
            Some(Own::Image(image)) => return Ok(image.clone()),
            Some(Own::Pending) => return Err(TransactError::Pending { key }),
            None => {}
        }
        Ok(self.read(table, key)?.map(|found| found.value))
    }

    /// [`Transaction::get`], parsed as JSON.
    ///
    /// # Errors
    /// A value with a number that a [`Value`] would round (a whole one beyond 64 bits, most with
    /// more than 17 digits) is refused as [`TransactError::Rounded`], so that it is not put back
    /// rounded. [`Transaction::get`] gives its text, which a program can read into types of its
    /// own; [`Transaction::add`] and [`Transaction::append`] change a field and keep all others.
    pub fn get_json(
        &self,
        table: &str,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<Value>, TransactError> {
        let Some(value) = self.get(table, key.as_ref())? else {
            return Ok(None);
        };
        let key = || Bytes::copy_from_slice(key.as_ref());
        let parsed = serde_json::from_slice(&value)
            .map_err(|cause| TransactError::Json { key: key(), cause })?;
        let written = Json::parse(&value).ok();
        if let Some((field, number)) = written.as_ref().and_then(Json::rounded_field) {
            return Err(TransactError::Rounded {
                key: key(),
                field,
                number: number.chars().take(NUMBER_SHOWN_MAX).collect(),
            });
        }
        Ok(Some(parsed))
    }

    fn read(&self, table: TableId, key: Bytes) -> Result<Option<Versioned>, TransactError> {
        let found = self.snapshot.get(table, &key)?;
        let mut reads = self.reads.borrow_mut();
        if reads.known.insert((table, key.clone())) {
            reads.points.push(PointRead { table, key });
        }
        Ok(found)
    }

    /// At most `limit` rows with keys from `from` up to but without `to`, in key order, with what
    /// this transaction has put or deleted before. Only what was looked at counts as read.
    pub fn range(
        &self,
        table: &str,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, TransactError> {
        let table = self.table(table)?;
        let mut range = KeyRange {
            table,
            from: Bytes::copy_from_slice(from),
            to: to.map(Bytes::copy_from_slice),
        };
        let mut rows: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let inside = |key: &Bytes| range.to.as_ref().is_none_or(|to| key < to);
        for ((_, key), own) in self
            .own
            .range((table, range.from.clone())..)
            .take_while(|((t, _), _)| *t == table)
        {
            match own {
                Own::Image(Some(value)) if inside(key) => {
                    drop(rows.insert(key.clone(), value.clone()))
                }
                Own::Pending if inside(key) => {
                    return Err(TransactError::Pending { key: key.clone() });
                }
                _ => {}
            }
        }
        let mut seen = 0;
        let mut last = None;
        for row in self.snapshot.scan(&range, false)? {
            let Row { key, value, .. } = row?;
            if seen >= limit {
                last = Some(key);
                break;
            }
            if !self.own.contains_key(&(table, key.clone())) {
                rows.insert(key.clone(), value);
                seen += 1;
            }
        }
        if let Some(unread) = last {
            range.to = Some(unread.clone());
            rows.retain(|key, _| *key < unread);
        }
        let found: Vec<_> = rows.into_iter().take(limit).collect();
        self.reads.borrow_mut().ranges.push(range);
        Ok(found)
    }

    pub fn put(
        &mut self,
        table: &str,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), TransactError> {
        let value = Bytes::copy_from_slice(value.as_ref());
        self.write(
            table,
            key.as_ref(),
            Operation::Put(value.clone()),
            Own::Image(Some(value)),
        )
    }

    /// Puts a value as JSON, its numbers as serde_json writes them: what is beyond the 64 bits of
    /// their types was rounded before it comes here. [`Transaction::put`] takes a text with numbers
    /// of any length.
    pub fn put_json(
        &mut self,
        table: &str,
        key: impl AsRef<[u8]>,
        value: &impl Serialize,
    ) -> Result<(), TransactError> {
        let text = serde_json::to_vec(value).map_err(|cause| TransactError::Json {
            key: Bytes::copy_from_slice(key.as_ref()),
            cause,
        })?;
        self.put(table, key, text)
    }

    pub fn delete(&mut self, table: &str, key: impl AsRef<[u8]>) -> Result<(), TransactError> {
        self.write(table, key.as_ref(), Operation::Delete, Own::Image(None))
    }

    /// Adds to a number without reading it: never conflicts.
    pub fn add(
        &mut self,
        table: &str,
        key: impl AsRef<[u8]>,
        field: FieldPath,
        by: impl Into<Number>,
    ) -> Result<(), TransactError> {
        self.write(
            table,
            key.as_ref(),
            Operation::Add(field, by.into()),
            Own::Pending,
        )
    }

    /// Appends to an array without reading it: never conflicts.
    pub fn append(
        &mut self,
        table: &str,
        key: impl AsRef<[u8]>,
        field: FieldPath,
        element: impl Into<JsonText>,
    ) -> Result<(), TransactError> {
        self.write(
            table,
            key.as_ref(),
            Operation::Append(field, element.into()),
            Own::Pending,
        )
    }

    /// Demands something of the newest state at the commit point.
    pub fn guard(
        &mut self,
        table: &str,
        key: impl AsRef<[u8]>,
        predicate: Predicate,
    ) -> Result<(), TransactError> {
        let table = self.table(table)?;
        let key = Bytes::copy_from_slice(key.as_ref());
        self.guards.push(Guard {
            table,
            key,
            predicate,
        });
        Ok(())
    }

    fn write(
        &mut self,
        table: &str,
        key: &[u8],
        operation: Operation,
        own: Own,
    ) -> Result<(), TransactError> {
        let table = self.table(table)?;
        let key = Bytes::copy_from_slice(key);
        self.own.insert((table, key.clone()), own);
        self.writes.push(Write {
            table,
            key,
            operation,
            headers: Vec::new(),
        });
        Ok(())
    }

    fn table(&self, name: &str) -> Result<TableId, TransactError> {
        let Some(table) = self.catalog.by_name(name) else {
            return Err(TransactError::UnknownTable {
                name: name.to_owned(),
                nearest: self.catalog.nearest(name).map(str::to_owned),
            });
        };
        Ok(table.id)
    }

    /// The request that commits it; `None` when there is nothing to commit: what was read was true
    /// at its position.
    fn request(self) -> (Node, Position, Option<CommitRequest>) {
        let position = self.position();
        let reads = self.reads.into_inner();
        if self.writes.is_empty() && self.guards.is_empty() {
            return (self.node, position, None);
        }
        let request = CommitRequest {
            id: None,
            read_position: Some(position),
            point_reads: reads.points,
            range_reads: reads.ranges,
            guards: self.guards,
            writes: self.writes,
        };
        (self.node, position, Some(request))
    }

    /// Commits. Everything read is checked: when something of it was written since, the answer is
    /// a conflict, and a new transaction must read again.
    pub async fn commit(self) -> Result<Position, Refusal> {
        match self.request() {
            (_, position, None) => Ok(position),
            (node, _, Some(request)) => node
                .submit(request)
                .await
                .map(|committed: Committed| committed.position),
        }
    }

    /// [`Transaction::commit`] for threads that block.
    pub fn commit_blocking(self) -> Result<Position, Refusal> {
        match self.request() {
            (_, position, None) => Ok(position),
            (node, _, Some(request)) => node
                .submit(request)
                .wait()
                .map(|committed| committed.position),
        }
    }
}

/// At which position a refused request reads what refused it. Where another node has refused it, that
/// comes here a little later.
pub(crate) const fn retry_at(refusal: &Refusal) -> Option<Position> {
    match refusal {
        Refusal::Conflict { retry_at, .. } | Refusal::GuardFailed { retry_at, .. } => {
            Some(*retry_at)
        }
        Refusal::SnapshotTooOld { floor, .. } => Some(*floor),
        _ => None,
    }
}

/// Pauses and attempts of one closure.
struct Attempts {
    started: Instant,
    deadline: Duration,
    count: u32,
    backoff: Duration,
}

impl Attempts {
    fn new(options: &TransactOptions) -> Self {
        Self {
            started: Instant::now(),
            deadline: options.deadline,
            count: 0,
            backoff: BACKOFF_FIRST,
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.started.elapsed())
    }

    /// How long to pause before the next attempt, or why there is none.
    fn after(&mut self, refusal: Refusal) -> Result<Duration, TransactError> {
        let floor = match &refusal {
            Refusal::Conflict { .. } | Refusal::SnapshotTooOld { .. } => Duration::ZERO,
            Refusal::Overloaded { retry_after_ms, .. } => Duration::from_millis(*retry_after_ms),
            _ => return Err(refusal.into()),
        };
        let pause = floor + self.backoff.mul_f64(rand::rng().random());
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        if self.started.elapsed() + pause > self.deadline {
            return Err(TransactError::Deadline {
                attempts: self.count,
                last: Box::new(refusal),
            });
        }
        Ok(pause)
    }
}

impl Node {
    /// Begins a transaction at the applied position.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        // The snapshot comes first: the catalog then knows every table of the snapshot.
        let snapshot = self.snapshot();
        Transaction {
            snapshot,
            catalog: self.catalog(),
            node: self.clone(),
            reads: RefCell::default(),
            guards: Vec::new(),
            writes: Vec::new(),
            own: BTreeMap::new(),
        }
    }

    /// Runs a closure in a transaction and commits it; after a conflict it runs again on a newer
    /// snapshot, with growing jitter, for up to ten seconds. Blocks.
    pub fn transact<R>(
        &self,
        run: impl FnMut(&mut Transaction) -> Result<R, TransactError>,
    ) -> Result<Transacted<R>, TransactError> {
        self.transact_with(&TransactOptions::default(), run)
    }

    /// [`Node::transact`] with a deadline of one's own.
    pub fn transact_with<R>(
        &self,
        options: &TransactOptions,
        mut run: impl FnMut(&mut Transaction) -> Result<R, TransactError>,
    ) -> Result<Transacted<R>, TransactError> {
        let mut attempts = Attempts::new(options);
        loop {
            attempts.count += 1;
            let mut transaction = self.begin();
            let value = run(&mut transaction)?;
            match transaction.commit_blocking() {
                Ok(position) => {
                    return Ok(Transacted {
                        value,
                        position,
                        attempts: attempts.count,
                    });
                }
                Err(refusal) => {
                    let seen_at = retry_at(&refusal);
                    std::thread::sleep(attempts.after(refusal)?);
                    if let Some(position) = seen_at {
                        let _ = self.wait_for_blocking(position, attempts.left());
                    }
                }
            }
        }
    }
}
