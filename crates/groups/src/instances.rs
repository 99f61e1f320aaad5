//! Static membership: an instance that comes back takes the place that it had.

use crate::context::{After, Context};
use crate::group::{Group, Phase};
use crate::limits::RETURNS_MAX;
use crate::member::Member;
use crate::{Answer, ErrorCode, Join, JoinAnswer, SyncAnswer, Token};

impl Group {
    /// Gives the place of a member to the same instance under a new id. Whatever still speaks with
    /// the former id is fenced.
    pub fn return_instance(
        &mut self,
        former: &str,
        id: String,
        join: Join,
        token: Token,
        cx: &mut Context<'_>,
    ) {
        if self.stores >= RETURNS_MAX {
            let error = ErrorCode::CoordinatorNotAvailable;
            cx.answer(token, JoinAnswer::error("", error));
            return;
        }
        let knows_skip_assignment = join.knows_skip_assignment;
        let former_leader = self.leader.clone();
        self.replace_member(former, &id, join, cx);
        let protocol = self.select_protocol();
        if !matches!(self.phase, Phase::Stable) || protocol != self.protocol {
            if let Some(member) = self.members.get_mut(&id) {
                member.joining = Some(token);
            }
            // In a generation that waits for its leader's assignment the leader knows the former id.
            self.rebalance(cx);
            return;
        }
        let mut answer = self.joined(&id);
        if knows_skip_assignment {
            answer.skip_assignment = self.is_leader(&id);
        } else {
            // A client that does not know itself as leader assigns nothing: its assignment would not
            // reach members of a group that is stable.
            answer.members.clear();
            answer.leader = former_leader.unwrap_or_default();
        }
        let assignment = self.members.get(&id).map(|one| one.assignment.clone());
        let (records, gone) = self.records([(&id, assignment.unwrap_or_default())]);
        let after = After::Returned {
            token,
            answer,
            gone,
        };
        self.stores += 1;
        cx.store(&self.id, records, after);
    }

    fn replace_member(&mut self, former: &str, id: &str, join: Join, cx: &mut Context<'_>) {
        let led = self.is_leader(former);
        let mut member = Member::new(join);
        if let Some(gone) = self.forget(former) {
            let fenced = ErrorCode::FencedInstanceId;
            if let Some(token) = gone.joining {
                cx.answer(token, JoinAnswer::error(former, fenced));
            }
            if let Some(token) = gone.syncing {
                cx.answer(token, SyncAnswer::error(fenced));
            }
            member.assignment = gone.assignment;
            member.joined = gone.joined;
            member.synced = gone.synced;
        }
        member.is_new = false;
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), id.to_owned());
        }
        self.members.insert(id.to_owned(), member);
        if led {
            self.leader = Some(id.to_owned());
        }
        self.touch(id, cx.now);
        self.count_bytes();
    }

    pub fn returned(&mut self, token: Token, answer: JoinAnswer, cx: &mut Context<'_>) {
        self.touch(&answer.member_id, cx.now);
        cx.answer(token, Answer::Join(answer));
    }
}
