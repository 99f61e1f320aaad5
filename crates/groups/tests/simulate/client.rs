//! A consumer as the clients of Kafka behave: what it sends next, and what it does with an answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use onelog_groups::{
    Answer, Commit, ErrorCode, Heartbeat, Join, JoinAnswer, Leave, LeavingMember, PartitionOffset,
    Protocol, Request, Sync, TopicPartition,
};

use super::checks::{Checks, Partition};

pub const PARTITIONS: Partition = 6;
pub const SESSION_MS: u32 = 6_000;
pub const REBALANCE_MS: u32 = 10_000;
pub const HEARTBEAT_MS: u64 = 1_500;

#[derive(Debug, PartialEq)]
enum Phase {
    Joining,
    Syncing(BTreeMap<String, Bytes>),
    Reading,
    /// Another process has its instance id: it ends, as the clients do.
    Fenced,
}

/// One process of a consumer; a new one has a new number.
#[derive(Debug)]
pub struct Client {
    pub process: u64,
    pub instance: Option<String>,
    member_id: String,
    generation: i32,
    phase: Phase,
    partitions: Vec<Partition>,
    next_offsets: BTreeMap<Partition, i64>,
    /// What it waits for; the answer to anything else comes too late.
    pub waits_for: Option<u64>,
    pub sends_at: u64,
}

impl Client {
    pub fn new(process: u64, instance: Option<String>, now: u64) -> Self {
        Self {
            process,
            instance,
            member_id: String::new(),
            generation: -1,
            phase: Phase::Joining,
            partitions: Vec::new(),
            next_offsets: BTreeMap::new(),
            waits_for: None,
            sends_at: now,
        }
    }

    pub fn is_fenced(&self) -> bool {
        self.phase == Phase::Fenced
    }

    pub fn reading(&self) -> Option<(i32, &[Partition])> {
        (self.phase == Phase::Reading).then_some((self.generation, &self.partitions[..]))
    }

    fn identity(&self) -> String {
        let instance = self.instance.clone();
        instance.unwrap_or_else(|| self.member_id.clone())
    }

    pub fn leave(&self) -> Request {
        Request::Leave(Leave {
            group: "g".to_owned(),
            members: vec![LeavingMember {
                member_id: self.member_id.clone(),
                instance_id: self.instance.clone(),
            }],
        })
    }

    /// What it sends now; `commits` says whether a reader commits or sends a heartbeat.
    pub fn request(&self, commits: bool, unique: u64) -> Request {
        match &self.phase {
            Phase::Joining | Phase::Fenced => self.join(unique),
            Phase::Syncing(assignments) => Request::Sync(Sync {
                group: "g".to_owned(),
                generation: self.generation,
                member_id: self.member_id.clone(),
                instance_id: self.instance.clone(),
                protocol_type: Some("consumer".to_owned()),
                protocol: Some("range".to_owned()),
                assignments: assignments.clone(),
            }),
            Phase::Reading if commits && !self.partitions.is_empty() => self.commit(),
            Phase::Reading => Request::Heartbeat(Heartbeat {
                group: "g".to_owned(),
                generation: self.generation,
                member_id: self.member_id.clone(),
                instance_id: self.instance.clone(),
            }),
        }
    }

    fn join(&self, unique: u64) -> Request {
        Request::Join(Join {
            group: "g".to_owned(),
            member_id: self.member_id.clone(),
            instance_id: self.instance.clone(),
            client_id: "client".to_owned(),
            client_host: String::new(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: "consumer".to_owned(),
            protocols: vec![Protocol {
                name: "range".to_owned(),
                metadata: Bytes::new(),
            }],
            knows_member_id_required: !self.process.is_multiple_of(3),
            knows_skip_assignment: self.process.is_multiple_of(2),
            unique: u128::from(unique),
        })
    }

    fn commit(&self) -> Request {
        let offsets = self.partitions.iter().map(|partition| PartitionOffset {
            at: TopicPartition {
                topic: "t".to_owned(),
                partition: *partition,
            },
            offset: self.next_offsets[partition] + 1,
            leader_epoch: -1,
            metadata: self.generation.to_string(),
        });
        Request::Commit(Commit {
            group: "g".to_owned(),
            generation: self.generation,
            member_id: self.member_id.clone(),
            instance_id: self.instance.clone(),
            offsets: offsets.collect(),
        })
    }

    pub fn receive(
        &mut self,
        run: u32,
        request: &Request,
        answer: Answer,
        checks: &mut Checks,
        offset: impl Fn(Partition) -> Option<i64>,
    ) {
        match answer {
            Answer::Join(answer) => self.joined(run, answer, checks),
            Answer::Sync(answer) if answer.error == ErrorCode::None => {
                self.partitions = answer
                    .assignment
                    .iter()
                    .map(|byte| Partition::from(*byte))
                    .collect();
                checks.owns(self.generation, &self.partitions, &self.identity());
                self.next_offsets.clear();
                for partition in &self.partitions {
                    let offset = offset(*partition);
                    checks.reads_from(*partition, offset);
                    self.next_offsets.insert(*partition, offset.unwrap_or(0));
                }
                self.phase = Phase::Reading;
            }
            Answer::Sync(answer) => self.failed(answer.error),
            Answer::Heartbeat(error) => self.failed(error),
            Answer::Commit(answer) => {
                for (one, answer) in committed(request).iter().zip(&answer.partitions) {
                    if answer.error == ErrorCode::None {
                        checks.confirmed(one.at.partition, one.offset);
                        self.next_offsets.insert(one.at.partition, one.offset);
                    } else {
                        self.failed(answer.error);
                    }
                }
            }
            Answer::Leave(_) | Answer::DeleteGroup(_) | Answer::DeleteOffsets(_) => {}
        }
    }

    fn joined(&mut self, run: u32, answer: JoinAnswer, checks: &mut Checks) {
        if answer.error == ErrorCode::MemberIdRequired {
            self.member_id = answer.member_id;
            return;
        }
        if answer.error != ErrorCode::None {
            self.failed(answer.error);
            return;
        }
        self.member_id = answer.member_id;
        self.generation = answer.generation;
        let mut assignments = BTreeMap::new();
        if answer.leader == self.member_id && !answer.skip_assignment {
            checks.leads(run, self.generation, &self.member_id);
            let members = answer.members.iter().map(|one| &one.member_id);
            for (at, member) in members.enumerate() {
                let step = answer.members.len();
                let own = (0..PARTITIONS).skip(at).step_by(step);
                let own = own.map(|partition| u8::try_from(partition).expect("there are few"));
                assignments.insert(member.clone(), own.collect::<Vec<u8>>().into());
            }
        }
        self.phase = Phase::Syncing(assignments);
    }

    fn failed(&mut self, error: ErrorCode) {
        match error {
            ErrorCode::None => return,
            ErrorCode::UnknownMemberId => {
                self.member_id.clear();
                self.generation = -1;
            }
            ErrorCode::IllegalGeneration => self.generation = -1,
            ErrorCode::FencedInstanceId => {
                self.phase = Phase::Fenced;
                return;
            }
            // A reader looks for the coordinator and goes on; all others join again.
            ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator => {
                if self.phase == Phase::Reading {
                    return;
                }
            }
            ErrorCode::RebalanceInProgress => {}
            other => panic!("no client expects {other:?}"),
        }
        self.phase = Phase::Joining;
    }
}

fn committed(request: &Request) -> &[PartitionOffset] {
    match request {
        Request::Commit(commit) => &commit.offsets,
        _ => &[],
    }
}
