//! Why a replica stopped by itself.

use onelog_engine::EngineError;
use onelog_log::{CloseError, CutError, FlushError, ReadError, RestartError, StageError};
use onelog_record::{BodyError, Index, NodeId};
use onelog_state::{ApplyError, CheckpointError, InstallError, ReadFault};

use crate::catalog::CatalogError;
use crate::digests::Contents;

/// Final: the replica stops acknowledging and says why. Starting it again recovers from the disk.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A flush failed. It is never tried again: the kernel may have dropped what it could not write.
    #[error("the log could not be flushed: {0}; free space or mend the disk, then start again")]
    Flush(#[from] FlushError),
    /// The log could not take more.
    #[error("the log could not be written: {0}")]
    Stage(#[from] StageError),
    /// The log's end could not be cut.
    #[error("the log's end could not be cut: {0}")]
    Cut(#[from] CutError),
    /// Another node's state could not be put in place.
    #[error("another node's state could not be installed: {0}")]
    Install(#[from] InstallError),
    /// The log could not begin anew behind another node's state.
    #[error("the log could not be restarted behind another node's state: {0}")]
    Restart(#[from] RestartError),
    /// Entries could not be read for a follower.
    #[error("the log could not be read for a follower: {0}")]
    Read(#[from] ReadError),
    /// Term and vote could not be saved.
    #[error("the hard state could not be saved: {0}")]
    HardState(std::io::Error),
    /// The engine could not go on.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A committed entry could not be applied.
    #[error("a committed entry could not be applied: {0}")]
    Apply(#[from] ApplyError),
    /// A committed entry is malformed.
    #[error("a committed entry is malformed: {0}")]
    Body(#[from] BodyError),
    /// A definition could not be understood.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The state's file is damaged or its disk fails: nothing can be read of it any more.
    #[error(transparent)]
    State(#[from] ReadFault),
    /// A checkpoint failed; the log still has everything.
    #[error("a checkpoint failed: {0}; free space or mend the disk, then start again")]
    Checkpoint(#[from] CheckpointError),
    /// Old segments could not be removed.
    #[error("the log's start could not be cut: {0}")]
    Retention(String),
    /// The log could not be closed in order; nothing is lost by that.
    #[error("the log could not be closed in order: {0}")]
    Close(#[from] CloseError),
    /// This replica's state or log is not that of the others.
    #[error(
        "what node {node} holds differs from most other nodes behind entry {index}: it has {own}, they have {others}. Remove node {node} from the cluster, and let this machine join it with an empty folder under a new number; keep the folder, and report this"
    )]
    StateDiverged {
        node: NodeId,
        index: Index,
        own: Contents,
        others: Contents,
    },
    /// A thread of the driver ended that must not.
    #[error("the {0} thread ended unexpectedly")]
    Thread(&'static str),
    /// A thread of the driver panicked.
    #[error(
        "the thread {thread} panicked: {message}; this is a fault of onelog: start again, which recovers from the disk, and report it"
    )]
    Panicked {
        thread: &'static str,
        message: String,
    },
}
