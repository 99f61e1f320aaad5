//! A panic on one of the node's threads is a failure of the node, with its message.

use std::panic::{AssertUnwindSafe, catch_unwind};

use onelog_record::panic_message;
use onelog_replica::Failure;

/// Runs something; a panic is the failure of the thread. What the closure touches may be half
/// changed then: the caller MUST NOT go on with it.
pub(crate) fn guarded<R>(thread: &'static str, run: impl FnOnce() -> R) -> Result<R, Failure> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| Failure::Panicked {
        thread,
        message: panic_message(panic.as_ref())
            .unwrap_or("without a message")
            .to_owned(),
    })
}
