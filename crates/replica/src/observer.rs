//! What a replica makes known while it works, for readers on other threads.

use std::sync::Arc;

use onelog_engine::{Members, PeerProgress};
use onelog_record::{Entry, Index, Position};
use onelog_state::CheckpointReport;

use crate::{Catalog, DigestAt, Role, SpaceReport};

/// Hears of each step of a replica on the replica's own thread, in this order:
///
/// - the catalog leads: [`Observer::catalog_changed`] comes before the position moves over the
///   definition, so that a reader who sees a row can name its table;
/// - the position moves ([`Observer::applied`]) before any answer that rests on it is handed out.
///
/// Implementations SHOULD be quick: they run between two requests.
pub trait Observer {
    /// A turn's requests are decided. So many steps all decisions have taken until now: how much of
    /// the state they looked at.
    fn decided(&mut self, _steps: u64) {}

    /// An entry got its place in the log. It is not durable yet.
    fn appended(&mut self, _entry: &Entry) {}

    /// The log's entries from this one on are gone: another leader has others there. None of them was
    /// applied.
    fn cut(&mut self, _from: Index) {}

    /// Tables were defined or dropped.
    fn catalog_changed(&mut self, _catalog: &Arc<Catalog>) {}

    /// An entry is committed and readable.
    fn applied(&mut self, _entry: &Entry) {}

    /// While starting: everything up to this index is applied; `end` is the position behind it.
    fn replayed(&mut self, _index: Index, _end: Position) {}

    /// State and log were replaced by those of another node: everything up to this index is there, and
    /// `end` is the position behind it. Entries between the last one that was applied and this one
    /// never come.
    fn installed(&mut self, _index: Index, _end: Position) {}

    /// Another node leads, or this one; requests are admitted, or no longer.
    fn role_changed(&mut self, _role: Role) {}

    /// From the entry of this index on, which is applied, these are the members.
    fn members_changed(&mut self, _index: Index, _members: &Members) {}

    /// How far the other nodes are has changed, as looked at now and then. None of them where this node
    /// does not lead.
    fn peers_progressed(&mut self, _peers: &[PeerProgress]) {}

    fn checkpoint_started(&mut self) {}

    fn checkpoint_ended(&mut self, _report: Option<&CheckpointReport>) {}

    /// This replica's last checkpoints have these digests, which the other nodes are to hear of
    /// ([`crate::Event::Digests`]).
    fn digests_known(&mut self, _digests: &[DigestAt]) {}

    /// The disk has more or less room than before.
    fn space_changed(&mut self, _report: SpaceReport) {}

    /// By how many milliseconds the log's last timestamp is ahead of this node's clock has changed.
    fn log_ahead(&mut self, _ahead_ms: u64) {}

    /// The log's start was cut: what lies below `start` can no longer be read.
    fn log_start_moved(&mut self, _start: Position) {}
}

impl Observer for () {}
