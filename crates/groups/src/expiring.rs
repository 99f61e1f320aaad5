//! What a group does when time has passed.

use crate::context::{After, Context};
use crate::group::{Group, Phase};
use crate::limits::CLEANUP_INTERVAL_MS;
use crate::{Record, TopicPartition};

impl Group {
    /// Does all that is due and finds out when to look again.
    pub fn expire(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.monotonic_ms;
        self.expire_pending(now, cx);
        self.expire_sessions(now, cx);
        if matches!(&self.phase, Phase::Preparing(preparing) if preparing.deadline <= now) {
            self.end_of_waiting(cx);
        }
        self.expire_syncs(now, cx);
        if self.cleanup_at <= now {
            self.cleanup_at = cx.now.after(CLEANUP_INTERVAL_MS);
            self.clean_up(cx);
        }
        self.wake_at = self.first_deadline();
    }

    pub fn first_deadline(&self) -> u64 {
        let sessions = self.members.values().map(|one| one.deadline);
        let pending = self.pending.values().copied();
        let preparing = match &self.phase {
            Phase::Preparing(preparing) => Some(preparing.deadline),
            _ => None,
        };
        let all = sessions.chain(pending).chain(preparing);
        let all = all.chain(self.sync_deadline);
        all.min().unwrap_or(u64::MAX).min(self.cleanup_at)
    }

    fn expire_pending(&mut self, now: u64, cx: &mut Context<'_>) {
        let before = self.pending.len();
        self.pending.retain(|_, deadline| *deadline > now);
        if self.pending.len() < before {
            self.begin_if_all_joined(cx);
        }
    }

    fn expire_sessions(&mut self, now: u64, cx: &mut Context<'_>) {
        let due = self.members.iter().filter(|(_, one)| one.deadline <= now);
        let due: Vec<String> = due.map(|(id, _)| id.clone()).collect();
        for id in due {
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            // A member that waits for an answer cannot send heartbeats. It may have been answered
            // because another one was removed just now.
            if member.deadline > now {
                continue;
            }
            let waits = member.joining.is_some() && !member.is_new;
            if waits || member.syncing.is_some() {
                self.touch(&id, cx.now);
            } else {
                self.remove(&id, cx);
            }
        }
    }

    /// Removes members that joined this generation and did not come for their assignment, so that a
    /// leader that assigns nothing does not stop its group.
    fn expire_syncs(&mut self, now: u64, cx: &mut Context<'_>) {
        let due = self.sync_deadline.is_some_and(|deadline| deadline <= now);
        if !due {
            return;
        }
        self.sync_deadline = None;
        let generation = self.generation;
        let missing = self.members.iter();
        let missing = missing.filter(|(_, one)| !one.synced && one.joined == generation);
        let missing: Vec<String> = missing.map(|(id, _)| id.clone()).collect();
        for id in missing {
            self.remove(&id, cx);
        }
    }

    /// Forgets offsets that an empty group has kept long enough, and a group of which nothing is
    /// left.
    fn clean_up(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.phase, Phase::Empty) || !self.pending.is_empty() || self.stores > 0 {
            return;
        }
        if self.offsets.is_empty() {
            if self.stored || !self.stored_members.is_empty() {
                self.delete(None, cx);
            }
            return;
        }
        let kept = i64::try_from(cx.options.offsets_retention_ms).unwrap_or(i64::MAX);
        let before = cx.now.unix_ms.saturating_sub(kept);
        if self.emptied_at.is_some_and(|emptied| emptied > before) {
            return;
        }
        let old: Vec<TopicPartition> = self.offsets.older_than(before);
        if old.is_empty() {
            return;
        }
        let records = old.iter().map(|at| Record::DeleteOffset {
            group: self.id.clone(),
            at: at.clone(),
        });
        let records = records.collect();
        self.stores += 1;
        cx.store(&self.id, records, After::Expired { partitions: old });
    }
}
