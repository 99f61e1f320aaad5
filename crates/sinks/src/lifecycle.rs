//! The state machine of a sink's thread: events in, the next action out. No store, thread or clock.
//!
//! ```text
//! Connecting ── connected ──> Following <── pause/resume ──> Paused
//!     ^  ^           └─ no usable position ─> Backfilling ─ done ─┘
//!     │  └── delay over ── Waiting <── failed, retryable ── any of these
//!     └───── resume, rebuild ─ Stopped <── failed, final ── any of these
//! ```
//!
//! A rebuild leads from every state to `Backfilling`, and is remembered until a backfill has
//! succeeded, or until a pause while it has stopped gives it up. `Leaving` is final. Whether the sink
//! is paused is kept beside the state: it is a wish of the user that outlives connections, backfills
//! and failures.

use onelog::Position;

use crate::progress::SinkState;

/// Why the thread ends. A stronger reason replaces a weaker one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leave {
    /// The process, the node or the supervisor ends.
    Stop,
    /// Another thread goes on with the sink under a new definition.
    HandOver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No store is open yet.
    Connecting {
        rebuild: bool,
    },
    /// The store is loaded from a snapshot. Rows of an earlier backfill are at `old`.
    Backfilling {
        old: Option<Position>,
        rebuild: bool,
    },
    /// The store is at `at`; `check`: it has to confirm that before the next batch.
    Following {
        at: Position,
        check: bool,
    },
    /// The store is open, but nothing is written. `None`: it was never backfilled.
    Paused {
        at: Option<Position>,
    },
    /// The store is closed until a delay is over.
    Waiting {
        attempt: u32,
        rebuild: bool,
    },
    /// The store is closed until a command comes.
    Stopped {
        rebuild: bool,
    },
    Leaving(Leave),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The store is open; `None`: it has to be backfilled.
    Connected(Option<Position>),
    Backfilled(Position),
    /// A batch is in the store, which is now at this position.
    Applied(Position),
    /// The store is still at the position where it was left.
    Confirmed,
    /// The log no longer reaches back to the store's position.
    LogCut,
    /// Nothing was committed for the longest time that one wait lasts.
    Idle,
    Pause,
    Resume,
    Rebuild,
    Leave(Leave),
    Failed {
        retryable: bool,
    },
    DelayOver,
}

/// What the thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Connect,
    Backfill { old: Option<Position> },
    Confirm(Position),
    Follow(Position),
    StandBy(Option<Position>),
    BackOff { attempt: u32 },
    AwaitCommand,
    Leave(Leave),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifecycle {
    state: State,
    paused: bool,
    /// Failures since something succeeded.
    failures: u32,
}

impl Lifecycle {
    pub(crate) const fn new(paused: bool) -> Self {
        Self {
            state: State::Connecting { rebuild: false },
            paused,
            failures: 0,
        }
    }

    pub(crate) const fn action(&self) -> Action {
        match self.state {
            State::Connecting { .. } => Action::Connect,
            State::Backfilling { old, .. } => Action::Backfill { old },
            State::Following { at, check: true } => Action::Confirm(at),
            State::Following { at, check: false } => Action::Follow(at),
            State::Paused { at } => Action::StandBy(at),
            State::Waiting { attempt, .. } => Action::BackOff { attempt },
            State::Stopped { .. } => Action::AwaitCommand,
            State::Leaving(reason) => Action::Leave(reason),
        }
    }

    pub(crate) const fn is_paused(&self) -> bool {
        self.paused
    }

