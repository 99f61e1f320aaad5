//! What can go wrong with a sink as a whole.

use onelog::{Position, Refusal};
use onelog_record::{Offset, Quoted};
use serde::Serialize;
use serde_json::Value;

use onelog_mapping::DefinitionError;
use onelog_store::{StoreError, StoreErrorCode, VerifyError};

/// The sinks of a node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SinksError {
    /// The table of definitions cannot be read.
    #[error("reading the definitions of sinks: {0}")]
    Read(#[from] onelog::ReadError),
    /// No thread could be made.
    #[error("starting the thread of the sink '{name}': {cause}")]
    Thread { name: String, cause: std::io::Error },
}

/// What a configuration declares of a sink was not put in force.
#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(
        "node {node} of the cluster, which runs the sink '{name}', refused the definition: {fault}"
    )]
    Refused {
        name: String,
        node: u64,
        fault: String,
    },
}

/// A request to the sinks was not served.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The definition is at fault.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// Another sink has this name.
    #[error("there is a sink '{name}' already; delete it first or choose another name")]
    Exists { name: String },
    /// No sink has this name.
    #[error("there is no sink '{}'{}", Quoted(name), nearest.as_ref().map(|n| format!("; did you mean '{n}'?")).unwrap_or_default())]
    Unknown {
        name: String,
        /// The nearest one that exists.
        nearest: Option<String>,
    },
    /// Over the limit of sinks.
    #[error("there are {max} sinks, which is the limit")]
    TooMany { max: usize },
    /// The store cannot be used for this sink.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The definition could not be committed.
    #[error("the definition could not be committed: {0}")]
    Commit(#[from] Refusal),
    /// The sink did not get there in time.
    #[error("the sink '{name}' did not reach position {wanted} in time; it is at {}", position.map_or_else(|| "no position yet".to_owned(), |p| p.to_string()))]
    TimedOut {
        name: String,
        /// What was waited for.
        wanted: Position,
        position: Option<Position>,
    },
    /// The sink has stopped, so it will not get there.
    #[error("the sink '{name}' has stopped: {fault}")]
    Stopped { name: String, fault: Box<SinkFault> },
    /// The sink has no store open now; it tries again by itself.
    #[error(
        "the sink '{name}' waits for its store, so nothing was done; it tries again by itself: {fault}"
    )]
    Waiting { name: String, fault: Box<SinkFault> },
    /// Its state at the sink's position is no longer kept.
    #[error(
        "the sink '{name}' is at position {position}, too far behind to be compared: the oldest position that can be read is {floor}. {}",
        if *is_paused { "It is paused: resume it, and let it catch up first" } else { "Let it catch up first" }
    )]
    TooFarBehind {
        name: String,
        is_paused: bool,
        position: Position,
        /// The oldest readable position.
        floor: Position,
    },
    /// Its store is ahead of the log.
    #[error(
        "the store of the sink '{name}' is at position {position}, but the log ends at {latest}: one of them was restored from another time, so they cannot be compared; rebuild the sink to make the store equal to the log"
    )]
    Ahead {
        name: String,
        position: Position,
        /// The end of the log.
        latest: Position,
    },
    /// The sink's store has not been backfilled yet.
    #[error("the sink '{name}' has not been backfilled yet, so there is nothing to compare")]
    NotBackfilled { name: String },
    /// A sink that does not follow has no position in its store.
    #[error(
        "the store has no position of the sink '{name}', so there is nothing to compare: it was never backfilled, or it was emptied or replaced since. The sink does not follow because of this: {fault}"
    )]
    NothingThere { name: String, fault: Box<SinkFault> },
    /// A repair would delete more than is allowed without being asked for.
    #[error(
        "a repair would delete {deletes} of the {rows} rows of '{into}', because the log does not have them; it was stopped before that. If that is right, let it: onelog sinks verify {name} --repair --delete-rows (or \"max_deletes\" in the definition); if not, see which table of the log the sink follows, and what its 'where' leaves out"
    )]
    TooManyDeletes {
        name: String,
        into: String,
        deletes: u64,
        rows: u64,
    },
    /// The log's own state cannot be read.
    #[error("reading the log's state: {cause}")]
    Read { cause: onelog::ReadError },
    /// The sink met another fault while it served a request.
    #[error("the sink could not do it: {fault}")]
    Failed { fault: Box<SinkFault> },
    /// A name that means something else.
    #[error(
        "'{name}' cannot be the name of a sink: it means something else in the paths of the API"
    )]
    Reserved { name: String },
    /// What is to be forgotten is in use.
    #[error("the sink '{name}' writes to this store; to end it, delete it")]
    StillThere { name: String },
    /// What is to be forgotten is another log's, and nothing in a store says whether that one lives.
    #[error(
        "in {store} the sink '{name}' is one of the log {log}, {}, and this log is {ours}; nothing was changed. Where a server with that log still runs it, it would stop, and its tables could be taken by other sinks. If it is to be released all the same: onelog sinks forget … --release-other-log",
        position.map_or_else(|| "without a position under this definition".to_owned(), |p| format!("at position {p}"))
    )]
    OfOtherLog {
        name: String,
        store: String,
        log: String,
        ours: String,
        position: Option<Position>,
    },
    /// The comparison failed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Another node of the cluster runs the sink.
    #[error("{}, so nothing was done here: send the request again; any server of the cluster has it carried out where the sink runs", match runs_on {
        Some(node) => format!("the sink '{name}' runs on node {node} of the cluster, or is moving there"),
        None => format!("the sink '{name}' runs on no node of the cluster now, because it has no leader, or a new one"),
    })]
    Elsewhere {
        name: String,
        /// Which one, where that is known.
        runs_on: Option<u64>,
    },
    /// The store is on the machine of a node that is lost.
    #[error(
        "the sink '{name}' waits for node {node} of the cluster, which is out of reach, because its store is on that node's machine; nothing was done. Start that node, or give the sink another one: onelog sinks replace, with another 'run_on'"
    )]
    NodeLost { name: String, node: u64 },
    /// Too much is requested of the sink at once: nothing was done.
    #[error("the sink '{name}' is busy; try again")]
    Busy { name: String },
    /// The sink has the request, and waits for its store.
    #[error(
        "the sink '{name}' has not answered in time, for example because its store does not answer: the request may still be carried out. See what the sink does before it is requested again: onelog sinks show {name}"
    )]
    Unanswered { name: String },
    /// No thread could be made.
    #[error(transparent)]
    Start(#[from] SinksError),
}

