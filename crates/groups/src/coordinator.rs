//! All groups of one coordinator: which group a request is for, what waits to be stored, and when
//! each group is looked at.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::commits;
use crate::context::{After, Context, Waiting};
use crate::group::{Group, Phase};
use crate::limits;
use crate::planted::{self, Bug};
use crate::protocols;
use crate::{
    Answer, DeleteOffsetsAnswer, ErrorCode, Join, JoinAnswer, LeaveAnswer, Moment, Options, Output,
    Request, SyncAnswer, Token,
};

#[derive(Debug)]
pub struct Coordinator {
    options: Options,
    pub(crate) groups: BTreeMap<String, Group>,
    /// When each group is looked at; it may be earlier than anything is due.
    timers: BTreeSet<(u64, String)>,
    stores: VecDeque<Waiting>,
    /// What all groups together take.
    bytes: usize,
}

impl Coordinator {
    /// A coordinator of no groups yet.
    pub fn new(options: Options) -> Self {
        let members_max = options.members_max.clamp(1, limits::MEMBERS_MAX);
        Self {
            options: Options {
                members_max,
                ..options
            },
            groups: BTreeMap::new(),
            timers: BTreeSet::new(),
            stores: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Takes a request in; its answer is among these outputs or later ones.
    pub fn request(&mut self, now: Moment, token: Token, request: Request) -> Vec<Output> {
        let mut out = Vec::new();
        if let Err(error) = self.admit(&request) {
            let answer = refuse(&request, error);
            out.push(Output::Answer { token, answer });
            return out;
        }
        let id = request.group().to_owned();
        self.groups
            .entry(id.clone())
            .or_insert_with(|| Group::new(&id, now));
        self.step(&id, now, &mut out, |group, cx| match request {
            Request::Join(join) => group.join(join, token, cx),
            Request::Sync(sync) => group.sync(sync, token, cx),
            Request::Heartbeat(heartbeat) => {
                let error = group.heartbeat(&heartbeat, cx);
                cx.answer(token, Answer::Heartbeat(error));
            }
            Request::Leave(leave) => group.leave(leave, token, cx),
            Request::Commit(commit) => group.commit(commit, token, cx),
            Request::DeleteGroup { .. } => group.delete_group(token, cx),
            Request::DeleteOffsets(delete) => group.delete_offsets(delete, token, cx),
        });
        out
    }

    /// Reports that the oldest step which is not reported yet is stored, or why it is not: then its
    /// requests are answered with the error, and nothing of it takes effect.
    pub fn stored(&mut self, now: Moment, result: Result<(), ErrorCode>) -> Vec<Output> {
        let mut out = Vec::new();
        let Some(Waiting { group, after }) = self.stores.pop_front() else {
            return out;
        };
        self.step(&group, now, &mut out, |group, cx| {
            group.stores -= 1;
            group.stored(after, result, cx);
        });
        out
    }

    /// Does what is due. To be called at [`next_tick`](Self::next_tick) at the latest.
    pub fn tick(&mut self, now: Moment) -> Vec<Output> {
        let mut out = Vec::new();
        while let Some((at, _)) = self.timers.first()
            && *at <= now.monotonic_ms
            && let Some((_, id)) = self.timers.pop_first()
        {
            if let Some(group) = self.groups.get_mut(&id) {
                group.scheduled_at = None;
            }
            self.step(&id, now, &mut out, Group::expire);
        }
        out
    }

    /// The monotonic time at which something may be due.
    pub fn next_tick(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// How many steps wait to be stored.
    pub fn unstored(&self) -> usize {
        self.stores.len()
    }

    /// Another node coordinates, or none: answers all that waits. What was to be stored may be
    /// stored or not.
    pub fn resign(self, error: ErrorCode) -> Vec<Output> {
        let mut answers = Vec::new();
        for waiting in self.stores {
            answers.extend(waiting.after.refused(error));
        }
        for group in self.groups.into_values() {
            for (id, member) in group.members {
                if let Some(token) = member.joining {
                    answers.push((token, JoinAnswer::error(id, error)));
                }
                if let Some(token) = member.syncing {
                    answers.push((token, SyncAnswer::error(error)));
                }
            }
        }
        let each = answers.into_iter();
        each.map(|(token, answer)| Output::Answer { token, answer })
            .collect()
    }

    pub(crate) fn insert(&mut self, mut group: Group) {
        self.bytes += group.bytes();
        group.wake_at = group.first_deadline();
        schedule(&mut self.timers, &mut group);
        self.groups.insert(group.id.clone(), group);
    }

    fn step(
        &mut self,
        id: &str,
        now: Moment,
        out: &mut Vec<Output>,
        run: impl FnOnce(&mut Group, &mut Context<'_>),
    ) {
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        // A group that was made for this step is not counted yet.
        let before = if group.is_blank() { 0 } else { group.bytes() };
        run(
            group,
            &mut Context {
                now,
                options: &self.options,
                out,
                stores: &mut self.stores,
            },
        );
        self.bytes -= before;
        if group.is_blank() {
            if let Some(at) = group.scheduled_at {
                self.timers.remove(&(at, id.to_owned()));
            }
            self.groups.remove(id);
        } else {
            self.bytes += group.bytes();
            schedule(&mut self.timers, group);
        }
    }

    fn admit(&self, request: &Request) -> Result<(), ErrorCode> {
        let id = request.group();
        let consumes = !matches!(
            request,
            Request::Commit(_) | Request::DeleteGroup { .. } | Request::DeleteOffsets(_)
        );
        if !limits::is_name(id) || (id.is_empty() && consumes) {
            return Err(ErrorCode::InvalidGroupId);
        }
        if self.stores.len() >= limits::STORES_MAX && !matches!(request, Request::Heartbeat(_)) {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        let Some(group) = self.groups.get(id) else {
            return self.admit_to_new(request);
        };
        match request {
            Request::Join(join) => self.admit_join(join, group.member_bytes()),
            _ => self.admit_sizes(request),
        }
    }

    fn admit_to_new(&self, request: &Request) -> Result<(), ErrorCode> {
        let full = self.groups.len() >= limits::GROUPS_MAX;
        match request {
            Request::Join(join) if !join.member_id.is_empty() => Err(ErrorCode::UnknownMemberId),
            Request::Join(_) if full => Err(ErrorCode::GroupMaxSizeReached),
            Request::Join(join) => self.admit_join(join, 0),
            Request::Commit(commit) if commit.generation >= 0 => Err(ErrorCode::IllegalGeneration),
            Request::Commit(_) if full => Err(ErrorCode::InvalidCommitOffsetSize),
            Request::Commit(_) => self.admit_sizes(request),
            Request::Sync(_) | Request::Heartbeat(_) | Request::Leave(_) => {
                Err(ErrorCode::UnknownMemberId)
            }
            Request::DeleteGroup { .. } | Request::DeleteOffsets(_) => {
                Err(ErrorCode::GroupIdNotFound)
            }
        }
    }

    fn admit_join(&self, join: &Join, member_bytes: usize) -> Result<(), ErrorCode> {
        let sessions = self.options.session_timeout_ms_min..=self.options.session_timeout_ms_max;
        if !sessions.contains(&join.session_timeout_ms) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        let instance = join.instance_id.as_deref().unwrap_or_default();
        let named = limits::is_name(instance) && limits::is_name(&join.protocol_type);
        if !named || !protocols::within_limits(&join.protocols) {
            return Err(ErrorCode::InvalidRequest);
        }
        let bytes = protocols::bytes(&join.protocols) + 4 * limits::CLIENT_NAME_BYTES_MAX;
        if member_bytes + bytes > limits::GROUP_BYTES_MAX
            || self.bytes + bytes > limits::MEMORY_BYTES_MAX
        {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        Ok(())
    }

    fn admit_sizes(&self, request: &Request) -> Result<(), ErrorCode> {
        match request {
            Request::Leave(leave) if leave.members.len() > limits::LEAVING_MAX => {
                Err(ErrorCode::InvalidRequest)
            }
            // A commit takes at most so much, see `commits`.
            Request::Commit(_)
                if self.bytes + limits::COMMIT_BYTES_MAX > limits::MEMORY_BYTES_MAX =>
            {
                Err(ErrorCode::InvalidCommitOffsetSize)
            }
            _ => Ok(()),
        }
    }
}

fn schedule(timers: &mut BTreeSet<(u64, String)>, group: &mut Group) {
    if group.scheduled_at.is_some_and(|at| at <= group.wake_at) {
        return;
    }
    if let Some(at) = group.scheduled_at {
        timers.remove(&(at, group.id.clone()));
    }
    timers.insert((group.wake_at, group.id.clone()));
    group.scheduled_at = Some(group.wake_at);
}

fn refuse(request: &Request, error: ErrorCode) -> Answer {
    match request {
        Request::Join(join) => {
            // A client that gets this error keeps the id of the answer.
            let keeps = error != ErrorCode::GroupMaxSizeReached;
            JoinAnswer::error(if keeps { join.member_id.as_str() } else { "" }, error)
        }
        Request::Sync(_) => SyncAnswer::error(error),
        Request::Heartbeat(_) => Answer::Heartbeat(error),
        Request::Leave(leave) => refuse_leave(leave, error),
        Request::Commit(commit) => commits::refuse(&commit.offsets, error),
        Request::DeleteGroup { .. } => Answer::DeleteGroup(error),
        Request::DeleteOffsets(_) => DeleteOffsetsAnswer::error(error),
    }
}

/// That a member is unknown is an answer for each, as if the group were there.
fn refuse_leave(leave: &crate::Leave, error: ErrorCode) -> Answer {
    let of_members = error == ErrorCode::UnknownMemberId;
    let each = leave.members.iter().filter(|_| of_members);
    Answer::Leave(LeaveAnswer {
        error: if of_members { ErrorCode::None } else { error },
        members: each.map(|one| (one.clone(), error)).collect(),
    })
}

impl Group {
    fn stored(&mut self, after: After, result: Result<(), ErrorCode>, cx: &mut Context<'_>) {
        let is_stored = result.is_ok();
        match after {
            After::Assigned { generation, gone } => {
                self.members_gone(&gone, is_stored);
                self.assignment_stored(generation, result, cx);
            }
            After::Emptied { gone } => self.members_gone(&gone, is_stored),
            After::Returned {
                token,
                answer,
                gone,
            } => {
                self.members_gone(&gone, is_stored);
                match result {
                    Ok(()) => self.returned(token, answer, cx),
                    // It joins again as an instance without an id.
                    Err(error) => cx.answer(token, JoinAnswer::error("", error)),
                }
            }
            After::Committed {
                token,
                changes,
                mut answer,
            } => {
                self.offsets.end_wait(changes, is_stored);
                if let Err(error) = result {
                    answer.refuse(error);
                }
                if !planted::is(Bug::AnswerBeforeStored) {
                    cx.answer(token, Answer::Commit(answer));
                }
            }
            After::OffsetsDeleted {
                token,
                partitions,
                answers,
            } => self.offsets_deleted(token, &partitions, answers, result, cx),
            After::Expired { partitions } => {
                let expired = partitions.iter().filter(|_| is_stored);
                expired.for_each(|at| self.offsets.forget(at));
            }
            After::Deleted { token } => {
                self.deleted(is_stored);
                if let Some(token) = token {
                    let error = result.err().unwrap_or(ErrorCode::None);
                    cx.answer(token, Answer::DeleteGroup(error));
                }
            }
        }
    }

    fn deleted(&mut self, is_stored: bool) {
        self.phase = Phase::Empty;
        if is_stored {
            let all = self.offsets.partitions();
            all.iter().for_each(|at| self.offsets.forget(at));
            self.stored = false;
            self.stored_members.clear();
        }
    }
}

impl After {
    fn refused(self, error: ErrorCode) -> Option<(Token, Answer)> {
        match self {
            Self::Returned { token, .. } => Some((token, JoinAnswer::error("", error))),
            Self::Committed {
                token, mut answer, ..
            } => {
                answer.refuse(error);
                Some((token, Answer::Commit(answer)))
            }
            Self::OffsetsDeleted { token, .. } => Some((token, DeleteOffsetsAnswer::error(error))),
            Self::Deleted { token } => token.map(|token| (token, Answer::DeleteGroup(error))),
            Self::Assigned { .. } | Self::Emptied { .. } | Self::Expired { .. } => None,
        }
    }
}
