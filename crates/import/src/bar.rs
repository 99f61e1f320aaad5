//! The progress bar: on a terminal only, on standard error.

use std::io::{self, IsTerminal};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use onelog_terminal::thousands;

const WITH_END: &str = "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {msg}  {eta} left";
const WITHOUT_END: &str = "{spinner} {bytes}  {msg}  {elapsed}";

/// Shows how far an import is.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    started: Instant,
}

impl Bar {
    /// A bar for `total` bytes, of which `done` were done before; without a total, a counter.
    pub fn new(total: Option<u64>, done: u64, wanted: bool) -> Self {
        let visible = wanted && io::stderr().is_terminal();
        let target = match visible {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(total, target).with_position(done);
        let template = if total.is_some() {
            WITH_END
        } else {
            WITHOUT_END
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        // The time left is estimated from this run's speed alone.
        bar.reset_eta();
        Self {
            bar,
            started: Instant::now(),
        }
    }

    pub fn show(&self, bytes: u64, records: u64) {
        self.bar.set_position(bytes);
        let rate = rate(records, self.started.elapsed().as_secs_f64());
        self.bar.set_message(format!(
            "{} records, {}/s",
            thousands(records),
            thousands(rate)
        ));
    }

    /// Writes a line to standard error without disturbing the bar.
    pub fn warn(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Whole things per second.
pub fn rate(count: u64, seconds: f64) -> u64 {
    if seconds <= 0.0 {
        return 0;
    }
    (count as f64 / seconds).round() as u64
}
