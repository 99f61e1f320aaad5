//! Waiting for a change of who leads or of the members.

use onelog_engine::Members;
use onelog_replica::Role;
use tokio::sync::watch;

use super::View;
use crate::Node;

/// Sees each change since it was made or last looked.
#[derive(Debug)]
pub struct ClusterWatch {
    views: watch::Receiver<View>,
    seen: Option<(Role, Members)>,
}

impl Node {
    /// `None` where this node is alone. Its first change is there at once.
    #[must_use]
    pub fn watch_cluster(&self) -> Option<ClusterWatch> {
        let cluster = self.shared.cluster.as_ref()?;
        Some(ClusterWatch {
            views: cluster.views.subscribe(),
            seen: None,
        })
    }
}

impl ClusterWatch {
    /// Waits for a change; for ever, once the node is gone.
    pub async fn changed(&mut self) {
        let seen = &self.seen;
        let is_new = |view: &View| {
            let known = seen.as_ref();
            known.is_none_or(|(role, members)| view.role != *role || view.members != *members)
        };
        let found = match self.views.wait_for(is_new).await {
            Ok(view) => Some((view.role, view.members.clone())),
            Err(_) => None,
        };
        match found {
            Some(found) => self.seen = Some(found),
            None => std::future::pending().await,
        }
    }
}
