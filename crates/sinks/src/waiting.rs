//! Waiting for sinks: read-your-writes in any store, on any node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use onelog::{CommitRequest, Committed, Node, Position, Refusal};
use serde::Serialize;

use crate::error::SinkError;
use crate::handle::Found;
use crate::progress::SinkStatus;
use crate::sinks::Sinks;

/// How far a sink got during a wait for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Waited {
    /// Whether its store shows everything below the position that was waited for.
    pub reached: bool,
    pub position: Option<Position>,
    /// Why it did not get there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many keys are parked: their rows are old even where the position is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked: Option<u64>,
}

/// A transaction whose effects were to be awaited in stores was not made.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// A name is no sink's; nothing was committed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The transaction was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Waited {
    fn new(found: &Found, node: &Node, outcome: Result<Option<Position>, SinkError>) -> Self {
        let parked = found.parked(node);
        let position = match &outcome {
            Ok(position) | Err(SinkError::TimedOut { position, .. }) => *position,
            Err(_) => found.progress.position(),
        };
        Self {
            reached: outcome.is_ok(),
            position,
            reason: outcome.err().map(|error| error.to_string()),
            parked: (parked > 0).then_some(parked),
        }
    }

    /// It is unknown how far it got.
    #[must_use]
    pub fn given_up(reason: impl std::fmt::Display) -> Self {
        Self {
            reached: false,
            position: None,
            reason: Some(reason.to_string()),
            parked: None,
        }
    }
}

impl Sinks {
    /// Waits until a sink has reached a position: then its store shows everything below it.
    pub async fn wait(
        &self,
        name: &str,
        position: Position,
        timeout: Duration,
    ) -> Result<SinkStatus, SinkError> {
        let at = self.reach(name, position, timeout).await?;
        self.reached(name, at)
    }

    /// [`Sinks::wait`] for threads that block.
    pub fn wait_blocking(
        &self,
        name: &str,
        position: Position,
        timeout: Duration,
    ) -> Result<SinkStatus, SinkError> {
        let at = self.reach_blocking(name, position, timeout)?;
        self.reached(name, at)
    }

    /// The status, with the position that was reached also where another node runs the sink.
    fn reached(&self, name: &str, at: Option<Position>) -> Result<SinkStatus, SinkError> {
        let status = self.get(name)?;
        Ok(SinkStatus {
            position: status.position.or(at),
            ..status
        })
    }

    /// Whether all these sinks exist.
    pub async fn check_names(&self, names: &[String]) -> Result<(), SinkError> {
        for name in names {
            self.known(name).await?;
        }
        Ok(())
    }

    /// Waits until several sinks have reached a position, and reports for each whether it did. One
    /// deadline holds for all.
    pub async fn wait_all(
        &self,
        names: &[String],
        position: Position,
        timeout: Duration,
    ) -> BTreeMap<String, Waited> {
        let begun = Instant::now();
        let mut out = BTreeMap::new();
        for name in names {
            let left = timeout.saturating_sub(begun.elapsed());
            let waited = match self.inner.find(name) {
                Ok(found) => {
                    let outcome = self.reach(name, position, left).await;
                    Waited::new(&found, &self.inner.node, outcome)
                }
                Err(error) => Waited::given_up(error),
            };
            out.insert(name.clone(), waited);
        }
        out
    }

    /// Commits a transaction and waits until sinks show it. A transaction that was committed stays
    /// committed, however the waiting ends. Blocks.
    pub fn submit_and_wait(
        &self,
        request: CommitRequest,
        names: &[String],
        timeout: Duration,
    ) -> Result<(Committed, BTreeMap<String, Waited>), SubmitError> {
        self.check_names_blocking(names)?;
        let committed = self.inner.node.submit(request).wait()?;
        let begun = Instant::now();
        let mut out = BTreeMap::new();
        for name in names {
            let left = timeout.saturating_sub(begun.elapsed());
            let waited = match self.inner.find(name) {
                Ok(found) => {
                    let outcome = self.reach_blocking(name, committed.position, left);
                    Waited::new(&found, &self.inner.node, outcome)
                }
                Err(error) => Waited::given_up(error),
            };
            out.insert(name.clone(), waited);
        }
        Ok((committed, out))
    }

    /// Blocks until a sink's status is as wanted, looked at after every change of it.
    pub fn wait_for_status(
        &self,
        name: &str,
        timeout: Duration,
        wanted: impl Fn(&SinkStatus) -> bool,
    ) -> Result<SinkStatus, SinkError> {
        let found = self.inner.find(name)?;
        let look = || {
            let status = self.get(name);
            match status {
                Ok(status) if !wanted(&status) => None,
                other => Some(other),
            }
        };
        found.progress.watch(timeout, look).unwrap_or_else(|| {
            Err(SinkError::Unanswered {
                name: name.to_owned(),
            })
        })
    }
}
