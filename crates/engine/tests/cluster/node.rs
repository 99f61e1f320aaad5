//! One node: an engine over a disk in memory, which flushes when the test says so.

use std::collections::VecDeque;

use bytes::Bytes;
use onelog_commit::ValidatorOptions;
use onelog_engine::{
    Applied, Effect, Engine, EngineError, EngineOptions, Fetch, Members, Message, Prepared, Raft,
    RaftOptions, SnapshotMark, Submission,
};
use onelog_record::{
    CommitRequest, Committed, Compression, Entry, Index, NodeId, Operation, Position, Refusal,
    Term, TxnId, Write,
};

use crate::support::{Nothing, OneTable, TABLE, rules};

/// What a crash leaves.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub vote: (Term, u64),
    /// The entry before the first one in `log`.
    pub start: (Index, Term),
    pub log: Vec<Entry>,
    /// The state: every entry that it is made of.
    pub state: Vec<Entry>,
    pub members: Members,
}

impl Disk {
    pub fn last(&self) -> Index {
        self.log.last().map_or(self.start.0, |entry| entry.index)
    }

    fn snapshot(&self) -> Option<(SnapshotMark, Vec<Entry>)> {
        let last = self.state.last()?;
        let mark = SnapshotMark {
            index: last.index,
            term: last.term,
            end: last.header.end(),
            members: self.members.clone(),
        };
        Some((mark, self.state.clone()))
    }

    fn entries(&self, from: Index, to: Index) -> Vec<Entry> {
        let inside = |entry: &&Entry| from <= entry.index && entry.index < to;
        self.log.iter().filter(inside).cloned().collect()
    }
}

pub struct Node {
    pub id: NodeId,
    pub engine: Engine<u32>,
    /// What survives a crash.
    pub disk: Disk,
    /// Appended entries that are not flushed.
    pub staged: VecDeque<Entry>,
    /// Effects behind one that waits for flushes.
    queue: VecDeque<Effect<u32>>,
    pub applied: Vec<Entry>,
    pub members: Members,
    pub fetches: Vec<Fetch>,
    pub sent: Vec<Message>,
    pub answers: Vec<(u32, Result<Committed, Refusal>)>,
    pub readable: Vec<(u32, Position)>,
    /// A snapshot that has arrived, and is not installed.
    pub arrived: Option<(SnapshotMark, Vec<Entry>)>,
    /// The newest snapshot of this node's own.
    pub snapshot: Option<(SnapshotMark, Vec<Entry>)>,
    rules: OneTable,
    /// How often each rare thing has happened.
    pub reached: Reached,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    pub cuts: usize,
    pub cuts_behind_flushes: usize,
    pub installs: usize,
    pub fetches: usize,
    pub member_changes: usize,
    pub lost_answers: usize,
}

impl Reached {
    pub fn add(&mut self, other: Self) {
        let Self {
            cuts,
            cuts_behind_flushes,
            installs,
            fetches,
            member_changes,
            lost_answers,
        } = other;
        self.cuts += cuts;
        self.cuts_behind_flushes += cuts_behind_flushes;
        self.installs += installs;
        self.fetches += fetches;
        self.member_changes += member_changes;
        self.lost_answers += lost_answers;
    }
}

impl Node {
    pub fn start(id: NodeId, disk: Disk, seed: u64) -> Self {
        let last = disk.state.last();
        let applied = Applied {
            position: last.map_or(Position::ZERO, |entry| entry.header.end()),
            index: last.map_or(Index::ZERO, |entry| entry.index),
            term: last.map_or(Term::ZERO, |entry| entry.term),
            timestamp_ms: 0,
        };
        let before = (disk.start.0 > Index::ZERO).then_some(disk.start);
        let mut terms: Vec<(Index, Term)> = before.into_iter().collect();
        for entry in &disk.log {
            if terms.last().is_none_or(|(_, term)| *term != entry.term) {
                terms.push((entry.index, entry.term));
            }
        }
        let raft = Raft::new(&RaftOptions {
            node: id,
            members: disk.members.clone(),
            term: disk.vote.0,
            vote: disk.vote.1,
            first: disk.start.0.next(),
            terms,
            committed: applied.index,
            committed_end: applied.position,
            uncommitted: disk.entries(applied.index.next(), Index(u64::MAX)),
            unapplied_bytes_max: 1 << 20,
            seed,
        });
        let options = EngineOptions {
            compression: Compression::None,
            validator: ValidatorOptions::default(),
        };
        let mut engine = Engine::new(options, raft.unwrap(), applied, std::iter::empty());
        let snapshot = disk.snapshot();
        if let Some((mark, _)) = &snapshot {
            engine.has_snapshot(mark.clone());
        }
        Self {
            id,
            engine,
            staged: VecDeque::new(),
            queue: VecDeque::new(),
            applied: disk.state.clone(),
            members: disk.members.clone(),
            fetches: Vec::new(),
            sent: Vec::new(),
            answers: Vec::new(),
            readable: Vec::new(),
            arrived: None,
            snapshot,
            rules: rules(),
            reached: Reached::default(),
            disk,
        }
    }

    pub fn hears(&mut self, message: Message) -> Result<(), EngineError> {
        let mut heard = Ok(());
        self.does(|engine, out| {
            heard = engine.step(message, out);
            if heard.is_ok() {
                engine.commit(usize::MAX, out).unwrap();
            }
        });
        heard
    }

