//! Heartbeats, and members that leave.

use crate::context::Context;
use crate::group::{Group, Phase};
use crate::{Answer, ErrorCode, Heartbeat, JoinAnswer, LeaveAnswer, LeavingMember, SyncAnswer};
use crate::{Leave, Token};

impl Group {
    pub fn heartbeat(&mut self, heartbeat: &Heartbeat, cx: &Context<'_>) -> ErrorCode {
        let id = heartbeat.member_id.as_str();
        let instance = heartbeat.instance_id.as_deref();
        if let Err(error) = self.check_member(id, instance, heartbeat.generation) {
            return error;
        }
        self.touch(id, cx.now);
        match self.phase {
            Phase::Preparing(_) => ErrorCode::RebalanceInProgress,
            Phase::Completing { .. } | Phase::Stable => ErrorCode::None,
            Phase::Empty | Phase::Dead => ErrorCode::UnknownMemberId,
        }
    }

    pub fn leave(&mut self, leave: Leave, token: Token, cx: &mut Context<'_>) {
        if matches!(self.phase, Phase::Dead) {
            let error = ErrorCode::CoordinatorNotAvailable;
            let members = Vec::new();
            cx.answer(token, Answer::Leave(LeaveAnswer { error, members }));
            return;
        }
        let mut members = Vec::with_capacity(leave.members.len());
        for leaving in leave.members {
            let error = self.leave_one(&leaving, cx);
            members.push((leaving, error));
        }
        let error = ErrorCode::None;
        cx.answer(token, Answer::Leave(LeaveAnswer { error, members }));
    }

    fn leave_one(&mut self, leaving: &LeavingMember, cx: &mut Context<'_>) -> ErrorCode {
        let instance = leaving.instance_id.as_ref();
        let of_instance = instance.and_then(|instance| self.instances.get(instance));
        let id = match (leaving.member_id.as_str(), of_instance) {
            ("", Some(known)) => known.clone(),
            (id, Some(known)) if id != known => return ErrorCode::FencedInstanceId,
            (_, None) if instance.is_some() => return ErrorCode::UnknownMemberId,
            (id, _) => id.to_owned(),
        };
        if self.pending.remove(&id).is_some() {
            self.begin_if_all_joined(cx);
        } else if self.members.contains_key(&id) {
            self.remove(&id, cx);
        } else {
            return ErrorCode::UnknownMemberId;
        }
        ErrorCode::None
    }

    /// Takes a member out; what waits of it is answered so that a client that is still there joins
    /// anew.
    pub fn remove(&mut self, id: &str, cx: &mut Context<'_>) {
        let Some(gone) = self.forget(id) else {
            return;
        };
        let unknown = ErrorCode::UnknownMemberId;
        if let Some(token) = gone.joining {
            cx.answer(token, JoinAnswer::error("", unknown));
        }
        if let Some(token) = gone.syncing {
            cx.answer(token, SyncAnswer::error(unknown));
        }
        self.rebalance(cx);
    }
}
