//! How far the log's timestamps are ahead of this node's clock. They never fall, so a leader whose
//! clock is far ahead leaves them there until every clock has caught up: until then nothing gets old
//! enough for retention.

use crate::events::Now;
use crate::observer::Observer;
use crate::replica::Replica;

/// Beyond this the log's timestamps are said to be ahead. Clocks that are kept in time differ by far
/// less.
const AHEAD_MS_MAX: u64 = 60_000;
/// Within this it is over: half of it, so that what is near the limit is not said again and again.
const OVER_MS: u64 = AHEAD_MS_MAX / 2;

#[derive(Debug, Default)]
pub(crate) struct LogClock {
    ahead_ms: u64,
    has_warned: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    Ahead,
    Over,
}

impl LogClock {
    fn look(&mut self, ahead_ms: u64) -> Option<Change> {
        self.ahead_ms = ahead_ms;
        let change = match self.has_warned {
            false if ahead_ms > AHEAD_MS_MAX => Change::Ahead,
            true if ahead_ms <= OVER_MS => Change::Over,
            _ => return None,
        };
        self.has_warned = change == Change::Ahead;
        Some(change)
    }
}

impl<T, O: Observer> Replica<T, O> {
    /// By how many milliseconds the log's last timestamp was ahead of this node's clock when it was
    /// looked at last; 0 where it is behind.
    #[must_use]
    pub const fn log_ahead_ms(&self) -> u64 {
        self.log_clock.ahead_ms
    }

    pub(crate) fn look_at_clock(&mut self, now: Now) {
        let last_ms = self.engine.applied().timestamp_ms;
        let ahead_ms = last_ms.saturating_sub(now.unix_ms);
        if ahead_ms != self.log_clock.ahead_ms {
            self.observer.log_ahead(ahead_ms);
        }
        match self.log_clock.look(ahead_ms) {
            Some(Change::Ahead) => tracing::warn!(
                ahead_ms,
                "the log's timestamps are ahead of this node's clock: the clock of a leader was ahead, or this one is behind; until clocks have caught up, retention by age cuts nothing and new entries get the log's last timestamp: set the clocks of all nodes by NTP"
            ),
            Some(Change::Over) => {
                tracing::info!(
                    ahead_ms,
                    "this node's clock has caught up with the log's timestamps"
                );
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_episode_is_said_once_and_its_end_once() {
        let mut clock = LogClock::default();
        let mut said = |ahead_ms| clock.look(ahead_ms);
        // Given clocks that differ by what is usual, nothing is said.
        assert_eq!([said(0), said(500), said(AHEAD_MS_MAX)], [None, None, None]);
        // When the log is far ahead it is said once, also when it goes to and fro at the limit,
        assert_eq!(said(AHEAD_MS_MAX + 1), Some(Change::Ahead));
        assert_eq!(
            [said(3_600_000), said(AHEAD_MS_MAX), said(AHEAD_MS_MAX + 1)],
            [None, None, None]
        );
        // then its end, once, and the next episode again.
        assert_eq!([said(OVER_MS), said(0)], [Some(Change::Over), None]);
        assert_eq!(said(u64::MAX), Some(Change::Ahead));
    }
}
