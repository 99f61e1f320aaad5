//! A coordinator with a clock that the test moves and a table in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use onelog_groups::{
    Answer, Commit, CommitAnswer, Coordinator, DeleteOffsets, DeleteOffsetsAnswer, ErrorCode,
    Heartbeat, Join, JoinAnswer, Leave, LeaveAnswer, LeavingMember, Moment, Options, Output,
    PartitionOffset, Protocol, Record, Request, State, Sync, SyncAnswer, Token, TopicPartition,
};

pub const SESSION_MS: u32 = 10_000;
pub const REBALANCE_MS: u32 = 60_000;
pub const DELAY_MS: u64 = 1_000;
pub const START_UNIX_MS: i64 = 1_700_000_000_000;

pub struct World {
    pub coordinator: Coordinator,
    pub now: Moment,
    pub rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What is to be stored: it waits for `store` while `holds` is set.
    pub unstored: VecDeque<Vec<Record>>,
    pub holds: bool,
    answers: BTreeMap<Token, Answer>,
    tokens: u64,
}

impl World {
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        Self {
            coordinator: Coordinator::new(options),
            now: Moment {
                monotonic_ms: 5_000,
                unix_ms: START_UNIX_MS,
            },
            rows: BTreeMap::new(),
            unstored: VecDeque::new(),
            holds: false,
            answers: BTreeMap::new(),
            tokens: 0,
        }
    }

    /// A group of these dynamic members, stable; their ids in the order of their names.
    pub fn stable(names: &[&str]) -> (Self, Vec<String>) {
        let mut world = Self::new();
        let first: Vec<_> = names.iter().map(|name| world.join(join(name))).collect();
        let ids: Vec<_> = first
            .iter()
            .map(|token| world.joined(*token).member_id)
            .collect();
        let mut tokens = Vec::new();
        for (name, id) in names.iter().zip(&ids) {
            tokens.push(world.join(Join {
                member_id: id.clone(),
                ..join(name)
            }));
        }
        world.pass(DELAY_MS * 2);
        for token in tokens {
            assert_eq!(world.joined(token).error, ErrorCode::None);
        }
        world.sync_all(&ids);
        assert_eq!(world.state(), State::Stable);
        (world, ids)
    }

    /// All of these come for their assignment; the leader assigns each its own id.
    pub fn sync_all(&mut self, ids: &[String]) {
        let (generation, leader) = self.generation();
        let assignments = ids.iter().map(|id| (id.clone(), Bytes::from(id.clone())));
        let assignments: BTreeMap<_, _> = assignments.collect();
        let mut tokens = Vec::new();
        for id in ids {
            let assigns = *id == leader;
            let assignments = assigns.then(|| assignments.clone());
            tokens.push(self.sync(Sync {
                assignments: assignments.unwrap_or_default(),
                ..sync(generation, id)
            }));
        }
        for (id, token) in ids.iter().zip(tokens) {
            assert_eq!(self.synced(token).assignment, id.as_bytes());
        }
    }

    pub fn request(&mut self, request: Request) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        let out = self.coordinator.request(self.now, token, request);
        self.take(out);
        token
    }

    fn take(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Answer { token, answer } => {
                    let former = self.answers.insert(token, answer);
                    assert_eq!(former, None, "a request is answered once");
                }
                Output::Store(records) => self.unstored.push_back(records),
            }
        }
        if !self.holds {
            self.store();
        }
    }

    /// Stores all that waits.
    pub fn store(&mut self) {
        let holds = std::mem::replace(&mut self.holds, true);
        while let Some(records) = self.unstored.pop_front() {
            assert!(!records.is_empty());
            for record in records {
                let row = record.row();
                match row.value {
                    Some(value) => self.rows.insert(row.key, value),
                    None => self.rows.remove(&row.key),
                };
            }
            let out = self.coordinator.stored(self.now, Ok(()));
            self.take(out);
        }
        self.holds = holds;
    }

    /// The oldest step that waits cannot be stored.
    pub fn fail_store(&mut self, error: ErrorCode) {
        self.unstored
            .pop_front()
            .expect("something waits to be stored");
        let out = self.coordinator.stored(self.now, Err(error));
        self.take(out);
    }

    /// Time passes, with a tick whenever something is due.
    pub fn pass(&mut self, milliseconds: u64) {
        let end = self.now.monotonic_ms + milliseconds;
        while let Some(next) = self.coordinator.next_tick()
            && next <= end
        {
            self.set_time(next.max(self.now.monotonic_ms));
            let out = self.coordinator.tick(self.now);
            self.take(out);
        }
        self.set_time(end);
    }

    fn set_time(&mut self, monotonic_ms: u64) {
        let passed = monotonic_ms - self.now.monotonic_ms;
        self.now.unix_ms += i64::try_from(passed).expect("tests are short");
        self.now.monotonic_ms = monotonic_ms;
    }

    /// The coordinator ends without a word, and another one starts with what is stored; its
    /// monotonic clock begins anew.
    pub fn restart(&mut self) {
        self.unstored.clear();
        self.now.monotonic_ms = 77;
        let records = self.rows.iter();
        let records = records.map(|(key, value)| Record::of_row(key, value).expect("a row"));
        let loaded = Coordinator::load(Options::default(), self.now, records);
        self.coordinator = loaded.expect("what was stored can be loaded");
    }

    pub fn answer(&mut self, token: Token) -> Option<Answer> {
        self.answers.remove(&token)
    }

    pub fn waits(&self, token: Token) -> bool {
        !self.answers.contains_key(&token)
    }

    pub fn join(&mut self, mut join: Join) -> Token {
        join.unique = u128::from(self.tokens) + 1;
        self.request(Request::Join(join))
    }

    pub fn joined(&mut self, token: Token) -> JoinAnswer {
        match self.answer(token) {
            Some(Answer::Join(answer)) => answer,
            other => panic!("no answer to a join: {other:?}"),
        }
    }

    pub fn sync(&mut self, sync: Sync) -> Token {
        self.request(Request::Sync(sync))
    }

    pub fn synced(&mut self, token: Token) -> SyncAnswer {
        match self.answer(token) {
            Some(Answer::Sync(answer)) => answer,
            other => panic!("no answer to a sync: {other:?}"),
        }
    }

    pub fn heartbeat(&mut self, generation: i32, member: &str) -> ErrorCode {
        self.heartbeat_of(generation, member, None)
    }

    pub fn heartbeat_of(&mut self, generation: i32, member: &str, of: Option<&str>) -> ErrorCode {
        let token = self.request(Request::Heartbeat(Heartbeat {
            group: "g".to_owned(),
            generation,
            member_id: member.to_owned(),
            instance_id: of.map(str::to_owned),
        }));
        match self.answer(token) {
            Some(Answer::Heartbeat(error)) => error,
            other => panic!("no answer to a heartbeat: {other:?}"),
        }
    }

    pub fn leave(&mut self, member: &str, instance: Option<&str>) -> LeaveAnswer {
        let token = self.request(Request::Leave(Leave {
            group: "g".to_owned(),
            members: vec![LeavingMember {
                member_id: member.to_owned(),
                instance_id: instance.map(str::to_owned),
            }],
        }));
        match self.answer(token) {
            Some(Answer::Leave(answer)) => answer,
            other => panic!("no answer to a leave: {other:?}"),
        }
    }

    pub fn commit(&mut self, commit: Commit) -> Token {
        self.request(Request::Commit(commit))
    }

    pub fn committed(&mut self, token: Token) -> CommitAnswer {
        match self.answer(token) {
            Some(Answer::Commit(answer)) => answer,
            other => panic!("no answer to a commit: {other:?}"),
        }
    }

    /// Commits one offset and gives its error.
    pub fn commit_one(&mut self, generation: i32, member: &str, value: i64) -> ErrorCode {
        let token = self.commit(commit(generation, member, value));
        self.committed(token).partitions[0].error
    }

    pub fn offset(&self) -> Option<i64> {
        let record = self.coordinator.offset("g", &at("shop.orders", 0));
        record.map(|record| record.offset)
    }

    pub fn delete_group(&mut self) -> Token {
        self.request(Request::DeleteGroup {
            group: "g".to_owned(),
        })
    }

    pub fn delete_offsets(&mut self, topics: &[&str], subscribed: &[&str]) -> DeleteOffsetsAnswer {
        let subscribed = subscribed.iter().map(|topic| (*topic).to_owned());
        let token = self.request(Request::DeleteOffsets(DeleteOffsets {
            group: "g".to_owned(),
            partitions: topics.iter().map(|topic| at(topic, 0)).collect(),
            subscribed: subscribed.collect::<BTreeSet<_>>(),
        }));
        match self.answer(token) {
            Some(Answer::DeleteOffsets(answer)) => answer,
            other => panic!("no answer to a deletion of offsets: {other:?}"),
        }
    }

    pub fn state(&self) -> State {
        let group = self.coordinator.describe("g");
        group.map_or(State::Dead, |group| group.state)
    }

    pub fn generation(&self) -> (i32, String) {
        let group = self.coordinator.describe("g").expect("there is the group");
        (group.generation, group.leader.unwrap_or_default())
    }

    pub fn members(&self) -> Vec<String> {
        let group = self.coordinator.describe("g").expect("there is the group");
        group.members.into_iter().map(|one| one.member_id).collect()
    }
}

