//! Why the demonstration ended without success.

use std::io;
use std::path::PathBuf;

use onelog_client::ClientError;

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Between a client and the demonstration's own server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An address that cannot be used.
    #[error("{0}")]
    Usage(String),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    /// Anything else, in a sentence.
    #[error("{0}")]
    Failed(String),
}
