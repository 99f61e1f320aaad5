//! Raft core, validator and numbering as one state machine without I/O, clock or threads.
//!
//! Its driver reports to the [`Engine`] what happened (a request came, a flush is done, time passed)
//! and carries out, in order, the [`Effect`]s that it answers with. All of it runs on one thread, so
//! validating, numbering and appending are one step, and whole clusters run in a simulator. What
//! orders the entries is behind the trait [`Consensus`]; [`Raft`] implements it.

mod cluster;
mod confirming;
mod consensus;
mod engine;
pub mod planted;
mod raft;
mod replies;

pub use self::raft::{
    ELECTION_TICKS, Fetch, FetchId, MEMBERS_MAX, MESSAGE_BYTES_MAX, MemberChange, Members,
    MembersError, Message, MessageError, PeerProgress, READ_REPLICA, Raft, RaftOptions,
    SnapshotMark,
};
pub use onelog_commit::Prepared;

pub use consensus::{Consensus, ConsensusError, Progress};
pub use engine::{Applied, Effect, Engine, EngineError, EngineOptions, Submission};
