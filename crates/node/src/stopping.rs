//! How a node ends: a leader hands the leadership on first, so that the others need no election.

use crate::cluster::Reply;
use crate::driver::Driver;

use onelog_replica::{Event, Failure};

/// How long a stopping leader waits for another one to lead.
const HAND_OVER_MS: u64 = 3_000;
/// How long requests are waited for that other nodes must agree to. Alone, nothing can hold them up.
const DRAIN_MS: u64 = 5_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    No,
    /// Another node is to lead; until when that is waited for.
    HandsOn {
        until_ms: u64,
    },
    HandedOn,
    /// What came is decided and answered; until when that is waited for.
    Drains {
        until_ms: u64,
    },
}

impl Driver {
    pub(crate) fn begin_stopping(&mut self) -> Result<(), Failure> {
        if self.stopping != Stopping::No {
            return Ok(());
        }
        let successor = self.shared.cluster.as_ref().and_then(|cluster| {
            let view = cluster.views.get();
            view.role.leads.then(|| view.successor(cluster.node))?
        });
        let Some(to) = successor else {
            return self.drain();
        };
        tracing::info!(%to, "hand the leadership on before this node stops");
        let until_ms = self.now.monotonic_ms + HAND_OVER_MS;
        self.stopping = Stopping::HandsOn { until_ms };
        self.handle(Event::Transfer(Reply::HandOver, to))
    }

    fn drain(&mut self) -> Result<(), Failure> {
        let until_ms = self.now.monotonic_ms + DRAIN_MS;
        self.stopping = Stopping::Drains { until_ms };
        self.handle(Event::Stop)
    }

    pub(crate) fn go_on_stopping(&mut self) -> Result<(), Failure> {
        let is_late = match self.stopping {
            Stopping::HandedOn => true,
            Stopping::HandsOn { until_ms } => self.now.monotonic_ms >= until_ms,
            Stopping::No | Stopping::Drains { .. } => false,
        };
        match is_late {
            true => self.drain(),
            false => Ok(()),
        }
    }

    /// Everything is decided and answered.
    pub(crate) fn has_stopped(&self) -> bool {
        let drains = matches!(self.stopping, Stopping::Drains { .. });
        drains && self.replica.is_drained() && self.commands.receiver().is_empty()
    }

    /// Without a majority nothing is decided any more: what waits is answered that it is not known.
    pub(crate) fn has_given_up(&self) -> bool {
        let Stopping::Drains { until_ms } = self.stopping else {
            return false;
        };
        let is_late = self.shared.cluster.is_some() && self.now.monotonic_ms >= until_ms;
        is_late && self.flushing == 0
    }
}
