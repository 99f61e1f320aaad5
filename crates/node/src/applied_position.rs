//! The applied position, and those who wait for it: blocking threads and tasks alike.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onelog_record::Position;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// Waiting for a position ended without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    #[error("the position was not reached in time; the node is at {position}")]
    TimedOut { position: Position },
    #[error("the node has stopped")]
    Stopped,
}

/// One writer moves the position; readers load it or wait for it.
#[derive(Debug, Default)]
pub(crate) struct AppliedPosition {
    position: AtomicU64,
    stopped: AtomicBool,
    blocked: AtomicU64,
    lock: Mutex<()>,
    condition: Condvar,
    notify: Notify,
}

impl AppliedPosition {
    pub(crate) fn position(&self) -> Position {
        Position(self.position.load(Ordering::Acquire))
    }

    /// Moves the position and wakes those who wait.
    pub(crate) fn set(&self, position: Position) {
        self.position.store(position.get(), Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn wake(&self) {
        self.notify.notify_waiters();
        // A waiter counts itself under the lock before it looks at the position, so either it
        // sees the new position or it is counted here.
        if self.blocked.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock());
            self.condition.notify_all();
        }
    }

    fn reached(&self, position: Position) -> Option<Result<(), WaitError>> {
        if self.position.load(Ordering::SeqCst) >= position.get() {
            return Some(Ok(()));
        }
        self.is_stopped().then_some(Err(WaitError::Stopped))
    }

    pub(crate) fn wait_blocking(
        &self,
        position: Position,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        self.until_blocking(|| self.reached(position), timeout)
            .unwrap_or_else(|| self.timed_out())
    }

    pub(crate) async fn wait(
        &self,
        position: Position,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        let reached = self.until(|| self.reached(position), timeout).await;
        reached.unwrap_or_else(|| self.timed_out())
    }

    fn timed_out(&self) -> Result<(), WaitError> {
        Err(WaitError::TimedOut {
            position: self.position(),
        })
    }

    /// Waits for an answer of `ready`, which is asked whenever something was applied, and when the node
    /// stops.
    pub(crate) fn until_blocking<R>(
        &self,
        ready: impl Fn() -> Option<R>,
        timeout: Duration,
    ) -> Option<R> {
        if let Some(result) = ready() {
            return Some(result);
        }
        let deadline = Instant::now().checked_add(timeout);
        let mut guard = self.lock.lock();
        self.blocked.fetch_add(1, Ordering::SeqCst);
        let result = loop {
            if let Some(result) = ready() {
                break Some(result);
            }
            let timed_out = match deadline {
                Some(deadline) => self.condition.wait_until(&mut guard, deadline).timed_out(),
                None => {
                    self.condition.wait(&mut guard);
                    false
                }
            };
            if timed_out {
                break ready();
            }
        };
        self.blocked.fetch_sub(1, Ordering::SeqCst);
        result
    }

    /// [`Self::until_blocking`] for tasks.
    pub(crate) async fn until<R>(
        &self,
        ready: impl Fn() -> Option<R>,
        timeout: Duration,
    ) -> Option<R> {
        let waiting = async {
            loop {
                let notified = self.notify.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                if let Some(result) = ready() {
                    return result;
                }
                notified.await;
            }
        };
        tokio::time::timeout(timeout, waiting).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_waiter_wakes_when_the_position_is_reached() {
        let applied = Arc::new(AppliedPosition::default());
        let waiter = {
            let applied = Arc::clone(&applied);
            std::thread::spawn(move || applied.wait_blocking(Position(3), Duration::from_secs(60)))
        };
        for position in 1..=3 {
            applied.set(Position(position));
        }
        assert_eq!(waiter.join().unwrap(), Ok(()));
    }

    #[test]
    fn a_waiter_wakes_when_the_node_stops() {
        let applied = Arc::new(AppliedPosition::default());
        let waiter = {
            let applied = Arc::clone(&applied);
            std::thread::spawn(move || applied.wait_blocking(Position(3), Duration::from_secs(60)))
        };
        applied.stop();
        assert_eq!(waiter.join().unwrap(), Err(WaitError::Stopped));
        assert_eq!(
            applied.wait_blocking(Position(0), Duration::ZERO),
            Ok(()),
            "what is reached stays reached"
        );
    }

    #[test]
    fn time_runs_out() {
        let applied = AppliedPosition::default();
        assert_eq!(
            applied.wait_blocking(Position(1), Duration::ZERO),
            Err(WaitError::TimedOut {
                position: Position(0)
            })
        );
    }
}
