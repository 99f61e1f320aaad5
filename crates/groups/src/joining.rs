//! Who joins a group, and what begins a rebalance.

use crate::context::Context;
use crate::group::{Group, Initial, Phase, Preparing};
use crate::limits::NEW_MEMBER_JOIN_TIMEOUT_MS;
use crate::member::{Member, cut};
use crate::planted::{self, Bug};
use crate::{ErrorCode, Join, JoinAnswer, JoinedMember, SyncAnswer, Token};

impl Group {
    pub fn join(&mut self, join: Join, token: Token, cx: &mut Context<'_>) {
        if let Err((member, error)) = self.check_join(&join, cx) {
            cx.answer(token, JoinAnswer::error(member, error));
            return;
        }
        if join.member_id.is_empty() {
            self.join_unknown(join, token, cx);
        } else if self.pending.remove(&join.member_id).is_some() {
            let id = join.member_id.clone();
            self.add_member(id, join, token, cx);
        } else {
            self.join_again(join, token, cx);
        }
    }

    /// Refuses with the member id that the client is to go on with.
    fn check_join(&self, join: &Join, cx: &Context<'_>) -> Result<(), (String, ErrorCode)> {
        let id = join.member_id.as_str();
        let refuse = |error| Err((id.to_owned(), error));
        if matches!(self.phase, Phase::Dead) {
            return refuse(ErrorCode::CoordinatorNotAvailable);
        }
        let instance = join.instance_id.as_ref();
        let of_instance = instance.and_then(|instance| self.instances.get(instance));
        let counted = self.members.contains_key(id)
            || self.pending.contains_key(id)
            || (id.is_empty() && of_instance.is_some());
        let size = self.members.len() + self.pending.len();
        if id.is_empty() && !counted && size >= cx.options.members_max {
            return Err((String::new(), ErrorCode::GroupMaxSizeReached));
        }
        let former = of_instance.map_or(id, String::as_str);
        if !self.supports(former, &join.protocol_type, &join.protocols) {
            return refuse(ErrorCode::InconsistentGroupProtocol);
        }
        if id.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.check_instance(id, join.instance_id.as_deref()) {
            return refuse(error);
        }
        if !counted {
            return refuse(ErrorCode::UnknownMemberId);
        }
        Ok(())
    }

    fn join_unknown(&mut self, join: Join, token: Token, cx: &mut Context<'_>) {
        let name = join.instance_id.as_deref().unwrap_or(&join.client_id);
        let id = format!("{}-{:032x}", cut(name), join.unique);
        let known = join.instance_id.as_ref();
        let known = known.and_then(|instance| self.instances.get(instance));
        if let Some(former) = known {
            let former = former.clone();
            self.return_instance(&former, id, join, token, cx);
        } else if join.knows_member_id_required && join.instance_id.is_none() {
            let deadline = cx.now.after(u64::from(join.session_timeout_ms));
            let deadline = self.due(deadline);
            self.pending.insert(id.clone(), deadline);
            cx.answer(token, JoinAnswer::error(id, ErrorCode::MemberIdRequired));
        } else {
            self.add_member(id, join, token, cx);
        }
    }

    fn add_member(&mut self, id: String, join: Join, token: Token, cx: &mut Context<'_>) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        if let Some(instance) = &join.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        let mut member = Member::new(join);
        member.joining = Some(token);
        member.deadline = self.due(cx.now.after(NEW_MEMBER_JOIN_TIMEOUT_MS));
        self.leader.get_or_insert_with(|| id.clone());
        self.members.insert(id, member);
        self.count_bytes();
        if let Phase::Preparing(Preparing {
            initial: Some(initial),
            ..
        }) = &mut self.phase
        {
            initial.joined_since = true;
        }
        self.rebalance(cx);
    }

    fn join_again(&mut self, join: Join, token: Token, cx: &mut Context<'_>) {
        let id = join.member_id.clone();
        let Some(member) = self.members.get(&id) else {
            cx.answer(token, JoinAnswer::error(id, ErrorCode::UnknownMemberId));
            return;
        };
        let as_before = member.protocols == join.protocols && member.joined == self.generation;
        let goes_on = match self.phase {
            // The answer to its first request may have been lost.
            Phase::Completing { .. } => as_before,
            // The leader joins again to get a new assignment: it has seen new partitions.
            Phase::Stable => as_before && !self.is_leader(&id),
            _ => false,
        };
        if goes_on {
            let answer = self.joined(&id);
            self.touch(&id, cx.now);
            cx.answer(token, crate::Answer::Join(answer));
            return;
        }
        self.wait_for_generation(&id, join, token, cx);
        self.rebalance(cx);
    }

