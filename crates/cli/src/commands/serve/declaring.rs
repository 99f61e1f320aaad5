//! What the configuration of a cluster's node declares is made as soon as a leader is there: on a thread
//! of its own, `onelog-declare`, again where it fails for a reason that can pass.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use onelog::Node;
use onelog_command::CommandError;
use onelog_sinks::Sinks;

use super::declared;
use crate::config::Declarations;

/// How often it is looked for a leader.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The pause before another attempt.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Declaring {
    /// Dropped, it ends the thread.
    goes_on: Sender<()>,
    thread: JoinHandle<()>,
}

impl Declaring {
    /// `None` where nothing is declared.
    pub fn begin(declared: Declarations, node: Node, sinks: Sinks) -> io::Result<Option<Self>> {
        if declared.tables.is_empty() && declared.sinks.is_empty() {
            return Ok(None);
        }
        let (goes_on, ended) = channel();
        let thread = Builder::new()
            .name("onelog-declare".to_owned())
            .spawn(move || declare(&declared, &node, &sinks, &ended))?;
        Ok(Some(Self { goes_on, thread }))
    }

    /// Tells the thread to end. It does at once when its node stops.
    pub fn end(self) -> JoinHandle<()> {
        drop(self.goes_on);
        self.thread
    }
}

fn declare(declared: &Declarations, node: &Node, sinks: &Sinks, ended: &Receiver<()>) {
    let mut said = String::new();
    loop {
        while node.leader().is_none() {
            if !pause(ended, LOOK_EVERY) {
                return;
            }
        }
        // What this node has not heard of yet must not be taken for what is not there.
        let applied = match node.read_barrier_blocking() {
            Ok(_) => declared::apply(declared, node, sinks),
            Err(refusal) => Err(CommandError::Failed(refusal.to_string())),
        };
        match applied {
            Ok(()) => return,
            Err(error @ CommandError::Failed(_)) => {
                let text = error.to_string();
                if text != said {
                    tracing::warn!("what the configuration declares is not all there yet: {text}");
                    said = text;
                }
            }
            Err(error) => {
                tracing::error!("what the configuration declares is not made: {error}");
                return;
            }
        }
        if !pause(ended, PAUSE) {
            return;
        }
    }
}

/// Whether the server goes on.
fn pause(ended: &Receiver<()>, pause: Duration) -> bool {
    ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout)
}
