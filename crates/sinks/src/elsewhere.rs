//! Waiting for a sink that another node of the cluster runs, and giving it the definition that a
//! configuration declares: that node is called.
//!
//! A call that waits is short, so that one that meets a node which no longer runs the sink goes to the
//! next; as often as it takes.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog::{Answering, Position, Subject};
use onelog_store::SinkDefinition;
use serde::{Deserialize, Serialize};

use crate::error::{DeclareError, SinkError, SinkFault};
use crate::handle::Found;
use crate::progress::Place;
use crate::sinks::{Inner, Sinks};

/// How long one call waits at the other node.
const ROUND: Duration = Duration::from_secs(5);
/// How long the answer may take on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// How long the other node may take to replace a definition: a batch under way ends first.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause before another attempt, unless the sink moves before.
const PAUSE: Duration = Duration::from_millis(50);

/// How much of a fault is sent.
const FAULT_BYTES_MAX: usize = 4 << 10;

/// What a node calls another one about.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    /// Whether a sink has reached a position, within so many milliseconds.
    Wait {
        sink: String,
        position: Position,
        within_ms: u64,
    },
    /// A sink gets another definition, in its stored form.
    Replace { definition: serde_json::Value },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// Its store shows everything below this position.
    Reached {
        position: Position,
    },
    NotYet {
        position: Option<Position>,
    },
    Stopped {
        fault: String,
    },
    Replaced,
    NotReplaced {
        fault: String,
    },
    /// It does not run there.
    Elsewhere,
}

/// What a store says may be long.
fn shortened(mut what: String) -> String {
    if what.len() > FAULT_BYTES_MAX {
        what.truncate(what.floor_char_boundary(FAULT_BYTES_MAX));
        what.push('…');
    }
    what
}

/// From now on other nodes are answered.
pub(crate) fn answer_calls(inner: &Arc<Inner>) {
    let sinks = Arc::downgrade(inner);
    let node = &inner.node;
    node.answer_calls(Subject::Sinks, move |bytes: Bytes| -> Answering {
        let sinks = sinks.clone();
        Box::pin(async move {
            let answer = match serde_json::from_slice(&bytes).ok()? {
                Call::Wait {
                    sink,
                    position,
                    within_ms,
                } => {
                    let within = Duration::from_millis(within_ms).min(ROUND);
                    answer_wait(&sinks, &sink, position, within).await?
                }
                Call::Replace { definition } => {
                    let inner = sinks.upgrade()?;
                    let replace = move || answer_replace(inner, &definition);
                    tokio::task::spawn_blocking(replace).await.ok()?
                }
            };
            Some(serde_json::to_vec(&answer).ok()?.into())
        })
    });
}

async fn answer_wait(
    sinks: &Weak<Inner>,
    sink: &str,
    position: Position,
    within: Duration,
) -> Option<Answer> {
    // The sinks must not live for as long as others wait.
    let found = sinks.upgrade()?.find(sink);
    let Ok(Found { progress, .. }) = found else {
        return Some(Answer::Elsewhere);
    };
    Some(match progress.wait(sink, position, within).await {
        Ok(()) => Answer::Reached {
            position: progress.position().unwrap_or(position),
        },
        Err(SinkError::Stopped { fault, .. }) => Answer::Stopped {
            fault: shortened(fault.what),
        },
        Err(SinkError::TimedOut { position, .. }) => Answer::NotYet { position },
        Err(_) => Answer::Elsewhere,
    })
}

fn answer_replace(inner: Arc<Inner>, definition: &serde_json::Value) -> Answer {
    let read = SinkDefinition::from_json(inner.kinds, definition);
    let replaced = read.map_err(SinkError::from);
    let replaced = replaced.and_then(|read| Sinks { inner }.replace_ahead(read));
    match replaced {
        Ok(()) => Answer::Replaced,
        Err(SinkError::Elsewhere { .. }) => Answer::Elsewhere,
        Err(error) => Answer::NotReplaced {
            fault: shortened(error.to_string()),
        },
    }
}

impl Sinks {
    /// The other node that runs a sink. `None`: this one does, none does now, or there is no such sink.
    pub async fn runs_on_another(&self, name: &str) -> Option<u64> {
        let found = self.known(name).await.ok()?;
        match found.progress.place() {
            Place::Here(_) | Place::Waits(_) => None,
            Place::Elsewhere(runs_on) => runs_on,
        }
    }

    /// What is known of a sink, also where another node has just defined it.
    pub(crate) async fn known(&self, name: &str) -> Result<Found, SinkError> {
        let inner = &self.inner;
        let unknown = match inner.find(name) {
            Err(unknown @ SinkError::Unknown { .. }) if inner.node.cluster().is_some() => unknown,
            other => return other,
        };
        let begun = Instant::now();
        // Without a leader it stays unknown.
        if inner.node.read_barrier().await.is_err() {
            return Err(unknown);
        }
        while !inner.try_catch_up() && begun.elapsed() < ROUND {
            tokio::time::sleep(PAUSE).await;
        }
        inner.find(name)
    }

