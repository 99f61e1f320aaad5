//! How much of the log is kept for a sink: all that it needs, or as much as its definition allows.
//! A sink whose store is dead or slow holds no more than that; when it comes back and the log no
//! longer reaches back to it, its store is backfilled from a snapshot.
//!
//! Advanced by the sink's thread, looked at by the thread `sinks-retention`: a thread that hangs in
//! a store cannot look.

use onelog::{Follower, Node, Position};
use parking_lot::Mutex;

/// From this part of the limit on there are warnings, in percent.
const WARN_PERCENT: u64 = 50;
/// Below this part of the limit the next warning is armed again, in percent.
const CALM_PERCENT: u64 = 40;

#[derive(Debug)]
struct State {
    /// The sink's last known position.
    at: Position,
    warned: bool,
    left_behind: bool,
}

/// The hold of one sink on the log.
#[derive(Debug)]
pub(crate) struct RetentionHold {
    node: Node,
    name: String,
    limit: Option<u64>,
    follower: Follower,
    state: Mutex<State>,
}

impl RetentionHold {
    pub(crate) fn new(node: Node, name: &str, limit: Option<u64>, from: Position) -> Self {
        let follower = node.follower(&onelog::sink_follower(name), from);
        Self {
            node,
            name: name.to_owned(),
            limit,
            follower,
            state: Mutex::new(State {
                at: from,
                warned: false,
                left_behind: false,
            }),
        }
    }

    /// What lies below `position` is needed no longer.
    pub(crate) fn advance(&self, position: Position) {
        let mut state = self.state.lock();
        state.at = position;
        if state.left_behind && self.is_out_of_reach(position) {
            return;
        }
        state.left_behind = false;
        self.follower.advance(position);
    }

    /// The sink's last known position.
    pub(crate) fn position(&self) -> Position {
        self.state.lock().at
    }

    /// Bytes of log behind the sink.
    pub(crate) fn held_bytes(&self) -> u64 {
        let at = self.state.lock().at;
        self.node.log_bytes_from(at)
    }

    /// Whether the log is no longer kept for this sink.
    pub(crate) fn is_left_behind(&self) -> bool {
        self.state.lock().left_behind
    }

    /// Whether a sink that was left behind stays so at this position.
    fn is_out_of_reach(&self, position: Position) -> bool {
        position < self.node.log_start() || self.is_over(self.node.log_bytes_from(position))
    }

    fn is_over(&self, bytes: u64) -> bool {
        self.limit.is_some_and(|limit| bytes > limit)
    }

    /// Looks whether the log behind the sink is within the limit. Answers whether it was let go.
    pub(crate) fn check(&self) -> bool {
        let Some(limit) = self.limit else {
            return false;
        };
        let mut state = self.state.lock();
        let bytes = self.node.log_bytes_from(state.at);
        let percent = |part: u64| limit / 100 * part + limit % 100 * part / 100;
        if bytes < percent(CALM_PERCENT) {
            state.warned = false;
        } else if bytes >= percent(WARN_PERCENT) && !state.warned && !self.is_over(bytes) {
            state.warned = true;
            tracing::warn!(
                sink = self.name, bytes, limit, position = %state.at,
                "the log that is kept for a slow or dead sink comes near its limit; over it the sink is left behind and backfilled later"
            );
        }
        // Only the sink itself catches up: what is cut counts no bytes, but it is still missing.
        if state.left_behind || !self.is_over(bytes) {
            return false;
        }
        state.left_behind = true;
        self.follower.let_go();
        tracing::warn!(
            sink = self.name, bytes, limit, position = %state.at,
            "the log behind a sink is over its limit and no longer kept for it: when the sink comes back its store is backfilled"
        );
        true
    }
}
