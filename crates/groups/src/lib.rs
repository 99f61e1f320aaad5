//! The coordinator of consumer groups (Kafka's classic protocol) as a state machine.
//!
//! Requests go in, answers and records to be stored come out. Nothing here does I/O, reads a clock,
//! draws a random number or knows the bytes of Kafka's protocol: the caller passes the moment, a
//! number for new member ids, and a [`Token`] for each request, under which its one answer leaves.
//!
//! Invariants:
//!
//! - A generation has one leader and one assignment for each member. A request that names a
//!   generation is served only if its member joined in exactly that generation.
//! - What an answer promises is stored: an offset commit, an assignment and a deletion are answered
//!   when the caller reports that their records are stored.
//! - Stores are reported in the order in which they came, and take effect then. A member gets the
//!   assignment of a generation after all offsets that were committed in the ones before are to be
//!   seen.
//! - Each request is answered: at once, when its records are stored, or by a deadline. A request that
//!   is repeated replaces the former one, which is answered then.
//! - All is bounded, see [`limits`].

mod answer;
mod commits;
mod completing;
mod context;
mod coordinator;
mod error;
mod expiring;
mod group;
mod instances;
mod joining;
mod leaving;
pub mod limits;
mod loading;
mod looking;
mod member;
mod offsets;
mod options;
pub mod planted;
mod protocols;
mod record;
mod request;
mod row;
mod time;

pub use answer::{
    Answer, CommitAnswer, DeleteOffsetsAnswer, JoinAnswer, JoinedMember, LeaveAnswer, Output,
    PartitionAnswer, SyncAnswer,
};
pub use coordinator::Coordinator;
pub use error::ErrorCode;
pub use group::State;
pub use loading::LoadError;
pub use looking::{Description, MemberDescription, Overview};
pub use options::Options;
pub use protocols::Protocol;
pub use record::{GroupRecord, MemberRecord, OffsetRecord, Record};
pub use request::{
    Commit, DeleteOffsets, Heartbeat, Join, Leave, LeavingMember, PartitionOffset, Request, Sync,
    TopicPartition,
};
pub use row::{Row, RowError};
pub use time::{Moment, Token};
