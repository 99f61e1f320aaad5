//! The checks of this repository that no other tool makes. Run as `cargo xtask COMMAND`, from any
//! folder of the repository.

mod again;
mod arrows;
mod deny;
mod files;
mod listed;
mod metadata;
mod ratchet;
mod rules;
mod source;
mod testing;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  tidy      check the rules of house: sizes, comments, docs, arrows between crates and
            their tables
  ratchet   lower the known faults in crates/xtask/ratchet.toml to those that are left;
            refuses when a rule has more of them than before
  deny      check licences, banned crates, duplicate versions and sources of all
            dependencies against deny.toml (all that `cargo deny check` does but advisories)
  tests     every test of the workspace, several binaries at once
  again [--times COUNT] [BINARY...]
            the test binaries about concurrency, or those named, a hundred times or COUNT times,
            every second time with busy processors; needs no server";

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{context}: {source}")]
    Io {
        context: String,
        source: std::io::Error,
    },
    #[error("{command} failed: {message}")]
    Command { command: String, message: String },
    #[error("{file}: {message}")]
    Data { file: String, message: String },
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => tidy::check(),
        ["ratchet"] => tidy::lower(),
        ["deny"] => deny::check(),
        ["tests"] => testing::run(),
        ["again", ref arguments @ ..] => again::run(arguments),
        ["-h" | "--help" | "help"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
