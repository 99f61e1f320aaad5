//! The primitives that the queue is made of. They have a place of their own so that a model checker
//! can put its own there: `tests/handover.rs` runs the queue through every order of its threads'
//! steps.

pub(crate) use std::sync::Arc;

pub(crate) use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
pub(crate) use parking_lot::RwLock;
