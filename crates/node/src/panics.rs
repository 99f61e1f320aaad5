//! A panic on one of the node's threads is a failure of the node, with its message.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use onelog_replica::Failure;

/// Runs something; a panic is the failure of the thread. What the closure touches may be half
/// changed then: the caller MUST NOT go on with it.
pub(crate) fn guarded<R>(thread: &'static str, run: impl FnOnce() -> R) -> Result<R, Failure> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| Failure::Panicked {
        thread,
        message: message(panic.as_ref()),
    })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a message").to_owned()
}
