//! How far a sink is and how it is doing: written by its runner, read and awaited by any thread.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use onelog::{Node, Position};
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::{SinkError, SinkFault};
use crate::retention::RetentionHold;
use onelog_store::SinkDefinition;

/// Over about how long the rate is averaged, in seconds.
const RATE_SECONDS: f64 = 5.0;

/// What a sink is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkState {
    /// It is connecting to its store.
    Starting,
    /// Its store is being backfilled from a snapshot, because it was empty or too far behind the log.
    Bootstrapping,
    /// Its store is being backfilled on request.
    Rebuilding,
    /// It follows the log.
    Running,
    /// Something failed; it will try again by itself.
    Waiting,
    Paused,
    /// Something failed that it cannot mend by itself; then resume or rebuild it.
    Stopped,
    /// Another node of the cluster runs it, or none does now. That one knows the rest.
    Elsewhere,
}

/// Where in a cluster a sink runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this node, which has this number in its cluster, if it is in one.
    Here(Option<u64>),
    /// On another one; on none that is known.
    Elsewhere(Option<u64>),
    /// On none, until this node is back, whose machine has the store.
    Waits(u64),
}

impl Place {
    /// Why nothing can be done with the sink here.
    pub(crate) fn elsewhere(self, name: &str) -> Option<SinkError> {
        let name = name.to_owned();
        match self {
            Self::Here(_) => None,
            Self::Elsewhere(runs_on) => Some(SinkError::Elsewhere { name, runs_on }),
            Self::Waits(node) => Some(SinkError::NodeLost { name, node }),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SinkStatus {
    pub name: String,
    pub kind: &'static str,
    pub state: SinkState,
    /// The node of the cluster on which it runs; `None` where there is no cluster, or it runs on none.
    pub runs_on: Option<u64>,
    /// The node of the cluster that it waits for: its store is on that node's machine.
    pub waits_for: Option<u64>,
    /// The store shows everything below this position. `None` until it is backfilled.
    pub position: Option<Position>,
    /// How many records of the log it has still to take.
    pub lag_records: Option<u64>,
    /// For how long the oldest of them has been waiting, in seconds.
    pub lag_seconds: Option<f64>,
    /// How many records of the log it passes per second, averaged over some seconds.
    pub records_per_second: f64,
    /// What went wrong last; gone once it has been resumed.
    pub last_error: Option<SinkFault>,
    /// Since when the sink follows the log again after that, in milliseconds since 1970. `None`: it
    /// does not.
    pub last_error_over_at_ms: Option<u64>,
    /// How many keys are parked because the store refused a record of theirs.
    pub parked: u64,
    /// How many bytes of log, as stored, lie behind the sink.
    pub held_log_bytes: u64,
    /// Whether the log behind it grew over its limit, so that it is no longer kept for this sink.
    pub left_behind: bool,
    /// The last comparison with the log.
    pub last_verification: Option<VerificationSummary>,
    pub definition: SinkDefinition,
}

/// What a comparison found, in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerificationSummary {
    /// Both sides were compared at this position.
    pub position: Position,
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
    pub took_ms: u64,
    /// Whether every table was equal.
    pub equal: bool,
    /// How many rows differed.
    pub differences_total: u64,
    /// How many rows were written again.
    pub repaired: u64,
    /// Whether it was made on the schedule.
    pub scheduled: bool,
}

#[derive(Debug)]
struct Rate {
    per_second: f64,
    at: Instant,
}

impl Rate {
    fn now(&self) -> f64 {
        let faded = self.per_second * (-self.at.elapsed().as_secs_f64() / RATE_SECONDS).exp();
        if faded < 0.01 { 0.0 } else { faded }
    }

    fn add(&mut self, count: u64) {
        self.per_second = self.now() + count as f64 / RATE_SECONDS;
        self.at = Instant::now();
    }
}

#[derive(Debug)]
struct Inner {
    version: u64,
    /// Where it runs. Elsewhere, what its thread here still has to say is not shown.
    place: Place,
    state: SinkState,
    position: Option<Position>,
    last_error: Option<SinkFault>,
    last_error_over_at_ms: Option<u64>,
    applied_records: u64,
    errors: u64,
    parked: u64,
    verified: Option<VerificationSummary>,
    rate: Rate,
    /// Of the oldest record to be taken at a position: when it was ordered.
    pending_since: Option<(Position, u64)>,
}

/// What is known of one sink, shared by its thread and its readers.
#[derive(Debug)]
pub(crate) struct Progress {
    inner: Mutex<Inner>,
    condition: Condvar,
    changed: watch::Sender<()>,
}

/// What the metrics show.
pub(crate) struct Figures {
    pub(crate) applied_records: u64,
    pub(crate) errors: u64,
}

impl Inner {
    /// Elsewhere, whatever its thread here still does.
    const fn state(&self) -> SinkState {
        match self.place {
            Place::Here(_) => self.state,
            Place::Elsewhere(_) | Place::Waits(_) => SinkState::Elsewhere,
        }
    }

    /// Whether waiting for `wanted` is over.
    fn outcome(&self, name: &str, wanted: Position) -> Option<Result<(), SinkError>> {
        if let Some(elsewhere) = self.place.elsewhere(name) {
            return Some(Err(elsewhere));
        }
        if self.position.is_some_and(|position| position >= wanted) {
            return Some(Ok(()));
        }
        (self.state == SinkState::Stopped).then(|| {
            let fault = self.last_error.clone();
            Err(SinkError::Stopped {
                name: name.to_owned(),
                fault: Box::new(fault.unwrap_or_else(|| SinkFault::new("it was stopped"))),
            })
        })
    }
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                version: 0,
                place: Place::Here(None),
                state: SinkState::Starting,
                position: None,
                last_error: None,
                last_error_over_at_ms: None,
                applied_records: 0,
                errors: 0,
                parked: 0,
                verified: None,
                rate: Rate {
                    per_second: 0.0,
                    at: Instant::now(),
                },
                pending_since: None,
            }),
            condition: Condvar::new(),
            changed: watch::Sender::new(()),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        {
            let mut inner = self.inner.lock();
            inner.version += 1;
            change(&mut inner);
        }
        self.condition.notify_all();
        self.changed.send_replace(());
    }

    /// Where it runs from now on. Where it comes here, it begins anew.
    pub(crate) fn set_place(&self, place: Place) {
        if self.inner.lock().place == place {
            return;
        }
        self.change(|inner| {
            let is_here = matches!(inner.place, Place::Here(_));
            inner.place = place;
            if matches!(place, Place::Here(_)) && !is_here {
                inner.state = SinkState::Starting;
                inner.position = None;
                inner.last_error = None;
                inner.last_error_over_at_ms = None;
            }
        });
    }

    pub(crate) fn place(&self) -> Place {
        self.inner.lock().place
    }

    /// Waits until something changes, or the time is over.
    pub(crate) async fn changed(&self, timeout: Duration) {
        let mut changed = self.changed.subscribe();
        let _ = tokio::time::timeout(timeout, changed.changed()).await;
    }

    pub(crate) fn set_state(&self, state: SinkState) {
        if self.inner.lock().state != state {
            self.change(|inner| inner.state = state);
        }
    }

    /// It follows the log. Answers the error that is over by this, if there was one.
    pub(crate) fn run(&self) -> Option<SinkFault> {
        let mut over = None;
        let needs_change = {
            let inner = self.inner.lock();
            inner.state != SinkState::Running
                || inner.last_error.is_some() && inner.last_error_over_at_ms.is_none()
        };
        if needs_change {
            self.change(|inner| {
                inner.state = SinkState::Running;
                if inner.last_error_over_at_ms.is_none() {
                    over.clone_from(&inner.last_error);
                    inner.last_error_over_at_ms = over.as_ref().map(|_| now_ms());
                }
            });
        }
        over
    }

    /// What the store says after connecting; it may be less than was known.
    pub(crate) fn set_position(&self, position: Option<Position>) {
        self.change(|inner| inner.position = position);
    }

    pub(crate) fn applied(&self, from: Position, to: Position) {
        self.change(|inner| {
            let records = to.get().saturating_sub(from.get());
            inner.position = Some(to);
            inner.applied_records += records;
            inner.rate.add(records);
        });
    }

    pub(crate) fn fail(&self, state: SinkState, fault: SinkFault) {
        self.change(|inner| {
            inner.state = state;
            inner.last_error = Some(fault);
            inner.last_error_over_at_ms = None;
            inner.errors += 1;
        });
    }

    /// It begins anew: what went wrong before no longer describes it.
    pub(crate) fn revive(&self, state: SinkState) {
        self.change(|inner| {
            inner.state = state;
            inner.last_error = None;
            inner.last_error_over_at_ms = None;
        });
    }

    pub(crate) fn set_parked(&self, keys: usize) {
        self.change(|inner| inner.parked = keys as u64);
    }

    pub(crate) fn set_verified(&self, summary: VerificationSummary) {
        self.change(|inner| inner.verified = Some(summary));
    }

    pub(crate) fn verified(&self) -> Option<VerificationSummary> {
        self.inner.lock().verified.clone()
    }

    /// Something that the status shows has changed elsewhere.
    pub(crate) fn touch(&self) {
        self.change(|_| {});
    }

    pub(crate) fn state(&self) -> SinkState {
        self.inner.lock().state()
    }

    /// Whether something went wrong since the sink was resumed.
    pub(crate) fn has_failed(&self) -> bool {
        self.inner.lock().last_error.is_some()
    }

    pub(crate) fn last_error(&self) -> SinkFault {
        let known = self.inner.lock().last_error.clone();
        known.unwrap_or_else(|| SinkFault::new("it does not follow the log now"))
    }

    pub(crate) fn parked(&self) -> u64 {
        self.inner.lock().parked
    }

    pub(crate) fn position(&self) -> Option<Position> {
        self.inner.lock().position
    }

    pub(crate) fn figures(&self) -> Figures {
        let inner = self.inner.lock();
        Figures {
            applied_records: inner.applied_records,
            errors: inner.errors,
        }
    }

    pub(crate) fn status(
        &self,
        node: &Node,
        retention: &RetentionHold,
        definition: SinkDefinition,
    ) -> SinkStatus {
        let mut status = {
            let inner = self.inner.lock();
            let is_here = matches!(inner.place, Place::Here(_));
            let (runs_on, waits_for) = match inner.place {
                Place::Here(node) | Place::Elsewhere(node) => (node, None),
                Place::Waits(node) => (None, Some(node)),
            };
            SinkStatus {
                name: definition.name.clone(),
                kind: definition.target.kind().name(),
                state: inner.state(),
                runs_on,
                waits_for,
                position: inner.position.filter(|_| is_here),
                lag_records: None,
                lag_seconds: None,
                records_per_second: if is_here { inner.rate.now() } else { 0.0 },
                last_error: inner.last_error.clone().filter(|_| is_here),
                last_error_over_at_ms: inner.last_error_over_at_ms.filter(|_| is_here),
                parked: inner.parked,
                held_log_bytes: retention.held_bytes(),
                left_behind: retention.is_left_behind(),
                last_verification: inner.verified.clone(),
                definition,
            }
        };
        if let Some(position) = status.position {
            let lag = node.position().get().saturating_sub(position.get());
            status.lag_records = Some(lag);
            status.lag_seconds = match lag {
                0 => Some(0.0),
                _ => self.pending_since(node, position).map(age_seconds),
            };
        }
        status
    }

    /// When the first record at or behind `position` was ordered; read from the log, because a
    /// sink that does not follow the log does not know what it misses.
    fn pending_since(&self, node: &Node, position: Position) -> Option<u64> {
        let known = self.inner.lock().pending_since;
        if let Some((at, since)) = known
            && at == position
        {
            return Some(since);
        }
        let batch = node.read_log(position, 1).ok()?;
        let since = batch.transactions.first()?.timestamp_ms;
        self.inner.lock().pending_since = Some((position, since));
        Some(since)
    }

    fn timed_out(&self, name: &str, wanted: Position) -> SinkError {
        SinkError::TimedOut {
            name: name.to_owned(),
            wanted,
            position: self.inner.lock().position,
        }
    }

    pub(crate) async fn wait(
        &self,
        name: &str,
        wanted: Position,
        timeout: Duration,
    ) -> Result<(), SinkError> {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            loop {
                changed.mark_unchanged();
                if let Some(outcome) = self.inner.lock().outcome(name, wanted) {
                    return outcome;
                }
                // The sender lives as long as `self`.
                let _ = changed.changed().await;
            }
        };
        match tokio::time::timeout(timeout, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.timed_out(name, wanted)),
        }
    }

    pub(crate) fn wait_blocking(
        &self,
        name: &str,
        wanted: Position,
        timeout: Duration,
    ) -> Result<(), SinkError> {
        self.wait_until(timeout, |inner| inner.outcome(name, wanted))
            .unwrap_or_else(|| Err(self.timed_out(name, wanted)))
    }

    /// Blocks until `look` finds something; it is called after every change, not under a lock.
    pub(crate) fn watch<T>(&self, timeout: Duration, look: impl Fn() -> Option<T>) -> Option<T> {
        let deadline = Instant::now().checked_add(timeout)?;
        loop {
            let seen = self.inner.lock().version;
            if let Some(found) = look() {
                return Some(found);
            }
            let mut inner = self.inner.lock();
            while inner.version == seen {
                if self.condition.wait_until(&mut inner, deadline).timed_out() {
                    drop(inner);
                    return look();
                }
            }
        }
    }

    /// Blocks until the sink is in one of these states; whether it got there in time.
    pub(crate) fn wait_for_state(&self, states: &[SinkState], timeout: Duration) -> bool {
        self.wait_until(timeout, |inner| {
            states.contains(&inner.state()).then_some(())
        })
        .is_some()
    }

    fn wait_until<T>(&self, timeout: Duration, look: impl Fn(&Inner) -> Option<T>) -> Option<T> {
        let deadline = Instant::now().checked_add(timeout)?;
        let mut inner = self.inner.lock();
        loop {
            if let Some(found) = look(&inner) {
                return Some(found);
            }
            if self.condition.wait_until(&mut inner, deadline).timed_out() {
                return look(&inner);
            }
        }
    }
}

fn age_seconds(since_ms: u64) -> f64 {
    now_ms().saturating_sub(since_ms) as f64 / 1000.0
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
