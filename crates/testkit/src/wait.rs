//! Waiting for a server: asking again and again, not for ever.

use std::thread;
use std::time::Duration;

/// Between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// Questions before a server is given up: 2 minutes and the time the questions take.
const QUESTIONS: usize = 6000;

/// Asks until the answer is yes.
///
/// # Errors
/// The last complaint when it never is.
pub fn until_ok(mut question: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..QUESTIONS {
        match question() {
            Ok(()) => return Ok(()),
            Err(problem) => last = problem,
        }
        thread::sleep(ASK_AGAIN);
    }
    Err(last)
}
