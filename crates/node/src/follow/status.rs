//! How following goes on, for people and for dashboards.

use std::time::Instant;

use onelog_record::Position;
use serde::Serialize;

use super::{AGE_MAX, Following};

/// What a read replica is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FollowState {
    /// It has not yet got what its source had when it first heard of it.
    Starting,
    Following,
    /// The source does not answer; tried again for ever.
    SourceAway,
    /// The source lacks what is here already: another one at the same address, which lags behind.
    SourceBehind,
    /// The source no longer has what comes next: its last checkpoint is taken in place of all.
    RestartingFromState,
    /// The source has another log: nothing is followed any more.
    OtherLog,
    /// An entry that is here is another one at the source: nothing is followed any more.
    OtherHistory,
}

impl FollowState {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Following => "following",
            Self::SourceAway => "source_away",
            Self::SourceBehind => "source_behind",
            Self::RestartingFromState => "restarting_from_state",
            Self::OtherLog => "other_log",
            Self::OtherHistory => "other_history",
        }
    }

    /// Whether reads are answered by something that is, or was, the source's.
    #[must_use]
    pub const fn is_ready(self) -> bool {
        !matches!(self, Self::Starting | Self::OtherLog | Self::OtherHistory)
    }

    /// Whether it never goes on by itself.
    pub(crate) const fn is_final(self) -> bool {
        matches!(self, Self::OtherLog | Self::OtherHistory)
    }
}

/// A read replica at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct FollowStatus {
    /// The address of the server that it follows.
    pub source: String,
    pub state: FollowState,
    /// Since when, in seconds.
    pub since_s: u64,
    /// Why, where it does not follow.
    pub why: Option<String>,
    /// Where the source was when it was heard of last.
    pub source_position: Option<Position>,
    /// How long ago the server that writes the log was heard of, through all read replicas between.
    pub heard_ms: Option<u64>,
    /// How many rows of a checkpoint are here, where one is taken in.
    pub rows: Option<u64>,
    /// How often state and log were replaced by a checkpoint of the source.
    pub restarts: u64,
    /// How often a connection was ended because what came was damaged.
    pub damaged: u64,
}

impl FollowStatus {
    pub(crate) fn of(following: &Following) -> Self {
        let view = following.view.lock();
        Self {
            source: following.source.address().to_owned(),
            state: view.state,
            since_s: view.since.elapsed().as_secs(),
            why: view.why.clone(),
            source_position: view.source_position,
            heard_ms: view.heard.map(|heard| u64::from(heard.age_ms())),
            rows: view.rows,
            restarts: view.restarts,
            damaged: view.damaged,
        }
    }
}

/// When the server that writes the log was heard of.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Instant,
    /// How long ago that was for the source.
    before_ms: u32,
}

impl Heard {
    fn age_ms(self) -> u32 {
        let here = u32::try_from(self.at.elapsed().as_millis()).unwrap_or(u32::MAX);
        here.saturating_add(self.before_ms)
    }
}

/// What is known of it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) state: FollowState,
    since: Instant,
    pub(super) why: Option<String>,
    pub(super) source_position: Option<Position>,
    heard: Option<Heard>,
    /// What the source had when it was heard of first: with less there is nothing to read here.
    wanted: Option<Position>,
    pub(super) rows: Option<u64>,
    pub(super) restarts: u64,
    pub(super) damaged: u64,
}

impl View {
    pub(super) fn new(has_log: bool) -> Self {
        let state = match has_log {
            true => FollowState::SourceAway,
            false => FollowState::Starting,
        };
        Self {
            state,
            since: Instant::now(),
            why: Some("the source has not answered yet".to_owned()),
            source_position: None,
            heard: None,
            wanted: None,
            rows: None,
            restarts: 0,
            damaged: 0,
        }
    }

    pub(super) fn age_ms(&self) -> u32 {
        self.heard.map_or(u32::MAX, Heard::age_ms)
    }

    /// The source is at `position`, and this node `here`; answers as [`Self::set`]. A source that is a
    /// read replica knows what another server said `before_ms` ago.
    pub(super) fn hear(&mut self, position: Position, before_ms: u32, here: Position) -> bool {
        self.source_position = Some(position);
        // The highest value is that of a source which has heard of nobody.
        let at = Instant::now();
        self.heard = (before_ms < u32::MAX).then_some(Heard { at, before_ms });
        if u128::from(before_ms) > AGE_MAX.as_millis() {
            let why = format!(
                "it has itself not heard of the server that writes the log for more than {} s: see its status",
                AGE_MAX.as_secs()
            );
            return self.set(FollowState::SourceAway, Some(why));
        }
        let wanted = *self.wanted.get_or_insert(position);
        if self.state != FollowState::Starting || here >= wanted {
            return self.set(FollowState::Following, None);
        }
        let why = format!("what the source has is on its way: {here} of {wanted} is here");
        self.set(FollowState::Starting, Some(why));
        false
    }

    /// Goes over to a state; answers whether state or reason is another one than before. What has
    /// nothing yet stays at its start until it has heard of the source.
    pub(super) fn set(&mut self, state: FollowState, why: Option<String>) -> bool {
        let is_early = self.state == FollowState::Starting;
        let state = match state {
            FollowState::SourceAway
            | FollowState::SourceBehind
            | FollowState::RestartingFromState
                if is_early =>
            {
                self.state
            }
            state => state,
        };
        let is_new = self.state != state || self.why != why;
        if self.state != state {
            self.since = Instant::now();
        }
        if state == FollowState::Following {
            self.rows = None;
        }
        (self.state, self.why) = (state, why);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_had_nothing_is_ready_when_it_has_what_its_source_had_when_it_was_first_heard_of() {
        // Given a read replica with an empty folder, whose source has 100 records,
        let mut view = View::new(false);
        assert!(!view.hear(Position(100), 0, Position(0)));
        // when it has a part of them, and the source has more, then it is not ready, and says why,
        assert!(!view.hear(Position(200), 0, Position(99)));
        assert!(!view.state.is_ready());
        let why = view.why.clone().unwrap_or_default();
        assert!(why.ends_with("99 of 100 is here"), "{why}");
        view.set(FollowState::SourceAway, Some("it is away".to_owned()));
        assert!(!view.state.is_ready());
        // and once it has those it is, also when it falls behind later.
        assert!(view.hear(Position(300), 0, Position(100)));
        assert!(view.state.is_ready() && view.why.is_none());
        assert!(!view.hear(Position(900), 0, Position(100)));
        assert!(view.state.is_ready());
    }

    #[test]
    fn a_source_that_is_cut_off_itself_is_away_until_it_hears_again() {
        let too_old = u32::try_from(AGE_MAX.as_millis()).unwrap() + 1;
        // Given a read replica that follows another one,
        let mut view = View::new(true);
        assert_eq!(view.age_ms(), u32::MAX);
        assert!(view.hear(Position(7), 0, Position(7)));
        // when that one has not heard of its own source for long, then it counts as away, once,
        assert!(view.hear(Position(7), too_old, Position(7)));
        assert!(!view.hear(Position(7), too_old + 1_000, Position(7)));
        assert_eq!(view.state, FollowState::SourceAway);
        // also for those that follow this one,
        assert!(view.age_ms() > too_old);
        // until it hears again.
        assert!(view.hear(Position(8), 900, Position(7)));
        assert_eq!(view.state, FollowState::Following);
    }
}
