//! `onelog demo`, and the process that it starts to follow the log.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, FromArgMatches};
use onelog_command::{CommandError, Context};
use onelog_demo::{Addresses, DemoError, FollowOptions, Options, STORE_CLIENTS};

use crate::config::DEFAULT_LISTEN;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// End after the three parts instead of serving on
    #[arg(long)]
    exit: bool,
    #[command(flatten)]
    stores: Stores,
}

/// One flag for each kind of store that the demonstration has a client of.
#[derive(Clone, Debug, Default)]
struct Stores(Addresses);

impl clap::Args for Stores {
    fn augment_args(command: Command) -> Command {
        command.args(STORE_CLIENTS.iter().map(|client| {
            Arg::new(client.kind)
                .long(client.kind)
                .value_name("URL")
                .help(client.help)
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Stores {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = STORE_CLIENTS.iter().filter_map(|client| {
            let url = matches.get_one::<String>(client.kind)?;
            Some((client.kind, url.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    onelog_demo::run(&Options {
        addresses: args.stores.0.clone(),
        exit: args.exit,
        json: context.json,
        timeout: context.timeout,
        listen: DEFAULT_LISTEN.to_owned(),
    })
    .map_err(failed)
}

#[derive(Debug, clap::Args)]
pub struct FollowArgs {
    /// File of the SQLite database
    #[arg(long)]
    database: PathBuf,
    /// The table to follow
    #[arg(long)]
    table: String,
}

pub fn follow(args: &FollowArgs, context: &Context) -> Result<(), CommandError> {
    onelog_demo::follow(&FollowOptions {
        url: context.url.clone(),
        timeout: context.timeout,
        table: args.table.clone(),
        database: args.database.clone(),
    })
    .map_err(failed)
}

fn failed(error: DemoError) -> CommandError {
    match error {
        DemoError::Client(error) => CommandError::Client(error),
        DemoError::Usage(what) => CommandError::Usage(what),
        DemoError::Write { path, source } => CommandError::Write { path, source },
        DemoError::Output(error) => CommandError::Output(error),
        DemoError::Failed(what) => CommandError::Failed(what),
    }
}
