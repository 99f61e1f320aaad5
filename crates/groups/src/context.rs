//! What a step on a group may read and add to.

use std::collections::VecDeque;

use crate::offsets::OffsetChange;
use crate::{
    Answer, CommitAnswer, JoinAnswer, Moment, Options, Output, PartitionAnswer, Record, Token,
    TopicPartition,
};

#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub now: Moment,
    pub options: &'a Options,
    pub out: &'a mut Vec<Output>,
    pub stores: &'a mut VecDeque<Waiting>,
}

/// A step that is to be stored, and what follows once it is.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub group: String,
    pub after: After,
}

#[derive(Debug)]
pub(crate) enum After {
    /// The leader's assignment is to be handed out.
    Assigned {
        generation: i32,
        gone: Vec<String>,
    },
    /// An instance has come back under a new id.
    Returned {
        token: Token,
        answer: JoinAnswer,
        gone: Vec<String>,
    },
    Emptied {
        gone: Vec<String>,
    },
    Committed {
        token: Token,
        changes: Vec<OffsetChange>,
        answer: CommitAnswer,
    },
    OffsetsDeleted {
        token: Token,
        partitions: Vec<TopicPartition>,
        answers: Vec<PartitionAnswer>,
    },
    Expired {
        partitions: Vec<TopicPartition>,
    },
    /// The whole group was deleted: by a client that waits, or because nothing is left of it.
    Deleted {
        token: Option<Token>,
    },
}

impl Context<'_> {
    pub fn answer(&mut self, token: Token, answer: Answer) {
        self.out.push(Output::Answer { token, answer });
    }

    pub fn store(&mut self, group: &str, records: Vec<Record>, after: After) {
        self.out.push(Output::Store(records));
        self.stores.push_back(Waiting {
            group: group.to_owned(),
            after,
        });
    }
}