    pub fn does(&mut self, act: impl FnOnce(&mut Engine<u32>, &mut Vec<Effect<u32>>)) {
        let mut effects = Vec::new();
        act(&mut self.engine, &mut effects);
        self.queue.extend(effects);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.queue.pop_front() {
            match effect {
                Effect::SaveVote(term, vote) => self.disk.vote = (term, vote),
                Effect::Install(_) | Effect::Cut(_) if !self.staged.is_empty() => {
                    self.reached.cuts_behind_flushes += 1;
                    self.queue.push_front(effect);
                    return;
                }
                Effect::Install(mark) => self.install(mark),
                Effect::Cut(index) => {
                    self.reached.cuts += 1;
                    self.disk.log.retain(|entry| entry.index < index);
                    self.stored();
                }
                Effect::Append(entries) => self.staged.extend(entries),
                Effect::Send(messages) => self.sent.extend(messages),
                Effect::Fetch(fetch) => self.fetches.push(fetch),
                Effect::Apply(entry, _) => self.applied.push(entry),
                Effect::Members(_, members) => {
                    self.reached.member_changes += 1;
                    self.members = members;
                }
                Effect::Reply(ticket, answer) => {
                    self.reached.lost_answers += usize::from(answer.is_err());
                    self.answers.push((ticket, answer));
                }
                Effect::Readable(ticket, position) => self.readable.push((ticket, position)),
            }
        }
    }

    /// Reports how far the log is durable, which may lead to more.
    fn stored(&mut self) {
        let (last, mut effects) = (self.disk.last(), Vec::new());
        self.engine.stored(last, &mut effects).unwrap();
        self.queue.extend(effects);
    }

    fn install(&mut self, mark: SnapshotMark) {
        let (arrived, entries) = self.arrived.take().expect("it came before its message");
        assert_eq!(arrived, mark);
        self.reached.installs += 1;
        self.disk.start = (mark.index, mark.term);
        self.disk.log.clear();
        self.disk.state = entries.clone();
        self.disk.members = mark.members.clone();
        self.members = mark.members;
        self.applied = entries;
        let mut effects = Vec::new();
        let ids = std::iter::empty();
        self.engine.installed(ids, 0, &mut effects).unwrap();
        self.queue.extend(effects);
    }

    /// Flushes up to `count` entries.
    pub fn flush(&mut self, count: usize) {
        let count = count.min(self.staged.len());
        self.disk.log.extend(self.staged.drain(..count));
        let is_waiting = matches!(
            self.queue.front(),
            Some(Effect::Cut(_) | Effect::Install(_))
        );
        if !is_waiting {
            self.stored();
        }
        self.carry_out();
    }

    /// Saves the state, and the members with it; a snapshot of both can be sent from then on.
    pub fn checkpoint(&mut self) {
        // What is applied and not durable here would be a gap behind a restart.
        let is_durable = self.applied.len() as u64 <= self.disk.last().get();
        if !is_durable || self.disk.state.len() == self.applied.len() {
            return;
        }
        self.disk.state.clone_from(&self.applied);
        self.disk.members = self.members.clone();
        self.snapshot = self.disk.snapshot();
        if let Some((mark, _)) = &self.snapshot {
            self.engine.has_snapshot(mark.clone());
        }
    }

    /// Cuts the log behind the newest snapshot, but for `keep` entries.
    pub fn retain(&mut self, keep: u64) {
        let Some((mark, _)) = &self.snapshot else {
            return;
        };
        let first = Index(mark.index.get().saturating_sub(keep).max(1));
        let first = first.max(self.disk.start.0.next());
        let gone = |entry: &&Entry| entry.index < first;
        let Some(last_gone) = self.disk.log.iter().rfind(gone) else {
            return;
        };
        self.disk.start = (last_gone.index, last_gone.term);
        self.disk.log.retain(|entry| entry.index >= first);
        self.engine.cut_start(first);
    }

    pub fn is_installing(&self) -> bool {
        let mut queue = self.queue.iter();
        queue.any(|effect| matches!(effect, Effect::Install(_)))
    }

    /// Reads from the log what the engine wants for followers.
    pub fn fetch(&mut self) {
        for fetch in std::mem::take(&mut self.fetches) {
            let Fetch { id, indexes, .. } = fetch;
            let entries = self.disk.entries(indexes.start, indexes.end);
            let is_there = entries.first().is_some_and(|e| e.index == indexes.start);
            let entries = if is_there { &entries[..] } else { &[] };
            self.reached.fetches += 1;
            self.does(|engine, out| engine.fetched(id, entries, out).unwrap());
        }
    }

    pub fn tick(&mut self) {
        self.does(|engine, out| engine.tick(out).unwrap());
    }

    pub fn submit(&mut self, ticket: u32) {
        let write = Write {
            table: TABLE,
            key: Bytes::from(format!("k{ticket}")),
            operation: Operation::Put(Bytes::from_static(b"v")),
            headers: Vec::new(),
        };
        let submission = Submission {
            id: TxnId(u128::from(ticket)),
            fingerprint: 0,
            request: CommitRequest {
                writes: vec![write],
                ..CommitRequest::default()
            },
            prepared: Prepared::default(),
            ticket,
        };
        let view = Nothing(self.engine.applied().position);
        let mut effects = Vec::new();
        self.engine
            .submit(submission, &view, &self.rules, &mut effects)
            .unwrap();
        self.queue.extend(effects);
        self.carry_out();
    }

    pub fn seal(&mut self) {
        self.does(|engine, out| engine.seal(1_000, out).unwrap());
    }

    pub fn leads(&self) -> bool {
        self.engine.admits()
    }
}
