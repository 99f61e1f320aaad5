//! A replica outside the members: a read replica. It takes in what another server has committed, and
//! nothing else ever gets into its log.
//!
//! - Its number is [`READ_REPLICA`], which no member can have, so it never leads and never votes.
//! - All that it has is committed: its start replays the whole log, as that of a node alone does.
//! - To a state that it takes in it is added as a learner: Raft installs none without that.

use onelog_engine::{Members, MessageError, READ_REPLICA, SnapshotMark};
use onelog_record::Entry;
use onelog_state::{Head, Imported};

use crate::failure::Failure;
use crate::jobs::Outbox;
use crate::observer::Observer;
use crate::options::{FOUNDER, ReplicaOptions};
use crate::replica::Replica;
use crate::snapshots::ArrivedSnapshot;

/// What a read replica has got from the server that it follows. It is committed there.
#[derive(Debug)]
pub enum FromSource {
    /// The next entries. They MUST continue the log by its chain of checksums. What cannot be taken now
    /// is dropped, and what was taken before is passed over: the driver reports them again until they
    /// are applied.
    Entries(Vec<Entry>),
    /// A checkpoint in place of state and log. Its members MUST be [`with_read_replica`].
    State { head: Head, imported: Imported },
}

/// The head of another server's checkpoint, as a read replica takes it in.
///
/// # Errors
/// When its members cannot be read.
pub fn with_read_replica(head: Head) -> Result<Head, MessageError> {
    let mut members = match &head.members {
        Some(bytes) => Members::decode(bytes.clone())?,
        None => Members::alone(FOUNDER),
    };
    members.learners.insert(READ_REPLICA);
    Ok(Head {
        members: Some(members.encode().into()),
        ..head
    })
}

impl ReplicaOptions {
    pub(crate) fn is_read_replica(&self) -> bool {
        self.node == READ_REPLICA
    }
}

impl<T, O: Observer> Replica<T, O> {
    /// The server that this one follows has brought something.
    pub(crate) fn hears_source(
        &mut self,
        brought: FromSource,
        out: &mut Outbox<T>,
    ) -> Result<(), Failure> {
        assert!(
            self.options.is_read_replica(),
            "only a read replica follows another server"
        );
        match brought {
            FromSource::Entries(entries) => self.take_committed(&entries, out),
            FromSource::State { head, imported } => self.take_state(head, imported, out),
        }
    }

    fn take_committed(&mut self, entries: &[Entry], out: &mut Outbox<T>) -> Result<(), Failure> {
        let message = self.engine.raft().message_of_committed(FOUNDER, entries);
        match message.map_err(|cause| Failure::Engine(cause.into()))? {
            Some(message) => self.message_came(message, out),
            None => Ok(()),
        }
    }

    fn take_state(
        &mut self,
        head: Head,
        imported: Imported,
        out: &mut Outbox<T>,
    ) -> Result<(), Failure> {
        let members = head.members.clone().map(Members::decode);
        let Some(Ok(members)) = members else {
            tracing::warn!("a state came whose members cannot be read");
            return Ok(());
        };
        let mark = SnapshotMark {
            index: head.applied.index,
            term: head.applied.term,
            end: head.applied.position,
            members,
        };
        let message = self.engine.raft().message_of_state(FOUNDER, &mark);
        let arrived = ArrivedSnapshot {
            message,
            head,
            imported,
        };
        self.snapshot_came(arrived, out)
    }
}
