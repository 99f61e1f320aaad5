//! Why a command ended without success, and the exit status that says so.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use onelog_client::ClientError;

/// The exit status of an error.
const STATUS_ERROR: u8 = 1;
/// The exit status of a wrong use of the command.
const STATUS_USAGE: u8 = 2;

/// A command that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Between here and the server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A configuration that cannot be used.
    #[error(transparent)]
    Config(Box<dyn Error + Send + Sync>),
    /// The command was used wrongly.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// Standard output could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    /// Anything else, in a sentence.
    #[error("{0}")]
    Failed(String),
    /// What was found is the failure, and was printed already.
    #[error("")]
    Reported,
}

impl CommandError {
    /// Prints the error, if there is something to say, and answers the exit status.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            Self::Reported => {}
            other => eprintln!("error: {other}"),
        }
        match self {
            Self::Usage(_) | Self::Config(_) => ExitCode::from(STATUS_USAGE),
            _ => ExitCode::from(STATUS_ERROR),
        }
    }
}
