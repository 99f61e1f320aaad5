//! A member of a group, with the requests of it that wait.

use bytes::Bytes;

use crate::limits::{self, CLIENT_NAME_BYTES_MAX, OVERHEAD_BYTES};
use crate::protocols;
use crate::record::MemberRecord;
use crate::{Join, Protocol, Token};

/// What a member that was never answered a join has joined.
pub(crate) const NO_GENERATION: i32 = -1;

#[derive(Debug)]
pub(crate) struct Member {
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: u32,
    pub rebalance_timeout_ms: u32,
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    /// The generation that its last join was answered with.
    pub joined: i32,
    /// Whether it has come for its assignment since.
    pub synced: bool,
    /// Its first join waits: nothing but a deadline tells that the client has gone.
    pub is_new: bool,
    pub deadline: u64,
    pub joining: Option<Token>,
    pub syncing: Option<Token>,
}

impl Member {
    pub fn new(join: Join) -> Self {
        let mut member = Self {
            instance_id: None,
            client_id: cut(&join.client_id),
            client_host: cut(&join.client_host),
            session_timeout_ms: 0,
            rebalance_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            joined: NO_GENERATION,
            synced: false,
            is_new: true,
            deadline: u64::MAX,
            joining: None,
            syncing: None,
        };
        member.instance_id.clone_from(&join.instance_id);
        member.update(join);
        member
    }

    /// Takes over what a member says of itself each time that it joins.
    pub fn update(&mut self, join: Join) {
        self.session_timeout_ms = join.session_timeout_ms;
        self.rebalance_timeout_ms = join.rebalance_timeout_ms.clamp(
            limits::REBALANCE_TIMEOUT_MS_MIN,
            limits::REBALANCE_TIMEOUT_MS_MAX,
        );
        self.protocols = join.protocols;
    }

    pub fn of_record(record: MemberRecord) -> Self {
        Self {
            instance_id: record.instance_id,
            client_id: record.client_id,
            client_host: record.client_host,
            session_timeout_ms: record.session_timeout_ms,
            rebalance_timeout_ms: record.rebalance_timeout_ms,
            protocols: record.protocols,
            assignment: record.assignment,
            joined: record.joined,
            synced: true,
            is_new: false,
            deadline: u64::MAX,
            joining: None,
            syncing: None,
        }
    }

    pub fn record(&self, assignment: Bytes) -> MemberRecord {
        MemberRecord {
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            joined: self.joined,
            protocols: self.protocols.clone(),
            assignment,
        }
    }

    pub fn metadata(&self, protocol: &str) -> Bytes {
        let mut all = self.protocols.iter();
        let found = all.find(|one| one.name == protocol);
        found.map(|one| one.metadata.clone()).unwrap_or_default()
    }

    pub fn bytes(&self) -> usize {
        let names = self.client_id.len() + self.client_host.len();
        OVERHEAD_BYTES + names + protocols::bytes(&self.protocols) + self.assignment.len()
    }
}

/// The beginning of a text that is not longer than a client's name may be, with marks in the place
/// of control characters.
pub(crate) fn cut(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(CLIENT_NAME_BYTES_MAX)];
    text.replace(char::is_control, "?")
}
