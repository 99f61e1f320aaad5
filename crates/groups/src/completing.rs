//! How a generation begins, and how its members get the leader's assignment.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::context::{After, Context};
use crate::group::{Group, Phase, Preparing};
use crate::limits::{ASSIGNMENT_BYTES_MAX, GROUP_BYTES_MAX};
use crate::planted::{self, Bug};
use crate::{Answer, ErrorCode, Sync, SyncAnswer, Token};

impl Group {
    /// Begins a generation with those who have joined, and with instances that are away.
    pub fn begin_generation(&mut self, cx: &mut Context<'_>) {
        let away = self.members.iter();
        let away = away.filter(|(_, one)| one.joining.is_none() && one.instance_id.is_none());
        let away: Vec<String> = away.map(|(id, _)| id.clone()).collect();
        for id in away {
            self.forget(&id);
        }
        if self.members.is_empty() {
            self.empty(cx);
            return;
        }
        if !self.elect_leader() {
            // Only instances that are away are left: they come back, or their sessions end.
            let deadline = self.due(cx.now.after(self.rebalance_timeout_ms()));
            self.phase = Phase::Preparing(Preparing {
                deadline,
                initial: None,
            });
            return;
        }
        self.generation = next(self.generation);
        self.protocol = self.select_protocol();
        self.phase = Phase::Completing { storing: None };
        self.sync_deadline = Some(self.due(cx.now.after(self.rebalance_timeout_ms())));
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.answer_join(&id, cx);
        }
    }

    fn answer_join(&mut self, id: &str, cx: &mut Context<'_>) {
        let generation = self.generation;
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let Some(token) = member.joining.take() else {
            return;
        };
        member.joined = generation;
        member.synced = false;
        member.is_new = false;
        self.touch(id, cx.now);
        let answer = self.joined(id);
        cx.answer(token, Answer::Join(answer));
    }

    fn empty(&mut self, cx: &mut Context<'_>) {
        self.phase = Phase::Empty;
        self.protocol = None;
        self.leader = None;
        self.sync_deadline = None;
        self.emptied_at = Some(cx.now.unix_ms);
        self.generation = next(self.generation);
        let (records, gone) = self.records([]);
        self.stores += 1;
        cx.store(&self.id, records, After::Emptied { gone });
    }

    /// The leader has to be one that has joined; false if there is none.
    fn elect_leader(&mut self) -> bool {
        let joined = |id: &String| {
            self.members
                .get(id)
                .is_some_and(|one| one.joining.is_some())
        };
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let mut all = self.members.keys();
        match all.find(|id| joined(id)) {
            Some(id) => {
                self.leader = Some(id.clone());
                true
            }
            None => false,
        }
    }

    pub fn sync(&mut self, sync: Sync, token: Token, cx: &mut Context<'_>) {
        let id = sync.member_id.as_str();
        let checked = self
            .check_member(id, sync.instance_id.as_deref(), sync.generation)
            .and_then(|()| self.check_protocol(&sync));
        let error = match (checked, &self.phase) {
            (Err(error), _) => error,
            (Ok(()), Phase::Empty | Phase::Dead) => ErrorCode::UnknownMemberId,
            (Ok(()), Phase::Preparing(_)) => ErrorCode::RebalanceInProgress,
            (Ok(()), Phase::Completing { .. }) => {
                self.sync_completing(sync, token, cx);
                return;
            }
            (Ok(()), Phase::Stable) => {
                self.touch(id, cx.now);
                if let Some(member) = self.members.get_mut(id) {
                    member.synced = true;
                }
                cx.answer(token, self.assigned(id));
                return;
            }
        };
        cx.answer(token, SyncAnswer::error(error));
    }

    fn check_protocol(&self, sync: &Sync) -> Result<(), ErrorCode> {
        let differs = |named: &Option<String>, ours: &Option<String>| {
            named.is_some() && named.as_deref() != ours.as_deref()
        };
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn sync_completing(&mut self, sync: Sync, token: Token, cx: &mut Context<'_>) {
        self.park_sync(&sync.member_id, token, cx);
        let first = matches!(self.phase, Phase::Completing { storing: None });
        if self.is_leader(&sync.member_id) && first {
            self.assign(sync.assignments, cx);
        }
    }

    /// Stores what the leader assigns. A member that it leaves out gets an empty assignment.
    fn assign(&mut self, mut assignments: BTreeMap<String, Bytes>, cx: &mut Context<'_>) {
        assignments.retain(|id, _| self.members.contains_key(id));
        let bytes: usize = assignments.values().map(Bytes::len).sum();
        let too_long = assignments
            .values()
            .any(|one| one.len() > ASSIGNMENT_BYTES_MAX);
        if too_long || self.member_bytes() + bytes > GROUP_BYTES_MAX {
            self.end_syncs(ErrorCode::UnknownServerError, cx);
            self.rebalance(cx);
            return;
        }
        let ids: Vec<String> = self.members.keys().cloned().collect();
        let of = |id: &String| assignments.get(id).cloned().unwrap_or_default();
        let (records, gone) = self.records(ids.iter().map(|id| (id, of(id))));
        let generation = self.generation;
        self.phase = Phase::Completing {
            storing: Some(assignments),
        };
        self.stores += 1;
        cx.store(&self.id, records, After::Assigned { generation, gone });
        if planted::is(Bug::AssignBeforeStored) {
            self.assignment_stored(generation, Ok(()), cx);
        }
    }

    /// Hands the assignment out, unless the group rebalances again.
    pub fn assignment_stored(
        &mut self,
        generation: i32,
        result: Result<(), ErrorCode>,
        cx: &mut Context<'_>,
    ) {
        if self.generation != generation {
            return;
        }
        let Phase::Completing { storing } = &mut self.phase else {
            return;
        };
        let Some(mut assignments) = storing.take() else {
            return;
        };
        if let Err(error) = result {
            self.end_syncs(error, cx);
            self.rebalance(cx);
            return;
        }
        self.phase = Phase::Stable;
        self.emptied_at = None;
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            member.assignment = assignments.remove(&id).unwrap_or_default();
            if let Some(token) = member.syncing.take() {
                self.touch(&id, cx.now);
                cx.answer(token, self.assigned(&id));
            }
        }
        self.count_bytes();
    }

    fn assigned(&self, id: &str) -> Answer {
        let member = self.members.get(id);
        Answer::Sync(SyncAnswer {
            error: ErrorCode::None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: member.map(|one| one.assignment.clone()).unwrap_or_default(),
        })
    }
}

/// Clients take a negative generation for none.
fn next(generation: i32) -> i32 {
    generation.checked_add(1).unwrap_or(1)
}
