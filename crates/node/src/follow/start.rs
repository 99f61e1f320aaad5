//! The start of a read replica: whose log it follows, before anything is opened.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onelog_log::Disk;

use super::{Source, SourceError, thread};
use crate::cluster::{ClusterError, Own, START_TIMEOUT, own_log};
use crate::shared::Shared;

/// The pause before a source is asked again for its log's id.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// A read replica cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// A folder without a log, and nobody who says which it is to have.
    #[error(
        "the folder is empty, and {address}, which is to be followed, has not answered within {} s ({why}): start that server first, or correct the address", START_TIMEOUT.as_secs()
    )]
    NoAnswer { address: String, why: SourceError },
    #[error("a node is one of several, or it follows another server as a read replica, not both")]
    InCluster,
    #[error("the log's folder cannot be read: {0}")]
    Log(Box<ClusterError>),
}

/// The id of the log that the folder has; where it has none, that of the source. Blocks.
pub(crate) fn log_id(log: &dyn Disk, source: &dyn Source) -> Result<u128, FollowError> {
    match own_log(log).map_err(|error| FollowError::Log(Box::new(error)))? {
        Own::Log(log_id) => return Ok(log_id),
        Own::Empty | Own::Unknown => {}
    }
    let deadline = Instant::now() + START_TIMEOUT;
    let mut logged = None;
    loop {
        match source.log_id() {
            Ok(log_id) => return Ok(log_id),
            Err(why) if Instant::now() >= deadline => {
                let address = source.address().to_owned();
                return Err(FollowError::NoAnswer { address, why });
            }
            Err(why) => {
                if logged.as_ref() != Some(&why) {
                    let (source, timeout_s) = (source.address(), START_TIMEOUT.as_secs());
                    tracing::warn!(%source, %why, timeout_s, "waiting for the source to say which log it has");
                    logged = Some(why);
                }
                std::thread::sleep(ASK_AGAIN);
            }
        }
    }
}

/// Starts the thread that follows.
pub(crate) fn begin(shared: &Arc<Shared>) -> std::io::Result<()> {
    let Some(following) = &shared.following else {
        return Ok(());
    };
    let thread_of = Arc::clone(shared);
    let thread = std::thread::Builder::new()
        .name("onelog-follow".to_owned())
        .spawn(move || thread::run(&thread_of))?;
    *following.thread.lock() = Some(thread);
    Ok(())
}
