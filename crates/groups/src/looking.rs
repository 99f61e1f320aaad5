//! What groups show of themselves.

use bytes::Bytes;

use crate::group::Group;
use crate::{Coordinator, OffsetRecord, State, TopicPartition};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    pub group: String,
    /// Empty for a group of consumers that are no members.
    pub protocol_type: String,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub state: State,
    pub generation: i32,
    pub protocol_type: String,
    /// Of a stable group, as the metadata and the assignments of its members.
    pub protocol: String,
    pub leader: Option<String>,
    pub members: Vec<MemberDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

impl Coordinator {
    /// Every group, by its id.
    pub fn list(&self) -> Vec<Overview> {
        let each = self.groups.values().map(|group| Overview {
            group: group.id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state(),
        });
        each.collect()
    }

    /// None: there is no such group, which Kafka calls a dead one.
    pub fn describe(&self, group: &str) -> Option<Description> {
        self.groups.get(group).map(Group::describe)
    }

    /// The metadata of all members for the protocol in force: of consumers, what they read.
    pub fn metadata(&self, group: &str) -> Vec<Bytes> {
        let Some(group) = self.groups.get(group) else {
            return Vec::new();
        };
        let members = group.members.values();
        let each = members.filter_map(|member| match &group.protocol {
            Some(protocol) => Some(member.metadata(protocol)),
            None => member.protocols.first().map(|one| one.metadata.clone()),
        });
        each.collect()
    }

    /// The offset of a partition, once it is stored.
    pub fn offset(&self, group: &str, at: &TopicPartition) -> Option<&OffsetRecord> {
        self.groups.get(group)?.offsets.get(at)
    }

    /// Every stored offset of a group, by topic and partition.
    pub fn offsets(&self, group: &str) -> impl Iterator<Item = (&TopicPartition, &OffsetRecord)> {
        let group = self.groups.get(group);
        group.into_iter().flat_map(|group| group.offsets.all())
    }
}

impl Group {
    fn describe(&self) -> Description {
        let state = self.state();
        let protocol = self.protocol.as_deref();
        let protocol = protocol.filter(|_| state == State::Stable);
        let members = self.members.iter().map(|(id, member)| MemberDescription {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol.map_or_else(Bytes::new, |protocol| member.metadata(protocol)),
            assignment: protocol.map_or_else(Bytes::new, |_| member.assignment.clone()),
        });
        Description {
            state,
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.unwrap_or_default().to_owned(),
            leader: self.leader.clone(),
            members: members.collect(),
        }
    }
}
