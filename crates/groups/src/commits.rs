//! Offset commits, and deletions of offsets and of groups.

use std::collections::BTreeSet;

use crate::context::{After, Context};
use crate::group::{Group, Phase};
use crate::limits::{COMMIT_BYTES_MAX, OFFSET_METADATA_BYTES_MAX, OFFSETS_MAX, is_name};
use crate::offsets::OffsetChange;
use crate::planted::{self, Bug};
use crate::{Answer, Commit, CommitAnswer, DeleteOffsets, DeleteOffsetsAnswer, ErrorCode};
use crate::{OffsetRecord, PartitionAnswer, PartitionOffset, Record, Token, TopicPartition};

/// The protocol type of consumers, whose metadata says which topics they read.
const CONSUMER: &str = "consumer";

/// One answer for all partitions of a commit.
pub(crate) fn refuse(offsets: &[PartitionOffset], error: ErrorCode) -> Answer {
    let each = offsets.iter().map(|one| PartitionAnswer {
        at: one.at.clone(),
        error,
    });
    Answer::Commit(CommitAnswer {
        partitions: each.collect(),
    })
}

/// How long a text is as JSON, at most.
fn json_bytes(text: &str) -> usize {
    let each = text.bytes().map(|byte| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    });
    each.sum()
}

impl CommitAnswer {
    /// The offsets that were taken are not stored.
    pub(crate) fn refuse(&mut self, error: ErrorCode) {
        let taken = self.partitions.iter_mut();
        let taken = taken.filter(|one| one.error == ErrorCode::None);
        taken.for_each(|one| one.error = error);
    }
}

impl Group {
    pub fn commit(&mut self, commit: Commit, token: Token, cx: &mut Context<'_>) {
        let checked = self
            .check_committer(&commit, cx)
            .and_then(|()| self.check_size(&commit));
        if let Err(error) = checked {
            cx.answer(token, refuse(&commit.offsets, error));
            return;
        }
        let mut partitions = Vec::with_capacity(commit.offsets.len());
        let mut changes: Vec<OffsetChange> = Vec::with_capacity(commit.offsets.len());
        for one in commit.offsets {
            let error = if one.metadata.len() > OFFSET_METADATA_BYTES_MAX {
                ErrorCode::OffsetMetadataTooLarge
            } else if !is_name(&one.at.topic) {
                ErrorCode::UnknownTopicOrPartition
            } else {
                ErrorCode::None
            };
            let at = one.at.clone();
            partitions.push(PartitionAnswer { at, error });
            if error == ErrorCode::None {
                let record = OffsetRecord {
                    offset: one.offset,
                    leader_epoch: one.leader_epoch,
                    metadata: one.metadata,
                    committed_at: cx.now.unix_ms,
                };
                changes.push((one.at, record));
            }
        }
        self.store_offsets(changes, CommitAnswer { partitions }, token, cx);
    }

    fn store_offsets(
        &mut self,
        changes: Vec<OffsetChange>,
        answer: CommitAnswer,
        token: Token,
        cx: &mut Context<'_>,
    ) {
        if changes.is_empty() {
            cx.answer(token, Answer::Commit(answer));
            return;
        }
        let records = changes.iter().map(|(at, record)| Record::PutOffset {
            group: self.id.clone(),
            at: at.clone(),
            record: record.clone(),
        });
        let records = records.collect();
        self.offsets.wait(&changes);
        self.stores += 1;
        if planted::is(Bug::AnswerBeforeStored) {
            let answer = Answer::Commit(answer.clone());
            cx.answer(token, answer);
        }
        let after = After::Committed {
            token,
            changes,
            answer,
        };
        cx.store(&self.id, records, after);
    }

