//! The cluster in the embedded API.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onelog_record::{NodeId, Position, Refusal};

use super::change::{Change, MembersChangeError, change};
use super::{Cluster, ClusterStatus, block_on, forward};
use crate::{Node, WaitError};

/// How often a condition is looked at which nothing reports.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Node {
    /// The cluster as this node sees it; `None` where it is alone.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterStatus> {
        self.shared.cluster.as_ref().map(ClusterStatus::of)
    }

    /// Who leads the cluster, as far as this node knows; `None` where it is alone as well.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.shared.cluster.as_ref()?.views.role().leader
    }

    /// Whether this node takes part in its cluster, as of what it has applied. One that is alone does.
    #[must_use]
    pub fn is_member(&self) -> bool {
        let cluster = self.shared.cluster.as_ref();
        cluster.is_none_or(|cluster| cluster.views.is_member(cluster.node))
    }

    /// Whether this node of a cluster writes nothing because its disk has no room.
    #[must_use]
    pub fn is_full_in_cluster(&self) -> bool {
        let cluster = self.shared.cluster.as_ref();
        cluster.is_some_and(|cluster| cluster.is_full())
    }

    /// Why this node of a cluster does not follow the leader: its disk has no room, or it could not take in
    /// a snapshot.
    #[must_use]
    pub fn not_following(&self) -> Option<String> {
        self.shared.cluster.as_ref()?.not_following()
    }

    /// Where this node listens for others.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        let cluster = self.shared.cluster.as_ref()?;
        Some(cluster.peers.local_address())
    }

    /// Adds a node as a learner, which gets the log and decides nothing; or records another address of
    /// a member. It must have been started with an empty folder, under a number that was never used.
    /// Answers when the change is in force. On any node of the cluster.
    pub async fn add_member(
        &self,
        node: NodeId,
        address: impl Into<String>,
    ) -> Result<(), MembersChangeError> {
        let (node, address) = (node.get(), address.into());
        let is_own = false;
        let add = Change::Add {
            node,
            address,
            is_own,
        };
        self.change_members(add).await
    }

    /// Makes a voter of a learner that has caught up. Answers when the change is in force.
    pub async fn promote_member(&self, node: NodeId) -> Result<(), MembersChangeError> {
        let node = node.get();
        self.change_members(Change::Promote { node }).await
    }

    /// Removes a node, for ever: its number is not used again. Answers when the change is in force.
    /// Refused where too few of the voters that would be left are connected.
    pub async fn remove_member(&self, node: NodeId) -> Result<(), MembersChangeError> {
        let (node, force) = (node.get(), false);
        self.change_members(Change::Remove { node, force }).await
    }

    /// [`Node::remove_member`], though the voters that are left may be unable to commit.
    pub async fn remove_member_forced(&self, node: NodeId) -> Result<(), MembersChangeError> {
        let (node, force) = (node.get(), true);
        self.change_members(Change::Remove { node, force }).await
    }

    /// Hands the leadership to another voter. Answers when that one leads.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), MembersChangeError> {
        let node = to.get();
        self.change_members(Change::Transfer { node }).await
    }

    /// [`Node::add_member`] for threads that block.
    pub fn add_member_blocking(
        &self,
        node: NodeId,
        address: impl Into<String>,
    ) -> Result<(), MembersChangeError> {
        let (node, address) = (node.get(), address.into());
        let is_own = false;
        self.change_members_blocking(Change::Add {
            node,
            address,
            is_own,
        })
    }

    /// [`Node::promote_member`] for threads that block.
    pub fn promote_member_blocking(&self, node: NodeId) -> Result<(), MembersChangeError> {
        let node = node.get();
        self.change_members_blocking(Change::Promote { node })
    }

    /// [`Node::remove_member`] for threads that block.
    pub fn remove_member_blocking(&self, node: NodeId) -> Result<(), MembersChangeError> {
        let (node, force) = (node.get(), false);
        self.change_members_blocking(Change::Remove { node, force })
    }

    /// [`Node::transfer_leadership`] for threads that block.
    pub fn transfer_leadership_blocking(&self, to: NodeId) -> Result<(), MembersChangeError> {
        let node = to.get();
        self.change_members_blocking(Change::Transfer { node })
    }

    /// A position at which a read on this node sees everything that was acknowledged before this call,
    /// on any node; it is applied here. A node that is alone answers its own position at once; a read
    /// replica knows of no leader, see [`Node::source_barrier`].
    pub async fn read_barrier(&self) -> Result<Position, Refusal> {
        if self.shared.is_read_replica() {
            return Err(Refusal::NoLeader);
        }
        let Some(cluster) = &self.shared.cluster else {
            return Ok(self.position());
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(&self.shared);
        cluster.spawn(async move {
            let _ = sender.send(forward::read_barrier(shared).await);
        });
        receiver.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// [`Node::read_barrier`] for threads that block.
    pub fn read_barrier_blocking(&self) -> Result<Position, Refusal> {
        if self.shared.is_read_replica() {
            return Err(Refusal::NoLeader);
        }
        let Some(cluster) = &self.shared.cluster else {
            return Ok(self.position());
        };
        let answer = block_on(cluster, forward::read_barrier(Arc::clone(&self.shared)));
        answer.unwrap_or_else(|| Err(self.stopped()))
    }

    /// Waits until the cluster is as `condition` wants it, as far as this node knows. Blocks.
    pub fn wait_for_cluster(
        &self,
        timeout: Duration,
        condition: impl Fn(&ClusterStatus) -> bool,
    ) -> Result<ClusterStatus, WaitError> {
        let deadline = Instant::now() + timeout;
        let Some(cluster) = &self.shared.cluster else {
            return Err(WaitError::Stopped);
        };
        loop {
            let mut views = cluster.views.subscribe();
            views.borrow_and_update();
            let status = ClusterStatus::of(cluster);
            if condition(&status) {
                return Ok(status);
            }
            if self.shared.applied_position.is_stopped() {
                return Err(WaitError::Stopped);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let position = self.position();
                return Err(WaitError::TimedOut { position });
            }
            let changed = async move {
                let _ = tokio::time::timeout(LOOK_EVERY.min(left), views.changed()).await;
            };
            if block_on(cluster, changed).is_none() {
                return Err(WaitError::Stopped);
            }
        }
    }

    fn stopped(&self) -> Refusal {
        Refusal::Stopped(self.shared.stop_reason())
    }

    fn in_cluster(&self) -> Result<&Cluster, MembersChangeError> {
        let cluster = self.shared.cluster.as_ref();
        cluster.ok_or(MembersChangeError::Alone)
    }

    async fn change_members(&self, wanted: Change) -> Result<(), MembersChangeError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(&self.shared);
        self.in_cluster()?.spawn(async move {
            let _ = sender.send(change(shared, wanted).await);
        });
        receiver.await.unwrap_or(Err(MembersChangeError::Stopped))
    }

    fn change_members_blocking(&self, wanted: Change) -> Result<(), MembersChangeError> {
        let task = change(Arc::clone(&self.shared), wanted);
        let answer = block_on(self.in_cluster()?, task);
        answer.unwrap_or(Err(MembersChangeError::Stopped))
    }
}
