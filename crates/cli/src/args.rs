//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[cfg(feature = "demo")]
use crate::commands::demo;
use crate::commands::{
    audit, backup, check, cluster, commit, config, delete, export, get, put, restore, scan, serve,
    sinks, status, tables, tail,
};
use onelog_command::{CommandError, Context};

/// A transactional log: write once, in order; every datastore follows.
#[derive(Debug, Parser)]
#[command(name = "onelog", version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 success, 1 an error or something wrong was found, 2 wrong use."
)]
pub struct Cli {
    #[command(flatten)]
    context: Context,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server on a data folder
    Serve(serve::Args),
    /// See what two writes to two stores do, and what onelog does about it
    #[cfg(feature = "demo")]
    Demo(demo::Args),
    /// Print the value of a key
    Get(get::Args),
    /// Write the value of a key
    Put(put::Args),
    /// Delete one key of a table
    Delete(delete::Args),
    /// List keys and values of a table
    Scan(scan::Args),
    /// Commit a transaction written as JSON
    Commit(commit::Args),
    /// Print the log's transactions, and follow it
    Tail(tail::Args),
    /// Write the lines of an NDJSON file into a table
    Import(onelog_import::Args),
    /// Print a table as NDJSON, all of it at one position
    Export(export::Args),
    /// List, make and delete tables
    Tables(tables::Args),
    /// List, make and command the stores that follow
    Sinks(sinks::Args),
    /// Print what is in force, for the configuration file
    Config(config::Args),
    /// Compare two stores of yours, without onelog: count and name the keys that differ
    Audit(audit::Args),
    /// Print what the server is doing
    Status(status::Args),
    /// Show and change who takes part in a cluster, and who leads
    Cluster(cluster::Args),
    /// Check the folder of a stopped server: every frame, every checksum, the state against the log
    Check(check::Args),
    /// Have the server copy its data, consistent, while it runs
    Backup(backup::Args),
    /// Check a backup and copy it into an empty folder
    Restore(restore::Args),
    #[cfg(feature = "demo")]
    #[command(name = onelog_demo::FOLLOW_COMMAND, hide = true)]
    Follow(demo::FollowArgs),
}

impl Cli {
    pub fn run(self) -> Result<ExitCode, CommandError> {
        let context = &self.context;
        match self.command {
            Command::Serve(args) => return serve::run(&args, context),
            #[cfg(feature = "demo")]
            Command::Demo(args) => demo::run(&args, context)?,
            Command::Get(args) => get::run(&args, context)?,
            Command::Put(args) => put::run(&args, context)?,
            Command::Delete(args) => delete::run(&args, context)?,
            Command::Scan(args) => scan::run(&args, context)?,
            Command::Commit(args) => commit::run(&args, context)?,
            Command::Tail(args) => tail::run(&args, context)?,
            Command::Import(args) => onelog_import::run(&args, context, onelog_stores::KINDS)?,
            Command::Export(args) => export::run(&args, context)?,
            Command::Tables(args) => tables::run(&args, context)?,
            Command::Sinks(args) => sinks::run(&args, context)?,
            Command::Config(args) => config::run(&args, context)?,
            Command::Audit(args) => audit::run(&args, context)?,
            Command::Status(args) => status::run(&args, context)?,
            Command::Cluster(args) => cluster::run(&args, context)?,
            Command::Check(args) => check::run(&args, context)?,
            Command::Backup(args) => backup::run(&args, context)?,
            Command::Restore(args) => restore::run(&args, context)?,
            #[cfg(feature = "demo")]
            Command::Follow(args) => demo::follow(&args, context)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
