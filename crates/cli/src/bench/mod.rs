//! `onelog bench`.

use std::process::ExitCode;

/// The arguments of `onelog bench`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the benchmark.
pub fn run(_args: Args) -> ExitCode {
    eprintln!("error: this build has no benchmark");
    ExitCode::FAILURE
}
