//! One group: its state, its members, and the rules that all requests share.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::context::Context;
use crate::limits::{CLEANUP_INTERVAL_MS, OVERHEAD_BYTES};
use crate::member::Member;
use crate::offsets::Offsets;
use crate::planted::{self, Bug};
use crate::{ErrorCode, GroupRecord, Moment, Protocol, Record, SyncAnswer, Token, protocols};

/// The states of a group, by the names that Kafka shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It has no members; it may have offsets.
    Empty,
    /// Its members join the next generation.
    PreparingRebalance,
    /// The generation has begun, and its leader has not assigned yet.
    CompletingRebalance,
    Stable,
    /// It is being deleted.
    Dead,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

#[derive(Debug)]
pub(crate) enum Phase {
    Empty,
    Preparing(Preparing),
    Completing {
        /// The leader's assignment while it is being stored.
        storing: Option<BTreeMap<String, Bytes>>,
    },
    Stable,
    Dead,
}

#[derive(Debug)]
pub(crate) struct Preparing {
    /// When the generation begins with those who have joined.
    pub deadline: u64,
    /// The group was empty: it waits for more members, longer while some come.
    pub initial: Option<Initial>,
}

#[derive(Debug)]
pub(crate) struct Initial {
    pub remaining_ms: u64,
    pub joined_since: bool,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub id: String,
    pub phase: Phase,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    pub members: BTreeMap<String, Member>,
    /// Ids that were given out and did not join yet, with their deadlines.
    pub pending: BTreeMap<String, u64>,
    /// Which member each instance is.
    pub instances: BTreeMap<String, String>,
    /// When members that joined this generation must have come for their assignment.
    pub sync_deadline: Option<u64>,
    pub emptied_at: Option<i64>,
    pub offsets: Offsets,
    /// Whether there may be a stored record of the group itself.
    pub stored: bool,
    /// Members of which there may be a stored record.
    pub stored_members: BTreeSet<String>,
    /// Steps that wait to be stored.
    pub stores: usize,
    pub cleanup_at: u64,
    /// No deadline is before this moment.
    pub wake_at: u64,
    /// When the coordinator looks at the group next.
    pub scheduled_at: Option<u64>,
    member_bytes: usize,
}

impl Group {
    pub fn new(id: &str, now: Moment) -> Self {
        let cleanup_at = now.after(CLEANUP_INTERVAL_MS);
        Self {
            id: id.to_owned(),
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            instances: BTreeMap::new(),
            sync_deadline: None,
            emptied_at: None,
            offsets: Offsets::default(),
            stored: false,
            stored_members: BTreeSet::new(),
            stores: 0,
            cleanup_at,
            wake_at: cleanup_at,
            scheduled_at: None,
            member_bytes: 0,
        }
    }

    pub fn state(&self) -> State {
        match self.phase {
            Phase::Empty => State::Empty,
            Phase::Preparing(_) => State::PreparingRebalance,
            Phase::Completing { .. } => State::CompletingRebalance,
            Phase::Stable => State::Stable,
            Phase::Dead => State::Dead,
        }
    }

    /// Nothing would be lost without it, neither here nor among what is stored.
    pub fn is_blank(&self) -> bool {
        let unused = self.members.is_empty() && self.pending.is_empty() && self.offsets.is_empty();
        unused && self.stores == 0 && !self.stored && self.stored_members.is_empty()
    }

    pub fn bytes(&self) -> usize {
        let ids = self.pending.keys().map(|id| OVERHEAD_BYTES + id.len());
        OVERHEAD_BYTES + self.member_bytes + self.offsets.bytes() + ids.sum::<usize>()
    }

    pub fn member_bytes(&self) -> usize {
        self.member_bytes
    }

    /// To be called when members, their metadata or their assignments have changed.
    pub fn count_bytes(&mut self) {
        let each = self.members.iter();
        self.member_bytes = each.map(|(id, one)| id.len() + one.bytes()).sum();
    }

    /// Keeps `wake_at` before a new deadline, which it returns.
    pub fn due(&mut self, deadline: u64) -> u64 {
        self.wake_at = self.wake_at.min(deadline);
        deadline
    }

