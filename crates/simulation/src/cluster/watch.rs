//! What one replica makes known, and whether it is made known in order.

use std::cell::RefCell;

use onelog_engine::{Members, PeerProgress};
use onelog_record::{Entry, Index, Position};
use onelog_replica::{DigestAt, Observer, Role};

use super::invariants::{LogChange, Print};

/// What happened on a node since the world looked last.
#[derive(Debug, Default)]
pub struct Watch {
    pub position: Position,
    pub index: Index,
    pub replayed_to: Index,
    pub applied: RefCell<Vec<Entry>>,
    pub log: RefCell<Vec<LogChange>>,
    pub role: Role,
    /// Who the members are, and as of which entry.
    pub members: Option<(Index, Members)>,
    /// The highest timestamp of the applied entries.
    pub timestamp_ms: u64,
    pub peers: Vec<PeerProgress>,
    pub digests: Vec<DigestAt>,
    log_start: Position,
    steps: u64,
    pub cuts: usize,
    pub installs: usize,
    pub member_changes: usize,
    pub lost_leaderships: usize,
}

impl Observer for Watch {
    fn decided(&mut self, steps: u64) {
        assert!(steps >= self.steps, "steps are counted on");
        self.steps = steps;
    }

    fn peers_progressed(&mut self, peers: &[PeerProgress]) {
        self.peers = peers.to_vec();
    }

    fn digests_known(&mut self, digests: &[DigestAt]) {
        self.digests = digests.to_vec();
    }

    fn appended(&mut self, entry: &Entry) {
        let change = LogChange::Appended(Print::of(entry));
        self.log.get_mut().push(change);
    }

    fn applied(&mut self, entry: &Entry) {
        assert_eq!(
            entry.index,
            self.index.next(),
            "entries are applied one after the other"
        );
        let timestamp_ms = entry.header.timestamp_ms;
        assert!(
            timestamp_ms == 0 || timestamp_ms >= self.timestamp_ms,
            "the timestamp of entry {} fell from {} to {timestamp_ms}",
            entry.index,
            self.timestamp_ms
        );
        self.timestamp_ms = self.timestamp_ms.max(timestamp_ms);
        (self.index, self.position) = (entry.index, entry.header.end());
        self.applied.get_mut().push(entry.clone());
    }

    fn replayed(&mut self, index: Index, end: Position) {
        assert!(index >= self.index && end >= self.position);
        self.replayed_to = index;
        (self.index, self.position) = (index, end);
    }

    fn installed(&mut self, index: Index, end: Position) {
        assert!(
            index >= self.index && end >= self.position,
            "what is applied is never taken back"
        );
        assert_eq!(
            self.log_start, end,
            "what waits for the position of a snapshot finds the log begin there"
        );
        self.installs += 1;
        self.log.get_mut().push(LogChange::Begins);
        (self.index, self.position) = (index, end);
    }

    fn log_start_moved(&mut self, start: Position) {
        self.log_start = start;
    }

    fn cut(&mut self, from: Index) {
        assert!(from > self.index, "what is applied is never cut");
        self.cuts += 1;
        self.log.get_mut().push(LogChange::Cut(from));
    }

    fn role_changed(&mut self, role: Role) {
        assert!(role.term >= self.role.term, "the term never falls");
        self.lost_leaderships += usize::from(self.role.admits && !role.admits);
        self.role = role;
    }

    fn members_changed(&mut self, index: Index, members: &Members) {
        self.member_changes += 1;
        self.members = Some((index, members.clone()));
    }
}
