//! A leader without room on its disk hands the leadership on, for it refuses every write.
//!
//! It does not know who has room. So it tries the voters that it hears, one after the other, and each
//! once: one without room does not take the leadership, and is given up after an election's timeout.
//! Then it leads on, for reads, and begins anew after a while.

use std::collections::BTreeSet;

use onelog_record::NodeId;

use crate::cluster::Role;
use crate::events::Now;
use crate::failure::Failure;
use crate::jobs::Outbox;
use crate::observer::Observer;
use crate::replica::Replica;

/// After so long the voters are tried again: there may be room by then.
const TRY_AGAIN_MS: u64 = 30_000;

/// The voters that were tried, and when that began.
#[derive(Debug, Default)]
pub(crate) struct HandingOn {
    tried: BTreeSet<NodeId>,
    since_ms: u64,
}

impl<T, O: Observer> Replica<T, O> {
    pub(crate) fn hand_on_when_full(
        &mut self,
        now: Now,
        out: &mut Outbox<T>,
    ) -> Result<(), Failure> {
        let Role { leads, admits, .. } = self.cluster.role;
        let handing_on = &mut self.cluster.handing_on;
        let is_over = now.monotonic_ms.saturating_sub(handing_on.since_ms) >= TRY_AGAIN_MS;
        if !self.space.is_read_only() || !leads || is_over {
            handing_on.tried.clear();
        }
        let is_busy = self.cluster.is_transferring() || self.engine.raft().hands_on_to().is_some();
        if !self.space.is_read_only() || !admits || is_busy || self.is_stopping {
            return Ok(());
        }
        let Some(to) = self.next_to_try() else {
            return Ok(());
        };
        let handing_on = &mut self.cluster.handing_on;
        if handing_on.tried.is_empty() {
            handing_on.since_ms = now.monotonic_ms;
        }
        handing_on.tried.insert(to);
        tracing::warn!(%to, "this node leads and has no room: hand the leadership on");
        if let Err(error) = self.engine.transfer(to, &mut self.effects)? {
            tracing::info!(%error, "the leadership was not handed on");
        }
        self.carry_out(out)
    }

    /// Of the voters that are heard the one that is furthest.
    fn next_to_try(&self) -> Option<NodeId> {
        let (cluster, peers) = (&self.cluster, self.engine.raft().peers());
        let may_lead = peers.into_iter().filter(|peer| {
            let is_new = !cluster.handing_on.tried.contains(&peer.node);
            peer.is_active && is_new && cluster.members.voters.contains(&peer.node)
        });
        let best = may_lead.max_by_key(|peer| (peer.matched, std::cmp::Reverse(peer.node)));
        best.map(|peer| peer.node)
    }
}