    /// Waits until a sink has reached a position, wherever it runs; where it is then.
    pub(crate) async fn reach(
        &self,
        name: &str,
        position: Position,
        timeout: Duration,
    ) -> Result<Option<Position>, SinkError> {
        let begun = Instant::now();
        let mut known = None;
        loop {
            let progress = self.known(name).await?.progress;
            let left = timeout.saturating_sub(begun.elapsed());
            let runs_on = match progress.wait(name, position, left).await {
                Err(SinkError::Elsewhere { runs_on, .. }) => runs_on,
                // The node may be back in time.
                Err(SinkError::NodeLost { .. }) if !left.is_zero() => {
                    progress.changed(PAUSE.min(left)).await;
                    continue;
                }
                outcome => return outcome.map(|()| progress.position()),
            };
            if left.is_zero() {
                return Err(SinkError::TimedOut {
                    name: name.to_owned(),
                    wanted: position,
                    position: known,
                });
            }
            let answer = match runs_on {
                Some(node) => self.call_wait(node, name, position, left).await,
                None => None,
            };
            match answer {
                Some(Answer::Reached { position }) => return Ok(Some(position)),
                Some(Answer::Stopped { fault }) => {
                    return Err(SinkError::Stopped {
                        name: name.to_owned(),
                        fault: Box::new(SinkFault::new(fault)),
                    });
                }
                Some(Answer::NotYet { position }) => known = position,
                // What else there is answers no wait.
                Some(_) | None => {
                    if progress.place() == Place::Elsewhere(runs_on) {
                        progress.changed(PAUSE.min(left)).await;
                    }
                }
            }
        }
    }

    /// Gives a sink the definition that a configuration declares, wherever it runs, also while its
    /// store cannot be reached. [`SinkError::Elsewhere`]: it is moving, or the node that runs it did not
    /// answer; request it again.
    pub fn declare(&self, definition: SinkDefinition) -> Result<(), DeclareError> {
        let name = definition.name.clone();
        let stored = definition.to_stored();
        let elsewhere = match self.replace_ahead(definition) {
            Err(SinkError::Elsewhere { runs_on, .. }) => runs_on,
            outcome => return Ok(outcome?),
        };
        let answer = match elsewhere {
            Some(node) => {
                let call = Call::Replace { definition: stored };
                let called = self.call(node, &name, &call, REPLACE_TIMEOUT);
                runtime(&name)?.block_on(called)
            }
            None => None,
        };
        match (answer, elsewhere) {
            (Some(Answer::Replaced), _) => Ok(()),
            (Some(Answer::NotReplaced { fault }), Some(node)) => {
                Err(DeclareError::Refused { name, node, fault })
            }
            (_, runs_on) => Err(SinkError::Elsewhere { name, runs_on }.into()),
        }
    }

    async fn call_wait(
        &self,
        node: u64,
        name: &str,
        position: Position,
        left: Duration,
    ) -> Option<Answer> {
        let within = left.min(ROUND);
        let call = Call::Wait {
            sink: name.to_owned(),
            position,
            within_ms: within.as_millis() as u64,
        };
        self.call(node, name, &call, within + ON_ITS_WAY).await
    }

    async fn call(&self, node: u64, name: &str, call: &Call, within: Duration) -> Option<Answer> {
        let bytes = Bytes::from(serde_json::to_vec(call).ok()?);
        let node = onelog::NodeId(node);
        let called = self.inner.node.call(node, Subject::Sinks, bytes, within);
        match called.await {
            Ok(answer) => serde_json::from_slice(&answer).ok(),
            Err(error) => {
                tracing::debug!(sink = name, %error, "a node that runs a sink did not answer");
                None
            }
        }
    }

    /// [`Sinks::reach`] for threads that block.
    pub(crate) fn reach_blocking(
        &self,
        name: &str,
        position: Position,
        timeout: Duration,
    ) -> Result<Option<Position>, SinkError> {
        let begun = Instant::now();
        match self.inner.find(name) {
            Ok(Found { progress, .. }) => match progress.wait_blocking(name, position, timeout) {
                Err(SinkError::Elsewhere { .. } | SinkError::NodeLost { .. }) => {}
                outcome => return outcome.map(|()| progress.position()),
            },
            Err(error) if self.inner.node.cluster().is_none() => return Err(error),
            Err(_) => {}
        }
        let runtime = runtime(name)?;
        let left = timeout.saturating_sub(begun.elapsed());
        runtime.block_on(self.reach(name, position, left))
    }

    /// [`Sinks::check_names`] for threads that block.
    pub(crate) fn check_names_blocking(&self, names: &[String]) -> Result<(), SinkError> {
        let unknown = names.iter().find(|name| self.inner.find(name).is_err());
        match unknown {
            None => Ok(()),
            Some(name) => runtime(name)?.block_on(self.check_names(names)),
        }
    }
}

fn runtime(name: &str) -> Result<tokio::runtime::Runtime, SinkError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.map_err(|_| SinkError::Busy {
        name: name.to_owned(),
    })
}
