//! A coordinator made of what another one has stored. Members of a stable group keep their
//! generation and go on without a rebalance; one that was under way begins anew, because the
//! members that come for its assignment are in another generation than the stored one.

use std::collections::BTreeMap;

use crate::group::{Group, Phase};
use crate::member::Member;
use crate::{Coordinator, GroupRecord, MemberRecord, Moment, Options, Record};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("member '{member}' of group '{group}' is stored, but not the group")]
    NoGroup { group: String, member: String },
    #[error("group '{group}' is stored with members, but without a protocol and a leader")]
    NoGeneration { group: String },
    #[error("members '{first}' and '{second}' of group '{group}' are the same instance")]
    SameInstance {
        group: String,
        first: String,
        second: String,
    },
    #[error("the end of a record of group '{group}' is no stored record")]
    Deletion { group: String },
}

impl Coordinator {
    /// Takes in all that is stored, in any order.
    pub fn load(
        options: Options,
        now: Moment,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Self, LoadError> {
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for record in records {
            let id = record.group();
            let group = groups
                .entry(id.to_owned())
                .or_insert_with(|| Group::new(id, now));
            group.load(record)?;
        }
        let mut coordinator = Self::new(options);
        for (_, mut group) in groups {
            group.loaded(now)?;
            coordinator.insert(group);
        }
        Ok(coordinator)
    }
}

impl Group {
    fn load(&mut self, record: Record) -> Result<(), LoadError> {
        match record {
            Record::PutGroup { record, .. } => self.load_group(record),
            Record::PutMember { member, record, .. } => return self.load_member(member, record),
            Record::PutOffset { at, record, .. } => self.offsets.load(at, record),
            Record::DeleteGroup { group }
            | Record::DeleteMember { group, .. }
            | Record::DeleteOffset { group, .. } => return Err(LoadError::Deletion { group }),
        }
        Ok(())
    }

    fn load_group(&mut self, record: GroupRecord) {
        self.generation = record.generation;
        self.protocol_type = record.protocol_type;
        self.protocol = record.protocol;
        self.leader = record.leader;
        self.emptied_at = record.emptied_at;
        self.stored = true;
    }

    fn load_member(&mut self, id: String, record: MemberRecord) -> Result<(), LoadError> {
        if let Some(instance) = record.instance_id.clone()
            && let Some(first) = self.instances.insert(instance, id.clone())
        {
            let (group, second) = (self.id.clone(), id);
            return Err(LoadError::SameInstance {
                group,
                first,
                second,
            });
        }
        self.stored_members.insert(id.clone());
        self.members.insert(id, Member::of_record(record));
        Ok(())
    }

    fn loaded(&mut self, now: Moment) -> Result<(), LoadError> {
        let Some(first) = self.members.keys().next() else {
            return Ok(());
        };
        let (group, member) = (self.id.clone(), first.clone());
        if !self.stored {
            return Err(LoadError::NoGroup { group, member });
        }
        if self.protocol.is_none() || self.leader.is_none() {
            return Err(LoadError::NoGeneration { group });
        }
        self.phase = Phase::Stable;
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.touch(&id, now);
        }
        self.count_bytes();
        Ok(())
    }
}

impl Record {
    pub fn group(&self) -> &str {
        match self {
            Self::PutGroup { group, .. }
            | Self::DeleteGroup { group }
            | Self::PutMember { group, .. }
            | Self::DeleteMember { group, .. }
            | Self::PutOffset { group, .. }
            | Self::DeleteOffset { group, .. } => group,
        }
    }
}
