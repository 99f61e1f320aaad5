//! What one run of a program may use: steps, memory, stack, the size and depth of a value.
//!
//! The interpreter itself counts nothing and cannot be stopped from outside, and an error raised inside it
//! could be swallowed by the program (`try`). Therefore a spent budget unwinds, without a panic
//! message, to [`run`], which is the only way into the interpreter. All counts depend on program
//! and record alone, so that a program which fails once fails always; only the stack's limit
//! depends on the build.
//!
//! The counters belong to the thread and count nothing outside of [`run`].

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Evaluations and elements that one run may cost.
pub const STEPS_MAX: u64 = 10_000_000;
/// Bytes that one run may allocate for values and evaluations, counted as if nothing were given
/// back.
pub const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// Stack that one run may use beyond its caller's.
pub(super) const STACK_BYTES_MAX: usize = 640 << 10;
/// Size of one value, with what several of its parts share counted each time.
pub(super) const VALUE_BYTES_MAX: usize = 32 << 20;
/// How deep arrays and objects may nest; the deepest that the log's other readers take.
pub(super) const DEPTH_MAX: u32 = 127;
/// Bytes that are compared, searched or copied in one step.
const BYTES_PER_STEP: u64 = 64;
/// What an evaluation may leave behind: the interpreter keeps an iterator that has given a value
/// until it is known that no further one comes, in a loop one for each round. The costliest loop that
/// was measured allocated between four and five times this; the fuzz target holds what is allowed.
const EVALUATION_BYTES: u64 = 96;

/// Which limit a run has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Steps,
    Memory,
    /// Nesting of the program's own calls.
    Stack,
    ValueSize,
    /// The nesting of one value.
    Depth,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Steps => write!(f, "{STEPS_MAX} steps"),
            Self::Memory => write!(f, "{} MiB of memory", MEMORY_BYTES_MAX >> 20),
            Self::Stack => write!(f, "{} KiB of stack", STACK_BYTES_MAX >> 10),
            Self::ValueSize => write!(f, "{} MiB in one value", VALUE_BYTES_MAX >> 20),
            Self::Depth => write!(f, "{DEPTH_MAX} levels in one value"),
        }
    }
}

/// What a run has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Evaluations and elements.
    pub steps: u64,
    /// Bytes of memory for values and evaluations.
    pub memory_bytes: u64,
}

/// How a run ended before its time.
#[derive(Debug)]
pub(super) enum Stopped {
    Limit(Limit),
    /// By a panic inside the interpreter, with its message.
    Panic(String),
}

const UNMETERED: u64 = u64::MAX;

thread_local! {
    static STEPS_LEFT: Cell<u64> = const { Cell::new(UNMETERED) };
    static MEMORY_LEFT: Cell<u64> = const { Cell::new(UNMETERED) };
    static STACK_START: Cell<Option<usize>> = const { Cell::new(None) };
    static USED: Cell<Used> = const { Cell::new(Used { steps: 0, memory_bytes: 0 }) };
}

/// What the last run on this thread has counted, the call that passed a limit left out.
#[must_use]
pub fn used() -> Used {
    USED.get()
}

/// Ends the metering however a run ends.
struct Metered;

impl Metered {
    fn start() -> Self {
        STEPS_LEFT.set(STEPS_MAX);
        MEMORY_LEFT.set(MEMORY_BYTES_MAX);
        STACK_START.set(Some(stack_address()));
        Self
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        disarm();
    }
}

fn disarm() {
    if STEPS_LEFT.get() == UNMETERED {
        return;
    }
    USED.set(Used {
        steps: STEPS_MAX - STEPS_LEFT.get(),
        memory_bytes: MEMORY_BYTES_MAX - MEMORY_LEFT.get(),
    });
    STEPS_LEFT.set(UNMETERED);
    MEMORY_LEFT.set(UNMETERED);
    STACK_START.set(None);
}

/// Runs `work` within the limits.
pub(super) fn run<T>(work: impl FnOnce() -> T) -> Result<T, Stopped> {
    let metered = Metered::start();
    // What unwinding leaves behind half done belongs to `work` alone and is dropped with it.
    let done = catch_unwind(AssertUnwindSafe(work));
    drop(metered);
    done.map_err(|payload| match payload.downcast::<Limit>() {
        Ok(limit) => Stopped::Limit(*limit),
        Err(payload) => Stopped::Panic(panic_message(payload.as_ref())),
    })
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|&s| s.to_owned()))
        .unwrap_or_else(|| "without a message".to_owned())
}

/// Ends the run: the limit is passed.
pub(super) fn stop(limit: Limit) -> ! {
    // While unwinding, destructors must find nothing that stops them a second time.
    disarm();
    resume_unwind(Box::new(limit))
}

/// Counts evaluations or elements.
pub(super) fn step(count: u64) {
    let left = STEPS_LEFT.get();
    if left == UNMETERED {
        return;
    }
    match left.checked_sub(count) {
        Some(left) => STEPS_LEFT.set(left),
        None => stop(Limit::Steps),
    }
}

/// Counts bytes that are read from end to end.
pub(super) fn read(bytes: usize) {
    step(1 + bytes as u64 / BYTES_PER_STEP);
}

/// Counts bytes that are allocated, and the work of filling them.
pub(super) fn allocate(bytes: usize) {
    step(bytes as u64 / BYTES_PER_STEP);
    take_memory(bytes as u64);
}

fn take_memory(bytes: u64) {
    let left = MEMORY_LEFT.get();
    if left == UNMETERED {
        return;
    }
    match left.checked_sub(bytes) {
        Some(left) => MEMORY_LEFT.set(left),
        None => stop(Limit::Memory),
    }
}

/// Counts one evaluation of a term; every recursion of the interpreter passes here.
pub(super) fn evaluate() {
    step(1);
    take_memory(EVALUATION_BYTES);
    if let Some(start) = STACK_START.get()
        && start.abs_diff(stack_address()) > STACK_BYTES_MAX
    {
        stop(Limit::Stack);
    }
}

#[inline(never)]
fn stack_address() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(std::hint::black_box(&here)).addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_ends_the_run_and_the_next_run_starts_afresh() {
        for _ in 0..2 {
            let endless = run(|| -> () {
                loop {
                    step(1);
                }
            });
            assert!(matches!(endless, Err(Stopped::Limit(Limit::Steps))));
        }
        assert!(run(|| step(STEPS_MAX)).is_ok());
    }

    #[test]
    fn a_panic_inside_is_an_error_outside() {
        let stopped = run(|| -> () { panic!("the message") });
        assert!(matches!(stopped, Err(Stopped::Panic(message)) if message == "the message"));
    }

    #[test]
    fn outside_of_a_run_nothing_counts() {
        step(STEPS_MAX + 1);
        allocate(usize::MAX / 2);
        evaluate();
    }
}
