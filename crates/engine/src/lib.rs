//! Raft core, validator and numbering as one state machine without I/O, clock or threads.
//!
//! The shell tells the [`Engine`] what happened (a request came, a flush is done, time passed) and
//! carries out, in order, the [`Effect`]s that it answers with. All of it runs on one thread, so
//! validating, numbering and appending are one step, and whole clusters run in a simulator.

mod consensus;
mod engine;
mod replies;
mod tail;

pub use consensus::{ConsensusError, ConsensusOptions};
pub use engine::{Applied, Effect, Engine, EngineError, EngineOptions, Submission};