    fn check_committer(&mut self, commit: &Commit, cx: &Context<'_>) -> Result<(), ErrorCode> {
        if matches!(self.phase, Phase::Dead) {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        let id = commit.member_id.as_str();
        let instance = commit.instance_id.as_deref();
        if commit.generation < 0 && matches!(self.phase, Phase::Empty) {
            return Ok(());
        }
        self.check_member(id, instance, commit.generation)?;
        self.touch(id, cx.now);
        match self.phase {
            // A member that is to join again commits before it does.
            Phase::Stable | Phase::Preparing(_) => Ok(()),
            Phase::Completing { .. } => Err(ErrorCode::RebalanceInProgress),
            Phase::Empty | Phase::Dead => Err(ErrorCode::UnknownMemberId),
        }
    }

    fn check_size(&self, commit: &Commit) -> Result<(), ErrorCode> {
        let named: BTreeSet<_> = commit.offsets.iter().map(|one| &one.at).collect();
        let bytes = commit.offsets.iter().map(|one| {
            let stored = one.metadata.len() <= OFFSET_METADATA_BYTES_MAX;
            if stored { json_bytes(&one.metadata) } else { 0 }
        });
        if bytes.sum::<usize>() > COMMIT_BYTES_MAX
            || commit.offsets.len() > OFFSETS_MAX
            || self.offsets.len_with(named.into_iter()) > OFFSETS_MAX
        {
            return Err(ErrorCode::InvalidCommitOffsetSize);
        }
        Ok(())
    }

    pub fn delete_offsets(&mut self, delete: DeleteOffsets, token: Token, cx: &mut Context<'_>) {
        let consumers = self.protocol_type.as_deref() == Some(CONSUMER);
        let error = match self.phase {
            Phase::Dead => Some(ErrorCode::GroupIdNotFound),
            Phase::Empty => None,
            _ if consumers => None,
            _ => Some(ErrorCode::NonEmptyGroup),
        };
        if let Some(error) = error {
            cx.answer(token, DeleteOffsetsAnswer::error(error));
            return;
        }
        let named = delete.partitions.iter().all(|at| is_name(&at.topic));
        if delete.partitions.len() > OFFSETS_MAX || !named {
            cx.answer(token, DeleteOffsetsAnswer::error(ErrorCode::InvalidRequest));
            return;
        }
        let read =
            |topic: &str| !matches!(self.phase, Phase::Empty) && delete.subscribed.contains(topic);
        let each = delete.partitions.iter();
        let answers = each.map(|at| PartitionAnswer {
            at: at.clone(),
            error: if read(&at.topic) {
                ErrorCode::GroupSubscribedToTopic
            } else {
                ErrorCode::None
            },
        });
        let answers: Vec<_> = answers.collect();
        let mut partitions = delete.partitions;
        partitions.retain(|at| !read(&at.topic));
        let records = partitions.iter().map(|at| Record::DeleteOffset {
            group: self.id.clone(),
            at: at.clone(),
        });
        let records: Vec<_> = records.collect();
        if records.is_empty() {
            let (error, partitions) = (ErrorCode::None, answers);
            let answer = DeleteOffsetsAnswer { error, partitions };
            cx.answer(token, Answer::DeleteOffsets(answer));
            return;
        }
        self.stores += 1;
        let after = After::OffsetsDeleted {
            token,
            partitions,
            answers,
        };
        cx.store(&self.id, records, after);
    }

    pub fn offsets_deleted(
        &mut self,
        token: Token,
        partitions: &[TopicPartition],
        answers: Vec<PartitionAnswer>,
        result: Result<(), ErrorCode>,
        cx: &mut Context<'_>,
    ) {
        if let Err(error) = result {
            cx.answer(token, DeleteOffsetsAnswer::error(error));
            return;
        }
        for at in partitions {
            self.offsets.forget(at);
        }
        let (error, partitions) = (ErrorCode::None, answers);
        let answer = DeleteOffsetsAnswer { error, partitions };
        cx.answer(token, Answer::DeleteOffsets(answer));
    }

    pub fn delete_group(&mut self, token: Token, cx: &mut Context<'_>) {
        let error = match self.phase {
            Phase::Dead => ErrorCode::GroupIdNotFound,
            // Members that have an id and did not join yet get another one.
            Phase::Empty => {
                self.pending.clear();
                self.delete(Some(token), cx);
                return;
            }
            _ => ErrorCode::NonEmptyGroup,
        };
        cx.answer(token, Answer::DeleteGroup(error));
    }

    /// Stores the end of all records of the group, also of those that still wait to be stored: they
    /// come before.
    pub fn delete(&mut self, token: Option<Token>, cx: &mut Context<'_>) {
        self.phase = Phase::Dead;
        let group = &self.id;
        let mut records = vec![Record::DeleteGroup {
            group: group.clone(),
        }];
        let members = self.stored_members.iter();
        records.extend(members.map(|member| Record::DeleteMember {
            group: group.clone(),
            member: member.clone(),
        }));
        let offsets = self.offsets.partitions().into_iter();
        records.extend(offsets.map(|at| Record::DeleteOffset {
            group: group.clone(),
            at,
        }));
        self.stores += 1;
        cx.store(&self.id, records, After::Deleted { token });
    }
}
