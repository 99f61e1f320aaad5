//! The command `onelog`.

mod args;
mod commands;
mod config;
mod confirm;
mod wire;

use std::process::ExitCode;

use clap::Parser;

/// Commits, memtables and checkpoints allocate many small pieces on different threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match cli.run() {
        Ok(status) => status,
        Err(error) => error.report(),
    }
}