/// The last thing that went wrong with a sink.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SinkFault {
    /// A text for people, with the store's own message in it.
    pub what: String,
    /// [`StoreError::code`], where the store is what failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<StoreErrorCode>,
    /// The table of the record that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Value>,
    /// Its place in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

impl std::fmt::Display for SinkFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl SinkFault {
    pub(crate) fn new(what: impl std::fmt::Display) -> Self {
        Self {
            what: what.to_string(),
            code: None,
            table: None,
            key: None,
            offset: None,
            at_ms: crate::progress::now_ms(),
        }
    }

    pub(crate) fn of(error: &StoreError) -> Self {
        let mut fault = Self::new(error);
        fault.code = Some(error.code());
        if let StoreError::Refused(refused) = error {
            fault.table = Some(refused.table.clone());
            fault.key = Some(refused.key.clone());
            fault.offset = Some(refused.offset);
        }
        fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_met_a_sink_elsewhere_can_be_sent_again_to_any_node() {
        for runs_on in [Some(2), None] {
            let name = "s".to_owned();
            let text = SinkError::Elsewhere { name, runs_on }.to_string();
            assert!(text.contains("nothing was done here"), "{text}");
            assert!(text.contains("any server of the cluster"), "{text}");
            assert_eq!(text.contains("on node 2"), runs_on.is_some(), "{text}");
        }
    }

    #[test]
    fn a_sink_that_is_too_far_behind_catches_up_by_itself_unless_it_is_paused() {
        for is_paused in [true, false] {
            let error = SinkError::TooFarBehind {
                name: "s".to_owned(),
                is_paused,
                position: Position(5),
                floor: Position(7),
            };
            let text = error.to_string();
            assert!(
                text.to_lowercase().ends_with("let it catch up first"),
                "{text}"
            );
            assert_eq!(text.contains("resume it"), is_paused, "{text}");
        }
    }
}