    pub(crate) const fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving(_))
    }

    /// Whether a rebuild was requested and has not succeeded yet.
    pub(crate) const fn is_rebuilding(&self) -> bool {
        match self.state {
            State::Connecting { rebuild }
            | State::Backfilling { rebuild, .. }
            | State::Waiting { rebuild, .. }
            | State::Stopped { rebuild } => rebuild,
            State::Following { .. } | State::Paused { .. } | State::Leaving(_) => false,
        }
    }

    /// What the status shows.
    pub(crate) const fn shown(&self) -> SinkState {
        match self.state {
            // A store that cannot be reached does not undo the user's wish.
            State::Connecting { rebuild: false } | State::Waiting { rebuild: false, .. }
                if self.paused =>
            {
                SinkState::Paused
            }
            State::Connecting { .. } => SinkState::Starting,
            State::Backfilling { rebuild: true, .. } => SinkState::Rebuilding,
            State::Backfilling { rebuild: false, .. } => SinkState::Bootstrapping,
            State::Following { .. } => SinkState::Running,
            State::Paused { .. } => SinkState::Paused,
            State::Waiting { .. } => SinkState::Waiting,
            State::Stopped { .. } | State::Leaving(_) => SinkState::Stopped,
        }
    }

    pub(crate) fn apply(&mut self, event: Event) {
        match event {
            Event::Pause => self.paused = true,
            Event::Resume => self.paused = false,
            Event::Backfilled(_) | Event::Applied(_) | Event::Failed { retryable: false } => {
                self.failures = 0;
            }
            _ => {}
        }
        self.state = self.next(event);
        if let State::Waiting { .. } = self.state
            && let Event::Failed { .. } = event
        {
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// The only place of transitions. An event that means nothing in a state leaves it as it is.
    fn next(&self, event: Event) -> State {
        let rebuild = self.is_rebuilding();
        match (self.state, event) {
            (State::Leaving(known), Event::Leave(new)) => {
                State::Leaving(if (new as u8) > known as u8 {
                    new
                } else {
                    known
                })
            }
            (State::Leaving(_), _) => self.state,
            (_, Event::Leave(reason)) => State::Leaving(reason),
            (_, Event::Failed { retryable: true }) => State::Waiting {
                attempt: self.failures,
                rebuild,
            },
            (_, Event::Failed { retryable: false }) => State::Stopped { rebuild },

            (State::Connecting { rebuild: true }, Event::Connected(old)) => {
                State::Backfilling { old, rebuild: true }
            }
            (State::Connecting { .. }, Event::Connected(at)) => self.connected_at(at),
            (State::Backfilling { .. }, Event::Backfilled(at)) => self.connected_at(Some(at)),
            (State::Following { check, .. }, Event::Applied(at)) => State::Following { at, check },
            (State::Following { at, .. }, Event::Confirmed) => {
                State::Following { at, check: false }
            }
            (State::Following { at, .. }, Event::Idle) => State::Following { at, check: true },
            (State::Following { .. }, Event::LogCut) => self.connected_at(None),

            (State::Following { at, .. }, Event::Pause) => State::Paused { at: Some(at) },
            (State::Following { at, .. } | State::Paused { at: Some(at) }, Event::Resume) => {
                State::Following { at, check: true }
            }
            (State::Paused { at: None }, Event::Resume) => self.connected_at(None),
            (State::Waiting { .. } | State::Stopped { .. }, Event::Resume) => {
                State::Connecting { rebuild }
            }
            (State::Stopped { .. }, Event::Pause) => State::Stopped { rebuild: false },
            (State::Waiting { .. }, Event::DelayOver) => State::Connecting { rebuild },

            (State::Following { at, .. }, Event::Rebuild) => State::Backfilling {
                old: Some(at),
                rebuild: true,
            },
            (State::Paused { at: old } | State::Backfilling { old, .. }, Event::Rebuild) => {
                State::Backfilling { old, rebuild: true }
            }
            (
                State::Connecting { .. } | State::Waiting { .. } | State::Stopped { .. },
                Event::Rebuild,
            ) => State::Connecting { rebuild: true },

            (state, _) => state,
        }
    }

    const fn connected_at(&self, at: Option<Position>) -> State {
        match at {
            _ if self.paused => State::Paused { at },
            Some(at) => State::Following { at, check: false },
            None => State::Backfilling {
                old: None,
                rebuild: false,
            },
        }
    }
}

#[cfg(test)]
mod tests;