    /// Begins the session of a member anew.
    pub fn touch(&mut self, member: &str, now: Moment) {
        if let Some(found) = self.members.get_mut(member) {
            let deadline = now.after(u64::from(found.session_timeout_ms));
            found.deadline = deadline;
            self.due(deadline);
        }
    }

    /// Who a request comes from, and whether it belongs to this generation.
    pub fn check_member(
        &self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        if matches!(self.phase, Phase::Dead) {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        self.check_instance(member, instance)?;
        let Some(found) = self.members.get(member) else {
            return Err(ErrorCode::UnknownMemberId);
        };
        // An instance that is away stays a member without having joined the generation. What names
        // its number then comes from a generation that began before a restart and was never stored.
        let any = planted::is(Bug::AnyGenerationCommits);
        if (generation != self.generation || found.joined != generation) && !any {
            return Err(ErrorCode::IllegalGeneration);
        }
        Ok(())
    }

    /// Whether the member is the instance that it says it is.
    pub fn check_instance(&self, member: &str, instance: Option<&str>) -> Result<(), ErrorCode> {
        let Some(instance) = instance else {
            return Ok(());
        };
        match self.instances.get(instance) {
            None => Err(ErrorCode::UnknownMemberId),
            Some(known) if known != member => Err(ErrorCode::FencedInstanceId),
            Some(_) => Ok(()),
        }
    }

    fn protocols(&self) -> Vec<&[Protocol]> {
        let each = self.members.values();
        each.map(|one| one.protocols.as_slice()).collect()
    }

    pub fn select_protocol(&self) -> Option<String> {
        protocols::select(&self.protocols())
    }

    /// Whether a member with these could be in the group beside all others.
    pub fn supports(&self, member: &str, protocol_type: &str, offered: &[Protocol]) -> bool {
        if protocol_type.is_empty() || offered.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        let others = self.members.iter().filter(|(id, _)| *id != member);
        let mut all: Vec<_> = others.map(|(_, one)| one.protocols.as_slice()).collect();
        all.push(offered);
        self.protocol_type.as_deref() == Some(protocol_type) && protocols::agree(&all)
    }

    pub fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// Takes a member out of all that names it, but answers nothing.
    pub fn forget(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.instance_id
            && self
                .instances
                .get(instance)
                .is_some_and(|known| known == id)
        {
            self.instances.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.count_bytes();
        Some(member)
    }

    pub fn record(&self) -> GroupRecord {
        GroupRecord {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            emptied_at: self.emptied_at,
        }
    }

    /// Records of the group and of these members, and the end of those that are gone. What is gone
    /// is forgotten once the records are stored.
    pub fn records<'a>(
        &mut self,
        members: impl IntoIterator<Item = (&'a String, Bytes)>,
    ) -> (Vec<Record>, Vec<String>) {
        let mut records = vec![Record::PutGroup {
            group: self.id.clone(),
            record: self.record(),
        }];
        self.stored = true;
        for (id, assignment) in members {
            if let Some(member) = self.members.get(id) {
                records.push(Record::PutMember {
                    group: self.id.clone(),
                    member: id.clone(),
                    record: member.record(assignment),
                });
                self.stored_members.insert(id.clone());
            }
        }
        // Also those whose end waits to be stored already: that step may fail, and this one not.
        let stored = self.stored_members.iter();
        let gone = stored.filter(|id| !self.members.contains_key(*id));
        let gone: Vec<String> = gone.cloned().collect();
        records.extend(gone.iter().map(|member| Record::DeleteMember {
            group: self.id.clone(),
            member: member.clone(),
        }));
        (records, gone)
    }

    /// The end of these was stored, or not.
    pub fn members_gone(&mut self, gone: &[String], stored: bool) {
        for id in gone.iter().filter(|_| stored) {
            self.stored_members.remove(id);
        }
    }

    /// Parks a request for the assignment; one that waits already is answered.
    pub fn park_sync(&mut self, member: &str, token: Token, cx: &mut Context<'_>) {
        let Some(found) = self.members.get_mut(member) else {
            return;
        };
        found.synced = true;
        if let Some(former) = found.syncing.replace(token)
            && !planted::is(Bug::ReplacedRequestUnanswered)
        {
            cx.answer(former, SyncAnswer::error(ErrorCode::RebalanceInProgress));
        }
    }
}