pub fn protocol(name: &str, metadata: &'static str) -> Protocol {
    Protocol {
        name: name.to_owned(),
        metadata: Bytes::from_static(metadata.as_bytes()),
    }
}

pub fn join(client: &str) -> Join {
    Join {
        group: "g".to_owned(),
        member_id: String::new(),
        instance_id: None,
        client_id: client.to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".to_owned(),
        protocols: vec![protocol("range", "r"), protocol("robin", "o")],
        knows_member_id_required: true,
        knows_skip_assignment: false,
        unique: 0,
    }
}

/// Of a client that joins at once, as those before the dance of ids.
pub fn old_join(client: &str) -> Join {
    Join {
        knows_member_id_required: false,
        ..join(client)
    }
}

pub fn instance(name: &str) -> Join {
    Join {
        instance_id: Some(name.to_owned()),
        ..join("client")
    }
}

pub fn sync(generation: i32, member: &str) -> Sync {
    Sync {
        group: "g".to_owned(),
        generation,
        member_id: member.to_owned(),
        instance_id: None,
        protocol_type: None,
        protocol: None,
        assignments: BTreeMap::new(),
    }
}

pub fn at(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition {
        topic: topic.to_owned(),
        partition,
    }
}

pub fn commit(generation: i32, member: &str, offset: i64) -> Commit {
    Commit {
        group: "g".to_owned(),
        generation,
        member_id: member.to_owned(),
        instance_id: None,
        offsets: vec![PartitionOffset {
            at: at("shop.orders", 0),
            offset,
            leader_epoch: 3,
            metadata: "text".to_owned(),
        }],
    }
}