    /// Parks the join of a member; one that waits already is answered.
    pub fn wait_for_generation(
        &mut self,
        id: &str,
        join: Join,
        token: Token,
        cx: &mut Context<'_>,
    ) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        member.update(join);
        if let Some(former) = member.joining.replace(token)
            && !planted::is(Bug::ReplacedRequestUnanswered)
        {
            cx.answer(
                former,
                JoinAnswer::error(id, ErrorCode::RebalanceInProgress),
            );
        }
        self.count_bytes();
    }

    /// What a member of this generation gets as the answer to its join.
    pub fn joined(&self, id: &str) -> JoinAnswer {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = if self.is_leader(id) {
            let each = self.members.iter();
            each.map(|(member_id, member)| JoinedMember {
                member_id: member_id.clone(),
                instance_id: member.instance_id.clone(),
                metadata: member.metadata(&protocol),
            })
            .collect()
        } else {
            Vec::new()
        };
        JoinAnswer {
            error: ErrorCode::None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: id.to_owned(),
            members,
        }
    }

    /// Begins a rebalance, or ends the one under way if all have joined.
    pub fn rebalance(&mut self, cx: &mut Context<'_>) {
        match self.phase {
            Phase::Empty => {
                let delay = cx.options.initial_rebalance_delay_ms;
                self.prepare(
                    cx.now.after(delay),
                    Some(Initial {
                        remaining_ms: self.rebalance_timeout_ms().saturating_sub(delay),
                        joined_since: false,
                    }),
                );
            }
            Phase::Completing { .. } => {
                self.end_syncs(ErrorCode::RebalanceInProgress, cx);
                self.prepare(cx.now.after(self.rebalance_timeout_ms()), None);
            }
            Phase::Stable => self.prepare(cx.now.after(self.rebalance_timeout_ms()), None),
            Phase::Preparing(_) | Phase::Dead => {}
        }
        self.begin_if_all_joined(cx);
    }

    fn prepare(&mut self, deadline: u64, initial: Option<Initial>) {
        let deadline = self.due(deadline);
        self.phase = Phase::Preparing(Preparing { deadline, initial });
        self.sync_deadline = None;
    }

    /// Answers all that wait for an assignment which does not come.
    pub fn end_syncs(&mut self, error: ErrorCode, cx: &mut Context<'_>) {
        for member in self.members.values_mut() {
            member.assignment = bytes::Bytes::new();
            if let Some(token) = member.syncing.take() {
                member.deadline = cx.now.after(u64::from(member.session_timeout_ms));
                self.wake_at = self.wake_at.min(member.deadline);
                cx.answer(token, SyncAnswer::error(error));
            }
        }
        self.count_bytes();
    }

    pub fn rebalance_timeout_ms(&self) -> u64 {
        let each = self.members.values().map(|one| one.rebalance_timeout_ms);
        each.max().map_or(0, u64::from)
    }

    pub fn begin_if_all_joined(&mut self, cx: &mut Context<'_>) {
        let Phase::Preparing(preparing) = &self.phase else {
            return;
        };
        let waits = preparing.initial.is_some() && !self.members.is_empty();
        let all = self.members.values().all(|one| one.joining.is_some());
        if all && self.pending.is_empty() && !waits {
            self.begin_generation(cx);
        }
    }

    /// The deadline of a rebalance has come.
    pub fn end_of_waiting(&mut self, cx: &mut Context<'_>) {
        let delay = cx.options.initial_rebalance_delay_ms;
        if let Phase::Preparing(preparing) = &mut self.phase
            && let Some(initial) = &mut preparing.initial
            && initial.joined_since
            && initial.remaining_ms > 0
        {
            let more = delay.min(initial.remaining_ms);
            initial.joined_since = false;
            initial.remaining_ms -= more;
            preparing.deadline = cx.now.after(more);
            self.wake_at = self.wake_at.min(preparing.deadline);
            return;
        }
        self.begin_generation(cx);
    }
}
